//! What an operator may wish for: the checked form of every block of the config that steers requests.
//! Defaults and their sources stand at the fields; `config/validate.rs` fills them in.

use super::id::{RegionSet, ServiceIx, TableIx};
use super::time::Duration;
use std::sync::Arc;

/// Who is served first when not everybody can be. Ordered: `Sheddable < Normal < Critical`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub enum Priority {
    /// Refused first.
    Sheddable,
    /// The default.
    #[default]
    Normal,
    /// Refused last.
    Critical,
}

impl Priority {
    /// The name in config and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Sheddable => "sheddable",
            Self::Normal => "normal",
            Self::Critical => "critical",
        }
    }
}

/// One route: a match on requests, and the policy for what it matches.
#[derive(Clone, Debug)]
pub struct Route {
    /// Unique name.
    pub name: Arc<str>,
    /// What it matches.
    pub matches: Match,
    /// Where its requests go.
    pub service: ServiceIx,
    /// The share table of (service, allowed regions).
    pub table: TableIx,
    /// Its priority under overload.
    pub priority: Priority,
    /// The jurisdictions that may serve it; `None`: any.
    pub residency: Option<Vec<Arc<str>>>,
    /// The regions that residency allows (all regions, where there is none).
    pub allowed: RegionSet,
    /// Until the first byte of the answer, attempts and waits included. Default 10 s.
    pub deadline: Duration,
    /// Until the first byte of one attempt. Default: a third of the deadline.
    pub attempt_timeout: Duration,
    /// Between bytes once the answer has begun. Default 60 s (NGINX `proxy_read_timeout`).
    pub idle_timeout: Duration,
    /// What may be tried again.
    pub retry: Retry,
    /// Hedging of safe requests; `None`: only on suspicion.
    pub hedge: Option<Hedge>,
    /// Header changes towards the backend.
    pub request_headers: HeaderOps,
    /// Header changes towards the client.
    pub response_headers: HeaderOps,
    /// Host and path changes towards the backend.
    pub rewrite: Option<Rewrite>,
    /// Plausibility rules on answers.
    pub guards: Vec<Guard>,
    /// What to answer when no good answer can be had, in order. Ends with `Unavailable`, always.
    pub degrade: Vec<Degrade>,
    /// The objective, for `slo`.
    pub slo: Option<Slo>,
}

/// What a route matches. All parts must match.
#[derive(Clone, Debug, Default)]
pub struct Match {
    /// Lower case; `*.example.com` matches any subdomain; `None`: any host.
    pub host: Option<String>,
    /// The path.
    pub path: PathMatch,
    /// Upper case; empty: any.
    pub methods: Vec<String>,
    /// Lower-case names with exact values.
    pub headers: Vec<(String, String)>,
}

/// A match on the path, without the query.
#[derive(Clone, Debug, Default)]
pub enum PathMatch {
    /// Every path.
    #[default]
    Any,
    /// This path.
    Exact(String),
    /// Paths that begin so, byte for byte (`/video` matches `/video`, `/video/1` and `/videos`).
    Prefix(String),
    /// Paths that this expression matches somewhere (anchor it with `^` and `$`).
    Regex(regex::Regex),
}

/// Retry rules.
#[derive(Clone, Debug)]
pub struct Retry {
    /// First attempt included. Default 3.
    pub attempts: u32,
    /// Statuses that count as a failed attempt and move a safe request on. Default 502, 503, 504.
    pub statuses: Vec<u16>,
    /// When a write may be repeated.
    pub writes: Writes,
}

/// When a write (any method but GET, HEAD, OPTIONS, TRACE) may be repeated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Writes {
    /// Only when no byte of it was handed over.
    #[default]
    Unsent,
    /// Also when the final byte of its body was never released.
    Incomplete,
    /// Also a request with an `Idempotency-Key`.
    IdempotencyKey,
}

/// Hedging of safe requests.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Hedge {
    /// When the second attempt starts.
    pub after: HedgeAfter,
    /// The most hedges as a part of requests. Default 0.05.
    pub budget: f64,
}

/// When a hedge starts.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum HedgeAfter {
    /// A percentile of what the route's requests normally need in that pool, e.g. 0.95.
    Percentile(f64),
    /// A fixed time.
    Fixed(Duration),
}

/// Header changes: removals first, then settings.
#[derive(Clone, Debug, Default)]
pub struct HeaderOps {
    /// Replaced or added.
    pub set: Vec<(http::HeaderName, http::HeaderValue)>,
    /// Removed.
    pub remove: Vec<http::HeaderName>,
}

