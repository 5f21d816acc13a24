//! `evenkeel run` from outside: the process, its file, its signals. Real sockets on loopback, the real program.

#![allow(clippy::disallowed_methods)] // these threads are a user's, who has a clock of his own and waits

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What is waited for must come within this time, on a machine however busy.
const PATIENCE: Duration = Duration::from_secs(20);

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < PATIENCE, "{what} does not come true");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn free() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// A region of one app server that answers with its name; `/slow` after a while.
fn region(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            std::thread::spawn(move || serve(socket, name));
        }
    });
    at
}

fn serve(mut socket: TcpStream, name: &str) {
    let mut head = Vec::new();
    let mut byte = [0; 1024];
    while let Ok(n @ 1..) = socket.read(&mut byte) {
        head.extend_from_slice(&byte[..n]);
        if head.starts_with(b"GET /ws") && head.ends_with(b"\r\n\r\n") {
            let _ = socket.write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
            while let Ok(n @ 1..) = socket.read(&mut byte) {
                let _ = socket.write_all(&byte[..n]);
            }
            return;
        }
        if head.ends_with(b"\r\n\r\n") {
            if head.starts_with(b"GET /slow") {
                std::thread::sleep(Duration::from_millis(700));
            }
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
            if socket.write_all(answer.as_bytes()).is_err() {
                return;
            }
            head.clear();
        }
    }
}

