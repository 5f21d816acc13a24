//! A small world for tests: one service in some regions, two routes (`any`, and `us` with a residency), and a present
//! that tests set by hand.

use super::choose::point;
use super::route::Router;
use crate::model::id::*;
use crate::model::outcome::Sent;
use crate::model::policy::*;
use crate::model::time::{Duration, Moment};
use crate::model::topology::*;
use crate::model::view::*;
use std::cell::{Cell, RefCell};
use std::sync::Arc;

/// Route `any`.
pub const ANY: RouteIx = RouteIx(0);
/// Route `us`: only regions of that jurisdiction.
pub const US: RouteIx = RouteIx(1);

pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub fn route(name: &str) -> Route {
    Route {
        name: name.into(),
        matches: Match::default(),
        service: ServiceIx(0),
        table: TableIx(0),
        priority: Priority::Normal,
        residency: None,
        allowed: RegionSet::EMPTY,
        deadline: ms(2000),
        attempt_timeout: ms(600),
        idle_timeout: ms(60_000),
        retry: Retry { attempts: 3, statuses: vec![502, 503, 504], writes: Writes::Unsent },
        hedge: None,
        request_headers: HeaderOps::default(),
        response_headers: HeaderOps::default(),
        rewrite: None,
        guards: vec![],
        degrade: vec![Degrade::Unavailable(Unavailable { retry_after: (ms(2000), ms(10_000)), body: None })],
        slo: None,
    }
}

/// One service, `regions` as (name, jurisdiction, weight), `n` endpoints in each.
pub fn topology(regions: &[(&str, &str, u32)], n: u32) -> Topology {
    let all = RegionSet::all(regions.len());
    let us = (0..regions.len()).filter(|i| regions[*i].1 == "us").fold(RegionSet::EMPTY, |s, i| s.with(i.into()));
    let pools: Vec<_> = (0..regions.len())
        .map(|i| Pool {
            name: format!("api/{}", regions[i].0).into(),
            service: ServiceIx(0),
            region: i.into(),
            endpoints: i as u32 * n..(i as u32 + 1) * n,
            capacity: None,
            max_inflight: None,
            weight: regions[i].2,
            tier: 1,
            dns: None,
        })
        .collect();
    Topology {
        edge: Edge {
            name: "edge".into(),
            jurisdiction: None,
            threads: 1,
            state_dir: ".".into(),
            shutdown_delay: Duration::ZERO,
            drain_timeout: ms(30_000),
            expose_region: false,
        },
        listeners: vec![],
        limits: Limits::default(),
        admin: None,
        logging: Logging { level: "info".into(), format: LogFormat::Auto, access: None },
        tracing: None,
        regions: regions
            .iter()
            .map(|(name, jurisdiction, weight)| Region {
                name: (*name).into(),
                jurisdiction: Some((*jurisdiction).into()),
                weight: *weight,
                tier: 1,
                fates: vec![],
                drained: false,
            })
            .collect(),
        services: vec![Service {
            name: "api".into(),
            pools: (0..pools.len()).map(PoolIx::from).collect(),
            protocol: Protocol::Http1,
            tls: None,
            connect_timeout: ms(250),
            idle: IdleConnections { max: 64, timeout: ms(30_000), warm: 2 },
            health: None,
            affinity: None,
            failover: Failover::default(),
            recovery: Recovery::default(),
            overload: Overload::default(),
            retry_budget: RetryBudget::default(),
        }],
        endpoints: pools
            .iter()
            .enumerate()
            .flat_map(|(p, pool)| {
                pool.endpoints().map(move |e| Endpoint {
                    name: format!("10.{p}.0.{}:80", e.0).into(),
                    address: ([10, p as u8, 0, e.0 as u8], 80).into(),
                    pool: p.into(),
                })
            })
            .collect(),
        pools,
        routes: vec![
            Route { allowed: all, ..route("any") },
            Route { allowed: us, table: TableIx(1), residency: Some(vec!["us".into()]), ..route("us") },
        ],
        tables: vec![Table { service: ServiceIx(0), allowed: all }, Table { service: ServiceIx(0), allowed: us }],
        stale: StaleStore { max_bytes: 0, max_body: 0, persist: false },
        spool: SpoolStore { path: ".".into(), max_bytes: 0, replay_rate: 0.0 },
        journal: JournalStore { path: ".".into(), keep: Duration::ZERO, max_bytes: 0 },
        fleet: None,
    }
}

/// A view in which every pool serves by weight.
pub fn view(t: Topology) -> View {
    let pools = t
        .pools
        .iter()
        .map(|_| PoolView {
            state: State::Serving,
            suspect: false,
            drained: false,
            dead: false,
            limit: 100,
            reserve: Reserve::default(),
            epoch: 0,
            share: 0.0,
        })
        .collect();
    let routes = Box::new(Router::build(&t));
    let config = Arc::new(Compiled { generation: 1, topology: t, routes, source: Source::default() });
    let mut v = View { version: 1, config, edge_suspect: false, pools, tables: vec![] };
    share_out(&mut v);
    v
}

