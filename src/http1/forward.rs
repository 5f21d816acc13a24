//! What goes on: the request head for an endpoint and the answer's head for the client, each written
//! in one pass into one buffer.
//!
//! | field | towards the endpoint | towards the client |
//! |---|---|---|
//! | Connection and what it names, Keep-Alive, Proxy-Connection, HTTP2-Settings | gone | gone |
//! | Host, Cookie, Authorization and other fields meant for the endpoint, although Connection names them | kept | kept |
//! | Content-Length, Transfer-Encoding | written anew from the framing | likewise |
//! | Upgrade | with `Connection: upgrade`, where both were asked for | with 101 alone |
//! | TE | `trailers`, where asked for | gone |
//! | Via | one line more | one line more |
//! | X-Forwarded-For, -Proto, -Host, Forwarded, X-Real-IP | a stranger's are replaced or gone, a trusted proxy's kept and extended | kept |
//! | X-Request-Id, traceparent | kept, or added; traceparent replaced where the request is recorded | kept |

use super::head::{Field, Span};
use super::names::{Known, same};
use super::request::RequestHead;
use super::response::ResponseHead;
use super::{BodyFraming, Version};
use crate::model::policy::{HeaderOps, Rewrite};
use bytes::BufMut;
use std::net::IpAddr;

/// What the way to the endpoint adds to a request.
#[derive(Clone, Copy, Debug)]
pub struct Onward<'a> {
    /// Who sent it: the peer, or who the PROXY header says it is.
    pub client: IpAddr,
    /// What the peer says about others is believed (`trusted_proxies`).
    pub trusted: bool,
    /// It came over TLS.
    pub https: bool,
    /// It came over HTTP/2.
    pub http2: bool,
    /// For `X-Request-Id`, where the request has none.
    pub request_id: &'a [u8],
    /// For `traceparent`, where the request has none.
    pub traceparent: &'a [u8],
    /// The request is recorded: `traceparent` above replaces its own.
    pub traced: bool,
    /// Pass `Expect: 100-continue` on; false where the proxy itself asked for the body.
    pub expect: bool,
    /// How the body is sent; differs from the request's own framing where the body was read in full.
    pub framing: BodyFraming,
    /// The Host for requests that came without (HTTP/1.0): the endpoint's address.
    pub default_host: &'a str,
    /// The route's header changes.
    pub headers: &'a HeaderOps,
    /// The route's changes of host and path.
    pub rewrite: Option<&'a Rewrite>,
}

/// Writes the request head for an endpoint behind what is in `out`.
pub fn request(r: &RequestHead, o: &Onward<'_>, out: &mut impl BufMut) {
    let raw = &r.head.raw[..];
    out.put_slice(r.method_span.of(raw));
    out.put_u8(b' ');
    target(r, o.rewrite, out);
    let set_host = o.headers.set.iter().find(|(n, _)| n == http::header::HOST).map(|(_, v)| v.as_bytes());
    let host = set_host.or_else(|| o.rewrite?.host.as_deref().map(str::as_bytes)).unwrap_or_else(|| r.authority.of(raw));
    out.put_slice(b" HTTP/1.1\r\nHost: ");
    out.put_slice(if host.is_empty() { o.default_host.as_bytes() } else { host });
    out.put_slice(b"\r\n");

    let (mut request_id, mut traceparent) = (false, false);
    let plain = o.headers.is_empty();
    let mut lines = Lines::new(raw);
    for f in &r.head.fields {
        if f.gone || (!r.nominated.is_empty() && nominated(raw, &r.nominated, f)) {
            continue;
        }
        match f.known {
            Known::Other | Known::Date | Known::Trailer | Known::Via => {}
            Known::XRequestId => request_id = true,
            Known::Traceparent if o.traced => continue,
            Known::Traceparent => traceparent = true,
            Known::XRealIp if o.trusted => {}
            Known::Expect if o.expect && r.expect_continue => {}
            Known::MaxForwards if r.max_forwards.is_none() => {}
            _ => continue,
        }
        if plain || !changed(o.headers, r.head.name(f)) {
            lines.keep(f, out);
        }
    }
    lines.flush(out);
    for (name, value) in &r.head.added {
        if plain || !changed(o.headers, name) {
            field(out, name, value);
        }
    }
    let free = |name: &str| plain || !changed(o.headers, name.as_bytes());
    if free("via") {
        out.put_slice(match (o.http2, r.version) {
            (true, _) | (_, Version::Http2) => b"Via: 2 evenkeel\r\n",
            (_, Version::Http11) => b"Via: 1.1 evenkeel\r\n",
            (_, Version::Http10) => b"Via: 1.0 evenkeel\r\n",
        });
    }
    forwarded(r, o, out, free);
    if !request_id && !o.request_id.is_empty() && free("x-request-id") {
        field(out, b"X-Request-Id", o.request_id);
    }
    if !traceparent && !o.traceparent.is_empty() && free("traceparent") {
        field(out, b"traceparent", o.traceparent);
    }
    if let Some(n) = r.max_forwards {
        out.put_slice(b"Max-Forwards: ");
        number(out, u64::from(n.saturating_sub(1)));
        out.put_slice(b"\r\n");
    }
    match (r.upgrade, r.te_trailers) {
        (Some(u), _) => {
            out.put_slice(b"Connection: upgrade\r\n");
            field(out, b"Upgrade", u.of(raw));
        }
        (None, true) => out.put_slice(b"Connection: te\r\nTE: trailers\r\n"),
        (None, false) => {}
    }
    framing(out, o.framing);
    settings(o.headers, out);
    out.put_slice(b"\r\n");
}

