//! What edges of a fleet tell each other, and what they make of it.
//!
//! A [`Report`] is one edge's account of what it sees with its own eyes, never of what others told it: were hearsay passed
//! on, a verdict would confirm itself for ever. It is heard with a lease; the hearer's own clock measures it, so clocks of
//! different machines need not agree.

use super::view::State;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What one edge thinks of one pool, by its own evidence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Opinion {
    /// Nothing to go by: no traffic and no probes lately, or the edge distrusts itself.
    #[default]
    Unknown,
    /// It answers.
    Well,
    /// In doubt, or on its way back and not proved yet.
    Suspect,
    /// It does not answer, or not as it should.
    Down,
}

impl Opinion {
    /// The name in status and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Well => "well",
            Self::Suspect => "suspect",
            Self::Down => "down",
        }
    }
}

impl fmt::Display for Opinion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// One edge's view of one pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolReport {
    /// By its own evidence.
    pub opinion: Opinion,
    /// What it does about it.
    pub state: State,
    /// Why, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Steps of the ramp it has passed, while the pool is coming back there (0: not yet let in); `None`: it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rung: Option<u32>,
}

/// One edge's view of everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Who speaks.
    pub edge: String,
    /// Which life of it: larger ones are later.
    pub incarnation: u64,
    /// Counts the reports of a life: a report that was overtaken is dropped.
    pub seq: u64,
    /// Requests per second offered to each service.
    pub demand: BTreeMap<String, f64>,
    /// By pool (`service/region`).
    pub pools: BTreeMap<String, PoolReport>,
}

/// What the fleet tells the controller.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// An edge's view.
    View(Report),
    /// An edge said that it leaves for good.
    Left {
        /// Who.
        edge: String,
        /// Which life of it.
        incarnation: u64,
    },
    /// The way to the others: whether it is open, and if not, why.
    Link {
        /// Open.
        up: bool,
        /// In words.
        why: String,
    },
    /// How many edges there were when this process was last there.
    Remembered(u32),
}

/// The fleet in `GET /v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FleetStatus {
    /// Connected to NATS.
    pub connected: bool,
    /// Why not, or where to.
    pub link: String,
    /// `off`, `advise` or `follow`.
    pub verdicts: String,
    /// Enough of the edges known of are heard to speak of a majority.
    pub quorum: bool,
    /// Live edges, this one among them.
    pub live: u32,
    /// Edges among which capacities and trials are divided, this one among them.
    pub sharing: u32,
    /// This edge's part of what each service's pools can take.
    pub portions: BTreeMap<String, f64>,
    /// What is wrong or unusual, in words.
    pub notes: Vec<String>,
    /// Regions that this edge alone sees down: its own uplink is suspect.
    pub alone: Vec<String>,
    /// Who thinks what, this edge first.
    pub edges: Vec<EdgeStatus>,
    /// Orders of the fleet, as last heard.
    pub orders: Vec<OrderStatus>,
}

/// One edge of the fleet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EdgeStatus {
    /// Its name.
    pub name: String,
    /// Heard within its lease.
    pub live: bool,
    /// Last heard so long ago, s.
    pub heard_s: f64,
    /// Requests per second offered to it.
    pub demand: f64,
    /// By pool (`service/region`).
    pub pools: BTreeMap<String, PoolReport>,
}

/// A standing order of the fleet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OrderStatus {
    /// What it is about: `drain/east`, `trip/api/west`, `freeze`.
    pub about: String,
    /// In force, or lifted.
    pub on: bool,
    /// Who gave it.
    pub by: String,
    /// Through which edge.
    pub edge: String,
    /// Why.
    pub reason: String,
    /// When, RFC 3339.
    pub at: String,
    /// Ends by itself then, RFC 3339.
    pub until: Option<String>,
    /// Its revision in the fleet's store; 0: not there yet.
    pub revision: u64,
}
