//! A standing order of the fleet: what it is about (the key), and what it says (the value).
//!
//! Orders are never deleted: one that is lifted stays as a record that it is (`on: false`), with its author and reason. So
//! a key that is *missing* means that the store has lost it, not that somebody took it back.

use crate::clock::{self, stamp};
use crate::model::fleet::OrderStatus;
use crate::model::signal::Order;
use crate::model::status::{Status, When};
use crate::model::time::{Duration, Moment};
use crate::model::topology::Topology;
use crate::model::view::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// Ends of a drain that differ by less are the same one, reckoned by two clocks.
const SAME: Duration = Duration::from_secs(2);

/// What an order is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum About {
    /// A region gets nothing.
    Drain(String),
    /// A pool (`service`, `region`) is out.
    Trip(String, String),
    /// All states are held.
    Freeze,
}

impl About {
    /// What an order of the controller is about.
    pub fn of(t: &Topology, order: &Order) -> Option<Self> {
        let region = |r: crate::model::id::RegionIx| Some(Self::Drain(t.regions.get(r.at())?.name.to_string()));
        let pool = |p: crate::model::id::PoolIx| {
            let pool = t.pools.get(p.at())?;
            Some(Self::Trip(t.services[pool.service.at()].name.to_string(), t.regions[pool.region.at()].name.to_string()))
        };
        match order {
            Order::Drain { region: r, .. } | Order::Undrain { region: r } | Order::Recall { region: r } => region(*r),
            Order::Trip { pool: p, .. } | Order::Reset { pool: p } => pool(*p),
            Order::Freeze { .. } => Some(Self::Freeze),
        }
    }
    /// Its key in the bucket. Names may hold dots, which separate the parts of a key: whatever is no letter, digit, `_` or `-` is
    /// written as `=` and its two hexadecimal digits.
    pub fn key(&self) -> String {
        match self {
            Self::Drain(region) => format!("drain.{}", safe(region)),
            Self::Trip(service, region) => format!("trip.{}.{}", safe(service), safe(region)),
            Self::Freeze => "freeze".into(),
        }
    }
    /// From a key; `None`: it is none of ours.
    pub fn from_key(key: &str) -> Option<Self> {
        let parts: Vec<&str> = key.split('.').collect();
        match parts[..] {
            ["drain", region] => Some(Self::Drain(plain(region)?)),
            ["trip", service, region] => Some(Self::Trip(plain(service)?, plain(region)?)),
            ["freeze"] => Some(Self::Freeze),
            _ => None,
        }
    }
    /// For people.
    pub fn words(&self) -> String {
        match self {
            Self::Drain(region) => format!("drain/{region}"),
            Self::Trip(service, region) => format!("trip/{service}/{region}"),
            Self::Freeze => "freeze".into(),
        }
    }
}

fn safe(name: &str) -> String {
    name.bytes().fold(String::new(), |mut out, b| {
        if b.is_ascii_alphanumeric() || b == b'_' || b == b'-' {
            out.push(b as char);
        } else {
            let _ = write!(out, "={b:02x}");
        }
        out
    })
}

fn plain(part: &str) -> Option<String> {
    let (mut out, mut rest) = (Vec::new(), part.as_bytes());
    while let [b, tail @ ..] = rest {
        if *b == b'=' {
            out.push(u8::from_str_radix(std::str::from_utf8(tail.get(..2)?).ok()?, 16).ok()?);
            rest = &tail[2..];
        } else {
            out.push(*b);
            rest = tail;
        }
    }
    String::from_utf8(out).ok().filter(|s| !s.is_empty())
}

/// What an order says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Standing {
    /// In force, or lifted.
    pub on: bool,
    /// Who gave it: `operator ann`, `drill drill-1`.
    pub by: String,
    /// Through which edge.
    pub edge: String,
    /// Why.
    pub reason: String,
    /// When, by that edge's clock.
    pub at: Timestamp,
    /// Ends by itself then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// A drain that fades over so long, ms.
    pub over_ms: u64,
    /// Lifted at once, whatever the ramp would say.
    pub recall: bool,
}

