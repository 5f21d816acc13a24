//! HTTP/2 frames as a client sends them, looked at before the library reads them: what is wrong with a frame by its head alone is
//! answered under its right name.
//!
//! The library reports every fault of a connection as PROTOCOL_ERROR. RFC 9113 has names for some of them, which tell whoever debugs a
//! client what to look for:
//!
//! | fault | name |
//! |---|---|
//! | RST_STREAM, PING, WINDOW_UPDATE or SETTINGS of another size than theirs (sections 6.4 to 6.9) | FRAME_SIZE_ERROR |
//! | SETTINGS_INITIAL_WINDOW_SIZE above 2³¹−1 (6.5.2) | FLOW_CONTROL_ERROR |
//! | a header block that begins with an index or a table size that cannot be (RFC 7541 sections 2.3.3, 6.3) | COMPRESSION_ERROR |
//!
//! At such a frame reading ends: GOAWAY goes out, and the library sees a connection that broke. Everything else is the library's
//! business; header blocks are not decoded here, so a fault further inside one is still reported as PROTOCOL_ERROR.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PREFACE: usize = 24;
const HEAD: usize = 9;
/// As much of a payload as is looked at: five settings; padding, priority and the first representation of a header block.
const LOOKED_AT: usize = 32;
/// An index beyond the static table (61) and what fits into a dynamic one of 4,096 bytes, the size we announce: 32 bytes an entry.
const INDEXES: u64 = 61 + 4096 / 32;
const TABLE_BYTES: u64 = 4096;

/// Error codes of RFC 9113 section 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    FlowControl = 3,
    FrameSize = 6,
    Compression = 9,
}

/// Where in the stream of frames the next byte stands.
#[derive(Debug, Default)]
struct Place {
    /// Bytes of the preface that are still to come.
    preface: usize,
    head: [u8; HEAD],
    have: usize,
    /// Bytes of the payload still to come.
    left: usize,
    payload: [u8; LOOKED_AT],
    kept: usize,
}

impl Place {
    fn client() -> Self {
        Self { preface: PREFACE, ..Self::default() }
    }
    /// Whether a frame may begin here.
    fn between(&self) -> bool {
        self.preface == 0 && self.have == 0 && self.left == 0
    }
    fn len(&self) -> usize {
        usize::from(self.head[0]) << 16 | usize::from(self.head[1]) << 8 | usize::from(self.head[2])
    }

    /// Goes over bytes; at the end of each looked-at part of a frame, `judge` may find a fault. How many bytes came before it.
    fn over(&mut self, mut bytes: &[u8], judge: impl Fn(&Self) -> Option<Fault>) -> (usize, Option<Fault>) {
        let mut good = 0;
        let mut pending = 0;
        while !bytes.is_empty() {
            if self.preface > 0 {
                let n = bytes.len().min(self.preface);
                self.preface -= n;
                good += n;
                bytes = &bytes[n..];
                continue;
            }
            if self.have < HEAD {
                let n = bytes.len().min(HEAD - self.have);
                self.head[self.have..self.have + n].copy_from_slice(&bytes[..n]);
                self.have += n;
                pending += n;
                bytes = &bytes[n..];
                if self.have == HEAD {
                    (self.left, self.kept) = (self.len(), 0);
                    if let Some(fault) = judge(self) {
                        return (good, Some(fault));
                    }
                }
            } else {
                let n = bytes.len().min(self.left);
                let keep = n.min(LOOKED_AT - self.kept);
                self.payload[self.kept..self.kept + keep].copy_from_slice(&bytes[..keep]);
                self.left -= n;
                pending += n;
                bytes = &bytes[n..];
                let before = self.kept;
                self.kept += keep;
                if before != self.kept
                    && (self.kept == LOOKED_AT || self.left == 0)
                    && let Some(fault) = judge(self)
                {
                    return (good, Some(fault));
                }
            }
            if self.have == HEAD && self.left == 0 {
                self.have = 0;
                good += std::mem::take(&mut pending);
            }
        }
        (good + pending, None)
    }
}

