//! What an operator does, against the whole program: `evenkeel run` as a process, its admin API, and the commands.

#![allow(clippy::disallowed_methods)] // outside the program there is no clock.rs: polls with a deadline

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Answers every request with this text.
fn origin(text: &'static str) -> u16 {
    faulty(text, Arc::new(AtomicU8::new(GOOD)))
}

const GOOD: u8 = 0;
const FAILS: u8 = 1;
const HANGS: u8 = 2;

/// Likewise, while it is well.
fn faulty(text: &'static str, fault: Arc<AtomicU8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let fault = fault.clone();
            std::thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let mut stream = stream;
                while let Some(Ok(line)) = lines.next() {
                    if !line.is_empty() {
                        continue;
                    }
                    let status = match fault.load(Relaxed) {
                        HANGS => {
                            while fault.load(Relaxed) == HANGS {
                                std::thread::sleep(Duration::from_millis(10));
                            }
                            return;
                        }
                        FAILS => "500 No",
                        _ => "200 OK",
                    };
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{text}", text.len());
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn ask(port: u16, line: &str) -> (u16, String) {
    let Ok(mut s) = TcpStream::connect(("127.0.0.1", port)) else { return (0, String::new()) };
    s.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let _ = s.write_all(format!("{line} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").as_bytes());
    let mut text = String::new();
    let _ = s.read_to_string(&mut text);
    let status = text.get(9..12).and_then(|s| s.parse().ok()).unwrap_or(0);
    (status, text.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.into()))
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Ends with the test, also with one that fails.
struct Proxy {
    process: Child,
    port: u16,
    admin: u16,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Proxy {
    fn run(dir: &Path, text: &str) -> Self {
        let (port, admin) = (free_port(), free_port());
        let config = dir.join("evenkeel.yaml");
        std::fs::write(&config, text.replace("PORT", &port.to_string()).replace("ADMIN", &admin.to_string())).unwrap();
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
        let process = command.arg("run").arg("--config").arg(&config).stderr(log).stdout(Stdio::null()).spawn().unwrap();
        let proxy = Self { process, port, admin };
        until("ready", || ask(admin, "GET /readyz").0 == 200);
        proxy
    }
    fn cli(&self, args: &[&str]) -> Output {
        let url = format!("http://127.0.0.1:{}", self.admin);
        Command::new(env!("CARGO_BIN_EXE_evenkeel")).args(args).env("EVENKEEL_ADMIN", url).output().unwrap()
    }
    fn status(&self) -> Value {
        serde_json::from_slice(&self.cli(&["status", "--json"]).stdout).unwrap()
    }
    /// Who answers `n` requests.
    fn answers(&self, n: usize) -> Vec<String> {
        (0..n).map(|_| ask(self.port, "GET /")).map(|(_, body)| body).collect()
    }
}

fn out(o: &Output) -> (Option<i32>, String) {
    (o.status.code(), format!("{}{}", String::from_utf8_lossy(&o.stdout), String::from_utf8_lossy(&o.stderr)))
}

#[test]
fn a_day_of_an_operator() {
    let dir = tempfile::tempdir().unwrap();
    let (east, west) = (origin("east"), origin("west"));
    let state = dir.path().join("state");
    let text = format!(
        "version: 1\nedge: {{name: e1, threads: 1, state_dir: {}, shutdown_delay: 1s}}\n\
         listeners: [{{address: \"127.0.0.1:PORT\"}}]\nadmin: {{address: \"127.0.0.1:ADMIN\"}}\n\
         regions:\n  east: {{weight: 50, fates: [grid]}}\n  west: {{weight: 50}}\n\
         services:\n  app:\n    pools:\n      east: {{endpoints: [\"127.0.0.1:{east}\"]}}\n      west: {{endpoints: [\"127.0.0.1:{west}\"]}}\n    health: null\n\
         routes: [{{name: all, service: app}}]\n",
        state.display()
    );
    let mut proxy = Proxy::run(dir.path(), &text);
    let first = proxy.answers(20);
    assert!((9..=11).contains(&first.iter().filter(|a| *a == "east").count()), "{first:?}");

    // Drained by its fate: nothing goes there, and status says who and why.
    let (code, told) = out(&proxy.cli(&["drain", "grid", "--reason", "power works", "--for", "1h"]));
    assert_eq!(code, Some(0), "{told}");
    until("the drain is in the picture", || proxy.status()["pools"][0]["share"] == 0.0);
    assert!(proxy.answers(20).iter().all(|a| a == "west"));
    let drained = proxy.status()["regions"][0]["drained"].clone();
    assert_eq!((&drained["by"], &drained["reason"]), (&"operator local".into(), &"power works".into()));
    assert!(drained["until"].is_string());

    // The last region is not given away by mistake.
    let (code, told) = out(&proxy.cli(&["drain", "west", "--reason", "oops"]));
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("refused: without west: route all: no region is left"), "{told}");
    assert_eq!(out(&proxy.cli(&["undrain", "east"])).0, Some(0));

    // The operator's last word over the detector.
    assert_eq!(out(&proxy.cli(&["trip", "app/west", "--reason", "a hunch"])).0, Some(0));
    until("tripped", || proxy.status()["pools"][1]["state"] == "tripped");
    assert!(proxy.answers(10).iter().all(|a| a == "east"));
    assert_eq!(out(&proxy.cli(&["reset", "west"])).0, Some(0));
    assert_eq!(out(&proxy.cli(&["freeze", "on"])).0, Some(0));
    assert_eq!(proxy.status()["mode"], "frozen");
    assert_eq!(out(&proxy.cli(&["freeze", "off"])).0, Some(0));
    let (code, told) = out(&proxy.cli(&["trip", "app/mars", "--reason", "x"]));
    assert!(code == Some(2) && told.contains("no pool `app/mars`; there are app/east, app/west"), "{told}");

    // A bad file changes nothing and says why; a good one says what it changes.
    let config = dir.path().join("evenkeel.yaml");
    let good = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, good.replace("weight: 50}", "wight: 50}")).unwrap();
    let (status, body) = ask(proxy.admin, "POST /v1/reload");
    assert!(status == 422 && body.contains("regions.west.wight"), "{status} {body}");
    std::fs::write(&config, good.replace("weight: 50}", "weight: 150}")).unwrap();
    until("the new weight", || (proxy.status()["pools"][0]["share"].as_f64().unwrap() - 0.25).abs() < 0.01);

    // The counts are the client's own.
    let (_, page) = ask(proxy.admin, "GET /metrics");
    assert!(page.contains("evenkeel_requests_total{route=\"all\",outcome=\"ok\"} 50\n"), "{page}");
    assert!(page.contains("evenkeel_drained{region=\"east\"} 0\n"), "{page}");

    // Leaving: not ready at once, and gone in order.
    assert!(Command::new("kill").arg(proxy.process.id().to_string()).status().unwrap().success());
    until("not ready", || ask(proxy.admin, "GET /readyz").0 == 503);
    assert!(["east", "west"].contains(&proxy.answers(1)[0].as_str()), "still answers until shutdown_delay is over");
    assert_eq!(proxy.process.wait().unwrap().code(), Some(0));
    assert_eq!(out(&proxy.cli(&["status"])).0, Some(2));

    // All of it is on record, with who and why.
    let journal = std::fs::read_to_string(state.join("journal/journal-000001.jsonl")).unwrap();
    let records: Vec<Value> = journal.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let kinds: Vec<&str> = records.iter().map(|r| r["kind"].as_str().unwrap()).collect();
    for kind in ["started", "drain", "pool", "freeze", "config_rejected", "config_applied", "stopping"] {
        assert!(kinds.contains(&kind), "{kind} in {kinds:?}");
    }
    let drain = records.iter().find(|r| r["kind"] == "drain").unwrap();
    assert_eq!((&drain["reason"], &drain["by"]["name"]), (&"power works".into(), &"local".into()));
}

#[test]
fn an_outage_writes_its_own_report() {
    let dir = tempfile::tempdir().unwrap();
    let (dead, west) = (free_port(), origin("west"));
    let text = format!(
        "version: 1\nedge: {{name: e1, threads: 1, state_dir: {}}}\n\
         listeners: [{{address: \"127.0.0.1:PORT\"}}]\nadmin: {{address: \"127.0.0.1:ADMIN\"}}\n\
         regions: {{east: {{weight: 50}}, west: {{weight: 50}}}}\n\
         services:\n  app:\n    pools:\n      east: {{endpoints: [\"127.0.0.1:{dead}\"]}}\n      west: {{endpoints: [\"127.0.0.1:{west}\"]}}\n\
         routes: [{{name: all, service: app}}]\n",
        dir.path().join("state").display()
    );
    let proxy = Proxy::run(dir.path(), &text);
    until("tripped", || {
        assert!(proxy.answers(10).iter().all(|a| a == "west"), "nobody notices");
        proxy.status()["pools"][0]["state"] == "tripped"
    });
    until("on record", || out(&proxy.cli(&["incidents"])).1.contains("east: "));
    let (code, line) = out(&proxy.cli(&["incidents"]));
    assert!(code == Some(0) && line.contains("goes on"), "{line}");
    let (_, page) = out(&proxy.cli(&["incidents", line.split(' ').next().unwrap(), "--format", "markdown"]));
    assert!(page.starts_with("# Incident ") && page.contains("| app/east | 1 |") && page.contains("## Timeline"), "{page}");
    let all: Value = serde_json::from_slice(&proxy.cli(&["incidents", "--format", "json"]).stdout).unwrap();
    assert_eq!(all[0]["regions"], serde_json::json!(["east"]));
    assert_eq!(out(&proxy.cli(&["incidents", "12"])).0, Some(2));
}

/// Requests without end, and what came back.
struct Load {
    stop: Arc<AtomicBool>,
    good: Arc<AtomicU64>,
    bad: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start(port: u16, threads: usize) -> Self {
        let (stop, good, bad) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let one = |_| {
            let (stop, good, bad) = (stop.clone(), good.clone(), bad.clone());
            std::thread::spawn(move || {
                for n in 0.. {
                    if stop.load(Relaxed) {
                        break;
                    }
                    // A write cannot be tried again: some must come to harm in an outage.
                    let line = if n % 4 == 0 { "POST /" } else { "GET /" };
                    let counter = if ask(port, line).0 == 200 { &good } else { &bad };
                    counter.fetch_add(1, Relaxed);
                    std::thread::sleep(Duration::from_millis(5));
                }
            })
        };
        let threads = (0..threads).map(one).collect();
        Self { stop, good, bad, threads }
    }
    /// Good and bad answers, once nothing is under way.
    fn end(self) -> (u64, u64) {
        self.stop.store(true, Relaxed);
        self.threads.into_iter().for_each(|t| t.join().unwrap());
        (self.good.load(Relaxed), self.bad.load(Relaxed))
    }
}

/// Two regions of one server each.
fn two_regions(dir: &Path, east: u16, west: u16) -> String {
    format!(
        "version: 1\nedge: {{name: e1, threads: 1, state_dir: {}}}\n\
         listeners: [{{address: \"127.0.0.1:PORT\"}}]\nadmin: {{address: \"127.0.0.1:ADMIN\"}}\n\
         regions: {{east: {{weight: 50}}, west: {{weight: 50}}}}\n\
         services:\n  app:\n    pools:\n      east: {{endpoints: [\"127.0.0.1:{east}\"], capacity: 5000/s}}\n      west: {{endpoints: [\"127.0.0.1:{west}\"], capacity: 5000/s}}\n    health: null\n\
         failover: {{open: 500ms..2s}}\nrecovery: {{hold: 200ms, trial_successes: 3, steps: [50%, 100%], step_time: 300ms}}\n\
         routes: [{{name: all, service: app, deadline: 2s}}]\n",
        dir.join("state").display()
    )
}

impl Proxy {
    fn share(&self, pool: usize) -> f64 {
        self.status()["pools"][pool]["share"].as_f64().unwrap()
    }
    /// `evenkeel drill east`, as a process of its own.
    fn drill(&self, args: &[&str]) -> Child {
        let url = format!("http://127.0.0.1:{}", self.admin);
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
        let command = command.args(["drill", "east", "--hold", "60s"]).args(args).env("EVENKEEL_ADMIN", url);
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    }
    fn drills(&self) -> Value {
        serde_json::from_str(&ask(self.admin, "GET /v1/drills").1).unwrap()
    }
}

#[test]
fn a_drill_ends_when_a_guard_is_crossed() {
    let dir = tempfile::tempdir().unwrap();
    let fault = Arc::new(AtomicU8::new(GOOD));
    let (east, west) = (origin("east"), faulty("west", fault.clone()));
    let proxy = Proxy::run(dir.path(), &two_regions(dir.path(), east, west));
    let load = Load::start(proxy.port, 4);
    let cli = proxy.drill(&["--abort-if", "success<99.5%", "--reason", "quarterly"]);
    until("drained", || proxy.share(0) == 0.0);
    let drained = proxy.status()["regions"][0]["drained"].clone();
    assert!(drained["by"].as_str().unwrap().starts_with("drill drill-"), "{drained}");
    // One at a time, and none where somebody is away already.
    let (code, told) = out(&proxy.cli(&["drill", "west", "--hold", "1s"]));
    assert!(code == Some(1) && told.contains("refused: without west: route all: no region is left"), "{told}");
    std::thread::sleep(Duration::from_millis(1500)); // some good seconds to compare with
    fault.store(FAILS, Relaxed);
    until("back", || proxy.share(0) > 0.0);
    let told = String::from_utf8(cli.wait_with_output().unwrap().stdout).unwrap();
    assert!(told.contains("aborted: success<99.5% on route all"), "{told}");
    fault.store(GOOD, Relaxed);
    load.end();
    let journal = std::fs::read_to_string(dir.path().join("state/journal/journal-000001.jsonl")).unwrap();
    let records: Vec<Value> = journal.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let place = |kind: &str, key: &str, value: Value| {
        let found = records.iter().position(|r| r["kind"] == kind && r[key] == value);
        found.unwrap_or_else(|| panic!("no {kind} with {key} {value}: {journal}"))
    };
    let stage = |stage: &str| place("drill", "stage", stage.into());
    assert!(stage("draining") < stage("holding") && stage("holding") < place("drain", "on", false.into()));
    // On record: the region was back within a second of the crossing, by the proxy's own clock.
    let told = records[stage("aborted")]["what"].as_str().unwrap();
    let took = told.split_once("; back ").and_then(|(_, t)| t.split_once(" ms after")).expect(told).0.parse::<u64>().unwrap();
    assert!(took < 1000, "{told}");
    let (_, page) = ask(proxy.admin, "GET /metrics");
    assert!(page.contains("evenkeel_last_drill_timestamp_seconds{region=\"east\"} 0\n"), "an aborted drill is none");
}

#[test]
fn a_drill_whose_command_dies_is_undone_and_one_that_passes_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let (east, west) = (origin("east"), origin("west"));
    let text = two_regions(dir.path(), east, west);
    let mut proxy = Proxy::run(dir.path(), &text);
    let mut cli = proxy.drill(&[]);
    until("drained", || proxy.share(0) == 0.0);
    cli.kill().unwrap();
    cli.wait().unwrap();
    let began = Instant::now();
    until("back", || proxy.share(0) > 0.0);
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    assert!(proxy.drills()[0]["what"].as_str().unwrap().contains("has not been heard of for 2s"), "{}", proxy.drills());

    let (code, told) = out(&proxy.cli(&["drill", "east", "--hold", "300ms", "--over", "200ms"]));
    assert!(code == Some(0) && told.contains("passed: drained over 200ms, held for 300ms"), "{told}");
    until("back", || proxy.share(0) > 0.0);

    // A proxy that dies takes the drill along; what was passed is remembered.
    let mut cli = proxy.drill(&[]);
    until("drained", || proxy.share(0) == 0.0);
    proxy.process.kill().unwrap();
    proxy.process.wait().unwrap();
    let _ = cli.wait();
    drop(proxy);
    let again = Proxy::run(dir.path(), &text);
    assert_eq!(again.status()["regions"][0]["drained"], Value::Null);
    until("remembered", || {
        let (_, page) = ask(again.admin, "GET /metrics");
        page.contains("evenkeel_last_drill_timestamp_seconds{region=\"east\"} 1")
    });
}

