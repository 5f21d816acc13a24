//! The request on its way out: what is queued, what is held back, and how much the peer may have seen.

use super::conn::Begin;
use super::stream::Stream;
use super::tail::Tail;
use crate::http1::{BodyError, BodyFraming, Encoder, Head};
use crate::model::outcome::Sent;
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// Queued bytes above which the caller should stop pushing.
const BACKLOG: usize = 64 << 10;
/// Pieces up to this size are copied behind what is queued; larger ones are queued as they are.
const COPIED: usize = 2 << 10;
/// Buffers in one `writev`.
const IOV: usize = 16;

/// One request, head first.
pub(super) struct Outbox {
    queue: VecDeque<Bytes>,
    /// Stands behind the queue.
    tail: Tail,
    /// The end of the request, until it is released.
    held: Option<Bytes>,
    hold: bool,
    /// Bytes at the front that go out in a segment of their own. A receiver delays its acknowledgement of one small segment by
    /// 40 ms (Linux), but not of two; whoever holds a byte back waits for exactly that.
    apart: usize,
    encoder: Encoder,
    /// Nothing more will be pushed.
    complete: bool,
    written: u64,
    unflushed: bool,
    error: Option<io::Error>,
}

impl Outbox {
    /// Of a connection on which nothing was asked yet.
    pub fn empty() -> Self {
        Self {
            queue: VecDeque::new(),
            tail: Tail::default(),
            held: None,
            hold: false,
            apart: 0,
            encoder: Encoder::new(BodyFraming::None),
            complete: false,
            written: 0,
            unflushed: false,
            error: None,
        }
    }

    /// A request begins, on a connection that is done with the one before.
    pub fn begin(&mut self, begin: Begin) {
        debug_assert!(self.queue.is_empty() && self.tail.is_empty());
        (self.hold, self.apart) = (begin.hold, if begin.hold { begin.head.len() - 2 } else { 0 });
        (self.tail, self.held, self.encoder) = (Tail::new(begin.head), None, Encoder::new(begin.framing));
        (self.complete, self.written, self.unflushed, self.error) = (self.encoder.is_done(), 0, true, None);
        if self.complete && self.hold {
            self.held = Some(self.tail.split_last());
        }
    }

    /// Lets go of memory between two requests.
    pub fn rest(&mut self) {
        self.tail.rest();
        self.queue.shrink_to(0);
    }

    pub fn push(&mut self, mut data: Bytes) -> Result<(), BodyError> {
        if data.is_empty() {
            return Ok(());
        }
        let frame = self.encoder.frame(data.len())?;
        if self.encoder.is_done() {
            self.complete = true;
            if self.hold {
                self.held = Some(data.split_off(data.len() - 1));
            }
        }
        self.tail.behind().extend_from_slice(frame.before());
        if data.len() > COPIED {
            if !self.tail.is_empty() {
                self.queue.push_back(self.tail.freeze());
            }
            self.queue.push_back(data);
        } else {
            self.tail.behind().extend_from_slice(&data);
        }
        self.tail.behind().extend_from_slice(frame.after());
        self.unflushed = true;
        Ok(())
    }

    pub fn finish(&mut self, trailers: Option<&Head>) -> Result<(), BodyError> {
        if self.complete {
            return Ok(());
        }
        if self.hold {
            let mut last = Vec::new();
            self.encoder.end(trailers, &mut last)?;
            self.held = Some(last.into());
        } else {
            self.encoder.end(trailers, self.tail.behind())?;
        }
        self.complete = true;
        self.unflushed = true;
        Ok(())
    }

    pub fn release(&mut self) {
        self.hold = false;
        if let Some(last) = self.held.take() {
            self.tail.behind().extend_from_slice(&last);
            self.unflushed = true;
        }
    }

    /// Everything but the held end was handed over.
    pub fn is_held(&self) -> bool {
        self.held.is_some() && !self.unflushed && self.error.is_none()
    }

    pub fn wants_body(&self) -> bool {
        !self.complete && self.error.is_none() && self.backlog() < BACKLOG
    }

    pub fn backlog(&self) -> usize {
        self.tail.len() + self.queue.iter().map(Bytes::len).sum::<usize>()
    }

    pub fn sent(&self) -> Sent {
        match self.written {
            0 => Sent::Nothing,
            _ if self.complete && self.held.is_none() && self.queue.is_empty() && self.tail.is_empty() => Sent::Complete,
            _ => Sent::Incomplete,
        }
    }

    pub fn failed(&self) -> bool {
        self.error.is_some()
    }
    pub fn take_error(&mut self) -> Option<io::Error> {
        self.error.take()
    }

    /// Writes what the peer takes. Ready when nothing is left to write, or writing failed; `true`: something was
    /// written to its end just now of which somebody may want to hear, because more of the request is to come.
    pub fn poll_send(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<bool> {
        if !self.unflushed || self.error.is_some() {
            return Poll::Ready(false);
        }
        match ready!(self.poll_flush(stream, cx)) {
            Ok(()) => {
                self.unflushed = false;
                Poll::Ready(!self.complete || self.held.is_some())
            }
            Err(e) => {
                self.error = Some(e);
                Poll::Ready(false)
            }
        }
    }

    fn poll_flush(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !(self.queue.is_empty() && self.tail.is_empty()) {
            let n = ready!(self.poll_write(stream, cx))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.wrote(n);
        }
        // TCP needs none; TLS may still hold records.
        if matches!(stream, Stream::Plain(_)) { Poll::Ready(Ok(())) } else { Pin::new(stream).poll_flush(cx) }
    }

    fn poll_write(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.apart > 0 {
            let front = self.queue.front().map_or(self.tail.unwritten(), |b| b);
            return Pin::new(stream).poll_write(cx, &front[..self.apart.min(front.len())]);
        }
        if self.queue.is_empty() {
            return Pin::new(stream).poll_write(cx, self.tail.unwritten());
        }
        let mut slices = [IoSlice::new(&[]); IOV];
        let mut used = 0;
        for (slot, part) in slices.iter_mut().zip(self.queue.iter().map(|b| &b[..]).chain([self.tail.unwritten()])) {
            *slot = IoSlice::new(part);
            used += 1;
        }
        Pin::new(stream).poll_write_vectored(cx, &slices[..used])
    }

    fn wrote(&mut self, mut n: usize) {
        self.written += n as u64;
        self.apart = self.apart.saturating_sub(n);
        while let Some(front) = self.queue.front_mut() {
            if n < front.len() {
                front.advance(n);
                return;
            }
            n -= front.len();
            self.queue.pop_front();
        }
        self.tail.wrote(n);
    }
}
