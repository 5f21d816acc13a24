//! HTTP/2 towards clients: one task for the connection, one for each request on it.
//!
//! A request's head is written down as HTTP/1.1 and read by the same strict parser (`http1::from_http2`), and the same exchange
//! serves it. What is particular to HTTP/2: bodies move by the windows of both sides, broken answers end in RST_STREAM, and
//! the connection as a whole is bounded, since one of them can do what a hundred HTTP/1.1 connections do.
//!
//! | bound | value | why |
//! |---|---|---|
//! | streams at once | `limits.h2_streams` | told to the client, enforced by the protocol library |
//! | header list | `limits.header_bytes` | likewise; a larger one gets 431 |
//! | first request | `limits.header_timeout` from the handshake on | preface, SETTINGS and a head that drip in hold nothing for long |
//! | no request under way | `limits.idle_timeout` | GOAWAY, then close |
//! | requests | `limits.requests_per_connection` | GOAWAY; those under way are served |
//! | malformed requests | [`MALFORMED`] | a client that goes on so is not one |
//! | resets, empty frames, CONTINUATION | the library's own budgets | rapid reset, MadeYouReset, floods |

use super::alarm::Alarm;
use super::answer::Reply;
use super::connection::Guest;
use super::downstream::{Downstream, Ending};
use super::exchange;
use super::frames::Looked;
use super::upload::Fault;
use super::worker::Worker;
use crate::clock;
use crate::http1::over_http2::{add, trailers_from_http2, trailers_to_http2};
use crate::http1::{self, BodyFraming, Encoder, Head, Piece, ResponseHead, forward};
use crate::model::policy::HeaderOps;
use crate::model::time::Moment;
use crate::model::topology::Limits;
use ::h2::server::{Builder, Connection, SendResponse};
use ::h2::{Reason, RecvStream, SendStream};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, DATE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use pingora_core::protocols::Stream;
use std::cell::Cell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use tokio::task::spawn_local;

/// Malformed requests after which a connection is closed.
const MALFORMED: u32 = 32;
/// What a client may send of one body before it is read. One round trip of 20 ms at 100 Mbit/s.
const STREAM_WINDOW: u32 = 256 << 10;
/// And of all bodies of a connection together.
const CONNECTION_WINDOW: u32 = 1 << 20;
/// What the library holds of one answer that the client has not taken.
const SEND_BUFFER: usize = 128 << 10;

/// Serve an HTTP/2 connection.
pub(super) async fn serve(worker: Rc<Worker>, guest: Rc<Guest>, stream: Stream) {
    let limits = worker.published.load().view.topology().limits.clone();
    let handshake = settings(&limits).handshake::<_, Bytes>(Looked::new(stream));
    let Ok(Ok(mut connection)) = tokio::time::timeout(limits.header_timeout, handshake).await else { return };
    let mut life = Life { served: 0, malformed: 0, leaving: false, active: Rc::default(), until: Moment::FAR, alarm: Alarm::new() };
    life.until = clock::now() + limits.header_timeout;
    while let Some(accepted) = poll_fn(|cx| life.poll(&worker, &limits, &mut connection, cx)).await {
        let (request, respond) = accepted;
        life.served += 1;
        if limits.requests_per_connection.is_some_and(|most| life.served >= most) {
            life.leave(&mut connection);
        }
        if !begin(&worker, &guest, &limits, request, respond, &life.active) {
            life.malformed += 1;
            if life.malformed >= MALFORMED {
                connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                life.leaving = true;
            }
        }
    }
}

fn settings(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(limits.h2_streams)
        .max_header_list_size(limits.header_bytes.try_into().unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER);
    builder
}

/// A connection between handshake and close.
struct Life {
    served: u64,
    malformed: u32,
    leaving: bool,
    active: Rc<Active>,
    /// When a connection without a request has waited long enough.
    until: Moment,
    alarm: Alarm,
}

/// Requests under way, and the connection's task, which must hear when the last one is over.
#[derive(Default)]
struct Active {
    count: Cell<usize>,
    connection: Cell<Option<Waker>>,
}

impl Active {
    fn end(&self) {
        self.count.set(self.count.get() - 1);
        if let Some(waker) = self.connection.take().filter(|_| self.count.get() == 0) {
            waker.wake();
        }
    }
}

type Accepted = (Request<RecvStream>, SendResponse<Bytes>);

