//! The operator's last word over the detector.

use super::*;
use crate::model::signal::{Command, Order};

impl Controller {
    pub(super) fn command(&mut self, now: Moment, c: Command) -> Result<Vec<String>, Refused> {
        match c.order {
            Order::Drain { region, reason, over, lasting } => self.drain(now, c.by, region, reason, over, lasting),
            Order::Undrain { region } => self.undrain(now, c.by, region, "lifted".into()),
            Order::Recall { region } => self.recall(now, c.by, region),
            Order::Trip { pool, reason } => self.order_trip(now, c.by, pool, reason),
            Order::Reset { pool } => self.order_reset(now, c.by, pool),
            Order::Freeze { on } => self.freeze(now, c.by, on),
        }
    }

    fn region_name(&self, r: RegionIx) -> Result<String, Refused> {
        let regions = &self.config.topology.regions;
        let known = || regions.iter().map(|r| &*r.name).collect::<Vec<_>>().join(", ");
        regions.get(r.at()).map(|r| r.name.to_string()).ok_or_else(|| Refused::Unknown(format!("no such region; there are: {}", known())))
    }

    fn pool_name(&self, p: PoolIx) -> Result<String, Refused> {
        let pools = &self.config.topology.pools;
        let known = || pools.iter().map(|p| &*p.name).collect::<Vec<_>>().join(", ");
        pools.get(p.at()).map(|p| p.name.to_string()).ok_or_else(|| Refused::Unknown(format!("no such pool; there are: {}", known())))
    }

    fn drain(
        &mut self,
        now: Moment,
        by: Actor,
        r: RegionIx,
        reason: String,
        over: Duration,
        lasting: Option<Duration>,
    ) -> Result<Vec<String>, Refused> {
        let name = self.region_name(r)?;
        let until = lasting.map(|l| now + l);
        // One that is fading goes on from where it is: nothing comes back to it.
        let from = self.fade(now, r);
        let over = if self.drained(now, r) { Duration::ZERO } else { over };
        let region = &mut self.regions[r.at()];
        region.away.get_or_insert(now);
        region.drain = Some(Drain { by: by.clone(), reason: reason.clone(), since: now, over, from, until });
        let mut lines = vec![if over.is_zero() { format!("{name} is drained") } else { format!("{name} is being drained over {over:?}") }];
        if let Some(l) = lasting {
            lines.push(format!("it comes back by itself after {l:?}"));
        }
        lines.extend(self.left_without(now, r));
        self.record(now, by, EventKind::Drain { region: name, on: true, reason, until });
        Ok(lines)
    }

    /// Routes that have no region left once this one is away.
    fn left_without(&self, now: Moment, away: RegionIx) -> Vec<String> {
        let t = &self.config.topology;
        let left = |table: TableIx| {
            let Some(table) = t.tables.get(table.at()) else { return true };
            let mut pools = t.services[table.service.at()].pools.iter().map(|p| (*p, t.pools[p.at()].region));
            pools.any(|(p, r)| r != away && table.allowed.has(r) && self.open(now, p))
        };
        t.routes
            .iter()
            .filter(|r| !left(r.table))
            .map(|r| format!("route {} has no other open region: its requests degrade", r.name))
            .collect()
    }

    fn undrain(&mut self, now: Moment, by: Actor, r: RegionIx, reason: String) -> Result<Vec<String>, Refused> {
        let name = self.region_name(r)?;
        if self.regions[r.at()].drain.take().is_none() {
            let why = if self.config.topology.regions[r.at()].drained {
                format!("{name} is drained by the config file: set regions.{name}.drained to false there and reload")
            } else {
                format!("{name} is not drained")
            };
            return Err(Refused::Conflict(why));
        }
        self.record(now, by, EventKind::Drain { region: name.clone(), on: false, reason, until: None });
        if self.config.topology.regions[r.at()].drained {
            return Ok(vec![format!("the override is lifted; {name} stays drained by the config file")]);
        }
        Ok(self.welcome(now, r))
    }

