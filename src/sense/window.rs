//! A sliding window of outcomes, independent of the request rate: two rings of time buckets over the
//! same counts (the idea is linkerd2-proxy's `success_rate`). The fine ring (20 ms, one second) lets a
//! sudden fault stand out while it is still young; the coarse one covers the whole configured window.
//!
//! Questions are asked of *suffixes*: "the last 20 ms, 40 ms, … 1 s, … 10 s". A fault that began 100 ms
//! ago fills the short suffixes although healthy seconds lie before it; a rare one shows in the long ones.
//! A suffix ends now and begins at a bucket's edge, so it is up to one bucket longer than its name.

use crate::model::signal::PoolTally;
use crate::model::time::{Duration, Moment};

/// Width of a fine bucket.
const FINE: Duration = Duration::from_millis(20);
/// Buckets per ring.
const BUCKETS: usize = 50;

/// What attempts came to, over some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Attempts begun.
    pub started: u32,
    /// Good answers.
    pub ok: u32,
    /// Failing statuses.
    pub status: u32,
    /// Rejected by a guard.
    pub guard: u32,
    /// No connection.
    pub connect: u32,
    /// No first byte in time.
    pub timeout: u32,
    /// Broke off.
    pub reset: u32,
    /// Failures whose request then succeeded in another region.
    pub contradicted: u32,
    /// Failures whose request then failed in another region too.
    pub confirmed: u32,
    /// Attempts that became late.
    pub lates: u32,
    /// Late ones that were answered after all.
    pub revived: u32,
    /// Endpoints that failed, one bit each.
    pub failed_on: u64,
    /// Endpoints that were late, one bit each.
    pub late_on: u64,
    /// Keys with implausible answers: never more bits than distinct keys.
    pub implausible_keys: u64,
}

impl Counts {
    /// Add a tally.
    pub fn add(&mut self, t: &PoolTally) {
        self.started += t.started;
        self.ok += t.ok;
        self.status += t.status;
        self.guard += t.guard;
        self.connect += t.connect;
        self.timeout += t.timeout;
        self.reset += t.reset;
        self.contradicted += t.contradicted;
        self.confirmed += t.confirmed;
        self.lates += t.lates;
        self.revived += t.revived;
        self.failed_on |= t.failed_on;
        self.late_on |= t.late_on;
        self.implausible_keys |= t.implausible_keys;
    }
    /// Add another's counts.
    pub fn merge(&mut self, o: &Self) {
        self.started += o.started;
        self.ok += o.ok;
        self.status += o.status;
        self.guard += o.guard;
        self.connect += o.connect;
        self.timeout += o.timeout;
        self.reset += o.reset;
        self.contradicted += o.contradicted;
        self.confirmed += o.confirmed;
        self.lates += o.lates;
        self.revived += o.revived;
        self.failed_on |= o.failed_on;
        self.late_on |= o.late_on;
        self.implausible_keys |= o.implausible_keys;
    }
    /// Attempts that failed.
    pub fn failed(&self) -> u32 {
        self.status + self.guard + self.connect + self.timeout + self.reset
    }
    /// Failures in which nothing answered, or broke off.
    pub fn hard(&self) -> u32 {
        self.connect + self.timeout + self.reset
    }
    /// Attempts that say something about the backend.
    pub fn judged(&self) -> u32 {
        self.ok + self.failed()
    }
    /// The part that failed or hangs. A late attempt is not judged yet, but it is what a pool is accused of.
    pub fn bad_ratio(&self) -> f64 {
        let hanging = self.hangs().saturating_sub(self.timeout);
        let judged = self.judged() + hanging;
        if judged == 0 { 0.0 } else { f64::from(self.failed() + hanging) / f64::from(judged) }
    }
    /// Attempts that hang, as far as is known: late ones that were not answered after all. Where the
    /// attempt timeout is shorter than the late mark, the timeouts tell instead.
    pub fn hangs(&self) -> u32 {
        self.lates.saturating_sub(self.revived).max(self.timeout)
    }
}

/// One ring of buckets of equal width.
#[derive(Clone, Debug)]
struct Ring {
    width: u64,
    buckets: Vec<Counts>,
    /// Number of the newest bucket (time / width).
    head: u64,
}

impl Ring {
    fn new(width: Duration, n: usize) -> Self {
        Self { width: (width.as_micros() as u64).max(1), buckets: vec![Counts::default(); n.max(1)], head: 0 }
    }
    fn add(&mut self, now: Moment, t: &PoolTally) {
        let head = now.0 / self.width;
        let n = self.buckets.len() as u64;
        for i in (self.head + 1).max((head + 1).saturating_sub(n))..=head {
            self.buckets[(i % n) as usize] = Counts::default();
        }
        self.head = self.head.max(head);
        self.buckets[(self.head % n) as usize].add(t);
    }
    /// Sums over ever longer suffixes, with the suffix's length.
    fn suffixes(&self, now: Moment) -> impl Iterator<Item = (Duration, Counts)> + '_ {
        let (n, at) = (self.buckets.len() as u64, now.0 / self.width);
        let mut sum = Counts::default();
        (0..n).filter_map(move |back| {
            let i = at.checked_sub(back)?;
            if i <= self.head && i + n > self.head {
                sum.merge(&self.buckets[(i % n) as usize]);
            }
            Some((Duration::from_micros((back + 1) * self.width), sum))
        })
    }
}

