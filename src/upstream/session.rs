//! One HTTP/2 connection to an endpoint, shared by the requests of a thread.
//!
//! ```text
//! Open ──GOAWAY, stream ids used up──▶ Leaving ──last stream ended──▶ Closed
//!  │ ▲                                                                 ▲
//!  │ └── anything heard ──┐                                            │
//!  └──PING unanswered──▶ Doubtful ──PING unanswered for GIVE_UP────────┘
//! ```
//!
//! A task of its own drives it; requests talk to the library, which hands their frames to that task. New streams go only to `Open`
//! ones. A connection of an old epoch gets no new streams either, but those that live on it run to their own ends.
//!
//! **Noticing a dead one.** A host that lost power leaves a connection that looks healthy, and a shared one would swallow
//! request after request. So when a stream was opened and nothing at all is heard for [`QUIET`], the peer is asked by PING;
//! unanswered for [`DOUBT`], new requests get a fresh connection, and after [`GIVE_UP`] the streams on it fail. A pause
//! of the peer's garbage collector costs a few connections that way, and no request. Servers count PINGs they consider needless (gRPC
//! ends a connection at the third without data in between): there is one for each silence in which something was asked, and none on an
//! idle connection, which TCP keep-alive watches.
//!
//! **Windows.** [`STREAM_WINDOW`] each, and [`STREAMS`] times that for the connection: no combination of clients that read slowly can
//! take the connection's window away from the others.

use super::dial::{DialError, Target};
use super::stream::{Delivery, Stream};
use crate::clock;
use crate::model::time::{Duration, Moment};
use crate::model::topology::Protocol;
use ::h2::client::{Builder, Connection, SendRequest};
use ::h2::{Ping, PingPong};
use bytes::Bytes;
use rustls::pki_types::ServerName;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::spawn_local;
use tokio::time::Sleep;

/// Streams at once on one connection, where the peer allows as many; then there is another connection.
pub(super) const STREAMS: usize = 64;
/// What a peer may send of one answer before it is read. One round trip of 20 ms at 100 Mbit/s.
const STREAM_WINDOW: u32 = 256 << 10;
/// What the library holds of requests the peer has not taken.
const SEND_BUFFER: usize = 128 << 10;
/// No answer in earnest has a larger head; the strict parser has the same bound.
const HEADER_LIST: u32 = 64 << 10;
/// Nothing heard for so long although something was asked: the peer is asked whether it lives.
const QUIET: Duration = Duration::from_millis(250);
/// How long it may take to answer that before new requests go elsewhere.
const DOUBT: Duration = Duration::from_millis(250);
/// And before those on it are given up.
const GIVE_UP: Duration = Duration::from_secs(5);

/// What the requests on a connection, its task and its pool all know.
pub(super) struct Session {
    pub(super) epoch: u32,
    pub(super) name: Option<ServerName<'static>>,
    pub(super) https: bool,
    requests: RefCell<SendRequest<Bytes>>,
    wire: Rc<Wire>,
    active: Cell<usize>,
    idle_since: Cell<Moment>,
    leaving: Cell<bool>,
}

/// The byte stream below, and what was seen of it.
struct Wire {
    /// `None`: closed.
    stream: RefCell<Option<Stream>>,
    heard: Cell<Moment>,
    /// The last write found no room.
    blocked: Cell<bool>,
    /// How often the library has had the occasion to write.
    turns: Cell<u64>,
    /// The first stream since something was heard was opened then; `ZERO`: none, or a PING went out for it.
    opened: Cell<Moment>,
    /// A PING went out then.
    asked: Cell<Option<Moment>>,
    /// Who wants to know that everything was written.
    waiting: RefCell<Vec<Waker>>,
}

