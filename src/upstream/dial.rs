//! Opening connections.

use super::stream::Stream;
use super::tls::ClientTls;
use crate::model::topology::{IdleConnections, Protocol};
use rustls::pki_types::ServerName;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// Written bytes may stay unacknowledged this long before the kernel gives the connection up. Attempts
/// have their own, much shorter limits; this one reaps streams and tunnels whose peer lost power.
const USER_TIMEOUT: Duration = Duration::from_secs(30);
/// Likewise for streams and tunnels on which nobody writes: probed after this long a silence.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// Where a connection goes, and under which conditions.
#[derive(Clone, Debug)]
pub struct Target {
    /// Stable identity of the endpoint: the key of its idle connections.
    pub id: u64,
    /// Its address.
    pub address: SocketAddr,
    /// Of its pool: connections dialled under another one are not reused.
    pub epoch: u32,
    /// For TCP, and once more for the TLS handshake.
    pub connect_timeout: Duration,
    /// Idle connections of this thread to this endpoint: `max` and `warm` are the thread's part of the configured ones.
    pub idle: IdleConnections,
    /// What to speak. `Auto` without TLS is HTTP/1.1: there is nothing to agree by.
    pub protocol: Protocol,
    /// TLS and the name to ask for.
    pub tls: Option<(Arc<ClientTls>, ServerName<'static>)>,
}

impl Target {
    /// For a request that only HTTP/1.1 can carry (an upgrade), where the endpoint lets us choose.
    #[must_use]
    pub fn over_http1(mut self) -> Self {
        if self.protocol == Protocol::Auto {
            self.protocol = Protocol::Http1;
        }
        self
    }
    /// Whether a connection may turn out to be HTTP/2.
    pub(super) fn may_be_h2(&self) -> bool {
        match self.protocol {
            Protocol::Http1 => false,
            Protocol::H2 => true,
            Protocol::Auto => self.tls.is_some(),
        }
    }
}

/// A connection that could not be had. No byte of any request was handed over.
#[derive(Debug)]
pub struct DialError {
    /// Where to.
    pub address: SocketAddr,
    /// At which step: `connect`, `tls handshake` or `http/2`.
    pub step: &'static str,
    /// Why; of kind `TimedOut` where the time ran out.
    pub source: io::Error,
}

impl DialError {
    /// Whether the time ran out (and not: somebody said no).
    pub fn timed_out(&self) -> bool {
        self.source.kind() == io::ErrorKind::TimedOut
    }
}
impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}: {}", self.step, self.address, self.source)
    }
}
impl std::error::Error for DialError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// A dial in progress.
pub type Dialling<'a> = Pin<Box<dyn Future<Output = Result<Stream, DialError>> + 'a>>;

/// Opens connections. Tests plug in their own.
pub trait Dial {
    /// Opens one connection, within the target's time.
    fn dial<'a>(&'a self, to: &'a Target) -> Dialling<'a>;
}

/// TCP, and TLS where the target wants it.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpDial;

impl Dial for TcpDial {
    fn dial<'a>(&'a self, to: &'a Target) -> Dialling<'a> {
        Box::pin(async move {
            let fail = |step| move |source| DialError { address: to.address, step, source };
            let tcp = within(to.connect_timeout, TcpStream::connect(to.address)).await.map_err(fail("connect"))?;
            tune(&tcp);
            match &to.tls {
                None => Ok(Stream::Plain(tcp)),
                Some((tls, name)) => {
                    let handshake = tls.connector(to.protocol).connect(name.clone(), tcp);
                    let stream = within(to.connect_timeout, handshake).await.map_err(fail("tls handshake"))?;
                    Ok(Stream::Tls(Box::new(stream)))
                }
            }
        })
    }
}

async fn within<T>(time: Duration, f: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(time, f).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Options that can fail only where the kernel lacks them; a connection without them still serves.
fn tune(tcp: &TcpStream) {
    let socket = socket2::SockRef::from(tcp);
    _ = socket.set_tcp_nodelay(true);
    #[cfg(target_os = "linux")]
    {
        _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
    }
    _ = socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(KEEPALIVE_IDLE));
}