/// Field lines on their way from one head to the next: neighbours that stay as they are go in one copy.
struct Lines<'a> {
    raw: &'a [u8],
    from: usize,
    to: usize,
}

impl<'a> Lines<'a> {
    fn new(raw: &'a [u8]) -> Self {
        Self { raw, from: 0, to: 0 }
    }
    /// Passes one on. White space around its value other than one blank before it stays behind.
    #[inline]
    fn keep(&mut self, f: &Field, out: &mut impl BufMut) {
        let (start, colon) = (f.name as usize, f.name as usize + f.name_len as usize);
        let (value, end) = (f.value as usize, (f.value + f.value_len) as usize);
        let as_it_is = value == colon + 2 && self.raw[colon + 1] == b' ' && self.raw[end] == b'\r';
        if as_it_is && start == self.to {
            self.to = end + 2;
            return;
        }
        self.flush(out);
        if as_it_is {
            (self.from, self.to) = (start, end + 2);
        } else {
            field(out, &self.raw[start..colon], &self.raw[value..end]);
        }
    }
    fn flush(&mut self, out: &mut impl BufMut) {
        out.put_slice(&self.raw[self.from..self.to]);
        (self.from, self.to) = (0, 0);
    }
}

fn target(r: &RequestHead, rewrite: Option<&Rewrite>, out: &mut impl BufMut) {
    let raw = &r.head.raw[..];
    match (rewrite, r.target.path) {
        (Some(w), _) if !r.target.asterisk => {
            let path = r.path();
            let kept = w.strip_prefix.as_deref().and_then(|p| stripped(path, p)).unwrap_or(path);
            let added = w.add_prefix.as_deref().unwrap_or_default();
            out.put_slice(added.strip_suffix('/').unwrap_or(added).as_bytes());
            if !kept.starts_with('/') {
                out.put_u8(b'/');
            }
            out.put_slice(kept.as_bytes());
        }
        (_, path) if path.len > 0 => out.put_slice(path.of(raw)),
        _ => out.put_slice(r.path().as_bytes()),
    }
    if let Some(q) = r.target.query {
        out.put_u8(b'?');
        out.put_slice(q.of(raw));
    }
}

/// What is left of a path when a prefix made of whole segments is taken off.
fn stripped<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/')).then_some(rest)
}

fn forwarded(r: &RequestHead, o: &Onward<'_>, out: &mut impl BufMut, free: impl Fn(&str) -> bool) {
    let proto = if o.https { "https" } else { "http" };
    let believed = |known| r.head.fields.iter().filter(move |f| o.trusted && f.known == known && !f.gone).map(|f| r.head.value(f));
    if free("x-forwarded-for") {
        out.put_slice(b"X-Forwarded-For: ");
        for before in believed(Known::XForwardedFor).filter(|v| !v.is_empty()) {
            out.put_slice(before);
            out.put_slice(b", ");
        }
        address(out, o.client);
        out.put_slice(b"\r\n");
    }
    if free("x-forwarded-proto") {
        field(out, b"X-Forwarded-Proto", believed(Known::XForwardedProto).next().unwrap_or(proto.as_bytes()));
    }
    let authority = r.authority.of(&r.head.raw);
    let host = believed(Known::XForwardedHost).next().unwrap_or(authority);
    if !host.is_empty() && free("x-forwarded-host") {
        field(out, b"X-Forwarded-Host", host);
    }
    if free("forwarded") && believed(Known::Forwarded).next().is_some() {
        out.put_slice(b"Forwarded: ");
        for before in believed(Known::Forwarded).filter(|v| !v.is_empty()) {
            out.put_slice(before);
            out.put_slice(b", ");
        }
        let last = match o.client {
            IpAddr::V4(a) => format!("for={a};proto={proto}\r\n"),
            IpAddr::V6(a) => format!("for=\"[{a}]\";proto={proto}\r\n"),
        };
        out.put_slice(last.as_bytes());
    }
}

