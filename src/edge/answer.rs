//! What the proxy says itself: every error becomes an answer here, and nowhere else.
//!
//! | cause | status | then |
//! |---|---|---|
//! | a head that cannot be understood | 400, 405, 414, 417, 431, 501, 505 (`http1::Reject`) | close: where the next request begins is not known |
//! | a head, or a body, that does not come | 408 | close |
//! | a body that is too large | 413 | close |
//! | more requests than `requests_per_client` | 429 | keep |
//! | no route | 404 | keep |
//! | plain text where https is wanted | 308 | keep |
//! | `OPTIONS *`, TRACE or OPTIONS with `Max-Forwards: 0` | 204 / 200 | keep: meant for this hop (RFC 9110 section 7.6.2) |
//! | no region could answer | `steer::fallback` says | keep |
//!
//! All of ours carry `Proxy-Status` (RFC 9209), but for those that are no errors.

use super::upload::Fault;
use crate::clock;
use crate::http1::{Method, Reject, RequestHead};
use crate::model::outcome::RequestOutcome;
use crate::steer::fallback;
use bytes::{BufMut, Bytes, BytesMut};
use smallvec::{SmallVec, smallvec};
use std::borrow::Cow;

/// An answer of the proxy's own.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Without framing, `Date` and `Connection`.
    pub(crate) headers: SmallVec<[(&'static str, Cow<'static, str>); 4]>,
    pub(crate) body: Bytes,
    /// What the request counts as.
    pub(crate) outcome: RequestOutcome,
    /// Whether the connection can go on after it.
    pub(crate) keep_alive: bool,
    /// For the access log.
    pub(crate) why: Option<&'static str>,
}

impl Reply {
    fn error(status: u16, proxy_error: &str, why: &'static str) -> Self {
        Self {
            status,
            headers: smallvec![
                ("Proxy-Status", Cow::Owned(format!("evenkeel; error={proxy_error}; details=\"{why}\""))),
                ("Content-Type", Cow::Borrowed("text/plain; charset=utf-8")),
            ],
            body: Bytes::from(format!("{status} {}: {why}\n", reason(status))),
            outcome: RequestOutcome::ClientError,
            keep_alive: false,
            why: Some(why),
        }
    }

    fn plain(status: u16, headers: SmallVec<[(&'static str, Cow<'static, str>); 4]>) -> Self {
        Self { status, headers, body: Bytes::new(), outcome: RequestOutcome::Ok, keep_alive: true, why: None }
    }

