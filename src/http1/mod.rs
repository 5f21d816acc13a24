//! The strict HTTP/1.1 codec that both sides of the proxy use. Pure: bytes in, heads and body pieces out.
//!
//! ```text
//! client bytes -> request::Parser  -> RequestHead  -> forward::request  -> bytes for the endpoint
//!              -> body::Decoder    -> Piece        -> body::Encoder     ->
//! origin bytes -> response::Parser -> ResponseHead -> forward::response -> bytes for the client
//! ```
//!
//! One rule stands above the others: **what is passed on is written anew from what was understood**,
//! and what two parsers could understand in two ways is refused. Refused are all that RFC 9112 calls
//! ambiguous (both framings, repeated lengths, bare CR or LF, folded lines, white space before the
//! colon), although it would allow some of it to be repaired.
//!
//! What it does not do: it reads no clock, holds no socket, decodes no content coding and keeps no
//! pipeline; unread bytes simply stay in the caller's buffer.

pub mod body;
mod bytes_class;
mod fields;
pub mod forward;
mod from_http2;
pub mod head;
mod names;
pub mod over_http2;
pub mod request;
pub mod response;
mod target;
#[cfg(test)]
mod tests;

pub use body::{BodyError, Decoder, Encoder, Piece};
pub use forward::{Delivery, Homeward, Onward};
pub use from_http2::from_http2;
pub use head::Head;
pub use request::{Method, RequestHead, RequestParser};
pub use response::{ResponseHead, ResponseParser};

use std::fmt;

/// How the end of a body is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum BodyFraming {
    /// There is none.
    #[default]
    None,
    /// After this many bytes.
    Length(u64),
    /// By the chunked coding.
    Chunked,
    /// When the connection closes (answers only).
    UntilClose,
}

/// The protocol version of a message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2: what was said there is read as HTTP/1.1, and only `Via` tells.
    Http2,
}

/// A request that is refused before anybody is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reject {
    /// The status to answer with; the connection is closed after it.
    pub status: u16,
    /// What is wrong with it, for the log and for `Proxy-Status`.
    pub why: &'static str,
}

impl Reject {
    pub(crate) const fn bad(why: &'static str) -> Self {
        Self { status: 400, why }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.why)
    }
}
impl std::error::Error for Reject {}

/// An answer that cannot be understood, or is too large.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadResponse(pub &'static str);

impl fmt::Display for BadResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}
impl std::error::Error for BadResponse {}
