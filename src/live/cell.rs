//! The cells: one per pool, endpoint, route, service and share table, each on cache lines of its own.

use super::Tokens;
use super::flight::Streak;
use crate::model::outcome::{Outcome, RequestOutcome};
use crate::model::signal::{HIST_BUCKETS, Hist};
use crate::model::time::{Duration, Moment};
use std::array::from_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

/// A histogram of times that only grows.
#[derive(Debug)]
pub struct Times {
    buckets: [AtomicU64; HIST_BUCKETS],
    sum: AtomicU64,
}

impl Default for Times {
    fn default() -> Self {
        Self { buckets: from_fn(|_| AtomicU64::new(0)), sum: AtomicU64::new(0) }
    }
}

impl Times {
    /// Counts one.
    #[inline]
    pub fn add(&self, took: Duration) {
        let us = took.as_micros() as u64;
        self.buckets[Hist::bucket(us)].fetch_add(1, Relaxed);
        self.sum.fetch_add(us, Relaxed);
    }
    /// The counts so far, modulo 2³²: for the difference between two looks.
    pub fn hist(&self) -> Hist {
        Hist(self.counts().iter().map(|n| *n as u32).collect())
    }
    /// The counts so far.
    pub fn counts(&self) -> [u64; HIST_BUCKETS] {
        from_fn(|i| self.buckets[i].load(Relaxed))
    }
    /// All times together.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum.load(Relaxed))
    }
}

/// Something that requests wait for: when it was last heard, and since when anything waits.
#[derive(Debug, Default)]
pub(super) struct Ear {
    pub waiting: AtomicU32,
    heard: AtomicU64,
    since: AtomicU64,
}

impl Ear {
    #[inline]
    pub fn wait(&self, now: Moment) {
        // Stored before the gauge moves, so that no reader sees a waiter with an old beginning, and again
        // after it, because the last of the earlier waiters may have left in between.
        if self.waiting.load(Relaxed) == 0 {
            self.since.store(now.0, Relaxed);
        }
        if self.waiting.fetch_add(1, Relaxed) == 0 {
            self.since.store(now.0, Relaxed);
        }
    }
    #[inline]
    pub fn hear(&self, now: Moment) {
        // A body comes in many pieces: one store a millisecond says as much.
        if now.0.saturating_sub(self.heard.load(Relaxed)) >= 1000 {
            self.heard.store(now.0, Relaxed);
        }
    }
    #[inline]
    pub fn hear_first(&self, now: Moment) {
        self.heard.fetch_max(now.0, Relaxed);
    }
    pub fn heard(&self) -> Moment {
        Moment(self.heard.load(Relaxed))
    }
    #[inline]
    pub fn quiet(&self, now: Moment) -> Duration {
        if self.waiting.load(Relaxed) == 0 {
            return Duration::ZERO;
        }
        now.since(Moment(self.heard.load(Relaxed).max(self.since.load(Relaxed))))
    }
}

/// How attempts ended, by kind.
#[derive(Debug, Default)]
pub(super) struct Ends([AtomicU64; 8]);

impl Ends {
    pub const OK: usize = 0;
    pub const STATUS: usize = 1;
    pub const OVERLOAD: usize = 2;
    pub const CONNECT: usize = 3;
    pub const TIMEOUT: usize = 4;
    pub const RESET: usize = 5;
    pub const GUARD: usize = 6;
    pub const CANCELLED: usize = 7;

    #[inline]
    pub fn add(&self, outcome: Outcome) {
        let i = match outcome {
            Outcome::Ok => Self::OK,
            Outcome::Status(_) => Self::STATUS,
            Outcome::Overload(_) => Self::OVERLOAD,
            Outcome::Connect => Self::CONNECT,
            Outcome::Timeout => Self::TIMEOUT,
            Outcome::Reset => Self::RESET,
            Outcome::Guard => Self::GUARD,
            Outcome::Cancelled => Self::CANCELLED,
        };
        self.0[i].fetch_add(1, Relaxed);
    }
    pub fn get(&self) -> [u64; 8] {
        from_fn(|i| self.0[i].load(Relaxed))
    }
}

/// So many rejected answers
const DOUBT: usize = 2;
/// within this time make a pool's other answers doubtful.
const DOUBT_WITHIN: Duration = Duration::from_secs(5);

/// What requests tell of one pool.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct PoolCell {
    pub(super) started: AtomicU64,
    pub(super) inflight: AtomicU32,
    pub(super) ear: Ear,
    pub(super) overdue: AtomicU32,
    pub(super) late: AtomicU32,
    pub(super) ends: Ends,
    pub(super) contradicted: AtomicU64,
    pub(super) confirmed: AtomicU64,
    pub(super) failed_on: AtomicU64,
    pub(super) implausible_keys: AtomicU64,
    rejected: [AtomicU64; DOUBT],
    rejections: AtomicU64,
    pub(super) lates: AtomicU64,
    pub(super) revived: AtomicU64,
    pub(super) late_on: AtomicU64,
    pub(super) trial_ok: AtomicU64,
    pub(super) trial_failed: AtomicU64,
    /// Trials it may still be sent.
    pub trials: Tokens,
    /// Times to the first byte of its good answers.
    pub times: Times,
    reach: AtomicU32,
}

