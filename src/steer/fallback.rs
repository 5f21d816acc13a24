//! What we say when we cannot.

use crate::model::dice::Dice;
use crate::model::outcome::RequestOutcome;
use crate::model::policy::{Route, SpoolRule, StaleRule};
use crate::model::view::Facts;
use bytes::Bytes;
use smallvec::SmallVec;
use std::borrow::Cow;

/// Why no good answer can be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Refusal {
    /// Every pool that may serve it is at its limit for this priority.
    Shed,
    /// The deadline passed, or would before anything could be had.
    Deadline,
    /// No region can serve it now.
    NoRegion,
    /// Regions that could serve it exist, but residency forbids them.
    Residency,
    /// A write was handed over and nobody knows whether it was applied.
    UnknownOutcome,
}

impl Refusal {
    /// The value of `reason=` in `Evenkeel-Degraded`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Shed => "shed",
            Self::Deadline => "deadline",
            Self::NoRegion => "no_region",
            Self::Residency => "residency",
            Self::UnknownOutcome => "unknown_outcome",
        }
    }
}

/// What is left for a request: `ways` in order (the edge tries each; it may have no copy, or no disk), then `answer`.
#[derive(Clone, Debug)]
pub struct Plan<'r> {
    /// Ways that need the edge's memory or disk.
    pub ways: SmallVec<[Way<'r>; 2]>,
    /// Always there. When the edge still holds a backend's own (failing) answer and this one's outcome is
    /// `Shed` or `Unavailable`, the backend's answer goes out instead: it says more.
    pub answer: Answer,
}

/// A way that may fail.
#[derive(Clone, Copy, Debug)]
pub enum Way<'r> {
    /// The last good copy.
    Stale(&'r StaleRule),
    /// Take the write into the spool.
    Spool(&'r SpoolRule),
}

/// An answer the proxy makes itself.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// What the request counts as.
    pub outcome: RequestOutcome,
    /// Why.
    pub refusal: Refusal,
    /// Every header it carries besides framing and Date, names in their usual spelling.
    pub headers: SmallVec<[(&'static str, Cow<'static, str>); 4]>,
    /// Its body (left out by the edge where the method is HEAD).
    pub body: Bytes,
}

/// The plan for a refused request.
pub fn decide<'r>(route: &'r Route, refusal: Refusal, facts: &Facts, dice: &mut Dice) -> Plan<'r> {
    let _ = (route, facts, dice);
    Plan {
        ways: SmallVec::new(),
        answer: Answer {
            status: 503,
            outcome: if refusal == Refusal::Shed { RequestOutcome::Shed } else { RequestOutcome::Unavailable },
            refusal,
            headers: SmallVec::new(),
            body: Bytes::new(),
        },
    }
}
