//! The client's side of an HTTP/1.1 connection: bytes in and out, and where one message ends.
//!
//! Everything is polled, so that an upload can go on while its answer streams back. What is written is queued first and
//! leaves in one `writev`: a head waits for the first piece of its body if that is there already, and never longer.
//! While nothing is under way no buffer is held.

use super::answer::{self, Reply};
use super::socket::Socket;
use super::upload::Fault;
use crate::http1::forward::{self, Homeward};
use crate::http1::{BodyFraming, Decoder, Encoder, Head, Method, Piece, RequestHead, ResponseHead, Version};
use crate::model::policy::HeaderOps;
use crate::upstream::tail::Tail;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use pingora_core::protocols::Stream;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// Body pieces up to this size are copied behind what is queued instead of taking an entry of their own.
const COPY: usize = 4 << 10;
/// One read of a body at most.
const READ: usize = 64 << 10;
/// What a client may send ahead while its request is being answered (pipelining); then it has to wait.
const AHEAD: usize = 16 << 10;

thread_local! {
    /// Heads are read here first, so that a connection that waits for its next request holds no buffer.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; 16 << 10].into_boxed_slice());
}

/// One connection of a client.
#[derive(Debug)]
pub(crate) struct H1 {
    io: Stream,
    /// Read, not yet understood.
    pub(crate) input: BytesMut,
    /// Of the request under way.
    decoder: Decoder,
    /// Of the answer under way.
    encoder: Encoder,
    queue: VecDeque<Bytes>,
    queued: usize,
    /// Stands behind the queue.
    staged: Tail,
    /// The client waits to be told that it may send its body.
    expects: bool,
    version: Version,
    head_only: bool,
    keep: bool,
    /// The client sent all it will ever send.
    fin: bool,
    /// Reading or writing failed.
    broken: bool,
}

impl H1 {
    pub(crate) fn new(io: Stream) -> Self {
        Self {
            io,
            input: BytesMut::new(),
            decoder: Decoder::new(BodyFraming::None),
            encoder: Encoder::new(BodyFraming::None),
            queue: VecDeque::new(),
            queued: 0,
            staged: Tail::default(),
            expects: false,
            version: Version::Http11,
            head_only: false,
            keep: false,
            fin: false,
            broken: false,
        }
    }

    /// A request begins. `keep`: both sides would keep the connection after it.
    pub(crate) fn begin(&mut self, request: &RequestHead, keep: bool) {
        self.decoder = Decoder::new(request.framing);
        self.encoder = Encoder::new(BodyFraming::None);
        self.expects = request.expect_continue;
        self.version = request.version;
        self.head_only = request.method == Method::Head;
        self.keep = keep;
    }

    /// Whether the connection survives the answer that was given.
    pub(crate) fn keeps(&self) -> bool {
        // A client that said all it has to say may have said more than one request.
        self.keep && !self.broken && (!self.fin || !self.input.is_empty())
    }

    /// Whether the request was read to its end.
    pub(crate) fn request_done(&self) -> bool {
        self.decoder.is_done()
    }

    /// Whether the client may still be sending a body that it was not told to hold back.
    pub(crate) fn expects_continue(&self) -> bool {
        self.expects
    }

    /// Whether the client sent its last byte.
    pub(crate) fn fin(&self) -> bool {
        self.fin
    }

