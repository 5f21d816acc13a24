//! Heartbeats of the worker threads: whether *we* were stalled.
//!
//! Silence of a backend proves nothing while the thread that would have heard it did not run. Every worker
//! stores the time every 10 ms; the control tick takes the slowest one's delay, and its own, as `late`.

use crate::clock;
use crate::model::time::{Duration, Moment};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Debug, Default)]
#[repr(align(64))]
struct Beat(AtomicU64);

/// The last beat of each worker.
#[derive(Debug)]
pub struct Beats(Box<[Beat]>);

impl Beats {
    /// How often a worker beats. Well below the least silence that counts (`suspect_floor`, 30 ms).
    pub const EVERY: Duration = Duration::from_millis(10);

    /// For this many workers.
    pub fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Beat::default()).collect())
    }
    /// The worker is alive now.
    #[inline]
    pub fn beat(&self, worker: usize, now: Moment) {
        self.0[worker].0.store(now.0, Relaxed);
    }
    /// The worker has left, and is not waited for.
    pub fn gone(&self, worker: usize) {
        self.0[worker].0.store(0, Relaxed);
    }
    /// How far the slowest worker is behind its next beat; zero while all are in time.
    pub fn late(&self, now: Moment) -> Duration {
        let slowest = self.0.iter().map(|b| b.0.load(Relaxed)).filter(|at| *at != 0).min();
        slowest.map_or(Duration::ZERO, |at| now.since(Moment(at)).saturating_sub(Self::EVERY))
    }
    /// Beats until the task is dropped: to be spawned on the worker's own runtime.
    pub async fn keep(&self, worker: usize) {
        loop {
            self.beat(worker, clock::now());
            tokio::time::sleep(Self::EVERY).await;
        }
    }
}