    fn recall(&mut self, now: Moment, by: Actor, r: RegionIx) -> Result<Vec<String>, Refused> {
        self.region_name(r)?;
        if self.regions[r.at()].drain.is_some() && !self.config.topology.regions[r.at()].drained {
            // As if it had only just gone.
            self.regions[r.at()].away = Some(now);
        }
        self.undrain(now, by, r, "recalled".into())
    }

    /// A region is no longer drained: at once within `warm`, by the ramp after that.
    pub(super) fn welcome(&mut self, now: Moment, r: RegionIx) -> Vec<String> {
        let config = self.config.clone();
        let t = &config.topology;
        let Some(away) = self.regions[r.at()].away.take() else { return Vec::new() };
        let mut lines = Vec::new();
        for p in t.pools_of(r) {
            let recovery = &t.services[t.pools[p.at()].service.at()].recovery;
            let name = &t.pools[p.at()].name;
            if now.since(away) > recovery.warm && self.pools[p.at()].way.state == State::Serving {
                self.turn(
                    now,
                    p,
                    Move::Chill,
                    Cause::Step { percent: recovery.steps.first().copied().unwrap_or(1.0) * 100.0 },
                    Actor::Evenkeel,
                );
                lines.push(format!("{name} was away for {:?}: it comes back by its ramp", now.since(away)));
            } else {
                lines.push(format!("{name} is {} again", self.pools[p.at()].way.state));
            }
        }
        lines
    }

    /// Drains that end by themselves.
    pub(super) fn lift_drains(&mut self, now: Moment) {
        for r in (0..self.regions.len()).map(RegionIx::from) {
            let over = self.regions[r.at()].drain.as_ref().filter(|d| d.until.is_some_and(|u| now >= u)).map(|d| d.by.clone());
            if let Some(by) = over {
                let _ = self.undrain(now, by, r, "its time is over".into());
            }
        }
    }

    fn order_trip(&mut self, now: Moment, by: Actor, p: PoolIx, reason: String) -> Result<Vec<String>, Refused> {
        let name = self.pool_name(p)?;
        if self.pools[p.at()].way.pinned {
            return Err(Refused::Conflict(format!("{name} is tripped by an operator already")));
        }
        let cause = Cause::Operator { reason };
        if self.pools[p.at()].way.state == State::Tripped {
            self.pools[p.at()].way.cause = Some(cause.clone());
            self.tell_pool(now, p, State::Tripped, cause, by);
        } else {
            self.turn(now, p, Move::OrderTrip, cause, by);
        }
        self.pools[p.at()].way.pinned = true;
        let mut lines = vec![format!("{name} is tripped until it is reset")];
        lines.extend(self.left_without(now, self.config.topology.pools[p.at()].region));
        Ok(lines)
    }

    fn order_reset(&mut self, now: Moment, by: Actor, p: PoolIx) -> Result<Vec<String>, Refused> {
        let name = self.pool_name(p)?;
        let pool = &mut self.pools[p.at()];
        pool.revive();
        pool.way.forgive();
        self.revive_endpoints(now, p, |_| true);
        if self.pools[p.at()].way.state == State::Serving {
            return Ok(vec![format!("{name} is serving; the evidence against it is cleared")]);
        }
        self.turn(now, p, Move::OrderReset, Cause::Operator { reason: "reset".into() }, by);
        Ok(vec![format!("{name} is serving")])
    }

    fn freeze(&mut self, now: Moment, by: Actor, on: bool) -> Result<Vec<String>, Refused> {
        if self.frozen == on {
            return Ok(vec![if on { "states are held already".into() } else { "states are not held".into() }]);
        }
        self.frozen = on;
        self.pools.iter_mut().for_each(|p| p.doubt = None);
        self.record(now, by, EventKind::Freeze { on });
        Ok(vec![if on { "states are held as they are; requests still retry one by one".into() } else { "states move again".into() }])
    }
}
