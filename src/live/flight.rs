//! One attempt in the air.
//!
//! ```text
//! begin ─▶ waiting ─(overdue)─(late)─▶ first byte ─▶ body ─▶ end(outcome)
//!             └──────────── dropped anywhere: Cancelled ─────────────┘
//! ```
//! Gauges move with it and move back with it, however it ends.

use super::cell::{EndpointCell, PoolCell};
use super::pace::Estimator;
use crate::model::outcome::Outcome;
use crate::model::time::{Duration, Moment};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// An endpoint's failures in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streak {
    /// How many.
    pub failures: u32,
    /// More than half of them hard: no answer at all, or broken off.
    pub hard: bool,
}

/// One attempt in the air. Dropping it without [`end`](Self::end) counts it as cancelled.
#[derive(Debug)]
pub struct Flight<'a> {
    pub(super) pool: &'a PoolCell,
    pub(super) endpoint: &'a EndpointCell,
    pub(super) pace: &'a OnceLock<Arc<Estimator>>,
    pub(super) bit: u64,
    pub(super) began: Moment,
    pub(super) trial: bool,
    waiting: bool,
    overdue: bool,
    late: bool,
    ended: bool,
    /// Taken out of the gauge of requests in flight before its end.
    parked: bool,
    /// Time to first byte, until it is known whether the answer was good.
    took: Option<Duration>,
}

/// A flight without the cells it counts in, to be carried elsewhere; the gauges stay as they are until
/// [`Cells::attach`](super::Cells::attach) makes it one again.
#[derive(Debug)]
#[must_use = "the gauges stay up until it is attached again"]
pub struct Detached {
    bit: u64,
    began: Moment,
    trial: bool,
    waiting: bool,
    overdue: bool,
    late: bool,
    parked: bool,
}

impl<'a> Flight<'a> {
    /// Take it off its cells, without touching a gauge.
    pub fn detach(self) -> Detached {
        let Self { bit, began, trial, waiting, overdue, late, parked, .. } = self;
        std::mem::forget(self);
        Detached { bit, began, trial, waiting, overdue, late, parked }
    }
    pub(super) fn attach(pool: &'a PoolCell, endpoint: &'a EndpointCell, pace: &'a OnceLock<Arc<Estimator>>, d: &Detached) -> Self {
        let Detached { bit, began, trial, waiting, overdue, late, parked } = *d;
        Self { pool, endpoint, pace, bit, began, trial, waiting, overdue, late, ended: false, parked, took: None }
    }
    pub(super) fn begin(
        pool: &'a PoolCell,
        endpoint: &'a EndpointCell,
        pace: &'a OnceLock<Arc<Estimator>>,
        bit: u64,
        now: Moment,
        trial: bool,
    ) -> Self {
        pool.started.fetch_add(1, Relaxed);
        pool.inflight.fetch_add(1, Relaxed);
        pool.ear.wait(now);
        endpoint.inflight.fetch_add(1, Relaxed);
        endpoint.ear.wait(now);
        Self {
            pool,
            endpoint,
            pace,
            bit,
            began: now,
            trial,
            waiting: true,
            overdue: false,
            late: false,
            ended: false,
            parked: false,
            took: None,
        }
    }

    /// When anything was last heard from the endpoint, by any request; `ZERO`: never.
    pub fn endpoint_heard(&self) -> Moment {
        self.endpoint.ear.heard()
    }
    /// When it began.
    pub fn began(&self) -> Moment {
        self.began
    }

    /// The request's body is still coming in from the client: until [`Flight::handed_over`] the endpoint is not waited for.
    pub fn uploads(&mut self) {
        self.wait_over();
    }

