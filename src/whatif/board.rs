//! The pure twin of `live::cells`: the same gauges, tallies, tokens and paces, without atomics.
//!
//! Anything that the request side counts and the control side reads passes through here. Where `live` is changed, this
//! is changed with it.

use crate::model::id::*;
use crate::model::outcome::Outcome;
use crate::model::signal::{EndpointTally, Hist, PoolTally, Tallies};
use crate::model::time::{Duration, Moment};
use crate::model::topology::Topology;
use crate::model::view::{Live, Pace};
use std::cell::Cell;
use std::mem::take;

/// One token, in the unit they are kept in.
const ONE: u64 = 1_000_000;

/// A stock of tokens.
#[derive(Debug, Default)]
struct Tokens(Cell<u64>);

impl Tokens {
    fn take(&self) -> bool {
        let left = self.0.get().checked_sub(ONE);
        left.inspect(|n| self.0.set(*n)).is_some()
    }
    fn grant(&self, add: f64, cap: f64) {
        let units = |t: f64| (t * ONE as f64) as u64;
        self.0.set(self.0.get().saturating_add(units(add)).min(units(cap)));
    }
}

/// Something that requests wait for.
#[derive(Debug, Default)]
struct Ear {
    waiting: u32,
    heard: Moment,
    since: Moment,
}

impl Ear {
    fn wait(&mut self, now: Moment) {
        if self.waiting == 0 {
            self.since = now;
        }
        self.waiting += 1;
    }
    fn quiet(&self, now: Moment) -> Duration {
        if self.waiting == 0 { Duration::ZERO } else { now.since(self.heard.max(self.since)) }
    }
}

#[derive(Debug, Default)]
struct PoolSlot {
    /// Counts since the last tick, gauges as they stand.
    tally: PoolTally,
    ear: Ear,
    trials: Tokens,
}

#[derive(Debug, Default)]
struct EndpointSlot {
    bit: u64,
    tally: EndpointTally,
    streak_hard: u32,
    ear: Ear,
    probe_down: bool,
}

/// A good answer this long after an ejection ended makes an endpoint well again.
const WELL: Duration = Duration::from_secs(30);

/// An attempt as the board sees it.
#[derive(Debug, Clone)]
pub struct Flight {
    route: RouteIx,
    pool: PoolIx,
    endpoint: EndpointIx,
    began: Moment,
    trial: bool,
    waiting: bool,
    overdue: bool,
    late: bool,
    parked: bool,
    took: Option<Duration>,
}

/// An endpoint's failures in a row, and whether more than half of them were hard.
pub type Streak = (u32, bool);

/// All gauges, tallies and allowances.
#[derive(Debug)]
pub struct Board {
    pools: Vec<PoolSlot>,
    endpoints: Vec<EndpointSlot>,
    pool_of: Vec<PoolIx>,
    requests: Vec<u32>,
    turned_away: Vec<Cell<u32>>,
    service_of: Vec<ServiceIx>,
    retries: Vec<Tokens>,
    hedges: Vec<Tokens>,
    points: Vec<Cell<u64>>,
    /// By route, then by pool.
    paces: Vec<Vec<Pacer>>,
}

impl Board {
    /// An empty one.
    pub fn new(t: &Topology) -> Self {
        let endpoints = t
            .endpoints
            .iter()
            .enumerate()
            .map(|(i, e)| EndpointSlot { bit: 1 << ((i as u32 - t.pools[e.pool.at()].endpoints.start) % 64), ..Default::default() });
        Self {
            pools: t.pools.iter().map(|_| PoolSlot::default()).collect(),
            endpoints: endpoints.collect(),
            pool_of: t.endpoints.iter().map(|e| e.pool).collect(),
            requests: vec![0; t.routes.len()],
            turned_away: vec![Cell::new(0); t.routes.len()],
            service_of: t.routes.iter().map(|r| r.service).collect(),
            retries: t.services.iter().map(|_| Tokens::default()).collect(),
            hedges: t.routes.iter().map(|_| Tokens::default()).collect(),
            points: t.tables.iter().map(|_| Cell::new(0)).collect(),
            paces: t.routes.iter().map(|_| t.pools.iter().map(|_| Pacer::default()).collect()).collect(),
        }
    }