/// Status and body; 0: no answer.
fn get(at: SocketAddr, path: &str) -> (u16, String) {
    let ask = || -> std::io::Result<String> {
        let mut socket = TcpStream::connect_timeout(&at, Duration::from_secs(2))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        write!(socket, "GET {path} HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().unwrap_or_default();
    let status = answer.get(9..12).and_then(|s| s.parse().ok()).unwrap_or(0);
    (status, answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
}

/// A client that keeps its connection for as long as it may.
struct Keeper {
    at: SocketAddr,
    socket: Option<TcpStream>,
}

impl Keeper {
    /// Asks once more; false: no good answer.
    fn ask(&mut self) -> bool {
        let mut ask = || -> std::io::Result<bool> {
            let mut socket = match self.socket.take() {
                Some(socket) => socket,
                None => TcpStream::connect(self.at)?,
            };
            socket.set_read_timeout(Some(PATIENCE))?;
            write!(socket, "GET / HTTP/1.1\r\nhost: {}\r\n\r\n", self.at)?;
            let (mut answer, mut buf) = (String::new(), [0; 1024]);
            while !answer.ends_with("st") {
                match socket.read(&mut buf)? {
                    0 => return Ok(false),
                    n => answer.push_str(&String::from_utf8_lossy(&buf[..n])),
                }
            }
            if !answer.to_ascii_lowercase().contains("connection: close") {
                self.socket = Some(socket);
            }
            Ok(answer.starts_with("HTTP/1.1 200"))
        };
        ask().unwrap_or(false)
    }
}

/// Bytes both ways through the proxy, as a WebSocket would send them.
struct Tunnel(TcpStream);

impl Tunnel {
    fn open(at: SocketAddr) -> Self {
        let mut socket = TcpStream::connect(at).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(socket, "GET /ws HTTP/1.1\r\nhost: {at}\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n").unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            socket.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101"));
        Self(socket)
    }
    fn echoes(&mut self) -> bool {
        let mut back = [0; 4];
        self.0.write_all(b"ping").is_ok() && self.0.read_exact(&mut back).is_ok() && &back == b"ping"
    }
}

/// Users with fresh connections and with kept ones, until told to stop: how many answers were good, and how many were not.
struct Load {
    stop: Arc<AtomicBool>,
    good: Arc<AtomicUsize>,
    users: Vec<std::thread::JoinHandle<usize>>,
}

impl Load {
    fn on(at: SocketAddr) -> Self {
        let (stop, good) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let user = |i: usize| {
            let (stop, good) = (stop.clone(), good.clone());
            std::thread::spawn(move || {
                let (mut keeper, mut bad) = (Keeper { at, socket: None }, 0);
                while !stop.load(Relaxed) {
                    let fine = if i.is_multiple_of(2) { get(at, "/").0 == 200 } else { keeper.ask() };
                    bad += usize::from(!fine);
                    good.fetch_add(usize::from(fine), Relaxed);
                    std::thread::sleep(Duration::from_millis(3));
                }
                bad
            })
        };
        Self { users: (0..6).map(user).collect(), stop, good }
    }
    fn more(&self, answers: usize) {
        let now = self.good.load(Relaxed);
        until("there are more answers", || self.good.load(Relaxed) >= now + answers);
    }
    fn bad(self) -> usize {
        self.stop.store(true, Relaxed);
        self.users.into_iter().map(|u| u.join().unwrap()).sum()
    }
}

struct Bench {
    dir: tempfile::TempDir,
    http: SocketAddr,
    admin: SocketAddr,
    east: SocketAddr,
    west: SocketAddr,
}

impl Bench {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), http: free(), admin: free(), east: region("east"), west: region("west") }
    }
    fn config(&self) -> PathBuf {
        self.dir.path().join("evenkeel.yaml")
    }
    fn text(&self, east: u32, west: u32, edge: &str) -> String {
        format!(
            "version: 1\n\
             edge: {{threads: 2, state_dir: state{edge}}}\n\
             listeners: [{{address: \"{}\"}}]\n\
             admin: {{address: \"{}\"}}\n\
             regions: {{east: {{weight: {east}}}, west: {{weight: {west}}}}}\n\
             services: {{app: {{pools: {{east: {{endpoints: [\"{}\"]}}, west: {{endpoints: [\"{}\"]}}}}, health: {{interval: 100ms, path: /}}}}}}\n\
             routes: [{{name: all, match: {{path_prefix: /}}, service: app}}]\n",
            self.http, self.admin, self.east, self.west
        )
    }
    /// As careful scripts do: a new file, renamed over the old one.
    fn write(&self, text: &str) {
        let next = self.dir.path().join("next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, self.config()).unwrap();
    }
    fn start(&self, more: &[&str]) -> Running {
        let mut running = Running(
            Command::new(env!("CARGO_BIN_EXE_evenkeel"))
                .args(["run", "--config"])
                .arg(self.config())
                .args(more)
                .stderr(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .unwrap(),
        );
        until("the proxy answers", || {
            assert!(running.0.try_wait().unwrap().is_none(), "it left: {}", running.said());
            get(self.http, "/").0 == 200
        });
        running
    }
    fn status(&self) -> serde_json::Value {
        serde_json::from_str(&get(self.admin, "/v1/status").1).unwrap_or_default()
    }
}

struct Running(Child);

impl Running {
    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.0.id().to_string()]).status().unwrap().success());
    }
    fn code(&mut self) -> Option<i32> {
        until("the proxy leaves", || self.0.try_wait().unwrap().is_some());
        self.0.wait().unwrap().code()
    }
    fn said(&mut self) -> String {
        let mut text = String::new();
        let _ = self.0.stderr.take().map(|mut e| e.read_to_string(&mut text));
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run_to_its_end(b: &Bench, more: &[&str]) -> (Option<i32>, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_evenkeel")).args(["run", "--config"]).arg(b.config()).args(more).output().unwrap();
    (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
}

#[test]
fn what_cannot_run_says_why_and_leaves_with_2() {
    let b = Bench::new();
    let (code, why) = run_to_its_end(&b, &[]);
    assert!(code == Some(2) && why.contains("evenkeel.yaml"), "{code:?} {why}");
    b.write(&b.text(1, 1, "").replace("threads: 2", "threads: many"));
    let (code, why) = run_to_its_end(&b, &[]);
    assert!(code == Some(2) && why.contains("evenkeel.yaml:2:") && why.contains("edge.threads"), "{code:?} {why}");
    let taken = TcpListener::bind(b.http).unwrap();
    b.write(&b.text(1, 1, ""));
    let (code, why) = run_to_its_end(&b, &[]);
    assert!(code == Some(2) && why.contains(&b.http.to_string()), "{code:?} {why}");
    assert!(!b.dir.path().join("state/last-good.yaml").exists(), "it was never applied");
    drop(taken);
    let _taken = TcpListener::bind(b.admin).unwrap();
    let (code, why) = run_to_its_end(&b, &[]);
    assert!(code == Some(2) && why.contains("admin.address"), "{code:?} {why}");
}

#[test]
fn a_bad_file_at_boot_is_passed_over_only_on_request() {
    let b = Bench::new();
    b.write(&b.text(100, 0, ""));
    let mut first = b.start(&[]);
    until("the copy lies there", || b.dir.path().join("state/last-good.yaml").exists());
    first.signal("-TERM");
    assert_eq!(first.code(), Some(0));
    b.write(&b.text(100, 0, "").replace("listeners", "listners"));
    assert_eq!(run_to_its_end(&b, &[]).0, Some(2));
    let _again = b.start(&["--last-good"]);
    assert_eq!(get(b.http, "/"), (200, "east".into()));
}

#[test]
fn a_changed_file_is_applied_at_once_and_a_bad_one_is_not() {
    let b = Bench::new();
    b.write(&b.text(100, 0, ""));
    let proxy = b.start(&[]);
    assert_eq!(get(b.http, "/"), (200, "east".into()));
    b.write(&b.text(0, 100, ""));
    until("the new weights rule", || get(b.http, "/").1 == "west");
    b.write("version: 1\nnonsense: true\n");
    until("the refusal shows", || b.status()["config"]["last_error"].as_str().is_some_and(|e| e.contains("nonsense")));
    assert_eq!(get(b.http, "/"), (200, "west".into()));
    b.write(&b.text(100, 0, ""));
    until("a good one follows", || get(b.http, "/").1 == "east");
    assert!(b.status()["config"]["last_error"].is_null());
    let before = b.status()["generation"].as_u64().unwrap();
    // Within two seconds of a change it is taken for a part of it.
    until("a hangup applies it again", || {
        proxy.signal("-HUP");
        b.status()["generation"].as_u64().is_some_and(|g| g > before)
    });
}

#[test]
fn reloads_under_load_fail_nothing_and_shares_are_kept() {
    let b = Bench::new();
    b.write(&b.text(100, 0, ""));
    let _proxy = b.start(&[]);
    let (stop, good, bad) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let (stop, good, bad, http) = (stop.clone(), good.clone(), bad.clone(), b.http);
            std::thread::spawn(move || {
                while !stop.load(Relaxed) {
                    if get(http, "/").0 == 200 { &good } else { &bad }.fetch_add(1, Relaxed);
                }
            })
        })
        .collect();
    for (east, west) in [(0, 100), (30, 70), (100, 0), (50, 50)] {
        b.write(&b.text(east, west, ""));
        let wanted = f64::from(east) / f64::from(east + west);
        let share = || b.status()["pools"].as_array().and_then(|p| p.iter().find(|p| p["region"] == "east")?["share"].as_f64());
        until("the new weights rule", || share().is_some_and(|s| (s - wanted).abs() < 1e-6));
    }
    stop.store(true, Relaxed);
    clients.into_iter().for_each(|c| c.join().unwrap());
    assert_eq!(bad.load(Relaxed), 0, "of {}", good.load(Relaxed));
    let east = (0..1000).filter(|_| get(b.http, "/").1 == "east").count();
    assert!(east.abs_diff(500) <= 10, "{east}");
}

