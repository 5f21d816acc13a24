//! The event loop: virtual time, one queue, one dice.
//!
//! The edge's part follows `edge/exchange.rs` and `control.rs` step by step, without bytes: ask the attempt machine, do what it
//! says, tell the board and the machine what came of it; tick every 10 ms, every tenth tick a full one. While the edge is
//! stalled its events wait and are handled late, in order, as a process that got no CPU would.

use super::board::{self, Board};
use super::plant::{Contact, Finished, Job, Plant, Reception};
use super::script::{Fault, Script, What};
use super::trace::{Fate, Note, Trace};
use crate::model::dice::Dice;
use crate::model::event::Actor;
use crate::model::id::*;
use crate::model::outcome::{Outcome, Sent};
use crate::model::signal::{Probe, ProbeVerdict, Signal};
use crate::model::time::{Duration, Moment};
use crate::model::view::{Compiled, Facts, Live, View};
use crate::sense::{Controller, EndpointOrder};
use crate::steer::attempt::{Attempt, Step, Try};
use crate::steer::{classify, eject};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

/// How often the pools are looked at; every [`FULL`]th time everything is.
const TICK: Duration = Duration::from_millis(10);
const FULL: u64 = 10;
/// A request that asks for more steps than this at one moment is in a loop.
const STEPS: u32 = 64;
/// When a world begins (zero means never).
pub const BEGIN: Moment = Moment::ms(1000);

/// Play a script to its end.
pub fn play(script: &Script) -> Trace {
    World::new(script).run()
}

/// What happens next. The edge's own events wait while it is stalled; those of servers and of the script do not.
#[derive(Debug)]
enum Next {
    Ask { load: usize },
    Again { load: usize, safe: bool, poison: bool, tries: u32 },
    Wake { request: u32, version: u32 },
    Mark { ticket: u64 },
    Fails { ticket: u64, outcome: Outcome, sent: Sent },
    Answer { ticket: u64, status: u16 },
    Tick { n: u64 },
    ProbeBack { endpoint: EndpointIx, verdict: ProbeVerdict, took: Duration },
    Order { n: usize },
    Reload { n: usize },
    // From here on: not the edge's.
    Arrive { endpoint: EndpointIx, job: Job, poison: bool },
    Served { endpoint: EndpointIx, job: Job },
    Probe { endpoint: EndpointIx },
    Fault { n: usize, begins: bool },
}

impl Next {
    fn is_edges(&self) -> bool {
        !matches!(self, Self::Arrive { .. } | Self::Served { .. } | Self::Probe { .. } | Self::Fault { .. })
    }
}

#[derive(Debug)]
struct Due {
    at: Moment,
    seq: u64,
    next: Next,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.seq) == (other.at, other.seq)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.seq).cmp(&(other.at, other.seq))
    }
}

/// A request on its way.
struct Request {
    attempt: Attempt,
    route: RouteIx,
    load: usize,
    started: Moment,
    poison: bool,
    tries: u32,
    version: u32,
    /// The last picture of its own config, once there is a newer config.
    view: Option<Arc<View>>,
    flying: Vec<u64>,
    failed: Vec<PoolIx>,
}

/// An attempt on its way.
struct Flying {
    request: u32,
    flight: board::Flight,
    plan: Try,
    epoch: u32,
    timeout_at: Moment,
    sent: Sent,
    /// Its request was answered by this pool: nobody waits for it any more (`edge/linger.rs`).
    lost_to: Option<PoolIx>,
}

struct World<'s> {
    script: &'s Script,
    now: Moment,
    queue: BinaryHeap<Reverse<Due>>,
    seq: u64,
    dice: Dice,
    edge_dice: Dice,
    plant: Plant,
    board: Board,
    controller: Controller,
    config: Arc<Compiled>,
    view: Arc<View>,
    requests: BTreeMap<u32, Request>,
    flying: BTreeMap<u64, Flying>,
    asked: u32,
    tickets: u64,
    active: Vec<(Fault, Moment)>,
    stalled_until: Moment,
    end: Moment,
    trace: Trace,
}

