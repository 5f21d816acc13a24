//! A new config: belief is carried over by name, so that a weight change resets nothing.

use super::*;
use crate::model::diff::diff;
use crate::model::topology::Table;
use std::collections::BTreeMap;

/// Where names stand; the first of a name counts.
fn places<'n>(names: impl Iterator<Item = &'n Arc<str>>) -> BTreeMap<&'n str, usize> {
    let mut places = BTreeMap::new();
    names.enumerate().for_each(|(i, n)| _ = places.entry(&**n).or_insert(i));
    places
}

impl Controller {
    /// Apply a config. The answer is the difference in words.
    pub(super) fn reload(&mut self, now: Moment, config: Arc<Compiled>, by: Actor) -> Vec<String> {
        let old = std::mem::replace(&mut self.config, config.clone());
        let (was, is) = (&old.topology, &config.topology);
        let lines = diff(was, is);
        let (pool_at, region_at) = (places(was.pools.iter().map(|p| &p.name)), places(was.regions.iter().map(|r| &r.name)));
        let service_at = places(was.services.iter().map(|s| &s.name));

        let mut pools: Vec<Option<Pool>> = std::mem::take(&mut self.pools).into_iter().map(Some).collect();
        for tp in &is.pools {
            let service = &is.services[tp.service.at()];
            let kept = pool_at.get(&*tp.name).and_then(|i| Some((*i, pools[*i].take()?)));
            let fresh = Pool::new(now, service, tp.endpoints.len());
            let pool = match kept {
                Some((i, mut pool)) => {
                    let before = places(was.pools[i].endpoints().map(|e| &was.endpoints[e.at()].name));
                    let minds = std::mem::take(&mut pool.endpoints);
                    for (e, fresh) in tp.endpoints().zip(fresh.endpoints) {
                        let mind = before.get(&*is.endpoints[e.at()].name).map(|j| minds[*j].clone());
                        pool.endpoints.push(mind.unwrap_or(fresh));
                    }
                    if pool.window.span() != service.failover.window {
                        pool.window = fresh.window;
                    }
                    pool
                }
                None => fresh,
            };
            self.pools.push(pool);
        }

        let regions = std::mem::take(&mut self.regions);
        let mut welcome = Vec::new();
        for (r, tr) in is.regions.iter().enumerate() {
            let kept = region_at.get(&*tr.name).map(|i| regions[*i].clone());
            let mut region = kept.unwrap_or(Region { state: State::Serving, since: now, cause: None, drain: None, away: None });
            if tr.drained {
                region.away.get_or_insert(now);
            } else if region.away.is_some() && region.drain.is_none() {
                welcome.push(RegionIx::from(r));
            }
            self.regions.push(region);
        }

        let rate = |old: &[Rate], i: Option<usize>| i.and_then(|i| old.get(i).copied()).unwrap_or_default();
        self.services = is.services.iter().map(|s| rate(&self.services, service_at.get(&*s.name).copied())).collect();
        // A table is known by its service and its regions.
        let called = |t: &Topology, table: &Table| -> (Arc<str>, Vec<Arc<str>>) {
            let regions = table.allowed.iter().filter_map(|r| t.regions.get(r.at()).map(|r| r.name.clone()));
            (t.services[table.service.at()].name.clone(), regions.collect())
        };
        let table_at: BTreeMap<_, usize> = was.tables.iter().enumerate().rev().map(|(i, o)| (called(was, o), i)).collect();
        self.tables = is.tables.iter().map(|t| rate(&self.tables, table_at.get(&called(is, t)).copied())).collect();
        (self.counted, self.fared) = (vec![[(0, 0); 3]; is.tables.len()], vec![ByPriority::default(); is.tables.len()]);
        self.belied = vec![Moment::ZERO; is.services.len()];
        self.regroup(now, is);
        self.purse = Purse::follow(was, is);
        self.orders.clear();
        (self.loaded_at, self.last_error) = (now, None);
        for (name, drained) in is.regions.iter().filter_map(|r| {
            let before = was.regions.iter().find(|o| o.name == r.name).is_some_and(|o| o.drained);
            (before != r.drained).then(|| (r.name.to_string(), r.drained))
        }) {
            let reason = "config file".to_string();
            self.record(now, Actor::File, EventKind::Drain { region: name, on: drained, reason, until: None });
        }
        self.record(now, by, EventKind::ConfigApplied { generation: config.generation, changes: lines.clone() });
        for r in welcome {
            self.welcome(now, r);
        }
        self.remind();
        lines
    }

    /// Cells of new endpoints know nothing; those of kept ones keep what they know. Probe marks are ours, so they are told again.
    fn remind(&mut self) {
        for (tp, pool) in self.config.topology.pools.iter().zip(&self.pools) {
            for (mind, e) in pool.endpoints.iter().zip(tp.endpoints()) {
                if mind.probe_down {
                    self.orders.push(EndpointOrder::ProbeDown(e, true));
                }
            }
        }
    }
}