#[test]
fn leaving_lets_requests_come_to_their_end() {
    let b = Bench::new();
    b.write(&b.text(100, 0, ", shutdown_delay: 300ms, drain_timeout: 10s"));
    let mut proxy = b.start(&[]);
    assert_eq!(get(b.admin, "/readyz").0, 200);
    let http = b.http;
    let slow = std::thread::spawn(move || get(http, "/slow"));
    until("it is under way", || b.status()["pools"][0]["inflight"] == 1);
    proxy.signal("-TERM");
    until("it is not ready any more", || get(b.admin, "/readyz").0 == 503);
    assert_eq!(get(b.http, "/").0, 200, "listeners are open until the delay is over");
    until("listeners are closed", || TcpStream::connect(b.http).is_err());
    assert_eq!(slow.join().unwrap(), (200, "east".into()));
    assert_eq!(proxy.code(), Some(0));
}

#[test]
fn a_successor_takes_over_and_nobody_notices() {
    let b = Bench::new();
    b.write(&b.text(50, 50, ", drain_timeout: 15s"));
    let mut old = b.start(&[]);
    let (load, mut tunnel, mut idle) = (Load::on(b.http), Tunnel::open(b.http), Keeper { at: b.http, socket: None });
    assert!(tunnel.echoes() && idle.ask());
    load.more(200);
    let mut new = b.start(&["--takeover"]);
    until("the old one is relieved", || old.0.try_wait().unwrap().is_some() || !idle.ask() || idle.socket.is_none());
    load.more(200);
    assert!(old.0.try_wait().unwrap().is_none(), "it waits for the tunnel");
    assert!(tunnel.echoes(), "the tunnel lives on in the old process");
    drop(tunnel);
    assert_eq!(old.code(), Some(0));
    load.more(200);
    assert_eq!(b.status()["regions"].as_array().map(Vec::len), Some(2), "the admin API has moved as well");
    // A second time, and with a successor that cannot start before: that changes nothing.
    let good = std::fs::read_to_string(b.config()).unwrap();
    let broken = b.dir.path().join("broken.yaml");
    std::fs::write(&broken, good.replace("threads: 2", "threads: 2, nonsense: 1")).unwrap();
    let failed = Command::new(env!("CARGO_BIN_EXE_evenkeel")).args(["run", "--takeover", "--config"]).arg(&broken).output().unwrap();
    assert_eq!(failed.status.code(), Some(2));
    load.more(100);
    // SIGUSR2: the process starts its own successor.
    new.signal("-USR2");
    let children = format!("/proc/{0}/task/{0}/children", new.0.id());
    let mut heir = String::new();
    until("there is a successor", || {
        heir = std::fs::read_to_string(&children).unwrap_or_default().trim().to_owned();
        !heir.is_empty()
    });
    assert_eq!(new.code(), Some(0));
    load.more(200);
    assert_eq!(load.bad(), 0);
    assert!(Command::new("kill").args(["-TERM", &heir]).status().unwrap().success());
    until("the last one leaves", || TcpStream::connect(b.http).is_err());
}

