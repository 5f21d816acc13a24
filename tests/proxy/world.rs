//! A whole proxy in the test's process: config text in, a listening address out.

use crate::origin::find;
use evenkeel::{clock, config, control, edge, live, spool};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A running proxy with one route `all` on service `app`.
pub struct World {
    pub address: SocketAddr,
    pub edge: edge::Edge,
    pub published: Arc<live::Published>,
    pub spool: Option<spool::Spool>,
    _state: tempfile::TempDir,
}

/// Everything about a world that tests change.
#[derive(Clone, Copy)]
pub struct Wishes<'a> {
    /// Regions with the addresses of their endpoints.
    pub regions: &'a [(&'a str, &'a [SocketAddr])],
    /// Lines of the route, flow style: `deadline: 1s, attempt_timeout: 200ms`.
    pub route: &'a str,
    /// Lines of `limits`.
    pub limits: &'a str,
    /// Further lines of the file.
    pub more: &'a str,
}

impl World {
    pub fn new(w: Wishes<'_>) -> Self {
        let regions: String = w.regions.iter().map(|(n, _)| format!("  {n}: {{weight: 100}}\n")).collect();
        let pools: String = w
            .regions
            .iter()
            .map(|(n, ends)| {
                format!("      {n}: {{endpoints: [{}]}}\n", ends.iter().map(|e| format!("\"{e}\"")).collect::<Vec<_>>().join(", "))
            })
            .collect();
        let text = format!(
            "version: 1\nlisteners: [{{address: 127.0.0.1:0}}]\nadmin: null\nlimits: {{{}}}\nregions:\n{regions}services:\n  app:\n    \
             health: null\n    idle_connections: {{warm: 0}}\n    pools:\n{pools}routes:\n  - {{name: all, match: {{path_prefix: /}}, service: app, {}}}\n{}",
            w.limits, w.route, w.more
        );
        Self::of(&text)
    }

    /// Of a whole config.
    pub fn of(text: &str) -> Self {
        let state = tempfile::tempdir().unwrap();
        let loaded = config::parse(text, Path::new("test.yaml")).unwrap_or_else(|p| panic!("{:?}\n{text}", p.headlines()));
        let compiled = Arc::new(loaded.compile(1));
        let (inbox, from) = live::inbox();
        let beats = Arc::new(live::Beats::new(2));
        let store = control::store::Store::start(state.path().to_owned()).unwrap();
        let control = control::Control::new(compiled.clone(), inbox, beats.clone(), store, clock::dice());
        let published = control.published();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(control.run(from));
        });
        let (access, _) = edge::access::channel();
        let settings = spool::Settings { path: state.path().join("spool"), ..spool::Settings::of(&compiled.topology) };
        let spool = settings.wanted.then(|| spool::Spool::start(settings, Box::new(drop)).unwrap());
        let setup = edge::Setup { published: published.clone(), beats, access, traces: edge::trace::channel().0, spool: spool.clone() };
        let edge = edge::Edge::start(&setup, 2).unwrap();
        edge.listeners().apply(&compiled.topology).unwrap();
        Self { address: edge.listeners().doors()[0].local, edge, published, spool, _state: state }
    }

    /// One region `east` in front of one origin.
    pub fn one(origin: SocketAddr) -> Self {
        Self::with(origin, "deadline: 5s")
    }

    /// Likewise, with these lines in the route.
    pub fn with(origin: SocketAddr, route: &str) -> Self {
        Self::new(Wishes { regions: &[("east", &[origin])], route, limits: "", more: "" })
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// Ask once, on a connection of its own.
    pub fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut client = self.client();
        client.send(request);
        client.answer()
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask(format!("GET {path} HTTP/1.1\r\nHost: t.test\r\n\r\n"))
    }
}

/// A client that looks closely.
pub struct Client {
    pub socket: TcpStream,
    pub input: Vec<u8>,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As its framing says.
    Complete,
    /// With the connection, and the framing allows that.
    Closed,
    /// Before its framing says.
    Truncated,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    pub end: End,
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<String> {
        self.head.lines().find_map(|l| l.split_once(':').filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim().to_owned()))
    }
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Client {
    pub fn connect(to: SocketAddr) -> Self {
        let socket = TcpStream::connect(to).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self { socket, input: Vec::new() }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).unwrap();
    }

    /// False: the connection ended.
    pub fn fill(&mut self) -> bool {
        let mut buf = [0; 65536];
        match self.socket.read(&mut buf) {
            Ok(n) if n > 0 => {
                self.input.extend_from_slice(&buf[..n]);
                true
            }
            _ => false,
        }
    }

    /// Whether the server has closed, within a second.
    pub fn closed(&mut self) -> bool {
        self.socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        let mut byte = [0];
        matches!(self.socket.read(&mut byte), Ok(0))
            || self.socket.peek(&mut byte).is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset)
    }

    pub fn head(&mut self) -> String {
        loop {
            if let Some(end) = find(&self.input, b"\r\n\r\n") {
                return String::from_utf8(self.input.drain(..end + 4).collect()).unwrap();
            }
            assert!(self.fill(), "connection ended within a head: {:?}", String::from_utf8_lossy(&self.input));
        }
    }

    pub fn answer(&mut self) -> Answer {
        self.answer_to("GET")
    }

    pub fn answer_to(&mut self, method: &str) -> Answer {
        let head = self.head();
        let status = head[9..12].parse().unwrap();
        let mut answer = Answer { status, head, body: Vec::new(), end: End::Complete };
        if status == 100 {
            return self.answer_to(method);
        }
        if method == "HEAD" || status == 204 || status == 304 || status == 101 {
            return answer;
        }
        if answer.field("transfer-encoding").is_some() {
            while answer.end == End::Complete {
                match self.chunk() {
                    Some(chunk) if chunk.is_empty() => break,
                    Some(chunk) => answer.body.extend(chunk),
                    None => answer.end = End::Truncated,
                }
            }
        } else if let Some(length) = answer.field("content-length") {
            let length: usize = length.parse().unwrap();
            while self.input.len() < length && self.fill() {}
            let here = length.min(self.input.len());
            answer.body = self.input.drain(..here).collect();
            answer.end = if here == length { End::Complete } else { End::Truncated };
        } else {
            while self.fill() {}
            answer.body = std::mem::take(&mut self.input);
            answer.end = End::Closed;
        }
        answer
    }

    fn chunk(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(line) = find(&self.input, b"\r\n") {
                let size = usize::from_str_radix(std::str::from_utf8(&self.input[..line]).unwrap(), 16).unwrap();
                let end = line + 2 + size + 2;
                if self.input.len() >= end {
                    let chunk = self.input[line + 2..line + 2 + size].to_vec();
                    self.input.drain(..end);
                    return Some(chunk);
                }
            }
            if !self.fill() {
                return None;
            }
        }
    }
}

/// Look again and again, for at most five seconds.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