impl Standing {
    /// What an order of the controller says.
    pub fn of(order: &Order, by: &str, edge: &str, now: Moment) -> Self {
        let mut s = Self { by: by.into(), edge: edge.into(), at: clock::wall(now), ..Self::default() };
        match order {
            Order::Drain { reason, over, lasting, .. } => {
                (s.on, s.reason, s.over_ms) = (true, reason.clone(), over.as_millis() as u64);
                s.until = lasting.map(|l| clock::wall(now + l));
            }
            Order::Trip { reason, .. } => (s.on, s.reason) = (true, reason.clone()),
            Order::Freeze { on } => s.on = *on,
            Order::Recall { .. } => s.recall = true,
            Order::Undrain { .. } | Order::Reset { .. } => {}
        }
        s
    }
    /// In force at this time.
    pub fn holds(&self, at: Timestamp) -> bool {
        self.on && self.until.is_none_or(|until| until > at)
    }
    /// Who gave it, through whom, when and why.
    pub fn words(&self) -> String {
        let reason = if self.reason.is_empty() { String::new() } else { format!(": {}", self.reason) };
        format!("by {} through {} at {}{reason}", self.by, self.edge, stamp(self.at))
    }
    /// As an order to the controller of an edge with this config; `None`: there is nothing to do (any more). `Err`: the config knows
    /// no such thing.
    pub fn order(&self, about: &About, t: &Topology, now: Timestamp) -> Result<Option<Order>, String> {
        let on = self.holds(now);
        Ok(Some(match about {
            About::Drain(name) => {
                let region = t.region(name).ok_or_else(|| format!("region {name}"))?;
                if on {
                    let lasting = self.until.map(|until| until.duration_since(now).unsigned_abs());
                    let passed = now.duration_since(self.at);
                    let passed = if passed.is_negative() { Duration::ZERO } else { passed.unsigned_abs() };
                    let over = Duration::from_millis(self.over_ms).saturating_sub(passed);
                    Order::Drain { region, reason: self.reason.clone(), over, lasting }
                } else if self.on {
                    // Its time is over: the controller lifts that by itself.
                    return Ok(None);
                } else if self.recall {
                    Order::Recall { region }
                } else {
                    Order::Undrain { region }
                }
            }
            About::Trip(service, region) => {
                let pool = t.pool(service, region).ok_or_else(|| format!("pool {service}/{region}"))?;
                if on { Order::Trip { pool, reason: self.reason.clone() } } else { Order::Reset { pool } }
            }
            About::Freeze => Order::Freeze { on },
        }))
    }
    /// Whether this edge has yet to follow it, by its status. Lifting what nobody ordered would undo what the edge itself decided.
    pub fn is_due(&self, about: &About, status: &Status, now: Timestamp) -> bool {
        let on = self.holds(now);
        match about {
            About::Drain(name) => {
                let drained = status.regions.iter().find(|r| r.name == *name).and_then(|r| r.drained.as_ref());
                let ordered = drained.filter(|d| !(d.by_file && d.by == crate::model::event::Actor::File.to_string()));
                let ends = |until: &Option<When>| match (until, self.until) {
                    (None, None) => true,
                    (Some(When::Moment(m)), Some(end)) => clock::wall(*m).duration_since(end).unsigned_abs() < SAME,
                    _ => false,
                };
                let same = |d: &crate::model::status::Drained| d.reason == self.reason && ends(&d.until);
                if on { !ordered.is_some_and(same) } else { ordered.is_some() }
            }
            About::Trip(service, region) => {
                let pool = status.pools.iter().find(|p| p.service == *service && p.region == *region);
                let ordered =
                    pool.is_some_and(|p| p.state == State::Tripped && p.cause.as_deref().is_some_and(|c| c.starts_with("operator")));
                ordered != on
            }
            About::Freeze => (status.mode == "frozen") != on,
        }
    }
    /// For `status`.
    pub fn status(&self, about: &About, revision: u64) -> OrderStatus {
        OrderStatus {
            about: about.words(),
            on: self.on,
            by: self.by.clone(),
            edge: self.edge.clone(),
            reason: self.reason.clone(),
            at: stamp(self.at),
            until: self.until.map(stamp),
            revision,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_carry_every_name() {
        for about in [
            About::Drain("east".into()),
            About::Drain("us-east.1".into()),
            About::Drain(".".into()),
            About::Trip("a.b".into(), "c=d".into()),
            About::Freeze,
        ] {
            let key = about.key();
            assert!(key.chars().all(|c| c.is_ascii_alphanumeric() || "-_=.".contains(c)), "{key}");
            assert_eq!(About::from_key(&key), Some(about), "{key}");
        }
        assert_eq!(About::from_key("drain"), None);
        assert_eq!(About::from_key("drain.=z"), None);
        assert_eq!(About::from_key("trip.a"), None);
    }

    #[test]
    fn an_order_holds_until_its_time_is_over() {
        let at: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let s = Standing { on: true, until: Some(at), ..Default::default() };
        assert!(s.holds(at - jiff::SignedDuration::from_secs(1)) && !s.holds(at));
        assert!(!Standing { on: false, ..s }.holds(at - jiff::SignedDuration::from_secs(1)));
    }
}
