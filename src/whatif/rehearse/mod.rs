//! A rehearsal: one outage, played against one config, and what users would have felt.
//!
//! ```text
//! Scenario ──stage──▶ Script ──world──▶ Ledger (per route and second) ──▶ Report ──▶ tell (text) | draw (SVG) | JSON
//! ```
//!
//! One edge is modelled. Of a fleet of `edges` alike it gets its part of the load, and its pools that part of what they can
//! carry. At most [`MODELLED`] requests a second are played: above that the whole world is scaled down, so that each
//! simulated request stands for many: load, what servers carry, declared capacities, in-flight limits, the least retry
//! allowance. What a small sample does by chance is more than what a large stream does, so a scaled world is a little rougher than the
//! real one, and the detector, which sees fewer requests, a little later.

pub mod draw;
mod ledger;
mod report;
mod stage;
pub mod tell;

pub use report::{Objective, Report};

use super::script::{Cold, Fault};
use super::world;
use crate::model::id::RouteIx;
use crate::model::signal::Order;
use crate::model::time::Duration;
use crate::model::view::Compiled;
use std::sync::Arc;

/// Requests a second that are played one by one; more are played as samples.
pub const MODELLED: f64 = 2000.0;

/// What is to be rehearsed, checked against the config it is for.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// What happens in it, in a line.
    pub what: String,
    /// How long load is offered.
    pub length: Duration,
    /// Requests a second over all edges; `None`: half of what the pools carry, or 300.
    pub rate: Option<f64>,
    /// Edges alike.
    pub edges: u32,
    /// Factors on the rate over time, straight lines between.
    pub day: Vec<(Duration, f64)>,
    /// Requests come evenly spaced, not by chance.
    pub even: bool,
    /// What clients do who were not answered well: how often they ask again.
    pub resend: u32,
    /// And after what time.
    pub resend_after: Duration,
    /// By [`RouteIx`].
    pub routes: Vec<RouteLoad>,
    /// By `PoolIx`.
    pub pools: Vec<Servers>,
    /// What breaks.
    pub faults: Vec<Fault>,
    /// What operators do.
    pub orders: Vec<(Duration, Order)>,
    /// What has to hold.
    pub objectives: Objectives,
}

impl Scenario {
    /// Nothing happens in it.
    pub fn calm(config: &Compiled) -> Self {
        let t = &config.topology;
        Self {
            name: "calm".into(),
            what: String::new(),
            length: Duration::from_secs(60),
            rate: None,
            edges: 1,
            day: vec![],
            even: false,
            resend: 0,
            resend_after: Duration::from_secs(1),
            routes: t.routes.iter().map(RouteLoad::of).collect(),
            pools: vec![Servers::default(); t.pools.len()],
            faults: vec![],
            orders: vec![],
            objectives: Objectives::default(),
        }
    }
}

/// The load of one route.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteLoad {
    /// Its part of all requests, against those of the others.
    pub part: f64,
    /// The part of them that is not safe.
    pub writes: f64,
    /// Different things asked for.
    pub keys: u32,
}

impl RouteLoad {
    /// What a route's methods let expect.
    fn of(route: &crate::model::policy::Route) -> Self {
        let safe = |m: &String| matches!(m.as_str(), "GET" | "HEAD" | "OPTIONS" | "TRACE");
        let methods = &route.matches.methods;
        let writes = match methods.iter().filter(|m| safe(m)).count() {
            _ if methods.is_empty() => 0.15,
            0 => 1.0,
            n if n == methods.len() => 0.0,
            _ => 0.15,
        };
        Self { part: 1.0, writes, keys: 1000 }
    }
}

/// The servers of one pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Servers {
    /// One way, edge to region.
    pub wire: Duration,
    /// Median time a request keeps a worker.
    pub service: Duration,
    /// Sigma of its log-normal.
    pub spread: f64,
    /// Requests that each endpoint serves side by side.
    pub workers: Option<u32>,
    /// Requests a second that the pool can really do, over all edges; `None`: a fifth more than its
    /// declared capacity (nobody declares the last drop), or twice its share.
    pub carries: Option<f64>,
    /// How its processes begin when they were killed.
    pub restart: Option<Cold>,
}

impl Default for Servers {
    fn default() -> Self {
        let site = super::Site::default();
        Self { wire: site.wire, service: site.service, spread: site.spread, workers: None, carries: None, restart: site.restart }
    }
}

/// What has to hold from the first fault on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objectives {
    /// The part of all requests that must be served.
    pub success: Option<f64>,
    /// Above this part of a second's requests must be served in every second later than that after the first fault.
    pub recover_within: Option<Duration>,
    /// By route: the part that must be served, and the p99 of what is.
    pub routes: Vec<(RouteIx, Option<f64>, Option<Duration>)>,
}

/// Play it. `rate`: instead of the scenario's.
pub fn rehearse(scenario: &Scenario, config: &Arc<Compiled>, rate: Option<f64>, seed: u64) -> Report {
    let stage = stage::set(scenario, config, rate, seed);
    let ledger = ledger::Ledger::new(&stage, scenario);
    let ledger = world::watch(&stage.script, ledger);
    report::Report::of(scenario, config, &stage, ledger)
}

#[cfg(test)]
mod tests;
