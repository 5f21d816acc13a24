//! All cells of one config, by the indexes of its topology.

use super::cell::{EndpointCell, PoolCell, RouteCell, ServiceCell, TableCell, Times};
use super::flight::{Detached, Flight};
use super::pace::Estimator;
use crate::model::id::*;
use crate::model::policy::{Priority, Route};
use crate::model::time::{Duration, Moment};
use crate::model::topology::{Endpoint, Pool, Service, Topology};
use crate::model::view::{Live, Pace};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// All cells of one config.
#[derive(Debug)]
pub struct Cells {
    pub(super) pools: Box<[Arc<PoolCell>]>,
    pub(super) endpoints: Box<[Arc<EndpointCell>]>,
    pub(super) routes: Box<[Arc<RouteCell>]>,
    services: Box<[Arc<ServiceCell>]>,
    /// By route.
    pub(super) service_of: Box<[ServiceIx]>,
    tables: Box<[Arc<TableCell>]>,
    /// By route, then by rule.
    guards: Box<[Arc<[AtomicU64]>]>,
    /// By endpoint: its pool, and its bit in `failed_on`.
    places: Box<[(PoolIx, u64)]>,
    /// By pool: its place among its service's pools.
    slots: Box<[u32]>,
    /// By route: where its row in `paces` begins.
    rows: Box<[u32]>,
    /// By priority: how long it took to refuse a request for want of room.
    refusals: Arc<[Times; 3]>,
    /// By route and slot; made when the first answer comes.
    pub(super) paces: Box<[OnceLock<Arc<Estimator>>]>,
}

/// The cells of the config before, by name.
struct Before<'a> {
    t: &'a Topology,
    cells: &'a Cells,
    pools: HashMap<&'a str, usize>,
    routes: HashMap<&'a str, usize>,
    services: HashMap<&'a str, usize>,
    /// By pool and endpoint.
    endpoints: HashMap<(&'a str, &'a str), usize>,
}

impl<'a> Before<'a> {
    fn new((t, cells): (&'a Topology, &'a Cells)) -> Self {
        fn places<K: Eq + Hash>(names: impl Iterator<Item = K>) -> HashMap<K, usize> {
            names.enumerate().map(|(i, n)| (n, i)).collect()
        }
        Self {
            pools: places(t.pools.iter().map(|p| &*p.name)),
            routes: places(t.routes.iter().map(|r| &*r.name)),
            services: places(t.services.iter().map(|s| &*s.name)),
            endpoints: places(t.endpoints.iter().map(|e| (&*t.pools[e.pool.at()].name, &*e.name))),
            t,
            cells,
        }
    }
    fn pool(&self, p: &Pool) -> Option<Arc<PoolCell>> {
        self.pools.get(&*p.name).map(|i| self.cells.pools[*i].clone())
    }
    fn route(&self, r: &Route) -> Option<Arc<RouteCell>> {
        self.routes.get(&*r.name).map(|i| self.cells.routes[*i].clone())
    }
    fn guards(&self, r: &Route) -> Option<Arc<[AtomicU64]>> {
        self.routes.get(&*r.name).map(|i| self.cells.guards[*i].clone()).filter(|g| g.len() == r.guards.len())
    }
    fn service(&self, s: &Service) -> Option<Arc<ServiceCell>> {
        self.services.get(&*s.name).map(|i| self.cells.services[*i].clone())
    }
    fn endpoint(&self, pool: &Pool, e: &Endpoint) -> Option<Arc<EndpointCell>> {
        let i = self.endpoints.get(&(&*pool.name, &*e.name))?;
        Some(&self.cells.endpoints[*i]).filter(|c| c.address() == e.address).cloned()
    }
    /// Tables have no names: the same place under the same service will do for a sequence of points.
    fn table(&self, place: usize, service: &Service) -> Option<Arc<TableCell>> {
        let was = self.t.tables.get(place)?.service;
        (self.t.services[was.at()].name == service.name).then(|| self.cells.tables[place].clone())
    }
    fn pace(&self, r: &Route, p: &Pool) -> Option<&Arc<Estimator>> {
        let (r, p) = (RouteIx::from(*self.routes.get(&*r.name)?), PoolIx::from(*self.pools.get(&*p.name)?));
        // The route may have belonged to another service, which this pool is none of.
        (self.t.routes[r.at()].service == self.t.pools[p.at()].service).then(|| self.cells.paces[self.cells.pace_at(r, p)].get())?
    }
}

