//! A small world for the tests of this room: regions that can fail, requests that retry and hedge, and the
//! controller under test, in steps of a millisecond. `whatif` has the real one; this one is small enough to
//! see through.

use super::{Controller, EndpointOrder};
use crate::model::dice::Dice;
use crate::model::event::{Event, EventKind};
use crate::model::id::*;
use crate::model::policy::*;
use crate::model::signal::*;
use crate::model::time::{Duration, Moment};
use crate::model::topology::*;
use crate::model::view::*;
use std::sync::Arc;

/// Regions `(name, tier, weight)`, one service `app` with three endpoints in each, probes, and two routes: `any`
/// and `us`, which may not use the last region.
pub fn topology(regions: &[(&str, u32, u32)]) -> Topology {
    let n = regions.len();
    let (mut pools, mut endpoints) = (Vec::new(), Vec::new());
    for (r, (name, tier, weight)) in regions.iter().enumerate() {
        let start = endpoints.len() as u32;
        for i in 0..3 {
            let address = format!("10.0.{r}.{}:80", i + 1);
            endpoints.push(Endpoint { name: (&*address).into(), address: address.parse().unwrap(), pool: r.into() });
        }
        pools.push(Pool {
            name: format!("app/{name}").into(),
            service: ServiceIx(0),
            region: r.into(),
            endpoints: start..start + 3,
            capacity: None,
            max_inflight: None,
            weight: *weight,
            tier: *tier,
            dns: None,
        });
    }
    let allowed = [RegionSet::all(n), if n > 1 { RegionSet::all(n - 1) } else { RegionSet::all(n) }];
    let route = |name: &str, table: usize| Route {
        name: name.into(),
        matches: Match::default(),
        service: ServiceIx(0),
        table: table.into(),
        priority: Priority::Normal,
        residency: None,
        allowed: allowed[table],
        deadline: Duration::from_secs(2),
        attempt_timeout: Duration::from_millis(450),
        idle_timeout: Duration::from_secs(60),
        retry: Retry { attempts: 3, statuses: vec![502, 503, 504], writes: Writes::Unsent },
        hedge: Some(Hedge { after: HedgeAfter::Percentile(0.95), budget: 0.05 }),
        request_headers: HeaderOps::default(),
        response_headers: HeaderOps::default(),
        rewrite: None,
        guards: vec![],
        degrade: vec![],
        slo: None,
    };
    Topology {
        edge: Edge {
            name: "edge".into(),
            jurisdiction: None,
            threads: 1,
            state_dir: "state".into(),
            shutdown_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(1),
            expose_region: false,
        },
        listeners: vec![],
        limits: Limits::default(),
        admin: None,
        logging: Logging { level: "info".into(), format: LogFormat::Auto, access: None },
        tracing: None,
        regions: regions
            .iter()
            .map(|(name, tier, weight)| Region {
                name: (*name).into(),
                jurisdiction: None,
                weight: *weight,
                tier: *tier,
                fates: vec![],
                drained: false,
            })
            .collect(),
        services: vec![Service {
            name: "app".into(),
            pools: (0..n).map(PoolIx::from).collect(),
            protocol: Protocol::Http1,
            tls: None,
            connect_timeout: Duration::from_millis(250),
            idle: IdleConnections { max: 64, timeout: Duration::from_secs(30), warm: 2 },
            health: Some(Health {
                kind: HealthKind::Http,
                path: "/healthz".into(),
                host: None,
                port: None,
                interval: Duration::from_secs(1),
                timeout: Duration::from_millis(500),
                fall: 2,
                rise: 2,
                expect_status: vec![(200, 299)],
                expect_json: vec![],
            }),
            affinity: None,
            failover: Failover::default(),
            recovery: Recovery::default(),
            overload: Overload::default(),
            retry_budget: RetryBudget::default(),
        }],
        pools,
        endpoints,
        routes: vec![route("any", 0), route("us", 1)],
        tables: allowed.iter().map(|a| Table { service: ServiceIx(0), allowed: *a }).collect(),
        stale: StaleStore { max_bytes: 0, max_body: 0, persist: false },
        spool: SpoolStore { path: "spool".into(), max_bytes: 0, replay_rate: 1.0 },
        journal: JournalStore { path: "journal".into(), keep: Duration::ZERO, max_bytes: 0 },
        fleet: None,
    }
}

