//! What an operator does, against the whole program: `evenkeel run` as a process, its admin API, and the commands.

#![allow(clippy::disallowed_methods)] // outside the program there is no clock.rs: polls with a deadline

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Answers every request with this text.
fn origin(text: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let mut stream = stream;
                while let Some(Ok(line)) = lines.next() {
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
                    if line.is_empty() && stream.write_all(answer.as_bytes()).is_err() {
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
    assert!(told.contains("refused: draining west would leave requests without a region: route all"), "{told}");
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
