//! What the operator said, checked, complete, and indexed. Built by `config`, never changed after.

use super::id::*;
use super::policy::*;
use super::time::Duration;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// A whole config.
#[derive(Clone, Debug)]
pub struct Topology {
    /// This process.
    pub edge: Edge,
    /// Where it listens.
    pub listeners: Vec<Listener>,
    /// What clients may do.
    pub limits: Limits,
    /// The admin API; `None`: none.
    pub admin: Option<Admin>,
    /// Logs.
    pub logging: Logging,
    /// Traces; `None`: none are made.
    pub tracing: Option<Tracing>,
    /// By [`RegionIx`].
    pub regions: Vec<Region>,
    /// By [`ServiceIx`].
    pub services: Vec<Service>,
    /// By [`PoolIx`].
    pub pools: Vec<Pool>,
    /// By [`EndpointIx`].
    pub endpoints: Vec<Endpoint>,
    /// By [`RouteIx`].
    pub routes: Vec<Route>,
    /// By [`TableIx`].
    pub tables: Vec<Table>,
    /// Bounds of the store of last good copies.
    pub stale: StaleStore,
    /// Where writes are kept.
    pub spool: SpoolStore,
    /// Where events are kept.
    pub journal: JournalStore,
    /// The other edges; `None`: alone.
    pub fleet: Option<Fleet>,
}

/// How edges find each other, over NATS JetStream.
#[derive(Clone, Debug, PartialEq)]
pub struct Fleet {
    /// `nats://host:port` or `tls://host:port`.
    pub servers: Vec<String>,
    /// A NATS credentials file (JWT and seed).
    pub credentials: Option<PathBuf>,
    /// A file that holds a token.
    pub token_file: Option<PathBuf>,
    /// Whom to believe that it is NATS (PEM); `None`: what the system trusts.
    pub ca: Option<PathBuf>,
    /// What we show.
    pub client: Option<CertPair>,
    /// Names the bucket and the subjects: fleets of several names can share servers. Default evenkeel.
    pub name: String,
    /// Copies of the bucket that the NATS cluster keeps. Default 1.
    pub replicas: u32,
    /// Default advise.
    pub verdicts: Verdicts,
    /// An edge not heard for so long has no say. Default 5 s.
    pub lease: Duration,
}

/// This process.
#[derive(Clone, Debug, PartialEq)]
pub struct Edge {
    /// Default: host name.
    pub name: String,
    /// Where it stands.
    pub jurisdiction: Option<Arc<str>>,
    /// Worker threads. Default: cores.
    pub threads: usize,
    /// Overrides, last good config.
    pub state_dir: PathBuf,
    /// From SIGTERM until listeners close. Default 0 s.
    pub shutdown_delay: Duration,
    /// Then for requests in flight. Default 30 s.
    pub drain_timeout: Duration,
    /// Answer with `Evenkeel-Region`. Default false.
    pub expose_region: bool,
}

/// Where we listen.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Address and port.
    pub address: SocketAddr,
    /// Answer everything with a redirect to https. Default false.
    pub redirect_https: bool,
    /// PROXY v1 or v2 is required. Default false.
    pub proxy_protocol: bool,
    /// Whose X-Forwarded-* is believed.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Default 20,000.
    pub max_connections: u32,
    /// TLS; `None`: plain.
    pub tls: Option<ListenerTls>,
}

/// TLS of a listener.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerTls {
    /// Chosen by SNI; the first is the default.
    pub certificates: Vec<CertPair>,
    /// Mutual TLS.
    pub client_ca: Option<PathBuf>,
}

