//! One HTTP/1.1 connection to an endpoint, and the exchange that runs on it.
//!
//! ```text
//! begin(head) ── push(data)* ── finish(trailers) ─┐           written as the peer takes it
//!                                     [release()] │           the final byte, where it is held back
//! event(): Flushed | Heard | Interim* | Head | Data* | End    read as the caller asks for it
//! ```
//!
//! Both directions run at once: [`Conn::event`] writes what is queued and reads what has come, so an
//! answer before the end of the request is seen at once. It may be dropped at any await without loss.
//!
//! **Back-pressure.** Reading happens only while `event` is awaited; writing is bounded by the caller, who
//! stops pushing while [`Conn::wants_body`] is false.
//!
//! **The held byte.** With `hold`, the last byte of the request (of its body, of the last chunk, or of a head
//! without body) is kept until [`Conn::release`]. An endpoint that applies only complete requests cannot have
//! applied one whose last byte never left this process, so it may be sent elsewhere even when it is a write.

use super::dial::Target;
use super::stream::{Delivery, Stream};
use crate::http1::{BodyError, BodyFraming, Decoder, Encoder, Head, Piece, ResponseHead, ResponseParser};
use crate::model::outcome::Sent;
use crate::model::topology::IdleConnections;
use bytes::{Buf, Bytes, BytesMut};
use rustls::pki_types::ServerName;
use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncReadExt, AsyncWrite};

/// Queued bytes above which the caller should stop pushing.
const BACKLOG: usize = 64 << 10;
/// Pieces up to this size are copied behind what is queued; larger ones are queued as they are.
const COPIED: usize = 2 << 10;
/// The first read: most answers fit, and only the pages that are written to cost anything.
const FIRST_READ: usize = 16 << 10;
/// Later reads.
const READ: usize = 64 << 10;
/// Buffers in one `writev`.
const IOV: usize = 16;

