//! The end of what is queued to be written: small things copied one behind the other, so that they leave in one piece.

use super::spare;
use bytes::{Buf, Bytes};

/// Up to so much is copied out rather than given away with its buffer, which has room for what follows.
const COPIED: usize = 1 << 10;
/// Written bytes in front of unwritten ones are put up with until there are so many.
const WRITTEN: usize = 64 << 10;

/// Bytes to be written, and to be added to.
#[derive(Debug, Default)]
pub struct Tail {
    bytes: Vec<u8>,
    /// So many of them are written.
    written: usize,
}

impl Tail {
    /// With these bytes in it.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, written: 0 }
    }
    /// How much is left to be written.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.written
    }
    /// Whether nothing is.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// What is left to be written.
    #[inline]
    pub fn unwritten(&self) -> &[u8] {
        &self.bytes[self.written..]
    }
    /// To write behind it. Nothing that is there may be changed.
    #[inline]
    pub fn behind(&mut self) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = spare::take();
        }
        &mut self.bytes
    }
    /// So much more was written.
    #[inline]
    pub fn wrote(&mut self, n: usize) {
        self.written += n;
        debug_assert!(self.written <= self.bytes.len());
        if self.written == self.bytes.len() {
            self.bytes.clear();
            self.written = 0;
        } else if self.written >= WRITTEN {
            // A reader that is always behind would otherwise keep all that was ever written.
            self.bytes.drain(..self.written);
            self.written = 0;
        }
    }
    /// Everything, to be queued by itself.
    pub fn freeze(&mut self) -> Bytes {
        if self.len() > COPIED {
            let mut all = Bytes::from(std::mem::take(&mut self.bytes));
            all.advance(std::mem::take(&mut self.written));
            return all;
        }
        let all = Bytes::copy_from_slice(self.unwritten());
        self.wrote(all.len());
        all
    }
    /// The last byte.
    pub fn split_last(&mut self) -> Bytes {
        let last = if self.is_empty() { None } else { self.bytes.pop() };
        Bytes::copy_from_slice(last.as_slice())
    }
    /// Lets go of its memory, where nothing is left to be written.
    #[inline]
    pub fn rest(&mut self) {
        if self.is_empty() {
            spare::give_back(std::mem::take(&mut self.bytes));
            self.written = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_gone_and_the_rest_stays_in_order() {
        let mut tail = Tail::default();
        tail.behind().extend_from_slice(b"one two");
        tail.wrote(4);
        tail.behind().extend_from_slice(b" three");
        assert_eq!((tail.unwritten(), tail.len()), (&b"two three"[..], 9));
        assert_eq!(tail.split_last(), "e");
        assert_eq!(tail.freeze(), "two thre");
        assert!(tail.is_empty() && tail.split_last().is_empty());
        tail.behind().resize(COPIED + 2, b'x');
        tail.wrote(1);
        assert_eq!(tail.freeze().len(), COPIED + 1);
        assert!(tail.is_empty());
    }

    #[test]
    fn a_reader_that_is_always_behind_costs_no_memory() {
        let mut tail = Tail::default();
        for _ in 0..1000 {
            tail.behind().extend_from_slice(&[7; 1000]);
            let n = tail.len() - 1;
            tail.wrote(n);
        }
        assert!(tail.bytes.len() <= WRITTEN + 1001, "{}", tail.bytes.len());
    }
}
