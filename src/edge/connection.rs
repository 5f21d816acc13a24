//! One client's connection, from accept to close.
//!
//! ```text
//! accept ─ PROXY? ─ place for this client? ─ TLS? ─┬─ HTTP/2 ─▶ h2
//!                                                  └─ HTTP/1 ─▶ wait ─ head ─ exchange ─┬─ keep ─▶ wait
//!                                                       │       (refused)     └─ close
//!                                                       └─ idle too long, draining, client gone ─▶ close
//! ```
//!
//! | clock | from | until | then |
//! |---|---|---|---|
//! | `tls_handshake_timeout` | accept | handshake done | close |
//! | `header_timeout` | first byte of a head (the first head: from accept) | its empty line | 408 (nothing, if not a byte came), close |
//! | `idle_timeout` | end of an answer | first byte of the next head | close |
//! | [`LEAVING`] | the process drains, and nothing is under way | first byte of the next head | close |
//!
//! Closing never eats an answer: a socket that is closed while the client still sends makes the kernel send a reset, and
//! the reset makes the client drop what it has not read yet. So after an early answer the rest of the request is read and
//! forgotten, up to [`LINGER_BYTES`] and [`LINGER`]: a small rest lets the connection live on, a large one ends it.

use super::alarm::Alarm;
use super::answer::{self, Reply};
use super::downstream::{Downstream, Ending};
use super::exchange;
use super::h1::H1;
use super::listener::{Door, Settings};
use super::proxy;
use super::replay::Note;
use super::socket::Socket;
use super::tls::Terminator;
use super::worker::Worker;
use crate::clock;
use crate::http1::{RequestHead, RequestParser};
use crate::model::time::{Duration, Moment};
use pingora_core::protocols::{ALPN, Ssl, Stream};
use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::{Poll, Waker};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

/// How much of an unwanted body is read and forgotten, so that the client sees our answer.
const LINGER_BYTES: usize = 256 << 10;
/// And for how long.
const LINGER: Duration = Duration::from_secs(2);

/// A client that has used its connection may be sending the next request just when we drain. It is still answered, with
/// `Connection: close`; who says nothing for so long is most likely not about to.
const LEAVING: Duration = Duration::from_secs(1);

/// Who is at the other end, and what the listener grants them.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) address: IpAddr,
    /// What it says about others is believed.
    pub(crate) trusted: bool,
    /// It came over TLS.
    pub(crate) https: bool,
    /// The digest of the client certificate it showed; empty: it showed none.
    pub(crate) certificate: Box<[u8]>,
    /// It is a write from the spool: where to say what became of it.
    pub(crate) replay: Option<Note>,
    pub(crate) settings: Arc<Settings>,
}

impl Guest {
    pub(crate) fn new(address: IpAddr, settings: Arc<Settings>) -> Self {
        let address = address.to_canonical();
        Self { address, trusted: settings.trusts(address), https: false, certificate: Box::default(), replay: None, settings }
    }

    /// Who asks: behind proxies that are trusted, the last address in `X-Forwarded-For` that is not one of theirs.
    pub(crate) fn client(&self, request: &RequestHead) -> IpAddr {
        if !self.trusted {
            return self.address;
        }
        let mut client = self.address;
        let lines: Vec<&[u8]> = request.head.all("x-forwarded-for").collect();
        for hop in lines.iter().rev().flat_map(|line| line.rsplit(|b| *b == b',')) {
            let Some(address) = std::str::from_utf8(hop.trim_ascii()).ok().and_then(|h| h.parse::<IpAddr>().ok()) else { break };
            client = address.to_canonical();
            if !self.settings.trusts(client) {
                break;
            }
        }
        client
    }
}

/// A connection that was accepted: its places are given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    open: Arc<AtomicU32>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    pub(super) fn new(door: &Door, permit: OwnedSemaphorePermit) -> Self {
        door.open.fetch_add(1, Relaxed);
        Self { open: door.open.clone(), _permit: permit }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Relaxed);
    }
}

/// Serve one client until it, or we, have had enough.
pub(super) async fn serve(worker: Rc<Worker>, tcp: TcpStream, mut guest: Guest, _place: Place) {
    let _presence = worker.enter(own_waker().await);
    let (most, handshake, header) = {
        let picture = worker.picture();
        let limits = &picture.view.topology().limits;
        (limits.connections_per_client, limits.tls_handshake_timeout, limits.header_timeout)
    };
    let _ = tcp.set_nodelay(true);
    let mut socket = Socket::new(tcp);
    if guest.settings.config.proxy_protocol {
        if !guest.trusted {
            return;
        }
        let Ok(Some(client)) = tokio::time::timeout(header, Box::pin(proxy::read(&mut socket, guest.address))).await else { return };
        guest = Guest::new(client, guest.settings);
    }
    // A trusted proxy speaks for many.
    let Some(_client) = worker.clients.enter(guest.address, most.filter(|_| !guest.trusted)) else { return };
    let Some(tls) = guest.settings.tls.clone() else { return http1(&worker, &guest, Box::new(socket)).await };
    // On the heap, for as long as it lasts: the task would otherwise keep five kilobytes for it while the connection lives. The same goes
    // for what only HTTP/2 needs.
    let Some(secured) = Box::pin(secure(&tls, socket, handshake)).await else { return };
    (guest.https, guest.certificate) = (true, secured.certificate);
    if secured.h2 {
        Box::pin(super::h2::serve(worker.clone(), Rc::new(guest), secured.stream)).await
    } else {
        http1(&worker, &guest, secured.stream).await
    }
}