impl Session {
    /// Begins HTTP/2 on a connection. The peer has not said anything yet: whether it understands is seen with the first answer.
    pub(super) async fn begin(stream: Stream, to: &Target) -> Result<Rc<Self>, DialError> {
        let wire = Rc::new(Wire {
            stream: RefCell::new(Some(stream)),
            heard: Cell::new(clock::now()),
            blocked: Cell::new(false),
            turns: Cell::new(0),
            opened: Cell::new(Moment::ZERO),
            asked: Cell::new(None),
            waiting: RefCell::default(),
        });
        let handshake = Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(STREAM_WINDOW * STREAMS as u32)
            .max_header_list_size(HEADER_LIST)
            .max_send_buffer_size(SEND_BUFFER)
            .handshake::<_, Bytes>(Tap(wire.clone()));
        let fail = |source| DialError { address: to.address, step: "http/2", source };
        let (requests, mut connection) = match tokio::time::timeout(to.connect_timeout, handshake).await {
            Ok(Ok(both)) => both,
            Ok(Err(e)) => return Err(fail(io::Error::other(e))),
            Err(_) => return Err(fail(io::ErrorKind::TimedOut.into())),
        };
        let ping = connection.ping_pong();
        let session = Rc::new(Self {
            epoch: to.epoch,
            name: to.tls.as_ref().map(|(_, n)| n.clone()),
            https: to.tls.is_some(),
            requests: RefCell::new(requests),
            wire: wire.clone(),
            active: Cell::new(0),
            idle_since: Cell::new(clock::now()),
            leaving: Cell::new(false),
        });
        spawn_local(drive(connection, ping, wire));
        Ok(session)
    }

    /// Whether a new stream may go here.
    pub(super) fn is_open(&self) -> bool {
        if self.leaving.get() || self.wire.stream.borrow().is_none() {
            return false;
        }
        // Tells of GOAWAY and of errors at once; it has nothing to wait for, since a limit below ours is counted by us.
        let mut cx = Context::from_waker(Waker::noop());
        if matches!(self.requests.borrow_mut().poll_ready(&mut cx), Poll::Ready(Err(_))) {
            self.leaving.set(true);
            return false;
        }
        !self.wire.doubtful(clock::now())
    }

    /// Whether there is room for one more stream.
    pub(super) fn has_room(&self) -> bool {
        self.active.get() < STREAMS.min(self.requests.borrow().current_max_send_streams())
    }

    /// Streams on it now.
    pub(super) fn active(&self) -> usize {
        self.active.get()
    }

    /// Without streams since so long.
    pub(super) fn idle_for(&self, now: Moment) -> Option<Duration> {
        (self.active.get() == 0).then(|| now.since(self.idle_since.get()))
    }

    /// No new streams any more.
    pub(super) fn leave(&self) {
        self.leaving.set(true);
    }

    /// Likewise, if so.
    pub(super) fn leave_if(&self, broken: bool) {
        self.leaving.set(self.leaving.get() || broken);
    }

    /// A handle of the library's for one stream.
    pub(super) fn requests(&self) -> SendRequest<Bytes> {
        self.requests.borrow().clone()
    }

    /// A stream is about to be opened: somebody waits for the peer.
    pub(super) fn opens(&self) {
        let wire = &self.wire;
        // The first one since something was heard: later ones must not put the question off. The library wakes the task.
        if wire.opened.get() == Moment::ZERO || wire.heard.get() > wire.opened.get() {
            wire.opened.set(clock::now());
        }
    }

    /// Takes a place on it.
    pub(super) fn enter(self: &Rc<Self>) -> Place {
        self.active.set(self.active.get() + 1);
        Place(self.clone())
    }

    /// Where its writing stands now, for [`Session::written_since`].
    pub(super) fn turn(&self) -> u64 {
        self.wire.turns.get()
    }

    /// Whether what was handed to the library at that turn is with the kernel. If not, `cx` is woken when it may be.
    pub(super) fn written_since(&self, turn: u64, cx: &mut Context<'_>) -> bool {
        let written = self.is_written_since(turn);
        if !written {
            self.wire.waiting.borrow_mut().push(cx.waker().clone());
        }
        written
    }
    pub(super) fn is_written_since(&self, turn: u64) -> bool {
        self.wire.turns.get() > turn && !self.wire.blocked.get()
    }

    /// What the peer's kernel has acknowledged, of all streams.
    pub(super) fn delivery(&self) -> Option<Delivery> {
        self.wire.stream.borrow().as_ref()?.delivery()
    }
}

/// A stream's place on its connection.
pub(super) struct Place(pub(super) Rc<Session>);

impl Drop for Place {
    fn drop(&mut self) {
        let session = &self.0;
        session.active.set(session.active.get() - 1);
        if session.active.get() == 0 {
            session.idle_since.set(clock::now());
        }
    }
}