/// An integer of RFC 7541 section 5.1; `None`: its end is not there. One that does not fit counts as the largest.
fn integer(bytes: &[u8], prefix: u32) -> Option<u64> {
    let most = (1u64 << prefix) - 1;
    let first = u64::from(*bytes.first()?) & most;
    if first < most {
        return Some(first);
    }
    let mut sum = most;
    for (i, b) in bytes[1..].iter().enumerate() {
        if i >= 4 {
            return Some(u64::MAX);
        }
        sum += u64::from(b & 0x7f) << (7 * i);
        if b & 0x80 == 0 {
            return Some(sum);
        }
    }
    None
}

/// What is wrong with the first representation of a header block.
fn block(bytes: &[u8]) -> Option<Fault> {
    let first = *bytes.first()?;
    let (value, least, most) = match first {
        0x80.. => (integer(bytes, 7)?, 1, INDEXES),
        0x40.. => (integer(bytes, 6)?, 0, INDEXES),
        0x20.. => (integer(bytes, 5)?, 0, TABLE_BYTES),
        _ => (integer(bytes, 4)?, 0, INDEXES),
    };
    (!(least..=most).contains(&value)).then_some(Fault::Compression)
}

/// What is wrong with a client's frame, as far as it was looked at.
fn judge(p: &Place) -> Option<Fault> {
    let (kind, flags, len) = (p.head[3], p.head[4], p.len());
    let sized = |right: bool| (!right).then_some(Fault::FrameSize);
    let seen = &p.payload[..p.kept];
    match kind {
        // HEADERS, once its beginning is there.
        1 if p.kept == LOOKED_AT || (p.left == 0 && p.kept > 0) => {
            let skip = usize::from(flags & 0x8 != 0) + if flags & 0x20 != 0 { 5 } else { 0 };
            let padding = if flags & 0x8 != 0 { usize::from(seen[0]) } else { 0 };
            let end = seen.len().min(len.saturating_sub(padding));
            seen.get(skip..end).and_then(block)
        }
        3 => sized(len == 4),
        4 if p.kept == 0 => sized(len.is_multiple_of(6) && (flags & 1 == 0 || len == 0)),
        4 => {
            let too_large = |s: &[u8]| s[..2] == [0, 4] && s[2] & 0x80 != 0;
            seen.chunks_exact(6).any(too_large).then_some(Fault::FlowControl)
        }
        6 => sized(len == 8),
        8 => sized(len == 4),
        _ => None,
    }
}

/// A client's connection whose frames are looked at.
#[derive(Debug)]
pub(super) struct Looked<S> {
    io: S,
    inward: Place,
    outward: Place,
    /// What was found.
    fault: Option<Fault>,
    /// What of GOAWAY is still to be written.
    goaway: Option<Vec<u8>>,
}

