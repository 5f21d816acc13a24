//! From events to incidents.
//!
//! **An incident** begins when a pool trips (or when states are held in common mode) and ends when every pool that
//! tripped is serving again and states are not held. What trips within [`APART`] of an end is the same incident: regions that
//! flap, services that follow one another. What led up to it ([`PRELUDE`] before the first trip: suspicions, endpoints
//! going out) and what people did meanwhile belong to it. A pool that an operator or a drill took out makes no incident.
//!
//! | time | from | to |
//! |---|---|---|
//! | detect | onset: the first evidence, minus the silence it tells of | the first suspicion, ejection or trip |
//! | shift | onset | the first trip: the picture without the pool is out within that tick |
//! | restore | the first trip | every pool serving |
//!
//! **Onset** is what the edge itself could see: the last sign of life before the silence that tripped a pool. Where answers
//! failed rather than stayed away, it is the first suspicion, ejection or trip, and the truth lies up to a window earlier. A suspicion that was
//! lifted again before the trip is no evidence.
//!
//! **Toll**: counts are put on record from shortly before the first trip on ([`toll`](super::toll)); what requests came to is counted from the
//! last look before the onset, at most a second earlier, to the first look after the end.
//!
//! What it does not know: what a request meant to whoever sent it.

use super::toll::{Carried, Look, Looks, Point, toll};
use super::when::At;
use crate::model::count::RouteCount;
use crate::model::event::{Actor, Cause, Event, EventKind};
use crate::model::time::Duration;
use crate::model::view::State;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Trips this soon after the end belong to the same incident.
const APART: Duration = Duration::from_secs(60);
/// What happened so shortly before the first trip may have announced it.
const PRELUDE: Duration = Duration::from_secs(30);
/// A config or an order this shortly before the onset is a suspect.
const LATELY: Duration = Duration::from_secs(600);

/// Incidents that are kept; older ones are let go.
const MOST: usize = 500;

/// One event with the wall clock.
#[derive(Clone, Debug)]
pub struct Entry {
    /// When.
    pub at: At,
    /// Events lost right before this one.
    pub lost: u64,
    /// What happened.
    pub event: Event,
}

/// One episode.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Incident {
    /// Names it: the second of its first trip, Unix time.
    pub id: String,
    /// When the trouble began, as far as the edge could see.
    pub onset: At,
    /// The first suspicion, ejection or trip.
    pub detected: At,
    /// The first trip.
    pub shifted: At,
    /// Everything serving again; null: it goes on.
    pub restored: Option<At>,
    /// Onset to detected, ms.
    pub detect_ms: u64,
    /// Onset to shifted, ms.
    pub shift_ms: u64,
    /// Shifted to restored, ms.
    pub restore_ms: Option<u64>,
    /// The cause of the first trip: its name.
    pub cause: String,
    /// In words.
    pub cause_text: String,
    /// Every region concerned.
    pub regions: Vec<String>,
    /// Every pool that tripped.
    pub pools: Vec<PoolCourse>,
    /// What requests came to, by route.
    pub routes: Vec<RouteCount>,
    /// What each region carried.
    pub carried: Vec<Carried>,
    /// Requests over time, for a chart.
    pub series: Vec<Point>,
    /// What happened, in order.
    pub timeline: Vec<Line>,
    /// What people and files did shortly before and meanwhile.
    pub actions: Vec<Line>,
    /// What the record cannot answer.
    pub questions: Vec<String>,
}

/// What became of one pool.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PoolCourse {
    /// `service/region`.
    pub pool: String,
    /// Trips.
    pub trips: u32,
    /// Not serving or ramping, ms in all; up to now, where it goes on.
    pub out_ms: u64,
    /// The cause of its first trip.
    pub cause: String,
}

/// One line of a timeline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// When.
    pub at: At,
    /// By whom.
    pub by: String,
    /// What.
    pub what: String,
}

/// All incidents of one edge's events (in order), oldest first. `now` bounds those that go on.
pub fn incidents(entries: impl IntoIterator<Item = Entry>, now: At) -> Vec<Incident> {
    let mut reader = Reader::default();
    for entry in entries {
        reader.read(entry);
    }
    reader.so_far(now)
}

/// Makes incidents of events as they come.
#[derive(Default)]
pub struct Reader {
    done: VecDeque<Incident>,
    open: Option<Open>,
    /// The last ten minutes.
    recent: Vec<Entry>,
    counts: Looks,
}

#[derive(Clone)]
struct Open {
    entries: Vec<Entry>,
    before: Vec<Entry>,
    first_trip: At,
    pools: BTreeMap<String, Course>,
    held: bool,
    looks: Vec<Look>,
    /// Everything was well again then.
    well: Option<At>,
}

#[derive(Clone, Default)]
struct Course {
    trips: u32,
    out: Duration,
    out_since: Option<At>,
    serving: bool,
    cause: Option<Cause>,
}

