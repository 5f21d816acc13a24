//! One record of the file of copies: what is kept under a key now, or that nothing is.
//!
//! ```text
//! record   length u32 · its complement · digest of (the digest before it, length, payload) · payload
//! payload  kind u8 · key length u32 · key · what is kept
//! copy     status u16 · kept_at u64 · region · fields u32 · (name · value)* · body       signpost  names u32 · name*
//! ```
//! Each digest takes in the one before, so that no record can stand in another's place, be left out or come twice, and the
//! complement tells a length that is damaged from a file that ends early.

use super::{Copy, Entry};
use crate::steer::lastgood::Key;
use bytes::Bytes;
use ring::digest::{Context, SHA256};
use std::io::{self, Read};
use std::sync::Arc;

/// What the file begins with: format 1.
pub const MAGIC: &[u8] = b"evenkeel last good copies 1\n";
const HEAD: usize = 24;

/// A digest: what stands before the next record.
pub type Chain = [u8; 16];

fn digest(before: &Chain, payload: &[u8]) -> Chain {
    let mut context = Context::new(&SHA256);
    context.update(before);
    context.update(&(payload.len() as u32).to_le_bytes());
    context.update(payload);
    let mut chain = Chain::default();
    chain.copy_from_slice(&context.finish().as_ref()[..16]);
    chain
}

/// Writes one record: what is kept under the key, or that nothing is any more.
pub fn write(out: &mut Vec<u8>, chain: &mut Chain, key: &Key, entry: Option<&Entry>) {
    let start = out.len();
    out.resize(start + HEAD, 0);
    out.push(match entry {
        None => 0,
        Some(Entry::Copy(_)) => 1,
        Some(Entry::Varies(_)) => 2,
    });
    part(out, &key.0);
    match entry {
        None => {}
        Some(Entry::Copy(copy)) => {
            out.extend_from_slice(&copy.status.to_le_bytes());
            out.extend_from_slice(&copy.kept_at.to_le_bytes());
            part(out, copy.region.as_bytes());
            out.extend_from_slice(&(copy.fields.len() as u32).to_le_bytes());
            for (name, value) in &copy.fields {
                part(out, name);
                part(out, value);
            }
            part(out, &copy.body);
        }
        Some(Entry::Varies(names)) => {
            out.extend_from_slice(&(names.len() as u32).to_le_bytes());
            names.iter().for_each(|n| part(out, n.as_bytes()));
        }
    }
    let length = (out.len() - start - HEAD) as u32;
    *chain = digest(chain, &out[start + HEAD..]);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&(!length).to_le_bytes());
    out[start + 8..start + HEAD].copy_from_slice(chain);
}

fn part(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// What stands next in the file.
pub enum Next {
    /// What is kept under this key; `None`: nothing any more.
    Record(Key, Option<Entry>),
    /// The end. `torn`: in the middle of a record, as a power loss leaves it.
    End {
        /// Bytes of it.
        torn: u64,
    },
    /// It is not what was written.
    Damaged,
}

/// Reads the next record. `left`: bytes to the end of the file.
pub fn read(from: &mut impl Read, left: &mut u64, chain: &mut Chain, payload: &mut Vec<u8>) -> io::Result<Next> {
    if *left < HEAD as u64 {
        return Ok(Next::End { torn: *left });
    }
    let mut head = [0; HEAD];
    from.read_exact(&mut head)?;
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let length = word(0);
    if length != !word(4) {
        return Ok(Next::Damaged);
    }
    if u64::from(length) > *left - HEAD as u64 {
        return Ok(Next::End { torn: *left });
    }
    *left -= HEAD as u64 + u64::from(length);
    payload.resize(length as usize, 0);
    from.read_exact(payload)?;
    let found = digest(chain, payload);
    if found != head[8..] {
        return Ok(Next::Damaged);
    }
    *chain = found;
    Ok(parse(payload).map_or(Next::Damaged, |(key, entry)| Next::Record(key, entry)))
}

fn parse(payload: &[u8]) -> Option<(Key, Option<Entry>)> {
    let mut rest = payload;
    let kind = number::<1>(&mut rest)?;
    let key = Key(next(&mut rest)?.into());
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(ToOwned::to_owned);
    let entry = match kind {
        0 => None,
        1 => {
            let (status, kept_at) = (number::<2>(&mut rest)? as u16, number::<8>(&mut rest)?);
            let region: Arc<str> = text(next(&mut rest)?)?.into();
            let mut fields = Vec::new();
            for _ in 0..number::<4>(&mut rest)? {
                fields.push((Bytes::copy_from_slice(next(&mut rest)?), Bytes::copy_from_slice(next(&mut rest)?)));
            }
            let body = Bytes::copy_from_slice(next(&mut rest)?);
            Some(Entry::Copy(Arc::new(Copy { status, fields, body, kept_at, region })))
        }
        2 => {
            let mut names = Vec::new();
            for _ in 0..number::<4>(&mut rest)? {
                names.push(text(next(&mut rest)?)?);
            }
            Some(Entry::Varies(names.into()))
        }
        _ => return None,
    };
    rest.is_empty().then_some((key, entry))
}

fn number<const N: usize>(rest: &mut &[u8]) -> Option<u64> {
    let (bytes, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
}

fn next<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = number::<4>(rest)? as usize;
    let (part, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(part)
}
