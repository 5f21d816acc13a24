//! Evenkeel: an edge reverse proxy that keeps a service answering when a whole region goes dark.
//! ARCHITECTURE.md has the map, the two ways through the house, and the layer rule.

pub mod admin;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod demo;
pub mod discover;
pub mod edge;
pub mod fleet;
pub mod http1;
pub mod journal;
pub mod ledger;
pub mod live;
pub mod logging;
pub mod model;
pub mod probe;
pub mod report;
pub mod run;
pub mod sense;
pub mod spool;
pub mod steer;
pub mod upstream;
pub mod whatif;
