//! Origins that misbehave on demand: one thread per connection, plain blocking sockets.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What an origin received.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// `GET /path`.
    pub line: String,
    /// The whole head.
    pub head: String,
    /// The body, decoded; shorter than announced where `complete` is false.
    pub body: Vec<u8>,
    /// Whether the body came to its end.
    pub complete: bool,
}

impl Request {
    /// A field's value; empty: not there.
    pub fn field(&self, name: &str) -> String {
        let of = |line: &str| line.split_once(':').filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim().to_owned());
        self.head.lines().find_map(of).unwrap_or_default()
    }
}

/// One connection, as a handler sees it.
pub struct Peer {
    pub socket: TcpStream,
    cut: bool,
    input: Vec<u8>,
}

impl Peer {
    /// Write, whatever comes of it.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.socket.write_all(bytes.as_ref());
    }
    /// Answer with 200 and this body.
    pub fn ok(&mut self, body: &str) {
        self.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    }
    /// Close with a reset.
    pub fn reset(&mut self) {
        let _ = socket2::SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
        self.cut = true;
    }
    /// More input. False: there is none.
    pub fn fill(&mut self) -> bool {
        let mut buf = [0; 16384];
        match self.socket.read(&mut buf) {
            Ok(n) if n > 0 => {
                self.input.extend_from_slice(&buf[..n]);
                true
            }
            _ => false,
        }
    }
    /// Some input: what is here already, or more.
    pub fn some(&mut self) -> Vec<u8> {
        if self.input.is_empty() {
            self.fill();
        }
        self.take()
    }
    /// What was read and not yet used.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.input)
    }

    fn head(&mut self) -> Option<Request> {
        loop {
            if let Some(end) = find(&self.input, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.input.drain(..end + 4).collect::<Vec<_>>()).into_owned();
                let line = head.split(" HTTP/").next().unwrap_or_default().to_owned();
                return Some(Request { line, head, ..Request::default() });
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// Wait for the first bytes of a body, and leave them where they are.
    pub fn begun(&mut self) {
        while self.input.is_empty() && self.fill() {}
    }

    /// Read the body that the head announces.
    pub fn body(&mut self, request: &mut Request) {
        if request.field("transfer-encoding").eq_ignore_ascii_case("chunked") {
            while let Some(chunk) = self.chunk() {
                if chunk.is_empty() {
                    request.complete = true;
                    return;
                }
                request.body.extend(chunk);
            }
            return;
        }
        let length: usize = request.field("content-length").parse().unwrap_or(0);
        while self.input.len() < length && self.fill() {}
        let here = self.input.len().min(length);
        request.body = self.input.drain(..here).collect();
        request.complete = here == length;
    }

    fn chunk(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(line) = find(&self.input, b"\r\n") {
                let size = usize::from_str_radix(std::str::from_utf8(&self.input[..line]).ok()?, 16).ok()?;
                if self.input.len() >= line + 2 + size + 2 {
                    let chunk = self.input[line + 2..line + 2 + size].to_vec();
                    self.input.drain(..line + 2 + size + 2);
                    return Some(chunk);
                }
            }
            if !self.fill() {
                return None;
            }
        }
    }
}

pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

type Handler = dyn Fn(&mut Request, &mut Peer) -> bool + Send + Sync;

/// A server on 127.0.0.1 that hands every request to a handler.
pub struct Origin {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    connections: Arc<AtomicUsize>,
    gone: Arc<AtomicBool>,
}

impl Origin {
    /// Every request, its body read, goes to the handler; false closes the connection.
    pub fn new(handler: impl Fn(&Request, &mut Peer) -> bool + Send + Sync + 'static) -> Self {
        Self::raw(move |request, peer| {
            peer.body(request);
            handler(request, peer)
        })
    }

    /// Likewise, but the handler reads the body.
    pub fn raw(handler: impl Fn(&mut Request, &mut Peer) -> bool + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin =
            Self { address: listener.local_addr().unwrap(), seen: Arc::default(), connections: Arc::default(), gone: Arc::default() };
        let (seen, connections, gone) = (origin.seen.clone(), origin.connections.clone(), origin.gone.clone());
        let handler: Arc<Handler> = Arc::new(handler);
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                if gone.load(Ordering::Relaxed) {
                    return;
                }
                connections.fetch_add(1, Ordering::Relaxed);
                let (handler, seen) = (handler.clone(), seen.clone());
                std::thread::spawn(move || serve(socket, &*handler, &seen));
            }
        });
        origin
    }

    /// Answers everything with its name.
    pub fn named(name: &'static str) -> Self {
        Self::new(move |_, peer| {
            peer.ok(name);
            true
        })
    }

    /// What it received so far.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
    /// Connections it accepted so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(socket: TcpStream, handler: &Handler, seen: &Mutex<Vec<Request>>) {
    let _ = socket.set_nodelay(true);
    let mut peer = Peer { socket, cut: false, input: Vec::new() };
    while let Some(mut request) = peer.head() {
        let at = {
            let mut seen = seen.lock().unwrap();
            seen.push(request.clone());
            seen.len() - 1
        };
        let go_on = handler(&mut request, &mut peer);
        seen.lock().unwrap()[at] = request;
        if !go_on {
            break;
        }
    }
    if !peer.cut {
        let _ = peer.socket.shutdown(Shutdown::Both);
    }
}

/// An address where nobody listens.
pub fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