impl Reader {
    /// One more event, later than all before.
    pub fn read(&mut self, entry: Entry) {
        let look = match &entry.event.kind {
            EventKind::Counts(counts) => Some(self.counts.read(entry.at, counts)),
            EventKind::Started { .. } => Some(self.counts.anew(entry.at)),
            _ => None,
        };
        if let (Some(look), Some(open)) = (look, &mut self.open) {
            open.looks.push(look);
        }
        if matches!(entry.event.kind, EventKind::Counts(_)) {
            return;
        }
        if self.open.as_ref().is_some_and(|o| o.well.is_some_and(|w| entry.at.since(w) > APART)) {
            self.close(entry.at);
        }
        self.recent.retain(|e| entry.at.since(e.at) <= LATELY);
        self.recent.push(entry.clone());
        if self.open.is_none() && begins(&entry.event) {
            let (before, entries): (Vec<_>, Vec<_>) = self
                .recent
                .iter()
                .cloned()
                .partition(|e| entry.at.since(e.at) > PRELUDE || matches!(e.event.kind, EventKind::Started { .. }));
            let mut open = Open {
                entries: Vec::new(),
                before,
                first_trip: entry.at,
                pools: BTreeMap::new(),
                held: false,
                looks: self.counts.recent(),
                well: None,
            };
            entries.into_iter().for_each(|e| open.take(e));
            self.open = Some(open);
        } else if let Some(open) = &mut self.open {
            open.take(entry);
        }
    }
    fn close(&mut self, now: At) {
        self.done.extend(self.open.take().map(|o| o.report(now)));
        if self.done.len() > MOST {
            self.done.pop_front();
        }
    }
    /// All of them, oldest first; `now` bounds the one that goes on.
    pub fn so_far(&self, now: At) -> Vec<Incident> {
        self.done.iter().cloned().chain(self.open.clone().map(|o| o.report(now))).collect()
    }
}

/// Whether the edge took something out of its own accord.
fn begins(e: &Event) -> bool {
    match &e.kind {
        EventKind::Pool { to: State::Tripped, cause, .. } => !ordered(&e.by, cause),
        EventKind::EdgeSuspect { on, .. } => *on,
        _ => false,
    }
}

fn ordered(by: &Actor, cause: &Cause) -> bool {
    *by != Actor::Evenkeel || matches!(cause, Cause::Operator { .. })
}

impl Open {
    fn take(&mut self, entry: Entry) {
        let at = entry.at;
        match &entry.event.kind {
            EventKind::Pool { service, region, to, cause, .. } => {
                let pool = self.pools.entry(format!("{service}/{region}")).or_default();
                let out = matches!(to, State::Tripped | State::Trial);
                if *to == State::Tripped {
                    pool.trips += 1;
                    pool.cause.get_or_insert_with(|| cause.clone());
                }
                match (out, pool.out_since) {
                    (true, None) => pool.out_since = Some(at),
                    (false, Some(since)) => {
                        pool.out += at.since(since);
                        pool.out_since = None;
                    }
                    _ => {}
                }
                pool.serving = *to == State::Serving;
            }
            EventKind::EdgeSuspect { on, .. } => self.held = *on,
            // A new process knows nothing of the old one's states.
            EventKind::Started { .. } => {
                self.held = false;
                self.pools.values_mut().for_each(|p| {
                    p.out += p.out_since.take().map_or(Duration::ZERO, |since| at.since(since));
                    p.serving = true;
                });
            }
            _ => {}
        }
        let well = !self.held && self.pools.values().all(|p| p.serving || p.trips == 0);
        self.well = if well { self.well.or(Some(at)) } else { None };
        self.entries.push(entry);
    }

    fn report(self, now: At) -> Incident {
        // What comes after the end is no part of it any more.
        let end = self.well.unwrap_or(now);
        let entries: Vec<&Entry> = self.entries.iter().filter(|e| e.at <= end).collect();
        let evidence = standing(&entries, self.first_trip);
        let onset = evidence.iter().map(|(at, quiet)| at.before(*quiet)).min().unwrap_or(self.first_trip);
        let detected = evidence.iter().map(|(at, _)| *at).min().unwrap_or(self.first_trip);
        let cause = entries.iter().filter(|e| begins(&e.event)).find_map(|e| match &e.event.kind {
            EventKind::Pool { cause, .. } | EventKind::EdgeSuspect { cause, .. } => Some(cause),
            _ => None,
        });
        let regions: BTreeSet<&str> =
            self.pools.iter().filter(|(_, c)| c.trips > 0).filter_map(|(p, _)| Some(p.split_once('/')?.1)).collect();
        let toll = toll(self.looks.clone(), onset, self.well);
        let actions = self.before.iter().chain(entries.iter().copied()).filter(|e| done_by_people(&e.event));
        Incident {
            id: (self.first_trip.0 / 1_000_000).to_string(),
            onset,
            detected,
            shifted: self.first_trip,
            restored: self.well,
            detect_ms: ms(detected.since(onset)),
            shift_ms: ms(self.first_trip.since(onset)),
            restore_ms: self.well.map(|w| ms(w.since(self.first_trip))),
            cause: cause.map_or("unknown", Cause::name).into(),
            cause_text: cause.map_or("unknown".into(), ToString::to_string),
            regions: regions.into_iter().map(Into::into).collect(),
            pools: self.pools.iter().filter(|(_, c)| c.trips > 0).map(|(p, c)| c.report(p, end)).collect(),
            actions: actions.map(line).collect(),
            questions: self.questions(&entries, onset, &toll.routes),
            routes: toll.routes,
            carried: toll.regions,
            series: toll.series,
            timeline: entries.iter().map(|e| line(e)).collect(),
        }
    }

