//! The way of a request.
//!
//! ```text
//! head ─ meant for us? ─ route ─ loop { step ─ attempt ─ classify ─ record } ─┬─ a backend's answer ─▶ relay
//!                                                                             ├─ none ─▶ fallback ─▶ answer
//!                                                                             └─ client gone, or at fault
//! ```
//!
//! The picture is loaded once: a reload never tears a request. Only the view in it is looked at anew while the request waits, as long as
//! it is of the same config.
//!
//! Nothing is spawned and nothing is sent to other tasks: attempts (two at most at once), the client and the timer are polled by one
//! task, and whatever is given up is dropped, which takes it out of every gauge.

use super::alarm::Alarm;
use super::answer::{self, Reply};
use super::connection::Guest;
use super::downstream::{Downstream, Ending};
use super::leg::{Leg, Message, Turn};
use super::message::Ids;
use super::relay::{self, Blame, Way};
use super::upload::{Fault, Upload};
use super::worker::Worker;
use super::{access, message};
use crate::clock;
use crate::http1::{BodyFraming, RequestHead, ResponseHead};
use crate::live::Flight;
use crate::live::Picture;
use crate::model::id::{PoolIx, RouteIx};
use crate::model::outcome::{Outcome, RequestOutcome, Sent};
use crate::model::policy::{Route, Writes};
use crate::model::time::{Duration, Moment};
use crate::model::topology::{Affinity, Topology};
use crate::model::view::Facts;
use crate::steer::attempt::{Attempt, Step, Try};
use crate::steer::fallback::{self, Refusal};
use crate::steer::{choose, classify, eject};
use crate::upstream::Conn;
use smallvec::SmallVec;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A client that ended its side while it waits may be gone (every client that closes looks so at first) or may
/// be one that says "that was all" and still listens. It gets so much more time.
const HALF_CLOSED: Duration = Duration::from_secs(1);

/// Answer one request.
pub(crate) async fn run(worker: &Worker, guest: &Guest, request: &RequestHead, mut down: Downstream<'_>, alarm: &mut Alarm) -> Ending {
    let (picture, began) = (worker.published.load_full(), clock::now());
    let found = match before_routing(worker, guest, &picture, request, began) {
        Some(reply) => Err(reply),
        None => picture.view.config.routes.find(&request.facts()).ok_or_else(answer::no_route),
    };
    let mut x = match found {
        Ok(route) => Exchange::new(worker, guest, &picture, request, route, down, alarm, began),
        Err(reply) => {
            down.say(&reply);
            let ending = flushed(&mut down).await;
            access::refused(worker, guest, request, &reply, down.protocol(), began);
            return ending;
        }
    };
    let told = match x.attempt().await {
        Verdict::Answer(won) => x.relay(won).await,
        Verdict::Refused(why) => x.degrade(why).await,
        Verdict::Client(fault) => x.blame(fault).await,
    };
    x.settle(&told);
    told.ending
}

/// What is answered without asking a route.
fn before_routing(worker: &Worker, guest: &Guest, picture: &Picture, request: &RequestHead, now: Moment) -> Option<Reply> {
    let limits = &picture.view.topology().limits;
    if limits.requests_per_client.is_some_and(|rate| !worker.clients.may_ask(guest.address, rate, now)) {
        return Some(answer::too_many());
    }
    if matches!((request.framing, limits.body_bytes), (BodyFraming::Length(n), Some(most)) if n > most) {
        return Some(answer::too_large());
    }
    answer::local(request, guest.settings.config.redirect_https && !guest.https)
}

async fn flushed(down: &mut Downstream<'_>) -> Ending {
    match poll_fn(|cx| down.poll_flush(cx)).await {
        Ok(()) => Ending::Told,
        Err(_) => Ending::Broken,
    }
}

/// What keeps the client in its region, where its service wants that.
fn affinity(topology: &Topology, route: &Route, request: &RequestHead, guest: &Guest) -> Option<u64> {
    match topology.services[route.service.at()].affinity.as_ref()? {
        Affinity::Header(name) => request.head.get(name).map(choose::affinity),
        Affinity::Cookie(name) => request.head.all("cookie").find_map(|line| cookie(line, name)).map(choose::affinity),
        Affinity::ClientIp => Some(match guest.address {
            IpAddr::V4(a) => choose::affinity(&a.octets()),
            IpAddr::V6(a) => choose::affinity(&a.octets()[..8]),
        }),
    }
}