    /// A request came.
    pub fn arrived(&mut self, route: RouteIx) {
        self.requests[route.at()] += 1;
    }
    /// Tokens for retries of a service.
    pub fn grant_retries(&self, s: ServiceIx, add: f64, cap: f64) {
        self.retries[s.at()].grant(add, cap);
    }
    /// Tokens for hedges of a route.
    pub fn grant_hedges(&self, r: RouteIx, add: f64, cap: f64) {
        self.hedges[r.at()].grant(add, cap);
    }
    /// Tokens for trials of a pool.
    pub fn grant_trials(&self, p: PoolIx, add: f64, cap: f64) {
        self.pools[p.at()].trials.grant(add, cap);
    }
    /// See `live::Cells::contradicted`.
    pub fn contradicted(&mut self, p: PoolIx) {
        self.pools[p.at()].tally.contradicted += 1;
    }
    /// See `live::Cells::confirmed`.
    pub fn confirmed(&mut self, p: PoolIx) {
        self.pools[p.at()].tally.confirmed += 1;
    }
    /// See `live::Cells::implausible`.
    pub fn implausible(&mut self, p: PoolIx, key: u64) {
        self.pools[p.at()].tally.implausible_keys |= 1 << (key % 64);
    }
    /// See `live::EndpointCell::ejections`.
    pub fn ejections(&self, e: EndpointIx) -> u32 {
        self.endpoints[e.at()].tally.ejections
    }
    /// See `live::EndpointCell::eject`.
    pub fn eject(&mut self, e: EndpointIx, now: Moment, until: Moment, hard: bool) {
        let t = &mut self.endpoints[e.at()].tally;
        if t.ejected_until <= now {
            (t.ejected_until, t.ejected_hard) = (until, hard);
            t.ejections += 1;
        } else {
            t.ejected_hard |= hard;
        }
    }
    /// See `live::EndpointCell::restore`.
    pub fn restore(&mut self, e: EndpointIx) {
        self.endpoints[e.at()].tally.ejected_until = Moment::ZERO;
    }
    /// See `live::EndpointCell::set_probe_down`.
    pub fn set_probe_down(&mut self, e: EndpointIx, down: bool) {
        self.endpoints[e.at()].probe_down = down;
    }

    /// An attempt begins.
    pub fn begin(&mut self, route: RouteIx, endpoint: EndpointIx, now: Moment, trial: bool) -> Flight {
        let e = &mut self.endpoints[endpoint.at()];
        e.tally.inflight += 1;
        e.ear.wait(now);
        let pool = self.pool_of[endpoint.at()];
        let p = &mut self.pools[pool.at()];
        p.tally.started += 1;
        p.tally.inflight += 1;
        p.ear.wait(now);
        Flight { route, pool, endpoint, began: now, trial, waiting: true, overdue: false, late: false, parked: false, took: None }
    }
    /// Anything came: more of an answer.
    pub fn heard(&mut self, f: &Flight, now: Moment) {
        self.pools[f.pool.at()].ear.heard = now;
        self.endpoints[f.endpoint.at()].ear.heard = now;
    }
    /// The answer has begun.
    pub fn first_byte(&mut self, f: &mut Flight, now: Moment) {
        self.heard(f, now);
        if f.waiting {
            self.pools[f.pool.at()].tally.revived += u32::from(f.late);
            f.took = Some(now.since(f.began));
            self.wait_over(f);
        }
    }
    /// It waits longer than usual.
    pub fn overdue(&mut self, f: &mut Flight) {
        if f.waiting && !std::mem::replace(&mut f.overdue, true) {
            self.pools[f.pool.at()].tally.overdue += 1;
        }
    }
    /// It waits far longer than usual.
    pub fn late(&mut self, f: &mut Flight) {
        if f.waiting && !std::mem::replace(&mut f.late, true) {
            let t = &mut self.pools[f.pool.at()].tally;
            t.late += 1;
            t.lates += 1;
            t.late_on |= self.endpoints[f.endpoint.at()].bit;
        }
    }
    /// It is over.
    pub fn end(&mut self, mut f: Flight, now: Moment, outcome: Outcome) -> Streak {
        self.wait_over(&mut f);
        let (p, e) = (&mut self.pools[f.pool.at()].tally, &mut self.endpoints[f.endpoint.at()]);
        if outcome == Outcome::Ok
            && let Some(took) = f.took.take()
        {
            p.latency.add(took.as_micros() as u64);
            e.smooth(took);
            self.paces[f.route.at()][f.pool.at()].fresh.add(took.as_micros() as u64);
        }
        if outcome.is_failure() {
            p.failed_on |= e.bit;
        }
        if f.trial {
            p.trial_ok += u32::from(outcome == Outcome::Ok);
            p.trial_failed += u32::from(outcome.is_failure());
        }
        *match outcome {
            Outcome::Ok => &mut p.ok,
            Outcome::Status(_) => &mut p.status,
            Outcome::Overload(_) => &mut p.overload,
            Outcome::Connect => &mut p.connect,
            Outcome::Timeout => &mut p.timeout,
            Outcome::Reset => &mut p.reset,
            Outcome::Guard => &mut p.guard,
            Outcome::Cancelled => &mut p.cancelled,
        } += 1;
        self.park(&mut f);
        self.endpoints[f.endpoint.at()].ended(outcome, now)
    }

