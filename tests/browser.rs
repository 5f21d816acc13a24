//! The dashboard in a real browser: it loads without an error, shows a region that an operator trips within a second, drains by click,
//! plans before a reload, and tells of it all to a reader of the screen. Needs Chromium (`CHROMIUM`, or on the PATH); without it, it says so.

#![allow(clippy::disallowed_methods)] // outside the program there is no clock.rs: polls with a deadline

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

fn chromium() -> Option<String> {
    let named = std::env::var("CHROMIUM").ok();
    let known = ["chromium", "chromium-browser", "google-chrome"].map(String::from);
    named.into_iter().chain(known).find(|c| Command::new(c).arg("--version").output().is_ok_and(|o| o.status.success()))
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn get(port: u16, line: &str, body: &str) -> String {
    let Ok(mut s) = TcpStream::connect(("127.0.0.1", port)) else { return String::new() };
    let head = format!("{line} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let _ = s.set_read_timeout(Some(PATIENCE));
    let _ = s.write_all(head.as_bytes());
    // DevTools keeps the connection open all the same: the length says where the answer ends.
    let (mut lines, mut length) = (BufReader::new(s), 0);
    let mut line = String::new();
    while lines.read_line(&mut line).is_ok_and(|n| n > 2) {
        if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = n.trim().parse().unwrap_or(0);
        }
        line.clear();
    }
    let mut body = vec![0; length];
    let _ = lines.read_exact(&mut body);
    String::from_utf8_lossy(&body).into_owned()
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One page of a browser, over its DevTools protocol: a WebSocket that carries JSON.
struct Page {
    stream: TcpStream,
    asked: u64,
    /// What the page complained of.
    errors: Vec<String>,
}

impl Page {
    fn open(port: u16, url: &str) -> Self {
        let target: Value = serde_json::from_str(&get(port, &format!("PUT /json/new?{url}"), "")).expect("a new page");
        let path = target["webSocketDebuggerUrl"].as_str().unwrap().split_once(&port.to_string()).unwrap().1.to_owned();
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        let hello = format!(
            "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        stream.write_all(hello.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let mut page = Self { stream, asked: 0, errors: Vec::new() };
        for domain in ["Runtime.enable", "Log.enable", "Page.enable"] {
            page.call(domain, json!({}));
        }
        page
    }
    fn call(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        let text = json!({"id": self.asked, "method": method, "params": params}).to_string();
        let mut frame = vec![0x81];
        match text.len() {
            n if n < 126 => frame.push(0x80 | n as u8),
            n => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(n).expect("short").to_be_bytes());
            }
        }
        frame.extend([0; 4]); // a mask of zeros masks nothing
        frame.extend(text.as_bytes());
        self.stream.write_all(&frame).unwrap();
        loop {
            let message = self.read();
            if message["id"] == self.asked {
                return message["result"].clone();
            }
            let p = &message["params"];
            match message["method"].as_str() {
                Some("Runtime.exceptionThrown") => self.errors.push(p["exceptionDetails"].to_string()),
                Some("Runtime.consoleAPICalled") if p["type"] == "error" => self.errors.push(p["args"].to_string()),
                Some("Log.entryAdded") if p["entry"]["level"] == "error" => self.errors.push(p["entry"].to_string()),
                _ => {}
            }
        }
    }
    fn read(&mut self) -> Value {
        let mut text = Vec::new();
        loop {
            let mut head = [0; 2];
            self.stream.read_exact(&mut head).unwrap();
            let mut length = u64::from(head[1] & 0x7f);
            if length > 125 {
                let mut more = vec![0; if length == 126 { 2 } else { 8 }];
                self.stream.read_exact(&mut more).unwrap();
                length = more.iter().fold(0, |n, b| n << 8 | u64::from(*b));
            }
            let mut part = vec![0; length as usize];
            self.stream.read_exact(&mut part).unwrap();
            text.extend(part);
            if head[0] & 0x80 != 0 {
                return serde_json::from_slice(&text).unwrap_or(Value::Null);
            }
        }
    }
    fn eval(&mut self, script: &str) -> Value {
        self.call("Runtime.evaluate", json!({"expression": script, "returnByValue": true, "awaitPromise": true}))["result"]["value"].clone()
    }
    fn holds(&mut self, script: &str) {
        until(script, || (self.eval(script) == true).then_some(()));
    }
}

#[test]
fn an_operator_at_the_dashboard() {
    let Some(browser) = chromium() else {
        eprintln!("skipped: there is no Chromium here (set CHROMIUM, or install it)");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (port, admin) = (free(), free());
    let config = dir.path().join("evenkeel.yaml");
    let text = format!(
        "version: 1\nedge: {{name: e1, threads: 1, state_dir: {}}}\nlisteners: [{{address: \"127.0.0.1:{port}\"}}]\nadmin: {{address: \"127.0.0.1:{admin}\"}}\n\
         regions: {{east: {{weight: 50}}, west: {{weight: 50}}}}\n\
         services: {{app: {{health: null, pools: {{east: {{endpoints: [\"127.0.0.1:1\"]}}, west: {{endpoints: [\"127.0.0.2:1\"]}}}}}}}}\n\
         routes: [{{name: all, service: app, slo: {{success: 99.9%}}}}]\n",
        dir.path().join("state").display()
    );
    std::fs::write(&config, &text).unwrap();
    let mut proxy = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    let _proxy = Running(proxy.arg("run").arg("--config").arg(&config).stderr(Stdio::null()).spawn().unwrap());
    until("ready", || (get(admin, "GET /readyz", "") == "ok\n").then_some(()));

    let mut command = Command::new(browser);
    let command = command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--no-first-run"]);
    let mut chrome =
        Running(command.arg(format!("--user-data-dir={}", dir.path().join("chrome").display())).stderr(Stdio::piped()).spawn().unwrap());
    let lines = BufReader::new(chrome.0.stderr.take().unwrap()).lines();
    let told = lines.map_while(Result::ok).find(|l| l.contains("DevTools listening on")).expect("DevTools");
    let devtools: u16 = told.split("127.0.0.1:").nth(1).unwrap().split('/').next().unwrap().parse().unwrap();
    let mut page = Page::open(devtools, &format!("http://127.0.0.1:{admin}/"));
    page.holds("document.querySelectorAll('.region').length === 2");

    // A region that goes is on the screen within a second.
    get(admin, "POST /v1/pools/app/west/trip", r#"{"reason": "a hunch"}"#);
    let began = Instant::now();
    page.holds("document.querySelector('[data-region=west] .tag').textContent.includes('tripped')");
    page.holds("document.getElementById('stand').textContent.includes('west is out since')");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}"); // a second, and what a busy machine adds
    get(admin, "POST /v1/pools/app/west/reset", "");
    page.holds("document.querySelector('[data-region=west] .tag').textContent.includes('serving')");

    // Drained by click, with a reason; the last one is refused in words and offers to be forced.
    page.eval("document.getElementById('drain-east').click()");
    page.eval("document.getElementById('ask-reason').value = 'works'; document.getElementById('ask-go').click()");
    page.holds("document.querySelector('[data-region=east]').textContent.includes('Drained by operator local: works')");
    page.eval("document.getElementById('drain-west').click()");
    page.eval("document.getElementById('ask-reason').value = 'oops'; document.getElementById('ask-go').click()");
    page.holds("document.getElementById('ask-error').textContent.includes('no region is left')");
    assert_eq!(page.eval("document.getElementById('ask-force-label').hidden"), false);
    page.eval("document.querySelector('#ask button[value=no]').click()");
    page.eval("document.getElementById('undrain-east').click()");
    page.eval("document.getElementById('ask-go').click()");
    page.holds("!document.querySelector('[data-region=east]').textContent.includes('Drained by')");

    // The plan is shown before a reload.
    page.eval("document.getElementById('reload').click()");
    page.holds("document.getElementById('plan-body').textContent.includes('If it is lost')");
    page.eval("document.querySelector('#plan button[value=no]').click()");
    page.holds("document.getElementById('slo').textContent.includes('99.900 %')");

    // Everything that can be pressed has a name, every input a label, every picture words.
    let nameless = page.eval(
        "[...document.querySelectorAll('button, input, select, svg[role=img], [role=region]')].filter((e) => !(e.textContent.trim() || e.getAttribute('aria-label') || \
         e.getAttribute('aria-labelledby') || (e.labels && e.labels.length))).map((e) => e.outerHTML)",
    );
    assert_eq!(nameless, json!([]));
    // What the proxy refused (409) is told in the console by the browser itself.
    page.errors.retain(|e| !e.contains("409"));
    assert!(page.errors.is_empty(), "{:?}", page.errors);
}
