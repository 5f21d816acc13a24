//! Everything an operator asks first.

use super::*;
use crate::model::status::{ConfigStatus, Drained, EndpointStatus, PoolStatus, RegionStatus, Status};

impl Controller {
    /// The present belief in the shape of `GET /v1/status`.
    pub fn status(&self, now: Moment) -> Status {
        let t = &self.config.topology;
        let observing = !t.services.is_empty() && t.services.iter().all(|s| s.failover.mode == Mode::Observe);
        let mode = if self.frozen {
            "frozen"
        } else if observing {
            "observe"
        } else {
            "active"
        };
        let text = self.config.source.path.display().to_string();
        Status {
            edge: t.edge.name.clone(),
            generation: self.config.generation,
            mode: mode.into(),
            edge_suspect: self.edge_suspect(now),
            regions: (0..t.regions.len()).map(|r| self.region_status(RegionIx::from(r))).collect(),
            pools: (0..t.pools.len()).map(|p| self.pool_status(now, PoolIx::from(p))).collect(),
            config: ConfigStatus { path: text, loaded_at: Some(self.loaded_at.into()), last_error: self.last_error.clone() },
            fleet: self.fleet_status(now),
        }
    }

    fn region_status(&self, r: RegionIx) -> RegionStatus {
        let (tr, region) = (&self.config.topology.regions[r.at()], &self.regions[r.at()]);
        let by_file =
            || tr.drained.then(|| Drained { by: Actor::File.to_string(), reason: "drained: true".into(), until: None, by_file: true });
        let drained = match &region.drain {
            Some(d) => {
                Some(Drained { by: d.by.to_string(), reason: d.reason.clone(), until: d.until.map(Into::into), by_file: tr.drained })
            }
            None => by_file(),
        };
        RegionStatus {
            name: tr.name.to_string(),
            jurisdiction: tr.jurisdiction.as_ref().map(ToString::to_string),
            state: region.state,
            drained,
            cause: region.cause.as_ref().map(ToString::to_string),
            since: region.since.into(),
        }
    }

    fn pool_status(&self, now: Moment, p: PoolIx) -> PoolStatus {
        let t = &self.config.topology;
        let (tp, pool, view) = (&t.pools[p.at()], &self.pools[p.at()], &self.latest.pools[p.at()]);
        let (service, region) = self.names(p);
        let doubted = pool.suspect().then(|| pool.suspect_cause(now).to_string());
        let endpoints = pool.endpoints.iter().zip(tp.endpoints()).map(|(mind, e)| EndpointStatus {
            address: t.endpoints[e.at()].name.to_string(),
            up: !mind.out(now),
            ejected_until: mind.ejected(now).then_some(mind.tally.ejected_until.into()),
            cause: mind.out(now).then(|| mind.cause_out(now).to_string()),
        });
        PoolStatus {
            service,
            region,
            state: pool.way.state,
            suspect: pool.suspect(),
            share: view.share,
            inflight: pool.inflight,
            limit: view.limit,
            rate: pool.rate.get(),
            cause: if pool.way.state == State::Serving {
                doubted.or(pool.way.cause.as_ref().map(ToString::to_string))
            } else {
                pool.way.cause.as_ref().map(ToString::to_string)
            },
            since: pool.way.since.into(),
            endpoints: endpoints.collect(),
        }
    }
}
