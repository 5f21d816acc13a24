//! How long a route's requests normally need in a pool.
//!
//! Requests add the time to the first byte of *good* answers to a histogram; the control side folds it into
//! two halves of [`HALF`] each (the one that fills and the one before it) and reads the quantiles off both, so
//! that what is normal rests on the last 30 to 60 s. Two rules keep a fault from becoming the norm:
//!
//! - failures, timeouts and answers that never came are not in it;
//! - a quantile that is known may rise by at most a tenth a second ([`RISE`]): slowness has to last about
//!   25 s to be ten times the old norm. Falling is immediate.
//!
//! Fewer than [`ENOUGH`] samples are no norm at all.

use crate::model::signal::{HIST_BUCKETS, Hist};
use crate::model::time::{Duration, Moment};
use crate::model::view::Pace;
use parking_lot::Mutex;
use std::array::from_fn;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Samples without which nothing is known: below 30 the p99 is just the slowest one seen.
pub const ENOUGH: u64 = 30;
/// Until so many samples were seen in all, quantiles follow freely: the first ones include cold connections.
const YOUNG: u64 = 2 * ENOUGH;
const HALF: Duration = Duration::from_secs(30);
const RISE: f64 = 1.1;
/// A known pace is worked out again this often.
const EVERY: Duration = Duration::from_secs(1);

/// The estimator of one (route, pool).
#[derive(Debug)]
#[repr(align(64))]
pub struct Estimator {
    fresh: AtomicU32,
    counts: [AtomicU32; HIST_BUCKETS],
    quantiles: [AtomicU32; 3],
    past: Mutex<Past>,
}

#[derive(Debug, Default)]
struct Past {
    filling: Hist,
    before: Hist,
    seen: u64,
    rotated: Moment,
    updated: Moment,
}

impl Default for Estimator {
    fn default() -> Self {
        Self { fresh: AtomicU32::new(0), counts: from_fn(|_| AtomicU32::new(0)), quantiles: Default::default(), past: Mutex::default() }
    }
}

impl Estimator {
    /// One good answer's time to first byte.
    #[inline]
    pub fn add(&self, took: Duration) {
        self.counts[Hist::bucket(took.as_micros() as u64)].fetch_add(1, Relaxed);
        self.fresh.fetch_add(1, Relaxed);
    }

    /// What is normal, as of the last [`refresh`](Self::refresh).
    #[inline]
    pub fn pace(&self) -> Pace {
        let [p50, p95, p99] = from_fn(|i| Duration::from_micros(self.quantiles[i].load(Relaxed).into()));
        Pace { p50, p95, p99 }
    }

    /// Folds in what is new. Only the control side calls it, at full ticks.
    pub fn refresh(&self, now: Moment) {
        if self.fresh.load(Relaxed) == 0 {
            return;
        }
        let mut past = self.past.lock();
        if self.pace().known() && now.since(past.updated) < EVERY {
            return;
        }
        self.fresh.store(0, Relaxed);
        let new = Hist(self.counts.iter().map(|c| c.swap(0, Relaxed)).collect());
        past.seen += new.count();
        past.filling.merge(&new);
        if past.rotated == Moment::ZERO {
            past.rotated = now;
        } else if now.since(past.rotated) >= HALF && past.filling.count() >= ENOUGH {
            past.before = std::mem::take(&mut past.filling);
            past.rotated = now;
        }
        let mut all = past.filling.clone();
        all.merge(&past.before);
        if all.count() < ENOUGH {
            return;
        }
        let room = RISE.powf(now.since(past.updated).as_secs_f64().min(60.0));
        for (cell, q) in self.quantiles.iter().zip([0.50, 0.95, 0.99]) {
            let new = all.quantile(q).map_or(0, |d| d.as_micros().min(u32::MAX.into()) as u32);
            let old = cell.load(Relaxed);
            let next = if old == 0 || past.seen < YOUNG { new } else { new.min((f64::from(old) * room) as u32) };
            cell.store(next, Relaxed);
        }
        past.updated = now;
    }
}