#[test]
fn an_incident_tells_when_it_began_and_whom_it_hurt() {
    let dir = tempfile::tempdir().unwrap();
    let fault = Arc::new(AtomicU8::new(GOOD));
    let (east, west) = (faulty("east", fault.clone()), origin("west"));
    let proxy = Proxy::run(dir.path(), &two_regions(dir.path(), east, west));
    let load = Load::start(proxy.port, 8);
    std::thread::sleep(Duration::from_secs(3)); // a past to compare with
    let truth = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64;
    fault.store(HANGS, Relaxed);
    until("tripped", || proxy.status()["pools"][0]["state"] == "tripped");
    std::thread::sleep(Duration::from_secs(1));
    fault.store(GOOD, Relaxed);
    until("serving again", || proxy.status()["pools"][0]["state"] == "serving");
    let (_, bad) = load.end();
    let incident =
        || -> Value { serde_json::from_slice::<Value>(&proxy.cli(&["incidents", "--format", "json"]).stdout).unwrap()[0].clone() };
    let count = |all: &Value, name: &str| all[name].as_u64().unwrap_or(0);
    let hurt = |all: &Value| count(all, "failed") + count(all, "unavailable") + count(all, "shed");
    // The last look at the counts comes up to a second after the end, and another only where something was counted since.
    let mut i = Value::Null;
    until("on record, with the client's own count", || {
        i = incident();
        i["restored"].is_string() && i["series"].as_array().is_some_and(|s| s.len() > 1) && hurt(&i["routes"][0]) >= bad
    });
    let onset: jiff::Timestamp = i["onset"].as_str().unwrap().parse().unwrap();
    let off = (onset.as_microsecond() - truth).abs();
    assert!(off < 250_000, "onset is {off} us off: {i:#}");
    let all = &i["routes"][0];
    assert_eq!(hurt(all), bad, "the client's own count: {i:#}");
    let count = |name: &str| count(all, name);
    assert!(count("retried") + count("hedged") > 0 && count("ok") > 50, "{all}");
    assert!(i["carried"][1]["share"].as_f64().unwrap() > 0.5, "{}", i["carried"]);
    assert!(bad > 0 && count("in_doubt") > 0 && count("in_doubt") <= bad, "writes are in doubt: {all}");
    assert!(["silence", "timeouts"].iter().any(|c| i["cause"] == *c), "{i:#}");
}

