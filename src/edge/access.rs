//! What is written down about a request, and the way there.
//!
//! A request hands its record to a bounded channel and goes on; somebody else formats and writes it. When that somebody
//! is slow, records are dropped and counted: a log never holds up an answer.

use super::answer::Reply;
use super::connection::Guest;
use super::exchange::{Exchange, Told};
use super::worker::Worker;
use crate::http1::RequestHead;
use crate::live::Picture;
use crate::model::outcome::RequestOutcome;
use crate::model::time::{Duration, Moment};
use bytes::Bytes;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::sync::mpsc;

/// Records that may wait to be written. At 50,000 requests per second that is 80 ms of a writer's absence.
const BACKLOG: usize = 4096;

/// One request that is over.
#[derive(Clone, Debug)]
pub struct Record {
    /// When its head was complete.
    pub at: Moment,
    /// Who asked: the address behind trusted proxies.
    pub client: IpAddr,
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2`.
    pub protocol: &'static str,
    /// As received.
    pub method: Bytes,
    /// The host asked for, as received.
    pub host: Bytes,
    /// Path and query as received.
    pub target: Bytes,
    /// The route; `None`: none matched.
    pub route: Option<Arc<str>>,
    /// What the client was answered with; 0: nothing (it had gone).
    pub status: u16,
    /// What the request counts as.
    pub outcome: RequestOutcome,
    /// The region that answered, if one did.
    pub region: Option<Arc<str>>,
    /// The endpoint that answered, if one did.
    pub endpoint: Option<Arc<str>>,
    /// Attempts made, hedges included.
    pub attempts: u8,
    /// Body bytes received from the client.
    pub received: u64,
    /// Body bytes sent to the client.
    pub sent: u64,
    /// From the whole head to the answer's first byte.
    pub first_byte: Option<Duration>,
    /// From the whole head to the end.
    pub took: Duration,
    /// `X-Request-Id`, as the backend saw it.
    pub id: Bytes,
    /// Why it was refused, degraded or broken off, in words.
    pub why: Option<&'static str>,
}

/// Where requests leave their records.
#[derive(Debug)]
pub struct Log {
    sender: mpsc::Sender<Record>,
    dropped: AtomicU64,
}

/// A log, and the end that a writer takes records from.
pub fn channel() -> (Arc<Log>, mpsc::Receiver<Record>) {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    (Arc::new(Log { sender, dropped: AtomicU64::new(0) }), receiver)
}

impl Log {
    /// Leave a record, or count it as dropped.
    pub(crate) fn put(&self, record: Record) {
        if self.sender.try_send(record).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }
    /// Records dropped so far because nobody took them in time.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

/// Whether this request is one of those that are written down: all that failed, and the sampled part of the others.
fn wanted(worker: &Worker, picture: &Picture, outcome: RequestOutcome) -> bool {
    let Some(log) = &picture.view.topology().logging.access else { return false };
    log.sample >= 1.0 || !matches!(outcome, RequestOutcome::Ok | RequestOutcome::ClientError) || worker.dice.borrow_mut().chance(log.sample)
}

/// A request that no route took.
pub(super) fn refused(worker: &Worker, guest: &Guest, request: &RequestHead, reply: &Reply, protocol: &'static str, began: Moment) {
    let picture = worker.published.load();
    if !wanted(worker, &picture, reply.outcome) {
        return;
    }
    let took = crate::clock::now().since(began);
    let record = Record {
        status: reply.status,
        outcome: reply.outcome,
        sent: reply.body.len() as u64,
        first_byte: Some(took),
        why: reply.why,
        ..blank(guest, request, protocol, began, took)
    };
    worker.access.put(record);
}

/// A request that took its route.
pub(super) fn finished(x: &Exchange<'_>, told: &Told, now: Moment) {
    let (worker, _, _, picture) = x.parties();
    if wanted(worker, picture, told.outcome) {
        worker.access.put(record(x, told, now));
    }
}

/// Everything there is to say about it.
pub(super) fn record(x: &Exchange<'_>, told: &Told, now: Moment) -> Record {
    let (_, guest, request, picture) = x.parties();
    let (began, attempts, ids) = x.tallies();
    let topology = picture.view.topology();
    let region = told.answered_by.map(|plan| topology.regions[topology.pools[plan.pool.at()].region.at()].name.clone());
    let own_id = request.head.get("x-request-id").map(Bytes::copy_from_slice);
    Record {
        route: Some(x.route.name.clone()),
        status: told.status,
        outcome: told.outcome,
        region,
        endpoint: told.answered_by.map(|plan| topology.endpoints[plan.endpoint.at()].name.clone()),
        attempts,
        received: x.upload.received,
        sent: told.sent,
        first_byte: told.first_byte.map(|at| at.since(began)),
        id: own_id.unwrap_or_else(|| Bytes::copy_from_slice(ids.request().as_bytes())),
        why: told.why,
        ..blank(guest, request, x.down.protocol(), began, now.since(began))
    }
}

fn blank(guest: &Guest, request: &RequestHead, protocol: &'static str, at: Moment, took: Duration) -> Record {
    let mut target = request.path().to_owned();
    if let Some(query) = request.query() {
        target.push('?');
        target.push_str(query);
    }
    Record {
        at,
        client: guest.client(request),
        protocol,
        method: Bytes::copy_from_slice(request.method_text().as_bytes()),
        host: Bytes::copy_from_slice(request.authority().as_bytes()),
        target: target.into(),
        route: None,
        status: 0,
        outcome: RequestOutcome::ClientError,
        region: None,
        endpoint: None,
        attempts: 0,
        received: 0,
        sent: 0,
        first_byte: None,
        took,
        id: Bytes::new(),
        why: None,
    }
}