    fn questions(&self, entries: &[&Entry], onset: At, routes: &[RouteCount]) -> Vec<String> {
        let mut asked = Vec::new();
        if self.well.is_none() {
            asked.push("It goes on: these figures are not final.".into());
        }
        let lost: u64 = entries.iter().map(|e| e.lost).sum();
        if lost > 0 {
            asked.push(format!("{lost} events were lost (the journal's disk did not keep up): the timeline has gaps."));
        }
        for e in self.before.iter().chain(entries.iter().copied()).filter(|e| e.at <= onset) {
            if let EventKind::ConfigApplied { generation, .. } = &e.event.kind {
                let ago = onset.since(e.at).as_secs();
                asked.push(format!("Config {generation} was applied {ago} s before the onset: did it cause this?"));
            }
        }
        if entries.iter().any(|e| matches!(e.event.kind, EventKind::Started { .. })) {
            asked.push("The proxy started anew in between: what made it, and what did requests see meanwhile?".into());
        }
        if entries.iter().any(|e| matches!(e.event.kind, EventKind::EdgeSuspect { on: true, .. })) {
            asked.push("Unrelated regions went bad together, or this process was stalled: what do they share?".into());
        }
        for r in routes.iter().filter(|r| r.in_doubt > 0) {
            asked.push(format!("{} writes of route {} were sent and not answered: which of them were applied?", r.in_doubt, r.route));
        }
        for (pool, course) in &self.pools {
            if course.trips > 1 {
                asked.push(format!("{pool} tripped {} times: what made it come back too early?", course.trips));
            }
        }
        asked
    }
}

impl Course {
    fn report(&self, pool: &str, end: At) -> PoolCourse {
        let out = self.out + self.out_since.map_or(Duration::ZERO, |since| end.since(since));
        let cause = self.cause.as_ref().map_or(String::new(), ToString::to_string);
        PoolCourse { pool: pool.into(), trips: self.trips, out_ms: ms(out), cause }
    }
}

/// The evidence that stood at the first trip: what was heard from again in between announced nothing.
fn standing(entries: &[&Entry], first_trip: At) -> Vec<(At, Duration)> {
    let mut stands: BTreeMap<String, (At, Duration)> = BTreeMap::new();
    for e in entries.iter().filter(|e| e.at <= first_trip) {
        let (about, clears) = match &e.event.kind {
            EventKind::Suspect { service, region, on, .. } => (format!("suspect {service}/{region}"), !on),
            EventKind::Endpoint { service, region, endpoint, up, .. } => (format!("endpoint {service}/{region} {endpoint}"), *up),
            EventKind::EdgeSuspect { on, .. } => ("edge".into(), !on),
            EventKind::Pool { service, region, .. } => (format!("pool {service}/{region}"), false),
            _ => continue,
        };
        if clears {
            stands.remove(&about);
        } else if let Some(quiet) = sign(&e.event) {
            stands.entry(about).or_insert((e.at, quiet));
        }
    }
    stands.into_values().collect()
}

/// Evidence against something, and how long it had been silent by then.
fn sign(e: &Event) -> Option<Duration> {
    let cause = match &e.kind {
        EventKind::Pool { to: State::Tripped, cause, .. } if !ordered(&e.by, cause) => cause,
        EventKind::Suspect { on: true, cause, .. }
        | EventKind::Endpoint { up: false, cause, .. }
        | EventKind::EdgeSuspect { on: true, cause } => cause,
        _ => return None,
    };
    Some(match cause {
        Cause::Silence { quiet_ms, .. } => Duration::from_millis(*quiet_ms),
        _ => Duration::ZERO,
    })
}

fn done_by_people(e: &Event) -> bool {
    match &e.kind {
        EventKind::ConfigApplied { .. }
        | EventKind::ConfigRejected { .. }
        | EventKind::Drain { .. }
        | EventKind::Freeze { .. }
        | EventKind::StalePurged { .. }
        | EventKind::Drill { .. } => true,
        EventKind::Pool { cause, .. } => ordered(&e.by, cause),
        _ => false,
    }
}

fn ms(d: Duration) -> u64 {
    d.as_millis() as u64
}

fn line(e: &Entry) -> Line {
    Line { at: e.at, by: e.event.by.to_string(), what: e.event.kind.to_string() }
}