    /// Nobody waits for it any more: it leaves the gauges of requests in flight before its end.
    pub fn park(&mut self, f: &mut Flight) {
        if !std::mem::replace(&mut f.parked, true) {
            self.pools[f.pool.at()].tally.inflight -= 1;
            self.endpoints[f.endpoint.at()].tally.inflight -= 1;
        }
    }

    fn wait_over(&mut self, f: &mut Flight) {
        if take(&mut f.waiting) {
            let p = &mut self.pools[f.pool.at()];
            p.ear.waiting -= 1;
            self.endpoints[f.endpoint.at()].ear.waiting -= 1;
            p.tally.overdue -= u32::from(take(&mut f.overdue));
            p.tally.late -= u32::from(take(&mut f.late));
        }
    }

    /// What happened since the last look: pools always; endpoints, latencies and paces at `full` ticks only.
    pub fn sample(&mut self, now: Moment, full: bool, late: Duration) -> Tallies {
        let pools = self.pools.iter_mut().map(|p| p.sample(full)).collect();
        let routes: Vec<u32> = self.requests.iter_mut().map(take).collect();
        let mut requests = vec![0; self.retries.len()];
        for (n, s) in routes.iter().zip(&self.service_of) {
            requests[s.at()] += n;
        }
        let mut endpoints = Vec::new();
        if full {
            endpoints.extend(self.endpoints.iter_mut().map(|e| e.sample(now)));
            self.paces.iter_mut().flatten().for_each(|p| p.refresh(now));
        }
        let turned_away = self.turned_away.iter().map(Cell::take).collect();
        Tallies { late, pools, endpoints, requests, routes, turned_away }
    }
}

impl PoolSlot {
    fn sample(&mut self, full: bool) -> PoolTally {
        let t = &mut self.tally;
        (t.waiting, t.heard) = (self.ear.waiting, self.ear.heard);
        let gauges = PoolTally { inflight: t.inflight, overdue: t.overdue, late: t.late, ..Default::default() };
        let latency = if full { take(&mut t.latency) } else { Hist::default() };
        let kept = take(&mut t.latency);
        let told = std::mem::replace(t, PoolTally { latency: kept, ..gauges });
        PoolTally { latency, ..told }
    }
}