impl<'s> World<'s> {
    fn new(script: &'s Script) -> Self {
        let mut dice = Dice::new(script.seed);
        let (edge_dice, config) = (dice.split(), script.config.clone());
        let controller = Controller::new(config.clone(), BEGIN, dice.split());
        let mut w = Self {
            script,
            now: BEGIN,
            queue: BinaryHeap::new(),
            seq: 0,
            plant: Plant::new(&config.topology, &script.sites),
            board: Board::new(&config.topology),
            view: controller.picture(),
            controller,
            config,
            requests: BTreeMap::new(),
            flying: BTreeMap::new(),
            asked: 0,
            tickets: 0,
            active: Vec::new(),
            stalled_until: Moment::ZERO,
            end: BEGIN + script.length,
            trace: Trace::default(),
            dice,
            edge_dice,
        };
        w.trace.note(w.now, Note::View(w.view.clone()));
        w.after();
        for (n, f) in script.faults.iter().enumerate() {
            w.push(BEGIN + f.at, Next::Fault { n, begins: true });
            w.push(BEGIN + f.at + f.lasting, Next::Fault { n, begins: false });
        }
        for (n, (at, _)) in script.orders.iter().enumerate() {
            w.push(BEGIN + *at, Next::Order { n });
        }
        for (n, (at, _)) in script.reloads.iter().enumerate() {
            w.push(BEGIN + *at, Next::Reload { n });
        }
        for load in 0..script.loads.len() {
            w.ask_later(load);
        }
        for e in 0..w.config.topology.endpoints.len() {
            w.probe_later(e.into(), true);
        }
        w.push(BEGIN + TICK, Next::Tick { n: 1 });
        w
    }

    fn run(mut self) -> Trace {
        while let Some(Reverse(Due { at, seq, next })) = self.queue.pop() {
            if at < self.stalled_until && next.is_edges() {
                // It keeps its number, and so its place among those that waited with it.
                self.queue.push(Reverse(Due { at: self.stalled_until, seq, next }));
                continue;
            }
            if at > self.end && self.requests.is_empty() && self.flying.is_empty() {
                break;
            }
            self.now = at;
            self.handle(next);
        }
        let left: u32 = (0..self.config.topology.pools.len()).map(|p| self.board.pool_inflight(p.into())).sum();
        assert_eq!((left, self.flying.len()), (0, 0), "gauges return to zero when everything has ended");
        self.trace
    }

    fn push(&mut self, at: Moment, next: Next) {
        self.seq += 1;
        self.queue.push(Reverse(Due { at: at.max(self.now), seq: self.seq, next }));
    }

    fn handle(&mut self, next: Next) {
        match next {
            Next::Ask { load } => {
                let l = &self.script.loads[load];
                let (safe, poison) = (!self.dice.chance(l.writes), self.dice.chance(l.poison.max(self.poison())));
                self.ask_later(load);
                self.ask(load, safe, poison, 0);
            }
            Next::Again { load, safe, poison, tries } => self.ask(load, safe, poison, tries),
            Next::Wake { request, version } => {
                if self.requests.get(&request).is_some_and(|r| r.version == version) {
                    self.drive(request);
                }
            }
            Next::Mark { ticket } => self.mark(ticket),
            Next::Fails { ticket, outcome, sent } => self.failed(ticket, outcome, sent),
            Next::Answer { ticket, status } => self.answered(ticket, status),
            Next::Tick { n } => self.tick(n),
            Next::ProbeBack { endpoint, verdict, took } => {
                self.trace.note(self.now, Note::Probe { endpoint, verdict: verdict.clone() });
                let generation = self.config.generation;
                self.tell(Signal::Probe(Probe { generation, endpoint, verdict, took }));
            }
            Next::Order { n } => {
                let script = self.script;
                self.tell(Signal::Command(Script::command(&script.orders[n].1)));
            }
            Next::Reload { n } => {
                for r in self.requests.values_mut() {
                    r.view.get_or_insert_with(|| self.view.clone());
                }
                self.config = self.script.reloads[n].1.clone();
                self.tell(Signal::Reload(self.config.clone(), Actor::File));
            }
            Next::Arrive { endpoint, job, poison } => self.arrive(endpoint, job, poison),
            Next::Served { endpoint, job } => self.served(endpoint, job),
            Next::Probe { endpoint } => {
                let service = self.config.topology.pools[self.config.topology.endpoints[endpoint.at()].pool.at()].service;
                let Some(health) = &self.config.topology.services[service.at()].health else { return };
                let (verdict, took) = self.plant.probe(endpoint, health.timeout, self.now, &mut self.dice);
                self.push(self.now + took, Next::ProbeBack { endpoint, verdict, took });
                self.probe_later(endpoint, false);
            }
            Next::Fault { n, begins } => self.fault(n, begins),
        }
    }

