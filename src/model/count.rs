//! What requests came to, as the journal keeps it: counts that only grow, since the process began or since the route or pool
//! came into the config. A difference of two of them tells what a stretch of time came to, and a lost record costs nothing.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Everything that is counted for reports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// By route.
    pub routes: Vec<RouteCount>,
    /// By pool.
    pub pools: Vec<PoolCount>,
}

/// What a route's requests came to. Zeros are left out in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteCount {
    /// Its name.
    pub route: String,
    /// Answered well by a backend.
    #[serde(skip_serializing_if = "zero")]
    pub ok: u64,
    /// Answered 4xx.
    #[serde(skip_serializing_if = "zero")]
    pub client_error: u64,
    /// Answered 5xx by a backend, or broken off.
    #[serde(skip_serializing_if = "zero")]
    pub failed: u64,
    /// A last good copy.
    #[serde(skip_serializing_if = "zero")]
    pub stale: u64,
    /// A static answer.
    #[serde(rename = "static", skip_serializing_if = "zero")]
    pub fixed: u64,
    /// Taken into the spool.
    #[serde(skip_serializing_if = "zero")]
    pub spooled: u64,
    /// Refused because of overload.
    #[serde(skip_serializing_if = "zero")]
    pub shed: u64,
    /// Refused because no region could serve it in time.
    #[serde(skip_serializing_if = "zero")]
    pub unavailable: u64,
    /// Retries that started.
    #[serde(skip_serializing_if = "zero")]
    pub retried: u64,
    /// Hedges that started.
    #[serde(skip_serializing_if = "zero")]
    pub hedged: u64,
    /// Writes that were sent and not answered: they may have been applied.
    #[serde(skip_serializing_if = "zero")]
    pub in_doubt: u64,
}

impl RouteCount {
    /// Every count with its name, in the order in which reports show them: eight ways to end, then what happened on the way.
    pub fn each(&self) -> [(&'static str, u64); 11] {
        [
            ("ok", self.ok),
            ("client_error", self.client_error),
            ("failed", self.failed),
            ("stale", self.stale),
            ("static", self.fixed),
            ("spooled", self.spooled),
            ("shed", self.shed),
            ("unavailable", self.unavailable),
            ("retried", self.retried),
            ("hedged", self.hedged),
            ("in_doubt", self.in_doubt),
        ]
    }
    /// Requests that are over.
    pub fn requests(&self) -> u64 {
        self.each()[..8].iter().map(|(_, n)| n).sum()
    }
    /// Requests that failed, and those that were refused.
    pub fn hurt(&self) -> u64 {
        self.failed + self.shed + self.unavailable
    }
    /// Requests that got an honest stand-in.
    pub fn degraded(&self) -> u64 {
        self.stale + self.fixed + self.spooled
    }
    /// What came since an earlier look; all of it, where the counts began anew in between.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let anew = self.each().iter().zip(before.each()).any(|((_, now), (_, then))| *now < then);
        let d = |now: u64, then: u64| if anew { now } else { now - then };
        Self {
            route: self.route.clone(),
            ok: d(self.ok, before.ok),
            client_error: d(self.client_error, before.client_error),
            failed: d(self.failed, before.failed),
            stale: d(self.stale, before.stale),
            fixed: d(self.fixed, before.fixed),
            spooled: d(self.spooled, before.spooled),
            shed: d(self.shed, before.shed),
            unavailable: d(self.unavailable, before.unavailable),
            retried: d(self.retried, before.retried),
            hedged: d(self.hedged, before.hedged),
            in_doubt: d(self.in_doubt, before.in_doubt),
        }
    }
    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            route: self.route.clone(),
            ok: self.ok + other.ok,
            client_error: self.client_error + other.client_error,
            failed: self.failed + other.failed,
            stale: self.stale + other.stale,
            fixed: self.fixed + other.fixed,
            spooled: self.spooled + other.spooled,
            shed: self.shed + other.shed,
            unavailable: self.unavailable + other.unavailable,
            retried: self.retried + other.retried,
            hedged: self.hedged + other.hedged,
            in_doubt: self.in_doubt + other.in_doubt,
        }
    }
}

/// What attempts at a pool came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolCount {
    /// `service/region`.
    pub pool: String,
    /// Good answers.
    #[serde(skip_serializing_if = "zero")]
    pub ok: u64,
    /// Attempts that failed, overload answers included.
    #[serde(skip_serializing_if = "zero")]
    pub failed: u64,
}

impl PoolCount {
    /// What came since an earlier look; all of it, where the counts began anew in between.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let anew = self.ok < before.ok || self.failed < before.failed;
        let d = |now: u64, then: u64| if anew { now } else { now - then };
        Self { pool: self.pool.clone(), ok: d(self.ok, before.ok), failed: d(self.failed, before.failed) }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = |n: fn(&RouteCount) -> u64| self.routes.iter().map(n).sum::<u64>();
        let (all, hurt, degraded) = (sum(RouteCount::requests), sum(RouteCount::hurt), sum(RouteCount::degraded));
        write!(f, "{all} requests so far, {hurt} of them failed or were refused, {degraded} got a degraded answer")
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for it
fn zero(n: &u64) -> bool {
    *n == 0
}