/// A cookie's value in a `Cookie` line.
fn cookie<'a>(line: &'a [u8], name: &str) -> Option<&'a [u8]> {
    line.split(|b| *b == b';').map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// How looking for an answer ended.
enum Verdict<'p> {
    Answer(Won<'p>),
    Refused(Refusal),
    Client(Fault),
}

/// A backend's answer, of which the head is read.
struct Answer {
    plan: Try,
    conn: Conn,
    /// The part of the request's body that is to be sent next.
    next: usize,
    head: Box<ResponseHead>,
}

/// An answer that goes to the client.
struct Won<'p> {
    answer: Answer,
    flight: Flight<'p>,
    outcome: Outcome,
}

/// What became of the request, for the counts and the access log.
pub(super) struct Told {
    pub(super) ending: Ending,
    pub(super) status: u16,
    pub(super) outcome: RequestOutcome,
    pub(super) answered_by: Option<Try>,
    pub(super) first_byte: Option<Moment>,
    pub(super) sent: u64,
    pub(super) why: Option<&'static str>,
}

/// What woke the exchange.
enum Event {
    Turn(usize, Turn),
    Uploaded,
    Gone,
    Time,
}

/// One request under way.
pub(super) struct Exchange<'p> {
    worker: &'p Worker,
    guest: &'p Guest,
    picture: &'p Picture,
    request: &'p RequestHead,
    index: RouteIx,
    pub(super) route: &'p Route,
    pub(super) down: Downstream<'p>,
    alarm: &'p mut Alarm,
    pub(super) upload: Upload,
    machine: Attempt,
    legs: [Option<Leg<'p>>; 2],
    /// A failing answer, held while something better is looked for.
    held: Option<Answer>,
    /// Pools in which an attempt failed.
    failed: SmallVec<[PoolIx; 2]>,
    ids: Ids,
    began: Moment,
    attempts: u8,
    streaming: bool,
    half_closed: Option<Moment>,
}

impl<'p> Exchange<'p> {
    #[allow(clippy::too_many_arguments)]
    fn new(
        worker: &'p Worker,
        guest: &'p Guest,
        picture: &'p Picture,
        request: &'p RequestHead,
        index: RouteIx,
        down: Downstream<'p>,
        alarm: &'p mut Alarm,
        began: Moment,
    ) -> Self {
        let topology = picture.view.topology();
        let route = &topology.routes[index.at()];
        picture.cells.route(index).arrived();
        let facts = Facts {
            route: index,
            safe: request.method.is_safe(),
            keyed: request.head.get("idempotency-key").is_some(),
            upgrade: request.upgrade().is_some(),
            started: began,
            priority: route.priority,
        };
        let streaming = !matches!(request.framing, BodyFraming::None | BodyFraming::Length(0));
        let mut machine = Attempt::new(facts, &picture.view).with_affinity(affinity(topology, route, request, guest));
        let upload = if streaming {
            machine.streams();
            Upload::new(&topology.limits, &worker.replay, facts.repeatable(&route.retry, Sent::Incomplete))
        } else {
            Upload::none(&topology.limits, &worker.replay)
        };
        let ids = Ids::new(&mut worker.dice.borrow_mut());
        Self {
            worker,
            guest,
            picture,
            request,
            index,
            route,
            down,
            alarm,
            upload,
            machine,
            legs: [None, None],
            held: None,
            failed: SmallVec::new(),
            ids,
            began,
            attempts: 0,
            streaming,
            half_closed: None,
        }
    }

