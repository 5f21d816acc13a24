//! The config file as it is written: the raw types. They know notation, names and defaults, nothing of what belongs
//! together; `validate` makes a [`Topology`](crate::model::topology::Topology) of them, and nobody else sees them.
//!
//! Every key has a default here, the required ones too (an empty one, which `validate` then misses), so that reading can
//! go on past a mistake. What stands in these comments is what `evenkeel schema` tells an editor.

pub mod route;
pub mod service;

use super::value::{Rate, Ratio, Size, Span};
use crate::model::topology::Limits;
use schemars::JsonSchema;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

/// Derives, defaults and strictness that every block has.
macro_rules! block {
    ($($(#[$meta:meta])* pub struct $name:ident { $($body:tt)* })+) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name { $($body)* }
    )+};
}
pub(crate) use block;

/// A choice of words.
macro_rules! words {
    ($($(#[$meta:meta])* pub enum $name:ident { $($body:tt)* })+) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($body)* }
    )+};
}
pub(crate) use words;

/// Names with values, in the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Named<T>(pub Vec<(String, T)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(vec![])
    }
}

impl<T> Named<T> {
    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&T> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v)
    }
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &(String, T)> {
        self.0.iter()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Collect<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Collect<T> {
            type Value = Named<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a block of names with values")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named<T>, A::Error> {
                let mut all = vec![];
                while let Some(entry) = map.next_entry()? {
                    all.push(entry);
                }
                Ok(Named(all))
            }
        }
        from.deserialize_map(Collect(PhantomData))
    }
}

impl<T: Serialize> Serialize for Named<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().map(|(k, v)| (k, v)))
    }
}

impl<T: JsonSchema> JsonSchema for Named<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Named_{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "object", "additionalProperties": generator.subschema_for::<T>()})
    }
}

