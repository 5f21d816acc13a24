//! Allowances for what costs backends extra: retries, hedges, trials. Token buckets whose tokens lie
//! in the cells; here is decided how many are added and how many may be saved up.
//!
//! - **Retries**, per service: `ratio` × requests + `min` × time, saved up to `reserve` × (`ratio` × rate + `min`).
//!   The reserve carries the loss of a whole region, whose requests in flight all want a retry at once; so it is
//!   full at boot.
//! - **Hedges**, per route: `budget` × requests, saved up to two seconds' worth, and never fewer than five.
//! - **Trials**, per pool that some table wants tried: in trial `trial_share` of the service's requests, at least
//!   two a second; a suspect pool is asked more often, because until it answers its requests go elsewhere; where
//!   nothing else is left, a dead one every 75 ms. In a fleet these least numbers are divided among its edges.

use super::pool::Pool;
use crate::model::id::PoolIx;
use crate::model::signal::Tallies;
use crate::model::time::Duration;
use crate::model::topology::Topology;
use crate::model::view::{State, View};
use std::collections::BTreeSet;

/// Seconds' worth of hedges that may be saved up, and the least.
const HEDGES_SAVED: (f64, f64) = (2.0, 5.0);
/// Trials per second: in trial (at least), suspect, dead with nothing else left.
const TRIALS: (f64, f64, f64) = (2.0, 20.0, 13.0);
/// Of suspect and dead pools, the least that an edge of a fleet asks: a second between questions is as slow as probes.
const ASKING: f64 = 1.0;
/// Trials that may be saved up: seconds' worth, and the least.
const TRIALS_SAVED: (f64, f64) = (0.1, 1.0);

/// Tokens to add to one bucket, and the most it may hold afterwards.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Allowance {
    /// Tokens to add now (fractions add up).
    pub add: f64,
    /// The most it may hold.
    pub cap: f64,
}

impl Allowance {
    fn earn(&mut self, add: f64, cap: f64) {
        (self.add, self.cap) = ((self.add + add).min(cap), cap);
    }
}

/// What was earned since the last time somebody asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grants {
    /// Retry tokens, by `ServiceIx`.
    pub retry: Vec<Allowance>,
    /// Hedge tokens, by `RouteIx`.
    pub hedge: Vec<Allowance>,
    /// Trial tokens, by `PoolIx`.
    pub trial: Vec<Allowance>,
}

/// Collects what is earned until somebody asks.
#[derive(Clone, Debug)]
pub struct Purse {
    grants: Grants,
    /// Edges among which the least numbers of trials are divided.
    edges: u32,
}

