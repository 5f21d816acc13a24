//! Single endpoints: what probes and their own streaks say of them.
//!
//! The streak of live failures ejects an endpoint in the request path, at once; here that is only recorded.
//! Probes take one out after `fall` failures in a row and bring it back after `rise` passes, but:
//!
//! - a failing probe says nothing against an endpoint that answered a live request well in the last ten
//!   seconds and is not failing now;
//! - a *soft* probe failure (a wrong status or body) is not believed while, or soon after, the same checker is
//!   proved wrong on a pool with live traffic: then the checker is broken, not the standby. To let the others be
//!   heard, soft failures alone take an endpoint out only after two intervals;
//! - a passing probe ends an ejection only when the probe itself had failed during it. A probe that passed all
//!   along saw nothing of the fault and cannot see the end of it.

use crate::model::event::Cause;
use crate::model::id::EndpointIx;
use crate::model::policy::Health;
use crate::model::signal::{EndpointTally, ProbeVerdict};
use crate::model::time::{Duration, Moment};

/// Live evidence outweighs probes for so long.
pub const FRESH: Duration = Duration::from_secs(10);

/// Hard probe failures must last this long, however often was asked meanwhile: no pause does, with the time a
/// question waits before it.
const HARD: Duration = Duration::from_millis(200);

/// What the control side must write into an endpoint's cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointOrder {
    /// Probes took it out (`true`), or no longer do (`false`).
    ProbeDown(EndpointIx, bool),
    /// End its ejection now: it is proved well.
    Restore(EndpointIx),
}

/// One endpoint.
#[derive(Clone, Debug, Default)]
pub struct Mind {
    passes: u32,
    fails: u32,
    /// The last probe's result, and when.
    pub last: Option<(Moment, ProbeVerdict)>,
    /// When a probe last failed.
    last_failed: Option<Moment>,
    /// When the present run of failures began.
    failing_from: Moment,
    /// Out by probes.
    pub probe_down: bool,
    /// When a live request was last answered well.
    pub last_ok: Moment,
    /// As last told by its cell.
    pub tally: EndpointTally,
    /// What was last put on record, and when.
    up: bool,
    out_since: Moment,
}

