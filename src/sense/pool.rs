//! What we believe of one pool: its deciders side by side, and the flags beside its state.
//!
//! *Doubt* is a suspicion other than silence: hanging requests that may yet be answered, or an experiment
//! (see [`common_mode`](super::common_mode)). *Dead* means that nothing answers there. It is latched, because
//! the end of an ejection or of a waiting time proves nothing; it ends with a byte heard, with probes that had
//! failed and pass again, or, where there are no probes to ask, after the first open time.

use super::detector::{self, Verdict};
use super::endpoints::Mind;
use super::limit::Limit;
use super::ramp::{Progress, Way};
use super::reserve::Reserves;
use super::silence::{Evidence, STALL, Silence, Stage};
use super::verdict::Advice;
use super::window::{Counts, Window};
use crate::model::event::Cause;
use crate::model::policy::Failover;
use crate::model::signal::{Hist, PoolTally};
use crate::model::time::{Duration, Moment};
use crate::model::topology::Service;
use crate::model::view::State;

/// How long after a stall of ours timeouts prove nothing: they ran down while nobody read the answers.
const AFTER_STALL: Duration = Duration::from_millis(100);
/// Fresh evidence for silence and unreachability.
const RECENT: Duration = Duration::from_millis(200);
/// Attempts that must have found no connection, with no success among them, to call a pool unreachable.
const REFUSED: u32 = 5;
/// A question needs this long for an answer, at least.
const ANSWER: Duration = Duration::from_millis(50);
/// Questions are asked over this long before.
const ASKED: Duration = Duration::from_millis(150);
/// The usual latencies fade by a fifth in this time.
const FADE: Duration = Duration::from_secs(10);

/// A smoothed rate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate(f64);

impl Rate {
    /// Count `n` over `dt`; follows with a time constant of a second.
    pub fn add(&mut self, n: f64, dt: Duration) {
        let dt = dt.as_secs_f64();
        if dt > 0.0 {
            self.0 += (1.0 - (-dt).exp()) * (n / dt - self.0);
        }
    }
    /// Per second.
    pub fn get(self) -> f64 {
        self.0
    }
}

/// A suspicion other than silence.
#[derive(Clone, Debug)]
pub struct Doubt {
    /// Since when.
    pub since: Moment,
    /// Why.
    pub cause: Cause,
    /// An experiment that ends then; `None`: stands as long as the detector doubts.
    pub until: Option<Moment>,
}

/// Nothing answers there.
#[derive(Clone, Debug)]
pub struct Dead {
    /// Since when.
    pub since: Moment,
    /// Why.
    pub cause: Cause,
}

/// One pool.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Its state and the way back.
    pub way: Way,
    /// Outcomes.
    pub window: Window,
    /// Quiet or not.
    pub silence: Silence,
    /// As of the last tick.
    pub stage: Stage,
    /// As of the last tick.
    pub verdict: Option<Verdict>,
    /// A suspicion other than silence.
    pub doubt: Option<Doubt>,
    /// No experiment before this.
    pub no_experiment: Moment,
    /// Nothing answers there.
    pub dead: Option<Dead>,
    /// Suspect on record, and when that was last written down.
    pub on_record: (bool, Moment),
    /// The adaptive limit.
    pub limit: Limit,
    /// What of it is kept for whom.
    pub reserves: Reserves,
    /// Its endpoints, in order.
    pub endpoints: Vec<Mind>,
    /// Attempts per second.
    pub rate: Rate,
    /// Requests in flight.
    pub inflight: u32,
    /// When it was last nearly as full as its limit allows.
    pub full: Moment,
    /// Connections dialled under another epoch are not reused.
    pub epoch: u32,
    /// When an attempt last succeeded.
    pub last_ok: Moment,
    /// When an attempt was last judged.
    pub last_judged: Moment,
    /// Since the last full tick.
    pub progress: Progress,
    /// It is out because the majority of the fleet says so, not by our own evidence.
    pub followed: bool,
    /// What the fleet's view means for it.
    pub advice: Advice,
    usual: Hist,
    faded: Moment,
    stalled_until: Moment,
}

