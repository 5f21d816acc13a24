//! What is played: who asks how much of whom, how fast servers are, what breaks when, what operators do.

use crate::model::event::Actor;
use crate::model::id::*;
use crate::model::signal::{Command, Order};
use crate::model::time::Duration;
use crate::model::view::Compiled;
use std::sync::Arc;

/// Everything that happens to a world from outside. Times count from its beginning.
#[derive(Clone, Debug)]
pub struct Script {
    /// Chance, all of it.
    pub seed: u64,
    /// How long load is offered. The world then runs on until every request has ended.
    pub length: Duration,
    /// The config at the beginning.
    pub config: Arc<Compiled>,
    /// By [`PoolIx`].
    pub sites: Vec<Site>,
    /// Who asks.
    pub loads: Vec<Load>,
    /// What breaks.
    pub faults: Vec<Fault>,
    /// What operators say, in time order.
    pub orders: Vec<(Duration, Order)>,
    /// New configs of the same shape (names and order of regions, services, pools, endpoints, routes), in time order.
    pub reloads: Vec<(Duration, Arc<Compiled>)>,
}

impl Script {
    /// A calm world: default sites, no load, nothing breaks.
    pub fn calm(seed: u64, length: Duration, config: Arc<Compiled>) -> Self {
        let sites = vec![Site::default(); config.topology.pools.len()];
        Self { seed, length, config, sites, loads: Vec::new(), faults: Vec::new(), orders: Vec::new(), reloads: Vec::new() }
    }
    pub(super) fn command(order: &Order) -> Command {
        Command { by: Actor::Operator("script".into()), order: order.clone() }
    }
}

/// The servers of one pool, all alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Site {
    /// One way, edge to region.
    pub wire: Duration,
    /// Median time a request keeps a worker.
    pub service: Duration,
    /// Spread of it: sigma of the log-normal. 0.5 makes p99 about 3.2 times the median.
    pub spread: f64,
    /// Requests served side by side by one endpoint; the rest queue, without bound.
    pub workers: u32,
}

impl Default for Site {
    fn default() -> Self {
        Self { wire: Duration::from_millis(2), service: Duration::from_millis(10), spread: 0.5, workers: 32 }
    }
}

/// Open-loop requests of one route.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// Which.
    pub route: RouteIx,
    /// Per second, Poisson.
    pub rate: f64,
    /// The part that is not safe.
    pub writes: f64,
    /// The part that fails at every server with a 503: a bad request, a bad deploy.
    pub poison: f64,
    /// How often a client sends a request again that was not answered well.
    pub resend: u32,
    /// After what time it does.
    pub resend_after: Duration,
}

impl Load {
    /// Reads and writes as the web has them, from clients that give up at once.
    pub fn plain(route: RouteIx, rate: f64) -> Self {
        Self { route, rate, writes: 0.15, poison: 0.0, resend: 0, resend_after: Duration::from_millis(500) }
    }
}

/// Something breaks, and is whole again.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// When.
    pub at: Duration,
    /// For how long.
    pub lasting: Duration,
    /// Where.
    pub target: Target,
    /// How.
    pub what: What,
}

/// Where something breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// All pools of a region.
    Region(RegionIx),
    /// One pool.
    Pool(PoolIx),
    /// One endpoint.
    Endpoint(EndpointIx),
    /// Every endpoint.
    Everywhere,
}

/// How something breaks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum What {
    /// The processes die: connections are reset, new ones refused. Their memory is cold afterwards.
    Kill,
    /// The power or the network goes: nothing comes back, not even a reset.
    Blackhole,
    /// Requests arrive and are served, answers vanish; no new connection can be had.
    AnswersLost,
    /// Connections are accepted, nothing is ever answered.
    HalfOpen,
    /// Requests take this many times as long.
    Slow(f64),
    /// This part of the requests is answered with this status, at once.
    Errors(f64, u16),
    /// This part of the requests is never answered.
    Hang(f64),
    /// The process stands still, its connections live: a garbage collection, a frozen virtual machine.
    Pause,
    /// Only this part of the workers is left.
    Workers(f64),
    /// Caches are empty: requests take this many times as long, less with every one served, as usual after about 200.
    Cold(f64),
    /// Probes are told this, whatever is true.
    ProbesSay(bool),
    /// This process does not run (wherever the target points): stolen CPU. Ticks come late.
    EdgeStalls,
    /// This many times the load (wherever the target points).
    Burst(f64),
    /// This part of all requests fails at every server (wherever the target points).
    Poison(f64),
}

impl What {
    /// Whether it concerns the edge or the load, not servers.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::EdgeStalls | Self::Burst(_) | Self::Poison(_))
    }
}
