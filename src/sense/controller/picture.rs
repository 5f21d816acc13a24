//! From belief to picture: what requests may know.

use super::*;
use crate::model::view::PoolView;
use crate::sense::share::{self, Use, Wish};

/// Slow pools give up to this part of their weight, never more: latency alone shifts load, it does not move regions.
const LEAN: f64 = 0.2;
/// Inflation of latency from which on, and to which, they do.
const LEANS: (f64, f64) = (2.0, 4.0);
/// A pool counts as full for so long after it last was.
const FULL_FOR: Duration = Duration::from_secs(2);
/// Pools that died within this time died together, when nothing else is open.
const TOGETHER: Duration = Duration::from_secs(2);

/// What of a pool's belief shows in the picture, besides what moves with rates.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Gist {
    state: State,
    suspect: bool,
    dead: bool,
    drained: bool,
    pinned: bool,
    epoch: u32,
    limit: u32,
    edge_suspect: bool,
}

impl Controller {
    /// Look whether anything changed since the last look that the picture must show at once.
    pub(super) fn sketch(&mut self, now: Moment) -> bool {
        let edge_suspect = self.edge_suspect(now);
        let gist = |(p, tp): (&Pool, &crate::model::topology::Pool)| Gist {
            state: p.way.state,
            suspect: p.suspect(),
            dead: p.dead.is_some(),
            drained: self.drained(now, tp.region),
            pinned: p.way.pinned,
            epoch: p.epoch,
            limit: p.limit.get(),
            edge_suspect,
        };
        let gists = || self.pools.iter().zip(&self.config.topology.pools).map(gist);
        if gists().eq(self.gists.iter().copied()) {
            return false;
        }
        self.gists = gists().collect();
        true
    }

    /// Make the picture anew, and keep it where it differs.
    pub(super) fn paint(&mut self, now: Moment) {
        let config = self.config.clone();
        let t = &config.topology;
        let mut wishes: Vec<Wish> = (0..self.pools.len()).map(|p| self.wish(now, PoolIx::from(p))).collect();
        for s in &t.services {
            self.close_together(now, s, &mut wishes);
            self.call_spares(now, s, &mut wishes);
        }
        let rates: Vec<f64> = self.tables.iter().map(|r| r.get()).collect();
        let (tables, shares) = share::tables(t, &wishes, &rates);
        let pools = (0..self.pools.len()).map(PoolIx::from).map(|p| self.pool_view(now, p, wishes[p.at()].use_, shares[p.at()])).collect();
        let edge_suspect = self.edge_suspect(now);
        let old = &self.latest;
        let same = Arc::ptr_eq(&old.config, &config) && old.edge_suspect == edge_suspect && old.pools == pools && old.tables == tables;
        if !same {
            self.latest = Arc::new(View { version: old.version + 1, config, edge_suspect, pools, tables });
        }
    }

    /// Whether automatic verdicts on this pool are acted on.
    fn acts(&self, p: PoolIx) -> bool {
        !self.observing(p) || self.pools[p.at()].way.pinned
    }

    fn wish(&self, now: Moment, p: PoolIx) -> Wish {
        let tp = &self.config.topology.pools[p.at()];
        let service = self.service_of(p);
        let pool = &self.pools[p.at()];
        let acts = self.acts(p);
        let flags = acts && !self.frozen;
        let use_ = if self.drained(now, tp.region) || pool.way.pinned {
            Use::Never
        } else if !acts {
            Use::Open
        } else if flags && pool.dead.is_some() {
            Use::Dead
        } else if matches!(pool.way.state, State::Tripped | State::Trial) {
            Use::Sick
        } else if flags && pool.suspect() {
            Use::Suspect
        } else {
            Use::Open
        };
        let part = if acts { pool.way.part(&service.recovery) } else { 1.0 };
        let lean = ((pool.limit.inflation() - LEANS.0) / (LEANS.1 - LEANS.0)).clamp(0.0, 1.0);
        Wish {
            use_,
            weight: tp.weight,
            tier: tp.tier,
            step: part * self.fade(now, tp.region),
            lean: if flags && pool.limit.overloaded() { 1.0 - LEAN * lean } else { 1.0 },
            capacity: tp.capacity.map_or(f64::INFINITY, |c| c * self.portion(tp.service)),
            trial: flags && (pool.way.state == State::Trial || pool.suspect() && pool.way.state != State::Tripped),
        }
    }

    /// What a drain in progress leaves a region.
    pub(super) fn fade(&self, now: Moment, r: RegionIx) -> f64 {
        match &self.regions[r.at()].drain {
            Some(d) if !d.over.is_zero() => d.from * (1.0 - now.since(d.since).as_secs_f64() / d.over.as_secs_f64()).clamp(0.0, 1.0),
            _ => 1.0,
        }
    }

    /// When nothing is open and a pool has just died, the suspect ones are going the same way: nobody
    /// should wait to learn it. A pool that is suspect alone is still the best there is.
    fn close_together(&self, now: Moment, s: &Service, wishes: &mut [Wish]) {
        let open = s.pools.iter().any(|p| wishes[p.at()].use_ == Use::Open);
        let died = |p: &&PoolIx| {
            wishes[p.at()].use_ == Use::Dead && self.pools[p.at()].dead.as_ref().is_some_and(|d| now.since(d.since) < TOGETHER)
        };
        if open || !s.pools.iter().any(|p| died(&p)) {
            return;
        }
        for p in &s.pools {
            if wishes[p.at()].use_ == Use::Suspect && self.pools[p.at()].stage > Stage::Calm {
                wishes[p.at()].use_ = Use::Dead;
            }
        }
    }

    /// When every open pool is full, those that are out but seem well take what would be refused.
    fn call_spares(&self, now: Moment, s: &Service, wishes: &mut [Wish]) {
        let full = |p: &PoolIx| self.pools[p.at()].full + FULL_FOR > now && self.pools[p.at()].full > Moment::ZERO;
        let mut open = s.pools.iter().filter(|p| wishes[p.at()].use_ == Use::Open).peekable();
        if open.peek().is_none() || !open.all(full) {
            return;
        }
        for p in &s.pools {
            if wishes[p.at()].use_ == Use::Sick && self.pools[p.at()].way.seems_well() {
                wishes[p.at()].use_ = Use::Spare;
            }
        }
    }

    fn pool_view(&self, now: Moment, p: PoolIx, use_: Use, share: f64) -> PoolView {
        let tp = &self.config.topology.pools[p.at()];
        let service = self.service_of(p);
        let pool = &self.pools[p.at()];
        let acts = self.acts(p);
        let o = &service.overload;
        let bound = tp.max_inflight.map_or(u32::MAX, |m| m.saturating_mul(pool.in_use(now).max(1)));
        let part = if acts { pool.way.part(&service.recovery) } else { 1.0 };
        // A spare proves itself by being quick: few in flight are many a second, if it is well.
        let part = if use_ == Use::Spare { 0.0 } else { part };
        let ramped = (f64::from(pool.limit.get()) * part).ceil() as u32;
        PoolView {
            state: if acts { pool.way.state } else { State::Serving },
            suspect: acts && !self.frozen && pool.suspect(),
            drained: self.drained(now, tp.region),
            dead: use_ == Use::Dead || pool.way.pinned,
            // While it comes back, the least that a limit may be is the fleet's, not each edge's.
            limit: ramped.max(if part < 1.0 { o.min.div_ceil(self.edges()) } else { o.min }).min(o.max).min(bound),
            reserve: pool.reserves.view(),
            epoch: pool.epoch,
            share,
        }
    }
}