/// What an exchange begins with.
#[derive(Debug)]
pub struct Begin {
    /// The request head as it goes out, the empty line included.
    pub head: BytesMut,
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
            Self::Malformed(why) => write!(f, "malformed answer: {why}"),
            Self::Truncated => f.write_str("answer broke off"),
        }
    }
}
impl std::error::Error for Failure {}

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
    // The request.
    queue: VecDeque<Bytes>,
    tail: BytesMut,
    held: Option<Bytes>,
    hold: bool,
    /// Bytes at the front that go out in a segment of their own. A receiver delays its acknowledgement of one small segment by
    /// 40 ms (Linux), but not of two; whoever holds a byte back waits for exactly that.
    apart: usize,
    encoder: Encoder,
    asked_all: bool,
    written: u64,
    unflushed: bool,
    write_error: Option<io::Error>,
    // The answer.
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
    pub(super) fn new(stream: Stream, to: &Target, reused: bool) -> Self {
        let home = Home { id: to.id, epoch: to.epoch, idle: to.idle, name: to.tls.as_ref().map(|(_, n)| n.clone()) };
        Self {
            stream,
            home,
            reused,
            queue: VecDeque::new(),
            tail: BytesMut::new(),
            held: None,
            hold: false,
            apart: 0,
            encoder: Encoder::new(BodyFraming::None),
            asked_all: false,
            written: 0,
            unflushed: false,
            write_error: None,
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

    /// Begins an exchange. Nothing is written before [`Conn::event`] is awaited.
    pub fn begin(&mut self, begin: Begin) {
        debug_assert!(self.phase == Phase::Idle && self.tail.is_empty());
        self.tail = begin.head;
        self.hold = begin.hold;
        self.apart = if begin.hold { self.tail.len() - 2 } else { 0 };
        self.encoder = Encoder::new(begin.framing);
        self.parser = ResponseParser::new(begin.is_head, begin.upgrade);
        self.phase = Phase::Head;
        self.unflushed = true;
        if self.encoder.is_done() {
            self.asked_all = true;
            if self.hold {
                let last = self.tail.len() - 1;
                self.held = Some(self.tail.split_off(last).freeze());
            }
        }
    }

    /// Queues a stretch of the request's body. `Err`: more than the head promised.
    pub fn push(&mut self, mut data: Bytes) -> Result<(), BodyError> {
        if data.is_empty() {
            return Ok(());
        }
        let frame = self.encoder.frame(data.len())?;
        if self.encoder.is_done() {
            self.asked_all = true;
            if self.hold {
                self.held = Some(data.split_off(data.len() - 1));
            }
        }
        self.tail.extend_from_slice(frame.before());
        if data.len() > COPIED {
            if !self.tail.is_empty() {
                self.queue.push_back(self.tail.split().freeze());
            }
            self.queue.push_back(data);
        } else {
            self.tail.extend_from_slice(&data);
        }
        self.tail.extend_from_slice(frame.after());
        self.unflushed = true;
        Ok(())
    }

    /// Ends the request's body. `Err`: less than the head promised; the connection is of no use any more.
    pub fn finish(&mut self, trailers: Option<&Head>) -> Result<(), BodyError> {
        if self.asked_all {
            return Ok(());
        }
        if self.hold {
            let mut last = BytesMut::new();
            self.encoder.end(trailers, &mut last)?;
            self.held = Some(last.freeze());
        } else {
            self.encoder.end(trailers, &mut self.tail)?;
        }
        self.asked_all = true;
        self.unflushed = true;
        Ok(())
    }

    /// Lets the held end of the request go, now or as soon as it is pushed.
    pub fn release(&mut self) {
        self.hold = false;
        if let Some(last) = self.held.take() {
            self.tail.extend_from_slice(&last);
            self.unflushed = true;
        }
    }

    /// Whether everything but the held end was handed to the kernel: the moment to ask [`Conn::delivery`]
    /// and to [`Conn::release`].
    pub fn is_held(&self) -> bool {
        self.held.is_some() && self.backlog() == 0
    }

    /// Whether more of the body may be pushed.
    pub fn wants_body(&self) -> bool {
        !self.asked_all && self.write_error.is_none() && self.backlog() < BACKLOG
    }

    /// Bytes queued and not yet handed to the kernel.
    pub fn backlog(&self) -> usize {
        self.tail.len() + self.queue.iter().map(Bytes::len).sum::<usize>()
    }

    /// How much of the request the endpoint may have seen. `Complete` from the moment the last byte is handed
    /// to the kernel (or to TLS), `Nothing` until the first one is.
    pub fn sent(&self) -> Sent {
        match self.written {
            0 => Sent::Nothing,
            _ if self.asked_all && self.held.is_none() && self.queue.is_empty() && self.tail.is_empty() => Sent::Complete,
            _ => Sent::Incomplete,
        }
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
            && self.write_error.is_none()
            && self.sent() == Sent::Complete
    }

    pub(super) fn into_idle(self) -> (Stream, Home) {
        (self.stream, self.home)
    }

    /// After 101: the stream, and what the endpoint has already said on it.
    pub fn into_upgraded(self) -> (Stream, Bytes) {
        debug_assert!(self.phase == Phase::Upgraded);
        (self.stream, self.input.freeze())
    }

    /// What happens next. After `End`, 101 or a failure there is nothing more to wait for.
    pub async fn event(&mut self) -> Result<Event, Failure> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// What can be told from bytes already read, without touching the socket: to put a head and the beginning
    /// of its body into one write.
    pub fn ready(&mut self) -> Result<Option<Event>, Failure> {
        let event = self.decode();
        if event.is_err() {
            self.phase = Phase::Failed;
        }
        event
    }

    /// [`Conn::event`] for those who poll.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Failure>> {
        if self.unflushed && self.write_error.is_none() {
            match self.poll_flush(cx) {
                Poll::Ready(Ok(())) => {
                    self.unflushed = false;
                    // Of a request that went out in one go nobody needs to hear.
                    if !self.asked_all || self.held.is_some() {
                        return Poll::Ready(Ok(Event::Flushed));
                    }
                }
                // The answer may have come before the connection broke: an endpoint that refuses a body closes early.
                Poll::Ready(Err(e)) => self.write_error = Some(e),
                Poll::Pending => {}
            }
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
                    let e = self.write_error.take().unwrap_or(e);
                    return Poll::Ready(Err(if begun { Failure::Truncated } else { Failure::Broken(e) }));
                }
            }
        }
    }

    /// Write what is queued without reading: while the answer's taker has no room, the request still goes on.
    /// Ready when nothing is left to write; an error is told by the next [`Conn::poll_event`].
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.unflushed && self.write_error.is_none() {
            match ready!(self.poll_flush(cx)) {
                Ok(()) => self.unflushed = false,
                Err(e) => self.write_error = Some(e),
            }
        }
        Poll::Ready(())
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
            Phase::Head if self.input.is_empty() => Err(match self.write_error.take() {
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
        if self.input.capacity() - self.input.len() < room.min(FIRST_READ) {
            self.input.reserve(room);
        }
        let n = ready!(pin!(self.stream.read_buf(&mut self.input)).poll(cx))?;
        // A body of unknown length that keeps filling its buffer gets a larger one.
        if self.input.len() == self.input.capacity() {
            self.grow = (self.grow * 2).min(READ);
        }
        Poll::Ready(Ok(n))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let n = if self.apart > 0 {
                let front = self.queue.front().map_or(&self.tail[..], |b| b);
                let n = ready!(Pin::new(&mut self.stream).poll_write(cx, &front[..self.apart.min(front.len())]))?;
                self.apart -= n;
                self.consume(n);
                n
            } else if self.queue.is_empty() {
                if self.tail.is_empty() {
                    break;
                }
                let n = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.tail))?;
                self.tail.advance(n);
                n
            } else {
                let mut slices = [IoSlice::new(&[]); IOV];
                let mut used = 0;
                for (slot, part) in slices.iter_mut().zip(self.queue.iter().map(|b| &b[..]).chain([&self.tail[..]])) {
                    *slot = IoSlice::new(part);
                    used += 1;
                }
                let n = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &slices[..used]))?;
                self.consume(n);
                n
            };
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += n as u64;
        }
        // TCP needs none; TLS may still hold records.
        if matches!(self.stream, Stream::Plain(_)) { Poll::Ready(Ok(())) } else { Pin::new(&mut self.stream).poll_flush(cx) }
    }

    fn consume(&mut self, mut n: usize) {
        while let Some(front) = self.queue.front_mut() {
            if n < front.len() {
                front.advance(n);
                return;
            }
            n -= front.len();
            self.queue.pop_front();
        }
        self.tail.advance(n);
    }
}
