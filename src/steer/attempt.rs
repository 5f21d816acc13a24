//! What one request does: the machine of attempts, retries, hedges and deadlines.
//!
//! The edge drives it:
//!
//! ```text
//! let mut a = Attempt::new(facts, &view);
//! loop { match a.step(now, &newest_view, live, dice) {
//!     Try(t)      => start it, step again
//!     Wait(until) => wait for an attempt of its own to come to an end, or for `until`; step again
//!     Stop(id)    => drop that attempt (release no more of its body), tell ended(id, ...), step again
//!     GiveUp(why) => stop what runs; fallback::decide
//! }}
//! response head arrives:  o = classify::status(..); if a.accepts(o) { relay it; drop the machine and every other attempt }
//!                         else { hold it; a.ended(id, o, Sent::Complete, now); step }
//! attempt fails:          a.ended(id, outcome, sent, now); step
//! ```
//!
//! The view handed to `step` must be of the same config generation as the one it was made with.

use super::choose::{self, Want};
use super::fallback::Refusal;
use crate::model::dice::Dice;
use crate::model::id::*;
use crate::model::outcome::{Outcome, Sent};
use crate::model::time::{Duration, Moment};
use crate::model::view::{Facts, Live, View};
use smallvec::SmallVec;

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

/// One attempt to start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Try {
    /// Counts a request's attempts from 0.
    pub id: u8,
    /// Where.
    pub pool: PoolIx,
    /// At which endpoint.
    pub endpoint: EndpointIx,
    /// Until the first byte of the answer, from now or from when the last byte of the request was handed over, whichever is later.
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
    deadline: Moment,
    tried: SmallVec<[EndpointIx; 4]>,
    running: SmallVec<[u8; 2]>,
}

impl Attempt {
    /// A machine for a request that is complete, or whose body streams.
    pub fn new(facts: Facts, view: &View) -> Self {
        let deadline = facts.started + view.topology().routes[facts.route.at()].deadline;
        Self { facts, deadline, tried: SmallVec::new(), running: SmallVec::new() }
    }
    /// What it was made with.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }
    /// When the request must have its answer. [`Moment::FAR`] while its body is still coming in.
    pub fn deadline(&self) -> Moment {
        self.deadline
    }
    /// The next thing to do.
    pub fn step(&mut self, now: Moment, view: &View, live: &dyn Live, dice: &mut Dice) -> Step {
        if now >= self.deadline {
            return Step::GiveUp(Refusal::Deadline);
        }
        if !self.running.is_empty() {
            return Step::Wait(self.deadline);
        }
        let f = &self.facts;
        let first = self.tried.is_empty();
        let want = Want { route: f.route, priority: f.priority, safe: f.safe, tried: &self.tried, avoid: RegionSet::EMPTY, first };
        match choose::choose(view, live, &want, now, dice) {
            Ok(p) => {
                let id = self.tried.len() as u8;
                self.tried.push(p.endpoint);
                self.running.push(id);
                let timeout = view.topology().routes[f.route.at()].attempt_timeout.min(now.until(self.deadline));
                let (overdue_at, late_at) = (now + timeout / 2, now + timeout);
                Step::Try(Try { id, pool: p.pool, endpoint: p.endpoint, timeout, overdue_at, late_at, trial: p.trial, hedge: false })
            }
            Err(why) => Step::GiveUp(why),
        }
    }
    /// Whether an answer classified so goes to the client. Otherwise hold it (its body unread), and tell [`Attempt::ended`].
    pub fn accepts(&self, view: &View, outcome: Outcome) -> bool {
        let _ = view;
        outcome == Outcome::Ok
    }
    /// An attempt came to an end without an answer that was accepted.
    pub fn ended(&mut self, id: u8, outcome: Outcome, sent: Sent, now: Moment) {
        let _ = (outcome, sent, now);
        self.running.retain(|r| *r != id);
    }
    /// The body of the request goes on coming in: no deadline runs (`limits.body_*` bound it) until [`Attempt::complete`].
    pub fn streams(&mut self) {
        self.deadline = Moment::FAR;
    }
    /// The last byte of the request's body came in: the clock starts.
    pub fn complete(&mut self, view: &View, now: Moment) {
        self.deadline = now + view.topology().routes[self.facts.route.at()].deadline;
    }
}
