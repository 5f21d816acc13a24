//! The one place where belief changes: signals in, picture, events and allowances out.
//!
//! A tick goes: count → let every pool's deciders speak → weigh them against each other (contrast) → move
//! states → endpoints and recovery (full ticks) → regions → picture. Commands, probes and reloads take the
//! same road from "move states" on, so automatic and manual changes leave the same record.
//!
//! Three things hold states as they are: an operator's `freeze`, a common fault (nobody does better), and our
//! own stall. Held pools may still be *suspect* or *dead* in the picture: requests must not wait for what does
//! not answer, and the first byte heard opens them again. `observe` judges and tells, and the picture moves nothing.

mod commands;
mod fleet;
mod judge;
mod picture;
mod regions;
mod reload;
mod status;

use super::common_mode::{Contrast, Evidence, Other, alone, contrast};
use super::detector::Verdict;
use super::endpoints::{EndpointOrder, FRESH};
use super::grants::{Grants, Purse};
use super::pool::{Dead, Doubt, Pool, Rate};
use super::region::{self, Move};
use super::reserve::ByPriority;
use super::silence::Stage;
use super::window::Counts;
use crate::model::dice::Dice;
use crate::model::event::{Actor, Cause, Event, EventKind};
use crate::model::id::*;
use crate::model::policy::Mode;
pub use crate::model::signal::Refused;
use crate::model::signal::{Probe, Signal, Tallies};
use crate::model::time::{Duration, Moment};
use crate::model::topology::{Service, Topology};
use crate::model::view::{Compiled, State, View};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::sync::Arc;

/// An experiment lasts this long; a fast region answers within a tenth of it.
const EXPERIMENT: Duration = Duration::from_millis(500);
/// Where few hanging requests are the evidence, it takes this long until as many answers elsewhere tell chance from fault.
const HANG_EXPERIMENT: Duration = Duration::from_millis(1500);
/// Pools of a region count as tripped together within this time.
const TOGETHER: Duration = Duration::from_secs(10);
/// A common fault is announced when it has lasted this long: the moment between one region's silence and the
/// next one's first answer is none.
const COMMON: Duration = Duration::from_millis(250);
/// A stall of ours that is worth telling.
const OUR_STALL: Duration = Duration::from_millis(250);
/// For so long after it `edge_suspect` stands.
const STALL_STANDS: Duration = Duration::from_secs(1);

/// An operator's (or drill's) drain of a region.
#[derive(Clone, Debug)]
struct Drain {
    by: Actor,
    reason: String,
    since: Moment,
    over: Duration,
    /// The part that was left when it was ordered: a drain may follow another.
    from: f64,
    until: Option<Moment>,
}

/// What we believe of one region.
#[derive(Clone, Debug)]
struct Region {
    state: State,
    since: Moment,
    cause: Option<Cause>,
    drain: Option<Drain>,
    /// When it was taken out, by file or override.
    away: Option<Moment>,
}

/// What we believe about every pool and region.
pub struct Controller {
    config: Arc<Compiled>,
    dice: Dice,
    pools: Vec<Pool>,
    regions: Vec<Region>,
    /// Offered requests per second, by service and by table.
    services: Vec<Rate>,
    tables: Vec<Rate>,
    /// How requests of each table found room, since the last full tick (asked, turned away) and on the whole.
    counted: Vec<[(u32, u32); 3]>,
    fared: Vec<ByPriority>,
    /// When live traffic last proved a service's probes wrong.
    belied: Vec<Moment>,
    purse: Purse,
    frozen: bool,
    /// A common fault since, and whether it was announced.
    common: Option<(Moment, bool)>,
    /// When the last common fault that was announced ended.
    common_over: Moment,
    stalled_until: Moment,
    last_tick: Moment,
    last_full: Moment,
    seq: u64,
    events: VecDeque<Event>,
    orders: Vec<EndpointOrder>,
    latest: Arc<View>,
    gists: Vec<picture::Gist>,
    published: u64,
    loaded_at: Moment,
    last_error: Option<String>,
    fleet: Option<fleet::Mind>,
}

