//! What requests may know: one immutable picture, made by the control side, consumed by requests.

use super::id::*;
use super::policy::{Priority, Retry};
use super::time::{Duration, Moment};
use super::topology::Topology;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// A config, checked and ready to use: the topology and the router built from it.
#[derive(Debug)]
pub struct Compiled {
    /// Counts applied configs from 1.
    pub generation: u64,
    /// What the operator said.
    pub topology: Topology,
    /// The router (built by `steer::route`, which `model` does not know).
    pub routes: Box<dyn Routes>,
    /// The file it came from, and its text's FNV-1a hash, for `status` and to tell a change from a touch.
    pub source: Source,
}

/// Where a config came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The file.
    pub path: std::path::PathBuf,
    /// Its whole text, kept for `/v1/config` and for the last good copy.
    pub text: Arc<str>,
}

/// Finds the route of a request.
pub trait Routes: Send + Sync + fmt::Debug {
    /// The first route in file order that matches.
    fn find(&self, request: &RequestFacts<'_>) -> Option<RouteIx>;
}

/// What routing may look at.
#[derive(Clone, Copy)]
pub struct RequestFacts<'a> {
    /// Upper case as received.
    pub method: &'a str,
    /// Lower case, without port.
    pub host: &'a str,
    /// Without query.
    pub path: &'a str,
    /// All header fields.
    pub headers: &'a dyn Fields,
}

/// Header fields, however the protocol at hand keeps them.
pub trait Fields {
    /// The first value of a field (name in lower case).
    fn get(&self, name: &str) -> Option<&[u8]>;
    /// Every value of a field, in order (name in lower case).
    fn each(&self, name: &str, f: &mut dyn FnMut(&[u8]));
}

impl Fields for http::HeaderMap {
    fn get(&self, name: &str) -> Option<&[u8]> {
        http::HeaderMap::get(self, name).map(http::HeaderValue::as_bytes)
    }
    fn each(&self, name: &str, f: &mut dyn FnMut(&[u8])) {
        self.get_all(name).iter().for_each(|v| f(v.as_bytes()));
    }
}

/// The state of a pool, and of a region.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Takes its share.
    #[default]
    Serving,
    /// Out: takes nothing (but, when nothing else is left and it is merely sick, what its limit lets in).
    Tripped,
    /// Out, but gets probes and a few safe requests to prove itself.
    Trial,
    /// Coming back step by step.
    Ramping,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Serving, Self::Tripped, Self::Trial, Self::Ramping];
    /// The name in status, metrics and journal.
    pub fn label(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Tripped => "tripped",
            Self::Trial => "trial",
            Self::Ramping => "ramping",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// What of a pool's limit is kept for some requests, in places; zero everywhere as long as nobody is turned away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserve {
    /// For critical requests.
    pub critical: u32,
    /// For critical and normal ones.
    pub normal: u32,
    /// For requests that may go to fewer regions than others: those others go elsewhere first.
    pub bound: u32,
}

impl Reserve {
    /// Whether places are kept for somebody: more requests waited in vain lately than a queue can help.
    pub fn is_needed(&self) -> bool {
        self.critical > 0 || self.normal > 0
    }
}

/// What requests know of a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolView {
    /// Its state.
    pub state: State,
    /// New work avoids it for the moment.
    pub suspect: bool,
    /// Its region is drained: nothing goes there, ever.
    pub drained: bool,
    /// Nothing answers there (connect failures, silence): only safe trials may be sent.
    pub dead: bool,
    /// Requests in flight it may have, from the adaptive limit, `max_inflight` and the ramp.
    pub limit: u32,
    /// What of the limit is kept for whom.
    pub reserve: Reserve,
    /// Bumped when its connections are to be dropped: a connection dialled under another epoch is not reused.
    pub epoch: u32,
    /// The fraction of its service's requests it gets, over all regions (the unrestricted table).
    pub share: f64,
}

impl PoolView {
    /// Whether ordinary new work may go there.
    pub fn open(&self) -> bool {
        !self.drained && !self.dead && matches!(self.state, State::Serving | State::Ramping)
    }
}

/// A stretch of the unit interval (as 64 bits) that belongs to a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Who gets it.
    pub pool: PoolIx,
    /// Points up to and including this one (and above the previous slot's) are its.
    pub upto: u64,
}

