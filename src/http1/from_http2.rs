//! HTTP/2 requests on the way to HTTP/1.1 endpoints: written down as HTTP/1.1, then read by the one
//! strict parser, so that nothing passes over HTTP/2 that would be refused over HTTP/1.1.

use super::forward::field;
use super::request::{RequestHead, RequestParser};
use super::{BodyFraming, Reject};
use crate::model::topology::Limits;
use bytes::{BufMut, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, TRANSFER_ENCODING, UPGRADE};

/// Understands the head of an HTTP/2 request. `ended`: END_STREAM came with it. A body without a length is
/// sent on in chunks.
pub fn from_http2(parts: &http::request::Parts, ended: bool, limits: &Limits) -> Result<RequestHead, Reject> {
    let fields = &parts.headers;
    if [TRANSFER_ENCODING, CONNECTION, UPGRADE].iter().any(|n| fields.contains_key(n)) {
        return Err(Reject::bad("connection-specific field in HTTP/2"));
    }
    if fields.get_all(HOST).iter().nth(1).is_some() {
        return Err(Reject::bad("more than one Host"));
    }
    if fields.values().any(|v| v.as_bytes().first().is_some_and(blank) || v.as_bytes().last().is_some_and(blank)) {
        // RFC 9113 section 8.2.1; HTTP/1.1 would trim it, and two readers would see two values.
        return Err(Reject::bad("white space around a field value"));
    }
    let named = fields.get(HOST).map(|h| h.as_bytes());
    let authority = parts.uri.authority().map(|a| a.as_str().as_bytes());
    if let (Some(h), Some(a)) = (named, authority)
        && !h.eq_ignore_ascii_case(a)
    {
        return Err(Reject::bad("Host differs from :authority"));
    }
    let mut out = BytesMut::with_capacity(1024);
    out.put_slice(parts.method.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(parts.uri.path_and_query().map_or("/", |p| p.as_str()).as_bytes());
    out.put_slice(b" HTTP/1.1\r\n");
    field(&mut out, b"Host", authority.or(named).unwrap_or_default());
    for (name, value) in fields.iter().filter(|(n, _)| !matches!(**n, HOST | COOKIE | EXPECT)) {
        field(&mut out, name.as_str().as_bytes(), value.as_bytes());
    }
    // Crumbs become one line again (RFC 9113 section 8.2.3).
    let mut cookies = fields.get_all(COOKIE).iter();
    if let Some(first) = cookies.next() {
        out.put_slice(b"cookie: ");
        out.put_slice(first.as_bytes());
        for crumb in cookies {
            out.put_slice(b"; ");
            out.put_slice(crumb.as_bytes());
        }
        out.put_slice(b"\r\n");
    }
    if !ended && !fields.contains_key(CONTENT_LENGTH) {
        out.put_slice(b"transfer-encoding: chunked\r\n");
    }
    out.put_slice(b"\r\n");
    let mut head = RequestParser::default().parse(&mut out, limits)?.filter(|_| out.is_empty()).ok_or(Reject::bad("malformed request"))?;
    if ended && matches!(head.framing, BodyFraming::Length(1..)) {
        return Err(Reject::bad("no body, but a Content-Length"));
    }
    head.keep_alive = true;
    Ok(head)
}

fn blank(b: &u8) -> bool {
    matches!(b, b' ' | b'\t')
}
