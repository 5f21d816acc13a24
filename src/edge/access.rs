//! What is written down about a request, and the way there.
//!
//! A request hands its record to a bounded channel and goes on; somebody else formats and writes it. When that somebody
//! is slow, records are dropped and counted: a log never holds up an answer.

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
