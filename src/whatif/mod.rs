//! A modelled world that runs the real decision core on virtual time: what would this outage do, under this config?
//!
//! ```text
//! script (sites, load, faults, orders) ─▶ world ──ticks, probes, orders──▶ sense::Controller ──View, grants──┐
//!                                          │ ▲                                                              │
//!                            plant (servers)│ └──── board (gauges, tallies) ◀── steer::Attempt ◀─────────────┘
//!                                          └─▶ trace: everything that happened, for checkers and reports
//! ```
//!
//! What is real: the controller, the attempt machine, choosing, classifying, ejecting. What is modelled, and how coarsely:
//!
//! - [`plant`]: endpoints with workers, an unbounded queue and log-normal service times; faults change both. No CPU sharing
//!   between endpoints, no disks, no databases behind them (a shared one is a fault on [`script::Target::Everywhere`]).
//! - the network: one delay per region and way; connections are dialled or taken from an idle stock. No bandwidth, no TCP
//!   retransmission: what is lost is lost.
//! - [`board`]: the pure twin of `live::cells`; a test holds the two together.
//! - last good copies: one for every key that a good answer was seen of, for ever. No bound, no age, no privacy rules.
//! - bodies: a request is complete when it comes, an answer is one piece.
//!
//! One dice seeds everything, one queue orders everything: the same script gives the same bytes.

pub mod board;
pub mod drill;
pub mod plan;
pub mod plant;
pub mod rehearse;
pub mod script;
pub mod trace;
pub mod world;

pub use script::{Cold, Fault, Load, Power, Script, Site, Target, What};
pub use trace::{Fate, Gauge, Note, Record, Trace, Witness};
pub use world::{play, watch};

use crate::model::dice::Dice;
use crate::model::time::Moment;
use crate::model::view::{Compiled, View};
use std::sync::Arc;

/// The picture under a config while nothing has failed.
pub fn at_rest(config: Arc<Compiled>) -> Arc<View> {
    crate::sense::Controller::new(config, Moment::ms(1000), Dice::new(0)).picture()
}
