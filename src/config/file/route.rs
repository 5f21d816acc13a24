//! Raw routes.

use super::super::value::{HedgeAfter, LatencyGoal, Numbers, Ratio, Span, SpanRange};
use super::{Named, block, words};
use crate::model::policy;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

block! {
    /// A match on requests, and the policy for what it matches.
    pub struct Route {
        /// Unique; shown in metrics and reports.
        pub name: Option<String>,
        /// What it matches. All parts must match; empty: everything.
        pub r#match: Match,
        /// Where its requests go.
        pub service: String,
        /// Who is served first when not everybody can be.
        pub priority: Priority,
        /// Jurisdictions that may serve it; null: edge.residency_default.
        pub residency: Option<Vec<String>>,
        /// Until the first byte of the answer, attempts and waits included; the clock starts when the request is complete.
        pub deadline: Span,
        /// Until the first byte of one attempt; null: a third of the deadline.
        pub attempt_timeout: Option<Span>,
        /// Between bytes once the answer has begun.
        pub idle_timeout: Span,
        /// What may be tried again.
        pub retry: Retry,
        /// A second attempt for slow safe requests; null: only on suspicion.
        pub hedge: Option<Hedge>,
        /// Header changes towards the backend.
        pub request_headers: Headers,
        /// Header changes towards the client.
        pub response_headers: Headers,
        /// Host and path changes towards the backend; null: none.
        pub rewrite: Option<Rewrite>,
        /// Plausibility rules on JSON answers.
        pub guards: Vec<Guard>,
        /// What to answer when no good answer can be had in time, in order. `unavailable` stands at the end by itself.
        pub degrade: Vec<Degrade>,
        /// The objective, for reports; null: none.
        pub slo: Option<Slo>,
    }

    /// What a route matches.
    #[derive(Default)]
    pub struct Match {
        /// A host name, or *.example.com for any subdomain; null: any.
        pub host: Option<String>,
        /// The path begins so, byte for byte: /video matches /video/1 and /videos, too.
        pub path_prefix: Option<String>,
        /// The path is exactly this.
        pub path: Option<String>,
        /// The path matches this expression somewhere; anchor it with ^ and $.
        pub path_regex: Option<String>,
        /// One of these; empty: any.
        pub methods: Vec<String>,
        /// Headers with exact values.
        pub headers: Named<String>,
    }

    /// What may be tried again.
    pub struct Retry {
        /// Attempts, the first included.
        #[schemars(range(min = 1, max = 10))]
        pub attempts: u32,
        /// Statuses that count as a failed attempt.
        pub statuses: Vec<u16>,
        /// When a write may be repeated.
        pub writes: Writes,
    }

    /// A second attempt for slow safe requests; the first good answer wins.
    pub struct Hedge {
        /// When it starts.
        pub after: HedgeAfter,
        /// The most hedges, as a part of the requests.
        pub budget: Ratio,
    }

    /// Header changes: removals first, then settings.
    #[derive(Default)]
    pub struct Headers {
        /// Replaced or added.
        pub set: Named<String>,
        /// Removed.
        pub remove: Vec<String>,
    }

    /// Changes of the request target.
    #[derive(Default)]
    pub struct Rewrite {
        /// The Host towards the backend.
        pub host: Option<String>,
        /// Taken off the front of the path where it stands there; goes before add_prefix.
        pub strip_prefix: Option<String>,
        /// Put before the path.
        pub add_prefix: Option<String>,
    }

    /// A plausibility rule on a JSON answer: an answer that breaks it counts as a failure.
    #[derive(Default)]
    pub struct Guard {
        /// JSON pointer (RFC 6901); a segment * stands for every item of an array.
        pub json: String,
        /// What is rejected there, one or more.
        pub reject: OneOrMany<Reject>,
        /// Where no region has a plausible answer: replace the field with null and mark the answer, instead of serving an old copy.
        pub mask: bool,
    }

    /// The last good answer of the same key.
    pub struct Stale {
        /// Older copies are not served.
        pub max_age: Span,
        /// Request headers that are part of the key.
        pub key_headers: Vec<String>,
        /// Cookies that do not make an answer personal.
        pub ignore_cookies: Vec<String>,
    }

    /// A fixed answer.
    pub struct Static {
        /// Its status.
        #[schemars(range(min = 200, max = 599))]
        pub status: u16,
        /// Its media type.
        pub content_type: String,
        /// Its body.
        pub body: String,
    }

    /// Writes only: answered when it is safely on disk, replayed later. Needs retry.writes: idempotency_key.
    pub struct SpoolRule {
        /// Given up after.
        pub max_age: Span,
        /// The answer's status.
        pub status: u16,
        /// Writes with the same key are replayed in order: `path`, or a header's name.
        pub order_key: String,
        /// Make an idempotency key for clients that send none.
        pub make_key: bool,
    }

    /// 503 with Retry-After.
    pub struct Unavailable {
        /// The range that Retry-After is drawn from.
        pub retry_after: SpanRange,
        /// The body; null: a short text that names the reason.
        pub body: Option<String>,
    }

    /// An objective.
    #[derive(Default)]
    pub struct Slo {
        /// The part of requests that must be good.
        pub success: Option<Ratio>,
        /// The latency that a part of requests must keep.
        pub latency: Option<LatencyGoal>,
    }
}