    // Load and faults.

    fn factor(&self, of: impl Fn(What) -> Option<f64>) -> f64 {
        self.active.iter().filter_map(|(f, _)| of(f.what)).fold(1.0, |a, b| a * b)
    }
    fn poison(&self) -> f64 {
        1.0 - self.factor(|w| if let What::Poison(p) = w { Some(1.0 - p) } else { None })
    }
    fn ask_later(&mut self, load: usize) {
        let rate = self.script.loads[load].rate * self.factor(|w| if let What::Burst(f) = w { Some(f) } else { None });
        let gap = Duration::from_secs_f64(-(1.0 - self.dice.unit()).ln() / rate.max(1e-3));
        if self.now + gap < self.end {
            self.push(self.now + gap, Next::Ask { load });
        }
    }
    fn probe_later(&mut self, endpoint: EndpointIx, first: bool) {
        let t = &self.config.topology;
        let Some(health) = &t.services[t.pools[t.endpoints[endpoint.at()].pool.at()].service.at()].health else { return };
        let part = if first { self.dice.unit() } else { 0.9 + 0.2 * self.dice.unit() };
        let gap = health.interval.mul_f64(part);
        self.push(self.now + gap, Next::Probe { endpoint });
    }
    fn fault(&mut self, n: usize, begins: bool) {
        let fault = self.script.faults[n].clone();
        self.trace.note(self.now, Note::Fault(n, begins));
        let until = self.now + fault.lasting;
        if begins {
            self.active.push((fault.clone(), until));
        } else if let Some(at) = self.active.iter().position(|(f, _)| *f == fault) {
            self.active.remove(at);
        }
        if begins && fault.what == What::EdgeStalls {
            self.stalled_until = self.stalled_until.max(until);
        }
        for ticket in self.plant.turn(&fault, begins, &self.active) {
            if let Some(f) = self.flying.get(&ticket) {
                let back = self.plant.wire(f.plan.endpoint);
                self.push(self.now + back, Next::Fails { ticket, outcome: Outcome::Reset, sent: Sent::Complete });
            }
        }
    }

    // Servers.

    fn arrive(&mut self, endpoint: EndpointIx, job: Job, poison: bool) {
        if let Some(f) = self.flying.get_mut(&job.ticket) {
            f.sent = Sent::Complete;
        }
        match self.plant.receive(endpoint, job, poison, self.now, &mut self.dice) {
            Reception::Said(status, after) => {
                let back = self.plant.wire(endpoint);
                self.push(self.now + after + back, Next::Answer { ticket: job.ticket, status });
            }
            Reception::Ignored | Reception::Queued => {}
            Reception::Started(end) => self.push(end, Next::Served { endpoint, job }),
        }
    }
    fn served(&mut self, endpoint: EndpointIx, job: Job) {
        match self.plant.done(endpoint, job, self.now, &mut self.dice) {
            Err(later) => self.push(later, Next::Served { endpoint, job }),
            Ok(Finished { served, heard, next }) => {
                if job.write && served {
                    let pool = self.config.topology.endpoints[endpoint.at()].pool;
                    self.trace.note(self.now, Note::Applied { request: job.request, pool });
                }
                if heard {
                    let back = self.plant.wire(endpoint);
                    self.push(self.now + back, Next::Answer { ticket: job.ticket, status: 200 });
                }
                if let Some((job, end)) = next {
                    self.push(end, Next::Served { endpoint, job });
                }
            }
        }
    }

    // The control side.

