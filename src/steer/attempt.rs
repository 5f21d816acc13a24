//! What one request does: the machine of attempts, retries, hedges and deadlines.
//!
//! ```text
//!            ┌── Try ──▶ running ──accepts──▶ (the edge relays; the machine is dropped)
//!  step ─────┤             │ ended: failed, may be repeated, attempts and budget left ──▶ Try elsewhere
//!            │             │ ended: otherwise ──▶ GiveUp
//!            │             │ its pool falls suspect or out; overdue and quiet; hedge time ──▶ Try beside it (safe only)
//!            │             └ its pool falls out, an upload not yet complete ──▶ Stop, then Try elsewhere
//!            └── GiveUp: deadline, no place, no budget, outcome unknown
//! ```
//!
//! The edge drives it:
//!
//! ```text
//! let mut a = Attempt::new(facts, &view);
//! loop { match a.step(now, &newest_view, live, dice) {
//!     Try(t)      => start it, step again
//!     Wait(until) => wait for an attempt to come to an end by itself or by its timeout, or for `until`; step again
//!     Stop(id)    => drop that attempt (release no more of its body), tell ended(id, Cancelled, sent), step again
//!     GiveUp(why) => drop what runs; fallback::decide
//! }}
//! response head arrives:  o = classify::status(..); if a.accepts(o) { relay it; drop the machine and every other attempt }
//!                         else { hold it; a.ended(id, o, Sent::Complete, now); step }
//! attempt fails:          a.ended(id, outcome, sent, now); step
//! ```
//!
//! Rules it keeps: at most two attempts at once; at most `retry.attempts` in all, and one hedge; every attempt
//! after the first is paid for from a budget when it starts; a write is repeated only as `retry.writes` allows, and
//! never runs twice at once. A request never outlives its deadline.
//!
//! Not here: after the first byte of an answer went out nothing is ever repeated, so the machine is dropped then.
//! Between one step and the next nothing wakes a request but its own timer: no subscriptions on the hot path.
//! The view handed to `step` must be of the same config generation as the one it was made with.

use super::choose::{self, Level, Want};
use super::fallback::Refusal;
use super::patience;
use crate::model::dice::Dice;
use crate::model::id::*;
use crate::model::outcome::{Outcome, Sent};
use crate::model::policy::{Route, Writes};
use crate::model::time::{Duration, Moment};
use crate::model::topology::Service;
use crate::model::view::{Closed, Facts, Live, Pace, View};
use smallvec::SmallVec;

#[cfg(test)]
mod tests;

/// The next thing to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Start this attempt, then step again.
    Try(Try),
    /// Nothing to do until then, or until an attempt ends.
    Wait(Moment),
    /// Drop this attempt without releasing more of its body, tell [`Attempt::ended`], then step again.
    Stop(u8),
    /// No good answer can be had in time. Attempts that still run are to be dropped.
    GiveUp(Refusal),
}

/// One attempt to start. Its three times count from now, or, for a request whose body still streams, from when
/// the last byte of it was handed over: the edge then moves them on by as much.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Try {
    /// Counts a request's attempts from 0.
    pub id: u8,
    /// Where.
    pub pool: PoolIx,
    /// At which endpoint.
    pub endpoint: EndpointIx,
    /// Until the first byte of the answer. Then the edge tells `ended(id, Timeout, ..)`.
    pub timeout: Duration,
    /// From then on the attempt counts as overdue (`Flight::overdue`).
    pub overdue_at: Moment,
    /// From then on it counts as late (`Flight::late`).
    pub late_at: Moment,
    /// It is a trial of a recovering pool (`Cells::begin`).
    pub trial: bool,
    /// It runs beside another one.
    pub hedge: bool,
}

/// The machine of one request.
#[derive(Debug)]
pub struct Attempt {
    facts: Facts,
    writes: Writes,
    /// By [`Sent`]: whether a failure after that much may be repeated.
    repeatable: [bool; 3],
    deadline: Moment,
    /// The client waits no longer than that, whatever the route allows.
    patience: Moment,
    /// The request's body is still coming in.
    streaming: bool,
    /// The body can no longer be replayed.
    spent: bool,
    running: SmallVec<[Running; 2]>,
    tried: SmallVec<[EndpointIx; 4]>,
    /// Attempts started.
    made: u32,
    /// Of those: by the hedge policy, beyond `retry.attempts`.
    hedged: u32,
    /// The last failure.
    last: Option<Failure>,
    /// A write that failed may have been applied.
    in_doubt: bool,
    /// An overload answer has moved the request on already.
    moved_by_overload: bool,
    /// When it was first found that every pool is full.
    asked: Option<Moment>,
    affinity: Option<u64>,
}