/// Work the tables out again from the pools' states: what is open, by weight; what is in trial, as trials.
pub fn share_out(v: &mut View) {
    let config = v.config.clone();
    let t = &config.topology;
    v.tables = t
        .tables
        .iter()
        .map(|table| {
            let lawful = |p: &PoolIx| table.allowed.has(t.pools[p.at()].region);
            let all = (0..t.pools.len()).map(PoolIx::from);
            let order: Vec<_> = all.clone().filter(lawful).filter(|p| v.pools[p.at()].open()).collect();
            let trials: Vec<_> = all.clone().filter(lawful).filter(|p| v.pools[p.at()].state == State::Trial).collect();
            let total: u32 = order.iter().map(|p| t.pools[p.at()].weight).sum();
            let mut sum = 0u64;
            let mut slots: Vec<_> = order
                .iter()
                .filter(|p| t.pools[p.at()].weight > 0)
                .map(|p| {
                    sum += u64::from(t.pools[p.at()].weight);
                    Slot { pool: *p, upto: ((u128::from(sum) << 64) / u128::from(total)).saturating_sub(1) as u64 }
                })
                .collect();
            slots.last_mut().into_iter().for_each(|s| s.upto = u64::MAX);
            let elsewhere = all.clone().any(|p| v.pools[p.at()].open());
            let closed = order.is_empty().then_some(if elsewhere { Closed::Residency } else { Closed::NoRegion });
            TableView { slots, order, trials, closed }
        })
        .collect();
    v.version += 1;
}

/// Put a pool in a state, and share out anew.
pub fn set(v: &mut View, pool: u32, change: impl FnOnce(&mut PoolView)) {
    change(&mut v.pools[pool as usize]);
    share_out(v);
}

/// The present, by hand. Counts what was taken.
pub struct Now {
    pub inflight: RefCell<Vec<u32>>,
    pub latency: RefCell<Vec<u32>>,
    pub out: RefCell<Vec<bool>>,
    pub quiet: RefCell<Vec<Duration>>,
    pub pace: Cell<Pace>,
    pub points: RefCell<Vec<u64>>,
    pub retries: Cell<u32>,
    pub hedges: Cell<u32>,
    pub trials: RefCell<Vec<u32>>,
    pub turned_away: Cell<u32>,
    endpoints: Vec<std::ops::Range<u32>>,
}

impl Now {
    /// Nothing in flight, nothing known, plenty of tokens for retries, none for hedges and trials.
    pub fn new(v: &View) -> Self {
        let t = v.topology();
        let n = t.endpoints.len();
        Self {
            inflight: vec![0; n].into(),
            latency: vec![0; n].into(),
            out: vec![false; n].into(),
            quiet: vec![Duration::ZERO; n].into(),
            pace: Cell::new(Pace::default()),
            points: vec![0; t.tables.len()].into(),
            retries: Cell::new(100),
            hedges: Cell::new(0),
            trials: vec![0; t.pools.len()].into(),
            turned_away: Cell::new(0),
            endpoints: t.pools.iter().map(|p| p.endpoints.clone()).collect(),
        }
    }
    /// p50 = `n`, p95 = 2`n`, p99 = 3`n` milliseconds everywhere.
    pub fn paced(self, n: u64) -> Self {
        self.pace.set(Pace { p50: ms(n), p95: ms(2 * n), p99: ms(3 * n) });
        self
    }
}

fn take(c: &Cell<u32>) -> bool {
    let n = c.get();
    c.set(n.saturating_sub(1));
    n > 0
}

impl Live for Now {
    fn inflight(&self, e: EndpointIx) -> u32 {
        self.inflight.borrow()[e.at()]
    }
    fn pool_inflight(&self, p: PoolIx) -> u32 {
        self.endpoints[p.at()].clone().map(|e| self.inflight.borrow()[e as usize]).sum()
    }
    fn latency(&self, e: EndpointIx) -> u32 {
        self.latency.borrow()[e.at()]
    }
    fn out(&self, e: EndpointIx, _: Moment) -> bool {
        self.out.borrow()[e.at()]
    }
    fn quiet(&self, e: EndpointIx, _: Moment) -> Duration {
        self.quiet.borrow()[e.at()]
    }
    fn next_point(&self, t: TableIx) -> u64 {
        let n = &mut self.points.borrow_mut()[t.at()];
        *n += 1;
        point(*n)
    }
    fn take_retry(&self, _: ServiceIx) -> bool {
        take(&self.retries)
    }
    fn take_hedge(&self, _: RouteIx) -> bool {
        take(&self.hedges)
    }
    fn take_trial(&self, p: PoolIx) -> bool {
        let n = &mut self.trials.borrow_mut()[p.at()];
        let had = *n > 0;
        *n = n.saturating_sub(1);
        had
    }
    fn turned_away(&self, _: RouteIx) {
        self.turned_away.set(self.turned_away.get() + 1);
    }
    fn pace(&self, _: RouteIx, _: PoolIx) -> Pace {
        self.pace.get()
    }
}

/// A GET on a route, at one second.
pub fn get(route: RouteIx) -> Facts {
    Facts { route, safe: true, keyed: false, upgrade: false, started: T0, priority: Priority::Normal }
}

/// A POST on a route, at one second.
pub fn post(route: RouteIx) -> Facts {
    Facts { safe: false, ..get(route) }
}

/// When requests of tests begin.
pub const T0: Moment = Moment::ms(1000);

/// `n` milliseconds after that.
pub fn at(n: u64) -> Moment {
    T0 + ms(n)
}

/// All that can have been sent.
pub const SENT: [Sent; 3] = [Sent::Nothing, Sent::Incomplete, Sent::Complete];
