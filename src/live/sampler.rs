//! What the control side remembers between two ticks, to make differences of counters that only grow.

use super::Cells;
use super::cell::{EndpointCell, Ends, PoolCell, RouteCell};
use crate::model::signal::{EndpointTally, Hist, PoolTally, Tallies};
use crate::model::time::{Duration, Moment};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The counters as they stood at the last look.
#[derive(Debug, Default)]
pub struct Sampler {
    pools: Vec<PoolLast>,
    endpoints: Vec<[u64; 3]>,
    /// Requests, and those turned away.
    routes: Vec<[u64; 2]>,
}

#[derive(Clone, Debug, Default)]
struct PoolLast {
    started: u64,
    ends: [u64; 8],
    contradicted: u64,
    confirmed: u64,
    lates: u64,
    revived: u64,
    trial_ok: u64,
    trial_failed: u64,
    latency: Hist,
}

/// Counts since the last look.
fn delta(now: u64, last: &mut u64) -> u32 {
    now.saturating_sub(std::mem::replace(last, now)).min(u32::MAX.into()) as u32
}

/// Bits set since the last look. Only this side takes them away, so it need not write where none is set.
fn taken(bits: &AtomicU64) -> u64 {
    if bits.load(Relaxed) == 0 { 0 } else { bits.swap(0, Relaxed) }
}

impl Sampler {
    /// Begins now: what was counted before is not told.
    pub fn new(cells: &Cells) -> Self {
        let mut s = Self::default();
        s.fit(cells);
        s
    }

    /// Goes over to the cells of a new config. Cells that carried over go on where they stood.
    pub fn follow(&mut self, old: &Cells, new: &Cells) {
        fn moved<C, T: Clone + Default>(old: &[Arc<C>], last: &[T], new: &[Arc<C>]) -> Vec<T> {
            let by_cell: HashMap<*const C, &T> = old.iter().map(Arc::as_ptr).zip(last).collect();
            new.iter().map(|c| by_cell.get(&Arc::as_ptr(c)).map_or_else(T::default, |t| (*t).clone())).collect()
        }
        self.fit(old);
        self.pools = moved::<PoolCell, _>(&old.pools, &self.pools, &new.pools);
        self.endpoints = moved::<EndpointCell, _>(&old.endpoints, &self.endpoints, &new.endpoints);
        self.routes = moved::<RouteCell, _>(&old.routes, &self.routes, &new.routes);
    }

    fn fit(&mut self, cells: &Cells) {
        self.pools.resize(cells.pools.len(), PoolLast::default());
        self.endpoints.resize(cells.endpoints.len(), [0; 3]);
        self.routes.resize(cells.routes.len(), [0; 2]);
    }
}

impl Cells {
    /// What happened since the last look: pools always; endpoints, latencies and paces at `full` ticks only.
    pub fn sample(&self, s: &mut Sampler, now: Moment, full: bool, late: Duration) -> Tallies {
        s.fit(self);
        let pools = self.pools.iter().zip(&mut s.pools).map(|(c, last)| pool(c, last, full)).collect();
        let told = self
            .routes
            .iter()
            .zip(&mut s.routes)
            .map(|(c, [requests, away])| (delta(c.requests.load(Relaxed), requests), delta(c.turned_away.load(Relaxed), away)));
        let (routes, turned_away): (Vec<u32>, Vec<u32>) = told.unzip();
        let mut requests = vec![0; self.service_count()];
        for (n, service) in routes.iter().zip(&self.service_of) {
            requests[service.at()] += n;
        }
        let mut endpoints = Vec::new();
        if full {
            endpoints.extend(self.endpoints.iter().zip(&mut s.endpoints).map(|(c, last)| endpoint(c, last, now)));
            for pace in self.paces.iter().filter_map(|p| p.get()) {
                pace.refresh(now);
            }
        }
        Tallies { late, pools, endpoints, requests, routes, turned_away }
    }
}

fn pool(c: &PoolCell, last: &mut PoolLast, full: bool) -> PoolTally {
    // Ends are read before starts: an attempt that begins and ends in between is told as begun now and ended
    // at the next look, never the other way round.
    let ends = c.ends.get();
    let mut n = [0; 8];
    for (n, (now, last)) in n.iter_mut().zip(ends.into_iter().zip(&mut last.ends)) {
        *n = delta(now, last);
    }
    let mut latency = Hist::default();
    if full {
        let all = c.times.hist();
        if all != last.latency {
            last.latency.0.resize(all.0.len(), 0);
            latency.0 = all.0.iter().zip(&last.latency.0).map(|(a, b)| a.wrapping_sub(*b)).collect();
            last.latency = all;
        }
    }
    PoolTally {
        started: delta(c.started.load(Relaxed), &mut last.started),
        ok: n[Ends::OK],
        status: n[Ends::STATUS],
        overload: n[Ends::OVERLOAD],
        connect: n[Ends::CONNECT],
        timeout: n[Ends::TIMEOUT],
        reset: n[Ends::RESET],
        guard: n[Ends::GUARD],
        cancelled: n[Ends::CANCELLED],
        contradicted: delta(c.contradicted.load(Relaxed), &mut last.contradicted),
        confirmed: delta(c.confirmed.load(Relaxed), &mut last.confirmed),
        failed_on: taken(&c.failed_on),
        implausible_keys: taken(&c.implausible_keys),
        lates: delta(c.lates.load(Relaxed), &mut last.lates),
        revived: delta(c.revived.load(Relaxed), &mut last.revived),
        late_on: taken(&c.late_on),
        trial_ok: delta(c.trial_ok.load(Relaxed), &mut last.trial_ok),
        trial_failed: delta(c.trial_failed.load(Relaxed), &mut last.trial_failed),
        inflight: c.inflight(),
        waiting: c.ear.waiting.load(Relaxed),
        overdue: c.overdue.load(Relaxed),
        late: c.late.load(Relaxed),
        heard: c.ear.heard(),
        latency,
    }
}

fn endpoint(c: &EndpointCell, last: &mut [u64; 3], now: Moment) -> EndpointTally {
    let [ok, soft, hard] = last;
    let until = c.ejected_until();
    EndpointTally {
        ok: delta(c.ok.load(Relaxed), ok),
        soft: delta(c.soft.load(Relaxed), soft),
        hard: delta(c.hard.load(Relaxed), hard),
        inflight: c.inflight(),
        streak: c.streak.load(Relaxed),
        ejected_until: if until > now { until } else { Moment::ZERO },
        ejections: c.ejections(),
        ejected_hard: c.ejected_hard.load(Relaxed),
        latency: c.latency(),
    }
}