impl EndpointSlot {
    fn smooth(&mut self, took: Duration) {
        let (new, old) = (took.as_micros().min(u32::MAX.into()) as u32, self.tally.latency);
        self.tally.latency = if old == 0 { new.max(1) } else { (old - old / 8).saturating_add(new / 8).max(1) };
    }
    fn ended(&mut self, outcome: Outcome, now: Moment) -> Streak {
        let t = &mut self.tally;
        if outcome == Outcome::Ok {
            t.ok += 1;
            (t.streak, self.streak_hard) = (0, 0);
            if now > t.ejected_until + WELL {
                t.ejections = 0;
            }
        } else if outcome.is_failure() {
            t.streak += 1;
            let hard = u32::from(outcome.is_hard());
            self.streak_hard += hard;
            t.hard += hard;
            t.soft += 1 - hard;
        }
        (t.streak, self.streak_hard > t.streak / 2)
    }
    fn sample(&mut self, now: Moment) -> EndpointTally {
        let t = &mut self.tally;
        let mut told = t.clone();
        (t.ok, t.soft, t.hard) = (0, 0, 0);
        if told.ejected_until <= now {
            told.ejected_until = Moment::ZERO;
        }
        told
    }
}

impl Live for Board {
    fn inflight(&self, e: EndpointIx) -> u32 {
        self.endpoints[e.at()].tally.inflight
    }
    fn pool_inflight(&self, p: PoolIx) -> u32 {
        self.pools[p.at()].tally.inflight
    }
    fn latency(&self, e: EndpointIx) -> u32 {
        self.endpoints[e.at()].tally.latency
    }
    fn out(&self, e: EndpointIx, now: Moment) -> bool {
        let e = &self.endpoints[e.at()];
        e.tally.ejected_until > now || e.probe_down
    }
    fn quiet(&self, e: EndpointIx, now: Moment) -> Duration {
        self.endpoints[e.at()].ear.quiet(now)
    }
    fn next_point(&self, t: TableIx) -> u64 {
        let n = self.points[t.at()].get();
        self.points[t.at()].set(n + 1);
        crate::steer::choose::point(n)
    }
    fn take_retry(&self, s: ServiceIx) -> bool {
        self.retries[s.at()].take()
    }
    fn take_hedge(&self, r: RouteIx) -> bool {
        self.hedges[r.at()].take()
    }
    fn take_trial(&self, p: PoolIx) -> bool {
        self.pools[p.at()].trials.take()
    }
    fn turned_away(&self, r: RouteIx) {
        let n = &self.turned_away[r.at()];
        n.set(n.get() + 1);
    }
    fn pace(&self, r: RouteIx, p: PoolIx) -> Pace {
        self.paces[r.at()][p.at()].pace
    }
}

/// The twin of `live::pace::Estimator`; why it is so stands there.
#[derive(Debug, Default)]
struct Pacer {
    fresh: Hist,
    pace: Pace,
    filling: Hist,
    before: Hist,
    seen: u64,
    rotated: Moment,
    updated: Moment,
}

impl Pacer {
    const ENOUGH: u64 = 30;
    const HALF: Duration = Duration::from_secs(30);
    const EVERY: Duration = Duration::from_secs(1);
    const RISE: f64 = 1.1;

    fn refresh(&mut self, now: Moment) {
        if self.fresh.0.is_empty() || (self.pace.known() && now.since(self.updated) < Self::EVERY) {
            return;
        }
        let new = take(&mut self.fresh);
        self.seen += new.count();
        self.filling.merge(&new);
        if self.rotated == Moment::ZERO {
            self.rotated = now;
        } else if now.since(self.rotated) >= Self::HALF && self.filling.count() >= Self::ENOUGH {
            self.before = take(&mut self.filling);
            self.rotated = now;
        }
        let mut all = self.filling.clone();
        all.merge(&self.before);
        if all.count() < Self::ENOUGH {
            return;
        }
        let (room, young) = (Self::RISE.powf(now.since(self.updated).as_secs_f64().min(60.0)), self.seen < 2 * Self::ENOUGH);
        for (old, q) in [(&mut self.pace.p50, 0.50), (&mut self.pace.p95, 0.95), (&mut self.pace.p99, 0.99)] {
            let new = all.quantile(q).unwrap_or_default();
            let most = Duration::from_micros((old.as_micros() as f64 * room) as u64);
            *old = if old.is_zero() || young { new } else { new.min(most) };
        }
        self.updated = now;
    }
}

#[cfg(test)]
mod tests;
