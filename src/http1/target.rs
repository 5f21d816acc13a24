//! Request targets and authorities (RFC 9112 section 3.2, RFC 3986).
//!
//! A target is refused when the endpoint could read another path than the router did: illegal bytes,
//! encoded control characters, broken escapes in the path, dot segments. What is legal is passed on
//! byte for byte; nothing is decoded or normalised.

use super::Reject;
use super::bytes_class;
use super::head::Span;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// Where the parts of a target lie in the head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Target {
    /// Without query. Empty: an absolute form without a path, which means `/`.
    pub path: Span,
    /// Behind the `?`.
    pub query: Option<Span>,
    /// Of an absolute form.
    pub authority: Option<Span>,
    /// `*`.
    pub asterisk: bool,
}

/// Reads the target that lies at `from..to` of the head.
pub(super) fn parse(head: &[u8], from: usize, to: usize, options: bool) -> Result<Target, Reject> {
    let b = &head[..to];
    match b[from] {
        b'/' => path_and_query(b, from, None),
        b'*' if to == from + 1 && options => Ok(Target { path: Span::new(from, to), asterisk: true, ..Target::default() }),
        b'*' => Err(Reject::bad("* is a target for OPTIONS only")),
        _ => {
            let skip = scheme(&b[from..]).ok_or(Reject::bad("target is neither a path nor an http URI"))?;
            let start = from + skip;
            let len = b[start..].iter().position(|c| matches!(c, b'/' | b'?' | b'#')).unwrap_or(to - start);
            let authority = Span::new(start, start + len);
            if len == 0 {
                return Err(Reject::bad("target without an authority"));
            }
            if options && start + len == to {
                return Ok(Target { path: Span::new(to, to), query: None, authority: Some(authority), asterisk: true });
            }
            path_and_query(b, start + len, Some(authority))
        }
    }
}

/// The length of `http://` or `https://` at the front, in any case.
fn scheme(b: &[u8]) -> Option<usize> {
    ["http://", "https://"].iter().find(|s| b.get(..s.len()).is_some_and(|p| p.eq_ignore_ascii_case(s.as_bytes()))).map(|s| s.len())
}

fn path_and_query(b: &[u8], from: usize, authority: Option<Span>) -> Result<Target, Reject> {
    let mut at = from;
    let (mut escapes, mut dots) = (false, false);
    while at < b.len() && bytes_class::path(b[at]) {
        escapes |= b[at] == b'%';
        dots |= b[at] == b'.';
        at += 1;
    }
    let path = &b[from..at];
    if escapes {
        check_escapes(path)?;
    }
    if (dots || escapes) && path.split(|c| *c == b'/').any(dot_segment) {
        return Err(Reject::bad("dot segment in the path"));
    }
    let query = match b.get(at) {
        None => None,
        Some(b'?') => {
            if let Some(bad) = b[at + 1..].iter().find(|c| !bytes_class::query(**c)) {
                return Err(Reject::bad(if *bad == b'#' { "fragment in the target" } else { "illegal byte in the query" }));
            }
            Some(Span::new(at + 1, b.len()))
        }
        Some(b'#') => return Err(Reject::bad("fragment in the target")),
        Some(_) => return Err(Reject::bad("illegal byte in the path")),
    };
    Ok(Target { path: Span::new(from, at), query, authority, asterisk: false })
}

fn check_escapes(path: &[u8]) -> Result<(), Reject> {
    let mut rest = path;
    while let Some(at) = memchr::memchr(b'%', rest) {
        let value = rest.get(at + 1..at + 3).and_then(|h| std::str::from_utf8(h).ok()).filter(|h| h.bytes().all(|b| b.is_ascii_hexdigit()));
        match value.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            None => return Err(Reject::bad("broken escape in the path")),
            Some(0..0x20 | 0x7f) => return Err(Reject::bad("encoded control character in the path")),
            Some(_) => rest = &rest[at + 3..],
        }
    }
    Ok(())
}

/// `.` or `..`, also with encoded dots.
fn dot_segment(segment: &[u8]) -> bool {
    if segment.is_empty() || segment.len() > 6 {
        return false;
    }
    let (mut rest, mut dots) = (segment, 0);
    while !rest.is_empty() {
        let step = match rest {
            [b'.', ..] => 1,
            [b'%', b'2', b'e' | b'E', ..] => 3,
            _ => return false,
        };
        rest = &rest[step..];
        dots += 1;
    }
    dots <= 2
}

/// The host and the port of an authority: a name, an IPv4 address or `[IPv6]`, then an optional port. No user.
pub(super) fn authority(b: &[u8]) -> Option<(&[u8], Option<u16>)> {
    let end = match b {
        [b'[', inner @ ..] => {
            let close = inner.iter().position(|c| *c == b']')?;
            Ipv6Addr::from_str(std::str::from_utf8(&inner[..close]).ok()?).ok()?;
            close + 2
        }
        _ => b.iter().position(|c| !bytes_class::host(*c)).unwrap_or(b.len()),
    };
    let (host, rest) = b.split_at(end);
    let port = match rest {
        [] | [b':'] => None,
        [b':', digits @ ..] if digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit) => {
            Some(std::str::from_utf8(digits).ok()?.parse().ok()?)
        }
        _ => return None,
    };
    (!host.is_empty() && host.len() <= 255).then_some((host, port))
}