/// An attempt under way.
#[derive(Clone, Copy, Debug)]
struct Running {
    id: u8,
    pool: PoolIx,
    endpoint: EndpointIx,
    started: Moment,
    overdue_at: Moment,
    pace: Pace,
    trial: bool,
    sent: Sent,
}

#[derive(Clone, Copy, Debug)]
struct Failure {
    pool: PoolIx,
    outcome: Outcome,
    sent: Sent,
    at: Moment,
}

impl Attempt {
    /// A machine for a request that is complete, or whose body streams (then say [`Attempt::streams`]).
    pub fn new(facts: Facts, view: &View) -> Self {
        let route = route(&facts, view);
        Self {
            deadline: facts.started + route.deadline,
            patience: Moment::FAR,
            writes: route.retry.writes,
            repeatable: [Sent::Nothing, Sent::Incomplete, Sent::Complete].map(|s| facts.repeatable(&route.retry, s)),
            streaming: false,
            spent: false,
            running: SmallVec::new(),
            tried: SmallVec::new(),
            made: 0,
            hedged: 0,
            last: None,
            in_doubt: false,
            moved_by_overload: false,
            asked: None,
            affinity: None,
            facts,
        }
    }

    /// Keep requests with this key ([`choose::affinity`]) in one region while the shares hold.
    #[must_use]
    pub fn with_affinity(self, key: Option<u64>) -> Self {
        Self { affinity: key, ..self }
    }

    /// The client has a deadline of its own (gRPC): the earlier one holds, also while its body is still coming in.
    #[must_use]
    pub fn with_patience(self, until: Moment) -> Self {
        Self { patience: until, deadline: self.deadline.min(until), ..self }
    }

    /// What it was made with.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// When the request must have its answer. [`Moment::FAR`] while its body is still coming in.
    pub fn deadline(&self) -> Moment {
        self.deadline
    }

    /// The body of the request is still coming in: no deadline runs (`limits.body_timeout` and `body_min_rate`
    /// bound it) until [`Attempt::complete`].
    pub fn streams(&mut self) {
        self.streaming = true;
        self.deadline = self.patience;
    }

    /// The last byte of the request's body came in: the clock starts.
    pub fn complete(&mut self, view: &View, now: Moment) {
        self.streaming = false;
        self.facts.started = now;
        self.deadline = (now + route(&self.facts, view).deadline).min(self.patience);
        for r in &mut self.running {
            let held = now.since(r.started);
            (r.started, r.overdue_at, r.sent) = (now, r.overdue_at + held, Sent::Complete);
        }
    }

    /// How much of the request an attempt was handed so far, where that is not plain: it is taken to be everything of a
    /// complete request, and not everything of one that streams. For an edge that holds the last byte of a write back.
    pub fn sent(&mut self, id: u8, sent: Sent) {
        self.running.iter_mut().filter(|r| r.id == id).for_each(|r| r.sent = sent);
    }

    /// More of the body was handed over than is kept for replay: what runs now is the last attempt.
    pub fn spent(&mut self) {
        self.spent = true;
    }

    /// Whether an answer classified so goes to the client. Otherwise hold it (its body unread), and tell [`Attempt::ended`].
    ///
    /// A good answer always does. A failing one only where nothing better can come: no other attempt runs, and
    /// the request may not be repeated for it.
    pub fn accepts(&self, view: &View, outcome: Outcome) -> bool {
        let last_word = self.running.len() < 2 && !self.moves_on(view, outcome, Sent::Complete);
        match outcome {
            Outcome::Ok => true,
            Outcome::Status(_) | Outcome::Overload(_) | Outcome::Guard => last_word,
            Outcome::Connect | Outcome::Timeout | Outcome::Reset | Outcome::Cancelled => false,
        }
    }

    /// An attempt came to an end without an answer that was accepted.
    pub fn ended(&mut self, id: u8, outcome: Outcome, sent: Sent, now: Moment) {
        let Some(at) = self.running.iter().position(|r| r.id == id) else { return };
        let pool = self.running.swap_remove(at).pool;
        let answered = matches!(outcome, Outcome::Ok | Outcome::Status(_) | Outcome::Overload(_) | Outcome::Guard);
        self.in_doubt |= self.doubtful(sent) && !answered;
        self.last = Some(Failure { pool, outcome, sent, at: now });
    }