/// `format!` costs several hundred instructions, and every request needs this.
fn address(out: &mut impl BufMut, a: IpAddr) {
    let IpAddr::V4(v4) = a.to_canonical() else {
        return out.put_slice(a.to_string().as_bytes());
    };
    let (mut text, mut n) = ([b'.'; 16], 0);
    for octet in v4.octets() {
        for (least, digit) in [(100, octet / 100), (10, octet / 10 % 10), (0, octet % 10)] {
            if octet >= least {
                text[n] = b'0' + digit;
                n += 1;
            }
        }
        n += 1; // the dot is there already
    }
    out.put_slice(&text[..n - 1]);
}

/// What the way to the client adds to an answer.
#[derive(Clone, Copy, Debug)]
pub struct Homeward<'a> {
    /// Of the client.
    pub version: Version,
    /// Whether client and proxy would keep the connection.
    pub keep_alive: bool,
    /// The route's header changes.
    pub headers: &'a HeaderOps,
    /// For `Evenkeel-Region`, where the operator wants it shown.
    pub region: Option<&'a str>,
}

/// How the answer travels to the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// For the [`Encoder`](super::Encoder).
    pub framing: BodyFraming,
    /// Whether the client's connection survives this answer.
    pub keep_alive: bool,
}

/// Writes the head of a final answer (or of 101) for an HTTP/1 client behind what is in `out`.
pub fn response(r: &ResponseHead, h: &Homeward<'_>, out: &mut impl BufMut) -> Delivery {
    status_line(r, out);
    let plain = h.headers.is_empty();
    let mut lines = Lines::new(&r.head.raw);
    r.head.fields.iter().filter(|f| goes_home(r, f, h.headers, plain)).for_each(|f| lines.keep(f, out));
    lines.flush(out);
    each_added_field(r, h.headers, plain, |name, value| field(out, name, value));
    if let Some(region) = h.region {
        field(out, b"Evenkeel-Region", region.as_bytes());
    }
    if r.status == 101 {
        out.put_slice(b"Connection: upgrade\r\n");
        for f in r.head.fields.iter().filter(|f| f.known == Known::Upgrade && !f.gone) {
            field(out, b"Upgrade", r.head.value(f));
        }
        out.put_slice(b"\r\n");
        return Delivery { framing: BodyFraming::None, keep_alive: false };
    }
    let old = h.version == Version::Http10;
    let delivered = match r.framing {
        BodyFraming::Chunked | BodyFraming::UntilClose if old => BodyFraming::UntilClose,
        // Chunked, so that a client can tell a broken answer from a complete one, and keeps its connection.
        BodyFraming::UntilClose => BodyFraming::Chunked,
        f => f,
    };
    match (delivered, r.length) {
        (BodyFraming::None, Some(n)) if r.status >= 200 && r.status != 204 => framing(out, BodyFraming::Length(n)),
        _ => framing(out, delivered),
    }
    let keep_alive = h.keep_alive && delivered != BodyFraming::UntilClose;
    match (keep_alive, old) {
        (false, _) => out.put_slice(b"Connection: close\r\n"),
        (true, true) => out.put_slice(b"Connection: keep-alive\r\n"),
        (true, false) => {}
    }
    out.put_slice(b"\r\n");
    Delivery { framing: delivered, keep_alive }
}

/// Writes the head of an interim answer behind what is in `out`. Not for HTTP/1.0 clients, who know none.
pub fn interim(r: &ResponseHead, out: &mut impl BufMut) {
    status_line(r, out);
    each_response_field(r, &HeaderOps::default(), |name, value| field(out, name, value));
    out.put_slice(b"\r\n");
}

