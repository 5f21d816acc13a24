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
    proxy.signal("-HUP");
    until("a hangup applies it again", || b.status()["generation"].as_u64().is_some_and(|g| g > before));
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
