//! When counts go on record: never while all is well, and densely where it matters.
//!
//! ```text
//! well ──something is out──▶ trouble ──nothing is out──▶ well
//!        every look of the        1 s for 30 s, then 10 s,       one more
//!        last seconds, whole      then 60 s; only what changed
//! ```
//!
//! The looks from before the trouble was seen tell what was so at its onset; a fault is seen within seconds.

use super::count::Sample;
use crate::model::count::Counts;
use crate::model::time::{Duration, Moment};
use std::collections::VecDeque;

/// Each second for so long,
const DENSE: Duration = Duration::from_secs(30);
/// then every so often
const THEN: Duration = Duration::from_secs(10);
/// until so long after the beginning,
const UNTIL: Duration = Duration::from_secs(600);
/// and then at this pace.
const LATER: Duration = Duration::from_secs(60);

/// Whether something is wrong, and what was told of it.
#[derive(Clone, Debug, Default)]
pub struct Episode {
    since: Option<Moment>,
    told_at: Moment,
    told: Counts,
}

impl Episode {
    /// What goes on record now, each with its own time. `samples`: the last looks, the newest last.
    pub fn step(&mut self, now: Moment, trouble: bool, samples: &VecDeque<Sample>) -> Vec<(Moment, Counts)> {
        let Some(newest) = samples.back() else { return Vec::new() };
        match (self.since, trouble) {
            (None, false) => Vec::new(),
            (None, true) => {
                (self.since, self.told) = (Some(now), Counts::default());
                let from_then_on: Vec<&Sample> = samples.iter().collect();
                from_then_on.into_iter().filter_map(|s| self.tell(s)).collect()
            }
            (Some(_), false) => {
                self.since = None;
                self.tell(newest).into_iter().collect()
            }
            (Some(since), true) => {
                let lasts = now.since(since);
                let pause = if lasts < DENSE {
                    Duration::ZERO
                } else if lasts < UNTIL {
                    THEN
                } else {
                    LATER
                };
                if now.since(self.told_at) < pause {
                    return Vec::new();
                }
                self.tell(newest).into_iter().collect()
            }
        }
    }

    /// What changed since it was last told; `None`: nothing.
    fn tell(&mut self, sample: &Sample) -> Option<(Moment, Counts)> {
        let mut fresh = sample.counts.clone();
        fresh.routes.retain(|r| !self.told.routes.contains(r));
        fresh.pools.retain(|p| !self.told.pools.contains(p));
        if fresh.routes.is_empty() && fresh.pools.is_empty() {
            return None;
        }
        (self.told, self.told_at) = (sample.counts.clone(), sample.at);
        Some((sample.at, fresh))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::count::RouteCount;

    fn sample(second: u64, ok: u64, failed: u64) -> Sample {
        let routes = vec![
            RouteCount { route: "a".into(), ok, failed, ..RouteCount::default() },
            RouteCount { route: "idle".into(), ..RouteCount::default() },
        ];
        Sample { at: Moment::ms(second * 1000), arrived: Vec::new(), counts: Counts { routes, pools: Vec::new() } }
    }

    /// Seconds at which something was told, over a course of (second, trouble).
    fn course(until: u64, trouble: impl Fn(u64) -> bool) -> Vec<(u64, usize)> {
        let (mut e, mut samples, mut told) = (Episode::default(), VecDeque::new(), Vec::new());
        for second in 1..=until {
            samples.push_back(sample(second, second * 10, u64::from(trouble(second))));
            if samples.len() > 5 {
                samples.pop_front();
            }
            told.extend(
                e.step(Moment::ms(second * 1000), trouble(second), &samples).into_iter().map(|(at, c)| (at.0 / 1_000_000, c.routes.len())),
            );
        }
        told
    }

    #[test]
    fn nothing_while_all_is_well() {
        assert!(course(100, |_| false).is_empty());
    }

    #[test]
    fn from_before_the_trouble_to_its_end_and_ever_more_rarely() {
        let told = course(800, |s| (100..780).contains(&s));
        assert_eq!(told[0], (96, 2), "the first is whole, from before");
        assert!(told[1..].iter().all(|(_, routes)| *routes == 1), "then only what changed");
        let count = |from: u64, to: u64| told.iter().filter(|(s, _)| (from..to).contains(s)).count();
        assert_eq!((count(0, 96), count(96, 130), count(130, 700), count(700, 780)), (0, 34, 57, 1));
        assert_eq!(told.last(), Some(&(780, 1)));
    }

    #[test]
    fn the_next_trouble_begins_anew() {
        let told = course(60, |s| s == 10 || s == 50);
        assert_eq!(told.iter().filter(|(_, n)| *n == 2).map(|(s, _)| *s).collect::<Vec<_>>(), [6, 46]);
    }
}
