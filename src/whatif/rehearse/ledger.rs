//! What happened, folded as it happens: per route and stretch of time, and in tenths of a second for recovery.

use super::super::trace::{Fate, Gauge, Note, Witness};
use super::super::world::BEGIN;
use super::Scenario;
use super::stage::Stage;
use crate::model::dice::Dice;
use crate::model::event::EventKind;
use crate::model::id::*;
use crate::model::outcome::{Outcome, RequestOutcome};
use crate::model::policy::{Priority, Route};
use crate::model::signal::Hist;
use crate::model::time::{Duration, Moment};
use crate::model::view::{Facts, State};
use crate::steer::fallback::{self, Way};

/// How a request felt to its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Felt {
    /// A good answer.
    Good,
    /// A marked last good copy.
    Stale,
    /// A marked fixed answer below 400.
    Static,
    /// A write taken into the spool.
    Spooled,
    /// A good status with nonsense in it.
    Wrong,
    /// Refused for want of room.
    Shed,
    /// Refused for want of a region or of time.
    Refused,
    /// A bad answer.
    Failed,
    /// A write of unknown outcome.
    Unknown,
}

/// How many ways a request can feel.
pub const FELT: usize = 9;

/// Counts of one route in one stretch, in real requests, by [`Felt`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Count {
    /// By [`Felt`].
    pub felt: [f64; FELT],
    /// Of those that were served: times.
    pub took: Hist,
}

impl Count {
    /// All.
    pub fn asked(&self) -> f64 {
        self.felt.iter().sum()
    }
    /// One kind.
    pub fn of(&self, felt: Felt) -> f64 {
        self.felt[felt as usize]
    }
    /// Answered in a way that helps.
    pub fn served(&self) -> f64 {
        self.felt[..=Felt::Spooled as usize].iter().sum()
    }
    /// Add another's.
    pub fn add(&mut self, other: &Self) {
        self.felt.iter_mut().zip(other.felt).for_each(|(a, b)| *a += b);
        self.took.merge(&other.took);
    }
}

/// One stretch of time.
#[derive(Clone, Debug, Default)]
pub struct Stretch {
    /// By [`RouteIx`].
    pub routes: Vec<Count>,
    /// By [`PoolIx`]: attempts, in real requests.
    pub tries: Vec<f64>,
    /// By [`PoolIx`]: as they stood at its end.
    pub gauges: Vec<Gauge>,
}

/// A pool had too much to do.
#[derive(Clone, Debug)]
pub struct Full {
    /// Which.
    pub pool: PoolIx,
    /// From when to when.
    pub from: Duration,
    /// Last seen.
    pub to: Duration,
    /// The longest wait at its servers.
    pub wait: Duration,
    /// Its limit was reached.
    pub limited: bool,
}

/// A queue that makes requests wait this long is too much work.
const WAIT: Duration = Duration::from_millis(50);
/// Lines of the story that are kept.
const LINES: usize = 400;
/// Stretches at most.
const STRETCHES: f64 = 720.0;

/// Everything that is remembered of a rehearsal.
#[derive(Debug)]
pub struct Ledger {
    weight: f64,
    routes: Vec<Route>,
    /// How long a stretch is.
    pub width: Duration,
    /// In time order.
    pub stretches: Vec<Stretch>,
    /// Asked for and not served, by tenth of a second.
    pub tenths: Vec<(f32, f32)>,
    /// What changed, and when.
    pub story: Vec<(Duration, String)>,
    /// Lines that were not kept.
    pub untold: usize,
    /// Pools that had too much to do.
    pub full: Vec<Full>,
    /// Attempts after the first, and hedges, in real requests.
    pub repeated: (f64, f64),
    /// Requests played.
    pub played: u64,
    /// When the first fault began.
    pub fault: Option<Duration>,
    /// When the last one ended.
    pub healed: Option<Duration>,
    /// Before the first fault, by route.
    pub before: Vec<Count>,
    /// After it.
    pub after: Vec<Count>,
    faults: Vec<String>,
    leapt: Duration,
    dice: Dice,
}

