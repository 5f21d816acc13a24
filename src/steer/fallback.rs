//! What we say when we cannot: a route's `degrade` list, made into ways to try and an answer that is always left.
//!
//! Every such answer is marked (DESIGN.md section 6). Which way may serve which request:
//!
//! | way | reads | writes | outcome of a write unknown |
//! |---|---|---|---|
//! | `stale` | yes | no: a copy answers no write | no |
//! | `static` | yes | only with a status of 300 or more: a fixed 2xx would claim that it was applied | no: the truth has a status of its own |
//! | `spool` | no | where a repeat is safe: it is replayed | likewise: it may be applied already |
//! | `unavailable` | 503 | 503 | 504, with Retry-After only where a repeat is safe |
//!
//! A repeat is safe where the operator said that backends deduplicate (`writes: idempotency_key`) and the request has a key.
//!
//! Retry-After is drawn for each answer, so that clients that obey it do not come back as one wave.

use crate::model::dice::Dice;
use crate::model::outcome::RequestOutcome;
use crate::model::policy::{Degrade, Route, SpoolRule, StaleRule, StaticAnswer, Unavailable, Writes};
use crate::model::time::Duration;
use crate::model::view::{Closed, Facts};
use bytes::Bytes;
use smallvec::SmallVec;
use std::borrow::Cow;

#[cfg(test)]
mod tests;

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

impl From<Closed> for Refusal {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::NoRegion => Self::NoRegion,
            Closed::Residency => Self::Residency,
        }
    }
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Shed, Self::Deadline, Self::NoRegion, Self::Residency, Self::UnknownOutcome];

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

    /// `Proxy-Status` (RFC 9209): an error type of its registry (section 2.3), and details for people.
    pub fn proxy_status(self) -> &'static str {
        match self {
            // 2.3.12: the proxy has no room for another exchange with the next hop.
            Self::Shed => r#"evenkeel; error=connection_limit_reached; details="at the concurrency limit for this priority""#,
            // 2.3.22 and 2.3.3: no (complete) answer in time; nobody to ask.
            Self::Deadline => r#"evenkeel; error=http_response_timeout; details="no good answer within the deadline""#,
            Self::NoRegion => r#"evenkeel; error=destination_unavailable; details="no region can serve this now""#,
            Self::Residency => r#"evenkeel; error=destination_unavailable; details="no region allowed by residency can serve this now""#,
            Self::UnknownOutcome => r#"evenkeel; error=http_response_timeout; details="sent, no answer: the write may have been applied""#,
        }
    }

    fn mark(self) -> &'static str {
        match self {
            Self::Shed => "unavailable; reason=shed",
            Self::Deadline => "unavailable; reason=deadline",
            Self::NoRegion => "unavailable; reason=no_region",
            Self::Residency => "unavailable; reason=residency",
            Self::UnknownOutcome => "unavailable; reason=unknown_outcome",
        }
    }

    /// The body where the operator gave none. Plain words for whoever reads it in a terminal or a log.
    fn text(self) -> &'static str {
        match self {
            Self::Shed => "Too much to do right now. Try again later.\n",
            Self::Deadline => "No answer could be had in time. Try again later.\n",
            Self::NoRegion => "The service cannot be reached right now. Try again later.\n",
            Self::Residency => "The regions that may serve this cannot be reached right now. Try again later.\n",
            Self::UnknownOutcome => "The request was sent, but no answer came: it may have been applied. Check before you repeat it.\n",
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

impl Answer {
    /// The value of a header, if it carries it.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| &**v)
    }
}

/// The plan for a refused request.
pub fn decide<'r>(route: &'r Route, refusal: Refusal, facts: &Facts, dice: &mut Dice) -> Plan<'r> {
    let unknown = refusal == Refusal::UnknownOutcome;
    let repeat_safe = facts.safe || (facts.keyed && route.retry.writes == Writes::IdempotencyKey);
    let mut ways = SmallVec::new();
    for degrade in &route.degrade {
        match degrade {
            Degrade::Stale(rule) if facts.safe => ways.push(Way::Stale(rule)),
            Degrade::Spool(rule) if !facts.safe && repeat_safe => ways.push(Way::Spool(rule)),
            Degrade::Static(s) if !unknown && (facts.safe || honest_for_writes(s)) => {
                return Plan { ways, answer: fixed(s, refusal, route, dice) };
            }
            Degrade::Unavailable(u) => return Plan { ways, answer: unavailable(u, refusal, repeat_safe, dice) },
            _ => {}
        }
    }
    let default = Unavailable { retry_after: RETRY_AFTER, body: None };
    Plan { ways, answer: unavailable(&default, refusal, repeat_safe, dice) }
}

/// Whether a fixed answer may be given to a write: not a 2xx, which would be taken for an acknowledgement.
/// `check` warns of routes whose `static` can never be given to their writes.
pub fn honest_for_writes(s: &StaticAnswer) -> bool {
    s.status >= 300
}

/// The range of Retry-After where a route's list does not end with `unavailable`, which validation makes sure it does.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));

fn fixed(s: &StaticAnswer, refusal: Refusal, route: &Route, dice: &mut Dice) -> Answer {
    let mut headers: SmallVec<[_; 4]> = SmallVec::new();
    headers.push(("Content-Type", Cow::Owned(s.content_type.clone())));
    headers.push(("Cache-Control", Cow::Borrowed("no-store")));
    headers.push(("Proxy-Status", Cow::Borrowed(refusal.proxy_status())));
    headers.push(("Evenkeel-Degraded", Cow::Borrowed("static")));
    if s.status == 503 {
        let range = route.degrade.iter().find_map(|d| if let Degrade::Unavailable(u) = d { Some(u.retry_after) } else { None });
        headers.push(retry_after(range.unwrap_or(RETRY_AFTER), dice));
    }
    Answer { status: s.status, outcome: RequestOutcome::Static, refusal, headers, body: s.body.clone() }
}

fn unavailable(u: &Unavailable, refusal: Refusal, repeat_safe: bool, dice: &mut Dice) -> Answer {
    let (status, outcome) = match refusal {
        Refusal::UnknownOutcome => (504, RequestOutcome::Failed),
        Refusal::Shed => (503, RequestOutcome::Shed),
        Refusal::Deadline | Refusal::NoRegion | Refusal::Residency => (503, RequestOutcome::Unavailable),
    };
    let mut headers: SmallVec<[_; 4]> = SmallVec::new();
    headers.push(("Content-Type", Cow::Borrowed("text/plain; charset=utf-8")));
    headers.push(("Cache-Control", Cow::Borrowed("no-store")));
    headers.push(("Proxy-Status", Cow::Borrowed(refusal.proxy_status())));
    headers.push(("Evenkeel-Degraded", Cow::Borrowed(refusal.mark())));
    if status == 503 || repeat_safe {
        headers.push(retry_after(u.retry_after, dice));
    }
    // The operator's words promise a return, which an unknown outcome must not.
    let body = u.body.clone().filter(|_| refusal != Refusal::UnknownOutcome);
    Answer { status, outcome, refusal, headers, body: body.unwrap_or(Bytes::from_static(refusal.text().as_bytes())) }
}

/// Whole seconds within the range, at least one: `Retry-After: 0` invites the storm it is meant to spread.
fn retry_after((low, high): (Duration, Duration), dice: &mut Dice) -> (&'static str, Cow<'static, str>) {
    let low = low.as_secs_f64().ceil().max(1.0) as u64;
    let high = high.as_secs().max(low);
    ("Retry-After", Cow::Owned((low + dice.below(high - low + 1)).to_string()))
}