impl PoolCell {
    /// A probe passed and took so long. What is kept falls slowly, so that it stands for the longer ones.
    pub fn reached(&self, took: Duration) {
        let was = self.reach.load(Relaxed);
        self.reach.store((took.as_micros().min(u32::MAX.into()) as u32).max(was - was / 8), Relaxed);
    }
    /// How long its probes take, connection included; zero: none passed yet.
    pub fn reach(&self) -> Duration {
        Duration::from_micros(self.reach.load(Relaxed).into())
    }
    /// Requests in flight, until the answer's last byte.
    pub fn inflight(&self) -> u32 {
        self.inflight.load(Relaxed)
    }
    /// A guard rejected one of its answers.
    pub fn rejected(&self, now: Moment) {
        let n = self.rejections.fetch_add(1, Relaxed) as usize;
        self.rejected[n % DOUBT].store(now.0, Relaxed);
    }
    /// Whether guards have rejected several of its answers lately: then one that only lacks something to be compared
    /// with is not believed either.
    pub fn doubted(&self, now: Moment) -> bool {
        self.rejected.iter().all(|at| matches!(at.load(Relaxed), at if at > 0 && now.since(Moment(at)) < DOUBT_WITHIN))
    }
    /// Attempts ended so far by `Outcome::label`: ok, status (overload answers included), connect, timeout, reset, guard, cancelled.
    pub fn results(&self) -> [(&'static str, u64); 7] {
        let n = self.ends.get();
        [
            ("ok", n[Ends::OK]),
            ("status", n[Ends::STATUS] + n[Ends::OVERLOAD]),
            ("connect", n[Ends::CONNECT]),
            ("timeout", n[Ends::TIMEOUT]),
            ("reset", n[Ends::RESET]),
            ("guard", n[Ends::GUARD]),
            ("cancelled", n[Ends::CANCELLED]),
        ]
    }
}

/// A good answer this long after an ejection ended makes an endpoint well: the next ejection is a first one again.
const WELL: Duration = Duration::from_secs(30);

/// What requests tell of one endpoint, and what was decided about it for the moment.
#[derive(Debug)]
#[repr(align(64))]
pub struct EndpointCell {
    id: u64,
    address: SocketAddr,
    pub(super) inflight: AtomicU32,
    pub(super) ear: Ear,
    pub(super) latency: AtomicU32,
    pub(super) ok: AtomicU64,
    pub(super) soft: AtomicU64,
    pub(super) hard: AtomicU64,
    pub(super) streak: AtomicU32,
    streak_hard: AtomicU32,
    pub(super) ejected_until: AtomicU64,
    pub(super) ejected_hard: AtomicBool,
    pub(super) ejections: AtomicU32,
    probe_down: AtomicBool,
}

impl EndpointCell {
    pub(super) fn new(address: SocketAddr) -> Self {
        static IDS: AtomicU64 = AtomicU64::new(1);
        Self {
            id: IDS.fetch_add(1, Relaxed),
            address,
            inflight: AtomicU32::new(0),
            ear: Ear::default(),
            latency: AtomicU32::new(0),
            ok: AtomicU64::new(0),
            soft: AtomicU64::new(0),
            hard: AtomicU64::new(0),
            streak: AtomicU32::new(0),
            streak_hard: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            ejected_hard: AtomicBool::new(false),
            ejections: AtomicU32::new(0),
            probe_down: AtomicBool::new(false),
        }
    }

    /// Stable for a name and address, never used twice in a process: the key of its connections.
    pub fn cell_id(&self) -> u64 {
        self.id
    }
    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
    /// Requests in flight.
    pub fn inflight(&self) -> u32 {
        self.inflight.load(Relaxed)
    }
    /// Smoothed time to first byte, microseconds; 0: unknown.
    pub fn latency(&self) -> u32 {
        self.latency.load(Relaxed)
    }
    /// How often it was ejected since it was last well.
    pub fn ejections(&self) -> u32 {
        self.ejections.load(Relaxed)
    }
    /// Ejected until; `ZERO`: never was.
    pub fn ejected_until(&self) -> Moment {
        Moment(self.ejected_until.load(Relaxed))
    }
    /// Whether its probes took it out.
    pub fn probe_down(&self) -> bool {
        self.probe_down.load(Relaxed)
    }
    /// Whether its streak or its probes took it out for the moment.
    #[inline]
    pub fn out(&self, now: Moment) -> bool {
        self.ejected_until.load(Relaxed) > now.0 || self.probe_down.load(Relaxed)
    }