/// The window of one pool.
#[derive(Clone, Debug)]
pub struct Window {
    fine: Ring,
    coarse: Ring,
    span: Duration,
}

impl Window {
    /// An empty window that remembers `span`.
    pub fn new(span: Duration) -> Self {
        let fine = (span.as_micros() / FINE.as_micros()).clamp(1, BUCKETS as u128) as usize;
        Self { fine: Ring::new(FINE, fine), coarse: Ring::new(span / BUCKETS as u32, BUCKETS), span }
    }
    /// How far back it remembers.
    pub fn span(&self) -> Duration {
        self.span
    }
    /// Count what happened since the last tick.
    pub fn add(&mut self, now: Moment, t: &PoolTally) {
        self.fine.add(now, t);
        self.coarse.add(now, t);
    }
    /// Forget everything.
    pub fn clear(&mut self) {
        *self = Self::new(self.span);
    }
    /// Every suffix, the shortest first: the fine ones, then the coarse ones that are longer.
    pub fn suffixes(&self, now: Moment) -> impl Iterator<Item = (Duration, Counts)> + '_ {
        let covered = self.fine.width * self.fine.buckets.len() as u64;
        let skip = (covered / self.coarse.width) as usize;
        self.fine.suffixes(now).chain(self.coarse.suffixes(now).skip(skip))
    }
    /// What happened during the last `span` (rounded up to buckets).
    pub fn last(&self, now: Moment, span: Duration) -> Counts {
        let us = span.as_micros() as u64;
        let ring = if us <= self.fine.width * self.fine.buckets.len() as u64 { &self.fine } else { &self.coarse };
        let n = (us.div_ceil(ring.width) as usize).max(1);
        ring.suffixes(now).take(n).last().unwrap_or_default().1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ok(n: u32) -> PoolTally {
        PoolTally { ok: n, ..Default::default() }
    }
    const WINDOW: Duration = Duration::from_secs(10);

    #[test]
    fn forgets_after_its_span_and_not_before() {
        let mut w = Window::new(WINDOW);
        w.add(Moment::ms(1000), &ok(7));
        assert_eq!(w.last(Moment::ms(1000 + 9_799), WINDOW).ok, 7);
        assert_eq!(w.last(Moment::ms(1000 + 10_200), WINDOW).ok, 0);
    }

    #[test]
    fn a_short_look_sees_only_the_recent() {
        let mut w = Window::new(WINDOW);
        w.add(Moment::ms(1000), &ok(100));
        w.add(Moment::ms(2000), &ok(3));
        assert_eq!(w.last(Moment::ms(2010), Duration::from_millis(100)).ok, 3);
        assert_eq!(w.suffixes(Moment::ms(2010)).find(|(_, c)| c.ok > 0).unwrap().1.ok, 3);
        assert_eq!(w.suffixes(Moment::ms(2010)).last().unwrap().1.ok, 103);
    }

    #[test]
    fn a_window_shorter_than_a_second_works() {
        let mut w = Window::new(Duration::from_millis(100));
        w.add(Moment::ms(1000), &ok(1));
        assert_eq!(w.suffixes(Moment::ms(1090)).last().unwrap().1.ok, 1);
        assert_eq!(w.suffixes(Moment::ms(1110)).last().unwrap().1.ok, 0);
    }

    proptest! {
        /// Whatever comes when: suffixes never shrink, and nothing is counted that is older than the window and a bucket.
        #[test]
        fn suffixes_grow_and_forget(adds in prop::collection::vec((0u64..3_000, 0u32..50), 1..80)) {
            let mut w = Window::new(WINDOW);
            let (mut at, mut all) = (1000, Vec::new());
            for (gap, n) in adds {
                at += gap;
                w.add(Moment::ms(at), &ok(n));
                all.push((at, n));
            }
            let now = Moment::ms(at);
            let mut before = 0;
            for (_, c) in w.suffixes(now).take(50) {
                prop_assert!(c.ok >= before);
                before = c.ok;
            }
            let total = w.last(now, WINDOW).ok;
            let sure: u32 = all.iter().filter(|(t, _)| at - t <= 9_800).map(|(_, n)| n).sum();
            let most: u32 = all.iter().filter(|(t, _)| at - t <= 10_000).map(|(_, n)| n).sum();
            prop_assert!(sure <= total && total <= most, "{sure} <= {total} <= {most}");
        }
    }
}
