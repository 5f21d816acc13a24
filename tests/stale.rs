//! Last good copies from outside: what the store takes of the machine's memory, not only by its own count, and that a program that is
//! killed in the middle of an outage has its copies again.

#![allow(clippy::disallowed_methods)] // real processes live on real time

use bytes::Bytes;
use evenkeel::edge::stale::{Copy, Store};
use evenkeel::model::policy::StaleRule;
use evenkeel::steer::lastgood::{Asked, Keep, Key, key};
use http::HeaderMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BOUND: u64 = 256 << 20;

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let kib = status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap() << 10
}

fn name(rule: &StaleRule, none: &HeaderMap, n: u32) -> Key {
    let target = format!("/video/{n:08}/stats?lang=en");
    let asked = Asked { method: "GET", scheme: "https", host: "www.example.com", target: &target, fields: none, certificate: false };
    key("stats", rule, &asked).unwrap()
}

fn copy(n: u32) -> Copy {
    let field = |name: &'static str, value: &str| (Bytes::copy_from_slice(name.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
    Copy {
        status: 200,
        fields: vec![
            field("Content-Type", "application/json"),
            field("ETag", &format!("\"{n:08x}\"")),
            field("Date", "Sat, 21 Nov 2026 10:00:00 GMT"),
        ],
        body: Bytes::copy_from_slice(format!("{{\"id\":{n},\"views\":{},\"pad\":\"{}\"}}", n * 3, "x".repeat(120)).as_bytes()),
        kept_at: 0,
        region: "east".into(),
    }
}

#[test]
fn a_million_keys_keep_within_the_bound() {
    let (store, none) = (Store::new(BOUND, 1 << 20), HeaderMap::new());
    let rule = StaleRule { max_age: Duration::from_secs(3600), key_headers: vec![], ignore_cookies: vec![] };
    let before = resident();
    let mut most = 0;
    for n in 0..1_000_000 {
        store.put(&name(&rule, &none, n), &none, Keep::Yes(vec![]), copy(n));
        if n % 50_000 == 0 {
            most = most.max(resident());
            assert!(store.bytes() <= BOUND);
        }
    }
    let (count, bytes, took) = (store.len(), store.bytes(), most.max(resident()) - before);
    println!("{count} copies, {} MiB by the store's count, {} MiB resident", bytes >> 20, took >> 20);
    assert!(bytes <= BOUND && bytes > BOUND / 10 * 9, "{bytes}: the bound is kept, and used");
    assert!(
        took <= BOUND + BOUND / 8,
        "{} MiB of memory for {} MiB of copies: OVERHEAD in edge/stale.rs is too little",
        took >> 20,
        bytes >> 20
    );
    assert!(count > 250_000, "{count}");
    // A scan pushes out neither itself at once nor what was there before it.
    let there = |n| store.get(&name(&rule, &none, n), &none, 0, Duration::from_secs(1)).is_some();
    assert!(there(999_999) && (0..1_000_000).filter(|n| there(*n)).count() == count);
}

/// Answers reads; while it is down it has no good answer.
fn origin(down: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let down = down.clone();
            std::thread::spawn(move || {
                let (mut input, mut buf) = (Vec::new(), [0; 4096]);
                while let Ok(n @ 1..) = socket.read(&mut buf) {
                    input.extend_from_slice(&buf[..n]);
                    if input.ends_with(b"\r\n\r\n") {
                        input.clear();
                        let status = if down.load(Relaxed) { "500 No" } else { "200 OK" };
                        let _ = socket.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\nhello").as_bytes());
                    }
                }
            });
        }
    });
    address
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what} does not come true");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The whole answer; empty: there is none.
fn ask(at: SocketAddr, path: &str) -> String {
    let ask = || -> std::io::Result<String> {
        let (mut socket, mut answer) = (TcpStream::connect(at)?, String::new());
        write!(socket, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().unwrap_or_default()
}

/// Ends with the test, also with one that fails.
struct Edge {
    process: Child,
    address: SocketAddr,
    admin: SocketAddr,
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Edge {
    fn run(dir: &Path, origin: SocketAddr) -> Self {
        let (address, admin, config) = (free(), free(), dir.join("evenkeel.yaml"));
        let text = format!(
            "version: 1\nedge: {{threads: 1, state_dir: state}}\nlisteners: [{{address: \"{address}\"}}]\nadmin: {{address: \"{admin}\"}}\n\
             regions: {{east: {{}}}}\nservices: {{app: {{health: null, pools: {{east: {{endpoints: [\"{origin}\"]}}}}}}}}\n\
             stale: {{persist: true}}\nroutes: [{{name: all, match: {{}}, service: app, degrade: [{{stale: {{max_age: 1h}}}}]}}]\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
        let process = command.arg("run").arg("--config").arg(&config).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let edge = Self { process, address, admin };
        until("it is ready", || ask(admin, "/readyz").starts_with("HTTP/1.1 200"));
        edge
    }
    fn get(&self, path: &str) -> (u16, bool) {
        let answer = ask(self.address, path);
        (answer[9..12].parse().unwrap(), answer.contains("Evenkeel-Degraded: stale; age="))
    }
    fn holds(&self, entries: u32) -> bool {
        ask(self.admin, "/metrics").contains(&format!("evenkeel_stale_entries {entries}\n"))
    }
    fn purge(&self, pattern: &str) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
        let out = command.args(["stale", "purge", pattern, "--admin", &format!("http://{}", self.admin)]).output().unwrap();
        (out.status.code(), String::from_utf8([out.stdout, out.stderr].concat()).unwrap())
    }
}

#[test]
fn an_edge_that_is_killed_in_an_outage_still_has_its_copies_until_somebody_purges_them() {
    let (dir, down) = (tempfile::tempdir().unwrap(), Arc::new(AtomicBool::new(false)));
    let origin = origin(down.clone());
    let edge = Edge::run(dir.path(), origin);
    for path in ["/video/1", "/video/2", "/pages/1"] {
        assert_eq!(edge.get(path), (200, false));
    }
    until("they are kept", || edge.holds(3));
    // New copies reach the disk every few seconds, and whenever an operator purges, whatever that finds.
    assert_eq!(edge.purge("/none/"), (Some(0), "nothing to change: it was so already\n".into()));
    drop(edge);
    down.store(true, Relaxed);

    let edge = Edge::run(dir.path(), origin);
    assert!(edge.holds(3), "SIGKILL left no time for last words");
    assert_eq!(edge.get("/video/1"), (200, true));
    assert_eq!(edge.purge("/video/"), (Some(0), "2 last good copies purged: /video/\n".into()));
    assert_eq!((edge.get("/video/1"), edge.get("/pages/1")), ((500, false), (200, true)));
    let (code, told) = edge.purge("stats");
    assert!(code != Some(0) && told.contains("there is no route `stats`; there are all"), "{code:?} {told}");
    until("it is on record", || {
        let journal = std::fs::read_to_string(dir.path().join("state/journal/journal-000001.jsonl")).unwrap_or_default();
        journal.lines().any(|l| l.contains("\"stale_purged\"") && l.contains("\"/video/\"") && l.contains("\"local\""))
    });
    drop(edge);
    let edge = Edge::run(dir.path(), origin);
    assert_eq!((edge.get("/video/1"), edge.get("/pages/1")), ((500, false), (200, true)), "what was purged is gone for good");
}
