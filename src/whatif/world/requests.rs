//! Requests on their way: the edge's part, step by step as `edge/exchange.rs` does it.

use super::super::board;
use super::super::plant::{Contact, Job};
use super::super::trace::{Fate, Note, Witness};
use super::{Kind, Next, World};
use crate::model::id::*;
use crate::model::outcome::{Outcome, Sent};
use crate::model::policy::Degrade;
use crate::model::time::Moment;
use crate::model::view::{Facts, Live, View};
use crate::steer::attempt::{Attempt, Step, Try};
use crate::steer::{classify, eject};
use std::sync::Arc;

/// A request that asks for more steps than this at one moment is in a loop.
const STEPS: u32 = 64;

/// A request on its way.
pub(super) struct Request {
    attempt: Attempt,
    route: RouteIx,
    load: usize,
    started: Moment,
    kind: Kind,
    tries: u32,
    pub(super) version: u32,
    /// The last picture of its own config, once there is a newer config.
    pub(super) view: Option<Arc<View>>,
    flying: Vec<u64>,
    failed: Vec<PoolIx>,
    /// Pools whose answers were not believed.
    zeros: Vec<PoolIx>,
}

/// An attempt on its way.
pub(super) struct Flying {
    pub(super) request: u32,
    pub(super) flight: board::Flight,
    pub(super) plan: Try,
    epoch: u32,
    timeout_at: Moment,
    pub(super) sent: Sent,
    /// Its request was answered by this pool: nobody waits for it any more (`edge/linger.rs`).
    lost_to: Option<PoolIx>,
}

