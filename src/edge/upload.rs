//! A request's body on its way to the endpoints.
//!
//! Pieces are handed on as they come; nothing waits for the whole. While the request may still be repeated they are also kept, so that a
//! second attempt begins with what the first one was already given. Two bounds end that: `limits.replay_bytes` per request and
//! `limits.replay_total` for the process. Then pieces are let go as soon as they are sent, and the request can
//! no longer be repeated once a byte of it is gone.
//!
//! Reading happens only when an attempt has sent what it was given: a slow endpoint slows the client down, not our memory.
//! A client that is waited for must send something, and on average `body_min_rate`, in every `body_timeout`.

use super::downstream::Downstream;
use crate::clock;
use crate::http1::{BodyError, Head, Piece};
use crate::model::time::{Duration, Moment};
use crate::model::topology::Limits;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

/// What a client did wrong while its body was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It went away.
    Gone,
    /// Its body is not what its framing promises.
    Malformed(BodyError),
    /// More than `limits.body_bytes`.
    TooLarge,
    /// Nothing, or too little, in `limits.body_timeout`.
    Stalled,
}

/// What keeping a piece costs beside its bytes; a client that sends a body byte by byte pays for each.
const PIECE: usize = 64;

/// Bytes that all requests together keep for replay.
#[derive(Debug, Default)]
pub(crate) struct ReplayStore(AtomicUsize);

/// What comes next for an attempt.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    /// A piece.
    Data(Bytes),
    /// The end.
    End(Option<Arc<Head>>),
}

/// A request's body.
#[derive(Debug)]
pub(crate) struct Upload {
    pieces: VecDeque<Bytes>,
    /// The number of the first piece that is still here.
    first: usize,
    end: Option<Option<Arc<Head>>>,
    fault: Option<Fault>,
    kept: usize,
    /// Where what is kept is counted; `None`: nothing is kept (any more).
    store: Option<Arc<ReplayStore>>,
    bounds: Bounds,
    /// Bytes read so far.
    pub(crate) received: u64,
    window: Option<Window>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bounds {
    replay: usize,
    replay_total: usize,
    body: Option<u64>,
    timeout: Duration,
    min_rate: u64,
}

/// A stretch of time in which the client is waited for.
#[derive(Clone, Copy, Debug)]
struct Window {
    until: Moment,
    bytes: u64,
}

impl Upload {
    /// Of a request whose body is still to be read. `keep`: it may be repeated.
    pub(crate) fn new(limits: &Limits, store: &Arc<ReplayStore>, keep: bool) -> Self {
        let bounds = Bounds {
            replay: limits.replay_bytes,
            replay_total: limits.replay_total,
            body: limits.body_bytes,
            timeout: limits.body_timeout,
            min_rate: limits.body_min_rate,
        };
        let mut upload = Self::none();
        (upload.end, upload.bounds, upload.store) = (None, bounds, keep.then(|| store.clone()));
        upload
    }

    /// Its client may say nothing for so long, and then as little as it likes.
    #[must_use]
    pub(crate) fn quiet(mut self, timeout: Duration) -> Self {
        (self.bounds.timeout, self.bounds.min_rate) = (timeout, 0);
        self
    }

    /// Of a request without a body.
    pub(crate) fn none() -> Self {
        Self {
            pieces: VecDeque::new(),
            first: 0,
            end: Some(None),
            fault: None,
            kept: 0,
            store: None,
            bounds: Bounds::default(),
            received: 0,
            window: None,
        }
    }

    /// Whether the client has sent all of it.
    pub(crate) fn complete(&self) -> bool {
        self.end.is_some()
    }

    /// Whether an attempt may begin from the first byte.
    pub(crate) fn whole(&self) -> bool {
        self.has(0)
    }

    /// Whether what follows from part `at` on can still be had.
    pub(crate) fn has(&self, at: usize) -> bool {
        at >= self.first
    }

