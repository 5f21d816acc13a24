//! A byte stream to an endpoint, whatever carries it.

use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Anything that tests or other transports may plug in.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A byte stream to an endpoint.
pub enum Stream {
    /// TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
    /// Something else, e.g. a pipe in virtual time.
    Other(Box<dyn Io>),
}

/// How far the peer's kernel has got with what we wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Segments sent and not acknowledged.
    pub unacked: u32,
    /// Bytes still in our own kernel.
    pub unsent: u32,
    /// Smoothed round-trip time.
    pub rtt: Duration,
}

impl Delivery {
    /// Whether the peer's kernel has everything.
    pub fn complete(&self) -> bool {
        self.unacked == 0 && self.unsent == 0
    }
}

impl Stream {
    /// The TCP connection below, where there is one.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(s) => Some(s),
            Self::Tls(s) => Some(s.get_ref().0),
            Self::Other(_) => None,
        }
    }

    /// What was agreed on in the TLS handshake; `None`: nothing, or there was none.
    pub fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::Tls(s) => s.get_ref().1.alpn_protocol(),
            Self::Plain(_) | Self::Other(_) => None,
        }
    }

    /// What the kernel knows of the peer's acknowledgements (`TCP_INFO`, one system call); `None` where
    /// there is no TCP, or the connection is already broken.
    pub fn delivery(&self) -> Option<Delivery> {
        const ESTABLISHED: u8 = 1;
        const CLOSE_WAIT: u8 = 8;
        let info = pingora_core::protocols::l4::ext::get_tcp_info(self.tcp()?.as_raw_fd()).ok()?;
        matches!(info.tcpi_state, ESTABLISHED | CLOSE_WAIT).then(|| Delivery {
            unacked: info.tcpi_unacked,
            unsent: info.tcpi_notsent_bytes,
            rtt: Duration::from_micros(info.tcpi_rtt.into()),
        })
    }

    /// Whether an idle connection is still good: open, and the peer has said nothing. Bytes that come
    /// unasked would be taken for the answer to the next request (response queue poisoning).
    /// Costs a system call only where the reactor has seen something happen on the socket.
    pub fn is_quiet(&mut self) -> bool {
        let mut byte = [0u8; 1];
        if let Self::Plain(s) = self {
            return matches!(s.try_read(&mut byte), Err(e) if e.kind() == io::ErrorKind::WouldBlock);
        }
        // TLS has to digest its own records first (session tickets arrive late), hence through the stream.
        Pin::new(self).poll_read(&mut Context::from_waker(Waker::noop()), &mut ReadBuf::new(&mut byte)).is_pending()
    }
}

macro_rules! each {
    ($self:ident, $s:ident => $e:expr) => {
        match $self.get_mut() {
            Stream::Plain($s) => {
                let $s = Pin::new($s);
                $e
            }
            Stream::Tls($s) => {
                let $s = Pin::new($s.as_mut());
                $e
            }
            Stream::Other($s) => {
                let $s = Pin::new($s.as_mut());
                $e
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, s => s.poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, s => s.poll_write(cx, buf))
    }
    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        each!(self, s => s.poll_write_vectored(cx, bufs))
    }
    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(s) => s.is_write_vectored(),
            Self::Tls(s) => s.is_write_vectored(),
            Self::Other(s) => s.is_write_vectored(),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, s => s.poll_flush(cx))
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, s => s.poll_shutdown(cx))
    }
}
