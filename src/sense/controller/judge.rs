//! What is bad: endpoints by their probes, pools by their deciders, weighed against the other regions.

use super::*;
use crate::sense::endpoints::{Mind, say};
use crate::sense::verdict::Advice;

impl Controller {
    /// Probes and ejections of a pool's endpoints.
    pub(super) fn judge_endpoints(&mut self, now: Moment, p: PoolIx) {
        let config = self.config.clone();
        let t = &config.topology;
        let tp = &t.pools[p.at()];
        let service = &t.services[tp.service.at()];
        let lying = self.probes_lie(now, tp.service);
        let pool = &mut self.pools[p.at()];
        let mut news = Vec::new();
        for (mind, e) in pool.endpoints.iter_mut().zip(tp.endpoints()) {
            if let Some(h) = &service.health {
                self.orders.extend(mind.decide(now, e, h, lying, pool.stage != Stage::Silent));
            }
            if let Some((up, cause)) = mind.news(now, service.health.as_ref()) {
                news.push((t.endpoints[e.at()].name.to_string(), up, cause));
            }
        }
        for (endpoint, up, cause) in news {
            let (service, region) = (service.name.to_string(), t.regions[tp.region.at()].name.to_string());
            self.record(now, Actor::Evenkeel, EventKind::Endpoint { service, region, endpoint, up, cause });
        }
    }

    /// Remember where live traffic proves the service's probes wrong.
    pub(super) fn notice_belied(&mut self, now: Moment, s: ServiceIx) {
        let belied = |p: &PoolIx| self.pools[p.at()].endpoints.iter().any(|e| e.belied(now));
        if self.config.topology.services[s.at()].pools.iter().any(belied) {
            self.belied[s.at()] = now;
        }
    }

    /// Whether the service's probes fail softly where live traffic proves them wrong, or did so lately.
    fn probes_lie(&self, now: Moment, s: ServiceIx) -> bool {
        self.belied[s.at()] + FRESH > now && self.belied[s.at()] > Moment::ZERO
    }

    pub(super) fn probe(&mut self, now: Moment, probe: Probe) {
        let t = &self.config.topology;
        if probe.generation != self.config.generation || probe.endpoint.at() >= t.endpoints.len() {
            return;
        }
        let p = t.endpoints[probe.endpoint.at()].pool;
        let i = (probe.endpoint.0 - t.pools[p.at()].endpoints.start) as usize;
        self.pools[p.at()].endpoints[i].probed(now, probe.verdict);
        self.notice_belied(now, self.config.topology.pools[p.at()].service);
        self.judge_endpoints(now, p);
        self.live_or_dead(now, p);
    }

    /// Set and clear `dead`.
    pub(super) fn live_or_dead(&mut self, now: Moment, p: PoolIx) {
        let config = self.config.clone();
        let service = &config.topology.services[config.topology.pools[p.at()].service.at()];
        if let Some(dead) = self.pools[p.at()].dead.clone() {
            let last_resort = !service.pools.iter().any(|q| self.open(now, *q));
            let pool = &self.pools[p.at()];
            let heard = pool.silence.heard() > dead.since;
            // Probes must have failed in this outage to speak about its end; one pass will do where nothing else is
            // left, and live silence is not theirs to end where something is.
            let before = dead.since - FRESH;
            let healed = |e: &Mind| {
                let enough = last_resort || service.health.as_ref().is_some_and(|h| e.passing(h));
                e.probe_failed_since(before) && e.passed_since(dead.since) && enough
            };
            let probed = (pool.stage != Stage::Silent || last_resort) && pool.endpoints.iter().any(healed);
            let unknowable = service.health.is_none() && now.since(dead.since) >= service.failover.open.0;
            if heard || probed || unknowable {
                let well: Vec<bool> = pool.endpoints.iter().map(|e| heard || unknowable || healed(e)).collect();
                self.pools[p.at()].revive();
                self.revive_endpoints(now, p, |i| well[i]);
            }
            return;
        }
        let pool = &mut self.pools[p.at()];
        let cause = if pool.stage == Stage::Silent {
            pool.silent_cause(now)
        } else if pool.unreachable(now) {
            Cause::Unreachable { endpoints: pool.endpoints.len() as u32 }
        } else if pool.endpoints.iter().any(|e| e.probe_down) && pool.endpoints.iter().all(|e| e.out(now)) {
            let last = pool.endpoints.iter().find_map(|e| e.last.as_ref()).map_or_else(String::new, |(_, v)| say(v));
            let n = pool.endpoints.len() as u32;
            Cause::Probes { down: n, endpoints: n, last }
        } else {
            return;
        };
        pool.dead = Some(Dead { since: now, cause });
        pool.epoch += 1;
    }

    /// Give endpoints that are out the benefit of the doubt.
    pub(super) fn revive_endpoints(&mut self, now: Moment, p: PoolIx, which: impl Fn(usize) -> bool) {
        let start = self.config.topology.pools[p.at()].endpoints.start;
        for (i, mind) in self.pools[p.at()].endpoints.iter_mut().enumerate() {
            if mind.out(now) && which(i) {
                let ix = EndpointIx(start + i as u32);
                if mind.revive() {
                    self.orders.push(EndpointOrder::ProbeDown(ix, false));
                }
                self.orders.push(EndpointOrder::Restore(ix));
            }
        }
    }

