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
    /// The load over the day: factors on every rate at these times, straight lines between. Empty: always 1.
    pub shape: Vec<(Duration, f64)>,
    /// Calm is not played out but leapt over, this far at most at a time; `None`: never. A stretch is calm when nothing
    /// is broken or about to break, all pools serve, and nobody was refused anything for [`super::world::DWELL`].
    pub leap: Option<Duration>,
}

impl Script {
    /// A calm world: default sites, no load, nothing breaks.
    pub fn calm(seed: u64, length: Duration, config: Arc<Compiled>) -> Self {
        let sites = vec![Site::default(); config.topology.pools.len()];
        Self {
            seed,
            length,
            config,
            sites,
            loads: Vec::new(),
            faults: Vec::new(),
            orders: Vec::new(),
            reloads: Vec::new(),
            shape: Vec::new(),
            leap: None,
        }
    }
    /// The factor on every rate at this time.
    pub fn factor(&self, at: Duration) -> f64 {
        let later = self.shape.partition_point(|(t, _)| *t <= at);
        match (later.checked_sub(1).map(|i| self.shape[i]), self.shape.get(later).copied()) {
            (None, None) => 1.0,
            (Some((_, f)), None) | (None, Some((_, f))) => f,
            (Some((t0, f0)), Some((t1, f1))) => {
                let part = (at - t0).as_secs_f64() / (t1 - t0).as_secs_f64().max(1e-9);
                f0 + (f1 - f0) * part
            }
        }
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
    /// What one endpoint can do.
    pub power: Power,
    /// How its processes begin when they were killed; `None`: warm.
    pub restart: Option<Cold>,
}

/// What one endpoint can do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Power {
    /// So many requests side by side; the rest queue, without bound, first come, first served.
    Workers(u32),
    /// So many requests a second, as a flow: an endpoint of many workers, or a tenth of one. Nobody waits while the backlog
    /// is below what chance alone makes of such a small sample ([`super::plant::TOLERANCE`] requests).
    Flow(f64),
}

/// Empty caches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cold {
    /// Requests take this many times as long at first.
    pub slow: f64,
    /// The requests that it takes to warm an endpoint: the first so many are slow and then none, or, where it `fades`, the
    /// excess falls to a third after every so many.
    pub requests: u32,
    /// Little by little.
    pub fades: bool,
    /// Only so many are served side by side meanwhile.
    pub workers: Option<u32>,
}

impl Cold {
    /// Fading within about 200 requests.
    pub const fn fading(slow: f64) -> Self {
        Self { slow, requests: 70, fades: true, workers: None }
    }
    /// How many times as long the next request takes after so many.
    pub fn factor(&self, served: f64) -> f64 {
        match self.fades {
            true => 1.0 + (self.slow - 1.0) * (-served / f64::from(self.requests.max(1))).exp(),
            false if served < f64::from(self.requests) => self.slow,
            false => 1.0,
        }
    }
}

impl Default for Site {
    fn default() -> Self {
        let (wire, service) = (Duration::from_millis(2), Duration::from_millis(10));
        Self { wire, service, spread: 0.5, power: Power::Workers(32), restart: Some(Cold::fading(4.0)) }
    }
}

/// Open-loop requests of one route.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// Which.
    pub route: RouteIx,
    /// Per second.
    pub rate: f64,
    /// Evenly spaced; else Poisson.
    pub even: bool,
    /// The part that is not safe.
    pub writes: f64,
    /// The part that fails at every server with a 503: a bad request, a bad deploy.
    pub poison: f64,
    /// How often a client sends a request again that was not answered well.
    pub resend: u32,
    /// After what time it does.
    pub resend_after: Duration,
    /// Different things that are asked for, all equally often: how soon there is a last good copy of most of them. 0: the
    /// world keeps no copies and has nothing to compare implausible answers with.
    pub keys: u32,
}

impl Load {
    /// Reads and writes as the web has them, from clients that give up at once.
    pub fn plain(route: RouteIx, rate: f64) -> Self {
        Self { route, rate, even: false, writes: 0.15, poison: 0.0, resend: 0, resend_after: Duration::from_millis(500), keys: 0 }
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
    /// Caches are empty: [`Cold::fading`].
    Cold(f64),
    /// This part of the answers is a good status with nonsense in it: counters at zero.
    Zeros(f64),
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
