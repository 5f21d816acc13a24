//! How many requests may be in flight to a pool: an adaptive concurrency limit of the gradient family
//! (Netflix concurrency-limits `Gradient2Limit`; Envoy's adaptive concurrency filter).
//!
//! The gradient compares what requests need now with what they need unhurried. While that ratio is near
//! one the limit stays out of the way: four times what is in flight, and two seconds' worth of all the
//! service's requests, since no pause of theirs and no stall of ours is longer, and any pool may inherit
//! them from another at once. Only when latency has been inflated for half a second
//! (longer than any pause) by work that is really queueing does it come down, by the gradient, from what is
//! in flight now: `limit ← in flight × 2 × usual / now + √limit`. The square root is the queue that keeps
//! the backend busy and lets the limit find its way up again. It brakes until it has been out of reach,
//! without inflation, for ten seconds.
//!
//! Gradient and not AIMD, because a backend with an unbounded queue never fails: it only becomes slower.
//! Latency above is a *median*: a few slow requests are not overload.
//!
//! It never goes below `overload.min` nor above `overload.max` or `max_inflight` × endpoints up.

use crate::model::policy::Overload;
use crate::model::signal::Hist;
use crate::model::time::Duration;

/// Room over what is in flight.
const HEADROOM: u32 = 4;
/// Seconds' worth of the service's requests.
const WORTH: f64 = 2.0;
/// Inflation below this is not overload (a histogram bucket is 19 % wide).
const TOLERANCE: f64 = 2.0;
/// Nor is an inflation by less than this.
const TOLERANCE_FLOOR: Duration = Duration::from_millis(10);
/// Full ticks in a row that must be inflated.
const PATIENCE: u32 = 5;
/// Samples without which a tick says nothing.
const ENOUGH: u64 = 5;
/// How fast the usual latency follows downwards, per full tick …
const DOWN: f64 = 0.1;
/// … and upwards: about ten minutes.
const UP: f64 = 0.0002;

/// Full ticks without inflation, and with the limit out of reach, that end the braking.
const RELAX: u32 = 100;

/// The adaptive limit of one pool.
#[derive(Clone, Debug)]
pub struct Limit {
    limit: f64,
    /// The usual median, microseconds; 0: unknown.
    usual: f64,
    /// The median now, smoothed a little.
    now: f64,
    /// Full ticks in a row that were inflated.
    inflated: u32,
    /// Braking, and for how many full ticks without need.
    braking: Option<u32>,
    /// The most in flight since the last full tick.
    peak: u32,
}