impl<W: Witness> World<'_, W> {
    pub(super) fn ask(&mut self, load: usize, kind: Kind, tries: u32) {
        let Kind { safe, poison, .. } = kind;
        let route = self.script.loads[load].route;
        let request = self.asked;
        self.asked += 1;
        self.board.arrived(route);
        self.trace.note(self.now, Note::Asked { request, route, safe, poison });
        let priority = self.view.topology().routes[route.at()].priority;
        let facts = Facts { route, safe, keyed: false, upgrade: false, started: self.now, priority };
        let attempt = Attempt::new(facts, &self.view);
        let (started, version) = (self.now, 0);
        let r = Request { attempt, route, load, started, kind, tries, version, view: None, flying: vec![], failed: vec![], zeros: vec![] };
        self.requests.insert(request, r);
        self.drive(request);
    }

    /// Ask the machine what to do until it says wait, or it is over.
    pub(super) fn drive(&mut self, request: u32) {
        for _ in 0..STEPS {
            let Some(r) = self.requests.get_mut(&request) else { return };
            let view = r.view.clone().unwrap_or_else(|| self.view.clone());
            match r.attempt.step(self.now, &view, &self.board, &mut self.edge_dice) {
                Step::Try(plan) => self.attempt(request, plan, &view),
                Step::Stop(id) => {
                    let ticket = r.flying.iter().copied().find(|t| self.flying[t].plan.id == id);
                    let Some(ticket) = ticket else { panic!("request {request} stops attempt {id}, which does not run") };
                    let sent = self.drop_flight(ticket);
                    let r = self.requests.get_mut(&request).expect("it is there");
                    r.attempt.ended(id, Outcome::Cancelled, sent, self.now);
                }
                Step::Wait(until) => {
                    assert!(until > self.now, "request {request} waits until {until:?}, which is not in the future ({:?})", self.now);
                    r.version += 1;
                    let version = r.version;
                    return self.push(until, Next::Wake { request, version });
                }
                Step::GiveUp(why) => {
                    // What had more time than it normally needs has failed; the rest was merely cut short.
                    for ticket in r.flying.clone() {
                        let overdue = self.now >= self.flying[&ticket].plan.overdue_at;
                        self.land(ticket, if overdue { Outcome::Timeout } else { Outcome::Cancelled });
                    }
                    return self.finish(request, Fate::Degraded(why), None);
                }
            }
        }
        panic!("request {request} takes {STEPS} steps at one moment");
    }

    fn attempt(&mut self, request: u32, plan: Try, view: &View) {
        let r = self.requests.get_mut(&request).expect("it is there");
        self.tickets += 1;
        let ticket = self.tickets;
        let facts = *r.attempt.facts();
        r.flying.push(ticket);
        let t = view.topology();
        let inflight = self.board.pool_inflight(plan.pool);
        let note = Note::Try {
            request,
            route: r.route,
            id: plan.id,
            pool: plan.pool,
            endpoint: plan.endpoint,
            safe: facts.safe,
            trial: plan.trial,
            hedge: plan.hedge,
            inflight,
            generation: view.config.generation,
        };
        self.trace.note(self.now, note);
        let (poison, epoch) = (r.kind.poison, view.pools[plan.pool.at()].epoch);
        let flight = self.board.begin(r.route, plan.endpoint, self.now, plan.trial);
        let connect_timeout = t.services[t.pools[plan.pool.at()].service.at()].connect_timeout;
        let timeout_at = self.now + plan.timeout;
        let job = Job { ticket, write: !facts.safe, request };
        let mut sent = Sent::Nothing;
        match self.plant.contact(plan.endpoint, epoch, connect_timeout) {
            Contact::Arrives(after, reused) => {
                if reused {
                    sent = Sent::Complete;
                }
                self.push(self.now + after, Next::Arrive { endpoint: plan.endpoint, job, poison });
            }
            Contact::Fails(after, outcome, sent) => self.push(self.now + after, Next::Fails { ticket, outcome, sent }),
            Contact::Lost => sent = Sent::Complete,
        }
        self.flying.insert(ticket, Flying { request, flight, plan, epoch, timeout_at, sent, lost_to: None });
        self.push(plan.overdue_at.min(timeout_at), Next::Mark { ticket });
    }

    /// One of an attempt's three times has come.
    pub(super) fn mark(&mut self, ticket: u64) {
        let Some(f) = self.flying.get_mut(&ticket) else { return };
        if self.now >= f.timeout_at {
            let sent = f.sent;
            return self.failed(ticket, if sent == Sent::Nothing { Outcome::Connect } else { Outcome::Timeout }, sent);
        }
        if self.now >= f.plan.overdue_at {
            self.board.overdue(&mut f.flight);
        }
        if self.now >= f.plan.late_at {
            self.board.late(&mut f.flight);
        }
        let times = [f.plan.overdue_at, f.plan.late_at, f.timeout_at];
        let next = times.into_iter().filter(|m| *m > self.now).min().expect("its timeout has not come");
        self.push(next, Next::Mark { ticket });
    }

    pub(super) fn answered(&mut self, ticket: u64, status: u16, zeros: bool) {
        let Some(f) = self.flying.get_mut(&ticket) else { return };
        let (request, epoch, pool, endpoint) = (f.request, f.epoch, f.plan.pool, f.plan.endpoint);
        self.board.first_byte(&mut f.flight, self.now);
        self.plant.checkin(endpoint, epoch);
        if self.flying[&ticket].lost_to.is_some() {
            return self.land(ticket, if status < 500 { Outcome::Ok } else { Outcome::Status(status) });
        }
        let r = &self.requests[&request];
        let view = r.view.clone().unwrap_or_else(|| self.view.clone());
        let mut outcome = classify::status(status, false, &view.topology().routes[r.route.at()]);
        if zeros && outcome == Outcome::Ok && self.disbelieved(request, pool, &view) {
            outcome = Outcome::Guard;
            self.requests.get_mut(&request).expect("it is there").zeros.push(pool);
        }
        let r = &self.requests[&request];
        let accepted = match outcome {
            Outcome::Guard => false,
            Outcome::Status(_) | Outcome::Overload(503) if self.has_copy(request, true) => false,
            _ => r.attempt.accepts(&view, outcome),
        };
        if !accepted {
            return self.failed(ticket, outcome, Sent::Complete);
        }
        self.land(ticket, outcome);
        self.finish(request, if zeros { Fate::Wrong } else { Fate::Answered(outcome) }, Some(pool));
    }

    /// Whether nonsense is known for what it is: the route is guarded, the last good answer is at hand, and no other region
    /// said the same.
    fn disbelieved(&self, request: u32, pool: PoolIx, view: &View) -> bool {
        let (r, t) = (&self.requests[&request], view.topology());
        let region = |p: PoolIx| t.pools[p.at()].region;
        let known = self.copies[r.load].get(r.kind.key as usize).copied().unwrap_or_default();
        r.kind.safe && known && !t.routes[r.route.at()].guards.is_empty() && r.zeros.iter().all(|p| region(*p) == region(pool))
    }

    /// Whether the last good copy may be served; `first`: before a failing answer, for which it must stand first.
    fn has_copy(&self, request: u32, first: bool) -> bool {
        let r = &self.requests[&request];
        let ways = &self.view.topology().routes[r.route.at()].degrade;
        let stale = |d: &Degrade| matches!(d, Degrade::Stale(_));
        let known = self.copies[r.load].get(r.kind.key as usize).copied().unwrap_or_default();
        known && r.kind.safe && if first { ways.first().is_some_and(stale) } else { ways.iter().any(stale) || !r.zeros.is_empty() }
    }

    pub(super) fn failed(&mut self, ticket: u64, outcome: Outcome, sent: Sent) {
        let Some(f) = self.flying.get(&ticket) else { return };
        let (request, id, pool) = (f.request, f.plan.id, f.plan.pool);
        if let Some(winner) = f.lost_to {
            let region = |p: PoolIx| self.config.topology.pools[p.at()].region;
            if region(winner) != region(pool) {
                self.board.contradicted(pool);
            }
            return self.land(ticket, outcome);
        }
        self.land(ticket, outcome);
        let r = self.requests.get_mut(&request).expect("an attempt ends before its request");
        r.attempt.ended(id, outcome, sent, self.now);
        self.drive(request);
    }

    /// An attempt ended: the board is told, and the endpoint judged.
    fn land(&mut self, ticket: u64, outcome: Outcome) {
        let f = self.flying.remove(&ticket).expect("it flies");
        let (pool, endpoint, id, request) = (f.plan.pool, f.plan.endpoint, f.plan.id, f.request);
        self.trace.note(self.now, Note::Ended { request, id, pool, outcome });
        let mut request = self.requests.get_mut(&request).filter(|_| f.lost_to.is_none());
        if let Some(r) = &mut request {
            r.flying.retain(|t| *t != ticket);
        }
        let (failures, hard) = self.board.end(f.flight, self.now, outcome);
        if !outcome.is_failure() {
            return;
        }
        if let Some(r) = request {
            r.failed.push(pool);
        }
        let t = &self.config.topology;
        let (p, ejections) = (&t.pools[pool.at()], self.board.ejections(endpoint));
        let failover = &t.services[p.service.at()].failover;
        if let Some(out) = eject::judge(failures, hard, failover, p, &self.board, ejections, self.now, &mut self.edge_dice) {
            self.board.eject(endpoint, self.now, self.now + out, hard);
        }
    }

    fn drop_flight(&mut self, ticket: u64) -> Sent {
        let sent = self.flying[&ticket].sent;
        self.land(ticket, Outcome::Cancelled);
        sent
    }

    fn finish(&mut self, request: u32, fate: Fate, from: Option<PoolIx>) {
        for ticket in self.requests[&request].flying.clone() {
            match from {
                Some(_) => self.flying.get_mut(&ticket).expect("it flies").lost_to = from,
                None => drop(self.drop_flight(ticket)),
            }
        }
        let copy = matches!(fate, Fate::Degraded(_)) && self.has_copy(request, false);
        let r = self.requests.remove(&request).expect("it is there");
        let fate = if copy { Fate::Copy } else { fate };
        // Whether the pools or the request were at fault.
        let region = |p: &PoolIx| self.config.topology.pools[p.at()].region;
        let good = from.filter(|_| fate.good()).map(|p| region(&p));
        for p in &r.failed {
            match good {
                Some(good) if good != region(p) => self.board.contradicted(*p),
                None if r.failed.iter().any(|q| region(q) != region(p)) => self.board.confirmed(*p),
                _ => {}
            }
        }
        for p in r.zeros.iter().filter(|p| good.is_none_or(|good| good != region(p))) {
            self.board.implausible(*p, r.kind.key.into());
        }
        if fate.good()
            && r.kind.safe
            && let Some(kept) = self.copies[r.load].get_mut(r.kind.key as usize)
        {
            *kept = true;
        }
        let took = self.now.since(r.started);
        self.trace.note(self.now, Note::Done { request, route: r.route, safe: r.kind.safe, fate, took });
        if !fate.good() {
            self.calm_since = self.now;
        }
        let load = &self.script.loads[r.load];
        let unhappy = !matches!(fate, Fate::Answered(Outcome::Ok) | Fate::Copy | Fate::Wrong);
        if unhappy && r.tries < load.resend && self.now < self.end {
            let (load, kind, tries, after) = (r.load, r.kind, r.tries + 1, load.resend_after);
            self.push(self.now + after, Next::Again { load, kind, tries });
        }
    }
}
