//! Bodies: taken apart without copying, put together with at most a few bytes around each piece.
//!
//! Chunk lines are read strictly (hexadecimal digits, an optional extension without control bytes,
//! CRLF): chunk extensions are where parsers disagree most. Extensions are not passed on; trailers are,
//! but for those that would mean something as header fields.

use super::BodyFraming;
use super::bytes_class::value_end;
use super::fields;
use super::head::Head;
use super::names::Known;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::fmt;

/// Bytes of one chunk line, extension included.
const CHUNK_LINE: usize = 4 << 10;
/// Bytes of chunk lines that carry next to nothing: more than this many above a sixteenth of the data are an attack
/// on our time (CVE-2023-39326 class).
const OVERHEAD: u64 = 64 << 10;
/// Bytes of a trailer section.
const TRAILER_BYTES: usize = 16 << 10;
/// Fields of a trailer section.
const TRAILERS: usize = 64;

/// What a decoder finds next.
#[derive(Clone, Debug)]
pub enum Piece {
    /// A stretch of the body, shared with the input buffer.
    Data(Bytes),
    /// The end, with trailers where there were some.
    End(Option<Box<Head>>),
}

/// A body that cannot be read to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyError {
    /// Not the chunked coding as RFC 9112 section 7.1 has it; the text says what.
    Malformed(&'static str),
    /// The connection ended before the body did.
    Truncated,
    /// More, or less, was given to an encoder than its length allows.
    Length,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => write!(f, "malformed body: {why}"),
            Self::Truncated => f.write_str("body ends early"),
            Self::Length => f.write_str("body does not match its Content-Length"),
        }
    }
}
impl std::error::Error for BodyError {}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Length(u64),
    ChunkLine,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    UntilClose,
    Done,
}

/// Takes a body apart.
#[derive(Clone, Debug)]
pub struct Decoder {
    state: State,
    data: u64,
    overhead: u64,
}

impl Decoder {
    /// For a message with this framing.
    pub fn new(framing: BodyFraming) -> Self {
        let state = match framing {
            BodyFraming::None | BodyFraming::Length(0) => State::Done,
            BodyFraming::Length(n) => State::Length(n),
            BodyFraming::Chunked => State::ChunkLine,
            BodyFraming::UntilClose => State::UntilClose,
        };
        Self { state, data: 0, overhead: 0 }
    }
    /// Whether the whole body was read. True at once where there is none.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done | State::Length(0))
    }
    /// Bytes of the body given out so far.
    pub fn data(&self) -> u64 {
        self.data
    }
    /// Bytes that are known to be still to come; 0 where that is not known.
    pub fn expected(&self) -> u64 {
        match self.state {
            State::Length(n) | State::ChunkData(n) => n,
            _ => 0,
        }
    }

    /// Takes the next piece off the front of `buf`. `Ok(None)`: read more. [`Piece::End`] is said once for
    /// a body that needed reading, and never for one that was done from the start.
    pub fn next(&mut self, buf: &mut BytesMut) -> Result<Option<Piece>, BodyError> {
        loop {
            match self.state {
                State::Done => return Ok(None),
                State::Length(0) => return Ok(Some(self.end(None))),
                State::ChunkData(0) => self.state = State::ChunkEnd,
                State::Length(_) | State::ChunkData(_) | State::UntilClose if buf.is_empty() => return Ok(None),
                State::Length(left) => {
                    let piece = take(buf, left);
                    self.state = State::Length(left - piece.len() as u64);
                    return Ok(Some(self.give(piece)));
                }
                State::ChunkData(left) => {
                    let piece = take(buf, left);
                    self.state = State::ChunkData(left - piece.len() as u64);
                    return Ok(Some(self.give(piece)));
                }
                State::UntilClose => {
                    let piece = buf.split().freeze();
                    return Ok(Some(self.give(piece)));
                }
                State::ChunkEnd => match buf[..] {
                    [b'\r', b'\n', ..] => {
                        buf.advance(2);
                        self.state = State::ChunkLine;
                    }
                    [] | [b'\r'] => return Ok(None),
                    _ => return Err(BodyError::Malformed("no CRLF after a chunk")),
                },
                State::ChunkLine => match chunk_line(buf)? {
                    None => return Ok(None),
                    Some((size, line)) => {
                        buf.advance(line);
                        self.overhead += line as u64;
                        if self.overhead > OVERHEAD + (self.data + size) * 16 {
                            return Err(BodyError::Malformed("chunk lines outweigh the data"));
                        }
                        self.state = if size == 0 { State::Trailers } else { State::ChunkData(size) };
                    }
                },
                State::Trailers => {
                    let Some(trailers) = trailers(buf)? else { return Ok(None) };
                    return Ok(Some(self.end(trailers)));
                }
            }
        }
    }

    /// The input ended. `Ok` where that is how the body ends.
    pub fn eof(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Done | State::Length(0) | State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(BodyError::Truncated),
        }
    }

    fn give(&mut self, piece: Bytes) -> Piece {
        self.data += piece.len() as u64;
        Piece::Data(piece)
    }
    fn end(&mut self, trailers: Option<Box<Head>>) -> Piece {
        self.state = State::Done;
        Piece::End(trailers)
    }
}

