//! One HTTP/1.1 connection to an endpoint, and the exchange that runs on it.
//!
//! ```text
//! begin(head) ── push(data)* ── finish(trailers) ─┐           written as the peer takes it
//!                                     [release()] │           the final byte, where it is held back
//! event(): Flushed | Heard | Interim* | Head | Data* | End    read as the caller asks for it
//! ```
//!
//! Both directions run at once: [`Conn::poll_event`] writes what is queued and reads what has come, so an
//! answer before the end of the request is seen at once. It may be dropped at any await without loss.
//!
//! **Back-pressure.** Reading happens only while `event` is awaited; writing is bounded by the caller, who
//! stops pushing while [`Conn::wants_body`] is false.
//!
//! **The held byte.** With `hold`, the last byte of the request (of its body, of the last chunk, or of a head
//! without body) is kept until [`Conn::release`]. An endpoint that applies only complete requests cannot have
//! applied one whose last byte never left this process, so it may be sent elsewhere even when it is a write.

use super::conn::{Begin, Event, Failure};
use super::dial::Target;
use super::outbox::Outbox;
use super::spare;
use super::stream::{Delivery, Stream};
use crate::http1::{BodyError, BodyFraming, Decoder, Head, Piece, ResponseParser};
use crate::model::outcome::Sent;
use crate::model::topology::IdleConnections;
use bytes::{Bytes, BytesMut};
use rustls::pki_types::ServerName;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncReadExt;

/// The first read: most answers fit, and only the pages that are written to cost anything.
const FIRST_READ: usize = 16 << 10;
/// Less room than that is not worth a system call.
const LEAST_READ: usize = 8 << 10;
/// Later reads.
const READ: usize = 64 << 10;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Nothing asked yet.
    Idle,
    /// Waiting for the (next) head.
    Head,
    /// Reading the body.
    Body,
    /// The answer is complete, `End` not yet said.
    Ended,
    /// `End` was said.
    Done,
    /// Another protocol runs.
    Upgraded,
    /// Broken.
    Failed,
}

/// Where an idle connection belongs.
pub(super) struct Home {
    pub id: u64,
    pub epoch: u32,
    pub idle: IdleConnections,
    pub name: Option<ServerName<'static>>,
}

/// A connection to an endpoint.
pub struct Conn {
    stream: Stream,
    home: Home,
    reused: bool,
    out: Outbox,
    input: BytesMut,
    heard: bool,
    parser: ResponseParser,
    decoder: Decoder,
    phase: Phase,
    keep_alive: bool,
    grow: usize,
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Conn(endpoint {}, {:?}, sent {:?})", self.home.id, self.phase, self.sent())
    }
}

impl Conn {
    pub(super) fn new(stream: Stream, to: &Target) -> Self {
        let home = Home { id: to.id, epoch: to.epoch, idle: to.idle, name: to.tls.as_ref().map(|(_, n)| n.clone()) };
        Self {
            stream,
            home,
            reused: false,
            out: Outbox::empty(),
            input: BytesMut::new(),
            heard: false,
            parser: ResponseParser::new(false, false),
            decoder: Decoder::new(BodyFraming::None),
            phase: Phase::Idle,
            keep_alive: true,
            grow: FIRST_READ,
        }
    }

    /// Whether it carried a request before. One that breaks without a byte heard was probably closed by an
    /// endpoint that had not seen the request yet: what is safe to repeat is repeated on a fresh connection.
    pub fn is_reused(&self) -> bool {
        self.reused
    }
    /// The endpoint's id.
    pub fn endpoint(&self) -> u64 {
        self.home.id
    }
    /// Whether any byte of an answer came.
    pub fn heard(&self) -> bool {
        self.heard
    }

    /// Begins an exchange. Nothing is written before [`Conn::poll_event`] is asked.
    pub fn begin(&mut self, begin: Begin) {
        debug_assert!(self.phase == Phase::Idle);
        self.parser = ResponseParser::new(begin.is_head, begin.upgrade);
        self.phase = Phase::Head;
        self.out.begin(begin);
    }

