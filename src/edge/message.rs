//! What goes to an endpoint: the request's head as it is written there.

use super::connection::Guest;
use crate::http1::forward::{self, Onward};
use crate::http1::{RequestHead, Version};
use crate::model::dice::Dice;
use crate::model::policy::Route;
use crate::upstream::spare;

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
}

/// Sixteen digits a draw. Never all zeros, which W3C trace context forbids.
fn hex(dice: &mut Dice, out: &mut [u8]) {
    for part in out.chunks_exact_mut(16) {
        let bits = dice.next().max(1);
        part[..8].copy_from_slice(&digits((bits >> 32) as u32));
        part[8..].copy_from_slice(&digits(bits as u32));
    }
}

/// Eight hexadecimal digits, all at once: each half byte gets a byte of its own, and those above nine are lifted from `:` to `a`.
fn digits(bits: u32) -> [u8; 8] {
    let mut x = u64::from(bits);
    x = (x | x << 16) & 0x0000_FFFF_0000_FFFF;
    x = (x | x << 8) & 0x00FF_00FF_00FF_00FF;
    x = (x | x << 4) & 0x0F0F_0F0F_0F0F_0F0F;
    let letters = (x + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    (x + 0x3030_3030_3030_3030 + letters * 0x27).to_be_bytes()
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
) -> Vec<u8> {
    let onward = Onward {
        client: guest.address,
        trusted: guest.trusted,
        https: guest.https,
        http2,
        request_id: &ids.request,
        traceparent: traced.map_or(&ids.trace[..], str::as_bytes),
        traced: traced.is_some(),
        // We ask the client for its body ourselves, once there is an endpoint to give it to.
        expect: false,
        framing: request.framing,
        default_host: endpoint,
        headers: &route.request_headers,
        rewrite: route.rewrite.as_ref(),
    };
    let mut out = spare::take();
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
    fn digits_are_hexadecimal() {
        let mut dice = Dice::new(1);
        for bits in [0, u32::MAX, 0x0123_4567, 0x89AB_CDEF].into_iter().chain((0..1000).map(|_| dice.next() as u32)) {
            assert_eq!(std::str::from_utf8(&digits(bits)).unwrap(), format!("{bits:08x}"));
        }
    }

    #[test]
    fn ids_are_well_formed_and_differ() {
        let mut dice = Dice::new(7);
        let (a, b) = (Ids::new(&mut dice), Ids::new(&mut dice));
        assert_ne!(a.request(), b.request());
        let trace = std::str::from_utf8(&a.trace).unwrap();
        let parts: Vec<&str> = trace.split('-').collect();
        assert_eq!(parts.iter().map(|p| p.len()).collect::<Vec<_>>(), [2, 32, 16, 2]);
        assert!(trace.bytes().all(|c| c == b'-' || c.is_ascii_hexdigit()));
    }
}
