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
//! Attempts (two at most at once), the client and the timer are polled by one task, and whatever is given up is dropped, which takes
//! it out of every gauge. Only a loser may outlive its request ([`super::linger`]).

mod ending;
mod facts;
mod keeping;
pub(super) mod record;

use super::alarm::Alarm;
use super::answer::{self, Reply};
use super::connection::Guest;
use super::downstream::{Downstream, Ending};
use super::keep::{self, Keeping};
use super::leg::{Early, Leg, Message, Turn};
use super::message::Ids;
use super::trace::Tracer;
use super::truth::{Truth, Unbelieved};
use super::upload::{Fault, Upload};
use super::worker::{Kept, Worker};
use super::{access, grpc, message};
use crate::clock;
use crate::http1::{BodyFraming, RequestHead, ResponseHead};
use crate::live::{Flight, Picture};
use crate::model::id::{PoolIx, RouteIx};
use crate::model::outcome::{Outcome, RequestOutcome, Sent};
use crate::model::policy::{Priority, Route, Writes};
use crate::model::time::{Duration, Moment};
use crate::model::topology::Protocol;
use crate::model::view::State;
use crate::steer::attempt::{Attempt, Step, Try};
use crate::steer::classify;
use crate::steer::fallback::Refusal;
use crate::upstream::Conn;
use smallvec::SmallVec;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

/// A client that ended its side while it waits may be gone (every client that closes looks so at first) or may
/// be one that says "that was all" and still listens. It gets so much more time.
const HALF_CLOSED: Duration = Duration::from_secs(1);

/// Answer one request.
pub(crate) async fn run(worker: &Rc<Worker>, guest: &Guest, request: &RequestHead, mut down: Downstream<'_>, alarm: &mut Alarm) -> Ending {
    let (picture, began) = (worker.picture(), clock::now());
    let found = match (before_routing(worker, guest, &picture, request, began), keep::status_page(request)) {
        (Some(reply), _) => Err(reply),
        (None, Some(id)) => Err(Box::pin(keep::page(worker.spool.as_ref(), id, request)).await),
        (None, None) => picture.view.config.routes.find(&request.facts()).ok_or_else(answer::no_route),
    };
    let route = match found {
        Ok(route) => route,
        Err(reply) => {
            let reply = if grpc::Call::of(request, began).is_some() { grpc::reply(&reply) } else { reply };
            down.say(&reply);
            let ending = flushed(&mut down, alarm, picture.view.topology().limits.body_timeout).await;
            access::refused(worker, guest, request, &reply, down.protocol(), began);
            return ending;
        }
    };
    let keyed = keep::with_key(&picture.view.topology().routes[route.at()], request);
    let asked = (keyed.as_deref().unwrap_or(request), keyed.is_some());
    let mut x = Exchange::new(worker, guest, &picture, asked, route, down, alarm, began);
    // Whatever is rare waits on the heap: this future is as large as the largest thing it waits for, and is moved as a whole.
    let (known, now) = if x.keeping.is_some() { (Box::pin(x.known()).await, clock::now()) } else { (None, began) };
    let told = match known {
        Some(told) => told,
        None => match x.attempt(now).await {
            Verdict::Answer(Won { answer, flight, outcome, at }) => {
                x.won(&answer.plan);
                x.pass(answer, Some((flight, outcome)), at).await
            }
            Verdict::Refused(why) => Box::pin(x.degrade(why)).await,
            Verdict::Client(fault) => Box::pin(x.blame(fault)).await,
        },
    };
    x.settle(&told);
    told.ending
}

/// What is answered without asking a route.
fn before_routing(worker: &Worker, guest: &Guest, picture: &Picture, request: &RequestHead, now: Moment) -> Option<Reply> {
    let limits = &picture.view.topology().limits;
    if limits
        .requests_per_client
        .is_some_and(|rate| !guest.trusted && guest.replay.is_none() && !worker.clients.may_ask(guest.address, rate, now))
    {
        return Some(answer::too_many());
    }
    if matches!((request.framing, limits.body_bytes), (BodyFraming::Length(n), Some(most)) if n > most) {
        return Some(answer::too_large());
    }
    answer::local(request, guest.settings.config.redirect_https && !guest.https)
}

/// Send what is queued, to a client that has `idle` to take it.
async fn flushed(down: &mut Downstream<'_>, alarm: &mut Alarm, idle: Duration) -> Ending {
    let mut until = None;
    poll_fn(|cx| match down.poll_flush(cx) {
        Poll::Ready(Ok(())) => Poll::Ready(Ending::Told),
        Poll::Ready(Err(_)) => Poll::Ready(Ending::Broken),
        Poll::Pending => alarm.poll(cx, *until.get_or_insert_with(|| clock::now() + idle)).map(|()| Ending::Broken),
    })
    .await
}

/// How looking for an answer ended.
#[allow(clippy::large_enum_variant)] // moved once a request; a box would cost an allocation each
enum Verdict<'p> {
    Answer(Won<'p>),
    Refused(Refusal),
    Client(Fault),
}