    /// Queues a stretch of the request's body. `Err`: more than the head promised.
    pub fn push(&mut self, data: Bytes) -> Result<(), BodyError> {
        self.out.push(data)
    }

    /// Ends the request's body. `Err`: less than the head promised; the connection is of no use any more.
    pub fn finish(&mut self, trailers: Option<&Head>) -> Result<(), BodyError> {
        self.out.finish(trailers)
    }

    /// Lets the held end of the request go, now or as soon as it is pushed.
    pub fn release(&mut self) {
        self.out.release();
    }

    /// Whether everything but the held end was handed to the kernel: the moment to ask [`Conn::delivery`]
    /// and to [`Conn::release`].
    pub fn is_held(&self) -> bool {
        self.out.is_held()
    }

    /// Whether more of the body may be pushed.
    pub fn wants_body(&self) -> bool {
        self.out.wants_body()
    }

    /// Bytes queued and not yet handed to the kernel.
    pub fn backlog(&self) -> usize {
        self.out.backlog()
    }

    /// How much of the request the endpoint may have seen. `Complete` from the moment the last byte is handed
    /// to the kernel (or to TLS), `Nothing` until the first one is.
    pub fn sent(&self) -> Sent {
        self.out.sent()
    }

    /// What the peer's kernel has acknowledged; see [`Stream::delivery`].
    pub fn delivery(&self) -> Option<Delivery> {
        self.stream.delivery()
    }

    /// Whether the answer is complete (its `End` may still have to be fetched).
    pub fn is_complete(&self) -> bool {
        matches!(self.phase, Phase::Ended | Phase::Done)
    }

    /// Whether it can carry another request: the answer is complete, nothing of the request is left, both
    /// sides want to go on, and no byte came that nobody asked for.
    pub fn is_reusable(&self) -> bool {
        matches!(self.phase, Phase::Ended | Phase::Done)
            && self.keep_alive
            && self.input.is_empty()
            && !self.out.failed()
            && self.sent() == Sent::Complete
    }

    /// Lets go of all memory that a connection without an exchange does not need.
    pub(super) fn rest(&mut self) {
        (self.phase, self.heard, self.grow) = (Phase::Idle, false, FIRST_READ);
        self.out.rest();
        spare::give(std::mem::take(&mut self.input));
    }

    /// Whether it may go to this target: of its epoch, and under the name that is asked for.
    pub(super) fn suits(&self, to: &Target) -> bool {
        self.home.epoch == to.epoch && self.home.name.as_ref() == to.tls.as_ref().map(|(_, n)| n)
    }

    /// Taken out for another exchange.
    pub(super) fn reuse(&mut self, to: &Target) {
        (self.home.id, self.home.idle, self.reused) = (to.id, to.idle, true);
    }

    pub(super) fn home(&self) -> &Home {
        &self.home
    }

