//! The servers: workers, an unbounded queue, log-normal service times, and everything that breaks them.
//!
//! A request costs a worker for its service time; what finds no worker free waits first come, first served. Nobody tells a
//! server that its client has left, so abandoned work is done all the same: that is what makes overload last.
//!
//! An endpoint known by what it can do in a second ([`Power::Flow`]) is a backlog that drains at that rate. Faults that come
//! while a request waits there do not change when it is done, only when later ones are.

use super::script::{Cold, Fault, Power, Site, Target, What};
use crate::model::dice::Dice;
use crate::model::id::*;
use crate::model::outcome::{Outcome, Sent};
use crate::model::signal::ProbeVerdict;
use crate::model::time::{Duration, Moment};
use crate::model::topology::Topology;
use std::collections::VecDeque;

/// Backlog of a [`Power::Flow`] within which nobody waits, in requests. At 80 % of what it can do, chance alone makes so
/// much of it once in a thousand requests.
pub const TOLERANCE: f64 = 12.0;
/// What a server needs to say no, or to answer a probe.
const SHORT: Duration = Duration::from_millis(1);

/// What reaching for an endpoint comes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Contact {
    /// The request gets there after this time; whether over a connection that was open already.
    Arrives(Duration, bool),
    /// The attempt fails so after this time.
    Fails(Duration, Outcome, Sent),
    /// Nothing is ever heard; it was handed over.
    Lost,
}

/// What a request that got there comes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reception {
    /// Answered with this status after this time, without a worker.
    Said(u16, Duration),
    /// Never answered.
    Ignored,
    /// A worker takes it, and is done then.
    Started(Moment),
    /// It waits for a worker.
    Queued,
}

/// Work that a server has been given.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// Whose answer it is.
    pub ticket: u64,
    /// Not safe.
    pub write: bool,
    /// Of which request.
    pub request: u32,
}

/// What came of a worker's work.
#[derive(Clone, Copy, Debug, Default)]
pub struct Finished {
    /// It was done to the end (the process did not die before).
    pub served: bool,
    /// The answer gets out.
    pub heard: bool,
    /// It is a good status with nonsense in it.
    pub zeros: bool,
    /// What the worker does next, and until when.
    pub next: Option<(Job, Moment)>,
}

/// How a server fares, all its faults taken together.
#[derive(Clone, Debug, PartialEq)]
struct Condition {
    dead: bool,
    black: bool,
    mute: bool,
    half_open: bool,
    slow: f64,
    errors: (f64, u16),
    hang: f64,
    zeros: f64,
    paused_until: Moment,
    workers: f64,
    probes: Option<bool>,
}

impl Condition {
    const WELL: Self = Self {
        dead: false,
        black: false,
        mute: false,
        half_open: false,
        slow: 1.0,
        errors: (0.0, 503),
        hang: 0.0,
        zeros: 0.0,
        paused_until: Moment::ZERO,
        workers: 1.0,
        probes: None,
    };
    fn suffer(&mut self, what: What, until: Moment) {
        match what {
            What::Kill => self.dead = true,
            What::Blackhole => self.black = true,
            What::AnswersLost => self.mute = true,
            What::HalfOpen => self.half_open = true,
            What::Slow(f) => self.slow *= f,
            What::Errors(p, status) => self.errors = (self.errors.0.max(p), status),
            What::Hang(p) => self.hang = self.hang.max(p),
            What::Zeros(p) => self.zeros = self.zeros.max(p),
            What::Pause => self.paused_until = self.paused_until.max(until),
            What::Workers(f) => self.workers *= f,
            What::ProbesSay(yes) => self.probes = Some(yes),
            What::Cold(_) | What::EdgeStalls | What::Burst(_) | What::Poison(_) => {}
        }
    }
}

#[derive(Debug)]
struct Server {
    pool: PoolIx,
    condition: Condition,
    busy: u32,
    queue: VecDeque<Job>,
    serving: Vec<u64>,
    /// Connections the edge holds open and idle, and under which epoch of the pool they were dialled.
    idle: u32,
    epoch: u32,
    cold: Option<Cold>,
    served: f64,
    /// Of a flow: seconds of work that wait, as of then.
    backlog: f64,
    drained: Moment,
}

/// A pool's servers at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Requests that wait for a worker.
    pub queued: u32,
    /// How long the next request would wait, the worst endpoint counting.
    pub wait: Duration,
}

/// All servers.
#[derive(Debug)]
pub struct Plant {
    servers: Vec<Server>,
    sites: Vec<Site>,
    regions: Vec<RegionIx>,
    idle_max: u32,
}