/// A connection after its TLS handshake.
struct Secured {
    stream: Stream,
    h2: bool,
    /// As in [`Guest`].
    certificate: Box<[u8]>,
}

/// The TLS handshake; `None`: it failed, or took longer than `within`.
async fn secure(tls: &Terminator, socket: Socket, within: Duration) -> Option<Secured> {
    let stream = tokio::time::timeout(within, tls.acceptor.tls_handshake(socket)).await.ok()?.ok()?;
    let certificate = stream.get_ssl_digest().map(|d| d.cert_digest.clone().into()).unwrap_or_default();
    let h2 = matches!(stream.selected_alpn_proto(), Some(ALPN::H2));
    Some(Secured { stream: Box::new(stream), h2, certificate })
}

/// The waker of the task this runs in: woken when the worker drains.
async fn own_waker() -> Waker {
    poll_fn(|cx| Poll::Ready(cx.waker().clone())).await
}

/// What comes up the line.
enum Next {
    Request(Box<RequestHead>),
    Refuse(Box<Reply>),
    Close,
}

/// Serve an HTTP/1 connection.
pub(crate) async fn http1(worker: &Rc<Worker>, guest: &Guest, stream: Stream) {
    let mut h1 = H1::new(stream);
    let mut alarm = Alarm::new();
    let mut served = 0;
    loop {
        match next(worker, &mut h1, &mut alarm, served).await {
            Next::Close => return,
            Next::Refuse(reply) => {
                h1.refuse(&reply);
                return close(&mut h1, &mut alarm).await;
            }
            Next::Request(request) => {
                served += 1;
                h1.begin(&request, request.keep_alive && !worker.draining() && !full(worker, served));
                // On the heap, for as long as the request lasts: an idle connection's task would otherwise keep room for it.
                match Box::pin(exchange::run(worker, guest, &request, Downstream::H1(&mut h1), &mut alarm)).await {
                    Ending::Broken => return,
                    Ending::Truncated => return h1.cut(),
                    Ending::Told => {}
                }
            }
        }
        if !h1.keeps() || !rest_read(&mut h1, &mut alarm).await {
            return close(&mut h1, &mut alarm).await;
        }
        h1.rest();
    }
}

fn full(worker: &Worker, served: u64) -> bool {
    worker.picture().view.topology().limits.requests_per_connection.is_some_and(|most| served >= most)
}

/// The next head, within its time.
async fn next(worker: &Worker, h1: &mut H1, alarm: &mut Alarm, served: u64) -> Next {
    let mut parser = RequestParser::default();
    let mut begun = served == 0 || !h1.input.is_empty();
    let mut until: Option<Moment> = None;
    let mut leaving: Option<Moment> = None;
    poll_fn(|cx| {
        loop {
            let picture = worker.picture();
            let limits = &picture.view.topology().limits;
            match parser.parse(&mut h1.input, limits) {
                Ok(Some(request)) => return Poll::Ready(Next::Request(Box::new(request))),
                Ok(None) => {}
                Err(reject) => return Poll::Ready(Next::Refuse(Box::new(reject.into()))),
            }
            if worker.draining() && h1.input.is_empty() && (served > 0 || begun && h1.fin()) {
                let at = *leaving.get_or_insert_with(|| clock::now() + LEAVING);
                if h1.fin() || clock::now() >= at {
                    return Poll::Ready(Next::Close);
                }
            }
            match h1.poll_fill_head(cx) {
                Poll::Ready(Ok(1..)) => {
                    if !std::mem::replace(&mut begun, true) {
                        until = None;
                    }
                }
                Poll::Ready(_) => return Poll::Ready(Next::Close),
                Poll::Pending => {
                    let at = *until.get_or_insert_with(|| clock::now() + if begun { limits.header_timeout } else { limits.idle_timeout });
                    let leave = leaving.filter(|_| h1.input.is_empty());
                    std::task::ready!(alarm.poll(cx, leave.map_or(at, |leave| leave.min(at))));
                    return Poll::Ready(if h1.input.is_empty() { Next::Close } else { Next::Refuse(Box::new(answer::late_head())) });
                }
            }
        }
    })
    .await
}

/// Whether the rest of a request that was answered early is small enough to be read for the connection's sake.
async fn rest_read(h1: &mut H1, alarm: &mut Alarm) -> bool {
    if h1.request_done() {
        return true;
    }
    // A client that waits for our 100 sends nothing, or, if it did not wait long enough, everything: there is no telling.
    if h1.expects_continue() {
        return false;
    }
    let until = clock::now() + LINGER;
    let mut most = LINGER_BYTES;
    poll_fn(|cx| {
        if alarm.poll(cx, until).is_ready() {
            return Poll::Ready(false);
        }
        h1.poll_skip_body(cx, &mut most)
    })
    .await
}

/// Say the last word so that it is heard: send, end our side, and read what still comes until the client closes too.
async fn close(h1: &mut H1, alarm: &mut Alarm) {
    let until = clock::now() + LINGER;
    let mut most = LINGER_BYTES;
    let mut told = false;
    poll_fn(|cx| {
        if alarm.poll(cx, until).is_ready() {
            return Poll::Ready(());
        }
        if !told {
            if std::task::ready!(h1.poll_flush(cx)).is_err() {
                return Poll::Ready(());
            }
            std::task::ready!(h1.poll_shutdown(cx));
            told = true;
        }
        h1.poll_discard(cx, &mut most)
    })
    .await;
}
