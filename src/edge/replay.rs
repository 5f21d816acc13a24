//! Writes from the spool on their way: each is sent through the very exchange that clients' requests go through, over a pipe instead of
//! a socket, so that routing, residency, budgets, limits and deadlines hold for it as they stand now.
//!
//! What is different for a replay: it is the first to be refused under overload, whatever its route says; it is never kept
//! again, nor stood behind another; and it counts in `evenkeel_spool_replays_total`, not among the requests of clients.
//! Never is it a trial of a recovering pool: no write is.
//!
//! | answer | verdict |
//! |---|---|
//! | a backend's 2xx, 300 to 306 | applied |
//! | a backend's 307, 308, and 4xx but those below | refused for good: redirects are not followed with somebody's write |
//! | a backend's 408, 425, 429, 5xx | later |
//! | ours: no region, no room, no answer in time, no route | unreachable: its route is tried again by one write at a time |
//!
//! A route that may now be served where it might not when the write was accepted does not get it: the promise was made then.

use super::connection::{self, Guest};
use super::listener::Settings;
use super::worker::Worker;
use crate::http1::RequestParser;
use crate::model::outcome::RequestOutcome;
use crate::model::topology::Listener;
use crate::spool::{Entry, Spool, Verdict};
use bytes::BytesMut;
use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::task::spawn_local;

/// Bytes of a pipe.
const PIPE: usize = 64 << 10;

/// What became of a replay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Became {
    pub(crate) status: u16,
    pub(crate) outcome: RequestOutcome,
    /// A backend said so.
    pub(crate) answered: bool,
    pub(crate) why: Option<&'static str>,
}

/// Where it is said.
pub(crate) type Note = Rc<Cell<Option<Became>>>;

/// Replays what waits, until the worker leaves.
pub(super) async fn run(worker: Rc<Worker>, spool: Spool) {
    while !worker.draining() {
        let (entry, request) = spool.next().await;
        let (worker, spool) = (worker.clone(), spool.clone());
        spawn_local(async move {
            let verdict = match lawful(&worker, &entry, &request) {
                Ok(()) => send(&worker, &entry, &request).await,
                Err(why) => Verdict::Unreachable(why),
            };
            spool.done(entry, verdict);
        });
    }
}

/// Whether the route it would take today keeps what was promised when it was accepted.
fn lawful(worker: &Worker, entry: &Entry, request: &[u8]) -> Result<(), String> {
    let Some(promised) = &entry.residency else { return Ok(()) };
    let picture = worker.picture();
    let topology = picture.view.topology();
    let head = RequestParser::default().parse(&mut BytesMut::from(request), &topology.limits).ok().flatten();
    let route = head.and_then(|head| picture.view.config.routes.find(&head.facts())).map(|r| &topology.routes[r.at()]);
    let Some(route) = route else { return Err("no route takes it now".into()) };
    let within = route.residency.as_ref().is_some_and(|now| now.iter().all(|j| promised.iter().any(|p| **p == **j)));
    if within { Ok(()) } else { Err("its route may now be served where the write was promised not to go".into()) }
}

async fn send(worker: &Rc<Worker>, entry: &Entry, request: &[u8]) -> Verdict {
    let note = Note::default();
    let mut guest = Guest::new(entry.client, door());
    (guest.trusted, guest.https, guest.replay) = (entry.trusted, entry.https, Some(note.clone()));
    let (mut near, far) = duplex(PIPE);
    let serve = connection::http1(worker, &guest, Box::new(far));
    let ask = async {
        let _ = near.write_all(request).await;
        let mut sink = vec![0; 16 << 10];
        while matches!(near.read(&mut sink).await, Ok(1..)) {}
        drop(near);
    };
    tokio::join!(serve, ask);
    judge(note.get())
}

fn judge(became: Option<Became>) -> Verdict {
    match became {
        None => Verdict::Unreachable("no route takes it now".into()),
        Some(b) if !b.answered => Verdict::Unreachable(b.why.unwrap_or("no region answered").into()),
        Some(Became { status: 408 | 425 | 429 | 500.., .. }) => Verdict::Later(became.map_or(0, |b| b.status)),
        // It broke off: what it said cannot be relied on, and the backend knows the key.
        Some(Became { outcome: RequestOutcome::Failed, status, .. }) => Verdict::Later(status),
        Some(Became { status: status @ (307 | 308 | 400..), .. }) => Verdict::Refused(status),
        Some(Became { status, .. }) => Verdict::Applied(status),
    }
}

/// The listener that a replay came by: none of the configured ones.
pub(super) fn door() -> Arc<Settings> {
    let config = Listener {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        redirect_https: false,
        proxy_protocol: false,
        trusted_proxies: Vec::new(),
        max_connections: u32::MAX,
        tls: None,
    };
    Arc::new(Settings { config, tls: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_mean_what_the_table_says() {
        let b = |status, answered| Some(Became { status, outcome: RequestOutcome::Ok, answered, why: None });
        for (status, verdict) in [
            (200, Verdict::Applied(200)),
            (204, Verdict::Applied(204)),
            (303, Verdict::Applied(303)),
            (307, Verdict::Refused(307)),
            (400, Verdict::Refused(400)),
            (401, Verdict::Refused(401)),
            (408, Verdict::Later(408)),
            (409, Verdict::Refused(409)),
            (429, Verdict::Later(429)),
            (500, Verdict::Later(500)),
            (503, Verdict::Later(503)),
        ] {
            assert_eq!(judge(b(status, true)), verdict);
            assert!(matches!(judge(b(status, false)), Verdict::Unreachable(_)), "ours: {status}");
        }
        assert!(matches!(judge(None), Verdict::Unreachable(_)));
        let broken = Some(Became { status: 200, outcome: RequestOutcome::Failed, answered: true, why: None });
        assert_eq!(judge(broken), Verdict::Later(200));
    }
}
