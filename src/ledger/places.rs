//! How regions and fates are at this second, from the picture, from what trips were told to be caused by, and from their pace.
//!
//! **Slow** without being suspect is a pool whose p95 over ten seconds is more than twice what it usually is, and 20 ms over it. The usual
//! is a slow average over stretches that were not slow.

use crate::live::Picture;
use crate::model::event::{Event, EventKind};
use crate::model::id::PoolIx;
use crate::model::signal::Hist;
use crate::model::topology::Topology;
use crate::model::view::{PoolView, State};
use crate::report::slo::Now;
use std::collections::BTreeMap;

/// Looks that a stretch of pace has.
const STRETCH: u32 = 10;
/// Answers without which a stretch says nothing.
const ENOUGH: u64 = 50;
/// So many times the usual,
const TIMES: f64 = 2.0;
/// and so much over it, microseconds, is slow.
const OVER: f64 = 20_000.0;
/// Stretches before there is a usual.
const LEARNED: u32 = 6;
/// What a stretch adds to the usual.
const WEIGHT: f64 = 0.05;

/// What is remembered between looks.
#[derive(Debug, Default)]
pub struct Places {
    causes: BTreeMap<String, String>,
    drained: BTreeMap<String, bool>,
    paces: BTreeMap<String, Pace>,
    looks: u32,
}

#[derive(Debug, Default)]
struct Pace {
    last: Hist,
    usual: f64,
    learned: u32,
    slow: bool,
}

impl Pace {
    fn stretch(&mut self, now: Hist) {
        let n = |i: usize| self.last.0.get(i).copied().unwrap_or(0);
        let fresh = Hist(now.0.iter().enumerate().map(|(i, c)| c.wrapping_sub(n(i))).collect());
        self.last = now;
        let p95 = fresh.quantile(0.95).filter(|_| fresh.count() >= ENOUGH);
        let Some(p95) = p95.map(|d| d.as_micros() as f64) else {
            self.slow = false;
            return;
        };
        self.slow = self.learned >= LEARNED && p95 > self.usual * TIMES && p95 > self.usual + OVER;
        if self.slow {
            return;
        }
        self.learned = self.learned.saturating_add(1);
        // The mean of the first ones, then a slow average.
        self.usual += (1.0 / f64::from(self.learned)).max(WEIGHT) * (p95 - self.usual);
    }
}

impl Places {
    /// What an event tells of causes and drains.
    pub fn follow(&mut self, event: &Event) {
        match &event.kind {
            EventKind::Pool { service, region, to: State::Tripped, cause, .. } => {
                // The first cause names the outage; a relapse in trial does not rename it.
                self.causes.entry(format!("{service}/{region}")).or_insert_with(|| cause.name().into());
            }
            EventKind::Pool { service, region, to: State::Serving, .. } => drop(self.causes.remove(&format!("{service}/{region}"))),
            EventKind::Drain { region, on, .. } => drop(self.drained.insert(region.clone(), *on)),
            _ => {}
        }
    }

    /// How every region and every fate is. Once a second.
    pub fn look(&mut self, picture: &Picture) -> [Vec<(String, Now)>; 2] {
        let t = picture.view.topology();
        self.looks += 1;
        if self.looks.is_multiple_of(STRETCH) {
            for (i, pool) in t.pools.iter().enumerate() {
                let times = picture.cells.pool(PoolIx::from(i)).times.hist();
                self.paces.entry(pool.name.to_string()).or_default().stretch(times);
            }
            self.paces.retain(|name, _| t.pools.iter().any(|p| *p.name == **name));
        }
        let regions = self.regions(t, &picture.view.pools);
        let mut fates: BTreeMap<String, Now> = BTreeMap::new();
        for (region, (_, now)) in t.regions.iter().zip(&regions) {
            for fate in &region.fates {
                let sum = fates.entry(fate.to_string()).or_default();
                sum.out |= now.out;
                sum.partly |= now.partly;
                sum.slow |= now.slow;
                sum.drained |= now.drained;
                sum.cause = sum.cause.take().or_else(|| now.cause.clone());
            }
        }
        [regions, fates.into_iter().collect()]
    }

    fn regions(&self, t: &Topology, views: &[PoolView]) -> Vec<(String, Now)> {
        let one = |(i, region): (usize, &crate::model::topology::Region)| {
            let pools: Vec<PoolIx> = t.pools_of(i.into()).collect();
            let away = |p: &&PoolIx| matches!(views[p.at()].state, State::Tripped | State::Trial);
            let out = pools.iter().filter(away).count();
            let slow = |p: &PoolIx| views[p.at()].suspect || self.paces.get(&*t.pools[p.at()].name).is_some_and(|p| p.slow);
            let cause = pools.iter().filter(away).find_map(|p| self.causes.get(&*t.pools[p.at()].name)).cloned();
            let now = Now {
                out: out > 0 && out == pools.len(),
                partly: out > 0,
                slow: pools.iter().any(slow),
                drained: region.drained || self.drained.get(&*region.name).copied().unwrap_or(false),
                cause,
            };
            (region.name.to_string(), now)
        };
        t.regions.iter().enumerate().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(pace: &mut Pace, ms: u64) -> bool {
        let mut now = pace.last.clone();
        (0..100).for_each(|_| now.add(ms * 1000));
        pace.stretch(now);
        pace.slow
    }

    #[test]
    fn slow_is_far_over_the_usual_and_does_not_become_it() {
        let mut pace = Pace::default();
        assert!((0..20).all(|_| !stretch(&mut pace, 20)));
        assert!(!stretch(&mut pace, 35), "not twice");
        assert!((0..500).all(|_| stretch(&mut pace, 80)), "it does not get used to it");
        assert!(!stretch(&mut pace, 20));
        let mut quick = Pace::default();
        assert!((0..20).all(|_| !stretch(&mut quick, 1)));
        assert!(!stretch(&mut quick, 10), "ten times of nothing is nothing");
        pace.stretch(pace.last.clone());
        assert!(!pace.slow, "no traffic, no verdict");
    }
}
