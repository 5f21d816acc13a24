//! What the control side hears: tallies of live traffic, probes, operators, reloads.

use super::event::Actor;
use super::fleet::News;
use super::id::*;
use super::time::{Duration, Moment};
use super::view::Compiled;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One thing heard. All of them take the same road into the controller.
#[derive(Clone, Debug)]
pub enum Signal {
    /// What live traffic did since the last tick.
    Tick(Tallies),
    /// A probe came back.
    Probe(Probe),
    /// An operator (or a drill, or the fleet) said something.
    Command(Command),
    /// Other edges said something, or the way to them changed.
    Fleet(News),
    /// A new config to apply, and who wants it.
    Reload(Arc<Compiled>, Actor),
}

/// What live traffic did since the last tick.
#[derive(Clone, Debug, Default)]
pub struct Tallies {
    /// How late this tick came, or how late the slowest worker thread's heartbeat is: our own stall,
    /// during which silence proves nothing.
    pub late: Duration,
    /// By [`PoolIx`]. Always of the config the controller has now.
    pub pools: Vec<PoolTally>,
    /// By [`EndpointIx`]; empty in the fast ticks between full ones.
    pub endpoints: Vec<EndpointTally>,
    /// Requests (not attempts) since the last tick, by [`ServiceIx`].
    pub requests: Vec<u32>,
    /// The same by [`RouteIx`], for hedge budgets.
    pub routes: Vec<u32>,
    /// Of those: the ones that found every pool full at first, by [`RouteIx`].
    pub turned_away: Vec<u32>,
}

/// One pool since the last tick: counts are differences, gauges are as they stand.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolTally {
    /// Attempts started.
    pub started: u32,
    /// Attempts that ended so.
    pub ok: u32,
    /// Failing statuses.
    pub status: u32,
    /// 429, or 503 with Retry-After.
    pub overload: u32,
    /// No connection.
    pub connect: u32,
    /// No first byte in time.
    pub timeout: u32,
    /// Broke off.
    pub reset: u32,
    /// Implausible.
    pub guard: u32,
    /// Said nothing about the backend.
    pub cancelled: u32,
    /// Of the failures: those whose request then succeeded in another region. The best proof there is
    /// that the pool, not the request, was at fault.
    pub contradicted: u32,
    /// Of the failures: those whose request then failed in another region too.
    pub confirmed: u32,
    /// Which endpoints failed: bit `i % 64` for the pool's i-th endpoint.
    pub failed_on: u64,
    /// Keys whose answers were implausible: bit `hash % 64` of each. Never more bits than distinct keys.
    pub implausible_keys: u64,
    /// Attempts of safe requests that were trials, and came back well.
    pub trial_ok: u32,
    /// Trials that failed.
    pub trial_failed: u32,
    /// In flight now (until the answer's last byte).
    pub inflight: u32,
    /// Of those: no first byte yet.
    pub waiting: u32,
    /// Of those: longer than max(`suspect_floor`, 2 × their route's p99).
    pub overdue: u32,
    /// Of those: longer than max(`silence_floor`, 5 × their route's p99).
    pub late: u32,
    /// Attempts that became late (see `late`) since the last tick.
    pub lates: u32,
    /// Of all late ones: those that got their first byte after all, since the last tick.
    pub revived: u32,
    /// Which endpoints attempts became late on: bit `i % 64` for the pool's i-th endpoint.
    pub late_on: u64,
    /// When anything was last heard from it: a first byte, or more of a body. `ZERO`: never.
    pub heard: Moment,
    /// Times to first byte since the last full tick; empty in fast ticks.
    pub latency: Hist,
}

impl PoolTally {
    /// Attempts that failed.
    pub fn failed(&self) -> u32 {
        self.status + self.connect + self.timeout + self.reset + self.guard
    }
    /// Attempts that say something about the backend.
    pub fn judged(&self) -> u32 {
        self.ok + self.failed()
    }
}

/// One endpoint since the last full tick.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndpointTally {
    /// Good answers.
    pub ok: u32,
    /// Soft failures: statuses, guards.
    pub soft: u32,
    /// Hard failures: connect, timeout, reset.
    pub hard: u32,
    /// In flight now.
    pub inflight: u32,
    /// Failures in a row now.
    pub streak: u32,
    /// Ejected until; `ZERO`: not.
    pub ejected_until: Moment,
    /// How often it was ejected since it was last well.
    pub ejections: u32,
    /// Whether the current ejection rests on hard evidence.
    pub ejected_hard: bool,
    /// Smoothed time to first byte, microseconds.
    pub latency: u32,
}