/// How requests of one service and residency are shared out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TableView {
    /// First attempts: shares, worked out of weights, tiers, states, capacities and residency.
    /// Empty: no pool may take ordinary work; then only `trials` are left, and everything else degrades at once.
    pub slots: Vec<Slot>,
    /// Every pool that may take ordinary work, best first: for retries, hedges and when a slot's pool cannot.
    /// Pools that slots do not name (standbys of a higher tier, weight 0) stand behind those they do.
    pub order: Vec<PoolIx>,
    /// Pools that want safe trials; each trial needs a token of [`Live::take_trial`].
    pub trials: Vec<PoolIx>,
    /// Why there are no slots.
    pub closed: Option<Closed>,
}

/// Why a table has no slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Closed {
    /// Every pool is tripped, dead or drained.
    NoRegion,
    /// Pools that could serve exist, but residency forbids them.
    Residency,
}

/// One immutable picture.
#[derive(Clone, Debug)]
pub struct View {
    /// Counts pictures.
    pub version: u64,
    /// The config it belongs to.
    pub config: Arc<Compiled>,
    /// Unrelated regions went bad together, or this process was stalled: states are held.
    pub edge_suspect: bool,
    /// By [`PoolIx`].
    pub pools: Vec<PoolView>,
    /// By [`TableIx`].
    pub tables: Vec<TableView>,
}

impl View {
    /// Shorthand.
    pub fn topology(&self) -> &Topology {
        &self.config.topology
    }
}

/// How long a route's requests normally need in a pool, to the first byte of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Pace {
    /// Median; zero: not known yet.
    pub p50: Duration,
    /// 95 of 100.
    pub p95: Duration,
    /// 99 of 100.
    pub p99: Duration,
}

impl Pace {
    /// Whether enough was seen to know.
    pub fn known(&self) -> bool {
        !self.p99.is_zero()
    }
}

/// What a decision may ask of the present, besides the picture: gauges and allowances that change
/// with every request. `live::cells` implements it for real, `whatif::world` for the simulation.
pub trait Live {
    /// Requests in flight.
    fn inflight(&self, e: EndpointIx) -> u32;
    /// Requests in flight over the whole pool.
    fn pool_inflight(&self, p: PoolIx) -> u32;
    /// Smoothed time to first byte, microseconds; 0: unknown.
    fn latency(&self, e: EndpointIx) -> u32;
    /// Whether its own streak of failures or its probes took the endpoint out for the moment.
    fn out(&self, e: EndpointIx, now: Moment) -> bool;
    /// How long requests have been waiting there without a single byte heard; zero where none waits.
    fn quiet(&self, e: EndpointIx, now: Moment) -> Duration;
    /// The next point of the table's low-discrepancy sequence.
    fn next_point(&self, t: TableIx) -> u64;
    /// One token for a retry, if there is one.
    fn take_retry(&self, s: ServiceIx) -> bool;
    /// One token for a hedge, if there is one.
    fn take_hedge(&self, r: RouteIx) -> bool;
    /// One token for a safe trial at a pool that wants them.
    fn take_trial(&self, p: PoolIx) -> bool;
    /// How long the pool's probes take; zero: not known.
    fn reach(&self, _p: PoolIx) -> Duration {
        Duration::ZERO
    }
    /// A request found every pool that it may use full.
    fn turned_away(&self, r: RouteIx);
    /// What a route's requests normally need in a pool.
    fn pace(&self, r: RouteIx, p: PoolIx) -> Pace;
}

/// The facts of one request that decisions rest on.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Its route.
    pub route: RouteIx,
    /// GET, HEAD, OPTIONS or TRACE.
    pub safe: bool,
    /// Carries an `Idempotency-Key`.
    pub keyed: bool,
    /// Wants the connection for itself (Upgrade): never hedged.
    pub upgrade: bool,
    /// When it was complete (or when its head was, for a body that streams).
    pub started: Moment,
    /// Its priority.
    pub priority: Priority,
}

impl Facts {
    /// Whether a failed attempt may be repeated, given how much of it was sent (DESIGN.md section 5).
    pub fn repeatable(&self, retry: &Retry, sent: super::outcome::Sent) -> bool {
        use super::outcome::Sent;
        use super::policy::Writes;
        self.safe
            || sent == Sent::Nothing
            || match retry.writes {
                Writes::Unsent => false,
                Writes::Incomplete => sent == Sent::Incomplete,
                Writes::IdempotencyKey => self.keyed || sent == Sent::Incomplete,
            }
    }
}
