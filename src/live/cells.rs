//! All cells of one config, by the indexes of its topology.

use super::cell::{EndpointCell, PoolCell, RouteCell, ServiceCell, TableCell};
use super::flight::Flight;
use super::pace::Estimator;
use crate::model::id::*;
use crate::model::time::{Duration, Moment};
use crate::model::topology::Topology;
use crate::model::view::{Live, Pace};
use std::collections::HashMap;
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
    /// By route and slot; made when the first answer comes.
    pub(super) paces: Box<[OnceLock<Arc<Estimator>>]>,
}

/// Where the old config has something of the same name.
fn names<'a>(names: impl Iterator<Item = &'a str>) -> HashMap<&'a str, usize> {
    names.enumerate().map(|(i, n)| (n, i)).collect()
}

/// One cell per new name: the old one's where there is one.
fn carried<'a, T: Default>(new: impl Iterator<Item = &'a str>, old: Option<(&HashMap<&str, usize>, &[Arc<T>])>) -> Box<[Arc<T>]> {
    new.map(|n| old.and_then(|(names, cells)| names.get(n).map(|i| cells[*i].clone())).unwrap_or_default()).collect()
}

impl Cells {
    /// The cells of a topology. What has the same name as before (endpoints: and address) keeps its cell.
    pub fn build(t: &Topology, old: Option<(&Topology, &Cells)>) -> Self {
        let pool_names = old.map(|(o, c)| (names(o.pools.iter().map(|p| &*p.name)), c));
        let route_names = old.map(|(o, c)| (names(o.routes.iter().map(|r| &*r.name)), c));
        let service_names = old.map(|(o, c)| (names(o.services.iter().map(|s| &*s.name)), c));
        let endpoint_names: HashMap<(&str, &str), usize> = old.map_or_else(HashMap::new, |(o, _)| {
            o.endpoints.iter().enumerate().map(|(i, e)| ((&*o.pools[e.pool.at()].name, &*e.name), i)).collect()
        });

        let endpoints = t.endpoints.iter().map(|e| {
            let same = endpoint_names.get(&(&*t.pools[e.pool.at()].name, &*e.name));
            let kept = old.and_then(|(_, c)| same.map(|i| &c.endpoints[*i])).filter(|c| c.address() == e.address);
            kept.cloned().unwrap_or_else(|| Arc::new(EndpointCell::new(e.address)))
        });
        let tables = t.tables.iter().enumerate().map(|(i, table)| {
            let service = |t: &Topology, s: ServiceIx| t.services[s.at()].name.clone();
            let same = old.filter(|(o, _)| o.tables.get(i).is_some_and(|x| service(o, x.service) == service(t, table.service)));
            same.map(|(_, c)| c.tables[i].clone()).unwrap_or_default()
        });
        let guards = t.routes.iter().map(|r| {
            let same = route_names.as_ref().and_then(|(names, c)| names.get(&*r.name).map(|i| &c.guards[*i]));
            same.filter(|g| g.len() == r.guards.len()).cloned().unwrap_or_else(|| r.guards.iter().map(|_| AtomicU64::new(0)).collect())
        });
        let mut slots = vec![0; t.pools.len()].into_boxed_slice();
        for s in &t.services {
            for (slot, p) in s.pools.iter().enumerate() {
                slots[p.at()] = slot as u32;
            }
        }
        let mut width = 0;
        let rows: Box<[u32]> = t
            .routes
            .iter()
            .map(|r| {
                let row = width;
                width += t.services[r.service.at()].pools.len() as u32;
                row
            })
            .collect();

        let cells = Self {
            pools: carried(t.pools.iter().map(|p| &*p.name), pool_names.as_ref().map(|(n, c)| (n, &*c.pools))),
            endpoints: endpoints.collect(),
            services: carried(t.services.iter().map(|s| &*s.name), service_names.as_ref().map(|(n, c)| (n, &*c.services))),
            routes: carried(t.routes.iter().map(|r| &*r.name), route_names.as_ref().map(|(n, c)| (n, &*c.routes))),
            service_of: t.routes.iter().map(|r| r.service).collect(),
            tables: tables.collect(),
            guards: guards.collect(),
            places: t
                .endpoints
                .iter()
                .enumerate()
                .map(|(i, e)| (e.pool, 1 << ((i as u32 - t.pools[e.pool.at()].endpoints.start) % 64)))
                .collect(),
            slots,
            rows,
            paces: (0..width).map(|_| OnceLock::new()).collect(),
        };
        for (r, route) in t.routes.iter().enumerate() {
            let Some((names, c)) = &route_names else { continue };
            let Some(was) = names.get(&*route.name) else { continue };
            for p in &t.services[route.service.at()].pools {
                let pool_was = pool_names.as_ref().and_then(|(n, _)| n.get(&*t.pools[p.at()].name));
                let known = pool_was.and_then(|pool| c.paces.get(c.pace_at((*was).into(), (*pool).into()))?.get());
                if let Some(known) = known {
                    let _ = cells.paces[cells.pace_at(r.into(), *p)].set(known.clone());
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
    /// The cell of a pool.
    pub fn pool(&self, p: PoolIx) -> &PoolCell {
        &self.pools[p.at()]
    }
    /// The cell of an endpoint.
    pub fn endpoint(&self, e: EndpointIx) -> &EndpointCell {
        &self.endpoints[e.at()]
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
    #[inline]
    fn pace(&self, r: RouteIx, p: PoolIx) -> Pace {
        self.paces[self.pace_at(r, p)].get().map_or_else(Pace::default, |e| e.pace())
    }
}
