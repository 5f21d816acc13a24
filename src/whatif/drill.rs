//! A live failover exercise: a region is taken out as if it were lost, watched, and put back.
//!
//! ```text
//! Draining ──over──▶ Holding ──hold──▶ Passed        (back by the ramp, as after any drain)
//!     └────────────────┴──a guard, or nobody there──▶ Aborted   (back at once, whatever the ramp would say)
//! ```
//!
//! **Guards** are what the operator will not put up with, by route: `success<99.5%`, `p99>300ms`, `shed>1%`, `degraded>2%`; with
//! a route in front (`home:p99>300ms`) for that route alone. Each is looked at ten times a second over two stretches of time:
//!
//! | over the last | counts when | why |
//! |---|---|---|
//! | 1 s | at least 5 requests are on the wrong side | a real fault is plain within a second, one unlucky request is none |
//! | 10 s | there were at least 20 requests | what is slow to show, and routes with little traffic |
//!
//! Three guards stand by themselves: another region trips, the edge suspects itself, somebody else changes the drain.
//!
//! **Lease.** Whoever runs the drill says so again and again; once that has not come for `lease`, nobody is there any more and
//! the region comes back. Without a lease the proxy sees the drill through by itself. A drill is no order that survives
//! the process: a proxy that dies and comes back has the region in.
//!
//! **Success** is an answer of a backend that is no failure: degraded answers are none.

use crate::model::count::RouteCount;
use crate::model::event::DrillStage;
use crate::model::signal::Hist;
use crate::model::time::{Duration, Moment};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

/// The stretch in which a fault is plain, and the requests that make it so.
const PLAIN: (Duration, u64) = (Duration::from_secs(1), 5);
/// The stretch in which little is enough, and how little.
const LITTLE: (Duration, u64) = (Duration::from_secs(10), 20);

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watched {
    Success,
    P99,
    Shed,
    Degraded,
}

/// A condition that ends a drill. Parsed from `success<99.5%` and the like, and printed as it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Guard {
    route: Option<String>,
    watched: Watched,
    /// A part (0 to 1), or seconds.
    limit: f64,
    text: String,
}

const GUARDS: &str = "a guard is success<99.5%, p99>300ms, shed>1% or degraded>2%, with ROUTE: in front for one route alone";

impl FromStr for Guard {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no guard: {GUARDS}");
        let bare: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let at = bare.find(['<', '>']).ok_or_else(wrong)?;
        let (name, limit) = (&bare[..at], &bare[at + 1..]);
        let (route, name) = name.rsplit_once(':').map_or((None, name), |(r, n)| (Some(r.to_owned()), n));
        let (watched, below) = match name {
            "success" => (Watched::Success, true),
            "p99" => (Watched::P99, false),
            "shed" => (Watched::Shed, false),
            "degraded" => (Watched::Degraded, false),
            _ => return Err(wrong()),
        };
        if below != (bare.as_bytes()[at] == b'<') {
            return Err(format!("`{text}` would end the drill while all is well: {GUARDS}"));
        }
        let number = |unit: &str, times: f64| -> Option<f64> { Some(limit.strip_suffix(unit)?.parse::<f64>().ok()? * times) };
        let limit = if watched == Watched::P99 {
            number("ms", 1e-3).or_else(|| number("s", 1.0))
        } else {
            number("%", 0.01).or_else(|| limit.parse().ok()).filter(|p| (0.0..=1.0).contains(p))
        };
        Ok(Self { route, watched, limit: limit.filter(|l| l.is_finite() && *l >= 0.0).ok_or_else(wrong)?, text: bare.clone() })
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What requests of a route have come to so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Counts that only grow.
    pub count: RouteCount,
    /// Times of whole requests, likewise.
    pub times: Hist,
}

/// How things stand, besides counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Around {
    /// Regions that are out of their own accord.
    pub tripped: Vec<String>,
    /// The edge suspects itself.
    pub edge_suspect: bool,
    /// The region's drain is this drill's.
    pub ours: bool,
    /// The proxy is shutting down.
    pub leaving: bool,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// The region, drained as if it were lost.
    pub region: String,
    /// Gradually over this time.
    pub over: Duration,
    /// Then for so long.
    pub hold: Duration,
    /// What ends it early.
    pub guards: Vec<Guard>,
    /// Whoever runs it must say so again within this time; `None`: need not.
    pub lease: Option<Duration>,
}