impl Controller {
    /// Everything serving, nothing known yet.
    pub fn new(config: Arc<Compiled>, now: Moment, dice: Dice) -> Self {
        let t = &config.topology;
        let pools: Vec<Pool> = t.pools.iter().map(|p| Pool::new(now, &t.services[p.service.at()], p.endpoints.len())).collect();
        let fresh = |r: &crate::model::topology::Region| Region {
            state: State::Serving,
            since: now,
            cause: None,
            drain: None,
            away: r.drained.then_some(now),
        };
        let regions = t.regions.iter().map(fresh).collect();
        let purse = Purse::new(t);
        let (services, tables) = (vec![Rate::default(); t.services.len()], vec![Rate::default(); t.tables.len()]);
        let (counted, fared) = (vec![[(0, 0); 3]; t.tables.len()], vec![ByPriority::default(); t.tables.len()]);
        let belied = vec![Moment::ZERO; t.services.len()];
        let config_of_fleet = config.clone();
        let latest = Arc::new(View { version: 0, config: config.clone(), edge_suspect: false, pools: Vec::new(), tables: Vec::new() });
        let mut c = Self {
            config,
            dice,
            pools,
            regions,
            services,
            tables,
            counted,
            fared,
            belied,
            purse,
            frozen: false,
            common: None,
            common_over: Moment::ZERO,
            stalled_until: Moment::ZERO,
            last_tick: now,
            last_full: now,
            seq: 0,
            events: VecDeque::new(),
            orders: Vec::new(),
            latest,
            gists: Vec::new(),
            published: 0,
            loaded_at: now,
            last_error: None,
            fleet: fleet::Mind::of(&config_of_fleet, now),
        };
        c.sketch(now);
        c.paint(now);
        c
    }
    /// Take one signal in. For commands and reloads the answer says what followed, one line each.
    pub fn handle(&mut self, now: Moment, signal: Signal) -> Result<Vec<String>, Refused> {
        // Shares move with rates, drains and capacities at full ticks; in between only where belief has changed.
        let (answer, anew) = match signal {
            Signal::Tick(t) => {
                self.tick(now, &t);
                (Ok(Vec::new()), !t.endpoints.is_empty())
            }
            Signal::Probe(p) => {
                self.probe(now, p);
                (Ok(Vec::new()), false)
            }
            Signal::Command(c) => (self.command(now, c), true),
            Signal::Fleet(news) => {
                self.news(now, news);
                (Ok(Vec::new()), false)
            }
            Signal::Reload(config, by) => (Ok(self.reload(now, config, by)), true),
        };
        if self.sketch(now) || anew {
            self.paint(now);
        }
        answer
    }
    /// Put something on record that others did (started, stopping, a refused config).
    pub fn record(&mut self, now: Moment, by: Actor, kind: EventKind) {
        if let EventKind::ConfigRejected { problems } = &kind {
            self.last_error = Some(problems.join("\n"));
        }
        self.seq += 1;
        self.events.push_back(Event { seq: self.seq, at: now, by, kind });
    }
    /// The next thing to remember.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
    /// The picture, where it changed since this was last asked.
    pub fn view(&mut self) -> Option<Arc<View>> {
        (self.published != self.latest.version).then(|| {
            self.published = self.latest.version;
            self.latest.clone()
        })
    }
    /// The picture as it is.
    pub fn picture(&self) -> Arc<View> {
        self.latest.clone()
    }
    /// Tokens earned since this was last asked. Ask after every tick.
    pub fn grants(&mut self) -> Grants {
        self.purse.take()
    }
    /// What must be written into endpoints' cells, since this was last asked.
    pub fn orders_for_endpoints(&mut self) -> Vec<EndpointOrder> {
        std::mem::take(&mut self.orders)
    }
    /// When time alone will change something, and what; `None`: nothing is pending. Ticks do the work;
    /// this is for simulations that skip quiet stretches.
    pub fn next_deadline(&self) -> Option<(Moment, &'static str)> {
        let t = &self.config.topology;
        let ways = self.pools.iter().zip(&t.pools).filter_map(|(p, tp)| p.way.next_deadline(&t.services[tp.service.at()].recovery));
        let drains = self.regions.iter().filter_map(|r| Some((r.drain.as_ref()?.until?, "drain over")));
        let doubts = self.pools.iter().filter_map(|p| Some((p.doubt.as_ref()?.until?, "experiment over")));
        ways.chain(drains).chain(doubts).min()
    }

    fn service_of(&self, p: PoolIx) -> &Service {
        let t = &self.config.topology;
        &t.services[t.pools[p.at()].service.at()]
    }