/// PEM files.
#[derive(Clone, Debug, PartialEq)]
pub struct CertPair {
    /// Chain.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// What clients may do. Every limit has a safe default (DESIGN.md section 3; the others are named here).
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// The whole request head. Default 10 s.
    pub header_timeout: Duration,
    /// Default 32 KiB.
    pub header_bytes: usize,
    /// Default 100 (NGINX has none, Envoy 100).
    pub header_count: usize,
    /// Default 8 KiB (RFC 9112 section 3 recommends at least 8000 octets).
    pub uri_bytes: usize,
    /// `None`: any.
    pub body_bytes: Option<u64>,
    /// A body that stalls. Default 30 s.
    pub body_timeout: Duration,
    /// A body that drips, bytes/s averaged over `body_timeout`. Default 500 (Apache mod_reqtimeout MinRate).
    pub body_min_rate: u64,
    /// Default 5 s.
    pub tls_handshake_timeout: Duration,
    /// Keep-alive. Default 60 s.
    pub idle_timeout: Duration,
    /// Then the connection is closed. Default 10,000.
    pub requests_per_connection: Option<u64>,
    /// Per client address (IPv6: per /64). Default 2,500: an eighth of a listener's, and enough for a carrier's NAT.
    pub connections_per_client: Option<u32>,
    /// Requests per second and client address. `None`: any.
    pub requests_per_client: Option<f64>,
    /// Streams per HTTP/2 connection. Default 100.
    pub h2_streams: u32,
    /// Of one request's body kept for replay. Default 1 MiB.
    pub replay_bytes: usize,
    /// Of all of them. Default 256 MiB.
    pub replay_total: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self {
            header_timeout: s(10),
            header_bytes: 32 << 10,
            header_count: 100,
            uri_bytes: 8 << 10,
            body_bytes: None,
            body_timeout: s(30),
            body_min_rate: 500,
            tls_handshake_timeout: s(5),
            idle_timeout: s(60),
            requests_per_connection: Some(10_000),
            connections_per_client: Some(2_500),
            requests_per_client: None,
            h2_streams: 100,
            replay_bytes: 1 << 20,
            replay_total: 256 << 20,
        }
    }
}

/// The admin API.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// Default 127.0.0.1:9900.
    pub address: SocketAddr,
    /// Named tokens.
    pub tokens: Vec<Token>,
}

/// A token of the admin API, read from a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Shown in the journal.
    pub name: String,
    /// Holds the secret.
    pub file: PathBuf,
    /// May change things.
    pub write: bool,
}

/// Logs.
#[derive(Clone, Debug, PartialEq)]
pub struct Logging {
    /// error, warn, info, debug, trace.
    pub level: String,
    /// Human or JSON.
    pub format: LogFormat,
    /// The access log; `None`: none.
    pub access: Option<AccessLog>,
}

/// Human or JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Human on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Human,
    /// For machines.
    Json,
}

/// The access log.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLog {
    /// `None`: standard output.
    pub file: Option<PathBuf>,
    /// The part of requests that is logged, failures always. Default 1.
    pub sample: f64,
}

/// Traces over OTLP.
#[derive(Clone, Debug, PartialEq)]
pub struct Tracing {
    /// The collector: `http://host:port`, with a path unless it is `/v1/traces`.
    pub otlp: String,
    /// The part of requests that is recorded, where no trusted proxy has decided. 0 to 1.
    pub sample: f64,
}

/// A place that can fail as one.
#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    /// Unique name.
    pub name: Arc<str>,
    /// Under which law.
    pub jurisdiction: Option<Arc<str>>,
    /// Default 100.
    pub weight: u32,
    /// Default 1.
    pub tier: u32,
    /// What it shares with others: providers, grids.
    pub fates: Vec<Arc<str>>,
    /// By the file.
    pub drained: bool,
}

/// An application that runs in several regions.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Unique name.
    pub name: Arc<str>,
    /// Its pools, in region order.
    pub pools: Vec<PoolIx>,
    /// Towards the backend.
    pub protocol: Protocol,
    /// TLS towards the backend; `None`: plain.
    pub tls: Option<ServiceTls>,
    /// Default 250 ms.
    pub connect_timeout: Duration,
    /// Idle connections kept per endpoint.
    pub idle: IdleConnections,
    /// Probes; `None`: live traffic alone decides.
    pub health: Option<Health>,
    /// Stickiness; `None`: none.
    pub affinity: Option<Affinity>,
    /// Detection, with the service's own changes applied.
    pub failover: Failover,
    /// The way back, likewise.
    pub recovery: Recovery,
    /// Overload protection, likewise.
    pub overload: Overload,
    /// Retry allowance.
    pub retry_budget: RetryBudget,
}

/// Towards the backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2, with prior knowledge where there is no TLS.
    H2,
    /// By ALPN.
    Auto,
}

/// TLS towards the backend.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct ServiceTls {
    /// Server name; `None`: the request's host.
    pub sni: Option<String>,
    /// Trust anchors; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// Mutual TLS.
    pub client: Option<CertPair>,
    /// Default true.
    pub verify: bool,
}

/// Idle connections kept per endpoint.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct IdleConnections {
    /// Default 64.
    pub max: usize,
    /// Default 30 s.
    pub timeout: Duration,
    /// Kept open to every endpoint, standbys too. Default 2.
    pub warm: usize,
}

/// Keeps a client in its region while shares hold.
#[derive(Clone, Debug, PartialEq)]
pub enum Affinity {
    /// By a header's value (lower-case name).
    Header(String),
    /// By a cookie's value.
    Cookie(String),
    /// By the client's address.
    ClientIp,
}

