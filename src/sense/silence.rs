//! Has the pool gone quiet while requests wait? Two stages, so that a garbage-collection pause or a lost
//! packet does not move a region:
//!
//! ```text
//! Calm ──3 overdue, quiet ≥ suspect_floor──▶ Suspect ──asked and quiet ≥ silence_floor──▶ Silent
//!   ▲                                           │                                           │
//!   └───────────────────── the first byte heard ┴───────────────────────────────────────────┘
//! ```
//!
//! An attempt is *overdue* or *late* by its own route's pace, so a slow route raises no alarm; three of them,
//! because one or two lost packets happen every day. *Quiet* is the time since anything was heard from the
//! pool, counted from when somebody began to wait; 250 ms is longer than any pause a well-run heap makes.
//!
//! Silence proves something only while somebody asks. A suspect pool gets no new work, and hedges win before
//! its attempts become late; so besides three late ones, two recent unanswered questions (trials) count as
//! asking. When fresh connections fail as well, 100 ms are enough.
//!
//! **Our own stall** is not their silence: by what a tick came late the quiet time is shortened, and after a
//! stall worth the name it starts again. **False alarms** raise the bar: each suspicion that ended with a byte
//! within the last ten seconds doubles the floor of the next, up to `silence_floor`.
//!
//! It does not see requests that hang while others are answered; the [`detector`](super::detector) does.

use crate::model::policy::Failover;
use crate::model::signal::PoolTally;
use crate::model::time::{Duration, Moment};

/// Overdue (or late) attempts it takes.
pub const ASKING: u32 = 3;
/// A tick this late is a stall: the quiet time starts again.
pub const STALL: Duration = Duration::from_millis(50);
/// Quiet time that suffices when connections fail as well.
const WITH_CONNECTS: Duration = Duration::from_millis(100);
/// False alarms are remembered for this long.
const MEMORY: Duration = Duration::from_secs(10);
/// Recent unanswered questions that stand for late attempts.
const QUESTIONS: u32 = 2;

/// A suspicion that nobody could test ends after this.
const UNTESTED: Duration = Duration::from_secs(2);

/// How quiet it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nothing to remark.
    Calm,
    /// New work goes elsewhere for the moment.
    Suspect,
    /// Silent beyond any pause.
    Silent,
}

/// What else is known at a tick.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evidence {
    /// Recent connect failures, with no success among them.
    pub connects_fail: bool,
    /// Attempts begun recently, old enough for an answer, since nothing was heard.
    pub questions: u32,
    /// Late attempts since the suspicion began that were not answered.
    pub lates: u32,
    /// How late this tick came.
    pub late_tick: Duration,
}

/// The silence of one pool.
#[derive(Clone, Debug, Default)]
pub struct Silence {
    heard: Moment,
    /// Somebody has been waiting since.
    waiting_since: Option<Moment>,
    /// Our own stalls since the quiet began.
    excused: Duration,
    /// The last real stall ended then.
    restart: Moment,
    /// Suspect since.
    since: Option<Moment>,
    silent: bool,
    /// Ends of false alarms, the latest last.
    alarms: Vec<Moment>,
}

