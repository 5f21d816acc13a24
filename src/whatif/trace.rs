//! Everything that happened in a world, for checkers and reports.

use crate::model::event::Event;
use crate::model::id::*;
use crate::model::outcome::Outcome;
use crate::model::signal::{ProbeVerdict, Tallies};
use crate::model::time::{Duration, Moment};
use crate::model::view::{State, View};
use crate::steer::fallback::Refusal;
use std::fmt::Write;
use std::sync::Arc;

/// One thing that happened.
#[derive(Clone, Debug)]
pub struct Record {
    /// When.
    pub at: Moment,
    /// What.
    pub note: Note,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Note {
    /// A picture was published.
    View(Arc<View>),
    /// The controller put something on record.
    Event(Event),
    /// A request came.
    Asked {
        /// Counts requests.
        request: u32,
        /// Its route.
        route: RouteIx,
        /// Read.
        safe: bool,
        /// Fails everywhere.
        poison: bool,
    },
    /// An attempt started.
    Try {
        /// Of which request.
        request: u32,
        /// On which route.
        route: RouteIx,
        /// Which of its attempts, from 0.
        id: u8,
        /// Where.
        pool: PoolIx,
        /// At which endpoint.
        endpoint: EndpointIx,
        /// Read.
        safe: bool,
        /// As a trial.
        trial: bool,
        /// Beside another one.
        hedge: bool,
        /// In flight at the pool before it.
        inflight: u32,
        /// Generation of the config it goes by.
        generation: u64,
    },
    /// An attempt ended.
    Ended {
        /// Of which request.
        request: u32,
        /// Which of its attempts.
        id: u8,
        /// Where.
        pool: PoolIx,
        /// How.
        outcome: Outcome,
    },
    /// A request ended.
    Done {
        /// Which.
        request: u32,
        /// Its route.
        route: RouteIx,
        /// Read.
        safe: bool,
        /// How.
        fate: Fate,
        /// How long it took.
        took: Duration,
    },
    /// A server applied a write (whatever became of the answer).
    Applied {
        /// Of which request.
        request: u32,
        /// Where.
        pool: PoolIx,
    },
    /// A probe came back.
    Probe {
        /// Of which endpoint.
        endpoint: EndpointIx,
        /// What it found.
        verdict: ProbeVerdict,
    },
    /// A tick that heard anything bad, or came late (others are not noted).
    Tick(Arc<Tallies>),
    /// A fault of the script began or ended.
    Fault(usize, bool),
    /// The controller refused an order.
    Refused(String),
    /// How the pools stand, by index, every second (for witnesses that want it).
    Gauges(Vec<Gauge>),
    /// So much calm was leapt over; times from here on are so much later by the script's clock.
    Leapt(Duration),
}

/// How a pool stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gauge {
    /// Its state.
    pub state: State,
    /// Its share of its service's requests.
    pub share: f64,
    /// Requests in flight it may have.
    pub limit: u32,
    /// Requests in flight it has.
    pub inflight: u32,
    /// Requests that wait there for a worker.
    pub queued: u32,
    /// How long the next one would wait.
    pub wait: Duration,
}

/// Who is told what happens.
pub trait Witness {
    /// Whether it wants [`Note::Gauges`].
    const GAUGES: bool = false;
    /// Something happened.
    fn note(&mut self, at: Moment, note: Note);
}

impl Witness for Trace {
    fn note(&mut self, at: Moment, note: Note) {
        self.0.push(Record { at, note });
    }
}

/// How a request ended, for its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// With a backend's answer, good or bad.
    Answered(Outcome),
    /// With an answer of our own.
    Degraded(Refusal),
    /// With the last good copy, marked.
    Copy,
    /// With nonsense that nobody could tell from an answer.
    Wrong,
}

impl Fate {
    /// With a good answer.
    pub fn good(self) -> bool {
        self == Self::Answered(Outcome::Ok)
    }
}

/// Everything, in order.
#[derive(Clone, Debug, Default)]
pub struct Trace(
    /// In time order.
    pub Vec<Record>,
);

impl Trace {
    /// The events.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.0.iter().filter_map(|r| if let Note::Event(e) = &r.note { Some(e) } else { None })
    }
    /// How requests ended, and when.
    pub fn fates(&self) -> impl Iterator<Item = (Moment, RouteIx, Fate, Duration)> {
        self.0.iter().filter_map(|r| match r.note {
            Note::Done { route, fate, took, .. } => Some((r.at, route, fate, took)),
            _ => None,
        })
    }
    /// A text with everything in it: two worlds are the same exactly where their texts are.
    pub fn text(&self) -> String {
        let mut s = String::with_capacity(self.0.len() * 96);
        for r in &self.0 {
            let _ = match &r.note {
                // A picture holds the whole config: only what can differ is written.
                Note::View(v) => writeln!(s, "{} view {} {} {:?} {:?}", r.at.0, v.version, v.edge_suspect, v.pools, v.tables),
                other => writeln!(s, "{} {other:?}", r.at.0),
            };
        }
        s
    }
}