impl Plant {
    /// Well servers, with a few connections open to each.
    pub fn new(t: &Topology, sites: &[Site]) -> Self {
        let server = |pool: PoolIx| Server {
            pool,
            condition: Condition::WELL,
            busy: 0,
            queue: VecDeque::new(),
            serving: Vec::new(),
            idle: t.services[t.pools[pool.at()].service.at()].idle.warm as u32,
            epoch: 0,
            cold: None,
            served: 0.0,
            backlog: 0.0,
            drained: Moment::ZERO,
        };
        Self {
            servers: t.endpoints.iter().map(|e| server(e.pool)).collect(),
            sites: sites.to_vec(),
            regions: t.pools.iter().map(|p| p.region).collect(),
            idle_max: 64,
        }
    }

    fn hit(&self, target: Target, e: usize) -> bool {
        let pool = self.servers[e].pool;
        match target {
            Target::Region(r) => self.regions[pool.at()] == r,
            Target::Pool(p) => p == pool,
            Target::Endpoint(x) => x.at() == e,
            Target::Everywhere => true,
        }
    }

    /// A fault begins or ends; `active` are all that last now, with their ends. Returns the tickets of requests whose
    /// connections broke.
    pub fn turn(&mut self, fault: &Fault, begins: bool, active: &[(Fault, Moment)]) -> Vec<u64> {
        let mut broken = Vec::new();
        for e in 0..self.servers.len() {
            if fault.what.is_ours() || !self.hit(fault.target, e) {
                continue;
            }
            let mut condition = Condition::WELL;
            active.iter().filter(|(f, _)| self.hit(f.target, e)).for_each(|(f, until)| condition.suffer(f.what, *until));
            let restart = self.sites[self.servers[e].pool.at()].restart;
            let s = &mut self.servers[e];
            match fault.what {
                What::Kill if begins => {
                    broken.append(&mut s.serving);
                    broken.extend(s.queue.drain(..).map(|j| j.ticket));
                    (s.busy, s.idle, s.backlog) = (0, 0, 0.0);
                }
                What::Kill => (s.cold, s.served) = (restart, 0.0),
                What::Cold(f) if begins => (s.cold, s.served) = (Some(Cold::fading(f)), 0.0),
                _ => {}
            }
            s.condition = condition;
        }
        broken
    }

    fn site(&self, e: EndpointIx) -> &Site {
        &self.sites[self.servers[e.at()].pool.at()]
    }

    /// The delay of one way.
    pub fn wire(&self, e: EndpointIx) -> Duration {
        self.site(e).wire
    }

    /// The edge reaches for an endpoint, over an idle connection of this epoch or a new one.
    pub fn contact(&mut self, e: EndpointIx, epoch: u32, connect_timeout: Duration) -> Contact {
        let wire = self.wire(e);
        let s = &mut self.servers[e.at()];
        if s.epoch != epoch {
            (s.idle, s.epoch) = (0, epoch);
        }
        let reused = s.idle > 0;
        s.idle = s.idle.saturating_sub(1);
        let c = &s.condition;
        match reused {
            true if c.black => Contact::Lost,
            true => Contact::Arrives(wire, true),
            false if c.dead => Contact::Fails(wire * 2, Outcome::Connect, Sent::Nothing),
            false if c.black || c.mute => Contact::Fails(connect_timeout, Outcome::Connect, Sent::Nothing),
            false => Contact::Arrives(wire * 3, false),
        }
    }

    /// A connection is free again.
    pub fn checkin(&mut self, e: EndpointIx, epoch: u32) {
        let most = self.idle_max;
        let s = &mut self.servers[e.at()];
        if s.epoch == epoch && !s.condition.dead {
            s.idle = (s.idle + 1).min(most);
        }
    }

    /// A request gets there.
    pub fn receive(&mut self, e: EndpointIx, job: Job, poison: bool, now: Moment, dice: &mut Dice) -> Reception {
        let (work, factor) = self.work(e, dice);
        let (workers, power) = (self.workers(e), self.site(e).power);
        let s = &mut self.servers[e.at()];
        let c = &s.condition;
        if c.dead || c.black || c.half_open || dice.chance(c.hang) {
            return Reception::Ignored;
        }
        if poison || dice.chance(c.errors.0) {
            return Reception::Said(c.errors.1, SHORT + c.paused_until.since(now));
        }
        if let Power::Flow(rate) = power {
            let wait = s.flow(factor / rate, now);
            return Reception::Started(s.start(job, wait + work, now));
        }
        if s.busy >= workers {
            s.queue.push_back(job);
            return Reception::Queued;
        }
        Reception::Started(s.start(job, work, now))
    }

