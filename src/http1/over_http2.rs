//! Messages to and from HTTP/2 endpoints. What goes there is translated from the HTTP/1.1 head that was written for them; what comes back
//! is written down as HTTP/1.1 and read by the one strict parser. Trailers, which both sides have, pass in both directions.

use super::forward::field;
use super::head::Head;
use super::names::Known;
use super::response::{ResponseHead, ResponseParser};
use super::{BadResponse, Version};
use bytes::{BufMut, Bytes, BytesMut};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};

/// Translates a request head that [`forward::request`](super::forward::request) wrote. Never fails: what `http` is stricter about
/// than our own parser is escaped (bytes of a target), or left out (bytes of a field).
pub fn to_http2(head: &[u8], https: bool) -> Request<()> {
    let mut lines = head.split(|b| *b == b'\n').map(|l| l.strip_suffix(b"\r").unwrap_or(l)).take_while(|l| !l.is_empty());
    let mut first = lines.next().unwrap_or_default().split(|b| *b == b' ');
    let (method, target) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(method).unwrap_or_default();
    *request.version_mut() = http::Version::HTTP_2;
    let mut authority = None;
    let headers = request.headers_mut();
    headers.reserve(24);
    for line in lines {
        let Some(colon) = line.iter().position(|b| *b == b':').filter(|at| *at > 0) else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        match Known::of(name) {
            Known::Host if authority.is_none() => {
                authority = Authority::try_from(value).ok().or_else(|| {
                    add(headers, name, value);
                    None
                })
            }
            Known::Connection | Known::Upgrade | Known::TransferEncoding | Known::KeepAlive | Known::ProxyConnection => {}
            _ => add(headers, name, value),
        }
    }
    let mut uri = http::uri::Parts::default();
    uri.path_and_query = Some(path(target));
    if let Some(authority) = authority {
        uri.authority = Some(authority);
        uri.scheme = Some(if https { Scheme::HTTPS } else { Scheme::HTTP });
    }
    *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
    request
}

fn path(target: &[u8]) -> PathAndQuery {
    PathAndQuery::try_from(target).unwrap_or_else(|_| {
        let mut escaped = String::with_capacity(target.len() + 16);
        for b in target {
            match b {
                b'!' | b'$'..=b';' | b'=' | b'?'..=b'_' | b'a'..=b'z' | b'|' | b'~' => escaped.push(char::from(*b)),
                _ => escaped.push_str(&format!("%{b:02X}")),
            }
        }
        PathAndQuery::try_from(escaped).unwrap_or_else(|_| PathAndQuery::from_static("/"))
    })
}

/// Understands the head of an answer that came over HTTP/2. `ended`: END_STREAM came with it; `is_head`: HEAD was asked.
pub fn answer_from_http2(parts: &http::response::Parts, ended: bool, is_head: bool) -> Result<ResponseHead, BadResponse> {
    let mut out = BytesMut::with_capacity(512);
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(parts.status.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(parts.status.canonical_reason().unwrap_or_default().as_bytes());
    out.put_slice(b"\r\n");
    // Whatever else would frame the answer in HTTP/1.1 was refused by the protocol library.
    for (name, value) in
        parts.headers.iter().filter(|(n, _)| !matches!(Known::of(n.as_str().as_bytes()), Known::Te | Known::TransferEncoding))
    {
        field(&mut out, name.as_str().as_bytes(), value.as_bytes());
    }
    let bodiless = is_head || parts.status.is_informational() || matches!(parts.status.as_u16(), 204 | 304);
    if !bodiless && !parts.headers.contains_key(http::header::CONTENT_LENGTH) {
        // In gRPC an answer without a body is one of trailers alone, and has no length either.
        let empty = ended && !parts.headers.contains_key("grpc-status");
        out.put_slice(if empty { b"content-length: 0\r\n" } else { b"transfer-encoding: chunked\r\n" });
    }
    out.put_slice(b"\r\n");
    let mut head = ResponseParser::new(is_head, false).parse(&mut out)?.ok_or(BadResponse("malformed answer"))?;
    head.version = Version::Http2;
    head.keep_alive = true;
    Ok(head)
}

/// Trailers as HTTP/2 carries them.
pub fn trailers_to_http2(trailers: &Head) -> HeaderMap {
    let mut map = HeaderMap::new();
    trailers.iter().for_each(|(name, value)| add(&mut map, name, value));
    map
}

/// Trailers that came over HTTP/2. What may not stand there (RFC 9110 section 6.5.1: whatever frames, routes or
/// authenticates) is left out.
pub fn trailers_from_http2(trailers: &HeaderMap) -> Head {
    const FORBIDDEN: [&str; 14] = [
        "connection",
        "content-length",
        "transfer-encoding",
        "host",
        "upgrade",
        "te",
        "trailer",
        "expect",
        "authorization",
        "cookie",
        "via",
        "max-forwards",
        "forwarded",
        "keep-alive",
    ];
    let mut head = Head::default();
    for (name, value) in trailers.iter().filter(|(n, _)| !FORBIDDEN.contains(&n.as_str()) && !n.as_str().starts_with("x-forwarded")) {
        head.append(Bytes::copy_from_slice(name.as_str().as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
    }
    head
}

/// Adds a field that the strict parser has let through. Where `http` is stricter still, it is left out.
pub fn add(headers: &mut HeaderMap, name: &[u8], value: &[u8]) {
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
        headers.append(name, value);
    }
}
