//! Raw services, and the blocks that stand both at the top (for all services) and in a service (for it alone).
//! In those every key is optional: what a service leaves out comes from the top, what that leaves out is the default.

use super::super::value::{Rate, Ratio, Span, SpanRange, Statuses};
use super::{Named, block, words};
use crate::model::policy;
use std::time::Duration;

block! {
    /// An application that runs in several regions.
    pub struct Service {
        /// Its endpoints, by region.
        pub pools: Named<Pool>,
        /// Weights of regions for this service, instead of the regions' own.
        pub weights: Named<u32>,
        /// Tiers of regions for this service, instead of the regions' own.
        pub tiers: Named<u32>,
        /// Towards the backend. Upgrades (WebSocket) need HTTP/1.1: `http1`, or `auto` where the endpoint offers both.
        pub protocol: Protocol,
        /// TLS towards the backend; null: plain.
        pub tls: Option<Tls>,
        /// For a connection to an endpoint.
        pub connect_timeout: Span,
        /// Idle connections, per endpoint.
        pub idle_connections: IdleConnections,
        /// Probes; null: none, live traffic alone decides.
        pub health: Option<Health>,
        /// Keeps a client in its region while shares hold; null: no.
        pub affinity: Option<Affinity>,
        /// Other detection than at the top, for this service.
        pub failover: Failover,
        /// Another way back than at the top, for this service.
        pub recovery: Recovery,
        /// Other protection than at the top, for this service.
        pub overload: Overload,
        /// Another retry allowance than at the top, for this service.
        pub retry_budget: RetryBudget,
    }

    /// One service's endpoints in one region.
    #[derive(Default)]
    pub struct Pool {
        /// Addresses with ports: `10.1.0.11:8080`, `[2001:db8::1]:8080`.
        pub endpoints: Vec<String>,
        /// Instead of endpoints: a DNS name, host:port (A and AAAA), or that of SRV records, _http._tcp.host.
        pub dns: Option<String>,
        /// What this edge may send the pool, in a fleet all its edges together, for example 800/s; null: unknown, nothing spills over.
        pub capacity: Option<Rate>,
        /// Requests in flight to each endpoint; null: the adaptive limit alone decides.
        #[schemars(range(min = 1))]
        pub max_inflight: Option<u32>,
    }

    /// TLS towards the backend.
    pub struct Tls {
        /// The server name; null: the request's host.
        pub sni: Option<String>,
        /// Trust anchors (PEM file); null: the system's.
        pub ca: Option<String>,
        /// Our certificate (PEM file); null: none.
        pub client_cert: Option<String>,
        /// Its key (PEM file).
        pub client_key: Option<String>,
        /// Check the backend's certificate.
        pub verify: bool,
    }

    /// Idle connections, per endpoint.
    pub struct IdleConnections {
        /// The most that are kept.
        pub max: u32,
        /// How long.
        pub timeout: Span,
        /// Kept open to every endpoint, standbys too.
        pub warm: u32,
    }

    /// Probes.
    pub struct Health {
        /// What is asked.
        pub r#type: HealthType,
        /// The path (http).
        pub path: String,
        /// The Host header; null: the endpoint's address.
        pub host: Option<String>,
        /// Another port than the endpoint's; null: the same.
        #[schemars(range(min = 1))]
        pub port: Option<u16>,
        /// From one probe to the next, jittered by a tenth.
        pub interval: Span,
        /// For connect, request and answer together.
        pub timeout: Span,
        /// Failures in a row that make an endpoint down.
        #[schemars(range(min = 1))]
        pub fall: u32,
        /// Successes in a row that make it up.
        #[schemars(range(min = 1))]
        pub rise: u32,
        /// What the answer must be.
        pub expect: Expect,
    }

    /// What a probe's answer must be.
    pub struct Expect {
        /// Statuses and ranges of them.
        pub status: Vec<Statuses>,
        /// What the JSON body must say.
        pub json: Vec<JsonExpect>,
    }

    /// What a JSON body must say.
    #[derive(Default)]
    pub struct JsonExpect {
        /// JSON pointer (RFC 6901): /status.
        pub pointer: String,
        /// The value that must be there; null: any.
        pub equals: Option<serde_json::Value>,
    }

    /// Detection of failing endpoints, pools and regions.
    #[derive(Default)]
    pub struct Failover {
        /// active: move traffic; observe: judge and tell, but move nothing.
        pub mode: Option<Mode>,
        /// Sliding window of outcomes.
        pub window: Option<Span>,
        /// No verdict on fewer requests in the window.
        pub min_requests: Option<u32>,
        /// The part of failed requests that trips a pool.
        pub failure_rate: Option<Ratio>,
        /// Consecutive failures that take one endpoint out.
        pub eject_after: Option<u32>,
        /// The least silence that makes a pool suspect.
        pub suspect_floor: Option<Span>,
        /// The least silence that trips a pool.
        pub silence_floor: Option<Span>,
        /// How long a tripped pool stays out: at first, and at most.
        pub open: Option<SpanRange>,
    }

    /// The way back.
    #[derive(Default)]
    pub struct Recovery {
        /// Good evidence must last this long before a trial.
        pub hold: Option<Span>,
        /// The part of safe requests that a pool in trial gets.
        pub trial_share: Option<Ratio>,
        /// Successes that end a trial.
        pub trial_successes: Option<u32>,
        /// The ramp: ascending, the last is 100%.
        pub steps: Option<Vec<Ratio>>,
        /// Each step lasts at least this long.
        pub step_time: Option<Span>,
        /// Success needed to pass a step.
        pub success: Option<Ratio>,
        /// p99 must stay below this multiple of the pool's own p99 before it tripped.
        pub latency_ratio: Option<f64>,
        /// What was merely drained longer than this comes back by the ramp, else at once.
        pub warm: Option<Span>,
    }

    /// Protection of backends against too much at once.
    #[derive(Default)]
    pub struct Overload {
        /// Concurrency limit of a pool.
        pub limit: Limit,
        /// The longest wait for a permit.
        pub max_queue: Option<Span>,
    }

    /// Concurrency limit of a pool: adapts to latency.
    #[derive(Default)]
    pub struct Limit {
        /// Where it starts.
        pub initial: Option<u32>,
        /// Never below.
        pub min: Option<u32>,
        /// Never above.
        pub max: Option<u32>,
    }

    /// Retry allowance: at most reserve × (ratio × request rate + min) tokens.
    #[derive(Default)]
    pub struct RetryBudget {
        /// Retries per request.
        pub ratio: Option<Ratio>,
        /// Always allowed.
        pub min: Option<Rate>,
        /// How much may be saved up.
        pub reserve: Option<Span>,
    }
}