    /// Whether it is kept from its first byte on, so far.
    pub(crate) fn is_kept(&self) -> bool {
        self.whole() && (self.store.is_some() || self.complete())
    }

    /// What is here of it.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(|p| &p[..])
    }

    /// Whether it ended with trailers.
    pub(crate) fn has_trailers(&self) -> bool {
        matches!(self.end, Some(Some(_)))
    }

    /// What part `at` (counted from 0) is; reads from the client where it is not here yet. `Part::End` has no number of its own.
    pub(crate) fn poll(&mut self, at: usize, down: &mut Downstream<'_>, cx: &mut Context<'_>) -> Poll<Result<Part, Fault>> {
        debug_assert!(self.has(at), "part {at} of the body is gone");
        loop {
            if let Some(data) = self.pieces.get(at - self.first) {
                return Poll::Ready(Ok(Part::Data(data.clone())));
            }
            if let Some(end) = &self.end {
                return Poll::Ready(Ok(Part::End(end.clone())));
            }
            if let Some(fault) = self.fault {
                return Poll::Ready(Err(fault));
            }
            let read = down.poll_body(cx);
            if read.is_pending() && self.window.is_none() {
                self.window = Some(Window { until: clock::now() + self.bounds.timeout, bytes: 0 });
            }
            self.take(ready!(read), down);
        }
    }

    fn take(&mut self, read: Result<Piece, Fault>, down: &mut Downstream<'_>) {
        let mut next = Some(read);
        while let Some(read) = next.take() {
            self.take_one(read);
            if self.end.is_some() {
                self.window = None;
            } else if self.fault.is_none() {
                // What is here already comes along: where the length is known, the end is then known with the last byte.
                next = down.buffered_body();
            }
        }
    }

    fn take_one(&mut self, read: Result<Piece, Fault>) {
        match read {
            Err(fault) => self.fault = Some(fault),
            Ok(Piece::End(trailers)) => self.end = Some(trailers.map(Arc::from)),
            Ok(Piece::Data(data)) => {
                self.received += data.len() as u64;
                if let Some(w) = &mut self.window {
                    w.bytes += data.len() as u64;
                }
                if self.bounds.body.is_some_and(|most| self.received > most) {
                    self.fault = Some(Fault::TooLarge);
                    return;
                }
                self.account(data.len() + PIECE);
                self.pieces.push_back(data);
            }
        }
    }

    fn account(&mut self, more: usize) {
        let Some(store) = &self.store else { return };
        let total = store.0.fetch_add(more, Relaxed) + more;
        self.kept += more;
        if self.kept > self.bounds.replay || total > self.bounds.replay_total {
            self.let_go();
        }
    }

    /// The request will not be repeated any more: keep nothing that was sent.
    pub(crate) fn let_go(&mut self) {
        if let Some(store) = self.store.take() {
            store.0.fetch_sub(std::mem::take(&mut self.kept), Relaxed);
        }
    }

    /// Everything before part `at` was sent, and no other attempt is behind.
    pub(crate) fn sent(&mut self, at: usize) {
        while self.store.is_none() && self.first < at && !self.pieces.is_empty() {
            self.pieces.pop_front();
            self.first += 1;
        }
    }

    /// The client is not waited for now.
    pub(crate) fn pause(&mut self) {
        self.window = None;
    }

    /// When [`Upload::judge`] is to be asked.
    pub(crate) fn due(&self) -> Moment {
        self.window.map_or(Moment::FAR, |w| w.until)
    }

    /// The client had its time: was it too slow?
    pub(crate) fn judge(&mut self, now: Moment) {
        let Some(w) = self.window.filter(|w| now >= w.until) else { return };
        let least = (self.bounds.min_rate as f64 * self.bounds.timeout.as_secs_f64()) as u64;
        if w.bytes < least.max(1) {
            self.fault.get_or_insert(Fault::Stalled);
        }
        self.window = Some(Window { until: now + self.bounds.timeout, bytes: 0 });
    }

    /// What the client did wrong, if it did.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.fault
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.let_go();
    }
}