#[derive(Debug)]
struct Nowhere;
impl Routes for Nowhere {
    fn find(&self, _: &RequestFacts<'_>) -> Option<RouteIx> {
        None
    }
}

/// A topology as a config.
pub fn compiled(generation: u64, topology: Topology) -> Arc<Compiled> {
    Arc::new(Compiled { generation, topology, routes: Box::new(Nowhere), source: Source::default() })
}

/// What is wrong with a region.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    None,
    /// Nothing comes back, from requests and probes.
    Silent,
    /// Connections are refused.
    Refuses,
    /// This part of requests gets a 503; probes pass.
    Errors(f64),
    /// This part of requests hangs; probes pass.
    Hangs(f64),
    /// Probes get a 503; requests are fine.
    BadProbes,
    /// Answers come later by so many ms.
    Slow(u64),
}

#[derive(Clone, Debug)]
struct Flight {
    id: u64,
    safe: bool,
    /// A request that fails wherever it goes.
    poison: bool,
    table: usize,
    pool: usize,
    endpoint: usize,
    began: u64,
    /// First byte; `None`: never.
    answers: Option<(u64, Outcome)>,
    overdue: bool,
    late: bool,
    trial: bool,
    tries: u32,
    /// Pools where this request failed before.
    failed_at: Vec<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Ok,
    Status,
    Connect,
    Timeout,
    Cancelled,
}

/// The world. Time in milliseconds.
pub struct World {
    pub c: Controller,
    pub now: u64,
    pub faults: Vec<Fault>,
    pub rtt: Vec<u64>,
    /// A region pauses until then.
    pub pause: Vec<u64>,
    /// An endpoint pauses until then.
    pub nap: Vec<u64>,
    /// An endpoint is slower by so many ms.
    pub drag: Vec<u64>,
    pub rate: f64,
    /// Part of requests that fail wherever they go.
    pub poison: f64,
    /// Our own process runs again then.
    pub stalled: u64,
    pub events: Vec<Event>,
    pub good: u32,
    pub refused: Vec<u64>,
    pub failed: Vec<u64>,
    /// First attempts by pool.
    pub sent: Vec<u32>,
    flights: Vec<Flight>,
    tallies: Vec<PoolTally>,
    endpoints: Vec<EndpointTally>,
    trials: Vec<f64>,
    retries: f64,
    requests: [u32; 2],
    due: f64,
    point: u64,
    next: u64,
    probe: Vec<u64>,
    last_tick: u64,
    ticks: u64,
    dice: Dice,
}

