//! What other edges say, and what it means here: the controller's side of [`book`](crate::sense::book) and
//! [`verdict`](crate::sense::verdict).
//!
//! Views are weighed every full tick, and at once where one came in while a pool of ours is in doubt. Own evidence goes first:
//! a pool that our own deciders trip is tripped before anybody is asked. A verdict of the fleet never takes out the last open
//! pool of a service, and nothing here acts while states are frozen or held.

use super::*;
use crate::model::fleet::{EdgeStatus, FleetStatus, News, Opinion, PoolReport, Report};
use crate::model::policy::Verdicts;
use crate::sense::book::{Book, Votes};
use crate::sense::ramp::Pace;
use crate::sense::verdict::{Advice, Own, advise, is_alone};

/// A fault that only we see is ours when the others had this long to see it too.
const ALONE: Duration = Duration::from_secs(2);

/// What the controller knows of its fleet.
pub(super) struct Mind {
    book: Book,
    mode: Verdicts,
    /// A view came in that has not been weighed.
    fresh: bool,
    quorum: bool,
    /// This edge's part of each service's capacities.
    portions: Vec<f64>,
    sharers: u32,
    live: u32,
    alone: Vec<String>,
    link: String,
    /// The link as it was last put on record.
    told: Option<bool>,
    seq: u64,
}

impl Mind {
    pub(super) fn of(config: &Compiled, now: Moment) -> Option<Self> {
        let t = &config.topology;
        let f = t.fleet.as_ref()?;
        Some(Self {
            book: Book::new(&t.edge.name, f.lease, now),
            mode: f.verdicts,
            fresh: true,
            quorum: false,
            portions: vec![1.0; t.services.len()],
            sharers: 1,
            live: 1,
            alone: Vec::new(),
            link: "not connected yet".into(),
            told: None,
            seq: 0,
        })
    }
}

impl Controller {
    /// Another config: who is known stays known.
    pub(super) fn regroup(&mut self, now: Moment, t: &Topology) {
        match (&mut self.fleet, &t.fleet) {
            (Some(mind), Some(f)) => {
                mind.book.rename(&t.edge.name, f.lease);
                (mind.mode, mind.fresh, mind.portions) = (f.verdicts, true, vec![1.0; t.services.len()]);
            }
            (_, None) => self.fleet = None,
            (None, Some(_)) => self.fleet = Mind::of(&self.config, now),
        }
        self.pools.iter_mut().for_each(|p| p.advice = Advice::Own);
        self.weigh_shares(now);
    }

    pub(super) fn news(&mut self, now: Moment, news: News) {
        let Some(mind) = &mut self.fleet else { return };
        match news {
            News::View(report) => mind.fresh |= mind.book.hear(now, report),
            News::Left { edge, incarnation } => {
                mind.book.left(&edge, incarnation);
                mind.fresh = true;
            }
            News::Remembered(edges) => {
                mind.book.remember(edges);
                self.weigh_shares(now);
            }
            News::Link { up, why } => {
                mind.book.link(now, up);
                (mind.link, mind.fresh) = (why.clone(), true);
                if mind.told.replace(up) != Some(up) {
                    self.record(now, Actor::Evenkeel, EventKind::Fleet { connected: up, what: why });
                }
            }
        }
    }

    /// What this edge tells the others; `None`: it is alone.
    pub fn report(&mut self, now: Moment, incarnation: u64) -> Option<Report> {
        self.fleet.as_ref()?;
        let t = &self.config.topology;
        let pool = |p: usize| {
            let way = &self.pools[p].way;
            let cause = (way.state != State::Serving).then(|| way.cause.as_ref().map(ToString::to_string)).flatten();
            PoolReport { opinion: self.opinion(now, PoolIx::from(p)), state: way.state, cause, rung: way.rung() }
        };
        let pools = t.pools.iter().enumerate().map(|(i, tp)| (tp.name.to_string(), pool(i))).collect();
        let demand = t.services.iter().zip(&self.services).map(|(s, r)| (s.name.to_string(), (r.get() * 10.0).round() / 10.0)).collect();
        let edge = t.edge.name.clone();
        let mind = self.fleet.as_mut()?;
        mind.seq += 1;
        let report = Report { edge, incarnation, seq: mind.seq, demand, pools };
        mind.book.said(report.clone());
        Some(report)
    }