    fn tick(&mut self, now: Moment, t: &Tallies) {
        let config = self.config.clone();
        let topology = &config.topology;
        let dt = now.since(self.last_tick);
        self.last_tick = now;
        self.count(topology, t, dt);
        for (p, tally) in t.pools.iter().enumerate().take(self.pools.len()) {
            let s = topology.pools[p].service.at();
            self.pools[p].hear(now, dt, tally, t.late, &topology.services[s], self.services[s].get());
            // Three quarters is where the least important requests begin to be shed.
            if f64::from(tally.inflight) >= 0.75 * f64::from(self.latest.pools[p].limit) {
                self.pools[p].full = now;
            }
        }
        if t.late >= OUR_STALL {
            self.stalled(now, t.late);
        }
        self.lift_drains(now);
        self.consult(now, !t.endpoints.is_empty());
        let full = !t.endpoints.is_empty();
        if full {
            self.full(now, topology, t);
        }
        for p in (0..self.pools.len()).map(PoolIx::from) {
            self.live_or_dead(now, p);
        }
        self.common_fault(now, topology);
        if !self.frozen {
            for p in (0..self.pools.len()).map(PoolIx::from) {
                self.weigh(now, p);
            }
        }
        self.settle_regions(now, topology);
        self.tell_suspicions(now);
    }

    /// Rates and allowances.
    fn count(&mut self, t: &Topology, tallies: &Tallies, dt: Duration) {
        let mut by_table = vec![0.0; t.tables.len()];
        for (r, n) in t.routes.iter().zip(&tallies.routes) {
            by_table[r.table.at()] += f64::from(*n);
        }
        for (i, r) in t.routes.iter().enumerate() {
            let count = &mut self.counted[r.table.at()][r.priority as usize];
            count.0 += tallies.routes.get(i).copied().unwrap_or(0);
            count.1 += tallies.turned_away.get(i).copied().unwrap_or(0);
        }
        self.tables.iter_mut().zip(by_table).for_each(|(rate, n)| rate.add(n, dt));
        for (s, rate) in self.services.iter_mut().enumerate() {
            rate.add(f64::from(tallies.requests.get(s).copied().unwrap_or(0)), dt);
        }
        let rates: Vec<f64> = self.services.iter().map(|r| r.get()).collect();
        self.purse.share_among(self.edges());
        self.purse.earn(t, tallies, dt, &rates, &self.latest, &self.pools);
    }

    /// What comes every 100 ms: endpoints, limits, the way back.
    fn full(&mut self, now: Moment, topology: &Topology, t: &Tallies) {
        let dt = now.since(self.last_full);
        self.last_full = now;
        for (tp, pool) in topology.pools.iter().zip(&mut self.pools) {
            for (mind, e) in pool.endpoints.iter_mut().zip(tp.endpoints()) {
                if let Some(tally) = t.endpoints.get(e.at()) {
                    mind.told(now, tally);
                }
            }
        }
        self.keep_room(now, topology);
        (0..topology.services.len()).map(ServiceIx::from).for_each(|s| self.notice_belied(now, s));
        for p in (0..self.pools.len()).map(PoolIx::from) {
            self.judge_endpoints(now, p);
            let tp = &topology.pools[p.at()];
            let service = &topology.services[tp.service.at()];
            let mut progress = self.pools[p.at()].settle(now, service);
            progress.probes = self.pools[p.at()].probes(service);
            progress.fleet = self.pace(now, p);
            if !self.drained(now, tp.region) {
                progress.offered = self.services[tp.service.at()].get() * dt.as_secs_f64();
            }
            if self.frozen {
                continue;
            }
            match self.pools[p.at()].way.tick(now, &progress, &service.recovery) {
                Some((Some(by), cause)) => self.turn(now, p, by, cause, Actor::Evenkeel),
                Some((None, cause)) => self.tell_pool(now, p, State::Ramping, cause, Actor::Evenkeel),
                None => {}
            }
        }
    }