impl Mind {
    /// Nothing known, taken for well.
    pub fn new() -> Self {
        Self { up: true, ..Self::default() }
    }
    /// A probe came back.
    pub fn probed(&mut self, now: Moment, verdict: ProbeVerdict) {
        if verdict.passed() {
            (self.passes, self.fails) = (self.passes.saturating_add(1), 0);
        } else {
            if self.fails == 0 {
                self.failing_from = now;
            }
            (self.passes, self.fails) = (0, self.fails.saturating_add(1));
            self.last_failed = Some(now);
        }
        self.last = Some((now, verdict));
    }
    /// Its cell's word, at a full tick.
    pub fn told(&mut self, now: Moment, t: &EndpointTally) {
        if t.ok > 0 {
            self.last_ok = now;
        }
        self.tally = t.clone();
    }
    /// Whether it answers live requests well at present.
    pub fn live_well(&self, now: Moment) -> bool {
        self.last_ok > Moment::ZERO && now.since(self.last_ok) <= FRESH && self.tally.streak == 0
    }
    /// Whether its streak took it out.
    pub fn ejected(&self, now: Moment) -> bool {
        self.tally.ejected_until > now
    }
    /// Whether anything took it out.
    pub fn out(&self, now: Moment) -> bool {
        self.probe_down || self.ejected(now)
    }
    /// Whether what took it out is hard evidence.
    pub fn out_hard(&self, now: Moment) -> bool {
        self.ejected(now) && self.tally.ejected_hard || self.probe_down && self.last.as_ref().is_some_and(|(_, v)| v.is_hard())
    }
    /// Whether its probes pass: as often in a row as it takes, or so far always.
    pub fn passing(&self, h: &Health) -> bool {
        self.fails == 0 && self.passes > 0 && (self.passes >= h.rise || self.last_failed.is_none())
    }
    /// Whether the last probe passed, and not before `since`.
    pub fn passed_since(&self, since: Moment) -> bool {
        self.last.as_ref().is_some_and(|(at, v)| *at >= since && v.passed())
    }
    /// Whether a probe failed at or after `since`.
    pub fn probe_failed_since(&self, since: Moment) -> bool {
        self.last_failed.is_some_and(|f| f >= since)
    }
    /// Whether its probes are proved wrong: the last one failed softly, while live requests are answered well.
    pub fn belied(&self, now: Moment) -> bool {
        self.fails > 0 && self.live_well(now) && self.last.as_ref().is_some_and(|(_, v)| !v.is_hard())
    }
    /// The pool was heard again: give it the benefit of the doubt. Answers whether probes held it out.
    pub fn revive(&mut self) -> bool {
        self.fails = 0;
        self.tally.ejected_until = Moment::ZERO;
        std::mem::take(&mut self.probe_down)
    }
    /// Decide anew whether probes take it out. `lying`: the checker is proved wrong elsewhere;
    /// `may_fall`: the endpoint has a story of its own (its whole pool is not silent).
    /// The answer is what to write into the cell, where it changed.
    pub fn decide(&mut self, now: Moment, ix: EndpointIx, h: &Health, lying: bool, may_fall: bool) -> Option<EndpointOrder> {
        let soft = self.last.as_ref().is_some_and(|(_, v)| !v.is_hard());
        let excused = self.live_well(now) || lying && soft;
        let long = if soft { h.interval * 2 } else { HARD.min(h.interval) };
        let failing = self.fails >= h.fall && now.since(self.failing_from) >= long;
        let down = if self.probe_down { !(self.passing(h) || excused) } else { failing && !excused && may_fall };
        if down != self.probe_down {
            self.probe_down = down;
            return Some(EndpointOrder::ProbeDown(ix, down));
        }
        // The ejection began some time before its end; a failure within the last `FRESH` is within it or just before.
        let saw_it = self.last_failed.is_some_and(|f| now.since(f) <= FRESH.max(h.interval * (h.rise + 2)));
        if self.ejected(now) && self.tally.ejected_hard && saw_it && self.passing(h) {
            self.tally.ejected_until = Moment::ZERO;
            return Some(EndpointOrder::Restore(ix));
        }
        None
    }
    /// A change of up and down that is not on record yet, and why.
    pub fn news(&mut self, now: Moment, h: Option<&Health>) -> Option<(bool, Cause)> {
        let up = !self.out(now);
        if up == self.up {
            return None;
        }
        self.up = up;
        let cause = if up {
            self.cause_up(now, h)
        } else {
            self.out_since = now;
            self.cause_out(now)
        };
        Some((up, cause))
    }
    fn cause_up(&self, now: Moment, h: Option<&Health>) -> Cause {
        match h {
            Some(h) if self.passing(h) && self.last_failed.is_some_and(|f| f >= self.out_since) => Cause::Proven { successes: self.passes },
            _ if self.last_ok >= self.out_since => Cause::Heard,
            _ => Cause::OpenTimeOver { open_s: now.since(self.out_since).as_secs() },
        }
    }
    /// Why it is out.
    pub fn cause_out(&self, now: Moment) -> Cause {
        if self.ejected(now) {
            return Cause::Streak { failures: self.tally.streak, hard: self.tally.ejected_hard };
        }
        Cause::Probes { down: 1, endpoints: 1, last: self.last.as_ref().map_or_else(String::new, |(_, v)| say(v)) }
    }
}

/// A probe's verdict in words.
pub fn say(v: &ProbeVerdict) -> String {
    match v {
        ProbeVerdict::Pass => "passes".into(),
        ProbeVerdict::Connect(why) => format!("no connection: {why}"),
        ProbeVerdict::Timeout => "no answer in time".into(),
        ProbeVerdict::Status(s) => format!("status {s}"),
        ProbeVerdict::Body(why) => format!("body: {why}"),
    }
}

#[cfg(test)]
mod tests;