block! {
    /// The config of an Evenkeel edge.
    pub struct File {
        /// The version of this format: 1.
        pub version: Option<u64>,
        /// This process.
        pub edge: Edge,
        /// Where to listen.
        pub listeners: Vec<Listener>,
        /// What clients may do.
        pub limits: LimitsFile,
        /// The admin API, metrics and dashboard; null: none.
        pub admin: Option<Admin>,
        /// Logs.
        pub logging: Logging,
        /// Traces over OTLP (HTTP, protobuf); null: none.
        pub tracing: Option<Tracing>,
        /// Places that can fail as one.
        pub regions: Named<Region>,
        /// Applications that run in the regions.
        pub services: Named<service::Service>,
        /// Which request goes where, and by which policy. The first match wins.
        pub routes: Vec<route::Route>,
        /// Detection of failing endpoints, pools and regions.
        pub failover: service::Failover,
        /// The way back.
        pub recovery: service::Recovery,
        /// Protection of backends against too much at once.
        pub overload: service::Overload,
        /// How many retries a service may cause.
        pub retry_budget: service::RetryBudget,
        /// The store of last good answers.
        pub stale: StaleStore,
        /// Where writes wait that no region could take.
        pub spool: Spool,
        /// Where events are kept.
        pub journal: Journal,
        /// Sharing orders, views and budgets with other edges; null: alone.
        pub fleet: Option<Fleet>,
    }

    /// This process.
    pub struct Edge {
        /// Shown in status, journal and metrics; null: the host name.
        pub name: Option<String>,
        /// Where this process stands. Stale copies and the spool hold data of a route only if its residency allows this.
        pub jurisdiction: Option<String>,
        /// Worker threads; null: the number of cores. Needs a restart.
        #[schemars(range(min = 1, max = 1024))]
        pub threads: Option<u32>,
        /// Holds overrides, the last good config, journal and stale copies, unless placed elsewhere.
        pub state_dir: String,
        /// On SIGTERM: /readyz says 503 at once, listeners close after this.
        pub shutdown_delay: Span,
        /// Then how long to wait for requests in flight.
        pub drain_timeout: Span,
        /// Tell clients the serving region in Evenkeel-Region.
        pub expose_region: bool,
        /// The residency of routes that name none; null: any.
        pub residency_default: Option<Vec<String>>,
    }

    /// Where to listen.
    pub struct Listener {
        /// Address and port: `0.0.0.0:8080`, `[::]:8080`.
        pub address: String,
        /// Answer everything with a redirect to https.
        pub redirect_https: bool,
        /// PROXY v1 or v2 is required, from trusted_proxies only.
        pub proxy_protocol: bool,
        /// Networks (CIDR) whose X-Forwarded-* and Forwarded are believed; others' are replaced.
        pub trusted_proxies: Vec<String>,
        /// Connections at once.
        #[schemars(range(min = 1))]
        pub max_connections: u32,
        /// TLS; null: plain.
        pub tls: Option<ListenerTls>,
    }

    /// TLS of a listener.
    #[derive(Default)]
    pub struct ListenerTls {
        /// Chosen by SNI, the first is the default; reloaded when the file changes.
        #[schemars(length(min = 1))]
        pub certificates: Vec<Certificate>,
        /// Clients must show a certificate that one of these signed (PEM); null: none asked for.
        pub client_ca: Option<String>,
    }

    /// A certificate and its key.
    #[derive(Default)]
    pub struct Certificate {
        /// Certificate chain (PEM file).
        pub cert: String,
        /// Private key (PEM file).
        pub key: String,
    }

    /// What clients may do.
    pub struct LimitsFile {
        /// For the whole request head, however slowly it drips in.
        pub header_timeout: Span,
        /// Of the request head.
        pub header_bytes: Size,
        /// Header fields of a request.
        #[schemars(range(min = 1))]
        pub header_count: u32,
        /// Of the request target.
        pub uri_bytes: Size,
        /// Of a request's body; null: any.
        pub body_bytes: Option<Size>,
        /// For a request body that stalls.
        pub body_timeout: Span,
        /// For a request body that drips: the least per second, averaged over body_timeout.
        pub body_min_rate: Size,
        /// For the TLS handshake.
        pub tls_handshake_timeout: Span,
        /// How long a connection is kept without a request.
        pub idle_timeout: Span,
        /// Then a connection is closed; null: never.
        pub requests_per_connection: Option<u64>,
        /// Connections at once of one client address; null: any.
        pub connections_per_client: Option<u32>,
        /// Requests of one client address, for example 100/s; null: any.
        pub requests_per_client: Option<Rate>,
        /// Streams at once of an HTTP/2 connection.
        #[schemars(range(min = 1))]
        pub h2_streams: u32,
        /// Of one request's body kept for replay.
        pub replay_bytes: Size,
        /// Of all bodies kept for replay.
        pub replay_total: Size,
    }

    /// The admin API, metrics and dashboard.
    pub struct Admin {
        /// Address and port.
        pub address: String,
        /// Who may use it. Beyond loopback a token is required for everything but /livez and /readyz.
        pub tokens: Vec<Token>,
    }

    /// A token of the admin API.
    #[derive(Default)]
    pub struct Token {
        /// Shown in the journal.
        pub name: String,
        /// The file that holds the secret.
        pub file: String,
        /// May change things.
        pub write: bool,
    }

    /// Logs.
    pub struct Logging {
        /// The least that is logged.
        pub level: LogLevel,
        /// For people or machines; auto: for people on a terminal, JSON otherwise.
        pub format: LogFormat,
        /// One line per request; null: none.
        pub access: Option<Access>,
    }

    /// The access log.
    pub struct Access {
        /// `stdout`, or a file.
        pub path: String,
        /// The part of the requests that is logged; failures always.
        pub sample: Ratio,
    }

    /// Traces.
    pub struct Tracing {
        /// The collector: http://collector:4318; the path is /v1/traces unless it has one.
        pub otlp: String,
        /// The part of the requests that is traced. A trusted proxy's decision in traceparent goes first.
        pub sample: Ratio,
    }

    /// A place that can fail as one.
    pub struct Region {
        /// Under which law it stands: us, eu, …
        pub jurisdiction: Option<String>,
        /// The wish for how traffic splits within a tier; 0: a last resort, behind every tier.
        #[schemars(range(max = 1_000_000))]
        pub weight: u32,
        /// Traffic goes to the lowest tier that can take it.
        #[schemars(range(min = 1, max = 1000))]
        pub tier: u32,
        /// What it shares with others: providers, grids, carriers.
        pub fates: Vec<String>,
        /// Gets nothing, not even as the last one.
        pub drained: bool,
    }

    /// The store of last good answers.
    pub struct StaleStore {
        /// Of all copies.
        pub max_bytes: Size,
        /// Of one body; larger answers are not kept.
        pub max_body: Size,
        /// On disk as well (`stale-copies` in `edge.state_dir`), so that they survive a restart.
        pub persist: bool,
    }

    /// Where writes wait that no region could take.
    pub struct Spool {
        /// The directory; null: `spool` below edge.state_dir.
        pub path: Option<String>,
        /// Of all writes.
        pub max_bytes: Size,
        /// How fast they are replayed.
        pub replay_rate: Rate,
    }

    /// Where events are kept.
    pub struct Journal {
        /// The directory; null: `journal` below edge.state_dir.
        pub path: Option<String>,
        /// Older ones are deleted.
        pub keep: Span,
        /// Of all events.
        pub max_bytes: Size,
    }

    /// Sharing with other edges.
    pub struct Fleet {
        /// The NATS servers, with JetStream.
        pub nats: Nats,
        /// What the majority's view of a pool means here.
        pub verdicts: Verdicts,
        /// An edge that was not heard for so long has no say; views are sent five times as often.
        pub lease: Span,
    }

    /// NATS servers.
    pub struct Nats {
        /// nats://host:4222 or tls://host:4222, one or more of one cluster.
        #[schemars(length(min = 1))]
        pub servers: Vec<String>,
        /// A NATS credentials file (JWT and seed); null: none.
        pub credentials: Option<String>,
        /// A file that holds a token; null: none.
        pub token_file: Option<String>,
        /// Whom to believe that it is NATS (PEM); null: what the system trusts.
        pub ca: Option<String>,
        /// What this edge shows of itself; null: nothing.
        pub client: Option<Certificate>,
        /// Names the bucket and the subjects, so that several fleets can share servers.
        pub name: String,
        /// Copies of the bucket that the NATS cluster keeps.
        #[schemars(range(min = 1, max = 5))]
        pub replicas: u32,
    }
}