/// Every field of an answer that goes on to the client, `Via` and the route's changes included; framing and
/// connection handling left out. For HTTP/2 clients, names are to be put in lower case.
pub fn each_response_field(r: &ResponseHead, ops: &HeaderOps, mut f: impl FnMut(&[u8], &[u8])) {
    let plain = ops.is_empty();
    for x in r.head.fields.iter().filter(|x| goes_home(r, x, ops, plain)) {
        f(r.head.name(x), r.head.value(x));
    }
    each_added_field(r, ops, plain, f);
}

/// Whether a field of an answer goes on to the client as it is.
#[inline]
fn goes_home(r: &ResponseHead, x: &Field, ops: &HeaderOps, plain: bool) -> bool {
    let hop = matches!(
        x.known,
        Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::ContentLength
            | Known::TransferEncoding
            | Known::Upgrade
            | Known::Te
            | Known::Http2Settings
    );
    !hop && !x.gone && (r.nominated.is_empty() || !nominated(&r.head.raw, &r.nominated, x)) && (plain || !changed(ops, r.head.name(x)))
}

fn each_added_field(r: &ResponseHead, ops: &HeaderOps, plain: bool, mut f: impl FnMut(&[u8], &[u8])) {
    for (name, value) in r.head.added.iter().filter(|(n, _)| plain || !changed(ops, n)) {
        f(name, value);
    }
    if r.status >= 200 && (plain || !changed(ops, b"via")) {
        f(
            b"Via",
            match r.version {
                Version::Http10 => b"1.0 evenkeel",
                Version::Http11 => b"1.1 evenkeel",
                Version::Http2 => b"2 evenkeel",
            },
        );
    }
    for (name, value) in ops.set.iter().filter(|(n, _)| settable(n)) {
        f(name.as_str().as_bytes(), value.as_bytes());
    }
}

fn status_line(r: &ResponseHead, out: &mut impl BufMut) {
    out.put_slice(b"HTTP/1.1 ");
    number(out, u64::from(r.status));
    out.put_u8(b' ');
    out.put_slice(r.reason());
    out.put_slice(b"\r\n");
}

/// Whether `Connection` takes this field away. It may name what concerns the next hop, not what the endpoint needs.
fn nominated(raw: &[u8], names: &[Span], f: &Field) -> bool {
    let name = &raw[f.name as usize..f.name as usize + f.name_len as usize];
    let protected = f.known.frames()
        || matches!(f.known, Known::Via | Known::XForwardedFor | Known::XForwardedHost | Known::XForwardedProto | Known::Forwarded)
        || matches!(f.known, Known::XRequestId | Known::Traceparent | Known::Date | Known::Expect | Known::MaxForwards)
        || [&b"authorization"[..], b"cookie", b"set-cookie", b"cache-control"].iter().any(|p| same(name, p));
    !protected && names.iter().any(|n| n.of(raw).eq_ignore_ascii_case(name))
}

/// Whether the route removes or replaces this field.
fn changed(ops: &HeaderOps, name: &[u8]) -> bool {
    ops.remove.iter().chain(ops.set.iter().map(|(n, _)| n)).any(|n| same(name, n.as_str().as_bytes()))
}

fn settings(ops: &HeaderOps, out: &mut impl BufMut) {
    for (name, value) in ops.set.iter().filter(|(n, _)| settable(n)) {
        field(out, name.as_str().as_bytes(), value.as_bytes());
    }
}

/// A route may not set what the codec alone knows: framing, connection handling, and Host (which it sets elsewhere).
fn settable(name: &http::HeaderName) -> bool {
    let known = Known::of(name.as_str().as_bytes());
    !known.frames() && !matches!(known, Known::Connection | Known::Upgrade | Known::Te | Known::KeepAlive)
}

fn framing(out: &mut impl BufMut, framing: BodyFraming) {
    match framing {
        BodyFraming::Length(n) => {
            out.put_slice(b"Content-Length: ");
            number(out, n);
            out.put_slice(b"\r\n");
        }
        BodyFraming::Chunked => out.put_slice(b"Transfer-Encoding: chunked\r\n"),
        BodyFraming::None | BodyFraming::UntilClose => {}
    }
}

/// Writes one field line.
#[inline]
pub fn field(out: &mut impl BufMut, name: &[u8], value: &[u8]) {
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

/// Decimal digits without the formatting machinery.
pub(super) fn number(out: &mut impl BufMut, mut n: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
}
