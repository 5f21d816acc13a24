//! The field section of a head, and of trailers: the same strict grammar for both directions.

use super::bytes_class::{token, value_end};
use super::head::{Field, Span};
use super::names::Known;
use smallvec::SmallVec;

/// No field name in use is longer.
const NAME_BYTES: usize = 256;

/// Room for the fields of a usual head.
pub(super) const USUAL: usize = 16;

/// What is wrong with a field section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Syntax(&'static str),
    TooMany,
}

/// Reads fields from `at` to the empty line that ends them. `Ok(None)`: it is not all there yet, and
/// what is there is right so far. Otherwise the position behind the empty line.
pub(super) fn section(b: &[u8], mut at: usize, max: usize, out: &mut Vec<Field>) -> Result<Option<usize>, Fault> {
    loop {
        let Some(&first) = b.get(at) else { return Ok(None) };
        if first == b'\r' {
            return Ok(line_end(b, at)?.then_some(at + 2));
        }
        let start = at;
        while at < b.len() && token(b[at]) {
            at += 1;
        }
        let name = &b[start..at];
        let Some(&colon) = b.get(at) else {
            return if name.len() > NAME_BYTES { Err(Fault::Syntax("field name too long")) } else { Ok(None) };
        };
        if colon != b':' || name.is_empty() || name.len() > NAME_BYTES {
            return Err(Fault::Syntax(bad_name(name, colon)));
        }
        at += 1;
        while at < b.len() && matches!(b[at], b' ' | b'\t') {
            at += 1;
        }
        let value = at;
        at = value_end(b, at);
        if at == b.len() || !line_end(b, at)? {
            return Ok(None);
        }
        let mut end = at;
        while end > value && matches!(b[end - 1], b' ' | b'\t') {
            end -= 1;
        }
        at += 2;
        if out.len() == max {
            return Err(Fault::TooMany);
        }
        out.push(Field {
            name: start as u32,
            name_len: name.len() as u16,
            known: Known::of(name),
            gone: false,
            value: value as u32,
            value_len: (end - value) as u32,
        });
    }
}

/// Whether CRLF stands at `at`; `Ok(false)`: its second half is still to come.
fn line_end(b: &[u8], at: usize) -> Result<bool, Fault> {
    match (b[at], b.get(at + 1)) {
        (b'\r', Some(b'\n')) => Ok(true),
        (b'\r', None) => Ok(false),
        (b'\r', _) => Err(Fault::Syntax("bare CR")),
        (b'\n', _) => Err(Fault::Syntax("bare LF")),
        _ => Err(Fault::Syntax("control byte in a field value")),
    }
}

fn bad_name(name: &[u8], next: u8) -> &'static str {
    match (name.is_empty(), next) {
        (_, b'\n') => "bare LF",
        (true, b' ' | b'\t') => "folded field line",
        (true, b':') => "empty field name",
        (false, b' ' | b'\t') => "white space before the colon",
        (false, b'\r') => "field line without a colon",
        (false, b':') => "field name too long",
        _ => "illegal byte in a field name",
    }
}

/// What `Connection` fields say.
#[derive(Clone, Debug, Default)]
pub(super) struct Connection {
    pub close: bool,
    pub keep_alive: bool,
    pub upgrade: bool,
    /// Other names: fields that go no further than this hop.
    pub nominated: SmallVec<[Span; 2]>,
}

/// Options beyond the usual ones; each costs a comparison with every field.
const NOMINATED: usize = 16;

impl Connection {
    /// Reads one field's value. `Err`: too many options.
    pub fn read(&mut self, raw: &[u8], value: Span) -> Result<(), ()> {
        let mut at = value.at;
        for item in value.of(raw).split(|b| *b == b',') {
            let option = item.trim_ascii();
            match option {
                _ if option.eq_ignore_ascii_case(b"close") => self.close = true,
                _ if option.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
                _ if option.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
                _ if option.is_empty() || option.eq_ignore_ascii_case(b"te") => {}
                _ if self.nominated.len() == NOMINATED => return Err(()),
                _ => {
                    let lead = item.len() - item.trim_ascii_start().len();
                    self.nominated.push(Span { at: at + lead as u32, len: option.len() as u32 });
                }
            }
            at += item.len() as u32 + 1;
        }
        Ok(())
    }
}

/// Everything in a `#token` list, white space taken off, empty items left out.
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|v| !v.is_empty())
}

/// A length as RFC 9110 section 8.6 has it: digits alone, and it must fit.
pub(super) fn length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 {
        return None;
    }
    value.iter().try_fold(0u64, |n, b| b.is_ascii_digit().then(|| n * 10 + u64::from(b - b'0')))
}