#[test]
fn a_drain_is_refused_in_the_words_of_a_plan_and_a_plan_knows_the_live_load() {
    let dir = tempfile::tempdir().unwrap();
    let (east, west) = (origin("east"), origin("west"));
    let text = two_regions(dir.path(), east, west).replacen("capacity: 5000/s", "capacity: 20/s", 1);
    let proxy = Proxy::run(dir.path(), &text);
    let load = Load::start(proxy.port, 2);
    let refused = || out(&proxy.cli(&["drain", "west", "--reason", "works"]));
    let mut told = String::new();
    until("the load is known", || {
        told = refused().1;
        if !told.contains("refused") {
            proxy.cli(&["undrain", "west"]);
        }
        told.contains("refused: without west: pool app/east would get")
    });
    assert!(told.contains("more than its capacity of 20/s; say `force`"), "{told}");
    let config = dir.path().join("evenkeel.yaml");
    let (code, told) = out(&proxy.cli(&["plan", "--config", config.to_str().unwrap(), "--lose", "west"]));
    assert!(code == Some(1) && told.contains("(load: live, the last 10 s)") && told.contains("UNSAFE"), "{told}");
    assert_eq!(out(&proxy.cli(&["drain", "west", "--reason", "works", "--force"])).0, Some(0));
    load.end();
    // A reload that an operator asks for is on record as his.
    std::fs::write(&config, std::fs::read_to_string(&config).unwrap().replace("weight: 50}}", "weight: 51}}").replace("20/s", "21/s"))
        .unwrap();
    assert_eq!(ask(proxy.admin, "POST /v1/reload").0, 200);
    let journal = || std::fs::read_to_string(dir.path().join("state/journal/journal-000001.jsonl")).unwrap();
    until("on record", || journal().contains("config_applied"));
    std::thread::sleep(Duration::from_millis(300));
    let applied: Vec<Value> =
        journal().lines().map(|l| serde_json::from_str::<Value>(l).unwrap()).filter(|r| r["kind"] == "config_applied").collect();
    assert_eq!((applied.len(), &applied[0]["by"]["actor"]), (1, &"operator".into()), "{applied:?}");
}