    /// The next thing to do.
    pub fn step(&mut self, now: Moment, view: &View, live: &dyn Live, dice: &mut Dice) -> Step {
        if now >= self.deadline {
            let doubt = self.in_doubt || self.running.iter().any(|r| self.doubtful(r.sent));
            return Step::GiveUp(if doubt { Refusal::UnknownOutcome } else { Refusal::Deadline });
        }
        match (self.running.first().copied(), self.last) {
            (None, None) => self.begin(now, view, live, dice),
            (None, Some(failure)) => self.again(failure, now, view, live, dice),
            (Some(running), _) if self.running.len() == 1 => self.beside(running, now, view, live, dice),
            (Some(_), _) => match self.doom(view) {
                Some((at, closed)) if now >= at => Step::GiveUp(closed.into()),
                // Whether it comes to that may be known only later: neither of the two looks by itself any more.
                doom => Step::Wait(doom.map_or(now + patience::LOOK, |(at, _)| at).min(self.deadline)),
            },
        }
    }

    /// When waiting makes no sense any more, and why: the route has no pool left, and whatever runs does so in pools that are
    /// dead, or are tried while suspect.
    fn doom(&self, view: &View) -> Option<(Moment, Closed)> {
        let closed = view.tables[route(&self.facts, view).table.at()].closed?;
        let lost = |r: &Running| view.pools[r.pool.at()].dead || r.trial && view.pools[r.pool.at()].suspect;
        let began = self.running.iter().map(|r| r.started).min()?;
        (self.facts.safe && self.running.iter().all(lost)).then_some((began + patience::DOOMED, closed))
    }

    /// The first attempt, or a short wait for room.
    fn begin(&mut self, now: Moment, view: &View, live: &dyn Live, dice: &mut Dice) -> Step {
        let want = Want { first: true, least: Level::Ejected, ..self.want() };
        match choose::choose(view, live, &want, now, dice) {
            Ok(pick) => self.start(pick, false, now, view, live),
            Err(Refusal::Shed) => {
                if self.asked.is_none() {
                    live.turned_away(self.facts.route);
                }
                let since = *self.asked.get_or_insert(now);
                self.queue(since, Refusal::Shed, now, view)
            }
            Err(why) => Step::GiveUp(why),
        }
    }

    /// Every pool is full: ask again soon, for as long as this priority may wait since it first asked.
    fn queue(&self, since: Moment, why: Refusal, now: Moment, view: &View) -> Step {
        let table = &view.tables[route(&self.facts, view).table.at()];
        let standing = table.order.iter().any(|p| view.pools[p.at()].reserve.is_needed());
        let until = (since + patience::queue(&service(&self.facts, view).overload, self.facts.priority, standing)).min(self.deadline);
        if now < until { Step::Wait(until.min(now + patience::ask_again(self.facts.priority))) } else { Step::GiveUp(why) }
    }

    /// After a failure with nothing else under way.
    fn again(&mut self, failure: Failure, now: Moment, view: &View, live: &dyn Live, dice: &mut Dice) -> Step {
        let why = if self.in_doubt { Refusal::UnknownOutcome } else { refusal_after(failure.outcome) };
        if self.spent || !self.attempts_left(view) || !self.moves_on(view, failure.outcome, failure.sent) {
            return Step::GiveUp(why);
        }
        let overload = matches!(failure.outcome, Outcome::Overload(_));
        let stay = self.better_stay(failure, now, view, live);
        let want = Want {
            prefer: stay.then_some(failure.pool),
            avoid: if stay { RegionSet::EMPTY } else { self.regions_tried(view) },
            // The same endpoint once more only where the failure was of the connection. Overload: another pool or none.
            least: match failure.outcome {
                Outcome::Overload(_) => Level::Sound,
                Outcome::Connect | Outcome::Reset => Level::Again,
                _ => Level::Ejected,
            },
            ..self.want()
        };
        let pick = match choose::choose(view, live, &want, now, dice) {
            Ok(pick) => pick,
            Err(Refusal::Shed) if !overload => return self.queue(failure.at, why, now, view),
            Err(_) => return Step::GiveUp(why),
        };
        if !live.take_retry(route(&self.facts, view).service) {
            return Step::GiveUp(why);
        }
        self.moved_by_overload |= overload;
        self.start(pick, false, now, view, live)
    }

