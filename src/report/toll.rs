//! What an incident cost: counts on record, from the last look before its onset to the first look after its end.
//!
//! Counts only grow, and a record tells only those that changed, so a [`Look`] is everything told so far. A process that began
//! anew counts from nothing again; what came to it is added, not taken off.

use super::when::At;
use crate::model::count::{Counts, PoolCount, RouteCount};
use crate::model::time::Duration;
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};

/// Looks older than this are no beginning for an incident.
const BEFORE: Duration = Duration::from_secs(60);

/// Everything that was counted by then.
#[derive(Clone, Debug, Default)]
pub(super) struct Look {
    at: Option<At>,
    routes: BTreeMap<String, RouteCount>,
    pools: BTreeMap<String, PoolCount>,
}

/// Reads counts as they were told.
#[derive(Debug, Default)]
pub(super) struct Looks {
    now: Look,
    recent: VecDeque<Look>,
}

impl Looks {
    /// One more record.
    pub fn read(&mut self, at: At, counts: &Counts) -> Look {
        self.now.at = Some(at);
        for r in &counts.routes {
            self.now.routes.insert(r.route.clone(), r.clone());
        }
        for p in &counts.pools {
            self.now.pools.insert(p.pool.clone(), p.clone());
        }
        self.keep(at)
    }
    /// The process began anew.
    pub fn anew(&mut self, at: At) -> Look {
        self.now = Look { at: Some(at), ..Look::default() };
        self.keep(at)
    }
    fn keep(&mut self, at: At) -> Look {
        self.recent.retain(|l| l.at.is_some_and(|then| at.since(then) <= BEFORE));
        self.recent.push_back(self.now.clone());
        self.now.clone()
    }
    /// The last ones.
    pub fn recent(&self) -> Vec<Look> {
        self.recent.iter().cloned().collect()
    }
}

/// What it came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Toll {
    /// By route; routes without a request are left out.
    pub routes: Vec<RouteCount>,
    /// By region: what it carried.
    pub regions: Vec<Carried>,
    /// Over time, for a chart.
    pub series: Vec<Point>,
}

/// What one region carried.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Carried {
    /// Its name.
    pub region: String,
    /// Good answers.
    pub answered: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Its part of all good answers, 0 to 1.
    pub share: f64,
}

/// One stretch of time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Its end.
    pub at: At,
    /// Its length, s.
    pub seconds: f64,
    /// Requests that ended.
    pub requests: u64,
    /// Of them failed or refused.
    pub hurt: u64,
    /// Of them answered with a stand-in.
    pub degraded: u64,
    /// Good answers by region.
    pub regions: BTreeMap<String, u64>,
}

/// What came between the onset and the end (`None`: it goes on).
pub(super) fn toll(mut looks: Vec<Look>, onset: At, end: Option<At>) -> Toll {
    looks.sort_by_key(|l| l.at);
    let at = |l: &Look| l.at.unwrap_or(onset);
    let from = looks.iter().rposition(|l| at(l) <= onset).unwrap_or(0);
    let to = end.and_then(|end| looks.iter().position(|l| at(l) >= end)).map_or(looks.len(), |i| i + 1);
    let mut routes: BTreeMap<String, RouteCount> = BTreeMap::new();
    let mut regions: BTreeMap<String, Carried> = BTreeMap::new();
    let mut series = Vec::new();
    for pair in looks.get(from..to.max(from)).unwrap_or_default().windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        let seconds = at(after).since(at(before)).as_secs_f64();
        let mut point = Point { at: at(after), seconds, requests: 0, hurt: 0, degraded: 0, regions: BTreeMap::new() };
        for (name, count) in &after.routes {
            let fresh = count.since(&before.routes.get(name).cloned().unwrap_or_default());
            point.requests += fresh.requests();
            point.hurt += fresh.hurt();
            point.degraded += fresh.degraded();
            let sum = routes.entry(name.clone()).or_insert_with(|| RouteCount { route: name.clone(), ..RouteCount::default() });
            *sum = sum.plus(&fresh);
        }
        for (name, count) in &after.pools {
            let fresh = count.since(&before.pools.get(name).cloned().unwrap_or_default());
            let region = name.split_once('/').map_or(name.as_str(), |(_, r)| r);
            let sum = regions.entry(region.into()).or_insert_with(|| Carried { region: region.into(), ..Carried::default() });
            sum.answered += fresh.ok;
            sum.failed += fresh.failed;
            *point.regions.entry(region.into()).or_default() += fresh.ok;
        }
        series.push(point);
    }
    let all: u64 = regions.values().map(|r| r.answered).sum();
    let mut regions: Vec<Carried> = regions.into_values().collect();
    regions.iter_mut().for_each(|r| r.share = if all > 0 { r.answered as f64 / all as f64 } else { 0.0 });
    let routes = routes.into_values().filter(|r| r.each().iter().any(|(_, n)| *n > 0)).collect();
    Toll { routes, regions, series }
}