#[test]
fn sockets_can_come_from_systemd() {
    let b = Bench::new();
    b.write(&b.text(100, 0, ""));
    // What systemd does: the socket is descriptor 3, and the process finds its own number in LISTEN_PID.
    let script = format!(
        "import os,socket,sys\ns=socket.socket()\ns.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1)\n\
         s.bind(('127.0.0.1',{}))\ns.listen(64)\nos.dup2(s.fileno(),3)\nos.set_inheritable(3,True)\n\
         os.environ.update(LISTEN_FDS='1',LISTEN_PID=str(os.getpid()))\nos.execv(sys.argv[1],sys.argv[1:])",
        b.http.port()
    );
    let child = Command::new("python3")
        .args(["-c", &script, env!("CARGO_BIN_EXE_evenkeel"), "run", "--config"])
        .arg(b.config())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut proxy = Running(child);
    until("it answers on the socket it was given", || {
        assert!(proxy.0.try_wait().unwrap().is_none(), "it left: {}", proxy.said());
        get(b.http, "/").0 == 200
    });
    proxy.signal("-TERM");
    assert_eq!(proxy.code(), Some(0));
}

#[test]
fn a_tunnel_leaves_a_drained_region_in_bounded_time() {
    let b = Bench::new();
    b.write(&b.text(100, 0, ", drain_timeout: 1s"));
    let mut proxy = b.start(&[]);
    let mut tunnel = Tunnel::open(b.http);
    assert!(tunnel.echoes());
    let drained = Command::new(env!("CARGO_BIN_EXE_evenkeel"))
        .args(["drain", "east", "--reason", "test", "--admin", &format!("http://{}", b.admin)])
        .output()
        .unwrap();
    assert!(drained.status.success(), "{}", String::from_utf8_lossy(&drained.stderr));
    until("new requests go elsewhere", || get(b.http, "/").1 == "west");
    until("the tunnel ends", || !tunnel.echoes());
    proxy.signal("-TERM");
    assert_eq!(proxy.code(), Some(0));
}
