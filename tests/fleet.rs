//! Five edges and a NATS server, as processes: orders that reach all of them, and faults that they see alone or together. Each edge has
//! a way of its own to every region (an origin of its own), so that one edge's way can be cut and not another's.
//!
//! Needs `nats-server` (Debian package of that name); where there is none the tests say so and pass.

#![allow(clippy::disallowed_methods)] // outside the program there is no clock.rs: polls with a deadline

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const EDGES: usize = 5;
const REGIONS: [&str; 2] = ["east", "west"];

fn until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(40), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    began.elapsed()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// One edge's way to a region.
struct Way {
    port: u16,
    /// Nothing comes through: what is asked is never answered.
    cut: Arc<AtomicBool>,
    /// Requests answered, probes not counted.
    served: Arc<AtomicU64>,
}

fn way() -> Way {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let way = Way { port: listener.local_addr().unwrap().port(), cut: Arc::default(), served: Arc::default() };
    let (cut, served) = (way.cut.clone(), way.served.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (cut, served) = (cut.clone(), served.clone());
            std::thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let (mut stream, mut probe) = (stream, false);
                while let Some(Ok(line)) = lines.next() {
                    probe |= line.starts_with("GET /healthz");
                    if !line.is_empty() {
                        continue;
                    }
                    while cut.load(Relaxed) {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_err() {
                        return;
                    }
                    served.fetch_add(u64::from(!probe), Relaxed);
                    probe = false;
                }
            });
        }
    });
    way
}

/// A request of its own connection: status and body; 0: no answer.
fn ask(port: u16, line: &str, body: &str) -> (u16, String) {
    let Ok(mut s) = TcpStream::connect(("127.0.0.1", port)) else { return (0, String::new()) };
    s.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let head = format!("{line} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let _ = s.write_all(head.as_bytes());
    let mut text = String::new();
    let _ = s.read_to_string(&mut text);
    let status = text.get(9..12).and_then(|s| s.parse().ok()).unwrap_or(0);
    (status, text.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.into()))
}

struct Nats {
    port: u16,
    program: PathBuf,
    store: PathBuf,
    child: Child,
}