/// A backend's answer, of which the head is read.
struct Answer {
    plan: Try,
    /// `None`: it is all here already.
    conn: Option<Conn>,
    /// The part of the request's body that is to be sent next.
    next: usize,
    head: Box<ResponseHead>,
    early: Option<Box<Early>>,
}

/// An answer that goes to the client.
struct Won<'p> {
    answer: Answer,
    flight: Flight<'p>,
    outcome: Outcome,
    /// When its head had come.
    at: Moment,
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
    worker: &'p Rc<Worker>,
    guest: &'p Guest,
    picture: &'p Kept,
    request: &'p RequestHead,
    index: RouteIx,
    pub(super) route: &'p Route,
    pub(super) down: Downstream<'p>,
    alarm: &'p mut Alarm,
    pub(super) upload: Upload,
    machine: Attempt,
    legs: [Option<Box<Leg<'p>>>; 2],
    /// A failing answer, held while something better is looked for.
    held: Option<Answer>,
    /// It can be served once what is not believed in it is masked.
    maskable: bool,
    /// Attempts whose answers nobody can judge yet.
    unsure: Vec<(Try, Flight<'p>)>,
    /// Last good copies and guards, where the route has any.
    truth: Option<Box<Truth<'p>>>,
    /// The spool, where the route and the request have a claim to it.
    keeping: Option<Box<Keeping<'p>>>,
    /// Pools in which an attempt failed.
    failed: SmallVec<[PoolIx; 2]>,
    ids: Ids,
    /// Where the request is recorded.
    trace: Option<Box<Tracer>>,
    began: Moment,
    attempts: u8,
    streaming: bool,
    /// The request is a gRPC call.
    grpc: Option<grpc::Call>,
    half_closed: Option<Moment>,
}

impl<'p> Exchange<'p> {
    #[allow(clippy::too_many_arguments)]
    fn new(
        worker: &'p Rc<Worker>,
        guest: &'p Guest,
        picture: &'p Kept,
        (request, made): (&'p RequestHead, bool),
        index: RouteIx,
        down: Downstream<'p>,
        alarm: &'p mut Alarm,
        began: Moment,
    ) -> Self {
        let topology = picture.view.topology();
        let route = &topology.routes[index.at()];
        picture.cells.route(index).arrived();
        let mut facts = facts::facts(request, index, route, began);
        if guest.replay.is_some() {
            facts.priority = Priority::Sheddable;
        }
        let streaming = !matches!(request.framing, BodyFraming::None | BodyFraming::Length(0));
        let grpc = grpc::Call::of(request, began);
        let mut machine = Attempt::new(facts, &picture.view).with_affinity(facts::affinity(topology, route, request, guest));
        if let Some(call) = &grpc {
            machine = machine.with_patience(call.until);
        }
        let upload = if streaming {
            machine.streams();
            // Over HTTP/2 an endpoint may say that it has not looked at a request of which the body was sent (REFUSED_STREAM, GOAWAY).
            let refusable = topology.services[route.service.at()].protocol != Protocol::Http1;
            let upload = Upload::new(&topology.limits, &worker.replay, refusable || facts.repeatable(&route.retry, Sent::Incomplete));
            if grpc.is_some() { upload.quiet(route.idle_timeout) } else { upload }
        } else {
            Upload::none()
        };
        let ids = Ids::new(&mut worker.dice.borrow_mut());
        let recorded = topology.tracing.as_ref().filter(|_| guest.replay.is_none());
        let trace = recorded.and_then(|t| Tracer::of(request, guest.trusted, t.sample, ids.request(), &mut worker.dice.borrow_mut()));
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
            maskable: false,
            unsure: Vec::new(),
            truth: Truth::of(worker, picture, route, request, guest),
            keeping: Keeping::of(worker, picture, route, request, guest, made),
            failed: SmallVec::new(),
            ids,
            trace,
            began,
            attempts: 0,
            streaming,
            grpc,
            half_closed: None,
        }
    }

    /// Look for an answer: steps and events, until one is good or none can be had.
    async fn attempt(&mut self, mut now: Moment) -> Verdict<'p> {
        loop {
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
                Event::Turn(i, Turn::Head(head, early)) => {
                    if let Some(won) = self.judge(i, head, early) {
                        return Verdict::Answer(won);
                    }
                }
                Event::Turn(_, Turn::Interim(head)) => self.down.interim(&head),
                Event::Turn(i, Turn::Stale) => self.again(i),
                Event::Turn(i, Turn::Failed(outcome)) => self.fail(i, outcome),
                Event::Turn(_, Turn::Client(fault)) => return Verdict::Client(fault),
                Event::Uploaded => {
                    self.streaming = false;
                    self.tell_asks();
                    self.machine.complete(&self.picture.view, clock::now());
                }
                Event::Gone => return Verdict::Client(Fault::Gone),
                Event::Time => {
                    if let Some(fault) = self.on_time(clock::now()) {
                        return Verdict::Client(fault);
                    }
                }
            }
            now = clock::now();
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
        let newest = self.worker.picture();
        let mine = newest.view.config.generation == self.picture.view.config.generation;
        let view = if mine { &newest.view } else { &self.picture.view };
        self.machine.step(now, view, &*self.picture.cells, &mut self.worker.dice.borrow_mut())
    }

    fn launch(&mut self, plan: Try, now: Moment) {
        let Some(slot) = self.legs.iter().position(Option::is_none) else { return };
        self.attempts += 1;
        if plan.id > 0 {
            self.picture.cells.route(self.index).again(plan.hedge);
        }
        if plan.id > 0 && !plan.hedge {
            self.picture.cells.service(self.route.service).retried();
        }
        let flight = self.picture.cells.begin(self.index, plan.endpoint, now, plan.trial);
        self.trace_began(&plan, now);
        let Some(target) = self.worker.target(self.picture, plan.endpoint, || self.request.host()) else {
            self.landed(plan, flight, Outcome::Connect, now);
            return self.machine.ended(plan.id, Outcome::Connect, Sent::Nothing, now);
        };
        let message = self.message(plan);
        let target = if message.upgrade { target.over_http1() } else { target };
        self.legs[slot] = Some(Leg::start(plan, flight, self.worker, target, message, self.streaming));
    }

    fn message(&self, plan: Try) -> Message {
        let facts = self.machine.facts();
        let endpoint = &self.picture.view.topology().endpoints[plan.endpoint.at()];
        let span = self.trace.as_ref().map(|t| t.parent_of(plan.id));
        let ids = (&self.ids, span.as_deref());
        let mut head = message::encode(self.request, self.guest, self.route, ids, self.down.http2(), &endpoint.name);
        if let Some(call) = self.grpc.as_ref().filter(|_| plan.id > 0) {
            call.again(&mut head);
        }
        Message {
            head,
            framing: self.request.framing,
            is_head: self.request.method == crate::http1::Method::Head,
            upgrade: facts.upgrade,
            hold: !facts.safe && self.route.retry.writes == Writes::Incomplete,
            whole: self.truth.as_ref().filter(|_| !self.streaming).and_then(|t| t.reads()),
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
    fn judge(&mut self, i: usize, head: Box<ResponseHead>, early: Option<Box<Early>>) -> Option<Won<'p>> {
        let leg = self.legs[i].take()?;
        let (now, plan) = (leg.told, leg.plan);
        if let Some(trace) = &mut self.trace {
            trace.answered(plan.id, head.status);
        }
        let retry_after = head.status == 503 && head.head.get("retry-after").is_some();
        let mut outcome = match self.grpc.and_then(|_| grpc::said(&head)) {
            Some(code) => crate::steer::grpc::outcome(code),
            None => classify::status(head.status, retry_after, self.route),
        };
        let mut unbelieved = None;
        if let (Outcome::Ok, Some(truth), Some(read)) = (outcome, &mut self.truth, early.as_ref().filter(|e| e.ended)) {
            let unproven = plan.trial || self.picture.view.pools[plan.pool.at()].state != State::Serving;
            unbelieved = truth.judge(&self.picture.cells, self.index, (plan.pool, unproven), &read.body, now).err();
            outcome = unbelieved.map_or(outcome, |_| Outcome::Guard);
        }
        let (flight, conn) = leg.into_parts();
        let (conn, next) = conn?;
        let conn = match &early {
            Some(e) if e.ended => {
                self.worker.upstream.checkin(conn);
                None
            }
            _ => Some(conn),
        };
        let answer = Answer { plan, conn, next, head, early };
        let accepted = match outcome {
            Outcome::Guard => false,
            // The last good copy goes before a failing answer.
            Outcome::Status(_) | Outcome::Overload(503) if self.maskable || self.truth.as_ref().is_some_and(|t| t.has_copy()) => false,
            // And so does the spool, before one that another attempt might mend.
            Outcome::Status(s) | Outcome::Overload(s @ 503)
                if self.keeping.is_some() && self.upload.is_kept() && self.route.retry.statuses.contains(&s) =>
            {
                false
            }
            _ => self.machine.accepts(&self.picture.view, outcome),
        };
        if accepted {
            return Some(Won { answer, flight, outcome, at: now });
        }
        if unbelieved == Some(Unbelieved::Unsure) {
            // Whether that speaks against the pool is known when another one was asked.
            self.unsure.push((plan, flight));
        } else {
            self.landed(plan, flight, outcome, now);
        }
        self.machine.ended(plan.id, outcome, Sent::Complete, now);
        self.maskable |= unbelieved == Some(Unbelieved::Maskable);
        // What a guard rejects is worth nothing, but for what can be masked, or only lacks something to be compared with.
        if unbelieved != Some(Unbelieved::Wrong) && self.held.as_ref().is_none_or(|held| held.head.status >= 400) {
            self.held = Some(answer);
        }
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
        if let Some(trace) = &mut self.trace {
            trace.ended(id, Outcome::Cancelled, now);
        }
        self.machine.ended(id, Outcome::Cancelled, leg.sent(), now);
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
}
