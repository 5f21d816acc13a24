//! The way out and the way back of one pool: how long it stays open, the hold, the trial, the steps.
//!
//! - **Open time** doubles from `open.0` to `open.1` (± 10 %) when it trips again soon, so that a flapping
//!   pool costs less each time; it starts anew after a minute, or twice the last open time, of good service.
//! - **Hold**: from its open time it goes to trial once good evidence has lasted for `hold`. Passing probes are
//!   good evidence, a failed live attempt ends it.
//! - **Trial**: `trial_successes` live successes prove it, one failure that other regions did not share sends it
//!   back. With too little traffic to have trials, passing probes prove it after another `hold`; where no trial came at all, however
//!   much was asked, after two: writes are never trials, and a service may have nothing else.
//! - **Steps**: each is held for `step_time` and passed with enough success and a p99 of at most
//!   `latency_ratio` × its own p99 before it tripped; otherwise one step back, at once when it is plain.
//!   On the first step there is nothing to step back to: failures there are a relapse, slowness waits.
//! - **Cold caches** are slow, and warm by being used: to step back for that would take away what mends it, and the
//!   pool would swing between two steps. So a slow step whose own second half was markedly faster than its first
//!   ([`Way::warming`]) is held for another `step_time`. A pool that is slow because the step is too much does not become faster on it.
//!
//! - **In a fleet** the edges climb together: who has passed a step waits for those who have not, for at most
//!   [`TOGETHER`] × `step_time`, so that the region sees the step's share of all traffic, not a mixture of steps. The
//!   successes of a trial are asked of the fleet, not of each edge.
//!
//! Counts begin anew with every state and step: only evidence newer than the trip counts.
//! It does not decide who trips; it does not know other pools.

use super::region::Move;
use crate::model::dice::Dice;
use crate::model::event::Cause;
use crate::model::policy::{Failover, Recovery};
use crate::model::signal::Hist;
use crate::model::time::{Duration, Moment};
use crate::model::view::State;

/// Judged attempts without which a step cannot be judged.
const ENOUGH: u32 = 20;
/// A fleet waits for its slowest edge for so many times `step_time`: no single edge can hold up the others for ever.
pub const TOGETHER: u32 = 3;
/// Good service after which the next open time is the first again (or twice the last open time).
const AMENDED: Duration = Duration::from_secs(60);
/// p99 may be over the usual by this much whatever the ratio: a histogram bucket of a fast pool.
const SLACK: Duration = Duration::from_millis(5);
/// Faster by so much than half a step ago is warming: two buckets of the histogram, more than chance makes of twenty samples' ninth decile.
const WARMER: f64 = 0.72;
/// Requests offered to the service during a trial, per success wanted, below which traffic is too little to judge by.
const SCARCE: f64 = 4.0;

/// What happened to a pool since the last full tick.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Good answers.
    pub ok: u32,
    /// Failures that other regions did not share.
    pub failed: u32,
    /// Trials that came back well.
    pub trial_ok: u32,
    /// Trials that failed.
    pub trial_failed: u32,
    /// Times to first byte.
    pub latency: Hist,
    /// What probes say; `None`: there are none.
    pub probes: Option<bool>,
    /// Requests offered to the service; zero for a pool that may get none (drained).
    pub offered: f64,
    /// What the rest of the fleet means for the way back.
    pub fleet: Pace,
}

/// The pace of a fleet on the way back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// The other live edges: with more of them, each needs fewer trials of its own.
    pub others: u32,
    /// Steps passed by the edge that has passed fewest; `None`: it comes back nowhere else.
    pub lowest: Option<u32>,
    /// The majority holds it out.
    pub held_out: bool,
}

/// The state of one pool, and how it got there.
#[derive(Clone, Debug)]
pub struct Way {
    /// The state.
    pub state: State,
    /// Since when.
    pub since: Moment,
    /// Why.
    pub cause: Option<Cause>,
    /// An operator tripped it: only an operator brings it back.
    pub pinned: bool,
    /// Only probes spoke against it, and it had no traffic to lose.
    pub idle_trip: bool,
    /// When it last left service.
    pub tripped_at: Moment,
    level: Option<u32>,
    open_for: Duration,
    good_since: Option<Moment>,
    step: usize,
    step_since: Moment,
    sum: Progress,
    /// Times to first byte in the first half of the step.
    early: Option<Hist>,
    usual_p99: Option<Duration>,
    /// The step is passed, and the others are waited for.
    passed: bool,
}

