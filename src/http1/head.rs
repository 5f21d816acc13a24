//! A message head as it came off the wire: one buffer, and where its fields lie in it.
//!
//! Parsing copies nothing and allocates once per head, not per field: heads are moved often, so they are kept small. Edits are rare, so they are cheap to
//! express rather than fast: a removed field keeps its place and loses its voice, an added one
//! stands in a small list behind the others.

use super::names::Known;
use crate::model::view::Fields;
use bytes::Bytes;

/// Where one field lies in the raw head. Sixteen bytes, so that a usual head's fit four cache lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub name: u32,
    pub name_len: u16,
    pub known: Known,
    pub gone: bool,
    pub value: u32,
    pub value_len: u32,
}

/// A stretch of the raw head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Span {
    pub at: u32,
    pub len: u32,
}

impl Span {
    pub fn new(from: usize, to: usize) -> Self {
        Self { at: from as u32, len: (to - from) as u32 }
    }
    pub fn of(self, raw: &[u8]) -> &[u8] {
        &raw[self.at as usize..(self.at + self.len) as usize]
    }
    /// Everything the parser lets into a span that is asked for as text is ASCII.
    pub fn text(self, raw: &[u8]) -> &str {
        std::str::from_utf8(self.of(raw)).unwrap_or_default()
    }
}

/// The fields of a message head (or of a trailer section).
#[derive(Clone, Debug, Default)]
pub struct Head {
    pub(super) raw: Bytes,
    pub(super) fields: Vec<Field>,
    pub(super) added: Vec<(Bytes, Bytes)>,
}

impl Head {
    /// The bytes it was parsed from, start line and empty line included.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }
    /// Every field, in order: name as received, value without surrounding white space.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let own = self.fields.iter().filter(|f| !f.gone).map(|f| (self.name(f), self.value(f)));
        own.chain(self.added.iter().map(|(n, v)| (&n[..], &v[..])))
    }
    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.iter().count()
    }
    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
    /// The first value of a field; the name in any case.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, v)| v)
    }
    /// Every value of a field, in order; the name in any case.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, v)| v)
    }
    /// Takes every field of this name away.
    pub fn remove(&mut self, name: &str) {
        let raw = &self.raw;
        for f in self.fields.iter_mut() {
            let at = f.name as usize;
            f.gone |= raw[at..at + f.name_len as usize].eq_ignore_ascii_case(name.as_bytes());
        }
        self.added.retain(|(n, _)| !n.eq_ignore_ascii_case(name.as_bytes()));
    }
    /// Adds a field behind the others. Name and value must be valid (RFC 9110 section 5): callers pass
    /// constants, or `http` types that are checked by construction.
    pub fn append(&mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) {
        let (name, value) = (name.into(), value.into());
        debug_assert!(!name.is_empty() && !value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)));
        self.added.push((name, value));
    }
    /// Replaces every field of this name by one.
    pub fn set(&mut self, name: &'static str, value: impl Into<Bytes>) {
        self.remove(name);
        self.append(name, value);
    }

    pub(super) fn name(&self, f: &Field) -> &[u8] {
        &self.raw[f.name as usize..f.name as usize + f.name_len as usize]
    }
    pub(super) fn value(&self, f: &Field) -> &[u8] {
        &self.raw[f.value as usize..(f.value + f.value_len) as usize]
    }
}

impl Fields for Head {
    fn get(&self, name: &str) -> Option<&[u8]> {
        Self::get(self, name)
    }
    fn each(&self, name: &str, f: &mut dyn FnMut(&[u8])) {
        self.all(name).for_each(f);
    }
}