fn take(buf: &mut BytesMut, left: u64) -> Bytes {
    let n = left.min(buf.len() as u64) as usize;
    buf.split_to(n).freeze()
}

/// The size a chunk line announces, and the line's length.
fn chunk_line(b: &[u8]) -> Result<Option<(u64, usize)>, BodyError> {
    let digits = b.iter().position(|c| !c.is_ascii_hexdigit()).unwrap_or(b.len());
    if digits > 16 {
        return Err(BodyError::Malformed("chunk size too large"));
    }
    if digits == b.len() {
        return Ok(None);
    }
    let mut at = digits;
    while matches!(b.get(at), Some(b' ' | b'\t')) {
        at += 1;
    }
    match b.get(at) {
        _ if digits == 0 => return Err(BodyError::Malformed("chunk size is not a hexadecimal number")),
        None | Some(b'\r') => {}
        Some(b';') => at = value_end(b, at),
        Some(_) => return Err(BodyError::Malformed("illegal byte behind a chunk size")),
    }
    if at > CHUNK_LINE {
        return Err(BodyError::Malformed("chunk line too long"));
    }
    match (b.get(at), b.get(at + 1)) {
        (None, _) | (Some(b'\r'), None) => Ok(None),
        (Some(b'\r'), Some(b'\n')) => {
            let size = b[..digits].iter().fold(0u64, |n, c| n << 4 | u64::from((*c as char).to_digit(16).unwrap_or(0)));
            // Sizes beyond this are nobody's data, but arithmetic somebody hopes to overflow.
            if size > u64::MAX >> 8 { Err(BodyError::Malformed("chunk size too large")) } else { Ok(Some((size, at + 2))) }
        }
        _ => Err(BodyError::Malformed("chunk line does not end in CRLF")),
    }
}

/// The trailer section, if it is all there; `Some(None)`: an empty one.
fn trailers(buf: &mut BytesMut) -> Result<Option<Option<Box<Head>>>, BodyError> {
    if buf.starts_with(b"\r\n") {
        buf.advance(2);
        return Ok(Some(None));
    }
    let mut fields = Vec::new();
    match fields::section(buf, 0, TRAILERS, &mut fields) {
        Ok(Some(end)) if end <= TRAILER_BYTES => {
            fields.retain(|f| may_trail(f.known));
            let head = Head { raw: buf.split_to(end).freeze(), fields, added: Vec::new() };
            Ok(Some((!head.fields.is_empty()).then(|| Box::new(head))))
        }
        Ok(None) if buf.len() <= TRAILER_BYTES => Ok(None),
        Ok(_) | Err(fields::Fault::TooMany) => Err(BodyError::Malformed("trailers too large")),
        Err(fields::Fault::Syntax(why)) => Err(BodyError::Malformed(why)),
    }
}

