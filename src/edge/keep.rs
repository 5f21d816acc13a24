//! What a write has to do with the spool: whether it may be kept, who sent it, what it is, and how it is written down.
//!
//! Kept are writes on routes with `degrade: [spool: …]` that carry an `Idempotency-Key` (the client's, or, with
//! `make_key`, one of ours that every attempt and every replay then carries), where this edge stands in the route's residency. Not
//! kept: upgrades, bodies beyond `limits.replay_bytes`, bodies with trailers.
//!
//! **Who.** Two writes are the same client's if all of `Authorization`, `Cookie` and the client certificate agree; where a request has none of
//! them, the address it came from stands in. What differs in any of these is another client, and learns nothing of the first.
//!
//! The status page (`GET /.well-known/evenkeel/writes/ID`) tells where a write stands to whoever has its id, and nothing else of it.

use super::answer::Reply;
use super::connection::Guest;
use super::once::Lead;
use super::worker::Worker;
use crate::http1::{Method, RequestHead};
use crate::live::Picture;
use crate::model::policy::{Degrade, Route, SpoolRule, Writes};
use crate::spool::{Entry, Mark, Spool, State, Write, mark};
use bytes::Bytes;

/// Where status pages are.
pub(super) const WRITES: &str = "/.well-known/evenkeel/writes/";
const KEY: &str = "idempotency-key";

/// One write's part in it.
pub(super) struct Keeping<'p> {
    pub(super) spool: &'p Spool,
    pub(super) rule: &'p SpoolRule,
    pub(super) scope: Mark,
    pub(super) order: Mark,
    /// The client named it: repeats can be told.
    pub(super) named: bool,
    pub(super) lead: Option<Lead>,
}

/// The rule of a route for writes like this one.
fn rule<'p>(route: &'p Route, request: &RequestHead) -> Option<&'p SpoolRule> {
    if request.method.is_safe() || request.upgrade().is_some() || route.retry.writes != Writes::IdempotencyKey {
        return None;
    }
    route.degrade.iter().find_map(|d| if let Degrade::Spool(rule) = d { Some(rule) } else { None })
}

/// The request with a key of ours, where the route makes one for clients that send none.
pub(super) fn with_key(route: &Route, request: &RequestHead) -> Option<Box<RequestHead>> {
    if !rule(route, request)?.make_key || request.head.get(KEY).is_some() {
        return None;
    }
    let mut keyed = Box::new(request.clone());
    keyed.head.append("Idempotency-Key", crate::clock::unguessable_id());
    Some(keyed)
}

impl<'p> Keeping<'p> {
    /// `None`: it cannot be kept. `made`: its key is ours.
    #[inline]
    pub(super) fn of(
        worker: &'p Worker,
        picture: &'p Picture,
        route: &'p Route,
        request: &RequestHead,
        guest: &Guest,
        made: bool,
    ) -> Option<Box<Self>> {
        let rule = rule(route, request)?;
        let spool = worker.spool.as_ref().filter(|_| guest.replay.is_none() && request.head.get(KEY).is_some())?;
        let here = picture.view.topology().edge.jurisdiction.as_ref();
        if !route.residency.as_ref().is_none_or(|allowed| here.is_some_and(|here| allowed.contains(here))) {
            return None;
        }
        let (scope, order) = (scope(route, request, guest), order(route, rule, request));
        Some(Box::new(Self { spool, rule, scope, order, named: !made, lead: None }))
    }

    /// The write, ready for the disk.
    pub(super) fn write(&self, route: &Route, request: &RequestHead, guest: &Guest, id: &str, print: Mark, body: &[&[u8]]) -> Write {
        Write {
            route: route.name.to_string(),
            method: request.method_text().to_owned(),
            target: format!("{}{}", request.authority(), target(request)),
            scope: self.scope,
            fingerprint: print,
            order: self.order,
            residency: route.residency.as_ref().map(|list| list.iter().map(ToString::to_string).collect()),
            status: self.rule.status,
            max_age_ms: u64::try_from(self.rule.max_age.as_millis()).unwrap_or(u64::MAX),
            client: guest.address,
            trusted: guest.trusted,
            https: guest.https,
            request: written(request, id, body),
        }
    }
}

/// Path and query.
pub(super) fn target(request: &RequestHead) -> String {
    match request.query() {
        Some(query) => format!("{}?{query}", request.path()),
        None => request.path().to_owned(),
    }
}

fn scope(route: &Route, request: &RequestHead, guest: &Guest) -> Mark {
    let mut parts: Vec<Vec<u8>> = vec![route.name.as_bytes().to_vec()];
    let mut anonymous = guest.certificate.is_empty();
    for name in [KEY, "authorization", "cookie"] {
        let values: Vec<&[u8]> = request.head.all(name).collect();
        anonymous &= name == KEY || values.is_empty();
        parts.push(mark(values).to_vec());
    }
    parts.push(guest.certificate.to_vec());
    if anonymous {
        parts.push(guest.client(request).to_string().into_bytes());
    }
    mark(parts.iter().map(|p| &p[..]))
}

