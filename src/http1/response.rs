//! Answers of endpoints: one strict reading, or an error that makes the attempt fail.
//!
//! An endpoint is trusted to mean well, not to be sound: whoever reaches it may have found a way to
//! make it write what a second parser reads differently. Bounds are fixed, not configured: no answer
//! in earnest has a head of 64 KiB, 200 fields or more than a handful of interim answers.

use super::fields::{self, Connection, Fault};
use super::head::{Head, Span};
use super::names::Known;
use super::request::nothing_new;
use super::{BadResponse, BodyFraming, Version};
use bytes::BytesMut;
use smallvec::SmallVec;

/// Bytes of one head.
const HEAD_BYTES: usize = 64 << 10;
/// Fields of one head.
const FIELDS: usize = 200;
/// Interim answers before the final one.
const INTERIM: u32 = 32;

/// An answer's head that was understood in full.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// 100 to 999; below 200 it is an interim answer, and another head follows (but not after 101).
    pub status: u16,
    /// Of the endpoint.
    pub version: Version,
    /// How its body ends. [`BodyFraming::None`] where the request or the status says there is no body,
    /// whatever the fields say.
    pub framing: BodyFraming,
    /// Whether the endpoint would keep the connection.
    pub keep_alive: bool,
    /// `Content-Length`, also where there is no body (HEAD, 304).
    pub length: Option<u64>,
    /// Its fields.
    pub head: Head,
    pub(super) reason: Span,
    pub(super) nominated: SmallVec<[Span; 2]>,
}

impl ResponseHead {
    /// The reason phrase, possibly empty.
    pub fn reason(&self) -> &[u8] {
        self.reason.of(&self.head.raw)
    }
    /// Whether another head follows.
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }
}

/// Reads the answers to one request.
#[derive(Clone, Copy, Debug)]
pub struct ResponseParser {
    head_request: bool,
    upgrade_asked: bool,
    seen: usize,
    interim: u32,
}

impl ResponseParser {
    /// For the answers to a request. `upgrade_asked`: it went out with `Connection: upgrade`.
    pub fn new(head_request: bool, upgrade_asked: bool) -> Self {
        Self { head_request, upgrade_asked, seen: 0, interim: 0 }
    }

    /// Takes a complete head off the front of `buf`. `Ok(None)`: read more.
    pub fn parse(&mut self, buf: &mut BytesMut) -> Result<Option<ResponseHead>, BadResponse> {
        if nothing_new(buf, &mut self.seen) {
            return if buf.len() > HEAD_BYTES { Err(TOO_LARGE) } else { Ok(None) };
        }
        let Some((version, status, reason, at)) = status_line(buf)? else { return Ok(None) };
        let mut fields = Vec::with_capacity(fields::USUAL);
        let end = match fields::section(buf, at, FIELDS, &mut fields) {
            Ok(Some(end)) if end <= HEAD_BYTES => end,
            Ok(None) if buf.len() <= HEAD_BYTES => return Ok(None),
            Ok(_) | Err(Fault::TooMany) => return Err(TOO_LARGE),
            Err(Fault::Syntax(why)) => return Err(BadResponse(why)),
        };
        self.seen = 0;
        let head = Head { raw: buf.split_to(end).freeze(), fields, added: Vec::new() };
        let head = self.understand(version, status, reason, head)?;
        if head.is_interim() {
            self.interim += 1;
            if self.interim > INTERIM {
                return Err(BadResponse("too many interim answers"));
            }
        }
        Ok(Some(head))
    }

    fn understand(&self, version: Version, status: u16, reason: Span, head: Head) -> Result<ResponseHead, BadResponse> {
        let (mut length, mut chunked, mut connection) = (None, false, Connection::default());
        for f in head.fields.iter().filter(|f| f.known != Known::Other) {
            let value = head.value(f);
            match f.known {
                Known::ContentLength | Known::TransferEncoding if head.name(f).contains(&b'_') => {}
                Known::ContentLength => {
                    let n = fields::length(value).ok_or(BadResponse("malformed Content-Length"))?;
                    // Equal ones collapse into one on the way out (RFC 9110 section 8.6).
                    if length.replace(n).is_some_and(|before| before != n) {
                        return Err(BadResponse("two different Content-Lengths"));
                    }
                }
                Known::TransferEncoding => {
                    if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(BadResponse("Transfer-Encoding other than chunked"));
                    }
                    chunked = true;
                }
                Known::Connection => {
                    let span = Span { at: f.value, len: f.value_len };
                    connection.read(&head.raw, span).map_err(|()| BadResponse("too many connection options"))?;
                }
                _ => {}
            }
        }
        let old = version == Version::Http10;
        if chunked && length.is_some() {
            return Err(BadResponse("both Content-Length and Transfer-Encoding"));
        }
        if chunked && old {
            return Err(BadResponse("Transfer-Encoding in HTTP/1.0"));
        }
        if status < 200 && old {
            return Err(BadResponse("interim answer in HTTP/1.0"));
        }
        if status == 101 && !(self.upgrade_asked && connection.upgrade) {
            return Err(BadResponse("101 without having been asked"));
        }
        let framing = match (status, chunked, length) {
            (..200 | 204 | 304, ..) => BodyFraming::None,
            _ if self.head_request => BodyFraming::None,
            (_, true, _) => BodyFraming::Chunked,
            (_, _, Some(n)) => BodyFraming::Length(n),
            _ => BodyFraming::UntilClose,
        };
        let keep_alive = !connection.close && (!old || connection.keep_alive) && framing != BodyFraming::UntilClose;
        Ok(ResponseHead { status, version, framing, keep_alive, length, head, reason, nominated: connection.nominated })
    }
}

const TOO_LARGE: BadResponse = BadResponse("answer's head is larger than 64 KiB or has more than 200 fields");

type StatusLine = (Version, u16, Span, usize);

fn status_line(b: &[u8]) -> Result<Option<StatusLine>, BadResponse> {
    let malformed = BadResponse("malformed status line");
    let like = |b: &[u8]| b.iter().zip(b"HTTP/1.").all(|(a, b)| a == b);
    if b.len() < 13 {
        return if like(b) && !b.contains(&b'\n') { Ok(None) } else { Err(malformed) };
    }
    let version = match &b[..9] {
        b"HTTP/1.1 " => Version::Http11,
        b"HTTP/1.0 " => Version::Http10,
        _ => return Err(malformed),
    };
    let status = match &b[9..12] {
        [a @ b'1'..=b'9', d @ b'0'..=b'9', e @ b'0'..=b'9'] => u16::from(a - b'0') * 100 + u16::from(d - b'0') * 10 + u16::from(e - b'0'),
        _ => return Err(malformed),
    };
    let from = match b[12] {
        b' ' => 13,
        b'\r' => 12,
        _ => return Err(malformed),
    };
    let to = super::bytes_class::value_end(b, from);
    match (b.get(to), b.get(to + 1)) {
        (None, _) | (Some(b'\r'), None) => Ok(None),
        (Some(b'\r'), Some(b'\n')) => Ok(Some((version, status, Span::new(from, to), to + 2))),
        _ => Err(malformed),
    }
}
