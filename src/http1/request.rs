//! Requests: one strict reading, or a refusal.

use super::bytes_class::{token, value_end};
use super::fields::{self, Connection, Fault};
use super::head::{Field, Head, Span};
use super::names::Known;
use super::target::{self, Target};
use super::{BodyFraming, Reject, Version};
use crate::model::topology::Limits;
use crate::model::view::RequestFacts;
use bytes::BytesMut;
use smallvec::SmallVec;

/// The longest method in the IANA registry has 17 letters.
const METHOD_BYTES: usize = 32;

/// Methods that are treated differently; all others are writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// OPTIONS.
    Options,
    /// TRACE.
    Trace,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// DELETE.
    Delete,
    /// Any other.
    Other,
}

impl Method {
    fn of(text: &[u8]) -> Self {
        match text {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            _ => Self::Other,
        }
    }
    /// GET, HEAD, OPTIONS or TRACE: may be repeated at will.
    pub fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options | Self::Trace)
    }
}

/// A request head that was understood in full.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// The method; [`RequestHead::method_text`] has its letters.
    pub method: Method,
    /// Of the client.
    pub version: Version,
    /// How its body ends.
    pub framing: BodyFraming,
    /// Whether the client would keep the connection.
    pub keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
    /// Of TRACE and OPTIONS. At zero the request must be answered here (RFC 9110 section 7.6.2).
    pub max_forwards: Option<u32>,
    /// Its fields.
    pub head: Head,
    pub(super) method_span: Span,
    pub(super) target: Target,
    /// As received; empty where an HTTP/1.0 client named none.
    pub(super) authority: Span,
    pub(super) host: Host,
    pub(super) port: Option<u16>,
    pub(super) upgrade: Option<Span>,
    pub(super) te_trailers: bool,
    /// Names that `Connection` takes away.
    pub(super) nominated: SmallVec<[Span; 2]>,
}

#[derive(Clone, Debug)]
pub(super) enum Host {
    AsReceived(Span),
    Lowered(Box<str>),
}

impl RequestHead {
    /// The method as received.
    pub fn method_text(&self) -> &str {
        match self.method {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Options => "OPTIONS",
            Method::Trace => "TRACE",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Other => self.method_span.text(&self.head.raw),
        }
    }
    /// The path without query; `*` for `OPTIONS *`.
    pub fn path(&self) -> &str {
        match self.target.path.text(&self.head.raw) {
            "" if self.target.asterisk => "*",
            "" => "/",
            p => p,
        }
    }
    /// The path as it stands in the target; empty where that has none.
    pub fn path_bytes(&self) -> &[u8] {
        self.target.path.of(&self.head.raw)
    }
    /// What follows the `?`.
    pub fn query(&self) -> Option<&str> {
        self.target.query.map(|q| q.text(&self.head.raw))
    }
    /// The host in lower case, without port and without a final dot; empty where an HTTP/1.0 client named none.
    pub fn host(&self) -> &str {
        match &self.host {
            Host::AsReceived(s) => s.text(&self.head.raw),
            Host::Lowered(h) => h,
        }
    }
    /// The port the client named beside the host.
    pub fn port(&self) -> Option<u16> {
        self.port
    }
    /// Host and port as received; empty where an HTTP/1.0 client named none.
    pub fn authority(&self) -> &str {
        self.authority.text(&self.head.raw)
    }
    /// The protocols the client offers to switch to. Only where `Connection` says so, too, the request has
    /// no body, and `h2c` is not among them.
    pub fn upgrade(&self) -> Option<&str> {
        self.upgrade.map(|u| u.text(&self.head.raw))
    }
    /// Whether `TE` says that the client takes trailers.
    pub fn wants_trailers(&self) -> bool {
        self.te_trailers
    }
    /// What routing looks at.
    pub fn facts(&self) -> RequestFacts<'_> {
        RequestFacts { method: self.method_text(), host: self.host(), path: self.path(), headers: &self.head }
    }
}

/// Reads one request head after the other from a connection's buffer.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestParser {
    /// Bytes that were looked at without finding the end.
    seen: usize,
}