/// A probe's result.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// Generation of the config that `endpoint` belongs to; a stale one is dropped.
    pub generation: u64,
    /// Who was asked.
    pub endpoint: EndpointIx,
    /// What came.
    pub verdict: ProbeVerdict,
    /// How long it took.
    pub took: Duration,
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeVerdict {
    /// As expected.
    Pass,
    /// No connection. Hard.
    Connect(String),
    /// Not in time. Hard.
    Timeout,
    /// Another status than expected. Soft.
    Status(u16),
    /// Another body than expected, or not HTTP. Soft.
    Body(String),
}

impl ProbeVerdict {
    /// Whether it passed.
    pub fn passed(&self) -> bool {
        matches!(self, Self::Pass)
    }
    /// Whether nothing answered at all.
    pub fn is_hard(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Timeout)
    }
}

/// An instruction, with who gave it.
#[derive(Clone, Debug)]
pub struct Command {
    /// Who.
    pub by: Actor,
    /// What.
    pub order: Order,
}

/// Why an instruction was not followed, in words for the operator: what, where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such region or pool in the present config.
    Unknown(String),
    /// It contradicts the config file, or changes nothing.
    Conflict(String),
    /// The proxy is shutting down.
    Leaving,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown(what) | Self::Conflict(what) => f.write_str(what),
            Self::Leaving => f.write_str("the proxy is shutting down"),
        }
    }
}

impl std::error::Error for Refused {}

/// What operators can say.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// Give a region nothing.
    Drain {
        /// Which.
        region: RegionIx,
        /// Why.
        reason: String,
        /// Gradually over this time; zero: at once.
        over: Duration,
        /// Comes back by itself after this time.
        lasting: Option<Duration>,
    },
    /// Lift it.
    Undrain {
        /// Which.
        region: RegionIx,
    },
    /// Lift it, and put the region back at once, whatever the ramp would say: it was well, and is needed.
    Recall {
        /// Which.
        region: RegionIx,
    },
    /// Take a pool out, whatever the detector thinks.
    Trip {
        /// Which.
        pool: PoolIx,
        /// Why.
        reason: String,
    },
    /// Put a pool back to serving, whatever the detector thinks.
    Reset {
        /// Which.
        pool: PoolIx,
    },
    /// Hold all states as they are.
    Freeze {
        /// On or off.
        on: bool,
    },
}

/// Bucket bounds of [`Hist`]: log-linear, four buckets per doubling, from 128 µs to about 137 s.
/// A quantile read from it is at most 19 % too high.
pub const HIST_BUCKETS: usize = 84;

/// A small histogram of times.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hist(
    /// Counts per bucket; empty or [`HIST_BUCKETS`] long.
    pub Vec<u32>,
);

impl Hist {
    /// The bucket of a time in microseconds.
    #[inline]
    pub fn bucket(us: u64) -> usize {
        if us < 128 {
            return 0;
        }
        let log = 63 - us.leading_zeros() as usize; // >= 7
        let sub = (us >> (log - 2) & 3) as usize;
        ((log - 7) * 4 + sub + 1).min(HIST_BUCKETS - 1)
    }
    /// The upper bound of a bucket, microseconds.
    pub fn upper(bucket: usize) -> u64 {
        if bucket == 0 {
            return 128;
        }
        let (log, sub) = ((bucket - 1) / 4 + 7, (bucket - 1) % 4);
        (1 << log) + ((sub as u64 + 1) << (log - 2))
    }
    /// Count one time.
    pub fn add(&mut self, us: u64) {
        if self.0.is_empty() {
            self.0 = vec![0; HIST_BUCKETS];
        }
        self.0[Self::bucket(us)] += 1;
    }
    /// Add another's counts.
    pub fn merge(&mut self, other: &Self) {
        if other.0.is_empty() {
            return;
        }
        if self.0.is_empty() {
            self.0 = vec![0; HIST_BUCKETS];
        }
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            *a += b;
        }
    }
    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|c| u64::from(*c)).sum()
    }
    /// The time that the part `q` of the counted ones did not exceed; `None`: nothing counted.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let n = self.count();
        if n == 0 {
            return None;
        }
        let want = ((n as f64 * q).ceil() as u64).clamp(1, n);
        let mut sum = 0;
        for (i, c) in self.0.iter().enumerate() {
            sum += u64::from(*c);
            if sum >= want {
                return Some(Duration::from_micros(Self::upper(i)));
            }
        }
        None
    }
    /// Let old counts fade: every count times `keep` (0 to 1), rounded down.
    pub fn fade(&mut self, keep: f64) {
        for c in &mut self.0 {
            *c = (f64::from(*c) * keep) as u32;
        }
    }
}
