//! Buffers that one exchange leaves to the next on the same thread.
//!
//! A connection holds none while it waits, and allocating 16 KiB for every request costs more than reading a small answer into them. So what
//! an exchange is done with is kept here, [`MOST`] at most, and whoever begins next takes the one that was used last: it is still
//! in the processor's cache. A part that is still being sent keeps its allocation alive; the buffer then gets a new one when
//! room is asked for, and nobody sees anybody else's bytes.

use bytes::BytesMut;
use std::cell::RefCell;

/// Buffers kept of each kind, per thread.
const MOST: usize = 16;
/// Room in one to read into. Larger ones are not kept.
const ROOM: usize = 16 << 10;
/// Room in one to write heads and small bodies into.
const HEADS: usize = 8 << 10;

thread_local! {
    static INPUT: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
    static OUTPUT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Makes room for so much more in a buffer that is read into; an empty one without any is exchanged for a spare one.
#[inline]
pub fn ready(buf: &mut BytesMut, room: usize) {
    if buf.capacity() == 0
        && let Some(spare) = INPUT.with_borrow_mut(Vec::pop)
    {
        *buf = spare;
    }
    buf.reserve(room);
}

/// Hands back a buffer that was read into.
#[inline]
pub fn give(mut buf: BytesMut) {
    if (1..=ROOM).contains(&buf.capacity()) {
        buf.clear();
        INPUT.with_borrow_mut(|all| {
            if all.len() < MOST {
                all.push(buf)
            }
        });
    }
}

/// A buffer to write heads into.
#[inline]
pub fn take() -> Vec<u8> {
    OUTPUT.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(HEADS))
}

/// Hands back a buffer that was written into.
#[inline]
pub fn give_back(mut buf: Vec<u8>) {
    if (1..=2 * HEADS).contains(&buf.capacity()) {
        buf.clear();
        OUTPUT.with_borrow_mut(|all| {
            if all.len() < MOST {
                all.push(buf)
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut;

    #[test]
    fn a_buffer_goes_from_hand_to_hand_and_its_bytes_do_not() {
        let mut a = BytesMut::new();
        ready(&mut a, ROOM);
        let at = a.as_ptr();
        a.put_slice(b"of the first");
        let held = a.split_to(3).freeze();
        give(a);
        let mut b = BytesMut::new();
        ready(&mut b, ROOM);
        assert!(b.is_empty() && b.capacity() >= ROOM);
        b.put_slice(b"OF THE SECOND");
        assert_eq!(&held[..], b"of ", "a part that is held is never written over");
        assert_ne!(b.as_ptr(), at);
        give(b);
        let mut c = BytesMut::new();
        ready(&mut c, 100);
        assert!(c.is_empty() && c.capacity() >= 100);
    }

    #[test]
    fn heads_are_written_into_empty_buffers_and_huge_ones_are_let_go() {
        let mut a = take();
        a.extend_from_slice(b"GET /");
        give_back(a);
        assert!(take().is_empty());
        give_back(vec![1; 4 * HEADS]);
        assert!(take().capacity() <= 2 * HEADS);
    }
}