    fn tick(&mut self, n: u64) {
        let late = self.now.since(BEGIN + TICK * n as u32);
        let tallies = self.board.sample(self.now, n.is_multiple_of(FULL), late);
        if !late.is_zero() {
            self.trace.note(self.now, Note::Tick(Arc::new(tallies.clone())));
        }
        self.tell(Signal::Tick(tallies));
        // Missed ticks are not made up for.
        let n = n.max(self.now.since(BEGIN).as_micros() as u64 / TICK.as_micros() as u64) + 1;
        self.push(BEGIN + TICK * n as u32, Next::Tick { n });
    }
    fn tell(&mut self, signal: Signal) {
        if let Err(why) = self.controller.handle(self.now, signal) {
            self.trace.note(self.now, Note::Refused(format!("{why:?}")));
        }
        self.after();
    }
    fn after(&mut self) {
        let g = self.controller.grants();
        for (i, a) in g.retry.iter().enumerate() {
            self.board.grant_retries(i.into(), a.add, a.cap);
        }
        for (i, a) in g.hedge.iter().enumerate() {
            self.board.grant_hedges(i.into(), a.add, a.cap);
        }
        for (i, a) in g.trial.iter().enumerate() {
            self.board.grant_trials(i.into(), a.add, a.cap);
        }
        for order in self.controller.orders_for_endpoints() {
            match order {
                EndpointOrder::ProbeDown(e, down) => self.board.set_probe_down(e, down),
                EndpointOrder::Restore(e) => self.board.restore(e),
            }
        }
        while let Some(event) = self.controller.poll_event() {
            self.trace.note(self.now, Note::Event(event));
        }
        if let Some(view) = self.controller.view() {
            self.trace.note(self.now, Note::View(view.clone()));
            self.view = view;
        }
    }

    // Requests.

    fn ask(&mut self, load: usize, safe: bool, poison: bool, tries: u32) {
        let route = self.script.loads[load].route;
        let request = self.asked;
        self.asked += 1;
        self.board.arrived(route);
        self.trace.note(self.now, Note::Asked { request, route, safe, poison });
        let priority = self.view.topology().routes[route.at()].priority;
        let facts = Facts { route, safe, keyed: false, upgrade: false, started: self.now, priority };
        let attempt = Attempt::new(facts, &self.view);
        let (started, version) = (self.now, 0);
        let r = Request { attempt, route, load, started, poison, tries, version, view: None, flying: vec![], failed: vec![] };
        self.requests.insert(request, r);
        self.drive(request);
    }

    /// Ask the machine what to do until it says wait, or it is over.
    fn drive(&mut self, request: u32) {
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
        let (poison, epoch) = (r.poison, view.pools[plan.pool.at()].epoch);
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
    fn mark(&mut self, ticket: u64) {
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

    fn answered(&mut self, ticket: u64, status: u16) {
        let Some(f) = self.flying.get_mut(&ticket) else { return };
        let (request, epoch, pool, endpoint) = (f.request, f.epoch, f.plan.pool, f.plan.endpoint);
        self.board.first_byte(&mut f.flight, self.now);
        self.plant.checkin(endpoint, epoch);
        if self.flying[&ticket].lost_to.is_some() {
            return self.land(ticket, if status < 500 { Outcome::Ok } else { Outcome::Status(status) });
        }
        let r = &self.requests[&request];
        let view = r.view.as_ref().unwrap_or(&self.view);
        let outcome = classify::status(status, false, &view.topology().routes[r.route.at()]);
        if !r.attempt.accepts(view, outcome) {
            return self.failed(ticket, outcome, Sent::Complete);
        }
        self.land(ticket, outcome);
        self.finish(request, Fate::Answered(outcome), Some(pool));
    }

    fn failed(&mut self, ticket: u64, outcome: Outcome, sent: Sent) {
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
        let r = self.requests.remove(&request).expect("it is there");
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
        let took = self.now.since(r.started);
        self.trace.note(self.now, Note::Done { request, route: r.route, fate, took });
        let load = &self.script.loads[r.load];
        if !fate.good() && r.tries < load.resend && self.now < self.end {
            let (safe, poison, tries) = (r.attempt.facts().safe, r.poison, r.tries + 1);
            let after = load.resend_after;
            self.push(self.now + after, Next::Again { load: r.load, safe, poison, tries });
        }
    }
}