/// A collector that keeps what it is sent; while `fault` hangs it answers nothing.
fn collector(fault: Arc<AtomicU8>) -> (u16, Arc<Mutex<Vec<Span>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let kept = Arc::<Mutex<Vec<Span>>>::default();
    let spans = kept.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, fault, spans) = (stream.unwrap(), fault.clone(), spans.clone());
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut length, mut line) = (0, String::new());
                while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
                    let lower = line.to_lowercase();
                    length = lower.strip_prefix("content-length:").map_or(length, |n| n.trim().parse().unwrap());
                    line.clear();
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                while fault.load(Relaxed) == HANGS {
                    std::thread::sleep(Duration::from_millis(10));
                }
                let batch = ExportTraceServiceRequest::decode(&body[..]).unwrap();
                spans.lock().unwrap().extend(batch.resource_spans.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans));
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
            });
        }
    });
    (port, kept)
}

/// Keeps the heads of requests.
fn listening(text: &'static str, fails: bool) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let heads = Arc::<Mutex<Vec<String>>>::default();
    let kept = heads.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, kept) = (stream.unwrap(), kept.clone());
            std::thread::spawn(move || {
                let mut head = String::new();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                while let Some(Ok(line)) = lines.next() {
                    if !line.is_empty() {
                        head += &(line + "\n");
                        continue;
                    }
                    kept.lock().unwrap().push(std::mem::take(&mut head));
                    let status = if fails { "503 No" } else { "200 OK" };
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{text}", text.len());
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (port, heads)
}

fn said(span: &Span, key: &str) -> String {
    match span.attributes.iter().find(|a| a.key == key).and_then(|a| a.value.clone()?.value) {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(n)) => n.to_string(),
        _ => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn a_traced_request_has_a_span_of_each_attempt_and_a_dead_collector_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let fault = Arc::new(AtomicU8::new(GOOD));
    let ((collector, spans), (east, east_heads), (west, west_heads)) =
        (collector(fault.clone()), listening("east", true), listening("west", false));
    let text = two_regions(dir.path(), east, west).replace("weight: 50}, west: {weight: 50}", "tier: 1}, west: {tier: 2}");
    let text = text.replace("listeners: [{", "listeners: [{trusted_proxies: [127.0.0.1/32], ");
    let proxy = Proxy::run(dir.path(), &format!("{text}tracing: {{otlp: \"http://127.0.0.1:{collector}\", sample: 0%}}\n"));

    // Nobody asked for it: what came goes on as it came.
    let parent = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
    assert_eq!(ask(proxy.port, &format!("GET /quiet?x=1 HTTP/1.1\r\nTraceparent: 00-{parent}-00\r\nX-Rest:")).1, "west");
    let heard = east_heads.lock().unwrap()[0].to_lowercase();
    assert!(heard.contains(&format!("traceparent: 00-{parent}-00\n")), "{heard}");

    // A trusted proxy asked for it. East answers 503, west takes over.
    assert_eq!(ask(proxy.port, &format!("GET /video/7?key=secret HTTP/1.1\r\nTraceparent: 00-{parent}-01\r\nX-Rest:")).1, "west");
    until("the trace has come", || spans.lock().unwrap().len() >= 3);
    let all = spans.lock().unwrap().clone();
    let [request, first, second] = &all[..] else { panic!("{all:#?}") };
    assert_eq!((hex(&request.trace_id) + "-" + &hex(&request.parent_span_id), &*request.name), (parent.into(), "GET all"));
    assert_eq!((said(request, "url.path"), said(request, "http.response.status_code")), ("/video/7".into(), "200".into()));
    assert_eq!((said(request, "evenkeel.attempts"), said(request, "evenkeel.region")), ("2".into(), "west".into()));
    for (span, region, result, status, heads) in [(first, "east", "status", "503", &east_heads), (second, "west", "ok", "200", &west_heads)]
    {
        assert_eq!((&span.trace_id, &span.parent_span_id), (&request.trace_id, &request.span_id));
        let told = ["evenkeel.region", "evenkeel.result", "http.response.status_code"].map(|key| said(span, key));
        assert_eq!(told, [region, result, status]);
        assert!(span.start_time_unix_nano >= request.start_time_unix_nano && span.end_time_unix_nano <= request.end_time_unix_nano);
        // The backend was told this very span as its parent, once.
        let heads = heads.lock().unwrap();
        let heard: Vec<&str> = heads[1].lines().filter(|l| l.to_lowercase().starts_with("traceparent")).collect();
        assert_eq!(heard, [format!("traceparent: 00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id))]);
    }

    // A collector that hangs: requests go on, spans are counted as lost.
    fault.store(HANGS, Relaxed);
    let line = format!("GET / HTTP/1.1\r\nTraceparent: 00-{parent}-01\r\nX-Rest:");
    let mut asked = 0;
    until("spans are given up", || {
        asked += 1;
        assert_eq!(ask(proxy.port, &line).1, "west");
        let page = ask(proxy.admin, "GET /metrics").1;
        !page.contains("evenkeel_trace_spans_total{result=\"failed\"} 0\n")
    });
    assert!(asked > 5, "requests waited for the collector: {asked} in five seconds");
    fault.store(GOOD, Relaxed);
}