    /// Still open, and nothing unasked was said on it.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.stream.is_quiet()
    }

    /// After 101: the stream, and what the endpoint has already said on it.
    pub fn into_upgraded(self) -> (Stream, Bytes) {
        debug_assert!(self.phase == Phase::Upgraded);
        (self.stream, self.input.freeze())
    }

    /// What can be told from bytes already read, without touching the socket.
    fn ready(&mut self) -> Result<Option<Event>, Failure> {
        let event = self.decode();
        if event.is_err() {
            self.phase = Phase::Failed;
        }
        event
    }

    /// What happens next. After `End`, 101 or a failure there is nothing more to wait for.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Failure>> {
        // An answer may have come before a write failed: an endpoint that refuses a body closes early. So reading goes on.
        if self.out.poll_send(&mut self.stream, cx) == Poll::Ready(true) {
            return Poll::Ready(Ok(Event::Flushed));
        }
        loop {
            match self.ready() {
                Ok(Some(event)) => return Poll::Ready(Ok(event)),
                Err(e) => return Poll::Ready(Err(e)),
                Ok(None) => {}
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) => {
                    if let Err(e) = self.eof() {
                        self.phase = Phase::Failed;
                        return Poll::Ready(Err(e));
                    }
                }
                Ok(_) => {
                    if !std::mem::replace(&mut self.heard, true) {
                        match self.ready() {
                            Ok(None) => return Poll::Ready(Ok(Event::Heard)),
                            Ok(Some(event)) => return Poll::Ready(Ok(event)),
                            Err(e) => return Poll::Ready(Err(e)),
                        }
                    }
                }
                Err(e) => {
                    let begun = matches!(self.phase, Phase::Body);
                    self.phase = Phase::Failed;
                    let e = self.out.take_error().unwrap_or(e);
                    return Poll::Ready(Err(if begun { Failure::Truncated } else { Failure::Broken(e) }));
                }
            }
        }
    }

    /// Write what is queued without reading: while the answer's taker has no room, the request still goes on.
    /// Ready when nothing is left to write; an error is told by the next [`Conn::poll_event`].
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.out.poll_send(&mut self.stream, cx).map(drop)
    }

    fn decode(&mut self) -> Result<Option<Event>, Failure> {
        match self.phase {
            Phase::Head => {
                let Some(head) = self.parser.parse(&mut self.input).map_err(|e| Failure::Malformed(e.0))? else { return Ok(None) };
                let head = Box::new(head);
                if head.is_interim() {
                    return Ok(Some(Event::Interim(head)));
                }
                self.keep_alive = head.keep_alive;
                self.decoder = Decoder::new(head.framing);
                self.phase = match () {
                    () if head.status == 101 => Phase::Upgraded,
                    () if self.decoder.is_done() => Phase::Ended,
                    () => Phase::Body,
                };
                Ok(Some(Event::Head(head)))
            }
            Phase::Body => match self.decoder.next(&mut self.input) {
                Ok(Some(Piece::Data(data))) => {
                    // The end of a sized body is known with its last byte.
                    if self.decoder.is_done() {
                        self.phase = Phase::Ended;
                    }
                    Ok(Some(Event::Data(data)))
                }
                Ok(Some(Piece::End(trailers))) => {
                    self.phase = Phase::Done;
                    Ok(Some(Event::End(trailers)))
                }
                Ok(None) => Ok(None),
                Err(BodyError::Malformed(why)) => Err(Failure::Malformed(why)),
                Err(_) => Err(Failure::Truncated),
            },
            Phase::Ended => {
                self.phase = Phase::Done;
                Ok(Some(Event::End(None)))
            }
            Phase::Idle | Phase::Done | Phase::Upgraded | Phase::Failed => Ok(None),
        }
    }

    fn eof(&mut self) -> Result<(), Failure> {
        self.keep_alive = false;
        match self.phase {
            Phase::Body => {
                self.decoder.eof().map_err(|_| Failure::Truncated)?;
                self.phase = Phase::Ended;
                Ok(())
            }
            Phase::Head if self.input.is_empty() => Err(match self.out.take_error() {
                Some(e) => Failure::Broken(e),
                None => Failure::Closed,
            }),
            Phase::Head => Err(Failure::Truncated),
            _ => Err(Failure::Closed),
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let room = match self.phase {
            Phase::Body => (self.decoder.expected().min(READ as u64) as usize).max(self.grow),
            _ => FIRST_READ,
        };
        if self.input.capacity() - self.input.len() < room.min(LEAST_READ) {
            spare::ready(&mut self.input, room);
        }
        let n = ready!(pin!(self.stream.read_buf(&mut self.input)).poll(cx))?;
        // A body of unknown length that keeps filling its buffer gets a larger one.
        if self.input.len() == self.input.capacity() {
            self.grow = (self.grow * 2).min(READ);
        }
        Poll::Ready(Ok(n))
    }
}
