//! The spool from outside: the real program, killed without warning, and on a disk that is full.

#![allow(clippy::disallowed_methods)] // real processes live on real time

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < PATIENCE, "{what} does not come true");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The short variant of what `benches/spool_kill.py` does with 10,000 writes and 50 kills.
#[test]
fn every_acknowledged_write_outlives_sigkill() {
    if Command::new("python3").arg("--version").output().is_err() {
        return eprintln!("skipped: this test needs python3");
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/spool_kill.py");
    let ran = Command::new("python3")
        .arg(script)
        .args(["--writes", "600", "--kills", "6", "--lanes", "20", "--patience", "60"])
        .env("EVENKEEL_BIN", env!("CARGO_BIN_EXE_evenkeel"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
}

fn free() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Answers reads; resets writes while it is down, and counts them once it is not.
struct Origin {
    address: SocketAddr,
    down: Arc<AtomicBool>,
    applied: Arc<AtomicUsize>,
}

impl Origin {
    fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let origin = Self { address: listener.local_addr().unwrap(), down: Arc::new(AtomicBool::new(true)), applied: Arc::default() };
        let (down, applied, keys) = (origin.down.clone(), origin.applied.clone(), Arc::<Mutex<Vec<String>>>::default());
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (down, applied, keys) = (down.clone(), applied.clone(), keys.clone());
                std::thread::spawn(move || serve(socket, &down, &applied, &keys));
            }
        });
        origin
    }
}

fn serve(mut socket: TcpStream, down: &AtomicBool, applied: &AtomicUsize, keys: &Mutex<Vec<String>>) {
    let (mut input, mut buf) = (Vec::new(), [0; 16 << 10]);
    loop {
        let text = String::from_utf8_lossy(&input).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let field =
                |name: &str| head.lines().find_map(|l| l.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v));
            let length = field("content-length").map_or(0, |v| v.parse().unwrap());
            if body.len() >= length {
                if head.starts_with("POST") {
                    if down.load(Relaxed) {
                        return;
                    }
                    let key = field("idempotency-key").unwrap().to_owned();
                    let mut keys = keys.lock().unwrap();
                    if !keys.contains(&key) {
                        keys.push(key);
                        applied.fetch_add(1, Relaxed);
                    }
                }
                input.clear();
                if socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
                    return;
                }
                continue;
            }
        }
        match socket.read(&mut buf) {
            Ok(n @ 1..) => input.extend_from_slice(&buf[..n]),
            _ => return,
        }
    }
}

fn ask(at: SocketAddr, head: &str, body: &str) -> (u16, String) {
    let ask = || -> std::io::Result<String> {
        let mut socket = TcpStream::connect_timeout(&at, Duration::from_secs(2))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        write!(socket, "{head}Host: 127.0.0.1\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().unwrap_or_default();
    (answer.get(9..12).and_then(|s| s.parse().ok()).unwrap_or(0), answer)
}

#[test]
fn a_full_disk_fails_writes_honestly_and_hurts_nothing_else() {
    let mounts = Command::new("unshare").args(["-rm", "sh", "-c", "mount -t tmpfs -o size=1m tmpfs /mnt"]).stderr(Stdio::null()).status();
    if !mounts.is_ok_and(|s| s.success()) {
        return eprintln!("skipped: this test mounts a small tmpfs in a namespace of its own, which is not allowed here");
    }
    let (dir, origin) = (tempfile::tempdir().unwrap(), Origin::new());
    let (http, admin) = (free(), free());
    let spool = dir.path().join("spool");
    std::fs::create_dir(&spool).unwrap();
    let config = dir.path().join("evenkeel.yaml");
    let text = format!(
        "version: 1\nedge: {{threads: 2, state_dir: state}}\nlisteners: [{{address: \"{http}\"}}]\nadmin: {{address: \"{admin}\"}}\n\
         regions: {{east: {{}}}}\nservices: {{app: {{health: null, pools: {{east: {{endpoints: [\"{}\"]}}}}}}}}\n\
         routes: [{{name: all, match: {{}}, service: app, deadline: 1s, attempt_timeout: 300ms, retry: {{writes: idempotency_key}}, degrade: [{{spool: {{}}}}]}}]\n\
         spool: {{path: spool, replay_rate: 1000/s}}\n",
        origin.address
    );
    std::fs::write(&config, text).unwrap();
    let run = format!(
        "mount -t tmpfs -o size=4m tmpfs '{}' && exec '{}' run --config '{}'",
        spool.display(),
        env!("CARGO_BIN_EXE_evenkeel"),
        config.display()
    );
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    let _running = Running(Command::new("unshare").args(["-rm", "sh", "-c", &run]).stdout(Stdio::null()).stderr(log).spawn().unwrap());
    until("it serves", || ask(http, "GET / HTTP/1.1\r\n", "").0 == 200);

    let (body, mut kept, mut refused) = ("x".repeat(50_000), 0, 0);
    for n in 0..200 {
        let (status, answer) = ask(http, &format!("POST /{n} HTTP/1.1\r\nIdempotency-Key: {n}\r\n"), &body);
        match status {
            202 => kept += 1,
            503 | 504 => {
                assert!(answer.contains("Evenkeel-Degraded: unavailable"), "{answer}");
                refused += 1;
            }
            other => panic!("{other}: {answer}"),
        }
        if refused > 0 {
            assert_eq!(ask(http, "GET /read HTTP/1.1\r\n", "").0, 200, "reads go on");
        }
        if refused >= 5 {
            break;
        }
    }
    let log = || std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(kept > 5 && refused >= 5, "{kept} kept, {refused} refused\n{}", log());
    assert!(log().contains("disk is full"), "{}", log());
    assert_eq!(ask(admin, "GET /readyz HTTP/1.1\r\n", "").0, 200);
    origin.down.store(false, Relaxed);
    until("all that was acknowledged is applied", || origin.applied.load(Relaxed) >= kept);
    until("and there is room again", || {
        ask(http, "GET / HTTP/1.1\r\n", "").0 == 200 && ask(admin, "GET /v1/spool HTTP/1.1\r\n", "").1.contains("\"pending\":0")
    });
}