impl Cells {
    /// The cells of a topology. What has the same name as before (endpoints: and address) keeps its cell.
    pub fn build(t: &Topology, old: Option<(&Topology, &Cells)>) -> Self {
        let before = old.map(Before::new);
        let before = before.as_ref();
        let pool_of = |e: &Endpoint| &t.pools[e.pool.at()];
        let pools_of = |r: &Route| &t.services[r.service.at()].pools;
        let mut slots = vec![0; t.pools.len()].into_boxed_slice();
        for s in &t.services {
            for (slot, p) in s.pools.iter().enumerate() {
                slots[p.at()] = slot as u32;
            }
        }
        let mut width = 0;
        let mut row = |r: &Route| {
            width += pools_of(r).len() as u32;
            width - pools_of(r).len() as u32
        };
        let rows: Box<[u32]> = t.routes.iter().map(&mut row).collect();
        let fresh_guards = |r: &Route| r.guards.iter().map(|_| AtomicU64::new(0)).collect();
        let cells = Self {
            pools: t.pools.iter().map(|p| before.and_then(|b| b.pool(p)).unwrap_or_default()).collect(),
            endpoints: t
                .endpoints
                .iter()
                .map(|e| before.and_then(|b| b.endpoint(pool_of(e), e)).unwrap_or_else(|| Arc::new(EndpointCell::new(e.address))))
                .collect(),
            services: t.services.iter().map(|s| before.and_then(|b| b.service(s)).unwrap_or_default()).collect(),
            routes: t.routes.iter().map(|r| before.and_then(|b| b.route(r)).unwrap_or_default()).collect(),
            tables: t
                .tables
                .iter()
                .enumerate()
                .map(|(i, table)| before.and_then(|b| b.table(i, &t.services[table.service.at()])).unwrap_or_default())
                .collect(),
            guards: t.routes.iter().map(|r| before.and_then(|b| b.guards(r)).unwrap_or_else(|| fresh_guards(r))).collect(),
            service_of: t.routes.iter().map(|r| r.service).collect(),
            places: t.endpoints.iter().zip(0u32..).map(|(e, i)| (e.pool, 1 << ((i - pool_of(e).endpoints.start) % 64))).collect(),
            slots,
            rows,
            refusals: old.map_or_else(Arc::default, |(_, cells)| cells.refusals.clone()),
            paces: (0..width).map(|_| OnceLock::new()).collect(),
        };
        if let Some(before) = before {
            for (i, route) in t.routes.iter().enumerate() {
                for p in pools_of(route) {
                    if let Some(known) = before.pace(route, &t.pools[p.at()]) {
                        let _ = cells.paces[cells.pace_at(i.into(), *p)].set(known.clone());
                    }
                }
            }
        }
        cells
    }

    pub(super) fn service_count(&self) -> usize {
        self.services.len()
    }
    fn pace_at(&self, r: RouteIx, p: PoolIx) -> usize {
        (self.rows[r.at()] + self.slots[p.at()]) as usize
    }