/// One service's endpoints in one region.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// `service/region`, unique.
    pub name: Arc<str>,
    /// Of which service.
    pub service: ServiceIx,
    /// In which region.
    pub region: RegionIx,
    /// Its endpoints: a range of [`EndpointIx`].
    pub endpoints: Range<u32>,
    /// Requests per second this edge may send it.
    pub capacity: Option<f64>,
    /// Requests in flight to each endpoint.
    pub max_inflight: Option<u32>,
    /// The region's weight, or the service's own for it.
    pub weight: u32,
    /// The region's tier, or the service's own for it.
    pub tier: u32,
    /// Discovered by DNS under this name, `host:port`.
    pub dns: Option<String>,
}

impl Pool {
    /// The endpoints' indexes.
    pub fn endpoints(&self) -> impl ExactSizeIterator<Item = EndpointIx> + Clone + use<> {
        self.endpoints.clone().map(EndpointIx)
    }
}

/// One address.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// As the operator wrote it; unique within its pool.
    pub name: Arc<str>,
    /// Where it is.
    pub address: SocketAddr,
    /// Of which pool.
    pub pool: PoolIx,
}

/// A service as seen by all routes with the same allowed regions.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Of which service.
    pub service: ServiceIx,
    /// Which regions its routes may use.
    pub allowed: RegionSet,
}

/// Bounds of the store of last good copies.
#[derive(Clone, Debug, PartialEq)]
pub struct StaleStore {
    /// Default 256 MiB.
    pub max_bytes: u64,
    /// Default 1 MiB.
    pub max_body: u64,
    /// Survive a restart. Default false.
    pub persist: bool,
}

/// Where writes are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct SpoolStore {
    /// Default `<state_dir>/spool`.
    pub path: PathBuf,
    /// Default 1 GiB.
    pub max_bytes: u64,
    /// Per second. Default 50.
    pub replay_rate: f64,
}

/// Where events are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct JournalStore {
    /// Default `<state_dir>/journal`.
    pub path: PathBuf,
    /// Default 90 days.
    pub keep: Duration,
    /// Default 256 MiB.
    pub max_bytes: u64,
}

impl Topology {
    /// Gives pools with a `dns` name their endpoints: what is `found` under it, or one that stands for a name `unresolved`. Indexes
    /// of endpoints change.
    pub fn place(&mut self, found: impl Fn(&str) -> Option<Vec<SocketAddr>>, unresolved: impl Fn(&str) -> SocketAddr) {
        let mut all = Vec::with_capacity(self.endpoints.len());
        for (i, pool) in self.pools.iter_mut().enumerate() {
            let first = all.len() as u32;
            let ix = PoolIx::from(i);
            match &pool.dns {
                None => all.extend(self.endpoints[pool.endpoints.start as usize..pool.endpoints.end as usize].iter().cloned()),
                Some(name) => match found(name) {
                    Some(addresses) => {
                        all.extend(addresses.into_iter().map(|address| Endpoint { name: address.to_string().into(), address, pool: ix }));
                    }
                    None => all.push(Endpoint { name: format!("{name} (not found)").into(), address: unresolved(name), pool: ix }),
                },
            }
            pool.endpoints = first..all.len() as u32;
        }
        self.endpoints = all;
    }
    /// The region of this name.
    pub fn region(&self, name: &str) -> Option<RegionIx> {
        self.regions.iter().position(|r| &*r.name == name).map(Into::into)
    }
    /// The service of this name.
    pub fn service(&self, name: &str) -> Option<ServiceIx> {
        self.services.iter().position(|s| &*s.name == name).map(Into::into)
    }
    /// The pool of a service in a region.
    pub fn pool(&self, service: &str, region: &str) -> Option<PoolIx> {
        let (s, r) = (self.service(service)?, self.region(region)?);
        self.services[s.at()].pools.iter().copied().find(|p| self.pools[p.at()].region == r)
    }
    /// The pools of a region.
    pub fn pools_of(&self, region: RegionIx) -> impl Iterator<Item = PoolIx> + '_ {
        (0..self.pools.len()).map(PoolIx::from).filter(move |p| self.pools[p.at()].region == region)
    }
    /// Whether two regions share a fate.
    pub fn related(&self, a: RegionIx, b: RegionIx) -> bool {
        a == b || self.regions[a.at()].fates.iter().any(|f| self.regions[b.at()].fates.contains(f))
    }
    /// Whether an address may speak for others on a listener.
    pub fn trusts(&self, listener: usize, address: IpAddr) -> bool {
        self.listeners[listener].trusted_proxies.iter().any(|n| n.contains(&address))
    }
}