impl Wire {
    fn doubtful(&self, now: Moment) -> bool {
        self.asked.get().is_some_and(|at| self.heard.get() <= at && now.since(at) >= DOUBT)
    }
    fn wrote(&self) {
        self.turns.set(self.turns.get() + 1);
        if !self.blocked.get() {
            self.waiting.borrow_mut().drain(..).for_each(Waker::wake);
        }
    }
    fn close(&self) {
        self.stream.take();
        self.blocked.set(false);
        self.wrote();
    }
}

/// Reads and writes for all streams, until the last handle and the last stream are gone, or the connection breaks.
async fn drive(mut connection: Connection<Tap, Bytes>, mut ping: Option<PingPong>, wire: Rc<Wire>) {
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx| {
        let turn = Pin::new(&mut connection).poll(cx);
        wire.wrote();
        if turn.is_ready() {
            return Poll::Ready(());
        }
        match &mut ping {
            Some(ping) => poll_alive(ping, &wire, &mut timer, cx),
            None => Poll::Pending,
        }
    })
    .await;
    // The library tells the streams as it goes; the socket is closed now, whoever still has a handle.
    drop(connection);
    wire.close();
}

/// Asks whether the peer lives when it owes an answer and is silent. Ready: it does not.
fn poll_alive(ping: &mut PingPong, wire: &Wire, timer: &mut Option<Pin<Box<Sleep>>>, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        if ping.poll_pong(cx).is_ready() {
            wire.asked.set(None);
        }
        let (now, opened) = (clock::now(), wire.opened.get());
        let due = match wire.asked.get() {
            Some(at) if wire.heard.get() > at => {
                // It lives, only its PONG stands in line. Another PING cannot go out before that.
                return Poll::Pending;
            }
            Some(at) if now.since(at) >= GIVE_UP => return Poll::Ready(()),
            Some(at) => at + GIVE_UP,
            None if opened == Moment::ZERO || wire.heard.get() > opened => {
                wire.opened.set(Moment::ZERO);
                return Poll::Pending;
            }
            None if now.since(opened) >= QUIET => {
                if ping.send_ping(Ping::opaque()).is_err() {
                    return Poll::Pending;
                }
                wire.asked.set(Some(now));
                wire.opened.set(Moment::ZERO);
                // Written at the connection's next turn.
                cx.waker().wake_by_ref();
                now + GIVE_UP
            }
            None => opened + QUIET,
        };
        match timer {
            Some(timer) => timer.as_mut().reset(clock::instant(due)),
            None => *timer = Some(Box::pin(clock::sleep_until(due))),
        }
        match timer {
            Some(timer) => ready!(timer.as_mut().poll(cx)),
            None => return Poll::Pending,
        }
    }
}

/// The byte stream as the library sees it.
struct Tap(Rc<Wire>);

impl Tap {
    fn with<T>(&self, f: impl FnOnce(Pin<&mut Stream>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match &mut *self.0.stream.borrow_mut() {
            Some(stream) => f(Pin::new(stream)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
    fn write<T>(&self, f: impl FnOnce(Pin<&mut Stream>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let wrote = self.with(f);
        self.0.blocked.set(wrote.is_pending());
        wrote
    }
}

impl AsyncRead for Tap {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = self.with(|s| s.poll_read(cx, buf));
        if buf.filled().len() > before {
            self.0.heard.set(clock::now());
        }
        read
    }
}

impl AsyncWrite for Tap {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.write(|s| s.poll_write(cx, buf))
    }
    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.write(|s| s.poll_write_vectored(cx, bufs))
    }
    fn is_write_vectored(&self) -> bool {
        self.0.stream.borrow().as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write(|s| s.poll_flush(cx))
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|s| s.poll_shutdown(cx))
    }
}

/// Whether a fresh connection speaks HTTP/2. `Err`: it should, and does not.
pub(super) fn speaks_h2(stream: &Stream, to: &Target) -> Result<bool, DialError> {
    match (to.protocol, &to.tls) {
        (Protocol::Http1, _) | (Protocol::Auto, None) => Ok(false),
        (Protocol::H2, None) => Ok(true),
        (Protocol::Auto, Some(_)) => Ok(stream.alpn() == Some(b"h2")),
        (Protocol::H2, Some(_)) if stream.alpn() == Some(b"h2") => Ok(true),
        (Protocol::H2, Some(_)) => {
            let source = io::Error::other("the endpoint does not offer h2 (ALPN); set `protocol: auto` or `http1`");
            Err(DialError { address: to.address, step: "http/2", source })
        }
    }
}