words! {
    /// How much is logged.
    #[derive(Default)]
    pub enum LogLevel {
        /// What needs somebody.
        Error,
        /// What will need somebody.
        Warn,
        /// Changes of state.
        #[default]
        Info,
        /// Decisions.
        Debug,
        /// Everything.
        Trace,
    }
    /// For people or machines.
    #[derive(Default)]
    pub enum LogFormat {
        /// For people on a terminal, JSON otherwise.
        #[default]
        Auto,
        /// For people.
        Human,
        /// For machines.
        Json,
    }
    /// What the majority's view means.
    #[derive(Default)]
    pub enum Verdicts {
        /// Nothing: it is shown, and that is all.
        Off,
        /// It speeds up an edge's own suspicion, and ends its doubt.
        #[default]
        Advise,
        /// It decides.
        Follow,
    }
}

impl Default for File {
    fn default() -> Self {
        Self {
            version: None,
            edge: Edge::default(),
            listeners: vec![],
            limits: LimitsFile::default(),
            admin: Some(Admin::default()),
            logging: Logging::default(),
            tracing: None,
            regions: Named::default(),
            services: Named::default(),
            routes: vec![],
            failover: service::Failover::default(),
            recovery: service::Recovery::default(),
            overload: service::Overload::default(),
            retry_budget: service::RetryBudget::default(),
            stale: StaleStore::default(),
            spool: Spool::default(),
            journal: Journal::default(),
            fleet: None,
        }
    }
}
impl Default for Admin {
    fn default() -> Self {
        Self { address: "127.0.0.1:9900".into(), tokens: vec![] }
    }
}
impl Default for Edge {
    fn default() -> Self {
        Self {
            name: None,
            jurisdiction: None,
            threads: None,
            state_dir: "./state".into(),
            shutdown_delay: Span(Duration::ZERO),
            drain_timeout: Span(Duration::from_secs(30)),
            expose_region: false,
            residency_default: None,
        }
    }
}
impl Default for Listener {
    fn default() -> Self {
        Self {
            address: String::new(),
            redirect_https: false,
            proxy_protocol: false,
            trusted_proxies: vec![],
            max_connections: 20_000,
            tls: None,
        }
    }
}
impl Default for LimitsFile {
    fn default() -> Self {
        let l = Limits::default();
        Self {
            header_timeout: l.header_timeout.into(),
            header_bytes: Size(l.header_bytes as u64),
            header_count: l.header_count as u32,
            uri_bytes: Size(l.uri_bytes as u64),
            body_bytes: l.body_bytes.map(Size),
            body_timeout: l.body_timeout.into(),
            body_min_rate: Size(l.body_min_rate),
            tls_handshake_timeout: l.tls_handshake_timeout.into(),
            idle_timeout: l.idle_timeout.into(),
            requests_per_connection: l.requests_per_connection,
            connections_per_client: l.connections_per_client,
            requests_per_client: l.requests_per_client.map(Rate),
            h2_streams: l.h2_streams,
            replay_bytes: Size(l.replay_bytes as u64),
            replay_total: Size(l.replay_total as u64),
        }
    }
}
impl Default for Logging {
    fn default() -> Self {
        Self { level: LogLevel::Info, format: LogFormat::Auto, access: None }
    }
}
impl Default for Access {
    fn default() -> Self {
        Self { path: "stdout".into(), sample: Ratio(1.0) }
    }
}
impl Default for Tracing {
    fn default() -> Self {
        Self { otlp: String::new(), sample: Ratio(0.01) }
    }
}
impl Default for Region {
    fn default() -> Self {
        Self { jurisdiction: None, weight: 100, tier: 1, fates: vec![], drained: false }
    }
}
impl Default for Fleet {
    fn default() -> Self {
        Self { nats: Nats::default(), verdicts: Verdicts::Advise, lease: Span(Duration::from_secs(5)) }
    }
}
impl Default for Nats {
    fn default() -> Self {
        Self { servers: vec![], credentials: None, token_file: None, ca: None, client: None, name: "evenkeel".into(), replicas: 1 }
    }
}
impl Default for StaleStore {
    fn default() -> Self {
        Self { max_bytes: Size(256 << 20), max_body: Size(1 << 20), persist: false }
    }
}
impl Default for Spool {
    fn default() -> Self {
        Self { path: None, max_bytes: Size(1 << 30), replay_rate: Rate(50.0) }
    }
}
impl Default for Journal {
    fn default() -> Self {
        Self { path: None, keep: Span(Duration::from_secs(90 * 86400)), max_bytes: Size(256 << 20) }
    }
}