    /// Takes it out until then. False: it was out already (harder evidence is still noted), and this is not another ejection.
    pub fn eject(&self, now: Moment, until: Moment, hard: bool) -> bool {
        let fresh = self.ejected_until.fetch_update(Relaxed, Relaxed, |old| (old <= now.0).then_some(until.0)).is_ok();
        if fresh {
            self.ejected_hard.store(hard, Relaxed);
            self.ejections.fetch_add(1, Relaxed);
        } else if hard {
            self.ejected_hard.store(true, Relaxed);
        }
        fresh
    }
    /// Takes its ejection back. Its streak stays: the next failure puts it out again.
    pub fn restore(&self) {
        self.ejected_until.store(0, Relaxed);
    }
    /// Whether its probes took it out: the control side's order.
    pub fn set_probe_down(&self, down: bool) {
        self.probe_down.store(down, Relaxed);
    }

    #[inline]
    pub(super) fn smooth(&self, took: Duration) {
        // Weight 1/8 (as TCP's SRTT, RFC 6298). A lost update between two threads does not matter.
        let (new, old) = (took.as_micros().min(u32::MAX.into()) as u32, self.latency.load(Relaxed));
        self.latency.store(if old == 0 { new.max(1) } else { (old - old / 8).saturating_add(new / 8).max(1) }, Relaxed);
    }

    pub(super) fn ended(&self, outcome: Outcome, now: Moment) -> Streak {
        if outcome == Outcome::Ok {
            self.ok.fetch_add(1, Relaxed);
            if self.streak.load(Relaxed) != 0 {
                self.streak.store(0, Relaxed);
                self.streak_hard.store(0, Relaxed);
            }
            if self.ejections.load(Relaxed) != 0 && now > self.ejected_until() + WELL {
                self.ejections.store(0, Relaxed);
            }
        } else if outcome.is_failure() {
            self.streak.fetch_add(1, Relaxed);
            if outcome.is_hard() {
                self.hard.fetch_add(1, Relaxed);
                self.streak_hard.fetch_add(1, Relaxed);
            } else {
                self.soft.fetch_add(1, Relaxed);
            }
        }
        let (failures, hard) = (self.streak.load(Relaxed), self.streak_hard.load(Relaxed));
        Streak { failures, hard: hard > failures / 2 }
    }
}

/// What became of a route's requests.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct RouteCell {
    pub(super) requests: AtomicU64,
    pub(super) turned_away: AtomicU64,
    outcomes: [AtomicU64; RequestOutcome::ALL.len()],
    /// From the whole request until the last byte of the answer.
    pub times: Times,
    /// Hedges it may still start.
    pub hedges: Tokens,
    shed: AtomicU64,
    retried: AtomicU64,
    hedged: AtomicU64,
    in_doubt: AtomicU64,
}

impl RouteCell {
    /// A request came.
    #[inline]
    pub fn arrived(&self) {
        self.requests.fetch_add(1, Relaxed);
    }
    /// A request is over.
    #[inline]
    pub fn finished(&self, outcome: RequestOutcome, took: Duration) {
        self.outcomes[outcome as usize].fetch_add(1, Relaxed);
        self.times.add(took);
    }
    /// A request was refused because of overload, whatever it was answered with.
    pub fn shed(&self) {
        self.shed.fetch_add(1, Relaxed);
    }
    /// Requests that came so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }
    /// How many were.
    pub fn sheds(&self) -> u64 {
        self.shed.load(Relaxed)
    }
    /// An attempt beyond the first started: a retry or a hedge.
    pub fn again(&self, hedge: bool) {
        if hedge { &self.hedged } else { &self.retried }.fetch_add(1, Relaxed);
    }
    /// Retries and hedges that started so far.
    pub fn agains(&self) -> (u64, u64) {
        (self.retried.load(Relaxed), self.hedged.load(Relaxed))
    }
    /// A write was sent, and no answer came: it may have been applied.
    pub fn doubt(&self) {
        self.in_doubt.fetch_add(1, Relaxed);
    }
    /// How many of those there were.
    pub fn doubts(&self) -> u64 {
        self.in_doubt.load(Relaxed)
    }
    /// Requests so far that ended so.
    pub fn outcome(&self, o: RequestOutcome) -> u64 {
        self.outcomes[o as usize].load(Relaxed)
    }
}

/// What requests of one service did, and what they may.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct ServiceCell {
    /// Retries it may still start.
    pub allowance: Tokens,
    retries: AtomicU64,
    hedges: AtomicU64,
    hedges_won: AtomicU64,
}

impl ServiceCell {
    /// A retry started.
    pub fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
    }
    /// A hedge ended, as the winner or not.
    pub fn hedged(&self, won: bool) {
        if won { &self.hedges_won } else { &self.hedges }.fetch_add(1, Relaxed);
    }
    /// Retries so far.
    pub fn retries(&self) -> u64 {
        self.retries.load(Relaxed)
    }
    /// Hedges so far that (won, lost).
    pub fn hedges(&self) -> (u64, u64) {
        (self.hedges_won.load(Relaxed), self.hedges.load(Relaxed))
    }
}

/// The low-discrepancy sequence of one share table.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct TableCell(AtomicU64);

impl TableCell {
    /// The next point: multiples of the golden ratio modulo 1 (as 64 bits), the sequence of least
    /// discrepancy there is in one dimension, so that every run of points is shared out as the slots are wide.
    #[inline]
    pub fn next_point(&self) -> u64 {
        self.0.fetch_add(1, Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}
