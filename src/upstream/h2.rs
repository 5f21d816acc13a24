//! One request as a stream of a shared HTTP/2 connection ([`Session`]).
//!
//! The same verbs as HTTP/1.1 ([`Conn`](super::Conn)). What differs:
//!
//! | | here |
//! |---|---|
//! | `Sent::Nothing` | also where the peer said that it has not looked: REFUSED_STREAM, GOAWAY below the stream |
//! | held end | END_STREAM: of the body, of trailers, or an empty frame behind a head without body |
//! | back-pressure | by windows: a body goes out as the peer grants it, an answer is granted as it is taken |
//! | broken off | RST_STREAM or a broken connection before END_STREAM; a length not kept is found by the library |
//!
//! Dropped before its end, a stream is reset (CANCEL), and the connection lives on.

use super::conn::{Begin, Event, Failure};
use super::session::{Place, Session};
use super::stream::Delivery;
use crate::http1::over_http2::{answer_from_http2, to_http2, trailers_from_http2, trailers_to_http2};
use crate::http1::{BodyError, BodyFraming, Encoder, Head};
use crate::model::outcome::Sent;
use ::h2::client::ResponseFuture;
use ::h2::{Reason, RecvStream, SendStream};
use bytes::Bytes;
use http::{HeaderMap, Request};
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// Queued bytes above which the caller should stop pushing.
const BACKLOG: usize = 64 << 10;

/// One request on a shared connection.
pub struct Call {
    place: Place,
    endpoint: u64,
    /// Nobody used the connection just then, but somebody had before.
    reused: bool,
    request: Option<Request<()>>,
    is_head: bool,
    up: Up,
    answer: Answer,
    heard: bool,
    /// The peer said that it has not looked at the request.
    unseen: bool,
}

/// The request on its way out.
struct Up {
    stream: Option<SendStream<Bytes>>,
    queue: VecDeque<Bytes>,
    queued: usize,
    encoder: Encoder,
    trailers: Option<HeaderMap>,
    /// Nothing more will be pushed.
    complete: bool,
    /// Its end is kept back.
    hold: bool,
    /// END_STREAM is with the library.
    ended: bool,
    failed: bool,
    /// The connection's turn when something was last handed over, until the caller was told that it is written.
    turn: Option<u64>,
}

enum Answer {
    None,
    Waiting(ResponseFuture),
    Body(RecvStream),
    /// The head said that nothing follows.
    Empty,
    Done,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Call(endpoint {}, sent {:?})", self.endpoint, self.sent())
    }
}

impl Call {
    pub(super) fn new(session: &Rc<Session>, endpoint: u64, fresh: bool) -> Self {
        let reused = !fresh && session.active() == 0;
        let up = Up {
            stream: None,
            queue: VecDeque::new(),
            queued: 0,
            encoder: Encoder::new(BodyFraming::None),
            trailers: None,
            complete: false,
            hold: false,
            ended: false,
            failed: false,
            turn: None,
        };
        Self {
            place: session.enter(),
            endpoint,
            reused,
            request: None,
            is_head: false,
            up,
            answer: Answer::None,
            heard: false,
            unseen: false,
        }
    }