impl Purse {
    /// Full retry reserves and hedge bursts.
    pub fn new(t: &Topology) -> Self {
        let mut grants = Grants { retry: Vec::new(), hedge: Vec::new(), trial: vec![Allowance::default(); t.pools.len()] };
        for s in &t.services {
            let cap = s.retry_budget.reserve.as_secs_f64() * s.retry_budget.min;
            grants.retry.push(Allowance { add: cap, cap });
        }
        for r in &t.routes {
            let cap = if r.hedge.is_some() { HEDGES_SAVED.1 } else { 0.0 };
            grants.hedge.push(Allowance { add: cap, cap });
        }
        Self { grants, edges: 1 }
    }
    /// For another topology: what is new begins full, what was there keeps the tokens in its cells.
    pub fn follow(was: &Topology, is: &Topology) -> Self {
        let mut p = Self::new(is);
        let services: BTreeSet<&str> = was.services.iter().map(|o| &*o.name).collect();
        for (s, a) in is.services.iter().zip(&mut p.grants.retry) {
            if services.contains(&*s.name) {
                a.add = 0.0;
            }
        }
        let routes: BTreeSet<&str> = was.routes.iter().map(|o| &*o.name).collect();
        for (r, a) in is.routes.iter().zip(&mut p.grants.hedge) {
            if routes.contains(&*r.name) {
                a.add = 0.0;
            }
        }
        p
    }
    /// So many edges earn, this one among them.
    pub fn share_among(&mut self, edges: u32) {
        self.edges = edges.max(1);
    }
    /// Hand over.
    pub fn take(&mut self) -> Grants {
        let out = self.grants.clone();
        let g = &mut self.grants;
        g.retry.iter_mut().chain(&mut g.hedge).chain(&mut g.trial).for_each(|a| a.add = 0.0);
        out
    }
    /// What a tick earns. `rates`: requests per second by service.
    pub fn earn(&mut self, t: &Topology, tallies: &Tallies, dt: Duration, rates: &[f64], view: &View, pools: &[Pool]) {
        let (secs, n) = (dt.as_secs_f64(), f64::from(self.edges));
        for (i, s) in t.services.iter().enumerate() {
            let (b, n) = (&s.retry_budget, tallies.requests.get(i).copied().unwrap_or(0));
            let cap = b.reserve.as_secs_f64() * (b.ratio * rates[i] + b.min);
            self.grants.retry[i].earn(b.ratio * f64::from(n) + b.min * secs, cap);
        }
        for (i, r) in t.routes.iter().enumerate() {
            let Some(h) = &r.hedge else { continue };
            let n = f64::from(tallies.routes.get(i).copied().unwrap_or(0));
            let cap = (HEDGES_SAVED.0 * h.budget * rates[r.service.at()]).max(HEDGES_SAVED.1);
            self.grants.hedge[i].earn(h.budget * n, cap);
        }
        let mut wanted = vec![false; t.pools.len()];
        view.tables.iter().flat_map(|table| &table.trials).for_each(|p| wanted[p.at()] = true);
        for p in (0..t.pools.len()).filter(|p| wanted[*p]).map(PoolIx::from) {
            let service = t.pools[p.at()].service;
            let pool = &pools[p.at()];
            let rate = match pool.way.state {
                State::Trial => (t.services[service.at()].recovery.trial_share * rates[service.at()]).max(TRIALS.0 / n),
                _ if pool.dead.is_none() => (TRIALS.1 / n).max(ASKING),
                _ => (TRIALS.2 / n).max(ASKING),
            };
            self.grants.trial[p.at()].earn(rate * secs, (rate * TRIALS_SAVED.0).max(TRIALS_SAVED.1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::Moment;
    use crate::sense::test_world::{compiled, topology};

    fn purse() -> (Topology, Purse, View) {
        let t = topology(&[("east", 1, 100), ("west", 2, 100)]);
        let c = crate::sense::Controller::new(compiled(1, t.clone()), Moment::ms(1000), crate::model::dice::Dice::new(1));
        (t.clone(), Purse::new(&t), (*c.picture()).clone())
    }
    fn earn(p: &mut Purse, t: &Topology, v: &View, requests: u32, ms: u64, rate: f64) -> Grants {
        let tallies = Tallies { requests: vec![requests], routes: vec![requests, 0], ..Default::default() };
        let pools: Vec<Pool> = t.pools.iter().map(|_| Pool::new(Moment::ms(1000), &t.services[0], 3)).collect();
        p.earn(t, &tallies, Duration::from_millis(ms), &[rate], v, &pools);
        p.take()
    }

    #[test]
    fn retries_begin_with_a_full_reserve_and_earn_ratio_and_minimum() {
        let (t, mut p, v) = purse();
        assert_eq!(p.take().retry[0], Allowance { add: 100.0, cap: 100.0 });
        let g = earn(&mut p, &t, &v, 100, 1_000, 300.0);
        assert_eq!(g.retry[0], Allowance { add: 0.2 * 100.0 + 10.0, cap: 10.0 * (0.2 * 300.0 + 10.0) });
        assert_eq!(p.take().retry[0].add, 0.0, "handed over once");
    }

    #[test]
    fn hedges_are_a_part_of_their_own_route_s_requests() {
        let (t, mut p, v) = purse();
        p.take();
        let g = earn(&mut p, &t, &v, 40, 100, 300.0);
        assert_eq!((g.hedge[0].add, g.hedge[1].add), (2.0, 0.0));
        assert_eq!(g.hedge[0].cap, 30.0);
    }

    #[test]
    fn trials_are_earned_only_where_somebody_wants_them() {
        let (t, mut p, mut v) = purse();
        assert_eq!(earn(&mut p, &t, &v, 40, 100, 300.0).trial[0].add, 0.0);
        v.tables[0].trials = vec![PoolIx(0)];
        let g = earn(&mut p, &t, &v, 40, 10, 300.0);
        assert!((g.trial[0].add - TRIALS.1 * 0.01).abs() < 1e-9 && g.trial[1].add == 0.0);
    }
}