impl Ledger {
    /// An empty one.
    pub fn new(stage: &Stage, scenario: &Scenario) -> Self {
        let t = &stage.script.config.topology;
        let seconds = scenario.length.as_secs_f64();
        let nice = [1u64, 2, 5, 10, 30, 60, 120, 300, 600, 3600];
        let width = nice.into_iter().find(|w| seconds / *w as f64 <= STRETCHES).unwrap_or(86_400);
        Self {
            weight: stage.weight,
            routes: t.routes.clone(),
            width: Duration::from_secs(width),
            stretches: vec![],
            tenths: vec![],
            story: vec![],
            untold: 0,
            full: vec![],
            repeated: (0.0, 0.0),
            played: 0,
            fault: scenario.faults.iter().map(|f| f.at).min(),
            healed: scenario.faults.iter().map(|f| f.at + f.lasting).max(),
            before: vec![Count::default(); t.routes.len()],
            after: vec![Count::default(); t.routes.len()],
            faults: scenario.faults.iter().map(|f| super::tell::fault(f, t)).collect(),
            leapt: Duration::ZERO,
            dice: Dice::new(0),
        }
    }

    fn clock(&self, at: Moment) -> Duration {
        at.since(BEGIN) + self.leapt
    }

    fn stretch(&mut self, at: Duration) -> &mut Stretch {
        let i = (at.as_micros() / self.width.as_micros()) as usize;
        if self.stretches.len() <= i {
            let pools = self.stretches.last().map_or(0, |s| s.gauges.len());
            let empty = Stretch { routes: vec![Count::default(); self.routes.len()], tries: vec![0.0; pools], gauges: vec![] };
            self.stretches.resize(i + 1, empty);
        }
        &mut self.stretches[i]
    }

    fn say(&mut self, at: Duration, what: String) {
        if self.story.len() < LINES { self.story.push((at, what)) } else { self.untold += 1 }
    }

    /// Whether not being served counts against us: the refusal of what may be shed does not.
    fn bad(&self, route: RouteIx, felt: Felt) -> bool {
        felt > Felt::Spooled && !(felt == Felt::Shed && self.routes[route.at()].priority == Priority::Sheddable)
    }

    fn done(&mut self, at: Duration, route: RouteIx, fate: Fate, safe: bool, took: Duration) {
        let felt = self.felt(route, fate, safe);
        let (weight, bad) = (self.weight, self.bad(route, felt));
        self.played += 1;
        let tenth = (at.as_micros() / 100_000) as usize;
        if self.tenths.len() <= tenth {
            self.tenths.resize(tenth + 1, (0.0, 0.0));
        }
        self.tenths[tenth].0 += 1.0;
        self.tenths[tenth].1 += f32::from(u8::from(bad));
        let late = self.fault.is_none_or(|f| at >= f);
        let count = |c: &mut Count| {
            c.felt[felt as usize] += weight;
            if felt <= Felt::Spooled {
                c.took.add(took.as_micros() as u64);
            }
        };
        count(&mut self.stretch(at).routes[route.at()]);
        count(if late { &mut self.after[route.at()] } else { &mut self.before[route.at()] });
    }

    fn felt(&mut self, route: RouteIx, fate: Fate, safe: bool) -> Felt {
        let refusal = match fate {
            Fate::Answered(Outcome::Ok) => return Felt::Good,
            Fate::Answered(_) => return Felt::Failed,
            Fate::Copy => return Felt::Stale,
            Fate::Wrong => return Felt::Wrong,
            Fate::Degraded(refusal) => refusal,
        };
        let route_of = &self.routes[route.at()];
        let facts = Facts { route, safe, keyed: false, upgrade: false, started: BEGIN, priority: route_of.priority };
        let plan = fallback::decide(route_of, refusal, &facts, &mut self.dice);
        if plan.ways.iter().any(|w| matches!(w, Way::Spool(_))) {
            return Felt::Spooled;
        }
        match plan.answer.outcome {
            RequestOutcome::Static if plan.answer.status < 400 => Felt::Static,
            RequestOutcome::Shed => Felt::Shed,
            RequestOutcome::Failed => Felt::Unknown,
            _ => Felt::Refused,
        }
    }

    fn gauges(&mut self, at: Duration, gauges: Vec<Gauge>) {
        for (i, g) in gauges.iter().enumerate() {
            let limited = g.inflight >= g.limit && g.limit > 0 && g.state != State::Tripped;
            if g.wait < WAIT && !limited {
                continue;
            }
            let near = at.saturating_sub(self.width.max(Duration::from_secs(3)));
            match self.full.iter_mut().rev().find(|f| f.pool.at() == i && f.to >= near) {
                Some(f) => (f.to, f.wait, f.limited) = (at, f.wait.max(g.wait), f.limited || limited),
                None => self.full.push(Full { pool: i.into(), from: at, to: at, wait: g.wait, limited }),
            }
        }
        self.stretch(at.saturating_sub(Duration::from_micros(1))).gauges = gauges;
    }