fn order(route: &Route, rule: &SpoolRule, request: &RequestHead) -> Mark {
    let by_header = (rule.order_key != "path").then(|| request.head.get(&rule.order_key)).flatten();
    match by_header {
        Some(value) => mark([route.name.as_bytes(), b"header", value]),
        // A request without the header is in order with others of its path.
        None => mark([route.name.as_bytes(), b"path", request.authority().to_ascii_lowercase().as_bytes(), request.path().as_bytes()]),
    }
}

/// A request as HTTP/1.1 with a length, without what belonged to the client's connection.
fn written(request: &RequestHead, id: &str, body: &[&[u8]]) -> Vec<u8> {
    let length: usize = body.iter().map(|p| p.len()).sum();
    let mut out = Vec::with_capacity(request.head.raw().len() + length + 256);
    // A client of HTTP/1.0 may have named no host, which HTTP/1.1 demands.
    let version = if request.authority().is_empty() { "HTTP/1.0" } else { "HTTP/1.1" };
    out.extend_from_slice(format!("{} {} {version}\r\n", request.method_text(), target(request)).as_bytes());
    if !request.authority().is_empty() {
        field(&mut out, b"Host", request.authority().as_bytes());
    }
    let nominated: Vec<Vec<u8>> = request
        .head
        .all("connection")
        .flat_map(|v| v.split(|b| *b == b','))
        .map(|t| t.trim_ascii().to_ascii_lowercase())
        .filter(|t| !matches!(&t[..], b"authorization" | b"cookie" | b"idempotency-key"))
        .collect();
    let mut named = false;
    for (name, value) in request.head.iter() {
        let lower = name.to_ascii_lowercase();
        if HOP.iter().any(|h| h.as_bytes() == lower) || nominated.contains(&lower) {
            continue;
        }
        named |= lower == b"x-request-id";
        field(&mut out, name, value);
    }
    if !named {
        field(&mut out, b"X-Request-Id", id.as_bytes());
    }
    out.extend_from_slice(format!("Content-Length: {length}\r\nConnection: close\r\n\r\n").as_bytes());
    body.iter().for_each(|piece| out.extend_from_slice(piece));
    out
}

/// Fields of one connection, or that frame one message.
const HOP: [&str; 12] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "http2-settings",
    "max-forwards",
];

fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// The id of the write whose status page is asked for.
pub(super) fn status_page(request: &RequestHead) -> Option<&str> {
    // Looked at as bytes: every request is asked.
    if request.path_bytes().starts_with(WRITES.as_bytes()) { request.path().strip_prefix(WRITES) } else { None }
}

/// A status page.
pub(super) async fn page(spool: Option<&Spool>, id: &str, request: &RequestHead) -> Reply {
    if !matches!(request.method, Method::Get | Method::Head) {
        return Reply::json(405, [("Allow", "GET, HEAD".into())], &serde_json::json!({"error": "a status page is only read"}));
    }
    let found = match spool {
        Some(spool) if id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()) => spool.by_id(id).await,
        _ => Ok(None),
    };
    match found {
        Ok(Some(entry)) => Reply::json(200, pending_for(&entry), &status(&entry)),
        Ok(None) => {
            Reply::json(404, [], &serde_json::json!({"error": "there is no such write; records of finished ones end after a while"}))
        }
        Err(_) => Reply::json(503, [("Retry-After", "2".into())], &serde_json::json!({"error": "the record cannot be read right now"})),
    }
}

/// Whoever polls should not do it every few milliseconds.
fn pending_for(entry: &Entry) -> impl IntoIterator<Item = (&'static str, String)> {
    (entry.state == State::Pending).then(|| ("Retry-After", "5".to_owned()))
}

/// What everybody with the id may know.
fn status(entry: &Entry) -> serde_json::Value {
    let time = |ms: u64| jiff::Timestamp::from_millisecond(ms as i64).map(|t| format!("{t:.3}")).ok();
    let mut page = serde_json::json!({"id": entry.id, "state": entry.state, "accepted_at": time(entry.accepted_at)});
    if entry.state == State::Pending {
        page["expires_at"] = time(entry.expires_at).into();
    } else {
        page["settled_at"] = time(entry.settled_at).into();
    }
    if let Some(result) = entry.result {
        page["status"] = result.into();
    }
    page
}

/// The answer to a write that was kept, now or before.
pub(super) fn kept(entry: &Entry) -> Reply {
    let location = format!("{WRITES}{}", entry.id);
    // Always the words of the first time: a repeat gets the same answer.
    let body = serde_json::json!({"id": entry.id, "state": "pending", "status": &location});
    let fields = [("Evenkeel-Degraded", format!("spooled; id={}", entry.id)), ("Location", location.clone())];
    let mut reply = Reply::json(entry.status, fields, &body);
    if matches!(entry.status, 204 | 205) {
        reply.body = Bytes::new();
    }
    reply.outcome = crate::model::outcome::RequestOutcome::Spooled;
    reply.why = Some("spooled");
    reply
}

#[cfg(test)]
mod tests;