impl Pool {
    /// Serving, nothing known.
    pub fn new(now: Moment, service: &Service, endpoints: usize) -> Self {
        Self {
            way: Way::new(now),
            window: Window::new(service.failover.window),
            silence: Silence::default(),
            stage: Stage::Calm,
            verdict: None,
            doubt: None,
            no_experiment: Moment::ZERO,
            dead: None,
            on_record: (false, Moment::ZERO),
            limit: Limit::new(&service.overload),
            reserves: Reserves::default(),
            endpoints: (0..endpoints).map(|_| Mind::new()).collect(),
            rate: Rate::default(),
            inflight: 0,
            full: Moment::ZERO,
            epoch: 0,
            last_ok: Moment::ZERO,
            last_judged: Moment::ZERO,
            progress: Progress::default(),
            followed: false,
            advice: Advice::Own,
            usual: Hist::default(),
            faded: now,
            stalled_until: Moment::ZERO,
        }
    }
    /// Take a tick's tally in: count, and let the pool's own deciders speak. `offered`: the service's requests per second.
    pub fn hear(&mut self, now: Moment, dt: Duration, t: &PoolTally, late_tick: Duration, service: &Service, offered: f64) {
        if late_tick >= STALL {
            self.stalled_until = now + AFTER_STALL;
        }
        let mut t = t.clone();
        if now < self.stalled_until {
            (t.timeout, t.connect, t.lates, t.late_on) = (0, 0, 0, 0);
        }
        self.window.add(now, &t);
        self.rate.add(f64::from(t.started), dt);
        self.inflight = t.inflight;
        if t.ok > 0 {
            self.last_ok = now;
        }
        if t.judged() > 0 {
            self.last_judged = now;
        }
        self.progress.ok += t.ok;
        self.progress.failed += t.failed().saturating_sub(t.confirmed);
        self.progress.trial_ok += t.trial_ok;
        self.progress.trial_failed += t.trial_failed.saturating_sub(t.confirmed);
        self.progress.latency.merge(&t.latency);
        self.limit.fast(t.inflight, offered, &service.overload);
        let evidence = self.evidence(now, late_tick);
        self.stage = self.silence.observe(now, &t, evidence, &service.failover);
        // A window that nothing bad entered cannot have turned bad.
        if t.failed() + t.lates > 0 || self.verdict.is_some() || self.doubt.is_some() {
            self.verdict = self.judge(now, &service.failover);
        }
    }
    fn judge(&self, now: Moment, rules: &Failover) -> Option<Verdict> {
        if !matches!(self.way.state, State::Serving | State::Ramping) {
            return None;
        }
        let doubted = self.doubt.as_ref().filter(|d| d.until.is_none()).map_or(Duration::ZERO, |d| now.since(d.since));
        detector::judge(&self.window, now, rules, self.in_use(now), doubted)
    }
    fn evidence(&self, now: Moment, late_tick: Duration) -> Evidence {
        let Some(since) = self.silence.since() else { return Evidence { late_tick, ..Evidence::default() } };
        let recent = self.window.last(now, RECENT);
        let answer = self.usual_p99().map_or(ANSWER, |p| ANSWER.max(p * 2));
        let asked = (answer + ASKED).min(self.silence.quiet(now));
        let old = self.window.last(now, answer).started;
        let suspected = self.window.last(now, now.since(since));
        Evidence {
            connects_fail: recent.connect >= 2 && recent.ok == 0,
            questions: if asked > answer { self.window.last(now, asked).started.saturating_sub(old) } else { 0 },
            lates: suspected.lates.saturating_sub(suspected.revived),
            late_tick,
        }
    }
    /// Endpoints that may get traffic.
    pub fn in_use(&self, now: Moment) -> u32 {
        self.endpoints.iter().filter(|e| !e.out(now)).count() as u32
    }
    /// Whether every endpoint is out, and on hard evidence, or connections fail everywhere right now. Endpoints that
    /// take connections and then break off or hang are sick, not gone: where nothing is better they are still asked.
    pub fn unreachable(&self, now: Moment) -> bool {
        let c = self.window.last(now, RECENT);
        let gone = c.connect > 0 || self.endpoints.iter().any(|e| e.probe_down);
        let all_out = gone && !self.endpoints.is_empty() && self.endpoints.iter().all(|e| e.out_hard(now));
        let refused = c.connect >= REFUSED && c.connect == c.judged();
        all_out || refused && c.failed_on.count_ones() >= self.in_use(now).min(64)
    }
    /// What probes say of the pool: whether at least half of its endpoints pass; `None`: nothing yet.
    pub fn probes(&self, service: &Service) -> Option<bool> {
        let h = service.health.as_ref()?;
        let known = self.endpoints.iter().filter(|e| e.last.is_some()).count();
        let passing = self.endpoints.iter().filter(|e| e.passing(h)).count();
        (known > 0).then_some(2 * passing >= self.endpoints.len())
    }
    /// What probes said at or after `since`; `None`: nothing.
    pub fn probes_since(&self, since: Moment) -> Option<bool> {
        let mut fresh = self.endpoints.iter().filter(|e| e.last.as_ref().is_some_and(|(at, _)| *at >= since)).peekable();
        fresh.peek()?;
        Some(fresh.any(|e| e.passed_since(since)))
    }
    /// Whether live attempts succeed at present, so that probes have nothing to add.
    pub fn live_well(&self, now: Moment) -> bool {
        self.last_ok > Moment::ZERO && now.since(self.last_ok) <= super::endpoints::FRESH && self.stage == Stage::Calm
    }
    /// Whether it had live traffic in the last ten seconds.
    pub fn busy(&self, now: Moment) -> bool {
        self.last_judged > Moment::ZERO && now.since(self.last_judged) <= super::endpoints::FRESH
    }
    /// Whether new work avoids it.
    pub fn suspect(&self) -> bool {
        self.stage > Stage::Calm || self.doubt.is_some() || self.dead.is_some()
    }
    /// Why new work avoids it.
    pub fn suspect_cause(&self, now: Moment) -> Cause {
        if let Some(d) = &self.dead {
            return d.cause.clone();
        }
        match &self.doubt {
            Some(d) if self.stage == Stage::Calm => d.cause.clone(),
            _ => self.silent_cause(now),
        }
    }
    /// Silence as a cause.
    pub fn silent_cause(&self, now: Moment) -> Cause {
        let since = self.silence.since().unwrap_or(now);
        let waiting = self.window.last(now, now.since(since) + RECENT).started.max(super::silence::ASKING);
        Cause::Silence { quiet_ms: self.silence.quiet(now).as_millis() as u64, waiting }
    }
    /// When its present trouble began; `None`: it has none.
    pub fn trouble(&self) -> Option<Moment> {
        let dead = self.dead.as_ref().map(|d| d.since);
        let doubt = self.doubt.as_ref().map(|d| d.since);
        [dead, doubt, self.silence.since()].into_iter().flatten().min()
    }
    /// What requests usually need here, 99 of 100.
    pub fn usual_p99(&self) -> Option<Duration> {
        (self.usual.count() >= 100).then(|| self.usual.quantile(0.99)).flatten()
    }
    /// A full tick: the limit, and what is usual.
    pub fn settle(&mut self, now: Moment, service: &Service) -> Progress {
        let p = std::mem::take(&mut self.progress);
        self.limit.full(self.inflight, &p.latency, &service.overload);
        if self.way.state == State::Serving && !self.suspect() && !self.limit.overloaded() {
            self.usual.merge(&p.latency);
            if now.since(self.faded) >= FADE {
                self.faded = now;
                self.usual.fade(0.8);
            }
        }
        p
    }
    /// Drop the evidence so far: what counts from here on is newer.
    pub fn forget(&mut self) {
        self.window.clear();
        (self.verdict, self.doubt) = (None, None);
    }
    /// Something answers there again, or is to be asked anew: only newer evidence counts.
    pub fn revive(&mut self) {
        (self.dead, self.stage) = (None, Stage::Calm);
        self.silence.clear();
        self.forget();
    }
    /// Recent counts for a comparison.
    pub fn recent(&self, now: Moment, span: Duration) -> Counts {
        self.window.last(now, span)
    }
}