    /// What our own evidence says of a pool. Never what others said: a verdict must not confirm itself.
    fn opinion(&self, now: Moment, p: PoolIx) -> Opinion {
        let (pool, service) = (&self.pools[p.at()], self.service_of(p));
        if self.edge_suspect(now) {
            return Opinion::Unknown;
        }
        let probes = pool.probes(service);
        match pool.way.state {
            State::Tripped if pool.followed || pool.way.pinned => match probes {
                _ if pool.dead.is_some() => Opinion::Down,
                Some(true) => Opinion::Well,
                Some(false) => Opinion::Down,
                None => Opinion::Unknown,
            },
            State::Tripped if pool.way.good_for(now) < service.recovery.hold => Opinion::Down,
            State::Tripped | State::Trial => Opinion::Suspect,
            State::Serving | State::Ramping if pool.dead.is_some() && self.frozen => Opinion::Down,
            State::Serving | State::Ramping if pool.suspect() => Opinion::Suspect,
            State::Serving | State::Ramping if pool.live_well(now) => Opinion::Well,
            State::Serving | State::Ramping => match probes {
                Some(true) => Opinion::Well,
                Some(false) => Opinion::Suspect,
                None => Opinion::Unknown,
            },
        }
    }

    fn own(&self, now: Moment, p: PoolIx) -> Own {
        let pool = &self.pools[p.at()];
        let open = matches!(pool.way.state, State::Serving | State::Ramping);
        let doubts = open && pool.trouble().is_some_and(|since| pool.last_ok <= since);
        let experiment = pool.doubt.as_ref().is_some_and(|d| d.until.is_some());
        Own { opinion: self.opinion(now, p), doubts, experiment }
    }

    /// Weighs what the others say, and acts on it.
    pub(super) fn consult(&mut self, now: Moment, full: bool) {
        let Some(mut mind) = self.fleet.take() else { return };
        let hurried = mind.fresh && self.pools.iter().any(Pool::suspect);
        if !full && !hurried {
            self.fleet = Some(mind);
            return;
        }
        mind.fresh = false;
        mind.book.prune(now);
        mind.quorum = mind.book.quorum(now);
        let config = self.config.clone();
        let t = &config.topology;
        let mut alone = Vec::new();
        for p in (0..self.pools.len()).map(PoolIx::from) {
            let votes = mind.book.votes(now, &t.pools[p.at()].name);
            let own = self.own(now, p);
            let advice = advise(mind.mode, &votes, mind.quorum, own);
            self.pools[p.at()].advice = advice;
            let seen = now.since(self.pools[p.at()].way.tripped_at) >= ALONE;
            if is_alone(&votes, mind.quorum, own.opinion) && seen {
                alone.push((t.pools[p.at()].region, votes));
            }
            self.heed(now, p, advice, &votes.with(own.opinion));
        }
        let votes = alone.first().map(|(_, v)| *v).unwrap_or_default();
        let mut regions: Vec<RegionIx> = alone.into_iter().map(|(r, _)| r).collect();
        regions.sort_unstable();
        regions.dedup();
        let names: Vec<String> = regions.iter().map(|r| t.regions[r.at()].name.to_string()).collect();
        if names != mind.alone {
            let on = !names.is_empty();
            let what = if on { format!("{} of {} other edges see it well", votes.well, votes.live) } else { String::new() };
            let regions = if on { names.clone() } else { mind.alone.clone() };
            self.record(now, Actor::Evenkeel, EventKind::Uplink { on, regions, what });
            mind.alone = names;
        }
        self.fleet = Some(mind);
        if full {
            self.weigh_shares(now);
        }
    }

