//! Heartbeats of the worker threads: whether *we* were stalled.
//!
//! Silence of a backend proves nothing while the thread that would have heard it did not run. Every worker
//! says when its next beat is due, and is 10 ms later there to say so again; the control tick takes the delay of the
//! slowest one, and its own, as `late`. While nothing is in flight anywhere, ten beats a second are enough.

use crate::clock;
use crate::model::time::{Duration, Moment};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

#[derive(Debug, Default)]
#[repr(align(64))]
struct Beat(AtomicU64);

/// When each worker's next beat is due.
#[derive(Debug)]
pub struct Beats {
    due: Box<[Beat]>,
    resting: AtomicBool,
}

impl Beats {
    /// How often a worker beats. Well below the least silence that counts (`suspect_floor`, 30 ms).
    pub const EVERY: Duration = Duration::from_millis(10);
    /// How often it does while nothing is in flight.
    pub const RESTING: Duration = Duration::from_millis(100);

    /// For this many workers.
    pub fn new(workers: usize) -> Self {
        Self { due: (0..workers).map(|_| Beat::default()).collect(), resting: AtomicBool::new(false) }
    }
    /// The worker is alive now. Tells when to say so again.
    #[inline]
    pub fn beat(&self, worker: usize, now: Moment) -> Moment {
        let due = now + if self.resting.load(Relaxed) { Self::RESTING } else { Self::EVERY };
        self.due[worker].0.store(due.0, Relaxed);
        due
    }
    /// The worker has left, and is not waited for.
    pub fn gone(&self, worker: usize) {
        self.due[worker].0.store(0, Relaxed);
    }
    /// Nothing is in flight, or something is again: from each worker's next beat on.
    pub fn rest(&self, resting: bool) {
        self.resting.store(resting, Relaxed);
    }
    /// How late the slowest worker is; zero while all are in time.
    pub fn late(&self, now: Moment) -> Duration {
        let slowest = self.due.iter().map(|b| b.0.load(Relaxed)).filter(|at| *at != 0).min();
        slowest.map_or(Duration::ZERO, |due| now.since(Moment(due)))
    }
    /// Beats until the task is dropped: to be spawned on the worker's own runtime.
    pub async fn keep(&self, worker: usize) {
        loop {
            let due = self.beat(worker, clock::now());
            clock::sleep_until(due).await;
        }
    }
}
