//! Records of requests, as lines of the access log.

use crate::clock;
use crate::edge::access::Record;
use crate::logging::access::Access;
use crate::model::outcome::RequestOutcome;
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::mpsc::Receiver;

#[derive(Serialize)]
struct Line {
    time: String,
    client: std::net::IpAddr,
    protocol: &'static str,
    method: String,
    host: String,
    target: String,
    route: Option<String>,
    status: u16,
    outcome: RequestOutcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    attempts: u8,
    received: u64,
    sent: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_byte_ms: Option<f64>,
    took_ms: f64,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'static str>,
}

/// Writes records until the request side has gone.
pub async fn follow(mut records: Receiver<Record>, access: Access) {
    while let Some(record) = records.recv().await {
        access.write(&line(record));
    }
}

fn line(r: Record) -> Line {
    let text = |b: &Bytes| String::from_utf8_lossy(b).into_owned();
    let ms = |d: std::time::Duration| (d.as_secs_f64() * 1e6).round() / 1e3;
    Line {
        time: format!("{:.3}", clock::wall(r.at)),
        client: r.client,
        protocol: r.protocol,
        method: text(&r.method),
        host: text(&r.host),
        target: text(&r.target),
        route: r.route.map(|s| s.to_string()),
        status: r.status,
        outcome: r.outcome,
        region: r.region.map(|s| s.to_string()),
        endpoint: r.endpoint.map(|s| s.to_string()),
        attempts: r.attempts,
        received: r.received,
        sent: r.sent,
        first_byte_ms: r.first_byte.map(ms),
        took_ms: ms(r.took),
        id: text(&r.id),
        why: r.why,
    }
}