words! {
    /// Who is served first when not everybody can be.
    #[derive(Default)]
    pub enum Priority {
        /// Refused last.
        Critical,
        /// In between.
        #[default]
        Normal,
        /// Refused first.
        Sheddable,
    }
    /// When a write (any method but GET, HEAD, OPTIONS, TRACE) may be repeated.
    #[derive(Default)]
    pub enum Writes {
        /// Only when no byte of it was handed over.
        #[default]
        Unsent,
        /// Also when the final byte of its body was never released.
        Incomplete,
        /// Also a request with an Idempotency-Key.
        IdempotencyKey,
    }
    /// A type of JSON value.
    pub enum JsonType {
        /// Number.
        Number,
        /// Text.
        String,
        /// Array.
        Array,
        /// Object.
        Object,
        /// true or false.
        Boolean,
    }
}

/// What a guard rejects.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reject {
    /// The field is not there.
    Missing,
    /// The field is null.
    Null,
    /// Zero, where the last good answer of the same key was not.
    ZeroAfterNonzero,
    /// Another type than this.
    NotA(JsonType),
    /// Fell by at least this part against the last good answer of the same key.
    DropsBy(Ratio),
    /// A number outside the range.
    OutOf(Numbers),
}

/// One way to answer when no good answer can be had in time.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Degrade {
    /// The last good answer of the same key.
    Stale(Stale),
    /// A fixed answer.
    Static(Static),
    /// Writes only: answered when it is safely on disk, replayed later. Needs retry.writes: idempotency_key.
    Spool(SpoolRule),
    /// 503 with Retry-After.
    Unavailable(Unavailable),
}

/// A value, or a list of values.
#[derive(Clone, Debug, PartialEq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(vec![])
    }
}

impl<T: Serialize> Serialize for OneOrMany<T> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(&self.0)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Collect<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Collect<T> {
            type Value = OneOrMany<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or a list of values")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<OneOrMany<T>, A::Error> {
                let mut all = vec![];
                while let Some(item) = items.next_element()? {
                    all.push(item);
                }
                Ok(OneOrMany(all))
            }
            fn visit_newtype_struct<D: Deserializer<'de>>(self, one: D) -> Result<OneOrMany<T>, D::Error> {
                T::deserialize(one).map(|one| OneOrMany(vec![one]))
            }
        }
        from.deserialize_newtype_struct(super::super::read::ONE_OR_MANY, Collect(PhantomData))
    }
}

impl<T: schemars::JsonSchema> schemars::JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("OneOrMany_{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let one = generator.subschema_for::<T>();
        schemars::json_schema!({"anyOf": [one, {"type": "array", "items": one}]})
    }
}

impl Default for Route {
    fn default() -> Self {
        Self {
            name: None,
            r#match: Match::default(),
            service: String::new(),
            priority: Priority::Normal,
            residency: None,
            deadline: Span(Duration::from_secs(10)),
            attempt_timeout: None,
            idle_timeout: Span(Duration::from_secs(60)),
            retry: Retry::default(),
            hedge: None,
            request_headers: Headers::default(),
            response_headers: Headers::default(),
            rewrite: None,
            guards: vec![],
            degrade: vec![],
            slo: None,
        }
    }
}
impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 3, statuses: vec![502, 503, 504], writes: Writes::Unsent }
    }
}
impl Default for Hedge {
    fn default() -> Self {
        Self { after: HedgeAfter(policy::HedgeAfter::Percentile(0.95)), budget: Ratio(0.05) }
    }
}
impl Default for Stale {
    fn default() -> Self {
        Self { max_age: Span(Duration::from_secs(86400)), key_headers: vec![], ignore_cookies: vec![] }
    }
}
impl Default for Static {
    fn default() -> Self {
        Self { status: 200, content_type: "text/plain; charset=utf-8".into(), body: String::new() }
    }
}
impl Default for SpoolRule {
    fn default() -> Self {
        Self { max_age: Span(Duration::from_secs(6 * 3600)), status: 202, order_key: "path".into(), make_key: false }
    }
}
impl Default for Unavailable {
    fn default() -> Self {
        Self { retry_after: SpanRange(Duration::from_secs(2), Duration::from_secs(10)), body: None }
    }
}