    /// Look for an answer: steps and events, until one is good or none can be had.
    async fn attempt(&mut self) -> Verdict<'p> {
        loop {
            let now = clock::now();
            let until = match self.step(now) {
                Step::Try(plan) if plan.id > 0 && !self.upload.whole() => return self.give_up(Refusal::UnknownOutcome, now),
                Step::Try(plan) => {
                    self.launch(plan, now);
                    continue;
                }
                Step::Stop(id) => {
                    self.stop(id, now);
                    continue;
                }
                Step::GiveUp(why) => return self.give_up(why, now),
                Step::Wait(until) => until,
            };
            match self.event(until).await {
                Event::Turn(i, Turn::Head(head)) => {
                    if let Some(won) = self.judge(i, head) {
                        return Verdict::Answer(won);
                    }
                }
                Event::Turn(_, Turn::Interim(head)) => self.down.interim(&head),
                Event::Turn(i, Turn::Stale) => self.again(i),
                Event::Turn(i, Turn::Failed(outcome)) => self.fail(i, outcome),
                Event::Turn(_, Turn::Client(fault)) => return Verdict::Client(fault),
                Event::Uploaded => {
                    self.streaming = false;
                    self.machine.complete(&self.picture.view, clock::now());
                }
                Event::Gone => return Verdict::Client(Fault::Gone),
                Event::Time => {
                    if let Some(fault) = self.on_time(clock::now()) {
                        return Verdict::Client(fault);
                    }
                }
            }
        }
    }

    /// Ask the machine, with the newest view there is of this config.
    fn step(&mut self, now: Moment) -> Step {
        for leg in self.legs.iter().flatten().filter(|l| l.holds()) {
            self.machine.sent(leg.plan.id, leg.sent());
        }
        if !self.upload.whole() {
            self.machine.spent();
        }
        let newest = self.worker.published.load();
        let mine = newest.view.config.generation == self.picture.view.config.generation;
        let view = if mine { &newest.view } else { &self.picture.view };
        self.machine.step(now, view, &*self.picture.cells, &mut self.worker.dice.borrow_mut())
    }

    fn launch(&mut self, plan: Try, now: Moment) {
        let Some(slot) = self.legs.iter().position(Option::is_none) else { return };
        self.attempts += 1;
        if plan.id > 0 && !plan.hedge {
            self.picture.cells.service(self.route.service).retried();
        }
        let flight = self.picture.cells.begin(self.index, plan.endpoint, now, plan.trial);
        let Some(target) = self.worker.target(self.picture, plan, self.route, self.request.host()) else {
            self.landed(plan, flight, Outcome::Connect, now);
            return self.machine.ended(plan.id, Outcome::Connect, Sent::Nothing, now);
        };
        let message = self.message(plan);
        self.legs[slot] = Some(Leg::start(plan, flight, &self.worker.upstream, target, message, self.streaming));
    }

    fn message(&self, plan: Try) -> Message {
        let facts = self.machine.facts();
        let endpoint = &self.picture.view.topology().endpoints[plan.endpoint.at()];
        Message {
            head: message::encode(self.request, self.guest, self.route, &self.ids, self.down.http2(), &endpoint.name),
            framing: self.request.framing,
            is_head: self.request.method == crate::http1::Method::Head,
            upgrade: facts.upgrade,
            hold: !facts.safe && self.route.retry.writes == Writes::Incomplete,
            again: [Sent::Nothing, Sent::Incomplete, Sent::Complete].map(|s| facts.repeatable(&self.route.retry, s)),
        }
    }

    fn again(&mut self, i: usize) {
        let Some(plan) = self.legs[i].as_ref().map(|l| l.plan) else { return };
        let head = self.message(plan).head;
        if let Some(leg) = &mut self.legs[i] {
            leg.again(head);
        }
    }

    async fn event(&mut self, until: Moment) -> Event {
        poll_fn(|cx| self.poll_event(until, cx)).await
    }

    fn poll_event(&mut self, until: Moment, cx: &mut Context<'_>) -> Poll<Event> {
        let mut due = until;
        for (i, leg) in self.legs.iter_mut().enumerate() {
            let Some(leg) = leg else { continue };
            if let Poll::Ready(turn) = leg.poll(&mut self.upload, &mut self.down, cx) {
                return Poll::Ready(Event::Turn(i, turn));
            }
            due = due.min(leg.due());
        }
        if self.streaming && self.upload.complete() {
            return Poll::Ready(Event::Uploaded);
        }
        if !self.down.idle() && matches!(self.down.poll_flush(cx), Poll::Ready(Err(_))) {
            return Poll::Ready(Event::Gone);
        }
        if !self.streaming {
            if self.down.poll_gone(cx).is_ready() {
                return Poll::Ready(Event::Gone);
            }
            if self.down.half_closed() {
                due = due.min(*self.half_closed.get_or_insert_with(|| clock::now() + HALF_CLOSED));
            }
        }
        self.alarm.poll(cx, due.min(self.upload.due())).map(|()| Event::Time)
    }

    /// Time has passed: marks, time-outs, a client that is too slow or gone.
    fn on_time(&mut self, now: Moment) -> Option<Fault> {
        for i in 0..self.legs.len() {
            if let Some(outcome) = self.legs[i].as_mut().and_then(|l| l.on_time(now)) {
                self.fail(i, outcome);
            }
        }
        if self.half_closed.is_some_and(|at| now >= at) {
            return Some(Fault::Gone);
        }
        self.upload.judge(now);
        self.upload.fault()
    }

    /// An answer's head has come: take it, or hold it while something better is looked for.
    fn judge(&mut self, i: usize, head: Box<ResponseHead>) -> Option<Won<'p>> {
        let leg = self.legs[i].take()?;
        let retry_after = head.status == 503 && head.head.get("retry-after").is_some();
        let outcome = classify::status(head.status, retry_after, self.route);
        let accepted = self.machine.accepts(&self.picture.view, outcome);
        let plan = leg.plan;
        let (flight, conn) = leg.into_parts();
        let (conn, next) = conn?;
        let answer = Answer { plan, conn, next, head };
        if accepted {
            return Some(Won { answer, flight, outcome });
        }
        let now = clock::now();
        self.landed(plan, flight, outcome, now);
        self.machine.ended(plan.id, outcome, Sent::Complete, now);
        self.held = Some(answer);
        None
    }

    fn fail(&mut self, i: usize, outcome: Outcome) {
        let Some(leg) = self.legs[i].take() else { return };
        let (now, sent, plan) = (clock::now(), leg.sent(), leg.plan);
        self.landed(plan, leg.into_parts().0, outcome, now);
        self.machine.ended(plan.id, outcome, sent, now);
    }

    fn stop(&mut self, id: u8, now: Moment) {
        let Some(leg) = self.legs.iter_mut().find_map(|l| l.take_if(|l| l.plan.id == id)) else { return };
        self.machine.ended(id, Outcome::Cancelled, leg.sent(), now);
    }

    /// Record how an attempt ended; a failure may take its endpoint out at once.
    fn landed(&mut self, plan: Try, flight: Flight<'p>, outcome: Outcome, now: Moment) {
        let streak = flight.end(now, outcome);
        if plan.hedge {
            self.picture.cells.service(self.route.service).hedged(false);
        }
        if !outcome.is_failure() {
            return;
        }
        self.failed.push(plan.pool);
        let topology = self.picture.view.topology();
        let (pool, cells) = (&topology.pools[plan.pool.at()], &*self.picture.cells);
        let (failover, endpoint) = (&topology.services[pool.service.at()].failover, cells.endpoint(plan.endpoint));
        let dice = &mut self.worker.dice.borrow_mut();
        if let Some(out) = eject::judge(streak.failures, streak.hard, failover, pool, cells, endpoint.ejections(), now, dice) {
            endpoint.eject(now, now + out, streak.hard);
        }
    }

    /// No answer can be had. What still runs has failed, if it had more time than it normally needs.
    fn give_up(&mut self, why: Refusal, now: Moment) -> Verdict<'p> {
        for i in 0..self.legs.len() {
            if self.legs[i].as_mut().is_some_and(|l| l.on_time(now).is_some() || l.is_overdue()) {
                self.fail(i, Outcome::Timeout);
            }
            self.legs[i] = None;
        }
        Verdict::Refused(why)
    }

    /// Pass a backend's answer on, and count how the attempt ended.
    async fn relay(&mut self, won: Won<'p>) -> Told {
        let cells = &*self.picture.cells;
        for lost in self.legs.iter_mut().filter_map(Option::take) {
            if lost.plan.hedge {
                cells.service(self.route.service).hedged(false);
            }
        }
        if won.answer.plan.hedge {
            cells.service(self.route.service).hedged(true);
        }
        let Won { answer, mut flight, outcome } = won;
        if outcome == Outcome::Ok {
            flight.accepted();
        }
        let plan = Try { hedge: false, ..answer.plan };
        let (told, blame, flight) = self.pass(answer, Some(flight), outcome == Outcome::Ok).await;
        match (blame, flight) {
            (Blame::Nobody, Some(flight)) => self.landed(plan, flight, outcome, clock::now()),
            (Blame::Backend, Some(flight)) => self.landed(plan, flight, Outcome::Reset, clock::now()),
            // The client's doing says nothing about the endpoint; or the attempt has ended well.
            _ => {}
        }
        told
    }

    /// Pass an answer on to the client, and the rest of the request's body to the endpoint.
    /// `good`: the attempt counts as a success as soon as the answer was read to its end. What did not end so comes back.
    async fn pass(&mut self, answer: Answer, flight: Option<Flight<'p>>, good: bool) -> (Told, Blame, Option<Flight<'p>>) {
        let Answer { plan, conn, next, head } = answer;
        // Nothing is repeated once an answer has begun.
        self.upload.let_go();
        let first_byte = clock::now();
        let region = self.shown_region(plan);
        self.down.head(&head, &self.route.response_headers, region.as_deref());
        let way = Way { down: &mut self.down, upload: &mut self.upload, alarm: self.alarm, idle: self.route.idle_timeout, flight, good };
        let relayed =
            if head.status == 101 { relay::tunnel(way, conn).await } else { relay::answer(way, conn, next, &self.worker.upstream).await };
        let outcome = match (relayed.blame, head.status) {
            (Blame::Backend, _) | (_, 500..) => RequestOutcome::Failed,
            (_, 400..500) => RequestOutcome::ClientError,
            _ => RequestOutcome::Ok,
        };
        let (ending, sent, why) = (relayed.ending, relayed.sent, relayed.why);
        let told = Told { ending, status: head.status, outcome, answered_by: Some(plan), first_byte: Some(first_byte), sent, why };
        (told, relayed.blame, relayed.flight)
    }

    /// No region could answer: say so as the route wants it said.
    async fn degrade(&mut self, why: Refusal) -> Told {
        if why == Refusal::Shed {
            self.picture.cells.route(self.index).shed();
        }
        let plan = fallback::decide(self.route, why, self.machine.facts(), &mut self.worker.dice.borrow_mut());
        let ours_says_less = matches!(plan.answer.outcome, RequestOutcome::Shed | RequestOutcome::Unavailable);
        match self.held.take() {
            Some(held) if ours_says_less => self.pass(held, None, false).await.0,
            _ => self.say(&plan.answer.into()).await,
        }
    }

    /// The client did not keep what its request promised, or is gone.
    async fn blame(&mut self, fault: Fault) -> Told {
        self.legs = [None, None];
        match answer::fault(fault) {
            Some(reply) => self.say(&reply).await,
            None => Told {
                ending: Ending::Broken,
                status: 0,
                outcome: RequestOutcome::ClientError,
                answered_by: None,
                first_byte: None,
                sent: 0,
                why: Some("the client went away"),
            },
        }
    }

    async fn say(&mut self, reply: &Reply) -> Told {
        self.down.say(reply);
        let first_byte = clock::now();
        Told {
            ending: flushed(&mut self.down).await,
            status: reply.status,
            outcome: reply.outcome,
            answered_by: None,
            first_byte: Some(first_byte),
            sent: reply.body.len() as u64,
            why: reply.why,
        }
    }

    /// Count the request, and say of its failed attempts whether the pool or the request was at fault.
    fn settle(&self, told: &Told) {
        let (topology, cells, now) = (self.picture.view.topology(), &*self.picture.cells, clock::now());
        cells.route(self.index).finished(told.outcome, now.since(self.machine.facts().started));
        let region = |p: PoolIx| topology.pools[p.at()].region;
        let good = told.answered_by.filter(|_| told.status < 500).map(|plan| region(plan.pool));
        for (i, pool) in self.failed.iter().enumerate() {
            match good {
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
        access::finished(self, told, now);
    }

    /// What the access log wants to know, beside [`Told`].
    pub(super) fn parties(&self) -> (&Worker, &Guest, &RequestHead, &Picture) {
        (self.worker, self.guest, self.request, self.picture)
    }
    pub(super) fn tallies(&self) -> (Moment, u8, &Ids) {
        (self.began, self.attempts, &self.ids)
    }
    /// `Evenkeel-Region`, where the operator wants it shown.
    fn shown_region(&self, plan: Try) -> Option<Arc<str>> {
        let topology = self.picture.view.topology();
        topology.edge.expose_region.then(|| topology.regions[topology.pools[plan.pool.at()].region.at()].name.clone())
    }
}