    /// An attempt begins at an endpoint.
    pub fn begin(&self, route: RouteIx, endpoint: EndpointIx, now: Moment, trial: bool) -> Flight<'_> {
        let (pool, bit) = self.places[endpoint.at()];
        let pace = &self.paces[self.pace_at(route, pool)];
        Flight::begin(&self.pools[pool.at()], &self.endpoints[endpoint.at()], pace, bit, now, trial)
    }
    /// An attempt that was carried elsewhere goes on. `route` and `endpoint`: those it began with.
    pub fn attach(&self, route: RouteIx, endpoint: EndpointIx, flight: Detached) -> Flight<'_> {
        let (pool, _) = self.places[endpoint.at()];
        let pace = &self.paces[self.pace_at(route, pool)];
        Flight::attach(&self.pools[pool.at()], &self.endpoints[endpoint.at()], pace, &flight)
    }
    /// The cell of a pool.
    pub fn pool(&self, p: PoolIx) -> &PoolCell {
        &self.pools[p.at()]
    }
    /// The cell of an endpoint.
    pub fn endpoint(&self, e: EndpointIx) -> &EndpointCell {
        &self.endpoints[e.at()]
    }
    /// How long it took to refuse requests of a priority for want of room.
    pub fn refusals(&self, p: Priority) -> &Times {
        &self.refusals[p as usize]
    }
    /// The cell of a route.
    pub fn route(&self, r: RouteIx) -> &RouteCell {
        &self.routes[r.at()]
    }
    /// The cell of a service.
    pub fn service(&self, s: ServiceIx) -> &ServiceCell {
        &self.services[s.at()]
    }
    /// The cell of a share table.
    pub fn table(&self, t: TableIx) -> &TableCell {
        &self.tables[t.at()]
    }
    /// An attempt of a request had failed in this pool, and another one then succeeded in another region.
    pub fn contradicted(&self, p: PoolIx) {
        self.pools[p.at()].contradicted.fetch_add(1, Relaxed);
    }
    /// An attempt of a request had failed in this pool, and so did one in another region.
    pub fn confirmed(&self, p: PoolIx) {
        self.pools[p.at()].confirmed.fetch_add(1, Relaxed);
    }
    /// The answer to a request in this pool was implausible, and nothing says that it is true. `key`: hash of what was asked for.
    pub fn implausible(&self, p: PoolIx, key: u64) {
        self.pools[p.at()].implausible_keys.fetch_or(1 << (key % 64), Relaxed);
    }
    /// A guard rejected an answer: the route's `rule`-th.
    pub fn guard_rejected(&self, r: RouteIx, rule: usize) {
        self.guards[r.at()][rule].fetch_add(1, Relaxed);
    }
    /// How often each of a route's guards rejected an answer.
    pub fn guard_rejections(&self, r: RouteIx) -> impl Iterator<Item = u64> + '_ {
        self.guards[r.at()].iter().map(|n| n.load(Relaxed))
    }
}

impl Live for Cells {
    #[inline]
    fn inflight(&self, e: EndpointIx) -> u32 {
        self.endpoints[e.at()].inflight()
    }
    #[inline]
    fn pool_inflight(&self, p: PoolIx) -> u32 {
        self.pools[p.at()].inflight()
    }
    #[inline]
    fn latency(&self, e: EndpointIx) -> u32 {
        self.endpoints[e.at()].latency()
    }
    #[inline]
    fn out(&self, e: EndpointIx, now: Moment) -> bool {
        self.endpoints[e.at()].out(now)
    }
    #[inline]
    fn quiet(&self, e: EndpointIx, now: Moment) -> Duration {
        self.endpoints[e.at()].ear.quiet(now)
    }
    #[inline]
    fn next_point(&self, t: TableIx) -> u64 {
        self.tables[t.at()].next_point()
    }
    fn take_retry(&self, s: ServiceIx) -> bool {
        self.services[s.at()].allowance.take()
    }
    fn take_hedge(&self, r: RouteIx) -> bool {
        self.routes[r.at()].hedges.take()
    }
    fn take_trial(&self, p: PoolIx) -> bool {
        self.pools[p.at()].trials.take()
    }
    fn reach(&self, p: PoolIx) -> Duration {
        self.pools[p.at()].reach()
    }
    fn turned_away(&self, r: RouteIx) {
        self.routes[r.at()].turned_away.fetch_add(1, Relaxed);
    }
    #[inline]
    fn pace(&self, r: RouteIx, p: PoolIx) -> Pace {
        self.paces[self.pace_at(r, p)].get().map_or_else(Pace::default, |e| e.pace())
    }
}