impl World {
    pub fn new(regions: &[(&str, u32, u32)], rtt: &[u64], seed: u64) -> Self {
        Self::of(topology(regions), rtt, seed)
    }
    pub fn of(t: Topology, rtt: &[u64], seed: u64) -> Self {
        let n = t.pools.len();
        let ends = t.endpoints.len();
        let now = 1000;
        let c = Controller::new(compiled(1, t), Moment::ms(now), Dice::new(seed));
        Self {
            c,
            now,
            faults: vec![Fault::None; n],
            rtt: rtt.to_vec(),
            pause: vec![0; n],
            nap: vec![0; ends],
            drag: vec![0; ends],
            rate: 300.0,
            poison: 0.0,
            stalled: 0,
            events: vec![],
            good: 0,
            refused: vec![],
            failed: vec![],
            sent: vec![0; n],
            flights: vec![],
            tallies: vec![PoolTally::default(); n],
            endpoints: vec![EndpointTally::default(); ends],
            trials: vec![0.0; n],
            retries: 0.0,
            requests: [0; 2],
            due: now as f64,
            point: 0,
            next: 0,
            probe: (0..ends as u64).map(|e| now + 37 * e).collect(),
            last_tick: now,
            ticks: 0,
            dice: Dice::new(seed ^ 0xABCD),
        }
    }
    /// The exam's world: three tiers, 2, 30 and 80 ms away, five seconds of health.
    pub fn exam(seed: u64) -> Self {
        let mut w = Self::new(&[("east", 1, 100), ("west", 2, 100), ("eu", 3, 100)], &[5, 33, 83], seed);
        w.run(5_000);
        assert_eq!(w.trips(), Vec::<String>::new());
        w
    }
    pub fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.step();
        }
    }
    /// Run until the condition holds; answers after how many ms.
    pub fn until(&mut self, most: u64, mut f: impl FnMut(&Self) -> bool) -> Option<u64> {
        let start = self.now;
        while self.now < start + most {
            if f(self) {
                return Some(self.now - start);
            }
            self.step();
        }
        None
    }
    pub fn state(&self, pool: usize) -> State {
        self.c.picture().pools[pool].state
    }
    pub fn view(&self, pool: usize) -> PoolView {
        self.c.picture().pools[pool].clone()
    }
    /// Pool transitions so far, in words.
    pub fn trips(&self) -> Vec<String> {
        let of = |e: &Event| match &e.kind {
            EventKind::Pool { region, from, to, cause, .. } if from != to => {
                Some(format!("{} {region} {from}->{to} {}", e.at.0 / 1000, cause.name()))
            }
            _ => None,
        };
        self.events.iter().filter_map(of).collect()
    }
    /// News of other edges.
    pub fn hear(&mut self, news: crate::model::fleet::News) {
        let _ = self.c.handle(Moment::ms(self.now), Signal::Fleet(news));
        self.collect();
    }
    pub fn command(&mut self, order: Order) -> Result<Vec<String>, super::Refused> {
        let by = crate::model::event::Actor::Operator("test".into());
        let answer = self.c.handle(Moment::ms(self.now), Signal::Command(Command { by, order }));
        self.collect();
        answer
    }

    fn step(&mut self) {
        self.now += 1;
        let now = self.now;
        if now >= self.stalled {
            while self.due <= now as f64 {
                self.due += 1000.0 / self.rate;
                self.arrive();
            }
        }
        let flights = std::mem::take(&mut self.flights);
        for f in flights {
            self.advance(f);
        }
        self.probes();
        if now >= self.stalled && now >= self.last_tick + 10 {
            self.tick();
        }
    }

    fn arrive(&mut self) {
        let (safe, table, poison) = (self.dice.chance(0.85), usize::from(self.dice.chance(0.2)), self.dice.chance(self.poison));
        self.requests[table] += 1;
        self.next += 1;
        let id = self.next;
        let picture = self.c.picture();
        let t = &picture.tables[table];
        let f = |pool, trial| Flight {
            id,
            safe,
            poison,
            table,
            pool,
            endpoint: 0,
            began: 0,
            answers: None,
            overdue: false,
            late: false,
            trial,
            tries: 1,
            failed_at: vec![],
        };
        if let Some(p) = t.trials.iter().find(|p| safe && self.trials[p.at()] >= 1.0) {
            self.trials[p.at()] -= 1.0;
            return self.begin(f(p.at(), true));
        }
        self.point = self.point.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let slot = t.slots.iter().find(|s| self.point <= s.upto).map(|s| s.pool.at());
        let Some(pool) = slot else {
            return self.refused.push(self.now);
        };
        let inflight = |p: usize| self.flights.iter().filter(|f| f.pool == p).count() as u32;
        let room = |p: &usize| inflight(*p) < picture.pools[*p].limit;
        let Some(pool) = Some(pool).filter(room).or_else(|| t.order.iter().map(|p| p.at()).find(room)) else {
            return self.refused.push(self.now);
        };
        self.sent[pool] += 1;
        self.begin(f(pool, false));
    }

    fn begin(&mut self, mut f: Flight) {
        let now = self.now;
        f.began = now;
        f.endpoint = self.dice.below(3) as usize;
        f.overdue = false;
        f.late = false;
        let t = &mut self.tallies[f.pool];
        t.started += 1;
        t.inflight += 1;
        t.waiting += 1;
        let rtt = self.rtt[f.pool] + self.drag[f.pool * 3 + f.endpoint] + self.dice.below(2);
        let ready = now + rtt;
        f.answers = match self.faults[f.pool] {
            _ if f.poison => Some((ready, Outcome::Status)),
            Fault::Silent => None,
            Fault::Refuses => Some((now + 1, Outcome::Connect)),
            Fault::Errors(p) if self.dice.chance(p) => Some((ready, Outcome::Status)),
            Fault::Hangs(p) if self.dice.chance(p) => None,
            Fault::Slow(ms) => Some((ready + ms, Outcome::Ok)),
            _ => Some((ready, Outcome::Ok)),
        };
        self.flights.push(f);
    }

    fn advance(&mut self, mut f: Flight) {
        let now = self.now;
        // What was on its way when the region fell silent does not arrive; what waits out a pause arrives late.
        if self.faults[f.pool] == Fault::Silent {
            f.answers = None;
        }
        let awake = self.pause[f.pool].max(self.nap[f.pool * 3 + f.endpoint]);
        if let Some((at, o)) = f.answers.filter(|_| awake > now) {
            f.answers = Some((at.max(awake + 1), o));
        }
        if now < self.stalled {
            return self.flights.push(f);
        }
        if let Some((_, outcome)) = f.answers.filter(|(at, _)| now >= *at) {
            if outcome != Outcome::Connect {
                self.tallies[f.pool].heard = Moment::ms(now);
            }
            self.tallies[f.pool].revived += u32::from(f.late && outcome != Outcome::Connect);
            return self.ended(f, outcome);
        }
        let p99 = self.rtt[f.pool] * 6 / 5 + 2;
        let age = now - f.began;
        if !f.overdue && age >= (2 * p99).max(30) {
            f.overdue = true;
            self.tallies[f.pool].overdue += 1;
            let alone = !self.flights.iter().any(|o| o.id == f.id);
            let hedge = if f.safe && alone && f.tries < 3 { self.elsewhere(&f) } else { None };
            if let Some(pool) = hedge {
                let tries = f.tries + 1;
                self.begin(Flight { pool, tries, trial: false, ..f.clone() });
            }
        }
        if !f.late && age >= (5 * p99).max(250) {
            f.late = true;
            self.tallies[f.pool].late += 1;
            self.tallies[f.pool].lates += 1;
            self.tallies[f.pool].late_on |= 1 << f.endpoint;
        }
        if age >= 450 {
            return self.ended(f, Outcome::Timeout);
        }
        self.flights.push(f);
    }

    fn elsewhere(&self, f: &Flight) -> Option<usize> {
        let picture = self.c.picture();
        let order = &picture.tables[f.table].order;
        let other = |p: &&PoolIx| p.at() != f.pool && !f.failed_at.contains(&p.at()) && !picture.pools[p.at()].suspect;
        order.iter().find(other).map(|p| p.at())
    }

    fn leave(&mut self, f: &Flight) {
        let t = &mut self.tallies[f.pool];
        t.inflight -= 1;
        t.waiting -= 1;
        t.overdue -= u32::from(f.overdue);
        t.late -= u32::from(f.late);
    }

    fn ended(&mut self, mut f: Flight, outcome: Outcome) {
        self.leave(&f);
        let ix = f.pool * 3 + f.endpoint;
        let (t, e) = (&mut self.tallies[f.pool], &mut self.endpoints[ix]);
        match outcome {
            Outcome::Ok => {
                t.ok += 1;
                t.latency.add((self.now - f.began) * 1000);
                e.ok += 1;
                (e.streak, e.ejections) = (0, 0);
            }
            Outcome::Status => t.status += 1,
            Outcome::Connect => t.connect += 1,
            Outcome::Timeout => t.timeout += 1,
            Outcome::Cancelled => t.cancelled += 1,
        }
        let failed = !matches!(outcome, Outcome::Ok | Outcome::Cancelled);
        if f.trial {
            t.trial_ok += u32::from(outcome == Outcome::Ok);
            t.trial_failed += u32::from(failed);
        }
        if failed {
            t.failed_on |= 1 << f.endpoint;
            e.streak += 1;
            let hard = outcome != Outcome::Status;
            if e.streak >= 5 && hard {
                (e.ejected_until, e.ejected_hard) = (Moment::ms(self.now + 5000), true);
                e.ejections += 1;
            }
        }
        if outcome == Outcome::Cancelled {
            return;
        }
        let twin = self.flights.iter().position(|o| o.id == f.id);
        if !failed {
            if let Some(i) = twin {
                let loser = self.flights.remove(i);
                self.ended(loser, Outcome::Cancelled);
            }
            for p in &f.failed_at {
                if *p != f.pool {
                    self.tallies[*p].contradicted += 1;
                }
            }
            self.good += 1;
            return;
        }
        f.failed_at.push(f.pool);
        if f.failed_at.iter().any(|p| *p != f.pool) {
            self.tallies[f.pool].confirmed += 1;
            let first = f.failed_at[0];
            self.tallies[first].confirmed += 1;
        }
        if twin.is_some() {
            return;
        }
        let repeatable = f.safe || outcome == Outcome::Connect;
        if repeatable && f.tries < 3 && self.retries >= 1.0 {
            // Another endpoint of the same pool first, then elsewhere.
            let here = f.tries == 1 && !self.c.picture().pools[f.pool].suspect && outcome == Outcome::Status;
            let next = if here { Some(f.pool) } else { self.elsewhere(&f) };
            if let Some(pool) = next {
                self.retries -= 1.0;
                let tries = f.tries + 1;
                return self.begin(Flight { pool, tries, trial: false, ..f });
            }
        }
        if !f.poison {
            self.failed.push(self.now);
        }
    }

    fn probes(&mut self) {
        for e in 0..self.probe.len() {
            if self.now < self.probe[e] {
                continue;
            }
            let p = e / 3;
            let quick = self.view(p).suspect || self.view(p).dead || self.state(p) != State::Serving;
            self.probe[e] = self.now + if quick { 200 } else { 1000 };
            let (verdict, delay) = match self.faults[p] {
                Fault::Silent => (ProbeVerdict::Timeout, 500),
                Fault::Refuses => (ProbeVerdict::Connect("refused".into()), 0),
                Fault::BadProbes => (ProbeVerdict::Status(503), 0),
                _ => (ProbeVerdict::Pass, 0),
            };
            // A timed out probe began earlier.
            if delay > 0 {
                self.probe[e] = self.now + delay;
            }
            let probe = Probe { generation: 1, endpoint: e.into(), verdict, took: Duration::from_millis(delay) };
            let _ = self.c.handle(Moment::ms(self.now), Signal::Probe(probe));
        }
        self.collect();
    }

    fn tick(&mut self) {
        let late = Duration::from_millis(self.now - self.last_tick - 10);
        self.last_tick = self.now;
        self.ticks += 1;
        let full = self.ticks.is_multiple_of(10);
        let mut pools = self.tallies.clone();
        for (kept, told) in self.tallies.iter_mut().zip(&mut pools) {
            let gauges = PoolTally {
                inflight: kept.inflight,
                waiting: kept.waiting,
                overdue: kept.overdue,
                late: kept.late,
                heard: kept.heard,
                ..Default::default()
            };
            let old = std::mem::replace(kept, gauges);
            if !full {
                kept.latency = old.latency;
                told.latency = Hist::default();
            }
        }
        let endpoints = if full { self.endpoints.clone() } else { Vec::new() };
        if full {
            self.endpoints.iter_mut().for_each(|e| (e.ok, e.soft, e.hard) = (0, 0, 0));
        }
        let routes = self.requests.to_vec();
        let requests = vec![routes.iter().sum()];
        self.requests = [0; 2];
        let tick = Tallies { late, pools, endpoints, requests, routes, turned_away: Vec::new() };
        let _ = self.c.handle(Moment::ms(self.now), Signal::Tick(tick));
        let grants = self.c.grants();
        for (have, a) in self.trials.iter_mut().zip(&grants.trial) {
            *have = (*have + a.add).min(a.cap);
        }
        let a = grants.retry[0];
        self.retries = (self.retries + a.add).min(a.cap);
        self.collect();
    }

    fn collect(&mut self) {
        for order in self.c.orders_for_endpoints() {
            if let EndpointOrder::Restore(e) = order {
                self.endpoints[e.at()].ejected_until = Moment::ZERO;
            }
        }
        while let Some(e) = self.c.poll_event() {
            self.events.push(e);
        }
    }
}
