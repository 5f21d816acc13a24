//! A new config: belief is carried over by name, so that a weight change resets nothing.

use super::*;
use crate::model::diff::diff;

impl Controller {
    /// Apply a config. The answer is the difference in words.
    pub(super) fn reload(&mut self, now: Moment, config: Arc<Compiled>, by: Actor) -> Vec<String> {
        let old = std::mem::replace(&mut self.config, config.clone());
        let (was, is) = (&old.topology, &config.topology);
        let lines = diff(was, is);
        let place = |names: Vec<&Arc<str>>, name: &Arc<str>| names.iter().position(|n| *n == name);

        let mut pools: Vec<Option<Pool>> = std::mem::take(&mut self.pools).into_iter().map(Some).collect();
        for tp in &is.pools {
            let service = &is.services[tp.service.at()];
            let kept = place(was.pools.iter().map(|p| &p.name).collect(), &tp.name).and_then(|i| Some((i, pools[i].take()?)));
            let fresh = Pool::new(now, service, tp.endpoints.len());
            let pool = match kept {
                Some((i, mut pool)) => {
                    let names = |t: &Topology, range: &std::ops::Range<u32>| -> Vec<Arc<str>> {
                        range.clone().map(|e| t.endpoints[e as usize].name.clone()).collect()
                    };
                    let before = names(was, &was.pools[i].endpoints);
                    let minds = std::mem::take(&mut pool.endpoints);
                    for (name, fresh) in names(is, &tp.endpoints).iter().zip(fresh.endpoints) {
                        let mind = before.iter().position(|b| b == name).map(|j| minds[j].clone());
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
            let kept = place(was.regions.iter().map(|r| &r.name).collect(), &tr.name).map(|i| regions[i].clone());
            let mut region = kept.unwrap_or(Region { state: State::Serving, since: now, cause: None, drain: None, away: None });
            if tr.drained {
                region.away.get_or_insert(now);
            } else if region.away.is_some() && region.drain.is_none() {
                welcome.push(RegionIx::from(r));
            }
            self.regions.push(region);
        }

        let rate = |old: &[Rate], i: Option<usize>| i.and_then(|i| old.get(i).copied()).unwrap_or_default();
        let names: Vec<&Arc<str>> = was.services.iter().map(|s| &s.name).collect();
        self.services = is.services.iter().map(|s| rate(&self.services, names.iter().position(|n| **n == s.name))).collect();
        let same_table = |table: &crate::model::topology::Table| {
            was.tables.iter().position(|o| {
                let names = |t: &Topology, set: RegionSet| {
                    set.iter().filter_map(|r| t.regions.get(r.at()).map(|r| r.name.clone())).collect::<Vec<_>>()
                };
                was.services[o.service.at()].name == is.services[table.service.at()].name
                    && names(was, o.allowed) == names(is, table.allowed)
            })
        };
        self.tables = is.tables.iter().map(|t| rate(&self.tables, same_table(t))).collect();
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