    /// JSON of our own that is no error.
    pub(crate) fn json(status: u16, fields: impl IntoIterator<Item = (&'static str, String)>, body: &serde_json::Value) -> Self {
        let mut reply = Self::plain(status, fields.into_iter().map(|(name, value)| (name, Cow::Owned(value))).collect());
        reply.headers.push(("Content-Type", Cow::Borrowed("application/json")));
        reply.headers.push(("Cache-Control", Cow::Borrowed("no-store")));
        reply.headers.push(("Proxy-Status", Cow::Borrowed("evenkeel")));
        reply.body = Bytes::from(format!("{body}\n"));
        if status >= 400 {
            reply.outcome = RequestOutcome::ClientError;
        }
        reply
    }

    fn kept(mut self) -> Self {
        self.keep_alive = true;
        self
    }
}

impl From<Reject> for Reply {
    fn from(reject: Reject) -> Self {
        let mut reply = Self::error(reject.status, "http_request_error", reject.why);
        if reject.status == 405 {
            reply.headers.push(("Allow", Cow::Borrowed("GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS, TRACE")));
        }
        reply
    }
}

impl From<fallback::Answer> for Reply {
    fn from(answer: fallback::Answer) -> Self {
        Self {
            status: answer.status,
            headers: answer.headers,
            body: answer.body,
            outcome: answer.outcome,
            keep_alive: true,
            why: Some(answer.refusal.reason()),
        }
    }
}

/// What to say about a body; `None`: nobody is there to hear it.
pub(crate) fn fault(fault: Fault) -> Option<Reply> {
    Some(match fault {
        Fault::Gone => return None,
        Fault::Malformed(_) => Reply::error(400, "http_request_error", "malformed request body"),
        Fault::TooLarge => too_large(),
        Fault::Stalled => Reply::error(408, "http_request_error", "the request body came too slowly"),
    })
}

pub(crate) fn too_large() -> Reply {
    Reply::error(413, "http_request_error", "the request body is larger than this proxy takes")
}

pub(crate) fn late_head() -> Reply {
    Reply::error(408, "http_request_error", "the request head did not come in time")
}

pub(crate) fn too_many() -> Reply {
    let mut reply = Reply::error(429, "http_request_denied", "too many requests from this address").kept();
    reply.headers.push(("Retry-After", Cow::Borrowed("1")));
    reply
}

/// The same `Idempotency-Key` on another write.
pub(crate) fn key_reused() -> Reply {
    Reply::error(422, "http_request_error", "this Idempotency-Key was used for another request: method, target or body differ").kept()
}

/// The same write is still under way, for longer than its repeat may wait.
pub(crate) fn in_progress() -> Reply {
    let mut reply = Reply::error(409, "http_request_denied", "a request with this Idempotency-Key is still under way").kept();
    reply.headers.push(("Retry-After", Cow::Borrowed("1")));
    reply
}

pub(crate) fn no_route() -> Reply {
    Reply::error(404, "destination_not_found", "no route matches this host and path").kept()
}

/// The answer to a request that is meant for this hop, or for another scheme; `None`: it is to be routed.
pub(crate) fn local(r: &RequestHead, to_https: bool) -> Option<Reply> {
    if to_https {
        let host = r.host();
        let query = r.query().map(|q| format!("?{q}")).unwrap_or_default();
        return Some(if host.is_empty() {
            Reply::error(400, "http_request_error", "no Host to redirect to https")
        } else {
            Reply::plain(308, smallvec![("Location", Cow::Owned(format!("https://{host}{}{query}", r.path())))])
        });
    }
    let here = r.max_forwards == Some(0);
    match r.method {
        Method::Trace if here => Some(trace(r)),
        Method::Options if here || r.path() == "*" => {
            Some(Reply::plain(204, smallvec![("Allow", Cow::Borrowed("GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS, TRACE"))]))
        }
        _ => None,
    }
}

/// What the last hop of a TRACE says: the request as it came, without what may be secret (RFC 9110 section 9.3.8).
fn trace(r: &RequestHead) -> Reply {
    let mut body = BytesMut::new();
    body.put_slice(format!("{} {} HTTP/1.1\r\n", r.method_text(), r.path()).as_bytes());
    for (name, value) in r.head.iter() {
        let secret = ["cookie", "authorization", "proxy-authorization"].iter().any(|s| name.eq_ignore_ascii_case(s.as_bytes()));
        if !secret {
            crate::http1::forward::field(&mut body, name, value);
        }
    }
    Reply { body: body.freeze(), ..Reply::plain(200, smallvec![("Content-Type", Cow::Borrowed("message/http"))]) }
}

/// The usual phrase of a status.
fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("Status")
}

/// Write an answer for an HTTP/1 client. `head`: its method was HEAD.
pub(crate) fn write(reply: &Reply, head: bool, keep_alive: bool, old: bool, out: &mut impl BufMut) {
    out.put_slice(format!("HTTP/1.1 {} {}\r\nDate: ", reply.status, reason(reply.status)).as_bytes());
    out.put_slice(&clock::http_date());
    out.put_slice(b"\r\n");
    for (name, value) in &reply.headers {
        crate::http1::forward::field(out, name.as_bytes(), value.as_bytes());
    }
    if reply.status != 204 && reply.status != 304 {
        out.put_slice(format!("Content-Length: {}\r\n", reply.body.len()).as_bytes());
    }
    match (keep_alive, old) {
        (false, _) => out.put_slice(b"Connection: close\r\n"),
        (true, true) => out.put_slice(b"Connection: keep-alive\r\n"),
        (true, false) => {}
    }
    out.put_slice(b"\r\n");
    if !head {
        out.put_slice(&reply.body);
    }
}
