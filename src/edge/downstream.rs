//! The client's side of one exchange, whatever it speaks.
//!
//! What is said is queued and leaves with [`Downstream::poll_flush`]; a caller stops queueing while [`Downstream::full`].

use super::answer::Reply;
use super::h1::H1;
use super::h2::H2;
use super::upload::Fault;
use crate::http1::{Head, Piece, ResponseHead};
use crate::model::policy::HeaderOps;
use bytes::{Bytes, BytesMut};
use std::io;
use std::task::{Context, Poll};

/// What an exchange leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The client has its answer, whole.
    Told,
    /// The answer broke off, and the client must see that.
    Truncated,
    /// The client is gone, or must be.
    Broken,
}

/// The client's side of one exchange.
pub(crate) enum Downstream<'c> {
    /// An HTTP/1 connection.
    H1(&'c mut H1),
    /// One request on an HTTP/2 connection.
    H2(&'c mut H2),
}

impl Downstream<'_> {
    /// The next piece of the request's body. After its end: the end again.
    pub(crate) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Fault>> {
        match self {
            Self::H1(c) => c.poll_body(cx),
            Self::H2(c) => c.poll_body(cx),
        }
    }
    /// The next piece, if it was received already.
    pub(crate) fn buffered_body(&mut self) -> Option<Result<Piece, Fault>> {
        match self {
            Self::H1(c) => c.buffered_body(),
            Self::H2(c) => c.buffered_body(),
        }
    }
    /// Ready when the client is gone for good.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::H1(c) => c.poll_gone(cx),
            Self::H2(c) => c.poll_gone(cx),
        }
    }
    /// The client ended its side of the connection: it may be gone, or wait for one last answer.
    pub(crate) fn half_closed(&self) -> bool {
        match self {
            Self::H1(c) => c.fin(),
            Self::H2(_) => false,
        }
    }
    /// Queue an interim answer.
    pub(crate) fn interim(&mut self, head: &ResponseHead) {
        match self {
            Self::H1(c) => c.interim(head),
            Self::H2(c) => c.interim(head),
        }
    }
    /// Queue the head of a backend's answer.
    pub(crate) fn head(&mut self, head: &ResponseHead, ops: &HeaderOps, region: Option<&str>) {
        match self {
            Self::H1(c) => c.head(head, ops, region),
            Self::H2(c) => c.head(head, ops, region),
        }
    }
    /// Queue a piece of its body. `Err`: more than its head promised.
    pub(crate) fn push(&mut self, data: Bytes) -> Result<(), ()> {
        match self {
            Self::H1(c) => c.push(data),
            Self::H2(c) => c.push(data),
        }
    }
    /// Queue its end. `Err`: less than its head promised.
    pub(crate) fn end(&mut self, trailers: Option<&Head>) -> Result<(), ()> {
        match self {
            Self::H1(c) => c.end(trailers),
            Self::H2(c) => c.end(trailers),
        }
    }
    /// Queue an answer of our own, whole.
    pub(crate) fn say(&mut self, reply: &Reply) {
        match self {
            Self::H1(c) => c.say(reply),
            Self::H2(c) => c.say(reply),
        }
    }
    /// So much is queued that nothing should be added.
    pub(crate) fn full(&self) -> bool {
        match self {
            Self::H1(c) => c.backlog() >= 128 << 10,
            Self::H2(c) => c.backlog() >= 128 << 10,
        }
    }
    /// Whether anything is queued.
    pub(crate) fn idle(&self) -> bool {
        match self {
            Self::H1(c) => c.backlog() == 0,
            Self::H2(c) => c.backlog() == 0,
        }
    }
    /// Ready when everything queued is on its way.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::H1(c) => c.poll_flush(cx),
            Self::H2(c) => c.poll_flush(cx),
        }
    }
    /// Whether the client speaks HTTP/2.
    pub(crate) fn http2(&self) -> bool {
        matches!(self, Self::H2(_))
    }
    /// Queue bytes of a tunnel. HTTP/2 requests never ask for one.
    pub(crate) fn push_raw(&mut self, data: Bytes) {
        match self {
            Self::H1(c) => c.push_raw(data),
            Self::H2(_) => drop(data),
        }
    }
    /// The next bytes of a tunnel; empty: the client sends no more.
    pub(crate) fn poll_raw(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<BytesMut>> {
        match self {
            Self::H1(c) => c.poll_raw(cx),
            Self::H2(_) => Poll::Ready(Ok(BytesMut::new())),
        }
    }
    /// No more bytes come for the client through the tunnel.
    pub(crate) fn poll_end_raw(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::H1(c) => c.poll_shutdown(cx),
            Self::H2(_) => Poll::Ready(()),
        }
    }
    /// For the access log.
    pub(crate) fn protocol(&self) -> &'static str {
        match self {
            Self::H1(c) => c.protocol(),
            Self::H2(_) => "HTTP/2",
        }
    }
}