impl HeaderOps {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }
}

/// Changes of the request target. `strip_prefix` goes before `add_prefix`.
#[derive(Clone, Debug, Default)]
pub struct Rewrite {
    /// The Host towards the backend.
    pub host: Option<String>,
    /// Taken off the front of the path where it stands there.
    pub strip_prefix: Option<String>,
    /// Put before the path.
    pub add_prefix: Option<String>,
}

/// A plausibility rule on a JSON answer.
#[derive(Clone, Debug)]
pub struct Guard {
    /// RFC 6901 pointer; a segment `*` stands for every item of an array.
    pub json: String,
    /// What is rejected there.
    pub reject: Vec<Reject>,
    /// Replace the field with null and mark it, instead of rejecting the answer.
    pub mask: bool,
}

/// What a guard rejects.
#[derive(Clone, PartialEq, Debug)]
pub enum Reject {
    /// The field is not there.
    Missing,
    /// The field is null.
    Null,
    /// The field has another JSON type than the one named (number, string, array, object, boolean).
    NotA(String),
    /// Zero, where the last good answer of the same key was not.
    ZeroAfterNonzero,
    /// Fell by at least this part against the last good answer of the same key.
    DropsBy(f64),
    /// A number outside the range.
    OutOf(f64, f64),
}

/// One way to answer when no good answer can be had in time.
#[derive(Clone, Debug)]
pub enum Degrade {
    /// The last good answer of the same key.
    Stale(StaleRule),
    /// A fixed answer.
    Static(StaticAnswer),
    /// Take a write into the spool.
    Spool(SpoolRule),
    /// 503 with Retry-After.
    Unavailable(Unavailable),
}

/// The last good answer of the same key.
#[derive(Clone, Debug)]
pub struct StaleRule {
    /// Older copies are not served. Default 24 h.
    pub max_age: Duration,
    /// Request headers that are part of the key (lower case).
    pub key_headers: Vec<String>,
    /// Cookies that do not make an answer personal.
    pub ignore_cookies: Vec<String>,
}

/// A fixed answer.
#[derive(Clone, Debug)]
pub struct StaticAnswer {
    /// Default 200.
    pub status: u16,
    /// Default `text/plain; charset=utf-8`.
    pub content_type: String,
    /// The body.
    pub body: bytes::Bytes,
}

/// Take a write into the spool.
#[derive(Clone, Debug)]
pub struct SpoolRule {
    /// Given up after. Default 6 h.
    pub max_age: Duration,
    /// Default 202.
    pub status: u16,
    /// Writes with the same key are replayed in order: `path`, or a lower-case header name.
    pub order_key: String,
    /// Make an idempotency key for a client that sends none. Default false.
    pub make_key: bool,
}

/// 503 with Retry-After.
#[derive(Clone, Debug)]
pub struct Unavailable {
    /// The range that Retry-After is drawn from, in whole seconds at the client. Default 2 s to 10 s.
    pub retry_after: (Duration, Duration),
    /// The body; `None`: a short text that names the reason.
    pub body: Option<bytes::Bytes>,
}

/// An objective.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Slo {
    /// The part of requests that must be good.
    pub success: Option<f64>,
    /// The latency that the part of requests must keep.
    pub latency: Option<(Duration, f64)>,
}

/// Whether the program acts on its verdicts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// Move traffic.
    #[default]
    Active,
    /// Judge and tell, but move nothing.
    Observe,
}

/// What the majority of a fleet's edges means here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Verdicts {
    /// Nothing: it is shown, and that is all.
    Off,
    /// It confirms an edge's own suspicion and ends its doubt, and never overrules fresh local success.
    #[default]
    Advise,
    /// It decides.
    Follow,
}

impl Verdicts {
    /// The word in the config.
    pub fn label(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Advise => "advise",
            Self::Follow => "follow",
        }
    }
}

/// Detection.
#[derive(Clone, PartialEq, Debug)]
pub struct Failover {
    /// Default active.
    pub mode: Mode,
    /// Sliding window of outcomes. Default 10 s (Envoy outlier detection `interval`).
    pub window: Duration,
    /// No verdict on fewer. Default 20 (resilience4j `minimumNumberOfCalls` is 100; a region is judged sooner).
    pub min_requests: u32,
    /// Default 0.5 (resilience4j `failureRateThreshold`).
    pub failure_rate: f64,
    /// Consecutive failures of one endpoint. Default 5 (Envoy `consecutive_5xx`).
    pub eject_after: u32,
    /// The least silence that makes a pool suspect. Default 30 ms.
    pub suspect_floor: Duration,
    /// The least silence that trips a pool. Default 250 ms.
    pub silence_floor: Duration,
    /// How long a tripped pool stays open: first and most. Default 5 s to 5 min.
    pub open: (Duration, Duration),
}