words! {
    /// Towards the backend.
    #[derive(Default)]
    pub enum Protocol {
        /// HTTP/1.1.
        #[default]
        Http1,
        /// HTTP/2, with prior knowledge where there is no TLS.
        H2,
        /// By ALPN.
        Auto,
    }
    /// What a probe asks.
    #[derive(Default)]
    pub enum HealthType {
        /// An HTTP request.
        #[default]
        Http,
        /// A TCP connection.
        Tcp,
        /// grpc.health.v1.Health/Check.
        Grpc,
    }
    /// Whether the program acts on its verdicts.
    pub enum Mode {
        /// Move traffic.
        Active,
        /// Judge and tell, but move nothing.
        Observe,
    }
}

/// What keeps a client in its region.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Affinity {
    /// A header's value.
    Header(String),
    /// A cookie's value.
    Cookie(String),
    /// The client's address.
    ClientIp,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            pools: Named::default(),
            weights: Named::default(),
            tiers: Named::default(),
            protocol: Protocol::Http1,
            tls: None,
            connect_timeout: Span(Duration::from_millis(250)),
            idle_connections: IdleConnections::default(),
            health: Some(Health::default()),
            affinity: None,
            failover: Failover::default(),
            recovery: Recovery::default(),
            overload: Overload::default(),
            retry_budget: RetryBudget::default(),
        }
    }
}
impl Default for Tls {
    fn default() -> Self {
        Self { sni: None, ca: None, client_cert: None, client_key: None, verify: true }
    }
}
impl Default for IdleConnections {
    fn default() -> Self {
        Self { max: 64, timeout: Span(Duration::from_secs(30)), warm: 2 }
    }
}
impl Default for Health {
    fn default() -> Self {
        Self {
            r#type: HealthType::Http,
            path: "/healthz".into(),
            host: None,
            port: None,
            interval: Span(Duration::from_secs(1)),
            timeout: Span(Duration::from_millis(500)),
            fall: 2,
            rise: 2,
            expect: Expect::default(),
        }
    }
}
impl Default for Expect {
    fn default() -> Self {
        Self { status: vec![Statuses(200, 299)], json: vec![] }
    }
}