impl<S> Looked<S> {
    pub(super) fn new(io: S) -> Self {
        Self { io, inward: Place::client(), outward: Place::default(), fault: None, goaway: None }
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a frame that cannot be")
}

impl<S: AsyncRead + AsyncWrite + Unpin> Looked<S> {
    /// Tell the client, and end.
    fn poll_goaway(&mut self, fault: Fault, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Between two of our own frames only; in the middle of one the client learns nothing but the end.
        let between = self.outward.between();
        let said = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, fault as u8];
        let rest = self.goaway.get_or_insert_with(|| if between { said.to_vec() } else { Vec::new() });
        while !rest.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, rest))? {
                0 => break,
                n => drop(rest.drain(..n)),
            }
        }
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        Poll::Ready(Err(broken()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Looked<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = &mut *self;
        if let Some(fault) = me.fault {
            return me.poll_goaway(fault, cx);
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut me.io).poll_read(cx, buf))?;
        let (good, fault) = me.inward.over(&buf.filled()[before..], judge);
        let Some(fault) = fault else { return Poll::Ready(Ok(())) };
        me.fault = Some(fault);
        buf.set_filled(before + good);
        // What came before it is still read.
        if good > 0 { Poll::Ready(Ok(())) } else { me.poll_goaway(fault, cx) }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Looked<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let me = &mut *self;
        let n = ready!(Pin::new(&mut me.io).poll_write(cx, buf))?;
        me.outward.over(&buf[..n], |_| None);
        Poll::Ready(Ok(n))
    }
    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let me = &mut *self;
        let n = ready!(Pin::new(&mut me.io).poll_write_vectored(cx, bufs))?;
        let mut left = n;
        for part in bufs {
            let part = &part[..part.len().min(left)];
            me.outward.over(part, |_| None);
            left -= part.len();
        }
        Poll::Ready(Ok(n))
    }
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let n = payload.len();
        [&[0, (n >> 8) as u8, n as u8, kind, flags, 0, 0, 0, 1], payload].concat()
    }
    fn good() -> Vec<Vec<u8>> {
        vec![
            frame(4, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0, 0, 100]),
            frame(4, 1, &[]),
            frame(1, 4, &[0x82, 0x86, 0x84, 0x41, 3, b'a', b'.', b't']),
            frame(1, 0xc, &[2, 0xff, 0x3e, 0, 0]),
            frame(1, 0x2c, &[0, 0, 0, 0, 0, 16, 0x3f, 0xe1, 0x1f, 0x82]),
            frame(0, 1, &[7; 300]),
            frame(3, 0, &[0; 4]),
            frame(6, 0, &[0; 8]),
            frame(8, 0, &[0, 0, 1, 0]),
            frame(9, 4, &[0xff; 40]),
        ]
    }
    fn bad() -> Vec<(Vec<u8>, Fault)> {
        vec![
            (frame(3, 0, &[0; 5]), Fault::FrameSize),
            (frame(4, 0, &[0; 5]), Fault::FrameSize),
            (frame(4, 1, &[0; 6]), Fault::FrameSize),
            (frame(4, 0, &[0, 4, 0x80, 0, 0, 0]), Fault::FlowControl),
            (frame(6, 0, &[0; 7]), Fault::FrameSize),
            (frame(8, 0, &[]), Fault::FrameSize),
            (frame(1, 5, &[0xff; 6]), Fault::Compression),
            (frame(1, 5, &[0xff, 0x80, 1]), Fault::Compression),
            (frame(1, 5, &[0x80]), Fault::Compression),
            (frame(1, 5, &[0x3f, 0xe1, 0xff, 0x7f, 0x82]), Fault::Compression),
            (frame(1, 0xd, &[1, 0xff, 0x80, 1, 0]), Fault::Compression),
        ]
    }

    proptest! {
        #[test]
        fn a_fault_is_found_at_its_frame_however_bytes_arrive(
            before in prop::collection::vec(0..10usize, 0..6), at in 0..12usize, step in 1..40usize,
        ) {
            let sound: Vec<u8> = [vec![b'P'; PREFACE]].into_iter().chain(before.iter().map(|i| good()[*i].clone())).flatten().collect();
            let fault = bad().get(at).cloned();
            let mut wire = sound.clone();
            wire.extend(fault.iter().flat_map(|(f, _)| f));
            let (mut place, mut passed, mut found) = (Place::client(), 0, None);
            for piece in wire.chunks(step) {
                let (n, fault) = place.over(piece, judge);
                passed += n;
                found = fault;
                if found.is_some() {
                    break;
                }
            }
            prop_assert_eq!(found, fault.map(|(_, name)| name));
            prop_assert!(found.is_none() && passed == wire.len() && place.between() || found.is_some() && passed >= sound.len());
        }
    }

    #[tokio::test]
    async fn what_came_before_is_read_and_goaway_says_why() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let mut looked = Looked::new(server);
        let sound = [vec![b'P'; PREFACE], good()[0].clone()].concat();
        client.write_all(&[sound.clone(), bad()[4].0.clone()].concat()).await.unwrap();
        looked.write_all(&frame(4, 0, &[])).await.unwrap();
        let mut read = vec![0; 1024];
        let n = looked.read(&mut read).await.unwrap();
        assert_eq!(read[..n], sound);
        assert_eq!(looked.read(&mut read).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(looked);
        let mut told = Vec::new();
        client.read_to_end(&mut told).await.unwrap();
        assert_eq!(told, [frame(4, 0, &[]), vec![0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 6]].concat());
    }
}
