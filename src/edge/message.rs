//! What goes to an endpoint: the request's head as it is written there.

use super::connection::Guest;
use crate::http1::forward::{self, Onward};
use crate::http1::{RequestHead, Version};
use crate::model::dice::Dice;
use crate::model::policy::Route;
use bytes::BytesMut;

/// Names for a request that came without: `X-Request-Id` and `traceparent`, drawn once, the same for all its attempts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ids {
    request: [u8; 32],
    /// `00-<trace>-<parent>-00`: the last two digits say that nobody has asked for this trace to be recorded.
    trace: [u8; 55],
}

impl Ids {
    pub(crate) fn new(dice: &mut Dice) -> Self {
        let mut ids = Self { request: [0; 32], trace: *b"00-00000000000000000000000000000000-0000000000000000-00" };
        hex(dice, &mut ids.request);
        ids.trace[3..35].copy_from_slice(&ids.request);
        hex(dice, &mut ids.trace[36..52]);
        ids
    }
    pub(crate) fn request(&self) -> &str {
        std::str::from_utf8(&self.request).unwrap_or_default()
    }
    fn trace(&self) -> &str {
        std::str::from_utf8(&self.trace).unwrap_or_default()
    }
}

/// Sixteen digits a draw. Never all zeros, which W3C trace context forbids.
fn hex(dice: &mut Dice, out: &mut [u8]) {
    for part in out.chunks_mut(16) {
        let bits = dice.next().max(1);
        for (i, digit) in part.iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(bits >> (60 - 4 * i)) as usize & 15];
        }
    }
}

/// Write a request's head for an endpoint.
/// `traced`: the span of this attempt, as `traceparent`.
pub(crate) fn encode(
    request: &RequestHead,
    guest: &Guest,
    route: &Route,
    (ids, traced): (&Ids, Option<&str>),
    http2: bool,
    endpoint: &str,
) -> BytesMut {
    let onward = Onward {
        client: guest.address,
        trusted: guest.trusted,
        https: guest.https,
        http2,
        request_id: ids.request(),
        traceparent: traced.unwrap_or(ids.trace()),
        traced: traced.is_some(),
        // We ask the client for its body ourselves, once there is an endpoint to give it to.
        expect: false,
        framing: request.framing,
        default_host: endpoint,
        headers: &route.request_headers,
        rewrite: route.rewrite.as_ref(),
    };
    let mut out = BytesMut::with_capacity(request.head.raw().len() + 512);
    forward::request(request, &onward, &mut out);
    out
}

/// The protocol name of a client's version.
pub(crate) fn protocol(version: Version) -> &'static str {
    match version {
        Version::Http10 => "HTTP/1.0",
        Version::Http11 => "HTTP/1.1",
        Version::Http2 => "HTTP/2",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_well_formed_and_differ() {
        let mut dice = Dice::new(7);
        let (a, b) = (Ids::new(&mut dice), Ids::new(&mut dice));
        assert_ne!(a.request(), b.request());
        let parts: Vec<&str> = a.trace().split('-').collect();
        assert_eq!(parts.iter().map(|p| p.len()).collect::<Vec<_>>(), [2, 32, 16, 2]);
        assert!(a.trace().bytes().all(|c| c == b'-' || c.is_ascii_hexdigit()));
    }
}