impl Life {
    fn leave(&mut self, connection: &mut Connection<Looked<Stream>, Bytes>) {
        if !std::mem::replace(&mut self.leaving, true) {
            connection.graceful_shutdown();
        }
    }

    /// The next request; `None`: the connection is over.
    fn poll(
        &mut self,
        worker: &Worker,
        limits: &Limits,
        connection: &mut Connection<Looked<Stream>, Bytes>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Accepted>> {
        if worker.draining() {
            self.leave(connection);
        }
        match connection.poll_accept(cx) {
            Poll::Ready(Some(Ok(accepted))) => {
                self.until = Moment::FAR;
                return Poll::Ready(Some(accepted));
            }
            Poll::Ready(_) => return Poll::Ready(None),
            Poll::Pending => {}
        }
        if self.active.count.get() > 0 {
            self.active.connection.set(Some(cx.waker().clone()));
            self.until = Moment::FAR;
        } else if self.until == Moment::FAR {
            self.until = clock::now() + limits.idle_timeout;
        }
        ready!(self.alarm.poll(cx, self.until));
        if self.leaving {
            return Poll::Ready(None);
        }
        self.leave(connection);
        // The client has a moment to see it; it may have sent a request that crosses it.
        self.until = clock::now() + limits.header_timeout;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Start a request. False: it was malformed, and is answered already.
fn begin(
    worker: &Rc<Worker>,
    guest: &Rc<Guest>,
    limits: &Limits,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    active: &Rc<Active>,
) -> bool {
    let (parts, body) = request.into_parts();
    let mut h2 = H2::new(body, respond, parts.method == http::Method::HEAD);
    let head = match http1::from_http2(&parts, h2.recv.is_end_stream(), limits) {
        Ok(head) => head,
        Err(reject) => {
            h2.say(&reject.into());
            let _ = h2.send_head();
            return false;
        }
    };
    let (worker, guest, active) = (worker.clone(), guest.clone(), active.clone());
    active.count.set(active.count.get() + 1);
    spawn_local(async move {
        let mut alarm = Alarm::new();
        let ending = exchange::run(&worker, &guest, &head, Downstream::H2(&mut h2), &mut alarm).await;
        h2.close(ending);
        active.end();
    });
    true
}

/// One request on an HTTP/2 connection.
pub(crate) struct H2 {
    recv: RecvStream,
    respond: SendResponse<Bytes>,
    body: Option<SendStream<Bytes>>,
    head_only: bool,
    /// Queued: the head, the body, and how it ends.
    head: Option<Response<()>>,
    queue: VecDeque<Bytes>,
    queued: usize,
    end: Option<Option<HeaderMap>>,
    finished: bool,
    /// Keeps the promise of a length.
    encoder: Encoder,
}

impl H2 {
    fn new(recv: RecvStream, respond: SendResponse<Bytes>, head_only: bool) -> Self {
        Self {
            recv,
            respond,
            body: None,
            head_only,
            head: None,
            queue: VecDeque::new(),
            queued: 0,
            end: None,
            finished: false,
            encoder: Encoder::new(BodyFraming::None),
        }
    }

    pub(crate) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Fault>> {
        match ready!(self.recv.poll_data(cx)) {
            Some(Ok(data)) => {
                // Read only when there is somebody to take it: what is read may be replaced at once.
                let _ = self.recv.flow_control().release_capacity(data.len());
                Poll::Ready(Ok(Piece::Data(data)))
            }
            Some(Err(_)) => Poll::Ready(Err(Fault::Gone)),
            None => match ready!(self.recv.poll_trailers(cx)) {
                Ok(trailers) => Poll::Ready(Ok(Piece::End(trailers.map(|t| Box::new(trailers_from_http2(&t)))))),
                Err(_) => Poll::Ready(Err(Fault::Gone)),
            },
        }
    }

    pub(crate) fn buffered_body(&mut self) -> Option<Result<Piece, Fault>> {
        self.recv.is_end_stream().then_some(Ok(Piece::End(None)))
    }

    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.body {
            Some(body) => body.poll_reset(cx).map(drop),
            None => self.respond.poll_reset(cx).map(drop),
        }
    }

    pub(crate) fn interim(&mut self, head: &ResponseHead) {
        if self.head.is_none() && self.body.is_none() {
            let _ = self.respond.send_informational(response(head, &HeaderOps::default(), None));
        }
    }

    pub(crate) fn head(&mut self, head: &ResponseHead, ops: &HeaderOps, region: Option<&str>) {
        let mut response = response(head, ops, region);
        if let Some(n) = head.length.filter(|_| head.status != 204) {
            response.headers_mut().insert(CONTENT_LENGTH, n.into());
        }
        // Only a length is a promise here; where the answer ends otherwise, END_STREAM says so.
        self.encoder = Encoder::new(match head.framing {
            BodyFraming::Chunked => BodyFraming::UntilClose,
            framing => framing,
        });
        self.head = Some(response);
    }

    pub(crate) fn push(&mut self, data: Bytes) -> Result<(), ()> {
        self.encoder.frame(data.len()).map_err(drop)?;
        self.queued += data.len();
        self.queue.push_back(data);
        Ok(())
    }

    pub(crate) fn end(&mut self, trailers: Option<&Head>) -> Result<(), ()> {
        if self.encoder.left().is_some_and(|left| left > 0) {
            return Err(());
        }
        self.end = Some(trailers.map(trailers_to_http2).filter(|t| !t.is_empty()));
        Ok(())
    }

    pub(crate) fn say(&mut self, reply: &Reply) {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        if let Ok(date) = HeaderValue::from_bytes(&clock::http_date()) {
            headers.insert(DATE, date);
        }
        for (name, value) in &reply.headers {
            add(headers, name.as_bytes(), value.as_bytes());
        }
        if reply.status != 204 && reply.status != 304 {
            headers.insert(CONTENT_LENGTH, reply.body.len().into());
        }
        self.head = Some(response);
        if !self.head_only && !reply.body.is_empty() {
            self.queued = reply.body.len();
            self.queue.push_back(reply.body.clone());
        }
        self.end = Some(None);
    }

    pub(crate) fn backlog(&self) -> usize {
        self.queued + usize::from(self.head.is_some() || (self.end.is_some() && !self.finished))
    }

    /// Queue the head, and the body with it, with the library; what has to wait for a window is left to [`H2::poll_flush`].
    fn send_head(&mut self) -> Result<(), ::h2::Error> {
        if let Some(head) = self.head.take() {
            let whole = self.queue.is_empty() && self.end == Some(None);
            self.body = Some(self.respond.send_response(head, whole)?);
            self.finished = whole;
        }
        let Some(body) = &mut self.body else { return Ok(()) };
        // Without windows in the way a whole short answer leaves in one go.
        if !self.finished && self.end == Some(None) && self.queue.len() == 1 {
            body.reserve_capacity(self.queued);
            if body.capacity() >= self.queued
                && let Some(data) = self.queue.pop_front()
            {
                self.queued = 0;
                self.finished = true;
                body.send_data(data, true)?;
            }
        }
        Ok(())
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx).map_err(|e| io::Error::new(io::ErrorKind::BrokenPipe, e))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ::h2::Error>> {
        self.send_head()?;
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(())) };
        while let Some(front) = self.queue.front_mut() {
            body.reserve_capacity(front.len());
            while body.capacity() == 0 {
                match ready!(body.poll_capacity(cx)) {
                    Some(Ok(_)) => {}
                    Some(Err(e)) => return Poll::Ready(Err(e)),
                    None => return Poll::Ready(Err(Reason::CANCEL.into())),
                }
            }
            let part = front.split_to(front.len().min(body.capacity()));
            self.queued -= part.len();
            if front.is_empty() {
                self.queue.pop_front();
            }
            self.finished = self.queue.is_empty() && self.end == Some(None);
            body.send_data(part, self.finished)?;
        }
        if !self.finished && self.end.is_some() {
            self.finished = true;
            match self.end.take().flatten() {
                Some(trailers) => body.send_trailers(trailers)?,
                None => body.send_data(Bytes::new(), true)?,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The exchange is over. An answer that broke off must not look whole.
    fn close(&mut self, ending: Ending) {
        let reason = match ending {
            // An unread rest of the request is reset by the library, with NO_ERROR.
            Ending::Told => return,
            Ending::Truncated => Reason::INTERNAL_ERROR,
            Ending::Broken => Reason::CANCEL,
        };
        match &mut self.body {
            Some(body) => body.send_reset(reason),
            None => self.respond.send_reset(reason),
        }
    }
}

fn response(head: &ResponseHead, ops: &HeaderOps, region: Option<&str>) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let headers = response.headers_mut();
    forward::each_response_field(head, ops, |name, value| add(headers, name, value));
    if let Some(region) = region {
        add(headers, b"evenkeel-region", region.as_bytes());
    }
    response
}