    /// The leapt stretch was like the seconds before it.
    fn leap(&mut self, at: Duration, far: Duration) {
        let seen = super::super::world::DWELL.min(at);
        let from = (at - seen).as_micros() / self.width.as_micros();
        let whole: Vec<usize> = (from as usize..self.stretches.len()).collect();
        let mut sum = vec![Count::default(); self.routes.len()];
        for i in &whole {
            sum.iter_mut().zip(&self.stretches[*i].routes).for_each(|(a, b)| a.add(b));
        }
        let gauges = self.stretches.last().map(|s| s.gauges.clone()).unwrap_or_default();
        let spanned = at.saturating_sub(self.width * from as u32).as_secs_f64().max(1e-6);
        let (mut t, end) = (at, at + far);
        self.leapt += far;
        let late = self.fault.is_none_or(|f| at >= f);
        while t < end {
            let next = (self.width * ((t.as_micros() / self.width.as_micros()) as u32 + 1)).min(end);
            let part = (next - t).as_secs_f64() / spanned;
            let stretch = self.stretch(t);
            for (c, s) in stretch.routes.iter_mut().zip(&sum) {
                c.felt.iter_mut().zip(s.felt).for_each(|(a, b)| *a += b * part);
            }
            if stretch.gauges.is_empty() {
                stretch.gauges = gauges.clone();
            }
            t = next;
        }
        let part = far.as_secs_f64() / spanned;
        let into = if late { &mut self.after } else { &mut self.before };
        for (c, s) in into.iter_mut().zip(&sum) {
            c.felt.iter_mut().zip(s.felt).for_each(|(a, b)| *a += b * part);
        }
    }

    /// How long after `from` it took until every later second before `to` had 99.9 % of what was asked for served;
    /// `None`: until its end it was not so.
    pub fn recovered(&self, from: Duration, to: Duration) -> Option<Duration> {
        let tenth = |d: Duration| (d.as_micros() / 100_000) as usize;
        let (a, b) = (tenth(from), tenth(to).min(self.tenths.len()));
        let mut last = None;
        for start in a..b.saturating_sub(9).max(a) {
            let (asked, bad) = self.tenths[start..start + 10].iter().fold((0.0, 0.0), |(n, m), t| (n + t.0, m + t.1));
            if bad > 0.001 * asked {
                last = Some(start);
            }
        }
        let Some(start) = last else { return Some(Duration::ZERO) };
        let bad = (start..start + 10).rfind(|i| self.tenths[*i].1 > 0.0).unwrap_or(start);
        // What was still bad in the last second may go on.
        (bad + 10 < b).then(|| Duration::from_millis(100) * (bad + 1 - a) as u32)
    }
}

impl Witness for Ledger {
    const GAUGES: bool = true;

    fn note(&mut self, at: Moment, note: Note) {
        let clock = self.clock(at);
        match note {
            Note::Done { route, fate, safe, took, .. } => self.done(clock.saturating_sub(took), route, fate, safe, took),
            Note::Try { id, hedge, pool, .. } => {
                let weight = self.weight;
                let tries = &mut self.stretch(clock).tries;
                if tries.len() <= pool.at() {
                    tries.resize(pool.at() + 1, 0.0);
                }
                tries[pool.at()] += weight;
                if id > 0 {
                    self.repeated.0 += weight;
                    self.repeated.1 += weight * f64::from(u8::from(hedge));
                }
            }
            Note::Event(e) => {
                let told = matches!(
                    e.kind,
                    EventKind::Pool { .. } | EventKind::Region { .. } | EventKind::EdgeSuspect { .. } | EventKind::Drain { .. }
                );
                if told {
                    self.say(clock, e.kind.to_string());
                }
            }
            Note::Fault(n, begins) => {
                let what = format!("{} {}", if begins { "fault:" } else { "fault over:" }, self.faults[n]);
                self.say(clock, what);
            }
            Note::Refused(why) => self.say(clock, format!("an order was refused: {why}")),
            Note::Gauges(gauges) => self.gauges(clock, gauges),
            Note::Leapt(far) => self.leap(clock, far),
            _ => {}
        }
    }
}