    /// What of every pool's limit is kept for whom.
    fn keep_room(&mut self, now: Moment, t: &Topology) {
        for (counted, fared) in self.counted.iter_mut().zip(&mut self.fared) {
            for ((asked, away), f) in std::mem::take(counted).into_iter().zip(fared) {
                f.tick(asked, away);
            }
        }
        // By pool, the tables that may use it now: only where a request could have gone there is it the pool's doing that it could not.
        let mut open: Vec<SmallVec<[usize; 4]>> = vec![SmallVec::new(); self.pools.len()];
        for (n, table) in self.latest.tables.iter().enumerate() {
            for p in &table.order {
                if open[p.at()].last() != Some(&n) {
                    open[p.at()].push(n);
                }
            }
        }
        for (i, pool) in self.pools.iter_mut().enumerate() {
            let region = t.pools[i].region;
            let mine = || open[i].iter().map(|n| (t.tables[*n].allowed, &self.fared[*n]));
            let wider = |a: RegionSet| mine().filter(move |(b, _)| *b != a && b.0 & a.0 == a.0).map(|(_, f)| f).collect();
            debug_assert!(mine().all(|(allowed, _)| allowed.has(region)));
            // Full, too, for whoever was turned away, however few places are taken beside the reserve.
            if mine().any(|(_, by)| by.iter().any(|f| f.waited > 0.0)) {
                pool.full = now;
            }
            pool.reserves.tick(now, self.latest.pools[i].limit, mine().map(|(allowed, fared)| (fared, wider(allowed))));
        }
    }

    /// Move a pool along the table, where the table knows the move.
    fn turn(&mut self, now: Moment, p: PoolIx, by: Move, cause: Cause, actor: Actor) {
        let config = self.config.clone();
        let service = &config.topology.services[config.topology.pools[p.at()].service.at()];
        let pool = &mut self.pools[p.at()];
        let from = pool.way.state;
        let Some(to) = region::next(from, by) else { return };
        let usual = pool.usual_p99();
        pool.way.enter(now, to, cause.clone(), &service.failover, usual, &mut self.dice);
        pool.forget();
        pool.followed = false;
        if to != State::Tripped {
            pool.revive();
        }
        // What still answers here comes to its end: hearsay cuts no connection.
        if to == State::Tripped && !matches!(cause, Cause::FailureRate { .. } | Cause::Implausible { .. } | Cause::Fleet { .. }) {
            pool.epoch += 1;
        }
        if by == Move::OrderReset {
            pool.way.forgive();
        }
        if to == State::Trial {
            // Whether ejected endpoints are well again is the question; those whose probes fail stay out.
            let asked: Vec<bool> = self.pools[p.at()].endpoints.iter().map(|e| !e.probe_down).collect();
            self.revive_endpoints(now, p, |i| asked[i]);
        }
        self.tell_pool(now, p, from, cause, actor);
    }

    fn tell_pool(&mut self, now: Moment, p: PoolIx, from: State, cause: Cause, by: Actor) {
        let (service, region) = self.names(p);
        let to = self.pools[p.at()].way.state;
        self.record(now, by, EventKind::Pool { service, region, from, to, cause });
    }

    fn names(&self, p: PoolIx) -> (String, String) {
        let t = &self.config.topology;
        let pool = &t.pools[p.at()];
        (t.services[pool.service.at()].name.to_string(), t.regions[pool.region.at()].name.to_string())
    }

    /// Put suspicions on record: every end of one that was told, and a beginning at most once a second.
    fn tell_suspicions(&mut self, now: Moment) {
        for p in (0..self.pools.len()).map(PoolIx::from) {
            let pool = &mut self.pools[p.at()];
            let on = pool.suspect() && !self.frozen;
            let (told, at) = pool.on_record;
            // A tripped pool has a weightier event of its own.
            if on == told || pool.way.state == State::Tripped || on && at > Moment::ZERO && now.since(at) < Duration::from_secs(1) {
                continue;
            }
            pool.on_record = (on, now);
            let cause = if on { pool.suspect_cause(now) } else { Cause::Heard };
            let (service, region) = self.names(p);
            self.record(now, Actor::Evenkeel, EventKind::Suspect { service, region, on, cause });
        }
    }

    /// Whether a region gets nothing, by file or by a drain that is complete.
    fn drained(&self, now: Moment, r: RegionIx) -> bool {
        self.config.topology.regions[r.at()].drained || self.regions[r.at()].drain.as_ref().is_some_and(|d| now >= d.since + d.over)
    }

    fn observing(&self, p: PoolIx) -> bool {
        self.service_of(p).failover.mode == Mode::Observe
    }
}

#[cfg(test)]
mod tests;
