//! Traces to an OpenTelemetry collector: OTLP over HTTP, protobuf, a batch at most a second old.
//!
//! ```text
//! requests --bounded channel--> batch (up to MOST spans, SOON at most) --POST /v1/traces--> collector
//!            full: dropped                                               late, refused: failed
//! ```
//!
//! One thread, one batch under way. A collector that is slow or away costs its spans, which are counted, and nothing else: nothing
//! is sent again, since by then newer traces wait. One line of the log a minute says that they are lost.

use crate::clock;
use crate::edge::trace::{Leg, Stats, Trace};
use crate::logging::Throttle;
use crate::model::outcome::Outcome;
use crate::model::time::{Duration, Moment};
use crate::model::topology::Topology;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

/// Spans in a batch.
const MOST: usize = 512;
/// How old the first span of a batch gets.
const SOON: Duration = Duration::from_secs(1);
/// How long a collector may take for a batch, connecting included.
const PATIENCE: Duration = Duration::from_secs(5);
/// What a collector may say about a batch, bytes.
const ANSWER: usize = 64 << 10;
/// The log says so often at most that traces are lost.
const LAMENT: Duration = Duration::from_secs(60);

/// Where to, and on whose behalf.
#[derive(Clone, Debug, PartialEq)]
struct Collector {
    authority: String,
    path: String,
    edge: String,
}

impl Collector {
    fn of(t: &Topology) -> Option<Self> {
        let uri: Uri = t.tracing.as_ref()?.otlp.parse().ok()?;
        let path = if uri.path() == "/" { "/v1/traces" } else { uri.path() };
        let authority = format!("{}:{}", uri.host()?, uri.port_u16().unwrap_or(80));
        Some(Self { authority, path: path.into(), edge: t.edge.name.to_string() })
    }
}

/// The thread that sends.
pub struct Exporter {
    collector: watch::Sender<Option<Collector>>,
    over: std::sync::mpsc::Receiver<()>,
}

impl Exporter {
    /// Sends what comes out of the channel until its other end is gone.
    pub fn start(t: &Topology, traces: mpsc::Receiver<Trace>, stats: Arc<Stats>) -> std::io::Result<Self> {
        let (collector, current) = watch::channel(Collector::of(t));
        let (told, over) = std::sync::mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("traces".into()).spawn(move || {
            runtime.block_on(run(traces, current, &stats));
            let _ = told.send(());
        })?;
        Ok(Self { collector, over })
    }

    /// How a new config reaches it.
    pub fn apply(&self) -> impl Fn(&Topology) + Send + Sync + 'static {
        let collector = self.collector.clone();
        move |t| {
            collector.send_replace(Collector::of(t));
        }
    }

    /// The request side has gone: waits until the last batch is sent, but not longer than `at_most`.
    pub fn finish(self, at_most: Duration) {
        let _ = self.over.recv_timeout(at_most);
    }
}

async fn run(mut traces: mpsc::Receiver<Trace>, collector: watch::Receiver<Option<Collector>>, stats: &Stats) {
    let lament = Throttle::every(LAMENT);
    while let Some(first) = traces.recv().await {
        let mut spans = spans(&first);
        let end = clock::now() + SOON;
        while spans.len() < MOST {
            tokio::select! {
                next = traces.recv() => match next {
                    Some(trace) => spans.extend(self::spans(&trace)),
                    None => break,
                },
                () = clock::sleep_until(end) => break,
            }
        }
        let collector = collector.borrow().clone();
        let count = spans.len() as u64;
        let sent = match &collector {
            None => Err("tracing was switched off".into()),
            Some(to) => tokio::time::timeout(PATIENCE, send(to, spans))
                .await
                .unwrap_or_else(|_| Err(format!("{}: not taken within {} s", to.authority, PATIENCE.as_secs()))),
        };
        match sent {
            Ok(rejected) => {
                stats.failed.fetch_add(rejected, Relaxed);
                stats.sent.fetch_add(count.saturating_sub(rejected), Relaxed);
            }
            Err(why) => {
                stats.failed.fetch_add(count, Relaxed);
                if collector.is_some() && lament.pass().is_some() {
                    tracing::warn!("traces are lost: {why}");
                }
            }
        }
    }
}

/// Posts a batch; how many spans of it the collector rejected.
async fn send(to: &Collector, spans: Vec<Span>) -> Result<u64, String> {
    let scope = InstrumentationScope { name: "evenkeel".into(), version: env!("CARGO_PKG_VERSION").into(), ..Default::default() };
    let attributes =
        vec![text("service.name", "evenkeel"), text("service.version", env!("CARGO_PKG_VERSION")), text("service.instance.id", &to.edge)];
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes, ..Default::default() }),
            scope_spans: vec![ScopeSpans { scope: Some(scope), spans, ..Default::default() }],
            ..Default::default()
        }],
    };
    let body = Full::new(Bytes::from(request.encode_to_vec()));
    let request = Request::post(&to.path).header("host", &to.authority).header("content-type", "application/x-protobuf").body(body);
    let request = request.map_err(|e| e.to_string())?;
    let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", to.authority);
    let stream = TcpStream::connect(&to.authority).await.map_err(|e| failed(&e))?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|e| failed(&e))?;
    let driver = tokio::spawn(connection);
    let answered = sender.send_request(request).await.map_err(|e| failed(&e));
    let told = match answered {
        Ok(response) if !response.status().is_success() => Err(format!("{} answers {}", to.authority, response.status())),
        Ok(response) => {
            let body = Limited::new(response.into_body(), ANSWER).collect().await.map(|b| b.to_bytes()).unwrap_or_default();
            let said = ExportTraceServiceResponse::decode(body).unwrap_or_default();
            Ok(said.partial_success.map_or(0, |p| u64::try_from(p.rejected_spans).unwrap_or(0)))
        }
        Err(e) => Err(e),
    };
    driver.abort();
    told
}