/// What is to be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Nothing.
    None,
    /// The region is drained now: put it on record.
    Held,
    /// Put the region back; at once or by its ramp.
    Restore {
        /// Whatever the ramp would say.
        at_once: bool,
    },
}

/// A drill under way, or over.
#[derive(Clone, Debug)]
pub struct Drill {
    terms: Terms,
    stage: DrillStage,
    began: Moment,
    renewed: Moment,
    looks: VecDeque<(Moment, Vec<Reading>)>,
    first: Vec<Reading>,
    what: String,
    /// The last look at which all was well, where a later one ended the drill.
    well: Option<Moment>,
}

impl Drill {
    /// Begins: the region's drain has been ordered.
    pub fn begin(terms: Terms, now: Moment) -> Self {
        let over = if terms.over.is_zero() { "at once".into() } else { format!("over {:?}", terms.over) };
        let what = format!("{over}, then for {:?}", terms.hold);
        Self { terms, stage: DrillStage::Draining, began: now, renewed: now, looks: VecDeque::new(), first: Vec::new(), what, well: None }
    }
    /// Whoever runs it is there.
    pub fn renew(&mut self, now: Moment) {
        self.renewed = now;
    }
    /// What was asked for.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }
    /// Where it is.
    pub fn stage(&self) -> DrillStage {
        self.stage
    }
    /// In words.
    pub fn what(&self) -> &str {
        &self.what
    }
    /// When it began.
    pub fn began(&self) -> Moment {
        self.began
    }
    /// Until the region is back, if nothing comes in between.
    pub fn remaining(&self, now: Moment) -> Duration {
        if self.stage.over() { Duration::ZERO } else { now.until(self.began + self.terms.over + self.terms.hold) }
    }
    /// What requests came to since it began, by route.
    pub fn results(&self) -> Vec<Came> {
        let Some((_, last)) = self.looks.back() else { return Vec::new() };
        let all = last.iter().map(|now| difference(now, &self.first));
        all.filter(|r| r.count.requests() > 0).map(|r| Came::of(&r)).collect()
    }

    /// Ends it early.
    pub fn abort(&mut self, why: &str) -> Act {
        if self.stage.over() {
            return Act::None;
        }
        (self.stage, self.what) = (DrillStage::Aborted, why.to_owned());
        Act::Restore { at_once: true }
    }

    /// The region is back. Where a look ended the drill, its report says how long that took, counted from the last look at which
    /// all was well: whatever was crossed was crossed after that.
    pub fn undone(&mut self, now: Moment) {
        if let Some(well) = self.well.take() {
            self.what += &format!("; back {} ms after the last look at which all was well", now.since(well).as_millis());
        }
    }

    /// A look at how things stand. Ten times a second.
    pub fn step(&mut self, now: Moment, readings: Vec<Reading>, around: &Around) -> Act {
        if self.stage.over() {
            return Act::None;
        }
        if self.first.is_empty() {
            self.first = readings.clone();
        }
        self.looks.push_back((now, readings));
        while self.looks.len() > 2 && now.since(self.looks[1].0) >= LITTLE.0 {
            self.looks.pop_front();
        }
        if let Some(why) = self.reason(now, around) {
            self.well = Some(self.looks.iter().rev().nth(1).map_or(self.began, |(at, _)| *at));
            return self.abort(&why);
        }
        let lasts = now.since(self.began);
        if lasts >= self.terms.over + self.terms.hold {
            self.stage = DrillStage::Passed;
            self.what = self.summary();
            return Act::Restore { at_once: false };
        }
        if self.stage == DrillStage::Draining && lasts >= self.terms.over {
            self.stage = DrillStage::Holding;
            self.what = format!("without traffic, for {:?}", self.terms.hold);
            return Act::Held;
        }
        Act::None
    }

    /// Why it must end.
    fn reason(&self, now: Moment, around: &Around) -> Option<String> {
        if around.leaving {
            return Some("the proxy is shutting down".into());
        }
        if !around.ours {
            return Some("somebody else lifted or replaced its drain".into());
        }
        if let Some(lease) = self.terms.lease.filter(|l| now.since(self.renewed) > *l) {
            return Some(format!("whoever ran it has not been heard of for {lease:?}"));
        }
        if around.edge_suspect {
            return Some("unrelated regions went bad together, or this process was stalled".into());
        }
        if let Some(other) = around.tripped.iter().find(|r| **r != self.terms.region) {
            return Some(format!("region {other} tripped"));
        }
        self.terms.guards.iter().find_map(|g| self.crossed(now, g))
    }