    fn heed(&mut self, now: Moment, p: PoolIx, advice: Advice, votes: &Votes) {
        let config = self.config.clone();
        let service = self.service_of(p).pools.clone();
        if self.frozen || self.held(now, p) || !matches!(advice, Advice::Confirm | Advice::Follow | Advice::Calm) {
            return;
        }
        if advice == Advice::Calm {
            let pool = &mut self.pools[p.at()];
            pool.doubt = None;
            pool.no_experiment = now + super::TOGETHER;
            return;
        }
        let state = self.pools[p.at()].way.state;
        let another = service.iter().any(|q| *q != p && self.open(now, *q) && self.pools[q.at()].advice != Advice::Follow);
        if state == State::Tripped || !another {
            return;
        }
        let what = format!("{} of {} edges that can tell see {} down", votes.down, votes.cast(), config.topology.pools[p.at()].name);
        if advice == Advice::Follow {
            self.turn(now, p, Move::Trip, Cause::Fleet { what }, Actor::Evenkeel);
            self.pools[p.at()].followed = true;
        } else {
            let own = self.pools[p.at()].suspect_cause(now);
            self.turn(now, p, Move::Trip, Cause::Fleet { what: format!("{what}; here {own}") }, Actor::Evenkeel);
            self.pools[p.at()].epoch += 1;
        }
    }

    /// Works out this edge's part of what the pools can take.
    fn weigh_shares(&mut self, now: Moment) {
        let Some(mind) = &mut self.fleet else { return };
        mind.sharers = mind.book.sharers(now).max(1);
        mind.live = 1 + mind.book.live(now).count() as u32;
        for (s, portion) in self.config.topology.services.iter().zip(&mut mind.portions) {
            *portion = mind.book.portion(now, &s.name);
        }
    }

    /// This edge's part of what a service's pools can take: 1 for an edge that is alone.
    pub(super) fn portion(&self, s: ServiceIx) -> f64 {
        self.fleet.as_ref().and_then(|m| m.portions.get(s.at()).copied()).unwrap_or(1.0)
    }

    /// Among how many edges budgets are divided.
    pub(super) fn edges(&self) -> u32 {
        self.fleet.as_ref().map_or(1, |m| m.sharers)
    }

    /// How a pool's way back goes with the others'.
    pub(super) fn pace(&self, now: Moment, p: PoolIx) -> Pace {
        let Some(mind) = &self.fleet else { return Pace::default() };
        let lowest = mind.book.lowest_rung(now, &self.config.topology.pools[p.at()].name);
        Pace { others: mind.live.saturating_sub(1), lowest, held_out: self.pools[p.at()].advice == Advice::Follow }
    }

    pub(super) fn fleet_status(&self, now: Moment) -> Option<FleetStatus> {
        let mind = self.fleet.as_ref()?;
        let mine = mind.book.mine();
        let mut notes = Vec::new();
        if mind.book.double(now) {
            notes.push(format!("another process calls itself {}, too: give each edge its own edge.name", self.config.topology.edge.name));
        }
        let edge = |r: &Report, ago: Duration, live: bool| EdgeStatus {
            name: r.edge.clone(),
            live,
            heard_s: (ago.as_secs_f64() * 10.0).round() / 10.0,
            demand: r.demand.values().sum(),
            pools: r.pools.clone(),
        };
        let me = EdgeStatus { name: self.config.topology.edge.name.clone(), ..edge(mine, Duration::ZERO, true) };
        let others = mind.book.known(now).map(|(r, ago, live)| edge(r, ago, live));
        Some(FleetStatus {
            connected: mind.book.linked(),
            link: mind.link.clone(),
            verdicts: mind.mode.label().into(),
            quorum: mind.quorum,
            live: mind.live,
            sharing: mind.sharers,
            portions: self.config.topology.services.iter().map(|s| s.name.to_string()).zip(mind.portions.iter().copied()).collect(),
            notes,
            alone: mind.alone.clone(),
            edges: std::iter::once(me).chain(others).collect(),
            orders: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests;