impl Failover {
    /// What stands here, over `base`.
    pub fn over(&self, base: &policy::Failover) -> policy::Failover {
        policy::Failover {
            mode: self.mode.map_or(base.mode, |m| match m {
                Mode::Active => policy::Mode::Active,
                Mode::Observe => policy::Mode::Observe,
            }),
            window: self.window.map_or(base.window, |s| s.0),
            min_requests: self.min_requests.unwrap_or(base.min_requests),
            failure_rate: self.failure_rate.map_or(base.failure_rate, |r| r.0),
            eject_after: self.eject_after.unwrap_or(base.eject_after),
            suspect_floor: self.suspect_floor.map_or(base.suspect_floor, |s| s.0),
            silence_floor: self.silence_floor.map_or(base.silence_floor, |s| s.0),
            open: self.open.map_or(base.open, |r| (r.0, r.1)),
        }
    }
}
impl From<policy::Failover> for Failover {
    fn from(p: policy::Failover) -> Self {
        let mode = if p.mode == policy::Mode::Active { Mode::Active } else { Mode::Observe };
        Self {
            mode: Some(mode),
            window: Some(Span(p.window)),
            min_requests: Some(p.min_requests),
            failure_rate: Some(Ratio(p.failure_rate)),
            eject_after: Some(p.eject_after),
            suspect_floor: Some(Span(p.suspect_floor)),
            silence_floor: Some(Span(p.silence_floor)),
            open: Some(SpanRange(p.open.0, p.open.1)),
        }
    }
}

impl Recovery {
    /// What stands here, over `base`.
    pub fn over(&self, base: &policy::Recovery) -> policy::Recovery {
        policy::Recovery {
            hold: self.hold.map_or(base.hold, |s| s.0),
            trial_share: self.trial_share.map_or(base.trial_share, |r| r.0),
            trial_successes: self.trial_successes.unwrap_or(base.trial_successes),
            steps: self.steps.as_ref().map_or_else(|| base.steps.clone(), |s| s.iter().map(|r| r.0).collect()),
            step_time: self.step_time.map_or(base.step_time, |s| s.0),
            success: self.success.map_or(base.success, |r| r.0),
            latency_ratio: self.latency_ratio.unwrap_or(base.latency_ratio),
            warm: self.warm.map_or(base.warm, |s| s.0),
        }
    }
}
impl From<policy::Recovery> for Recovery {
    fn from(p: policy::Recovery) -> Self {
        Self {
            hold: Some(Span(p.hold)),
            trial_share: Some(Ratio(p.trial_share)),
            trial_successes: Some(p.trial_successes),
            steps: Some(p.steps.into_iter().map(Ratio).collect()),
            step_time: Some(Span(p.step_time)),
            success: Some(Ratio(p.success)),
            latency_ratio: Some(p.latency_ratio),
            warm: Some(Span(p.warm)),
        }
    }
}

impl Overload {
    /// What stands here, over `base`.
    pub fn over(&self, base: &policy::Overload) -> policy::Overload {
        policy::Overload {
            initial: self.limit.initial.unwrap_or(base.initial),
            min: self.limit.min.unwrap_or(base.min),
            max: self.limit.max.unwrap_or(base.max),
            max_queue: self.max_queue.map_or(base.max_queue, |s| s.0),
        }
    }
}
impl From<policy::Overload> for Overload {
    fn from(p: policy::Overload) -> Self {
        Self { limit: Limit { initial: Some(p.initial), min: Some(p.min), max: Some(p.max) }, max_queue: Some(Span(p.max_queue)) }
    }
}

impl RetryBudget {
    /// What stands here, over `base`.
    pub fn over(&self, base: &policy::RetryBudget) -> policy::RetryBudget {
        policy::RetryBudget {
            ratio: self.ratio.map_or(base.ratio, |r| r.0),
            min: self.min.map_or(base.min, |r| r.0),
            reserve: self.reserve.map_or(base.reserve, |s| s.0),
        }
    }
}
impl From<policy::RetryBudget> for RetryBudget {
    fn from(p: policy::RetryBudget) -> Self {
        Self { ratio: Some(Ratio(p.ratio)), min: Some(Rate(p.min)), reserve: Some(Span(p.reserve)) }
    }
}