/// RFC 9110 section 6.5.1: nothing that frames, routes or authenticates. Names we give no meaning pass, but for
/// credentials and cookies, which [`Head`] callers never look for in trailers anyway.
fn may_trail(known: Known) -> bool {
    matches!(known, Known::Other | Known::Date)
}

/// Puts a body together for the other side.
#[derive(Clone, Copy, Debug)]
pub struct Encoder {
    framing: BodyFraming,
    left: u64,
    done: bool,
}

impl Encoder {
    /// For a message with this framing.
    pub fn new(framing: BodyFraming) -> Self {
        let left = if let BodyFraming::Length(n) = framing { n } else { 0 };
        let done = matches!(framing, BodyFraming::None | BodyFraming::Length(0));
        Self { framing, left, done }
    }
    /// Whether nothing more is to be written.
    pub fn is_done(&self) -> bool {
        self.done
    }
    /// Bytes still owed, where the length is known.
    pub fn left(&self) -> Option<u64> {
        matches!(self.framing, BodyFraming::Length(_)).then_some(self.left)
    }

    /// What goes before and behind `len` bytes of data: write `before`, the data, `after`. Before the data of
    /// an empty piece nothing is written, for an empty chunk would end the body.
    pub fn frame(&mut self, len: usize) -> Result<Frame, BodyError> {
        if len == 0 {
            return Ok(Frame::default());
        }
        match self.framing {
            _ if self.done => Err(BodyError::Length),
            BodyFraming::None => Err(BodyError::Length),
            BodyFraming::Length(_) => {
                self.left = self.left.checked_sub(len as u64).ok_or(BodyError::Length)?;
                self.done = self.left == 0;
                Ok(Frame::default())
            }
            BodyFraming::UntilClose => Ok(Frame::default()),
            BodyFraming::Chunked => Ok(Frame::chunk(len)),
        }
    }
    /// Data with its frame, copied behind what is in `out` already: for small pieces.
    pub fn data(&mut self, piece: &[u8], out: &mut impl BufMut) -> Result<(), BodyError> {
        let frame = self.frame(piece.len())?;
        if frame.chunked {
            out.put_slice(frame.before());
        }
        out.put_slice(piece);
        if frame.chunked {
            out.put_slice(frame.after());
        }
        Ok(())
    }
    /// The end. `Err`: the length that was promised was not kept, so the connection must be cut to show it.
    pub fn end(&mut self, trailers: Option<&Head>, out: &mut impl BufMut) -> Result<(), BodyError> {
        if self.left > 0 {
            return Err(BodyError::Length);
        }
        if !std::mem::replace(&mut self.done, true) && self.framing == BodyFraming::Chunked {
            out.put_slice(b"0\r\n");
            for (name, value) in trailers.into_iter().flat_map(Head::iter) {
                super::forward::field(out, name, value);
            }
            out.put_slice(b"\r\n");
        }
        Ok(())
    }
}

/// The few bytes around a piece of data.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frame {
    before: [u8; 18],
    len: u8,
    chunked: bool,
}

impl Frame {
    fn chunk(size: usize) -> Self {
        let mut f = Self { chunked: true, ..Self::default() };
        let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1) as usize;
        for (i, slot) in f.before[..digits].iter_mut().enumerate() {
            *slot = b"0123456789abcdef"[size >> (4 * (digits - 1 - i)) & 15];
        }
        f.before[digits] = b'\r';
        f.before[digits + 1] = b'\n';
        f.len = digits as u8 + 2;
        f
    }
    /// Goes before the data.
    pub fn before(&self) -> &[u8] {
        &self.before[..self.len as usize]
    }
    /// Goes behind the data.
    pub fn after(&self) -> &'static [u8] {
        if self.chunked { b"\r\n" } else { b"" }
    }
}