impl Limit {
    /// Where it starts.
    pub fn new(o: &Overload) -> Self {
        Self { limit: f64::from(o.initial.clamp(o.min, o.max)), usual: 0.0, now: 0.0, inflated: 0, braking: None, peak: 0 }
    }
    /// The limit, in requests.
    pub fn get(&self) -> u32 {
        self.limit.round() as u32
    }
    /// Whether latency said lately that the pool has more than it can do.
    pub fn overloaded(&self) -> bool {
        self.braking.is_some()
    }
    /// Latency now against the usual; 1 where either is unknown.
    pub fn inflation(&self) -> f64 {
        if self.usual > 0.0 && self.now > 0.0 { self.now / self.usual } else { 1.0 }
    }
    /// A fast tick: keep ahead of use. `rate`: requests per second offered to the service.
    pub fn fast(&mut self, inflight: u32, rate: f64, o: &Overload) {
        self.peak = self.peak.max(inflight);
        if self.braking.is_none() {
            let want = f64::from(inflight.saturating_mul(HEADROOM)).max(rate * WORTH).max(f64::from(o.initial));
            self.limit = self.limit.max(want).clamp(f64::from(o.min), f64::from(o.max));
        }
    }
    /// A full tick: what requests needed since the last one.
    pub fn full(&mut self, inflight: u32, latency: &Hist, o: &Overload) {
        let peak = std::mem::take(&mut self.peak).max(inflight);
        self.learn(latency);
        if self.inflated >= PATIENCE && self.braking.is_none() {
            self.braking = Some(0);
        }
        match &mut self.braking {
            Some(easy) => {
                // Only what is used can be inflated by use: out of reach, the limit stands as it is.
                if f64::from(peak) * 2.0 >= self.limit || self.limit > f64::from(o.max) / 2.0 {
                    *easy = 0;
                    let from = self.limit.min(f64::from(peak.max(o.min)));
                    let gradient = (TOLERANCE * self.usual / self.now).clamp(0.5, 1.0);
                    self.limit += 0.2 * (from * gradient + self.limit.sqrt() - self.limit);
                } else {
                    *easy = if self.inflated > 0 { 0 } else { *easy + 1 };
                }
                if self.braking.is_some_and(|easy| easy >= RELAX) {
                    self.braking = None;
                }
            }
            None => {
                // Without use the room shrinks, slowly: half in about a minute.
                let want = f64::from(peak.saturating_mul(HEADROOM).max(o.initial));
                self.limit += (want - self.limit).min(0.0) * 0.001;
            }
        }
        self.limit = self.limit.clamp(f64::from(o.min), f64::from(o.max));
    }
    /// Follow the latency now, and the usual one slowly.
    fn learn(&mut self, latency: &Hist) {
        if latency.count() < ENOUGH {
            return;
        }
        let now = latency.quantile(0.5).map_or(0.0, |d| d.as_micros() as f64);
        self.now = if self.now == 0.0 { now } else { self.now + 0.4 * (now - self.now) };
        if self.usual == 0.0 {
            self.usual = now;
        }
        let bound = (self.usual * TOLERANCE).max(self.usual + TOLERANCE_FLOOR.as_micros() as f64);
        self.inflated = if now > bound { self.inflated + 1 } else { 0 };
        let rate = if now < self.usual { DOWN } else { UP };
        self.usual += rate * (now - self.usual);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(us: u64, n: u32) -> Hist {
        let mut h = Hist::default();
        (0..n).for_each(|_| h.add(us));
        h
    }

    /// A healthy hour, ten times shorter: bursts of four times the rate and pauses of 200 ms. Never is
    /// more in flight than the limit of a fast tick before.
    #[test]
    fn never_refuses_a_healthy_burst_or_pause() {
        let o = Overload::default();
        let mut l = Limit::new(&o);
        let rate = 300.0;
        for tick in 0..36_000u32 {
            let burst = tick % 1000 < 100;
            let pause = tick % 700 < 20;
            let r = if burst { rate * 4.0 } else { rate };
            let inflight = if pause { r * 0.01 * f64::from(tick % 700 + 1) } else { r * 0.006 } as u32;
            assert!(inflight <= l.get(), "tick {tick}: {inflight} in flight, limit {}", l.get());
            l.fast(inflight, rate, &o);
            if tick % 10 == 9 {
                let us = if pause { 100_000 } else { 6_000 };
                l.full(inflight, &at(us, (r / 10.0) as u32), &o);
            }
        }
    }

    /// A server that does 100 requests at once in 10 ms each and queues the rest without bound; what is
    /// offered over the limit is refused at once.
    #[test]
    fn comes_down_to_what_the_backend_can_do_and_goes_up_again() {
        let o = Overload { max: 10_000, ..Overload::default() };
        let mut l = Limit::new(&o);
        let run = |l: &mut Limit, offered: f64, ticks: u32| -> f64 {
            let mut worst = 0.0f64;
            for tick in 0..ticks {
                let wanted = if offered > 10_000.0 { f64::INFINITY } else { offered * 0.01 };
                let inflight = wanted.min(f64::from(l.get()));
                let us = 10_000.0 * (inflight / 100.0).max(1.0);
                l.fast(inflight as u32, offered.min(10_000.0), &o);
                if tick % 10 == 9 {
                    l.full(inflight as u32, &at(us as u64, 100), &o);
                }
                worst = if tick > ticks / 2 { worst.max(us) } else { 0.0 };
            }
            worst
        };
        run(&mut l, 5_000.0, 500);
        assert!(l.get() >= 200, "room for four times the use: {}", l.get());
        let worst = run(&mut l, 20_000.0, 4_000);
        assert!(worst < 40_000.0, "the queue stays short: {worst} us");
        assert!(l.get() >= 100, "and the backend busy: {}", l.get());
        run(&mut l, 5_000.0, 2_000);
        assert!(!l.overloaded());
    }

    #[test]
    fn five_inflated_ticks_are_overload_and_four_are_not() {
        let o = Overload::default();
        let mut l = Limit::new(&o);
        l.full(10, &at(6_000, 30), &o);
        (0..4).for_each(|_| l.full(10, &at(60_000, 30), &o));
        assert!(!l.overloaded());
        l.full(10, &at(60_000, 30), &o);
        assert!(l.overloaded());
    }

    proptest! {
        #[test]
        fn stays_between_its_bounds(steps in prop::collection::vec((0u32..100_000, 0u64..5_000_000, 0u32..60), 0..200)) {
            let o = Overload::default();
            let mut l = Limit::new(&o);
            for (inflight, us, n) in steps {
                l.fast(inflight, 100.0, &o);
                l.full(inflight, &at(us, n), &o);
                prop_assert!((o.min..=o.max).contains(&l.get()));
            }
        }
    }
}