impl Silence {
    /// When the present suspicion began.
    pub fn since(&self) -> Option<Moment> {
        self.since
    }
    /// When anything was last heard.
    pub fn heard(&self) -> Moment {
        self.heard
    }
    /// How long nothing has been heard although somebody waited.
    pub fn quiet(&self, now: Moment) -> Duration {
        let Some(waiting) = self.waiting_since else { return Duration::ZERO };
        now.since(waiting.max(self.heard).max(self.restart)).saturating_sub(self.excused)
    }
    /// Forget the suspicion (an operator said so).
    pub fn clear(&mut self) {
        *self = Self { heard: self.heard, ..Self::default() };
    }
    /// Take a tick in.
    pub fn observe(&mut self, now: Moment, t: &PoolTally, e: Evidence, rules: &Failover) -> Stage {
        if t.heard > self.heard {
            self.heard = t.heard;
            self.excused = Duration::ZERO;
        }
        if t.waiting == 0 && self.since.is_none() {
            self.waiting_since = None;
        } else if self.waiting_since.is_none() {
            self.waiting_since = Some(now);
            self.excused = Duration::ZERO;
        }
        if e.late_tick >= STALL {
            (self.restart, self.excused) = (now, Duration::ZERO);
        } else if self.waiting_since.is_some_and(|w| w < now) {
            self.excused += e.late_tick;
        }
        if let Some(since) = self.since.filter(|s| self.heard > *s) {
            self.since = None;
            if !self.silent && since + MEMORY > now {
                self.alarms.push(now);
            }
            self.silent = false;
        }
        self.alarms.retain(|a| *a + MEMORY > now);
        let quiet = self.quiet(now);
        if self.since.is_none() && t.overdue >= ASKING && quiet >= self.floor(rules) {
            self.since = Some(now);
        }
        let Some(since) = self.since else { return Stage::Calm };
        if !self.silent && t.waiting == 0 && e.questions == 0 && now.since(since) >= UNTESTED {
            (self.since, self.waiting_since) = (None, None);
            return Stage::Calm;
        }
        let asked = t.late.max(e.lates) >= ASKING || e.questions >= QUESTIONS;
        self.silent |= asked && quiet >= rules.silence_floor || e.connects_fail && quiet >= WITH_CONNECTS.min(rules.silence_floor);
        if self.silent { Stage::Silent } else { Stage::Suspect }
    }
    /// The quiet time that makes suspect, raised by recent false alarms.
    fn floor(&self, rules: &Failover) -> Duration {
        let times = 1u32 << self.alarms.len().min(8);
        (rules.suspect_floor * times).min(rules.silence_floor.max(rules.suspect_floor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: u64 = 100_000;

    struct Run {
        s: Silence,
        heard: u64,
    }
    impl Run {
        fn new() -> Self {
            let mut r = Self { s: Silence::default(), heard: T };
            r.tick(T, 3, 0, 0, Evidence::default());
            r
        }
        fn tick(&mut self, ms: u64, waiting: u32, overdue: u32, late: u32, e: Evidence) -> Stage {
            let t = PoolTally { waiting, overdue, late, heard: Moment::ms(self.heard), ..Default::default() };
            self.s.observe(Moment::ms(ms), &t, e, &Failover::default())
        }
        fn calm(&mut self, ms: u64, waiting: u32, overdue: u32, late: u32) -> Stage {
            self.tick(ms, waiting, overdue, late, Evidence::default())
        }
    }

    #[test]
    fn suspect_at_three_overdue_and_thirty_ms_not_before() {
        assert_eq!(Run::new().calm(T + 30, 5, 3, 0), Stage::Suspect);
        assert_eq!(Run::new().calm(T + 30, 5, 2, 0), Stage::Calm);
        assert_eq!(Run::new().calm(T + 29, 5, 3, 0), Stage::Calm);
    }

    #[test]
    fn silent_at_three_late_and_250_ms_not_before() {
        for (ms, late, want) in [(250, 3, Stage::Silent), (249, 3, Stage::Suspect), (250, 2, Stage::Suspect)] {
            let mut r = Run::new();
            r.calm(T + 30, 5, 5, 0);
            assert_eq!(r.calm(T + ms, 5, 5, late), want, "{ms} {late}");
        }
    }

    #[test]
    fn unanswered_questions_count_as_asking() {
        let mut r = Run::new();
        r.calm(T + 30, 5, 5, 0);
        assert_eq!(r.tick(T + 250, 1, 1, 0, Evidence { questions: 1, ..Default::default() }), Stage::Suspect);
        assert_eq!(r.tick(T + 250, 1, 1, 0, Evidence { questions: 2, ..Default::default() }), Stage::Silent);
    }

    #[test]
    fn failing_connections_hurry_it() {
        let failing = Evidence { connects_fail: true, ..Default::default() };
        let mut r = Run::new();
        assert_eq!(r.tick(T + 30, 5, 5, 0, failing), Stage::Suspect);
        assert_eq!(r.tick(T + 99, 5, 5, 0, failing), Stage::Suspect);
        assert_eq!(r.tick(T + 100, 5, 5, 0, failing), Stage::Silent);
    }

    #[test]
    fn the_first_byte_ends_it_and_raises_the_bar() {
        let mut r = Run::new();
        assert_eq!(r.calm(T + 40, 5, 5, 0), Stage::Suspect);
        r.heard = T + 45;
        assert_eq!(r.calm(T + 50, 5, 5, 0), Stage::Calm);
        assert_eq!(r.calm(T + 104, 5, 5, 0), Stage::Calm, "59 ms");
        assert_eq!(r.calm(T + 105, 5, 5, 0), Stage::Suspect, "60 ms");
    }

    #[test]
    fn our_own_stall_proves_nothing() {
        let mut r = Run::new();
        let stalled = Evidence { late_tick: Duration::from_millis(300), ..Default::default() };
        assert_eq!(r.tick(T + 310, 5, 5, 5, stalled), Stage::Calm);
        assert_eq!(r.calm(T + 339, 5, 5, 5), Stage::Calm);
        assert_eq!(r.calm(T + 340, 5, 5, 5), Stage::Suspect);
        assert_eq!(r.calm(T + 559, 5, 5, 5), Stage::Suspect);
        assert_eq!(r.calm(T + 560, 5, 5, 5), Stage::Silent);
    }

    #[test]
    fn an_idle_pool_is_not_quiet() {
        let mut r = Run::new();
        r.calm(T + 10, 0, 0, 0);
        assert_eq!(r.calm(T + 10_000, 5, 3, 0), Stage::Calm, "they only began to wait");
        assert_eq!(r.calm(T + 10_030, 5, 3, 0), Stage::Suspect);
    }
}
