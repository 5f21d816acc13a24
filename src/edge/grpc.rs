//! What a gRPC call is beside an HTTP request: a deadline of the client's own, a status in the trailers, and answers of ours in its terms.
//!
//! The client's deadline (`grpc-timeout`) bounds the whole call, its stream included; the route's bounds the time to the first byte,
//! as for any request. What is repeated goes out with the time that is left.
//!
//! Messages are not looked at and never collected: they stream through like any body. A client that says nothing on an open stream is
//! given the route's `idle_timeout`, not `limits.body_timeout`, for many streams are quiet by nature.

use super::answer::Reply;
use crate::clock;
use crate::http1::{Head, Method, RequestHead, ResponseHead};
use crate::model::time::Moment;
use crate::steer::grpc;
use bytes::Bytes;
use smallvec::smallvec;
use std::borrow::Cow;

/// A gRPC call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    /// The client's deadline; [`Moment::FAR`]: it has none.
    pub(super) until: Moment,
}

impl Call {
    /// `None`: the request is none. Requests that do not ask for trailers are not looked at any closer.
    #[inline]
    pub(super) fn of(request: &RequestHead, began: Moment) -> Option<Self> {
        if !request.wants_trailers() || request.method != Method::Post {
            return None;
        }
        request.head.get("content-type").filter(|t| grpc::is_grpc(t))?;
        let timeout = request.head.get("grpc-timeout").and_then(grpc::timeout);
        Some(Self { until: timeout.map_or(Moment::FAR, |t| began + t) })
    }

    /// A head as it is sent for a second attempt: with the time that is left.
    pub(super) fn again(&self, head: &mut Vec<u8>) {
        const NAME: &[u8] = b"\r\ngrpc-timeout:";
        if self.until == Moment::FAR {
            return;
        }
        let Some(at) = head.windows(NAME.len()).position(|w| w.eq_ignore_ascii_case(NAME)) else { return };
        let rest = head.split_off(at + NAME.len());
        let end = rest.iter().position(|b| *b == b'\r').unwrap_or(rest.len());
        head.extend_from_slice(b" ");
        head.extend_from_slice(grpc::timeout_text(self.until.since(clock::now())).as_bytes());
        head.extend_from_slice(&rest[end..]);
    }
}

/// What an answer's head says, where it says it all: one of trailers alone.
pub(super) fn said(head: &ResponseHead) -> Option<u8> {
    let status = head.head.get("grpc-status").filter(|_| head.status == 200)?;
    Some(grpc::code(Some(status)))
}

/// What trailers say of a call.
pub(super) fn ended(trailers: Option<&Head>) -> u8 {
    grpc::code(trailers.and_then(|t| t.get("grpc-status")))
}

/// The end of a call whose client would wait no longer.
pub(super) fn too_late() -> Head {
    let mut trailers = Head::default();
    trailers.append("grpc-status", grpc::DEADLINE_EXCEEDED.to_string());
    trailers.append("grpc-message", "the deadline of the call has passed");
    trailers
}

/// An answer of the proxy's own in gRPC's terms: status 200, trailers alone.
pub(super) fn reply(reply: &Reply) -> Reply {
    let native = reply.headers.iter().any(|(n, v)| n.eq_ignore_ascii_case("content-type") && grpc::is_grpc(v.as_bytes()));
    if native {
        return reply.clone();
    }
    // A fixed answer of the operator's is no message of this service's: the call fails, and says why.
    let code = match (reply.why, grpc::code_of(reply.status)) {
        (Some("deadline"), _) => grpc::DEADLINE_EXCEEDED,
        (_, 0) => grpc::UNAVAILABLE,
        (_, code) => code,
    };
    let text = String::from_utf8_lossy(&reply.body);
    let mut headers = smallvec![
        ("Content-Type", Cow::Borrowed("application/grpc")),
        ("grpc-status", Cow::Owned(code.to_string())),
        ("grpc-message", Cow::Owned(grpc::message(&text))),
    ];
    for (name, value) in &reply.headers {
        match *name {
            "Content-Type" => {}
            // What gRPC clients that repeat calls by a policy look at, in milliseconds.
            "Retry-After" => headers.push(("grpc-retry-pushback-ms", Cow::Owned(format!("{value}000")))),
            _ => headers.push((*name, value.clone())),
        }
    }
    Reply { status: 200, headers, body: Bytes::new(), ..reply.clone() }
}