    /// With one attempt under way: a second one beside it, a stop, or when to look again.
    fn beside(&mut self, r: Running, now: Moment, view: &View, live: &dyn Live, dice: &mut Dice) -> Step {
        if self.facts.upgrade || self.spent || self.streaming && self.facts.safe {
            return Step::Wait(self.deadline);
        }
        if !self.facts.safe {
            return self.upload(r, now, view, live, dice);
        }
        let (route, index) = (route(&self.facts, view), self.facts.route);
        let (overdue, dead) = (now >= r.overdue_at, view.pools[r.pool.at()].dead);
        let doom = self.doom(view);
        if let Some((_, closed)) = doom.filter(|(at, _)| now >= *at) {
            return Step::GiveUp(closed.into());
        }
        let doomed = doom.map_or(Moment::FAR, |(at, _)| at);
        let troubled = troubled(view, route, r.pool) && (!r.trial || overdue);
        // Where the whole pool is in doubt only another pool helps; a single quiet endpoint may have a good neighbour.
        let quiet = overdue && live.quiet(r.endpoint, now) >= r.started.until(r.overdue_at);
        if (troubled || quiet) && self.attempts_left(view) {
            let least = if dead {
                Level::Doubtful
            } else if troubled {
                Level::Sound
            } else {
                Level::Avoided
            };
            if let Some(step) = self.second(least, now, view, live, dice, |l| l.take_retry(route.service)) {
                return step;
            }
        }
        let hedge_at = route.hedge.filter(|_| self.hedged == 0).and_then(|h| patience::hedge(h.after, r.pace)).map(|d| r.started + d);
        if hedge_at.is_some_and(|at| now >= at)
            && let Some(step) = self.second(Level::Avoided, now, view, live, dice, |l| l.take_hedge(index))
        {
            self.hedged += 1;
            return step;
        }
        let look = if overdue { now + patience::LOOK } else { r.overdue_at.min(now + patience::LOOK_EARLY) };
        let hedge = hedge_at.filter(|at| *at > now).unwrap_or(Moment::FAR);
        Step::Wait(look.min(hedge).min(doomed).min(self.deadline))
    }

    /// A write under way. Its pool fell out before the write was complete: it cannot have been applied there, where
    /// `retry.writes` says so, and is sent again elsewhere. Once handed over it runs to its own deadline.
    fn upload(&self, r: Running, now: Moment, view: &View, live: &dyn Live, dice: &mut Dice) -> Step {
        if r.sent == Sent::Complete || !self.repeatable[r.sent as usize] || !self.attempts_left(view) {
            return Step::Wait(self.deadline);
        }
        let want = Want { avoid: self.regions_tried(view), least: Level::Sound, ..self.want() };
        if troubled(view, route(&self.facts, view), r.pool) && choose::choose(view, live, &want, now, dice).is_ok() {
            return Step::Stop(r.id);
        }
        Step::Wait(self.deadline.min(r.overdue_at.max(now + patience::LOOK_UPLOAD)))
    }

    /// A second attempt beside the first, if there is a place and the budget pays.
    fn second(
        &mut self,
        least: Level,
        now: Moment,
        view: &View,
        live: &dyn Live,
        dice: &mut Dice,
        pay: impl FnOnce(&dyn Live) -> bool,
    ) -> Option<Step> {
        let want = Want { avoid: self.regions_tried(view), least, ..self.want() };
        let pick = choose::choose(view, live, &want, now, dice).ok()?;
        pay(live).then(|| self.start(pick, true, now, view, live))
    }

    fn start(&mut self, pick: choose::Pick, hedge: bool, now: Moment, view: &View, live: &dyn Live) -> Step {
        let (route, failover) = (route(&self.facts, view), &service(&self.facts, view).failover);
        let pace = live.pace(self.facts.route, pick.pool);
        let left = if self.streaming { route.deadline } else { now.until(self.deadline) };
        let expected = if pace.known() { pace } else { patience::guess(self.elsewhere(view, live), live.reach(pick.pool)) };
        let overdue_at = now + patience::overdue(expected, failover, route);
        let late_at = overdue_at.max(now + patience::late(pace, failover, route));
        let id = self.made as u8;
        self.made += 1;
        let another = self.attempts_left(view) && another_place(view, route, pick.endpoint, &self.tried);
        let timeout = patience::attempt(pace, failover, route, left, self.repeatable[2], another);
        self.running.push(Running {
            id,
            pool: pick.pool,
            endpoint: pick.endpoint,
            started: now,
            overdue_at,
            pace,
            trial: pick.trial,
            sent: if self.streaming { Sent::Incomplete } else { Sent::Complete },
        });
        self.tried.push(pick.endpoint);
        Step::Try(Try { id, pool: pick.pool, endpoint: pick.endpoint, timeout, overdue_at, late_at, trial: pick.trial, hedge })
    }