    /// Read what there is of a head. `Ok(0)`: the client sends no more.
    pub(crate) fn poll_fill_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let (io, input) = (&mut self.io, &mut self.input);
        let read = SCRATCH.with_borrow_mut(|scratch| {
            let mut buf = ReadBuf::new(scratch);
            ready!(Pin::new(io).poll_read(cx, &mut buf))?;
            input.extend_from_slice(buf.filled());
            Poll::Ready(Ok(buf.filled().len()))
        });
        self.note(read)
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let want = self.decoder.expected().clamp(8 << 10, READ as u64) as usize;
        self.input.reserve(want);
        let read = pin!(self.io.read_buf(&mut self.input)).poll(cx);
        self.note(read)
    }

    fn note(&mut self, read: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &read {
            Poll::Ready(Ok(0)) => self.fin = true,
            Poll::Ready(Err(_)) => self.broken = true,
            _ => {}
        }
        read
    }

    /// The next piece of the request's body that was read already. After its end: [`Piece::End`] again.
    pub(crate) fn buffered_body(&mut self) -> Option<Result<Piece, Fault>> {
        match self.decoder.next(&mut self.input) {
            Ok(Some(piece)) => Some(Ok(piece)),
            Ok(None) if self.decoder.is_done() => Some(Ok(Piece::End(None))),
            Ok(None) => None,
            Err(e) => Some(Err(Fault::Malformed(e))),
        }
    }

    /// The next piece of the request's body.
    pub(crate) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Fault>> {
        loop {
            if let Some(piece) = self.buffered_body() {
                return Poll::Ready(piece);
            }
            if std::mem::take(&mut self.expects) {
                self.staged.behind().put_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                // What does not leave now leaves with whatever is written next; the exchange polls for it.
                let _ = self.poll_flush(cx);
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(Err(Fault::Gone)),
                Ok(_) => {}
            }
        }
    }

    /// Ready when the client is gone for good. Until then bytes that it sends ahead are kept, up to a bound;
    /// a client that only closed its sending side is not gone ([`H1::fin`]).
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.fin && !self.broken && self.decoder.is_done() && self.input.len() < AHEAD {
            if ready!(self.poll_fill_head(cx)).is_err() {
                break;
            }
        }
        if self.broken { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Queue the head of a backend's answer. It leaves with the next flush.
    pub(crate) fn head(&mut self, head: &ResponseHead, ops: &HeaderOps, region: Option<&str>) {
        let homeward = Homeward { version: self.version, keep_alive: self.keep, headers: ops, region };
        let delivery = forward::response(head, &homeward, self.staged.behind());
        self.encoder = Encoder::new(delivery.framing);
        self.keep = delivery.keep_alive;
    }

    /// Queue an interim answer, for clients who know such a thing.
    pub(crate) fn interim(&mut self, head: &ResponseHead) {
        if self.version == Version::Http11 {
            forward::interim(head, self.staged.behind());
        }
    }

    /// Queue an answer of our own, whole.
    pub(crate) fn say(&mut self, reply: &Reply) {
        self.keep &= reply.keep_alive;
        answer::write(reply, self.head_only, self.keep, self.version == Version::Http10, self.staged.behind());
    }

    /// Queue an answer to something that is no request.
    pub(crate) fn refuse(&mut self, reply: &Reply) {
        (self.keep, self.head_only, self.version) = (false, false, Version::Http11);
        self.say(reply);
    }

    /// Queue a piece of the answer's body. `Err`: more than its head promised.
    pub(crate) fn push(&mut self, data: Bytes) -> Result<(), ()> {
        if data.len() <= COPY {
            return self.encoder.data(&data, self.staged.behind()).map_err(drop);
        }
        let frame = self.encoder.frame(data.len()).map_err(drop)?;
        self.staged.behind().put_slice(frame.before());
        self.enqueue(data);
        self.staged.behind().put_slice(frame.after());
        Ok(())
    }

    /// Queue bytes of a tunnel, which have no frame.
    pub(crate) fn push_raw(&mut self, data: Bytes) {
        self.enqueue(data);
    }

    fn enqueue(&mut self, data: Bytes) {
        let before = self.staged.freeze();
        self.queued += before.len() + data.len();
        self.queue.extend([before, data].into_iter().filter(|b| !b.is_empty()));
    }

    /// Queue the end of the answer's body. `Err`: less than its head promised.
    pub(crate) fn end(&mut self, trailers: Option<&Head>) -> Result<(), ()> {
        self.encoder.end(trailers, self.staged.behind()).map_err(drop)
    }

    /// Ready when everything queued is with the kernel.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.queued + self.staged.len() > 0 {
            let wrote = match ready!(self.poll_write(cx)) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                other => other,
            };
            match wrote {
                Ok(n) => self.wrote(n),
                Err(e) => {
                    self.broken = true;
                    return Poll::Ready(Err(e));
                }
            }
        }
        // TLS keeps records of its own until it is told to let them go.
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let io = Pin::new(&mut self.io);
        if self.queue.is_empty() {
            return io.poll_write(cx, self.staged.unwritten());
        }
        let mut slices = [IoSlice::new(&[]); 16];
        let mut n = 0;
        for (slot, bytes) in slices.iter_mut().zip(self.queue.iter().map(|b| &b[..]).chain([self.staged.unwritten()])) {
            *slot = IoSlice::new(bytes);
            n += 1;
        }
        io.poll_write_vectored(cx, &slices[..n])
    }

    fn wrote(&mut self, mut n: usize) {
        while let Some(first) = self.queue.front_mut() {
            let part = n.min(first.len());
            first.advance(part);
            self.queued -= part;
            n -= part;
            if !first.is_empty() {
                return;
            }
            self.queue.pop_front();
        }
        self.staged.wrote(n);
    }

    /// Bytes queued and not yet written.
    pub(crate) fn backlog(&self) -> usize {
        self.queued + self.staged.len()
    }

    /// For the access log.
    pub(crate) fn protocol(&self) -> &'static str {
        super::message::protocol(self.version)
    }

    /// Read the rest of a body and forget it. Ready(false): it is longer than `most`, or broken.
    pub(crate) fn poll_skip_body(&mut self, cx: &mut Context<'_>, most: &mut usize) -> Poll<bool> {
        while !self.request_done() {
            match ready!(self.poll_body(cx)) {
                Ok(Piece::Data(data)) if data.len() <= *most => *most -= data.len(),
                Ok(Piece::End(_)) => {}
                _ => return Poll::Ready(false),
            }
        }
        Poll::Ready(true)
    }

    /// The next bytes of a tunnel; empty: the client sends no more.
    pub(crate) fn poll_raw(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<BytesMut>> {
        if self.input.is_empty() && !self.fin {
            ready!(self.poll_fill_head(cx))?;
        }
        Poll::Ready(Ok(self.input.split()))
    }

    /// The answer broke off: close so that even a client to whom the end of the connection is the end of the answer can tell.
    pub(crate) fn cut(self) {
        if let Some(socket) = self.io.as_any().downcast_ref::<Socket>().filter(|_| self.version == Version::Http10) {
            socket.reset_on_close();
        }
        // TLS: dropped without close_notify, which says the same.
    }

    /// Give all memory back that an idle connection does not need.
    pub(crate) fn rest(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        self.staged.rest();
        self.queue.shrink_to(0);
    }

    /// Read and forget; ready when the client has closed, or sent `most` bytes.
    pub(crate) fn poll_discard(&mut self, cx: &mut Context<'_>, most: &mut usize) -> Poll<()> {
        self.input.clear();
        while *most > 0 && !self.fin && !self.broken {
            match ready!(self.poll_fill_head(cx)) {
                Ok(n) => *most = most.saturating_sub(n),
                Err(_) => break,
            }
            self.input.clear();
        }
        Poll::Ready(())
    }

    /// Tell the client that nothing more comes.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.io).poll_shutdown(cx).map(drop)
    }
}