    /// Weigh what a pool's deciders say against how the others do, and trip it, doubt it, or hold.
    pub(super) fn weigh(&mut self, now: Moment, p: PoolIx) {
        let state = self.pools[p.at()].way.state;
        if state == State::Tripped {
            return;
        }
        if let Some(dead) = self.pools[p.at()].dead.clone() {
            let since = self.pools[p.at()].trouble().unwrap_or(dead.since);
            let others = self.others(now, p, since, now.since(since));
            let probed = matches!(dead.cause, Cause::Probes { .. });
            // Answers that are wrong, not missing, are weighed as answers: everybody's may be.
            let mine = self.pools[p.at()].recent(now, self.service_of(p).failover.window);
            let wrong = probed && mine.failed() > 0 && !self.pools[p.at()].endpoints.iter().any(|e| e.out_hard(now));
            let theirs = if wrong { contrast(&mine, Evidence::Wrong, Some(false), &others) == Contrast::Better } else { alone(&others) };
            if theirs && !self.held(now, p) {
                let idle = probed && !self.pools[p.at()].busy(now);
                self.turn(now, p, Move::Trip, dead.cause, Actor::Evenkeel);
                self.pools[p.at()].way.idle_trip = idle;
            }
            return;
        }
        let verdict = self.pools[p.at()].verdict.clone();
        match verdict {
            Some(Verdict::Bad(cause, counts, span)) => self.accuse(now, p, cause, &counts, span),
            Some(Verdict::Doubt(cause)) => {
                let others = self.others(now, p, now, Duration::from_secs(1));
                let pool = &mut self.pools[p.at()];
                if pool.doubt.is_none() && others.iter().any(|o| !o.quiet) {
                    pool.doubt = Some(Doubt { since: now, cause, until: None });
                }
            }
            None => self.pools[p.at()].doubt = None,
        }
    }

    /// Whether nobody trips at present: we were stalled, or a common fault lasts, or ended just now. Whoever is heard first
    /// afterwards proves nothing against the others until they had time to be heard as well, and what was sent before may
    /// fail for a while yet: tripped for that, they would leave the first one all the load.
    pub(super) fn held(&self, now: Moment, p: PoolIx) -> bool {
        let grace = self.service_of(p).health.as_ref().map_or(EXPERIMENT, |h| h.interval * h.rise + h.timeout);
        let common = self.common.is_some_and(|(_, told)| told);
        now < self.stalled_until || common || self.common_over > Moment::ZERO && now < self.common_over + grace
    }

    fn accuse(&mut self, now: Moment, p: PoolIx, cause: Cause, counts: &Counts, span: Duration) {
        let evidence = match cause {
            Cause::Timeouts { .. } => Evidence::Hangs,
            _ if counts.hard() * 2 > counts.failed() => Evidence::Gone,
            _ => Evidence::Wrong,
        };
        let others = self.others(now, p, now - span, span);
        let probes = self.pools[p.at()].probes(self.service_of(p));
        let mut verdict = contrast(counts, evidence, probes, &others);
        // The shortest stretch that accuses it may be too short to tell it from the others by.
        let window = self.service_of(p).failover.window;
        let mut span = span;
        while evidence == Evidence::Wrong && verdict == Contrast::Unknown && span < window {
            span = (span * 2).min(window);
            if contrast(&self.pools[p.at()].recent(now, span), evidence, probes, &self.others(now, p, now - span, span)) == Contrast::Better
            {
                verdict = Contrast::Better;
            }
        }
        let outvoted = evidence == Evidence::Wrong && self.pools[p.at()].advice == Advice::Hold;
        let verdict = if self.held(now, p) || outvoted { Contrast::AsBad } else { verdict };
        let pool = &mut self.pools[p.at()];
        let over = pool.doubt.as_ref().and_then(|d| d.until).is_some_and(|until| now >= until);
        match verdict {
            Contrast::Better => self.turn(now, p, Move::Trip, cause, Actor::Evenkeel),
            Contrast::Unknown if pool.doubt.is_none() && now >= pool.no_experiment => {
                let lasts = if evidence == Evidence::Hangs { HANG_EXPERIMENT } else { EXPERIMENT };
                pool.doubt = Some(Doubt { since: now, cause, until: Some(now + lasts) });
            }
            Contrast::Unknown if !over => {}
            Contrast::Unknown | Contrast::AsBad => {
                if pool.doubt.take().is_some() {
                    pool.no_experiment = now + TOGETHER;
                }
            }
        }
    }

    /// The other pools of the service that could take its work.
    fn others(&self, now: Moment, p: PoolIx, since: Moment, span: Duration) -> Vec<Other> {
        let t = &self.config.topology;
        let mine = &t.pools[p.at()];
        let could = |q: &PoolIx| {
            let way = &self.pools[q.at()].way;
            *q != p && matches!(way.state, State::Serving | State::Ramping) && !self.drained(now, t.pools[q.at()].region)
        };
        let others = t.services[mine.service.at()].pools.iter().filter(|q| could(q));
        others
            .map(|q| {
                let pool = &self.pools[q.at()];
                Other {
                    recent: pool.recent(now, span),
                    quiet: pool.dead.is_some() || pool.stage > Stage::Calm,
                    probes: pool.probes_since(since),
                }
            })
            .collect()
    }

    /// Whether a pool may take ordinary new work.
    pub(super) fn open(&self, now: Moment, p: PoolIx) -> bool {
        let pool = &self.pools[p.at()];
        let region = self.config.topology.pools[p.at()].region;
        matches!(pool.way.state, State::Serving | State::Ramping) && !pool.suspect() && !self.drained(now, region)
    }
}