impl RequestParser {
    /// Takes a complete head off the front of `buf`. `Ok(None)`: read more; what is there is right so far.
    /// After a refusal the connection must be closed: where the next request begins is not known.
    pub fn parse(&mut self, buf: &mut BytesMut, limits: &Limits) -> Result<Option<RequestHead>, Reject> {
        if nothing_new(buf, &mut self.seen) {
            return if buf.len() > limits.header_bytes { Err(too_large(buf, limits)) } else { Ok(None) };
        }
        let mut fields = Vec::new();
        let end = match read_lines(buf, limits, &mut fields)? {
            Some((line, end)) if end <= limits.header_bytes => (line, end),
            None if buf.len() <= limits.header_bytes => return Ok(None),
            _ => return Err(too_large(buf, limits)),
        };
        let (line, end) = end;
        self.seen = 0;
        let head = Head { raw: buf.split_to(end).freeze(), fields, added: Vec::new() };
        understand(line, head).map(Some)
    }
}

/// A head that drips in is read again only when a line may be complete, so that the work stays linear in lines.
pub(super) fn nothing_new(buf: &[u8], seen: &mut usize) -> bool {
    let before = std::mem::replace(seen, buf.len());
    buf.is_empty() || (0 < before && before <= buf.len() && value_end(buf, before - 1) == buf.len())
}

const TOO_LARGE: Reject = Reject { status: 431, why: "request head too large" };
const URI_TOO_LONG: Reject = Reject { status: 414, why: "request target too long" };

fn too_large(buf: &[u8], limits: &Limits) -> Reject {
    match memchr::memchr(b'\n', &buf[..buf.len().min(limits.uri_bytes + METHOD_BYTES)]) {
        None => URI_TOO_LONG,
        Some(_) => TOO_LARGE,
    }
}

struct Line {
    method: Span,
    target: (usize, usize),
    version: Version,
}

fn read_lines(b: &[u8], limits: &Limits, fields: &mut Vec<Field>) -> Result<Option<(Line, usize)>, Reject> {
    // One empty line before a request is forgiven (RFC 9112 section 2.2); browsers of old sent one after a POST.
    let start = if b.starts_with(b"\r\n") { 2 } else { 0 };
    if b == b"\r" {
        return Ok(None);
    }
    let Some((line, at)) = request_line(b, start, limits)? else { return Ok(None) };
    fields.reserve(fields::USUAL);
    match fields::section(b, at, limits.header_count, fields) {
        Ok(end) => Ok(end.map(|e| (line, e))),
        Err(Fault::TooMany) => Err(Reject { status: 431, why: "too many header fields" }),
        Err(Fault::Syntax(why)) => Err(Reject::bad(why)),
    }
}