impl Default for Failover {
    fn default() -> Self {
        Self {
            mode: Mode::Active,
            window: Duration::from_secs(10),
            min_requests: 20,
            failure_rate: 0.5,
            eject_after: 5,
            suspect_floor: Duration::from_millis(30),
            silence_floor: Duration::from_millis(250),
            open: (Duration::from_secs(5), Duration::from_secs(300)),
        }
    }
}

/// The way back.
#[derive(Clone, PartialEq, Debug)]
pub struct Recovery {
    /// Good evidence must last this long before a trial. Default 5 s.
    pub hold: Duration,
    /// The part of safe requests a pool in trial gets. Default 0.01.
    pub trial_share: f64,
    /// Successes that end a trial. Default 5.
    pub trial_successes: u32,
    /// The ramp, ascending, ends with 1. Default 1, 5, 25, 50, 100 %.
    pub steps: Vec<f64>,
    /// Each step lasts at least this long. Default 10 s.
    pub step_time: Duration,
    /// Success needed to pass a step. Default 0.99.
    pub success: f64,
    /// p99 must stay below this multiple of the pool's own p99 before it tripped. Default 1.5.
    pub latency_ratio: f64,
    /// A merely drained pool that was away no longer returns at once. Default 60 s.
    pub warm: Duration,
}

impl Default for Recovery {
    fn default() -> Self {
        Self {
            hold: Duration::from_secs(5),
            trial_share: 0.01,
            trial_successes: 5,
            steps: vec![0.01, 0.05, 0.25, 0.5, 1.0],
            step_time: Duration::from_secs(10),
            success: 0.99,
            latency_ratio: 1.5,
            warm: Duration::from_secs(60),
        }
    }
}

/// Overload protection.
#[derive(Clone, PartialEq, Debug)]
pub struct Overload {
    /// Concurrency limit of a pool: where it starts. Default 20.
    pub initial: u32,
    /// Never below. Default 4.
    pub min: u32,
    /// Never above. Default 1000.
    pub max: u32,
    /// The longest wait for a permit. Default 20 ms.
    pub max_queue: Duration,
}

impl Default for Overload {
    fn default() -> Self {
        Self { initial: 20, min: 4, max: 1000, max_queue: Duration::from_millis(20) }
    }
}

/// Retry allowance of a service: `reserve × (ratio × request rate + min)` tokens at most,
/// refilled with `ratio × requests + min × time`.
#[derive(Clone, PartialEq, Debug)]
pub struct RetryBudget {
    /// Retries per request. Default 0.2 (Finagle's RetryBudget, linkerd).
    pub ratio: f64,
    /// Retries per second that are always allowed. Default 10.
    pub min: f64,
    /// How much may be saved up. Default 10 s (Finagle's ttl).
    pub reserve: Duration,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { ratio: 0.2, min: 10.0, reserve: Duration::from_secs(10) }
    }
}

/// Active probes.
#[derive(Clone, PartialEq, Debug)]
pub struct Health {
    /// What is asked.
    pub kind: HealthKind,
    /// Default `/healthz`.
    pub path: String,
    /// The Host header; `None`: the endpoint's address.
    pub host: Option<String>,
    /// Another port than the endpoint's.
    pub port: Option<u16>,
    /// Default 1 s, jittered by ±10 %.
    pub interval: Duration,
    /// Connect, request and answer together. Default 500 ms.
    pub timeout: Duration,
    /// Failures in a row that make an endpoint down. Default 2.
    pub fall: u32,
    /// Successes in a row that make it up. Default 2.
    pub rise: u32,
    /// Inclusive status ranges. Default 200 to 299.
    pub expect_status: Vec<(u16, u16)>,
    /// What the JSON body must say.
    pub expect_json: Vec<JsonExpect>,
}

/// What a probe asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HealthKind {
    /// An HTTP request.
    Http,
    /// A TCP connection.
    Tcp,
    /// grpc.health.v1.Health/Check.
    Grpc,
}

/// A probe's expectation on a JSON body.
#[derive(Clone, PartialEq, Debug)]
pub struct JsonExpect {
    /// RFC 6901 pointer.
    pub pointer: String,
    /// The value it must have; `None`: it must be there.
    pub equals: Option<serde_json::Value>,
}