impl Nats {
    /// `None`: there is none on this machine.
    fn start(dir: &Path) -> Option<Self> {
        Self::start_with(dir, "")
    }
    /// With more in its config.
    fn start_with(dir: &Path, more: &str) -> Option<Self> {
        let places = std::env::var_os("PATH").unwrap_or_default();
        let program = std::env::split_paths(&places).chain(["/usr/sbin".into()]).map(|p| p.join("nats-server")).find(|p| p.exists());
        let Some(program) = program else {
            eprintln!("SKIPPED: there is no nats-server on this machine (Debian package nats-server)");
            return None;
        };
        let (port, store) = (free_port(), dir.join("nats"));
        std::fs::write(dir.join("nats.conf"), more).unwrap();
        let child = Self::spawn(&program, port, &store);
        Some(Self { port, program, store, child })
    }
    fn spawn(program: &Path, port: u16, store: &Path) -> Child {
        let mut command = Command::new(program);
        command.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"]).arg(store).arg("-c").arg(store.with_extension("conf"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until("NATS listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        child
    }
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
    fn again(&mut self) {
        self.child = Self::spawn(&self.program, self.port, &self.store);
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Edge {
    process: Child,
    port: u16,
    admin: u16,
    ways: Vec<Way>,
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Edge {
    fn status(&self) -> Value {
        let (code, body) = ask(self.admin, "GET /v1/status", "");
        if code == 200 { serde_json::from_str(&body).unwrap() } else { Value::Null }
    }
    fn state(&self, region: &str) -> String {
        let s = self.status();
        let pool = s["pools"].as_array().and_then(|p| p.iter().find(|p| p["region"] == *region));
        pool.map_or(String::new(), |p| p["state"].as_str().unwrap().into())
    }
    fn share(&self, region: &str) -> f64 {
        let s = self.status();
        let pool = s["pools"].as_array().and_then(|p| p.iter().find(|p| p["region"] == *region));
        pool.map_or(-1.0, |p| p["share"].as_f64().unwrap())
    }
    fn drained(&self, region: &str) -> bool {
        let s = self.status();
        s["regions"].as_array().is_some_and(|r| r.iter().any(|r| r["name"] == *region && !r["drained"].is_null()))
    }
    fn cut(&self, region: usize, cut: bool) {
        self.ways[region].cut.store(cut, Relaxed);
    }
    fn post(&self, path: &str, body: &str) -> (u16, String) {
        ask(self.admin, &format!("POST {path}"), body)
    }
}

/// Users of all edges, until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    users: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    /// About `rate` requests per second at every edge.
    fn start(edges: &[Edge], rate: u64) -> Self {
        let load = Self { stop: Arc::default(), sent: Arc::default(), failed: Arc::default(), users: Vec::new() };
        let user = |edge: &Edge| {
            let (port, stop, sent, failed) = (edge.port, load.stop.clone(), load.sent.clone(), load.failed.clone());
            std::thread::spawn(move || {
                let mut line: Option<BufReader<TcpStream>> = None;
                while !stop.load(Relaxed) {
                    let began = Instant::now();
                    let mut once = || -> std::io::Result<bool> {
                        let mut kept = match line.take() {
                            Some(kept) => kept,
                            None => BufReader::new(TcpStream::connect(("127.0.0.1", port))?),
                        };
                        kept.get_ref().set_read_timeout(Some(Duration::from_secs(10)))?;
                        kept.get_mut().write_all(b"GET / HTTP/1.1\r\nhost: app\r\n\r\n")?;
                        let (mut status, mut length, mut close) = (String::new(), 0, false);
                        kept.read_line(&mut status)?;
                        loop {
                            let mut field = String::new();
                            kept.read_line(&mut field)?;
                            let field = field.trim().to_ascii_lowercase();
                            length = field.strip_prefix("content-length: ").and_then(|n| n.parse().ok()).unwrap_or(length);
                            close |= field == "connection: close";
                            if field.is_empty() {
                                break;
                            }
                        }
                        let mut body = vec![0; length];
                        kept.read_exact(&mut body)?;
                        line = (!close).then_some(kept);
                        Ok(status.starts_with("HTTP/1.1 200"))
                    };
                    if !once().unwrap_or(false) {
                        failed.fetch_add(1, Relaxed);
                    }
                    sent.fetch_add(1, Relaxed);
                    std::thread::sleep(Duration::from_micros(1_000_000 / rate).saturating_sub(began.elapsed()));
                }
            })
        };
        let users = edges.iter().map(user).collect();
        Self { users, ..load }
    }
    fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }
    fn end(self) {
        self.stop.store(true, Relaxed);
        self.users.into_iter().for_each(|u| u.join().unwrap());
    }
}

fn fleet(dir: &Path, nats: &Nats, verdicts: &str) -> Vec<Edge> {
    let block = format!("{{nats: {{servers: ['nats://127.0.0.1:{}']}}, verdicts: {verdicts}}}", nats.port);
    let edges = start(dir, 1..=EDGES, &block);
    until("every edge hears all others", || edges.iter().all(|e| agrees(&e.status())));
    edges
}

/// Edges of these numbers with this `fleet` block.
fn start(dir: &Path, which: std::ops::RangeInclusive<usize>, block: &str) -> Vec<Edge> {
    which
        .map(|i| {
            let (port, admin, ways) = (free_port(), free_port(), vec![way(), way()]);
            let config = dir.join(format!("edge-{i}.yaml"));
            let text = format!(
                "version: 1
edge: {{name: edge-{i}, threads: 1, state_dir: {state}, drain_timeout: 1s}}
listeners: [{{address: '127.0.0.1:{port}'}}]
admin: {{address: '127.0.0.1:{admin}'}}
regions: {{east: {{}}, west: {{}}}}
services:
  app:
    pools: {{east: {{endpoints: ['127.0.0.1:{}']}}, west: {{endpoints: ['127.0.0.1:{}']}}}}
    health: {{interval: 200ms, timeout: 300ms}}
routes: [{{name: all, match: {{path_prefix: /}}, service: app, deadline: 8s, attempt_timeout: 1s}}]
failover: {{open: 1s..4s}}
recovery: {{hold: 500ms, trial_successes: 2, trial_share: 5%, steps: [10%, 50%, 100%], step_time: 4s}}
fleet: {block}
",
                ways[0].port,
                ways[1].port,
                state = dir.join(format!("state-{i}")).display(),
            );
            std::fs::write(&config, text).unwrap();
            let log = std::fs::File::create(dir.join(format!("edge-{i}.log"))).unwrap();
            let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
            command.args(["run", "--config"]).arg(&config).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
            Edge { process: command.spawn().unwrap(), port, admin, ways }
        })
        .collect()
}

fn agrees(s: &Value) -> bool {
    let f = &s["fleet"];
    f["connected"] == true && f["quorum"] == true && f["live"] == EDGES && f["notes"].as_array().is_some_and(Vec::is_empty)
}

fn tripped(edges: &[Edge], region: &str) -> Vec<usize> {
    (0..edges.len()).filter(|i| edges[*i].state(region) == "tripped").collect()
}

/// Everything serves on every edge, for long enough that nothing is on its way.
fn calm(edges: &[Edge]) {
    until("all is well again", || edges.iter().all(|e| REGIONS.iter().all(|r| e.state(r) == "serving")));
}

#[test]
fn orders_reach_everybody_and_nats_is_not_needed_to_serve() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut nats) = Nats::start(dir.path()) else { return };
    let edges = fleet(dir.path(), &nats, "advise");
    let load = Load::start(&edges, 40);
    until("traffic flows", || load.sent.load(Relaxed) > 100);

    // An order given at one edge holds on all. The best of three: the machine may be busy.
    let mut best = Duration::MAX;
    for round in 0..3 {
        let began = Instant::now();
        let (code, answer) = edges[round].post("/v1/regions/west/drain", r#"{"reason": "power works", "force": true}"#);
        assert_eq!(code, 200, "{answer}");
        assert!(answer.contains("the fleet has it"), "{answer}");
        until("a drain reaches all", || edges.iter().all(|e| e.drained("west")));
        best = best.min(began.elapsed());
        assert_eq!(edges[4].post("/v1/regions/west/undrain", "").0, 200);
        until("and its end", || edges.iter().all(|e| !e.drained("west")));
    }
    eprintln!("a drain reached {EDGES} edges in {best:?}");
    assert!(best < Duration::from_secs(1), "{best:?}");

    // Two operators: the second is told who was first.
    assert_eq!(edges[0].post("/v1/regions/west/drain", r#"{"reason": "first", "force": true}"#).0, 200);
    until("the others know", || edges.iter().all(|e| e.drained("west")));
    let (code, answer) = edges[1].post("/v1/pools/app/west/trip", r#"{"reason": "another matter"}"#);
    assert_eq!(code, 200, "{answer}");
    assert_eq!(edges[1].post("/v1/pools/app/west/reset", "").0, 200);
    let (code, answer) = edges[1].post("/v1/regions/west/drain", r#"{"reason": "second", "revision": 1, "force": true}"#);
    assert!(code == 409 && answer.contains("through edge-1") && answer.contains("first"), "{code} {answer}");
    let who = edges[3].status()["regions"][1]["drained"]["by"].to_string();
    assert!(who.contains("fleet") && who.contains("edge-1"), "{who}");

    // NATS dies: the order holds, requests do not notice.
    nats.kill();
    until("the edges say so", || edges.iter().all(|e| e.status()["fleet"]["connected"] == false));
    assert!(edges.iter().all(|e| e.drained("west")));
    let (_, page) = ask(edges[2].admin, "GET /metrics", "");
    assert!(page.contains("evenkeel_fleet_connected 0"), "metrics say so");
    // An order given meanwhile holds where it was given.
    let (code, answer) = edges[2].post("/v1/regions/west/undrain", "");
    assert!(code == 200 && answer.contains("this edge alone"), "{answer}");
    assert!(!edges[2].drained("west") && edges[3].drained("west"));
    // With one region drained the other's loss would be everybody's: this edge alone has both, and fails over by its own eyes.
    edges[2].cut(0, true);
    until("it fails over by its own eyes", || tripped(&edges, "east") == [2]);
    edges[2].cut(0, false);

    nats.again();
    let took = until("they agree again", || edges.iter().all(|e| agrees(&e.status()) && !e.drained("west")));
    eprintln!("agreed {took:?} after NATS was back");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(load.failed(), 0, "requests that failed, of {}", load.sent.load(Relaxed));
    load.end();
}

#[test]
fn one_edge_moves_alone_and_three_of_five_do_not_move_the_others_by_advice() {
    let dir = tempfile::tempdir().unwrap();
    let Some(nats) = Nats::start(dir.path()) else { return };
    let edges = fleet(dir.path(), &nats, "advise");
    let load = Load::start(&edges, 40);
    until("everybody has an opinion", || {
        edges.iter().all(|e| e.status()["fleet"]["edges"].as_array().unwrap().iter().all(|o| o["pools"]["app/east"]["opinion"] == "well"))
    });

    edges[0].cut(0, true);
    until("the edge that is cut off moves", || tripped(&edges, "east") == [0]);
    until("and suspects its own uplink", || edges[0].status()["fleet"]["alone"] == serde_json::json!(["east"]));
    assert_eq!(tripped(&edges, "east"), [0], "nobody else moved");
    let (_, page) = ask(edges[1].admin, "GET /metrics", "");
    assert!(page.contains(r#"evenkeel_fleet_opinions{service="app",region="east",opinion="down"} 1"#), "others know who thinks what");
    edges[0].cut(0, false);
    calm(&edges);
    until("its uplink is trusted again", || edges[0].status()["fleet"]["alone"] == serde_json::json!([]));

    edges[..3].iter().for_each(|e| e.cut(0, true));
    let took = until("three move", || tripped(&edges, "east") == [0, 1, 2]);
    eprintln!("three of five moved within {took:?}");
    until("the others hear that they did", || {
        edges[4].status()["fleet"]["edges"].as_array().unwrap().iter().filter(|o| o["pools"]["app/east"]["opinion"] == "down").count() == 3
    });
    let hold = Instant::now();
    while hold.elapsed() < Duration::from_secs(2) {
        assert!(edges[3..].iter().all(|e| e.state("east") == "serving"), "advice overrules no success");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(load.failed(), 0, "requests that failed, of {}", load.sent.load(Relaxed));
    load.end();
}

#[test]
fn followers_follow_three_of_five_and_the_way_back_is_shared() {
    let dir = tempfile::tempdir().unwrap();
    let Some(nats) = Nats::start(dir.path()) else { return };
    let edges = fleet(dir.path(), &nats, "follow");
    let load = Load::start(&edges, 60);
    until("everybody has an opinion", || {
        edges.iter().all(|e| e.status()["fleet"]["edges"].as_array().unwrap().iter().all(|o| o["pools"]["app/east"]["opinion"] == "well"))
    });
    edges[..3].iter().for_each(|e| e.cut(0, true));
    let took = until("the others follow", || tripped(&edges, "east").len() == EDGES);
    eprintln!("all five moved within {took:?}");
    let cause = edges[4].status()["pools"][0]["cause"].to_string();
    assert!(cause.contains("3 of 5 edges"), "{cause}");
    edges.iter().for_each(|e| e.cut(0, false));

    // The way back: while all are on one step, the region gets that step's part of all requests.
    let served = || edges.iter().map(|e| e.ways[0].served.load(Relaxed)).sum::<u64>();
    let mut sums = std::collections::BTreeMap::<u64, (u64, u64, u32)>::new();
    let mut before: Option<(u64, u64, u64)> = None;
    let (mut together, mut looks) = (0, 0);
    until("the ramp is complete", || {
        let shares: Vec<u64> = edges.iter().map(|e| (e.share("east") * 1000.0).round() as u64).collect();
        let (east, all) = (served(), load.sent.load(Relaxed));
        let on_the_way = shares.iter().any(|s| *s > 0 && *s < 490);
        let same = shares.iter().all(|s| s.abs_diff(shares[0]) <= 5) && shares[0] > 0;
        let now = same.then_some((shares[0], east, all));
        if on_the_way {
            looks += 1;
            together += u32::from(same);
        }
        if let (Some((s, e, a)), Some((s2, e2, a2))) = (before, now)
            && s == s2
        {
            let sum = sums.entry(s).or_default();
            *sum = (sum.0 + e2 - e, sum.1 + a2 - a, sum.2 + 1);
        }
        before = now;
        edges.iter().all(|e| e.state("east") == "serving")
    });
    eprintln!("share (of 1000): requests at the region, of all, looks: {sums:?}; all on one step in {together} of {looks} looks");
    // Forty expected at least: below that chance alone is a fifth.
    let mut steps = 0;
    for (share, (east, all, _)) in sums.iter().filter(|(s, (_, all, _))| **s < 490 && **s * all >= 40_000) {
        let (want, got) = (*share as f64 / 1000.0, *east as f64 / *all as f64);
        assert!((got - want).abs() <= 0.2 * want, "the region got {got:.4} of all requests on a step of {want}");
        steps += 1;
    }
    assert!(steps >= 1, "no step was long enough to count: {sums:?}");
    assert!(together * 2 > looks, "the edges climb together: {together} of {looks}");
    assert_eq!(load.failed(), 0, "requests that failed, of {}", load.sent.load(Relaxed));
    load.end();
}

#[test]
fn tls_and_a_token_towards_nats() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(file("nats.pem"), made.cert.pem()).unwrap();
    std::fs::write(file("nats.key"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(file("token"), "open sesame\n").unwrap();
    std::fs::write(file("wrong"), "open barley\n").unwrap();
    let more = format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\" }}\nauthorization {{ token: \"open sesame\" }}\n",
        file("nats.pem"),
        file("nats.key")
    );
    let Some(nats) = Nats::start_with(dir.path(), &more) else { return };
    let block = |token: &str, ca: &str| {
        format!("{{nats: {{servers: ['tls://127.0.0.1:{}'], token_file: {}, ca: {}}}}}", nats.port, file(token), file(ca))
    };
    let edges = start(dir.path(), 1..=2, &block("token", "nats.pem"));
    let heard = |e: &Edge| e.status()["fleet"]["live"] == 2 && e.status()["fleet"]["connected"] == true;
    until("two edges with the token hear each other", || edges.iter().all(heard));
    assert_eq!(edges[0].post("/v1/regions/west/drain", r#"{"reason": "over TLS", "force": true}"#).0, 200);
    until("orders pass", || edges[1].drained("west"));

    // Another token: it stands alone and says why. What is ordered there holds there.
    let apart = dir.path().join("apart");
    std::fs::create_dir(&apart).unwrap();
    let stranger = start(&apart, 3..=3, &block("wrong", "nats.pem"));
    until("it is refused, and says why", || {
        let s = stranger[0].status();
        s["fleet"]["connected"] == false && s["fleet"]["link"].as_str().is_some_and(|l| l.to_ascii_lowercase().contains("authorization"))
    });
    let (code, answer) = stranger[0].post("/v1/regions/west/drain", r#"{"reason": "alone", "force": true}"#);
    assert!(code == 200 && answer.contains("this edge alone"), "{code} {answer}");
}

#[test]
fn a_server_that_hangs_or_loses_its_store_takes_no_order_away() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut nats) = Nats::start(dir.path()) else { return };
    let block = format!("{{nats: {{servers: ['nats://127.0.0.1:{}']}}}}", nats.port);
    let edges = start(dir.path(), 1..=2, &block);
    let hears = |s: &Value| s["connected"] == true && s["live"] == 2 && s["notes"].as_array().is_some_and(Vec::is_empty);
    let agree = || edges.iter().all(|e| hears(&e.status()["fleet"]));
    until("they hear each other", agree);
    let order = r#"{"reason": "power works", "force": true}"#;

    // It hangs: the order is given within the patience for it, holds here, and is told later.
    let signal = |pid: u32, what: &str| assert!(Command::new("kill").args([what, &pid.to_string()]).status().unwrap().success());
    signal(nats.child.id(), "-STOP");
    let (code, answer) = edges[0].post("/v1/regions/west/drain", order);
    assert!(code == 200 && answer.contains("this edge alone") && edges[0].drained("west"), "{code} {answer}");
    until("a server that hangs counts as one that is gone", || edges.iter().all(|e| e.status()["fleet"]["connected"] == false));
    signal(nats.child.id(), "-CONT");
    until("the fleet is told", || agree() && edges[1].drained("west"));

    // It loses everything: what holds is put back, and can be lifted for all.
    nats.kill();
    std::fs::remove_dir_all(&nats.store).unwrap();
    nats.again();
    until("they meet again", agree);
    assert!(edges.iter().all(|e| e.drained("west")));
    let newcomer = start(dir.path(), 3..=3, &block);
    until("a newcomer learns of it", || newcomer[0].drained("west"));
    assert_eq!(newcomer[0].post("/v1/regions/west/undrain", "").0, 200);
    until("lifted for all", || edges.iter().all(|e| !e.drained("west")));
}