fn request_line(b: &[u8], start: usize, limits: &Limits) -> Result<Option<(Line, usize)>, Reject> {
    let mut at = start;
    while at < b.len() && token(b[at]) {
        at += 1;
    }
    if at - start > METHOD_BYTES {
        return Err(Reject::bad("method too long"));
    }
    match b.get(at) {
        None => return Ok(None),
        Some(b' ') if at > start => {}
        Some(_) => return Err(Reject::bad("request line does not begin with a method")),
    }
    let method = Span::new(start, at);
    let from = at + 1;
    at = from;
    while at < b.len() && matches!(b[at], 0x21..=0x7e) {
        at += 1;
    }
    if at - from > limits.uri_bytes {
        return Err(URI_TOO_LONG);
    }
    match b.get(at) {
        None => return Ok(None),
        Some(b' ') if at > from => {}
        Some(_) => return Err(Reject::bad("illegal byte in the request line, or a part of it is missing")),
    }
    let rest = &b[at + 1..];
    let version = match rest.get(..10) {
        Some(b"HTTP/1.1\r\n") => Version::Http11,
        Some(b"HTTP/1.0\r\n") => Version::Http10,
        Some([b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9', b'\r', b'\n']) => {
            return Err(Reject { status: 505, why: "only HTTP/1.0 and HTTP/1.1 are spoken here" });
        }
        None if !rest.contains(&b'\n') && b"HTTP/".iter().zip(rest).all(|(a, b)| a == b) => return Ok(None),
        _ => return Err(Reject::bad("malformed version")),
    };
    Ok(Some((Line { method, target: (from, at), version }, at + 11)))
}

/// What the fields say about the message itself.
#[derive(Default)]
struct Said {
    length: Option<u64>,
    chunked: bool,
    host: Option<Span>,
    connection: Connection,
    upgrade: Option<Span>,
    te_trailers: bool,
    expect: bool,
    max_forwards: Option<u32>,
}

fn understand(line: Line, head: Head) -> Result<RequestHead, Reject> {
    let raw = &head.raw[..];
    let method = Method::of(line.method.of(raw));
    if line.method.of(raw) == b"CONNECT" {
        return Err(Reject { status: 405, why: "CONNECT is not offered here" });
    }
    let target = target::parse(raw, line.target.0, line.target.1, method == Method::Options)?;
    let said = read_fields(&head, method)?;
    let old = line.version == Version::Http10;
    let framing = match (said.chunked, said.length) {
        (true, Some(_)) => return Err(Reject::bad("both Content-Length and Transfer-Encoding")),
        (true, None) if old => return Err(Reject::bad("Transfer-Encoding in HTTP/1.0")),
        (true, None) => BodyFraming::Chunked,
        (false, Some(n)) => BodyFraming::Length(n),
        (false, None) => BodyFraming::None,
    };
    if method == Method::Trace && framing != BodyFraming::None {
        return Err(Reject::bad("TRACE with a body"));
    }
    let host_field = match said.host {
        None if old => Span::default(),
        None => return Err(Reject::bad("no Host")),
        // An empty one is only right for targets without an authority, and http has none of these.
        Some(h) if h.len == 0 && !old && target.authority.is_none() => return Err(Reject::bad("empty Host")),
        Some(h) => h,
    };
    // Its own says where an absolute form goes; the field must be sound all the same.
    if target.authority.is_some() {
        host_and_port(raw, host_field)?;
    }
    let authority = target.authority.unwrap_or(host_field);
    let (host, port) = host_and_port(raw, authority)?;
    let body = framing != BodyFraming::None && framing != BodyFraming::Length(0);
    let upgrade = said.upgrade.filter(|u| said.connection.upgrade && !old && !body && !offers_h2c(u.of(raw)));
    Ok(RequestHead {
        method,
        version: line.version,
        framing,
        keep_alive: !said.connection.close && (!old || said.connection.keep_alive),
        expect_continue: said.expect && !old && body,
        max_forwards: said.max_forwards,
        method_span: line.method,
        target,
        authority,
        host,
        port,
        upgrade,
        te_trailers: said.te_trailers && !old,
        nominated: said.connection.nominated,
        head,
    })
}

fn read_fields(head: &Head, method: Method) -> Result<Said, Reject> {
    let raw = &head.raw[..];
    let mut said = Said::default();
    for f in head.fields.iter().filter(|f| f.known != Known::Other) {
        let value = head.value(f);
        if f.known.frames() && head.name(f).contains(&b'_') {
            return Err(Reject::bad("disguised framing field"));
        }
        let span = Span { at: f.value, len: f.value_len };
        match f.known {
            Known::Host if said.host.replace(span).is_some() => return Err(Reject::bad("more than one Host")),
            Known::ContentLength => {
                let n = fields::length(value).ok_or(Reject::bad("malformed Content-Length"))?;
                if said.length.replace(n).is_some() {
                    return Err(Reject::bad("more than one Content-Length"));
                }
            }
            Known::TransferEncoding => {
                if said.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Reject { status: 501, why: "Transfer-Encoding other than chunked" });
                }
                said.chunked = true;
            }
            Known::Connection => said.connection.read(raw, span).map_err(|()| Reject::bad("too many connection options"))?,
            Known::Upgrade => said.upgrade = Some(span),
            Known::Te => said.te_trailers |= fields::list(value).any(|t| t.eq_ignore_ascii_case(b"trailers")),
            Known::Expect => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Reject { status: 417, why: "unknown expectation" });
                }
                said.expect = true;
            }
            Known::MaxForwards if matches!(method, Method::Trace | Method::Options) => {
                let n = fields::length(value).ok_or(Reject::bad("malformed Max-Forwards"))?;
                said.max_forwards = Some(n.min(u64::from(u32::MAX)) as u32);
            }
            _ => {}
        }
    }
    Ok(said)
}

fn offers_h2c(upgrade: &[u8]) -> bool {
    fields::list(upgrade).any(|p| p.len() >= 3 && p[..3].eq_ignore_ascii_case(b"h2c"))
}

fn host_and_port(raw: &[u8], authority: Span) -> Result<(Host, Option<u16>), Reject> {
    if authority.len == 0 {
        return Ok((Host::AsReceived(Span::default()), None));
    }
    let (host, port) = target::authority(authority.of(raw)).ok_or(Reject::bad("malformed Host, or authority in the target"))?;
    let host = host.strip_suffix(b".").filter(|h| !h.is_empty()).unwrap_or(host);
    let host = if host.iter().any(u8::is_ascii_uppercase) {
        Host::Lowered(String::from_utf8_lossy(host).to_ascii_lowercase().into())
    } else {
        Host::AsReceived(Span { at: authority.at, len: host.len() as u32 })
    };
    Ok((host, port))
}
