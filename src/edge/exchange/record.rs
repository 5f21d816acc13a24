//! What is counted about a request, and what its failures say about pools and endpoints.

use super::super::access;
use super::super::connection::Guest;
use super::super::message::Ids;
use super::super::replay::Became;
use super::super::worker::Worker;
use super::{Exchange, Told};
use crate::clock;
use crate::http1::RequestHead;
use crate::live::{Flight, Picture};
use crate::model::id::PoolIx;
use crate::model::outcome::Outcome;
use crate::model::time::Moment;
use crate::steer::attempt::Try;
use crate::steer::eject;
use crate::steer::fallback::Refusal;
use std::sync::Arc;

/// An attempt has ended: the gauges are told, and a failure may take its endpoint out at once.
pub(in super::super) fn land(worker: &Worker, picture: &Picture, plan: &Try, flight: Flight<'_>, outcome: Outcome, now: Moment) {
    let streak = flight.end(now, outcome);
    // An item may be odd, and an endpoint be asked for it again and again: only the detector, which counts keys, judges that.
    if !outcome.is_failure() || outcome == Outcome::Guard {
        return;
    }
    let topology = picture.view.topology();
    let (pool, cells) = (&topology.pools[plan.pool.at()], &*picture.cells);
    let (failover, endpoint) = (&topology.services[pool.service.at()].failover, cells.endpoint(plan.endpoint));
    let dice = &mut worker.dice.borrow_mut();
    if let Some(out) = eject::judge(streak.failures, streak.hard, failover, pool, cells, endpoint.ejections(), now, dice) {
        endpoint.eject(now, now + out, streak.hard);
    }
}

impl<'p> Exchange<'p> {
    /// Record how an attempt ended; a failure may take its endpoint out at once.
    pub(super) fn landed(&mut self, plan: Try, flight: Flight<'p>, outcome: Outcome, now: Moment) {
        if plan.hedge {
            self.picture.cells.service(self.route.service).hedged(false);
        }
        if let Some(trace) = &mut self.trace {
            trace.ended(plan.id, outcome, now);
        }
        land(self.worker, self.picture, &plan, flight, outcome, now);
        if outcome.is_failure() {
            self.failed.push(plan.pool);
        }
    }

    /// Count the request, and say of its failed attempts whether the pool or the request was at fault.
    pub(super) fn settle(&mut self, told: &Told) {
        self.judge_unsure(told);
        let (topology, cells, now) = (self.picture.view.topology(), &*self.picture.cells, clock::now());
        match &self.guest.replay {
            None => {
                cells.route(self.index).finished(told.outcome, now.since(self.machine.facts().started));
                if told.why == Some(Refusal::UnknownOutcome.reason()) {
                    cells.route(self.index).doubt();
                }
            }
            Some(note) => {
                note.set(Some(Became { status: told.status, outcome: told.outcome, answered: told.answered_by.is_some(), why: told.why }))
            }
        }
        let region = |p: PoolIx| topology.pools[p.at()].region;
        let good = told.answered_by.filter(|_| told.status < 500).map(|plan| region(plan.pool));
        let truth = self.truth.as_deref();
        for (i, pool) in self.failed.iter().enumerate() {
            if let Some(truth) = truth {
                truth.settle(cells, *pool, good);
            }
            match good {
                Some(_) if truth.is_some_and(|t| t.agreed(*pool)) => cells.confirmed(*pool),
                Some(good) if good != region(*pool) => cells.contradicted(*pool),
                Some(_) => {}
                None => {
                    let elsewhere = |(j, other): (usize, &PoolIx)| j != i && region(*other) != region(*pool);
                    if self.failed.iter().enumerate().any(elsewhere) {
                        cells.confirmed(*pool);
                    }
                }
            }
        }
        if self.guest.replay.is_none() {
            access::finished(self, told, now);
        }
        if let Some(trace) = self.trace.take() {
            let answered_by = told.answered_by.map(|plan| plan.id);
            let record = access::record(self, told, now);
            self.worker.traces.put(trace.finish(self.request, self.guest.https, answered_by, record, now));
        }
    }

    /// A recorded request makes an attempt.
    pub(super) fn trace_began(&mut self, plan: &Try, now: Moment) {
        let Some(trace) = &mut self.trace else { return };
        let t = self.picture.view.topology();
        let pool = &t.pools[plan.pool.at()];
        let names = [&t.services[pool.service.at()].name, &t.regions[pool.region.at()].name, &t.endpoints[plan.endpoint.at()].name];
        trace.began(plan.id, now, plan.hedge, names, &mut self.worker.dice.borrow_mut());
    }

    /// Answers that only lacked something to be compared with: another region's answer says whether they were wrong.
    fn judge_unsure(&mut self, told: &Told) {
        if self.unsure.is_empty() {
            return;
        }
        let now = clock::now();
        for (plan, flight) in std::mem::take(&mut self.unsure) {
            let region = |pool: PoolIx| self.picture.view.topology().pools[pool.at()].region;
            let elsewhere = told.answered_by.is_some_and(|by| told.status < 500 && region(by.pool) != region(plan.pool));
            let agreed = self.truth.as_ref().is_some_and(|t| t.agreed(plan.pool));
            self.landed(plan, flight, if elsewhere && !agreed { Outcome::Guard } else { Outcome::Ok }, now);
        }
    }

    /// What the access log wants to know, beside [`Told`].
    pub(in super::super) fn parties(&self) -> (&Worker, &Guest, &RequestHead, &Picture) {
        (self.worker, self.guest, self.request, self.picture)
    }
    pub(in super::super) fn tallies(&self) -> (Moment, u8, &Ids) {
        (self.began, self.attempts, &self.ids)
    }
    /// `Evenkeel-Region`, where the operator wants it shown.
    pub(super) fn shown_region(&self, plan: Try) -> Option<Arc<str>> {
        let topology = self.picture.view.topology();
        topology.edge.expose_region.then(|| topology.regions[topology.pools[plan.pool.at()].region.at()].name.clone())
    }
}
