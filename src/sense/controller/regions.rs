//! What is wider than a pool: regions, faults that many share, our own stall.

use super::*;

impl Controller {
    pub(super) fn stalled(&mut self, now: Moment, late: Duration) {
        if now >= self.stalled_until {
            let cause = Cause::Stalled { late_ms: late.as_millis() as u64 };
            self.record(now, Actor::Evenkeel, EventKind::EdgeSuspect { on: true, cause });
        }
        self.stalled_until = now + STALL_STANDS;
    }

    /// Unrelated regions in trouble together, and nobody heard since.
    pub(super) fn common_fault(&mut self, now: Moment, t: &Topology) {
        let accused = |p: &Pool| matches!(p.verdict, Some(Verdict::Bad(..)));
        let trouble = |p: &Pool| p.trouble().or(accused(p).then(|| now - EXPERIMENT)).filter(|_| p.way.state != State::Tripped);
        let bad: Vec<(RegionIx, Moment)> = self.pools.iter().zip(&t.pools).filter_map(|(p, tp)| Some((tp.region, trouble(p)?))).collect();
        let unrelated = bad.iter().any(|(a, _)| bad.iter().any(|(b, _)| !t.related(*a, *b)));
        let onset = bad.iter().map(|(_, s)| *s).min().unwrap_or(now);
        let well = |p: &Pool| !p.suspect() && !accused(p) && (p.last_ok > onset || p.probes_since(onset) == Some(true));
        let now_common = unrelated && !self.pools.iter().any(well);
        match (self.common, now_common) {
            (None, true) => self.common = Some((now, false)),
            (Some((since, false)), true) if now.since(since) >= COMMON => {
                self.common = Some((since, true));
                let mut regions: Vec<RegionIx> = bad.iter().map(|(r, _)| *r).collect();
                regions.sort_unstable();
                regions.dedup();
                let regions = regions.iter().map(|r| t.regions[r.at()].name.to_string()).collect();
                self.record(now, Actor::Evenkeel, EventKind::EdgeSuspect { on: true, cause: Cause::CommonMode { regions } });
            }
            (Some((_, told)), false) => {
                self.common = None;
                if told {
                    self.common_over = now;
                    // What everybody suffered accuses nobody.
                    self.pools.iter_mut().for_each(Pool::forget);
                    self.record(now, Actor::Evenkeel, EventKind::EdgeSuspect { on: false, cause: Cause::Heard });
                }
            }
            _ => {}
        }
        if self.stalled_until > Moment::ZERO && now >= self.stalled_until {
            self.stalled_until = Moment::ZERO;
            if !self.common.is_some_and(|(_, told)| told) {
                self.record(now, Actor::Evenkeel, EventKind::EdgeSuspect { on: false, cause: Cause::Heard });
            }
        }
    }

    /// Whether the fault may be ours or everybody's.
    pub(super) fn edge_suspect(&self, now: Moment) -> bool {
        self.common.is_some_and(|(_, told)| told) || now < self.stalled_until
    }

    /// The states of regions follow from their pools.
    pub(super) fn settle_regions(&mut self, now: Moment, t: &Topology) {
        for r in (0..t.regions.len()).map(RegionIx::from) {
            let facts: Vec<(State, bool, bool)> = t
                .pools_of(r)
                .map(|p| &self.pools[p.at()])
                .map(|p| (p.way.state, p.busy(now) || p.way.pinned, p.way.tripped_at + TOGETHER > now))
                .collect();
            let from = self.regions[r.at()].state;
            let to = region::of_region(from, facts.iter().copied());
            if to == from {
                continue;
            }
            let cause = if to == State::Tripped {
                let tripped = facts.iter().filter(|(s, ..)| *s == State::Tripped).count() as u32;
                let of = facts.iter().filter(|(s, traffic, _)| *traffic || *s == State::Tripped).count() as u32;
                Cause::Pools { tripped, of }
            } else {
                let pools = t.pools_of(r).map(|p| &self.pools[p.at()].way).filter(|w| w.cause.is_some());
                pools.max_by_key(|w| w.since).and_then(|w| w.cause.clone()).unwrap_or(Cause::Recovered)
            };
            let region = &mut self.regions[r.at()];
            (region.state, region.since, region.cause) = (to, now, Some(cause.clone()));
            let name = t.regions[r.at()].name.to_string();
            self.record(now, Actor::Evenkeel, EventKind::Region { region: name, from, to, cause });
        }
    }
}