    fn session(&self) -> &Session {
        &self.place.0
    }

    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }
    pub(super) fn endpoint(&self) -> u64 {
        self.endpoint
    }
    pub(super) fn heard(&self) -> bool {
        self.heard
    }

    pub(super) fn begin(&mut self, begin: Begin) {
        self.request = Some(to_http2(&begin.head, self.session().https));
        self.is_head = begin.is_head;
        self.up.encoder = Encoder::new(begin.framing);
        self.up.complete = self.up.encoder.is_done();
        self.up.hold = begin.hold;
    }

    pub(super) fn push(&mut self, data: Bytes) -> Result<(), BodyError> {
        if data.is_empty() {
            return Ok(());
        }
        let up = &mut self.up;
        up.encoder.frame(data.len())?;
        up.complete |= up.encoder.is_done();
        up.queued += data.len();
        up.queue.push_back(data);
        Ok(())
    }

    pub(super) fn finish(&mut self, trailers: Option<&Head>) -> Result<(), BodyError> {
        let up = &mut self.up;
        if up.complete {
            return Ok(());
        }
        if up.encoder.left().is_some_and(|left| left > 0) {
            return Err(BodyError::Length);
        }
        up.trailers = trailers.map(trailers_to_http2).filter(|t| !t.is_empty());
        up.complete = true;
        Ok(())
    }

    pub(super) fn release(&mut self) {
        self.up.hold = false;
    }

    pub(super) fn is_held(&self) -> bool {
        let up = &self.up;
        let queued = !up.complete || !up.hold || !up.queue.is_empty() || up.failed;
        !queued && up.stream.is_some() && up.turn.is_none_or(|t| self.session().is_written_since(t))
    }

    pub(super) fn wants_body(&self) -> bool {
        !self.up.complete && !self.up.failed && self.up.queued < BACKLOG
    }

    pub(super) fn backlog(&self) -> usize {
        self.up.queued
    }

    pub(super) fn sent(&self) -> Sent {
        match () {
            () if self.unseen || self.up.stream.is_none() => Sent::Nothing,
            () if self.up.ended => Sent::Complete,
            () => Sent::Incomplete,
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        matches!(self.answer, Answer::Empty | Answer::Done)
    }

    pub(super) fn delivery(&self) -> Option<Delivery> {
        self.session().delivery()
    }

    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_up(cx).map(drop)
    }

    pub(super) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Failure>> {
        if let Some(request) = self.request.take()
            && let Err(e) = self.open(request)
        {
            return Poll::Ready(Err(self.failure(e)));
        }
        // An answer may have come although the rest of the request is not wanted any more. So reading goes on.
        if self.poll_up(cx) == Poll::Ready(true) {
            return Poll::Ready(Ok(Event::Flushed));
        }
        let event = ready!(self.poll_answer(cx));
        self.heard |= event.is_ok();
        Poll::Ready(event)
    }

    fn open(&mut self, request: Request<()>) -> Result<(), ::h2::Error> {
        self.session().opens();
        // What was pushed before the head went out follows it.
        let whole = self.up.complete && !self.up.hold && self.up.queue.is_empty() && self.up.trailers.is_none();
        let (answer, stream) = self.session().requests().send_request(request, whole)?;
        (self.up.stream, self.up.ended, self.up.turn) = (Some(stream), whole, Some(self.session().turn()));
        self.answer = Answer::Waiting(answer);
        Ok(())
    }

    /// Hands over what the peer takes. Ready when nothing more can be; `true`: all that was pushed went out just now, but more is to
    /// come, or the end is held.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let turn = self.session().turn();
        let moved = match ready!(self.up.poll(turn, cx)) {
            Ok(moved) => moved,
            Err(()) => {
                self.up.failed = true;
                return Poll::Ready(false);
            }
        };
        if !self.up.complete {
            return Poll::Ready(moved);
        }
        let held = self.up.hold && self.up.turn.is_some_and(|t| self.session().written_since(t, cx));
        if held {
            self.up.turn = None;
        }
        Poll::Ready(held)
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Failure>> {
        match &mut self.answer {
            Answer::None | Answer::Done => Poll::Pending,
            Answer::Empty => {
                self.answer = Answer::Done;
                Poll::Ready(Ok(Event::End(None)))
            }
            Answer::Waiting(answer) => {
                match answer.poll_informational(cx) {
                    Poll::Ready(Some(Ok(interim))) => {
                        let head = answer_from_http2(&interim.into_parts().0, false, self.is_head);
                        return Poll::Ready(head.map(|h| Event::Interim(Box::new(h))).map_err(|e| Failure::Malformed(e.0)));
                    }
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(_) => {}
                }
                let answered = ready!(Pin::new(answer).poll(cx)).map_err(|e| self.failure(e))?;
                let (parts, body) = answered.into_parts();
                let ended = body.is_end_stream();
                let head = answer_from_http2(&parts, ended, self.is_head).map_err(|e| Failure::Malformed(e.0))?;
                if head.is_interim() || head.status == 101 {
                    return Poll::Ready(Err(Failure::Malformed("an interim answer in the place of the final one")));
                }
                self.answer = if ended { Answer::Empty } else { Answer::Body(body) };
                Poll::Ready(Ok(Event::Head(Box::new(head))))
            }
            Answer::Body(body) => match ready!(body.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Read only when there is somebody to take it: what is read may be replaced at once.
                    let _ = body.flow_control().release_capacity(data.len());
                    Poll::Ready(Ok(Event::Data(data)))
                }
                Some(Err(_)) => Poll::Ready(Err(Failure::Truncated)),
                None => {
                    let trailers = ready!(body.poll_trailers(cx)).map_err(|_| Failure::Truncated)?;
                    self.answer = Answer::Done;
                    Poll::Ready(Ok(Event::End(trailers.map(|t| Box::new(trailers_from_http2(&t))))))
                }
            },
        }
    }

    /// Why no answer's head came.
    fn failure(&mut self, e: ::h2::Error) -> Failure {
        self.answer = Answer::Done;
        // A stream that fails with the peer's GOAWAY lies above the last one that it looked at.
        if e.is_go_away() && e.is_remote() {
            self.session().leave();
            self.unseen = true;
            return Failure::Leaving;
        }
        match e.reason() {
            Some(Reason::REFUSED_STREAM) if e.is_remote() => {
                self.unseen = true;
                Failure::Refused
            }
            Some(_) if !e.is_remote() => Failure::Malformed("not HTTP/2"),
            _ => {
                self.session().leave_if(e.is_io());
                Failure::Broken(e.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()))
            }
        }
    }
}

impl Up {
    /// `turn`: of the connection, now. Ready with whether anything was handed over.
    fn poll(&mut self, turn: u64, cx: &mut Context<'_>) -> Poll<Result<bool, ()>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(false)) };
        if self.ended || self.failed {
            return Poll::Ready(Ok(false));
        }
        let mut moved = false;
        while let Some(front) = self.queue.front_mut() {
            stream.reserve_capacity(front.len());
            if stream.capacity() == 0 {
                match ready!(stream.poll_capacity(cx)) {
                    Some(Ok(_)) => continue,
                    Some(Err(_)) | None => return Poll::Ready(Err(())),
                }
            }
            let part = front.split_to(front.len().min(stream.capacity()));
            self.queued -= part.len();
            if front.is_empty() {
                self.queue.pop_front();
            }
            self.ended = self.queue.is_empty() && self.complete && !self.hold && self.trailers.is_none();
            stream.send_data(part, self.ended).map_err(drop)?;
            (self.turn, moved) = (Some(turn), true);
        }
        if self.complete && !self.hold && !self.ended {
            (self.ended, self.turn, moved) = (true, Some(turn), true);
            match self.trailers.take() {
                Some(trailers) => stream.send_trailers(trailers).map_err(drop)?,
                None => stream.send_data(Bytes::new(), true).map_err(drop)?,
            }
        }
        Poll::Ready(Ok(moved))
    }
}