    fn crossed(&self, now: Moment, guard: &Guard) -> Option<String> {
        let (_, last) = self.looks.back()?;
        for (span, least, plain) in [(PLAIN.0, PLAIN.1, true), (LITTLE.0, LITTLE.1, false)] {
            // The newest look that is at least so old, or the first there is.
            let from = self.looks.iter().rev().find(|(at, _)| now.since(*at) >= span).or(self.looks.front())?;
            for reading in last.iter().filter(|r| guard.route.as_ref().is_none_or(|name| *name == r.count.route)) {
                let stretch = difference(reading, &from.1);
                let (wrong, all) = guard.wrong(&stretch);
                let enough = if plain { wrong >= least } else { all >= least };
                if enough && guard.over(wrong, all) {
                    let got = Came::of(&stretch);
                    let span = now.since(from.0).as_secs_f64();
                    return Some(format!("{guard} on route {}: {got} over the last {span:.1} s", got.route));
                }
            }
        }
        None
    }

    fn summary(&self) -> String {
        let all = self.results();
        let requests: u64 = all.iter().map(|r| r.requests).sum();
        let worst = all.iter().min_by(|a, b| a.success.total_cmp(&b.success));
        let worst = worst.map_or(String::new(), |w| format!("; the worst route was {}: {w}", w.route));
        format!("drained over {:?}, held for {:?}, {requests} requests{worst}", self.terms.over, self.terms.hold)
    }
}

impl Guard {
    /// The route it is for; `None`: every one.
    pub fn route(&self) -> Option<&str> {
        self.route.as_deref()
    }
    /// Requests on the wrong side, and those that count.
    fn wrong(&self, r: &Reading) -> (u64, u64) {
        let all = r.count.requests();
        match self.watched {
            Watched::Success => (all - r.count.ok - r.count.client_error, all),
            Watched::Shed => (r.count.shed, all),
            Watched::Degraded => (r.count.degraded(), all),
            Watched::P99 => {
                let limit = (self.limit * 1e6) as u64;
                let slow = r.times.0.iter().enumerate().filter(|(i, _)| *i > Hist::bucket(limit)).map(|(_, n)| u64::from(*n)).sum();
                (slow, r.times.count())
            }
        }
    }
    fn over(&self, wrong: u64, all: u64) -> bool {
        let part = wrong as f64 / all.max(1) as f64;
        let allowed = match self.watched {
            Watched::Success => 1.0 - self.limit,
            Watched::Shed | Watched::Degraded => self.limit,
            Watched::P99 => 0.01,
        };
        part > allowed + 1e-9
    }
}

fn difference(now: &Reading, before: &[Reading]) -> Reading {
    let Some(before) = before.iter().find(|b| b.count.route == now.count.route) else { return now.clone() };
    let n = |i: usize| before.times.0.get(i).copied().unwrap_or(0);
    let times = now.times.0.iter().enumerate().map(|(i, t)| t.saturating_sub(n(i))).collect();
    Reading { count: now.count.since(&before.count), times: Hist(times) }
}

/// What a route's requests came to over a stretch of time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Came {
    /// The route.
    pub route: String,
    /// Requests that ended.
    pub requests: u64,
    /// The part of them that a backend answered well, 0 to 1.
    pub success: f64,
    /// 99 of 100 took at most this, ms; null: none ended.
    pub p99_ms: Option<f64>,
    /// The part that was refused because of overload.
    pub shed: f64,
    /// The part that got a degraded answer.
    pub degraded: f64,
}

impl Came {
    fn of(r: &Reading) -> Self {
        let all = r.count.requests();
        let part = |n: u64| n as f64 / all.max(1) as f64;
        Self {
            route: r.count.route.clone(),
            requests: all,
            success: if all == 0 { 1.0 } else { part(r.count.ok + r.count.client_error) },
            p99_ms: r.times.quantile(0.99).map(|t| t.as_secs_f64() * 1e3),
            shed: part(r.count.shed),
            degraded: part(r.count.degraded()),
        }
    }
}

impl fmt::Display for Came {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2}% of {} requests succeeded", self.success * 100.0, self.requests)?;
        if let Some(p99) = self.p99_ms {
            write!(f, ", p99 {p99:.0} ms")?;
        }
        for (part, what) in [(self.shed, "shed"), (self.degraded, "degraded")] {
            if part > 0.0 {
                write!(f, ", {:.2}% {what}", part * 100.0)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
