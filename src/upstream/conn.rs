//! A connection to an endpoint as an exchange sees it, whatever it speaks: one shape for HTTP/1.1 and for a stream of HTTP/2.
//!
//! ```text
//! begin(head) ── push(data)* ── finish(trailers) ─┐           written as the peer takes it
//!                                     [release()] │           the end of the request, where it is held back
//! event(): Flushed | Heard | Interim* | Head | Data* | End    read as the caller asks for it
//! ```
//!
//! The request's head is HTTP/1.1 text in both cases, since that is what the strict codec writes and what a first connection, of
//! which nobody knows yet what it will speak, can be prepared with. HTTP/2 translates it (`http1::over_http2`).

use super::h1;
use super::h2::Call;
use super::stream::{Delivery, Stream};
use crate::http1::{BodyError, BodyFraming, Head, ResponseHead};
use crate::model::outcome::Sent;
use bytes::Bytes;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

/// What an exchange begins with.
#[derive(Debug)]
pub struct Begin {
    /// The request head as it goes out, the empty line included.
    pub head: Vec<u8>,
    /// How the body is sent, as the head says.
    pub framing: BodyFraming,
    /// The request is HEAD: its answer has no body.
    pub is_head: bool,
    /// The head asks for an upgrade.
    pub upgrade: bool,
    /// Keep the last byte of the request until [`Conn::release`].
    pub hold: bool,
}

/// What happened on a connection.
#[derive(Debug)]
pub enum Event {
    /// All that was pushed has been handed to the kernel (but for a held byte).
    Flushed,
    /// The first bytes of the answer came, but not yet its whole head.
    Heard,
    /// An interim answer; another head follows.
    Interim(Box<ResponseHead>),
    /// The answer's head; 101 included, after which [`Conn::into_upgraded`] has the stream.
    Head(Box<ResponseHead>),
    /// A stretch of the answer's body.
    Data(Bytes),
    /// The end of the answer. Comes once, also after an answer without body.
    End(Option<Box<Head>>),
}

/// Why an exchange broke.
#[derive(Debug)]
pub enum Failure {
    /// The peer closed before its answer began.
    Closed,
    /// The connection broke.
    Broken(io::Error),
    /// The peer said that it has not looked at the request and will not (REFUSED_STREAM): it has too much to do.
    Refused,
    /// The peer said that it takes no more requests on this connection, this one included (GOAWAY below its stream).
    Leaving,
    /// The answer cannot be understood.
    Malformed(&'static str),
    /// The answer began, but its end never came.
    Truncated,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("connection closed without an answer"),
            Self::Broken(e) => write!(f, "connection broke: {e}"),
            Self::Refused => f.write_str("the stream was refused"),
            Self::Leaving => f.write_str("the peer takes no more requests on this connection"),
            Self::Malformed(why) => write!(f, "malformed answer: {why}"),
            Self::Truncated => f.write_str("answer broke off"),
        }
    }
}
impl std::error::Error for Failure {}

/// A connection, or one stream of it, for one exchange.
#[derive(Debug)]
pub enum Conn {
    /// A connection of its own.
    H1(Box<h1::Conn>),
    /// A stream of a shared one.
    H2(Box<Call>),
}

macro_rules! both {
    ($self:ident, $c:ident => $e:expr) => {
        match $self {
            Conn::H1($c) => $e,
            Conn::H2($c) => $e,
        }
    };
}

impl Conn {
    /// Whether it was there before this request. One that breaks without a byte heard was probably closed by an
    /// endpoint that had not seen the request yet: what is safe to repeat is repeated on a fresh connection.
    pub fn is_reused(&self) -> bool {
        both!(self, c => c.is_reused())
    }
    /// The endpoint's id.
    pub fn endpoint(&self) -> u64 {
        both!(self, c => c.endpoint())
    }
    /// Whether any byte of an answer came.
    pub fn heard(&self) -> bool {
        both!(self, c => c.heard())
    }
    /// Begins an exchange. Nothing is written before [`Conn::event`] is awaited.
    pub fn begin(&mut self, begin: Begin) {
        both!(self, c => c.begin(begin));
    }
    /// Queues a stretch of the request's body. `Err`: more than the head promised.
    pub fn push(&mut self, data: Bytes) -> Result<(), BodyError> {
        both!(self, c => c.push(data))
    }
    /// Ends the request's body. `Err`: less than the head promised; the connection is of no use any more.
    pub fn finish(&mut self, trailers: Option<&Head>) -> Result<(), BodyError> {
        both!(self, c => c.finish(trailers))
    }
    /// Lets the held end of the request go, now or as soon as it is pushed.
    pub fn release(&mut self) {
        both!(self, c => c.release());
    }
    /// Whether everything but the held end was handed to the kernel: the moment to ask [`Conn::delivery`]
    /// and to [`Conn::release`].
    pub fn is_held(&self) -> bool {
        both!(self, c => c.is_held())
    }
    /// Whether more of the body may be pushed.
    pub fn wants_body(&self) -> bool {
        both!(self, c => c.wants_body())
    }
    /// Bytes queued and not yet on their way.
    pub fn backlog(&self) -> usize {
        both!(self, c => c.backlog())
    }
    /// How much of the request the endpoint may have seen; `Nothing` also where it said that it has not looked at it.
    pub fn sent(&self) -> Sent {
        both!(self, c => c.sent())
    }
    /// What the peer's kernel has acknowledged; see [`Stream::delivery`].
    pub fn delivery(&self) -> Option<Delivery> {
        both!(self, c => c.delivery())
    }
    /// Whether the answer is complete (its `End` may still have to be fetched).
    pub fn is_complete(&self) -> bool {
        both!(self, c => c.is_complete())
    }
    /// Whether it can be given back for another request; a stream never can, and need not.
    pub fn is_reusable(&self) -> bool {
        matches!(self, Self::H1(c) if c.is_reusable())
    }
    /// After 101: the stream, and what the endpoint has already said on it. HTTP/2 has no such thing.
    pub fn into_upgraded(self) -> Option<(Stream, Bytes)> {
        match self {
            Self::H1(c) => Some(c.into_upgraded()),
            Self::H2(_) => None,
        }
    }
    /// What happens next. After `End`, 101 or a failure there is nothing more to wait for.
    pub async fn event(&mut self) -> Result<Event, Failure> {
        poll_fn(|cx| self.poll_event(cx)).await
    }
    /// [`Conn::event`] for those who poll.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Failure>> {
        both!(self, c => c.poll_event(cx))
    }
    /// Write what is queued without reading: while the answer's taker has no room, the request still goes on.
    /// Ready when nothing is left to write; an error is told by the next [`Conn::poll_event`].
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        both!(self, c => c.poll_send(cx))
    }
}
