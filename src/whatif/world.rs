//! The event loop: virtual time, one queue, one dice.
//!
//! The edge's part follows `edge/exchange.rs` and `control.rs` step by step, without bytes: ask the attempt machine, do what it
//! says, tell the board and the machine what came of it; tick every 10 ms, every tenth tick a full one. While the edge is
//! stalled its events wait and are handled late, in order, as a process that got no CPU would.
//!
//! Calm can be leapt over ([`Script::leap`]): everything of the script that is still to come moves nearer, and the witness
//! is told. Nobody inside the world notices: no timer sees a gap.

mod requests;

use self::requests::{Flying, Request};
use super::board::Board;
use super::plant::{Finished, Job, Plant, Reception};
use super::script::{Fault, Script, What};
use super::trace::{Gauge, Note, Trace, Witness};
use crate::model::dice::Dice;
use crate::model::event::Actor;
use crate::model::id::*;
use crate::model::outcome::{Outcome, Sent};
use crate::model::signal::{Probe, ProbeVerdict, Signal};
use crate::model::time::{Duration, Moment};
use crate::model::view::{Compiled, Live, PoolView, State, View};
use crate::sense::{Controller, EndpointOrder};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

/// How often the pools are looked at; every [`FULL`]th time everything is.
const TICK: Duration = Duration::from_millis(10);
const FULL: u64 = 10;
/// Every so many ticks the witness gets the gauges.
const GAUGES: u64 = 100;
/// Calm has to last so long before it is leapt over, and so much of it is left before the next thing that happens.
pub const DWELL: Duration = Duration::from_secs(20);
/// When a world begins (zero means never).
pub const BEGIN: Moment = Moment::ms(1000);

/// Play a script to its end.
pub fn play(script: &Script) -> Trace {
    watch(script, Trace::default())
}

/// Play a script to its end, and tell this witness.
pub fn watch<W: Witness>(script: &Script, witness: W) -> W {
    World::new(script, witness).run()
}

/// What happens next. The edge's own events wait while it is stalled; those of servers and of the script do not.
#[derive(Debug)]
enum Next {
    Ask { load: usize },
    Again { load: usize, kind: Kind, tries: u32 },
    Wake { request: u32, version: u32 },
    Mark { ticket: u64 },
    Fails { ticket: u64, outcome: Outcome, sent: Sent },
    Answer { ticket: u64, status: u16, zeros: bool },
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

/// What a request is, whoever sends it again.
#[derive(Clone, Copy, Debug)]
struct Kind {
    safe: bool,
    poison: bool,
    key: u32,
}

impl Next {
    /// Due at a time of the script.
    fn is_scripts(&self) -> bool {
        matches!(self, Self::Fault { .. } | Self::Order { .. } | Self::Reload { .. })
    }
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

struct World<'s, W> {
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
    /// By load, then by key: whether there is a last good copy.
    copies: Vec<Vec<bool>>,
    leapt: Duration,
    calm_since: Moment,
    trace: W,
}

impl<'s, W: Witness> World<'s, W> {
    fn new(script: &'s Script, witness: W) -> Self {
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
            copies: script.loads.iter().map(|l| vec![false; l.keys as usize]).collect(),
            leapt: Duration::ZERO,
            calm_since: BEGIN,
            trace: witness,
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

    fn run(mut self) -> W {
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
                let key = if l.keys > 0 { self.dice.below(l.keys.into()) as u32 } else { 0 };
                self.ask_later(load);
                self.ask(load, Kind { safe, poison, key }, 0);
            }
            Next::Again { load, kind, tries } => self.ask(load, kind, tries),
            Next::Wake { request, version } => {
                if self.requests.get(&request).is_some_and(|r| r.version == version) {
                    self.drive(request);
                }
            }
            Next::Mark { ticket } => self.mark(ticket),
            Next::Fails { ticket, outcome, sent } => self.failed(ticket, outcome, sent),
            Next::Answer { ticket, status, zeros } => self.answered(ticket, status, zeros),
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
        let rate = rate * self.script.factor(self.now.since(BEGIN) + self.leapt);
        let gaps = if self.script.loads[load].even { 1.0 } else { -(1.0 - self.dice.unit()).ln() };
        let gap = Duration::from_secs_f64(gaps / rate.max(1e-3));
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
                self.push(self.now + after + back, Next::Answer { ticket: job.ticket, status, zeros: false });
            }
            Reception::Ignored | Reception::Queued => {}
            Reception::Started(end) => self.push(end, Next::Served { endpoint, job }),
        }
    }
    fn served(&mut self, endpoint: EndpointIx, job: Job) {
        match self.plant.done(endpoint, job, self.now, &mut self.dice) {
            Err(later) => self.push(later, Next::Served { endpoint, job }),
            Ok(Finished { served, heard, zeros, next }) => {
                if job.write && served {
                    let pool = self.config.topology.endpoints[endpoint.at()].pool;
                    self.trace.note(self.now, Note::Applied { request: job.request, pool });
                }
                if heard {
                    let back = self.plant.wire(endpoint);
                    self.push(self.now + back, Next::Answer { ticket: job.ticket, status: 200, zeros });
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
        if W::GAUGES && n.is_multiple_of(GAUGES) {
            let gauges = self.gauges();
            self.trace.note(self.now, Note::Gauges(gauges));
        }
        if n.is_multiple_of(GAUGES) {
            self.leap();
        }
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

    fn gauges(&self) -> Vec<Gauge> {
        let gauge = |(i, p): (usize, &PoolView)| {
            let servers = self.plant.load(i.into(), self.now);
            let inflight = self.board.pool_inflight(i.into());
            Gauge { state: p.state, share: p.share, limit: p.limit, inflight, queued: servers.queued, wait: servers.wait }
        };
        self.view.pools.iter().enumerate().map(gauge).collect()
    }

    /// Where nothing happens and nothing is about to, the time until it does is left out.
    fn leap(&mut self) {
        let Some(most) = self.script.leap else { return };
        let well = |p: &PoolView| p.state == State::Serving && !p.suspect && !p.drained;
        if !(self.active.is_empty() && self.view.pools.iter().all(well) && !self.view.edge_suspect) {
            self.calm_since = self.now;
        }
        if self.now.since(self.calm_since) < DWELL {
            return;
        }
        let next = self.queue.iter().filter(|Reverse(d)| d.next.is_scripts()).map(|Reverse(d)| d.at).min();
        let far = self.now.until(next.unwrap_or(self.end).min(self.end)).saturating_sub(DWELL).min(most);
        if far < DWELL {
            return;
        }
        let mut due = std::mem::take(&mut self.queue).into_vec();
        for Reverse(d) in due.iter_mut().filter(|Reverse(d)| d.next.is_scripts()) {
            d.at = d.at - far;
        }
        self.queue = due.into();
        self.end = self.end - far;
        self.leapt += far;
        self.plant.pass(far);
        self.calm_since = self.now;
        self.trace.note(self.now, Note::Leapt(far));
    }
}
