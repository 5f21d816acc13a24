//! One question to one endpoint, and what its answer is worth.
//!
//! A fresh connection each time: what is asked is whether *new* requests would be answered. An answer's body is
//! read only where something is expected of it, and at most [`BODY`] of it. Time limits are the caller's.

use crate::model::policy::{Health, HealthKind, JsonExpect};
use crate::model::signal::ProbeVerdict;
use crate::model::time::Duration;
use crate::model::topology::{Endpoint, IdleConnections, Protocol, Service};
use crate::upstream::dial::{Dial, Target, TcpDial};
use crate::upstream::stream::Stream;
use crate::upstream::tls::ClientTls;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::fmt::Display;
use std::sync::Arc;

/// The most of a body that is looked at.
const BODY: usize = 64 << 10;
/// The empty message of gRPC: not compressed, no bytes. It asks for the server as a whole.
const GRPC_EMPTY: [u8; 5] = [0; 5];

/// What is asked of one endpoint, and what is expected.
#[derive(Clone, Debug)]
pub struct Question {
    health: Health,
    target: Target,
    host: String,
    /// HTTP/2: for gRPC, and where the service speaks nothing else. Otherwise what the TLS handshake comes to.
    h2: bool,
}

impl Question {
    /// What a service wants its endpoint asked.
    pub fn new(health: &Health, service: &Service, tls: Option<&Arc<ClientTls>>, endpoint: &Endpoint) -> Self {
        let h2 = health.kind == HealthKind::Grpc || service.protocol == Protocol::H2;
        let mut address = endpoint.address;
        address.set_port(health.port.unwrap_or(address.port()));
        let host = health.host.clone().unwrap_or_else(|| address.to_string());
        let name = host.parse::<http::uri::Authority>().map_or_else(|_| host.clone(), |a| a.host().to_owned());
        let target = Target {
            id: 0,
            address,
            epoch: 0,
            protocol: if h2 { Protocol::H2 } else { service.protocol },
            connect_timeout: health.timeout,
            idle: IdleConnections { max: 0, timeout: Duration::ZERO, warm: 0 },
            tls: tls.map(|t| (t.clone(), t.name(&name, address.ip()))),
        };
        Self { health: health.clone(), target, host, h2 }
    }

    /// Asks.
    pub async fn ask(&self) -> ProbeVerdict {
        let stream = match TcpDial.dial(&self.target).await {
            Ok(stream) => stream,
            Err(e) if e.timed_out() => return ProbeVerdict::Timeout,
            Err(e) => return ProbeVerdict::Connect(e.to_string()),
        };
        match self.health.kind {
            HealthKind::Tcp => ProbeVerdict::Pass,
            HealthKind::Http | HealthKind::Grpc => self.exchange(stream).await.unwrap_or_else(broken),
        }
    }

    async fn exchange(&self, stream: Stream) -> Result<ProbeVerdict, hyper::Error> {
        let h2 = self.h2 || stream.alpn() == Some(b"h2");
        let io = TokioIo::new(stream);
        if h2 {
            let (mut requests, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
            let answer = async { self.judge(requests.send_request(self.request(true)).await?).await };
            alongside(connection, answer).await
        } else {
            let (mut requests, connection) = hyper::client::conn::http1::handshake(io).await?;
            let answer = async { self.judge(requests.send_request(self.request(false)).await?).await };
            alongside(connection, answer).await
        }
    }

    fn request(&self, h2: bool) -> Request<Full<Bytes>> {
        let scheme = if self.target.tls.is_some() { "https" } else { "http" };
        let grpc = self.health.kind == HealthKind::Grpc;
        let path = if grpc { "/grpc.health.v1.Health/Check" } else { &*self.health.path };
        // HTTP/2 wants the whole URI, HTTP/1.1 the path and a Host.
        let uri = if h2 { format!("{scheme}://{}{path}", self.host) } else { path.into() };
        let mut r = Request::builder().uri(uri).header("user-agent", concat!("evenkeel-probe/", env!("CARGO_PKG_VERSION")));
        if !h2 {
            r = r.header("host", &self.host).header("connection", "close");
        }
        if grpc {
            r = r.method(Method::POST).header("content-type", "application/grpc").header("te", "trailers");
        }
        let body = if grpc { Bytes::from_static(&GRPC_EMPTY) } else { Bytes::new() };
        // The config's paths and hosts are checked; should one still not do, the plain question is asked.
        r.body(Full::new(body)).unwrap_or_else(|_| Request::new(Full::default()))
    }

    async fn judge(&self, answer: Response<Incoming>) -> Result<ProbeVerdict, hyper::Error> {
        let status = answer.status().as_u16();
        if self.health.kind == HealthKind::Grpc {
            if status != 200 {
                return Ok(ProbeVerdict::Status(status));
            }
            let code = answer.headers().get("grpc-status").and_then(|v| v.to_str().ok()).unwrap_or("0").to_owned();
            if code != "0" {
                return Ok(ProbeVerdict::Body(format!("grpc-status {code}")));
            }
            return Ok(body(answer).await.map_or_else(ProbeVerdict::Body, |b| serving(&b)));
        }
        if !self.health.expect_status.iter().any(|(low, high)| (*low..=*high).contains(&status)) {
            return Ok(ProbeVerdict::Status(status));
        }
        if self.health.expect_json.is_empty() {
            return Ok(ProbeVerdict::Pass);
        }
        Ok(body(answer).await.map_or_else(ProbeVerdict::Body, |b| expected(&b, &self.health.expect_json)))
    }
}

/// Runs a connection for as long as its answer takes.
async fn alongside<T>(connection: impl Future, answer: impl Future<Output = T>) -> T {
    let drive = async {
        connection.await;
        // Closed: the answer knows by itself whether that came too early.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = answer => answer,
        () = drive => unreachable!("pending for ever"),
    }
}

async fn body(answer: Response<Incoming>) -> Result<Bytes, String> {
    let whole = Limited::new(answer.into_body(), BODY).collect().await;
    whole.map(|b| b.to_bytes()).map_err(|e| format!("the body breaks off or is beyond {BODY} bytes: {e}"))
}

/// An exchange that came to no answer.
fn broken(e: hyper::Error) -> ProbeVerdict {
    if e.is_parse() { ProbeVerdict::Body(format!("not HTTP: {e}")) } else { ProbeVerdict::Connect(format!("no answer: {e}")) }
}

fn expected(body: &[u8], expect: &[JsonExpect]) -> ProbeVerdict {
    let wrong = |what: &dyn Display| ProbeVerdict::Body(what.to_string());
    let json: serde_json::Value = match serde_json::from_slice(body) {
        Ok(json) => json,
        Err(e) => return wrong(&format_args!("not JSON: {e}")),
    };
    for e in expect {
        match (json.pointer(&e.pointer), &e.equals) {
            (None, _) => return wrong(&format_args!("{} is missing", e.pointer)),
            (Some(found), Some(want)) if found != want => return wrong(&format_args!("{} is {found}, not {want}", e.pointer)),
            _ => {}
        }
    }
    ProbeVerdict::Pass
}

/// `HealthCheckResponse { status: SERVING }` is field 1, varint 1, in one gRPC message.
fn serving(body: &[u8]) -> ProbeVerdict {
    match body.get(5..) {
        Some([0x08, 1, ..]) => ProbeVerdict::Pass,
        Some([0x08, other, ..]) => ProbeVerdict::Body(format!("grpc health status {other}, not 1 (SERVING)")),
        _ => ProbeVerdict::Body("not a grpc.health.v1 answer".into()),
    }
}