    /// The last byte of the request is on its way: from now on the endpoint is waited for, and its time runs.
    pub fn handed_over(&mut self, now: Moment) {
        if self.waiting || self.took.is_some() {
            return;
        }
        self.began = now;
        self.waiting = true;
        self.pool.ear.wait(now);
        self.endpoint.ear.wait(now);
        if std::mem::take(&mut self.parked) {
            self.pool.inflight.fetch_add(1, Relaxed);
            self.endpoint.inflight.fetch_add(1, Relaxed);
        }
    }

    /// The client alone keeps it from its end (it sends or reads slowly): it is not the endpoint's work any more, and must
    /// not take room from requests that are.
    pub fn park(&mut self) {
        if !std::mem::replace(&mut self.parked, true) {
            self.pool.inflight.fetch_sub(1, Relaxed);
            self.endpoint.inflight.fetch_sub(1, Relaxed);
        }
    }

    /// Anything came from the endpoint: more of an answer, an informational head.
    #[inline]
    pub fn heard(&mut self, now: Moment) {
        self.pool.ear.hear(now);
        self.endpoint.ear.hear(now);
    }

    /// The answer has begun: nothing is waited for any more.
    #[inline]
    pub fn first_byte(&mut self, now: Moment) {
        self.pool.ear.hear_first(now);
        self.endpoint.ear.hear_first(now);
        if self.waiting {
            self.took = Some(now.since(self.began));
            if self.late {
                self.pool.revived.fetch_add(1, Relaxed);
            }
            self.wait_over();
        }
    }

    /// The answer's head is good: its time counts as normal, from now rather than from the end of its body.
    #[inline]
    pub fn accepted(&mut self) {
        if let Some(took) = self.took.take() {
            self.pool.times.add(took);
            self.endpoint.smooth(took);
            self.pace.get_or_init(Arc::default).add(took);
        }
    }

    /// It waits longer than its route's requests normally do (2 × p99, at least `suspect_floor`).
    pub fn overdue(&mut self) {
        mark(self.waiting, &mut self.overdue, &self.pool.overdue);
    }

    /// It waits far longer than its route's requests normally do (5 × p99, at least `silence_floor`).
    pub fn late(&mut self) {
        if mark(self.waiting, &mut self.late, &self.pool.late) {
            self.pool.lates.fetch_add(1, Relaxed);
            self.pool.late_on.fetch_or(self.bit, Relaxed);
        }
    }

    /// It is over. Tells the endpoint's failures in a row, for whoever may have to eject it.
    pub fn end(mut self, now: Moment, outcome: Outcome) -> Streak {
        if outcome == Outcome::Ok {
            self.accepted();
        }
        if outcome.is_failure() {
            self.pool.failed_on.fetch_or(self.bit, Relaxed);
        }
        if self.trial {
            match outcome {
                Outcome::Ok => drop(self.pool.trial_ok.fetch_add(1, Relaxed)),
                o if o.is_failure() => drop(self.pool.trial_failed.fetch_add(1, Relaxed)),
                _ => {}
            }
        }
        self.land(outcome);
        self.endpoint.ended(outcome, now)
    }

    fn wait_over(&mut self) {
        if std::mem::take(&mut self.waiting) {
            self.pool.ear.waiting.fetch_sub(1, Relaxed);
            self.endpoint.ear.waiting.fetch_sub(1, Relaxed);
            if std::mem::take(&mut self.overdue) {
                self.pool.overdue.fetch_sub(1, Relaxed);
            }
            if std::mem::take(&mut self.late) {
                self.pool.late.fetch_sub(1, Relaxed);
            }
        }
    }

    fn land(&mut self, outcome: Outcome) {
        self.ended = true;
        self.wait_over();
        self.pool.ends.add(outcome);
        self.park();
    }
}

/// Marks it once, and only while it waits. Tells whether it did.
fn mark(waiting: bool, marked: &mut bool, gauge: &AtomicU32) -> bool {
    let fresh = waiting && !std::mem::replace(marked, true);
    if fresh {
        gauge.fetch_add(1, Relaxed);
    }
    fresh
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.land(Outcome::Cancelled);
        }
    }
}