impl Way {
    /// In service.
    pub fn new(now: Moment) -> Self {
        Self {
            state: State::Serving,
            since: now,
            cause: None,
            pinned: false,
            idle_trip: false,
            tripped_at: Moment::ZERO,
            level: None,
            open_for: Duration::ZERO,
            good_since: None,
            step: 0,
            step_since: now,
            sum: Progress::default(),
            early: None,
            usual_p99: None,
            passed: false,
        }
    }
    /// Steps of the ramp passed, for the others of a fleet; `None`: it is not coming back at present.
    pub fn rung(&self) -> Option<u32> {
        match self.state {
            State::Serving => None,
            State::Tripped => (!self.pinned && self.good_since.is_some()).then_some(0),
            State::Trial => Some(0),
            State::Ramping => Some(self.step as u32 + u32::from(self.passed)),
        }
    }
    /// How long nothing has spoken against it, while it is out.
    pub fn good_for(&self, now: Moment) -> Duration {
        self.good_since.map_or(Duration::ZERO, |since| now.since(since))
    }
    /// The part of its normal share it gets.
    pub fn part(&self, r: &Recovery) -> f64 {
        if self.state == State::Ramping { r.steps.get(self.step).copied().unwrap_or(1.0) } else { 1.0 }
    }
    /// Out, but with nothing to say against it for the moment.
    pub fn seems_well(&self) -> bool {
        self.state == State::Trial || self.state == State::Tripped && !self.pinned && self.good_since.is_some()
    }
    /// When the open time is over.
    pub fn open_until(&self) -> Moment {
        self.tripped_at + self.open_for
    }
    /// When time alone may move it on.
    pub fn next_deadline(&self, r: &Recovery) -> Option<(Moment, &'static str)> {
        match self.state {
            State::Tripped if !self.pinned => {
                let held = self.good_since.map_or(Moment::FAR, |g| g + r.hold);
                (held != Moment::FAR).then(|| (self.open_until().max(held), "open time over"))
            }
            State::Trial => Some((self.since + r.hold, "trial by probes")),
            State::Ramping => Some((self.step_since + r.step_time, "ramp step")),
            _ => None,
        }
    }
    /// Enter a state. `usual_p99` is remembered when service ends.
    pub fn enter(&mut self, now: Moment, to: State, cause: Cause, f: &Failover, usual_p99: Option<Duration>, dice: &mut Dice) {
        if to == State::Tripped {
            let amended = self.state == State::Serving && now.since(self.since) >= AMENDED.max(self.open_for * 2);
            let level = self.level.filter(|_| !amended).map_or(0, |l| (l + 1).min(20));
            let nominal = f.open.0.saturating_mul(1 << level).min(f.open.1.max(f.open.0));
            self.open_for = dice.between(nominal.mul_f64(0.9), nominal.mul_f64(1.1));
            self.level = Some(level);
            self.idle_trip = false;
            self.tripped_at = now;
            self.good_since = None;
            if self.state == State::Serving {
                self.usual_p99 = usual_p99;
            }
        } else {
            self.pinned = false;
        }
        (self.state, self.since, self.cause) = (to, now, Some(cause));
        self.begin(now, 0);
    }
    /// Forget how often it tripped (an operator put it back).
    pub fn forgive(&mut self) {
        (self.level, self.idle_trip) = (None, false);
    }
    fn begin(&mut self, now: Moment, step: usize) {
        (self.step, self.step_since, self.sum, self.early, self.passed) = (step, now, Progress::default(), None, false);
    }
    /// A full tick: a move that is due, or a step of the ramp (`Ok` with the percentage).
    pub fn tick(&mut self, now: Moment, p: &Progress, r: &Recovery) -> Option<(Option<Move>, Cause)> {
        let s = &mut self.sum;
        s.ok += p.ok;
        s.failed += p.failed;
        s.trial_ok += p.trial_ok;
        s.trial_failed += p.trial_failed;
        s.offered += p.offered;
        s.latency.merge(&p.latency);
        match self.state {
            State::Serving => None,
            State::Tripped => self.cool(now, p, r),
            State::Trial => self.prove(now, p, r),
            State::Ramping => self.climb(now, p, r),
        }
    }
    fn cool(&mut self, now: Moment, p: &Progress, r: &Recovery) -> Option<(Option<Move>, Cause)> {
        if self.pinned {
            return None;
        }
        if p.probes == Some(false) || p.failed > 0 {
            self.good_since = None;
            return None;
        }
        let since = *self.good_since.get_or_insert(now);
        let due = now >= self.open_until() && now.since(since) >= r.hold && !p.fleet.held_out;
        due.then(|| (Some(Move::Cool), Cause::OpenTimeOver { open_s: now.since(self.tripped_at).as_secs() }))
    }
    fn prove(&mut self, now: Moment, p: &Progress, r: &Recovery) -> Option<(Option<Move>, Cause)> {
        let s = &self.sum;
        let relapse = |what: String| Some((Some(Move::Fail), Cause::Relapse { what }));
        if s.trial_failed > 0 {
            return relapse(format!("{} of {} trials failed", s.trial_failed, s.trial_ok + s.trial_failed));
        }
        if s.trial_ok == 0 && p.probes == Some(false) {
            return relapse("probes fail again".into());
        }
        let wanted = r.trial_successes.div_ceil(p.fleet.others + 1).max(1);
        let (waited, none) = (now.since(self.since), s.trial_ok + s.trial_failed == 0);
        let scarce = s.offered < SCARCE * f64::from(wanted) && waited >= r.hold || none && waited >= r.hold * 2;
        if s.trial_ok < wanted && !scarce {
            return None;
        }
        let warm = self.idle_trip && now.since(self.tripped_at) <= r.warm;
        let by = if warm { Move::Warm } else { Move::Prove };
        Some((Some(by), Cause::Proven { successes: s.trial_ok }))
    }
    fn climb(&mut self, now: Moment, p: &Progress, r: &Recovery) -> Option<(Option<Move>, Cause)> {
        if self.early.is_none() && now.since(self.step_since) >= r.step_time / 2 {
            self.early = Some(std::mem::take(&mut self.sum.latency));
        }
        let s = &self.sum;
        let judged = s.ok + s.failed;
        let success = if judged == 0 { 1.0 } else { f64::from(s.ok) / f64::from(judged) };
        // Plain before the step is over: five times the failures allowed, and not by bad luck of a few.
        let plain = judged >= ENOUGH && s.failed >= 3 && 1.0 - success > 5.0 * (1.0 - r.success);
        let over = now.since(self.step_since) >= r.step_time;
        if !plain && !over {
            return None;
        }
        let failing = judged >= ENOUGH && success < r.success;
        let slow = self.slow(r).filter(|_| judged >= ENOUGH);
        let down = judged < ENOUGH && p.probes == Some(false) && s.ok == 0;
        if failing || down {
            if self.step == 0 {
                let what = if failing { format!("{} of {judged} failed on the first step", s.failed) } else { "probes fail again".into() };
                return Some((Some(Move::Fail), Cause::Relapse { what }));
            }
            return self.step_to(now, self.step - 1, r);
        }
        if let Some(cause) = slow {
            let back = if self.warming() { self.step } else { self.step.saturating_sub(1) };
            if back == self.step {
                self.begin(now, back);
                return None;
            }
            self.begin(now, back);
            self.cause = Some(cause.clone());
            return Some((None, cause));
        }
        if self.step + 1 >= r.steps.len() {
            return Some((Some(Move::Fill), Cause::Recovered));
        }
        self.passed = true;
        let behind = p.fleet.lowest.is_some_and(|lowest| lowest <= self.step as u32);
        if behind && now.since(self.step_since) < r.step_time * TOGETHER {
            return None;
        }
        self.step_to(now, self.step + 1, r)
    }
    fn step_to(&mut self, now: Moment, step: usize, r: &Recovery) -> Option<(Option<Move>, Cause)> {
        self.begin(now, step);
        let cause = Cause::Step { percent: self.part(r) * 100.0 };
        self.cause = Some(cause.clone());
        Some((None, cause))
    }
    /// Why it is too slow; `None`: it is not.
    fn slow(&self, r: &Recovery) -> Option<Cause> {
        let mut latency = self.sum.latency.clone();
        self.early.iter().for_each(|early| latency.merge(early));
        let (usual, now) = (self.usual_p99?, latency.quantile(0.99)?);
        let ms = |d: Duration| d.as_millis() as u64;
        (now > usual.mul_f64(r.latency_ratio).max(usual + SLACK)).then(|| Cause::Slow { p99_ms: ms(now), usual_ms: ms(usual) })
    }
    /// Whether the second half of the step was faster than the first, by at least [`WARMER`] at its slow end or in the middle.
    fn warming(&self) -> bool {
        let Some(early) = &self.early else { return false };
        let late = &self.sum.latency;
        let enough = early.count().min(late.count()) >= u64::from(ENOUGH);
        let faster = |q| matches!((early.quantile(q), late.quantile(q)), (Some(e), Some(l)) if l <= e.mul_f64(WARMER));
        enough && (faster(0.9) || faster(0.5))
    }
}

#[cfg(test)]
mod tests;