    /// The slowest pace known of this route in any pool.
    fn elsewhere(&self, view: &View, live: &dyn Live) -> Pace {
        let paces = service(&self.facts, view).pools.iter().map(|p| live.pace(self.facts.route, *p));
        paces.max_by_key(|p| p.p99).unwrap_or_default()
    }

    /// Whether a failure of this kind lets the request be sent once more at all.
    fn moves_on(&self, view: &View, outcome: Outcome, sent: Sent) -> bool {
        match outcome {
            Outcome::Ok => false,
            Outcome::Status(s) => self.repeatable[sent as usize] && route(&self.facts, view).retry.statuses.contains(&s),
            // A write moves on where the endpoint refused it unseen.
            Outcome::Overload(_) => (self.facts.safe || sent == Sent::Nothing) && !self.moved_by_overload,
            _ => self.repeatable[sent as usize],
        }
    }

    /// Whether another endpoint of the same pool is the better second try: the connection failed, nothing else
    /// speaks against the pool, and this was the first failure. Everything else points beyond one endpoint.
    fn better_stay(&self, failure: Failure, now: Moment, view: &View, live: &dyn Live) -> bool {
        let t = view.topology();
        matches!(failure.outcome, Outcome::Connect | Outcome::Reset)
            && self.tried.len() == 1
            && !troubled(view, route(&self.facts, view), failure.pool)
            && t.pools[failure.pool.at()].endpoints().all(|e| self.tried.contains(&e) || !live.out(e, now))
    }

    fn want(&self) -> Want<'_> {
        let f = &self.facts;
        Want {
            route: f.route,
            priority: f.priority,
            may_try: f.safe && !f.upgrade,
            first: false,
            tried: &self.tried,
            prefer: None,
            affinity: self.affinity,
            avoid: RegionSet::EMPTY,
            least: Level::Ejected,
        }
    }

    fn regions_tried(&self, view: &View) -> RegionSet {
        let t = view.topology();
        self.tried.iter().fold(RegionSet::EMPTY, |set, e| set.with(t.pools[t.endpoints[e.at()].pool.at()].region))
    }

    fn attempts_left(&self, view: &View) -> bool {
        self.made - self.hedged < route(&self.facts, view).retry.attempts
    }

    /// Whether a write of which this much was sent, and nothing heard, may have been applied.
    fn doubtful(&self, sent: Sent) -> bool {
        !self.facts.safe
            && match sent {
                Sent::Nothing => false,
                Sent::Incomplete => self.writes == Writes::Unsent,
                Sent::Complete => true,
            }
    }
}

/// Whether the route could be served by an endpoint that this request has not tried.
fn another_place(view: &View, route: &Route, now: EndpointIx, tried: &[EndpointIx]) -> bool {
    let t = view.topology();
    let order = &view.tables[route.table.at()].order;
    order.iter().any(|p| t.pools[p.at()].endpoints().any(|e| e != now && !tried.contains(&e)))
}

fn route<'v>(facts: &Facts, view: &'v View) -> &'v Route {
    &view.topology().routes[facts.route.at()]
}

fn service<'v>(facts: &Facts, view: &'v View) -> &'v Service {
    &view.topology().services[route(facts, view).service.at()]
}

/// Whether new work keeps away from a pool: it is suspect, dead, or no longer in the route's table.
/// A drained pool is well: what it has, it finishes.
fn troubled(view: &View, route: &Route, pool: PoolIx) -> bool {
    let p = &view.pools[pool.at()];
    !p.drained && (p.suspect || p.dead || !view.tables[route.table.at()].order.contains(&pool))
}

/// Why a request is given up after its last attempt failed so.
fn refusal_after(outcome: Outcome) -> Refusal {
    match outcome {
        Outcome::Timeout => Refusal::Deadline,
        Outcome::Overload(_) => Refusal::Shed,
        _ => Refusal::NoRegion,
    }
}