/// The request's span first, then its attempts'. Names and attributes are those of OpenTelemetry's conventions for HTTP.
fn spans(trace: &Trace) -> Vec<Span> {
    let r = &trace.record;
    // One reading of the wall clock a trace: its spans lie to each other as they did.
    let (base, zero) = (u64::try_from(clock::wall(r.at).as_nanosecond()).unwrap_or(0), r.at);
    let nanos = |at: Moment| base + u64::try_from(at.since(zero).as_nanos()).unwrap_or(0);
    let end = r.at + r.took;
    let method = String::from_utf8_lossy(&r.method);
    let host = String::from_utf8_lossy(&r.host);
    let path = r.target.split(|b| *b == b'?').next().unwrap_or_default();
    let mut attributes = vec![
        text("http.request.method", &method),
        text("url.path", &String::from_utf8_lossy(path)),
        text("url.scheme", if trace.https { "https" } else { "http" }),
        text("server.address", &host),
        text("client.address", &r.client.to_string()),
        text("network.protocol.version", r.protocol.trim_start_matches("HTTP/")),
        text("evenkeel.outcome", r.outcome.label()),
        text("evenkeel.request_id", &String::from_utf8_lossy(&r.id)),
        number("evenkeel.attempts", r.attempts.into()),
    ];
    if r.status > 0 {
        attributes.push(number("http.response.status_code", r.status.into()));
    }
    for (name, value) in [("evenkeel.route", &r.route), ("evenkeel.region", &r.region), ("evenkeel.endpoint", &r.endpoint)] {
        attributes.extend(value.as_ref().map(|v| text(name, v)));
    }
    attributes.extend(r.why.map(|why| text("evenkeel.why", why)));
    let name = r.route.as_ref().map_or_else(|| method.to_string(), |route| format!("{method} {route}"));
    let mut out = vec![Span {
        trace_id: trace.id.to_vec(),
        span_id: trace.span.to_vec(),
        parent_span_id: trace.parent.map_or_else(Vec::new, |p| p.to_vec()),
        trace_state: trace.state.clone(),
        name,
        kind: SpanKind::Server.into(),
        start_time_unix_nano: nanos(r.at),
        end_time_unix_nano: nanos(end),
        attributes,
        status: status(r.status >= 500 || r.status == 0, r.why.unwrap_or_default()),
        ..Default::default()
    }];
    out.extend(trace.attempts.iter().map(|leg| Span {
        trace_id: trace.id.to_vec(),
        span_id: leg.span.to_vec(),
        parent_span_id: trace.span.to_vec(),
        trace_state: trace.state.clone(),
        name: format!("{method} {}/{}", leg.service, leg.region),
        kind: SpanKind::Client.into(),
        start_time_unix_nano: nanos(leg.began),
        end_time_unix_nano: nanos(leg.ended.unwrap_or(end).max(leg.began)),
        attributes: attempt(leg, &method),
        status: status(leg.outcome.is_some_and(Outcome::is_failure), leg.outcome.map_or("", Outcome::label)),
        ..Default::default()
    }));
    out
}

fn attempt(leg: &Leg, method: &str) -> Vec<KeyValue> {
    let (address, port) = leg.endpoint.rsplit_once(':').unwrap_or((&leg.endpoint, ""));
    let mut out = vec![
        text("http.request.method", method),
        text("server.address", address),
        text("evenkeel.service", &leg.service),
        text("evenkeel.region", &leg.region),
        text("evenkeel.result", leg.outcome.map_or("lost", Outcome::label)),
        number("http.request.resend_count", leg.number.into()),
    ];
    out.extend(port.parse().ok().map(|port: u16| number("server.port", port.into())));
    out.extend(leg.status.map(|s| number("http.response.status_code", s.into())));
    if leg.hedge {
        out.push(KeyValue {
            key: "evenkeel.hedge".into(),
            value: Some(AnyValue { value: Some(Value::BoolValue(true)) }),
            ..Default::default()
        });
    }
    if let Some(outcome) = leg.outcome.filter(|o| o.is_failure()) {
        out.push(text("error.type", outcome.label()));
    }
    out
}

fn status(bad: bool, message: &str) -> Option<Status> {
    bad.then(|| Status { code: StatusCode::Error.into(), message: message.into() })
}

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(Value::StringValue(value.into())) }), ..Default::default() }
}

fn number(key: &str, value: i64) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(Value::IntValue(value)) }), ..Default::default() }
}