    /// A worker should be done. `Err`: it stands still, and is not done before then.
    pub fn done(&mut self, e: EndpointIx, job: Job, now: Moment, dice: &mut Dice) -> Result<Finished, Moment> {
        let (work, _) = self.work(e, dice);
        let workers = self.workers(e);
        let s = &mut self.servers[e.at()];
        let Some(at) = s.serving.iter().position(|t| *t == job.ticket) else { return Ok(Finished::default()) };
        if s.condition.paused_until > now {
            return Err(s.condition.paused_until);
        }
        s.serving.swap_remove(at);
        s.busy -= 1;
        s.served += 1.0;
        let next = (s.busy < workers).then(|| s.queue.pop_front()).flatten();
        let next = next.map(|j| (j, s.start(j, work, now)));
        let c = &s.condition;
        let zeros = c.zeros > 0.0 && dice.chance(c.zeros);
        Ok(Finished { served: true, heard: !(c.dead || c.black || c.mute), zeros, next })
    }

    /// A probe is sent: what it finds, and after what time.
    pub fn probe(&mut self, e: EndpointIx, timeout: Duration, now: Moment, dice: &mut Dice) -> (ProbeVerdict, Duration) {
        let (wire, c) = (self.wire(e), &self.servers[e.at()].condition);
        let slow = self.site(e).service.mul_f64(c.slow / 4.0);
        let took = wire * 2 + SHORT + slow + c.paused_until.since(now);
        match c.probes {
            Some(true) => return (ProbeVerdict::Pass, wire * 2 + SHORT),
            Some(false) => return (ProbeVerdict::Status(503), wire * 2 + SHORT),
            None => {}
        }
        if c.dead {
            (ProbeVerdict::Connect("connection refused".into()), wire * 2)
        } else if c.black || c.mute || c.half_open || took > timeout {
            (ProbeVerdict::Timeout, timeout)
        } else if dice.chance(c.errors.0) {
            (ProbeVerdict::Status(c.errors.1), took)
        } else {
            (ProbeVerdict::Pass, took)
        }
    }

    /// So much time has passed in which nothing happened but work.
    pub fn pass(&mut self, time: Duration) {
        self.servers.iter_mut().for_each(|s| s.backlog = (s.backlog - time.as_secs_f64()).max(0.0));
    }

    /// How a pool's servers stand.
    pub fn load(&self, p: PoolIx, now: Moment) -> Load {
        let mut load = Load::default();
        for (e, s) in self.servers.iter().enumerate().filter(|(_, s)| s.pool == p) {
            let e = EndpointIx::from(e);
            let wait = match self.site(e).power {
                Power::Flow(rate) => (s.left(now) - TOLERANCE / rate).max(0.0),
                Power::Workers(_) => s.queue.len() as f64 * self.site(e).service.as_secs_f64() / f64::from(self.workers(e)),
            };
            load.queued += s.queue.len() as u32;
            load.wait = load.wait.max(Duration::from_secs_f64(wait));
        }
        load
    }

    /// How long the next request takes, and how many times as long as it would on a good day, all else equal.
    fn work(&self, e: EndpointIx, dice: &mut Dice) -> (Duration, f64) {
        let (s, site) = (&self.servers[e.at()], self.site(e));
        // Box-Muller; the second value is not kept, so that a stream's length does not depend on history.
        let normal = (-2.0 * (1.0 - dice.unit()).ln()).sqrt() * (std::f64::consts::TAU * dice.unit()).cos();
        let factor = s.condition.slow * s.cold.map_or(1.0, |c| c.factor(s.served));
        (site.service.mul_f64((site.spread * normal).exp() * factor), factor / s.condition.workers)
    }

    fn workers(&self, e: EndpointIx) -> u32 {
        let s = &self.servers[e.at()];
        let Power::Workers(n) = self.site(e).power else { return u32::MAX };
        let cold = s.cold.filter(|c| s.served < f64::from(c.requests)).and_then(|c| c.workers).unwrap_or(u32::MAX);
        ((f64::from(n) * s.condition.workers) as u32).min(cold).max(1)
    }
}

impl Server {
    /// Seconds of work that still wait.
    fn left(&self, now: Moment) -> f64 {
        (self.backlog - now.since(self.drained).as_secs_f64()).max(0.0)
    }
    /// One more request that costs so many seconds of the flow: how long it waits.
    fn flow(&mut self, cost: f64, now: Moment) -> Duration {
        let left = self.left(now);
        (self.backlog, self.drained) = (left + cost, now);
        Duration::from_secs_f64((left - TOLERANCE * cost).max(0.0))
    }
    fn start(&mut self, job: Job, work: Duration, now: Moment) -> Moment {
        self.busy += 1;
        self.serving.push(job.ticket);
        now.max(self.condition.paused_until) + work
    }
}
