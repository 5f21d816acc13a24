//! The real program with TLS and HTTP/2 towards its clients: what they do not notice when the process is replaced, the weights
//! change, or the certificate does. Clients behave as browsers and gRPC clients do: after a GOAWAY they open another connection.

#![allow(clippy::disallowed_methods)] // these clients are users, who have a clock of their own

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const PATIENCE: Duration = Duration::from_secs(20);

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < PATIENCE, "{what} does not come true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn free() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// An app server: answers with its name, and echoes what comes after `/ws`.
fn region(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let (mut head, mut bytes) = (Vec::new(), [0; 1024]);
                while let Ok(n @ 1..) = socket.read(&mut bytes) {
                    head.extend_from_slice(&bytes[..n]);
                    if !head.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    if head.starts_with(b"GET /ws") {
                        let _ = socket.write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
                        while let Ok(n @ 1..) = socket.read(&mut bytes) {
                            let _ = socket.write_all(&bytes[..n]);
                        }
                        return;
                    }
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
                    if socket.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                    head.clear();
                }
            });
        }
    });
    at
}

/// A certificate for `a.test`, in files.
fn certificate(dir: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
    for (name, text) in [("cert.pem", made.cert.pem()), ("key.pem", made.signing_key.serialize_pem())] {
        let next = dir.join("next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, dir.join(name)).unwrap();
    }
    made.cert.der().clone()
}

/// Somebody who trusts these certificates and wants this protocol.
fn trusting(certificates: &[&CertificateDer<'static>], alpn: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for c in certificates {
        roots.add((*c).clone()).unwrap();
    }
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.into()];
    Arc::new(config)
}

async fn dial(at: SocketAddr, config: &Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(at).await?;
    socket.set_nodelay(true)?;
    tokio_rustls::TlsConnector::from(config.clone()).connect(ServerName::try_from("a.test").unwrap(), socket).await
}

/// Users over HTTP/2 and over HTTP/1.1 with TLS, until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    good: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    users: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    fn on(at: SocketAddr, trusted: &[&CertificateDer<'static>]) -> Self {
        let (stop, good, connections) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let users = (0..8)
            .map(|i| {
                let (stop, good, connections) = (stop.clone(), good.clone(), connections.clone());
                let (h2, config) = (i % 2 == 0, trusting(trusted, if i % 2 == 0 { "h2" } else { "http/1.1" }));
                tokio::spawn(async move {
                    let mut bad = Vec::new();
                    while !stop.load(Relaxed) {
                        connections.fetch_add(1, Relaxed);
                        let socket = match dial(at, &config).await {
                            Ok(socket) => TokioIo::new(socket),
                            Err(e) => {
                                bad.push(format!("connecting: {e}"));
                                continue;
                            }
                        };
                        if h2 { over_h2(socket, &stop, &good, &mut bad).await } else { over_h1(socket, &stop, &good, &mut bad).await }
                    }
                    bad
                })
            })
            .collect();
        Self { stop, good, connections, users }
    }
    async fn more(&self, answers: usize) {
        let now = self.good.load(Relaxed);
        until("there are more answers", || self.good.load(Relaxed) >= now + answers).await;
    }
    /// What went wrong, and how many connections it took.
    async fn end(self) -> (Vec<String>, usize) {
        self.stop.store(true, Relaxed);
        let mut bad = Vec::new();
        for user in self.users {
            bad.extend(user.await.unwrap());
        }
        (bad, self.connections.load(Relaxed))
    }
}

fn request(version: http::Version) -> http::Request<Empty<Bytes>> {
    let uri = if version == http::Version::HTTP_2 { "https://a.test/" } else { "/" };
    let mut request = http::Request::get(uri).version(version);
    if version != http::Version::HTTP_2 {
        request = request.header("host", "a.test");
    }
    request.body(Empty::new()).unwrap()
}

/// One connection, until it is told to go or the test is over.
async fn over_h2(socket: TokioIo<TlsStream<TcpStream>>, stop: &AtomicBool, good: &AtomicUsize, bad: &mut Vec<String>) {
    let (mut sender, connection) = match hyper::client::conn::http2::handshake(TokioExecutor::new(), socket).await {
        Ok(made) => made,
        Err(e) => return bad.push(format!("handshake: {e:?}")),
    };
    let driver = tokio::spawn(connection);
    while !stop.load(Relaxed) && sender.ready().await.is_ok() {
        match sender.send_request(request(http::Version::HTTP_2)).await {
            Ok(answer) if answer.status() == 200 => match answer.into_body().collect().await {
                Ok(_) => drop(good.fetch_add(1, Relaxed)),
                Err(e) => bad.push(format!("body: {e:?}")),
            },
            Ok(answer) => bad.push(answer.status().to_string()),
            // Not sent, or above the last stream that GOAWAY names: not processed (RFC 9113 section 6.8), any client asks again elsewhere.
            Err(e) if e.is_canceled() || unprocessed(&e) => break,
            Err(e) => {
                bad.push(format!("{e:?}"));
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    drop(sender);
    driver.abort();
}

fn unprocessed(e: &hyper::Error) -> bool {
    let h2 = std::error::Error::source(e).and_then(|s| s.downcast_ref::<h2::Error>());
    h2.is_some_and(|e| e.is_go_away() && e.is_remote() && e.reason() == Some(h2::Reason::NO_ERROR))
}

async fn over_h1(socket: TokioIo<TlsStream<TcpStream>>, stop: &AtomicBool, good: &AtomicUsize, bad: &mut Vec<String>) {
    let Ok((mut sender, connection)) = hyper::client::conn::http1::handshake(socket).await else {
        return bad.push("handshake".into());
    };
    let driver = tokio::spawn(connection);
    let mut asked = 0;
    while !stop.load(Relaxed) && sender.ready().await.is_ok() {
        match sender.send_request(request(http::Version::HTTP_11)).await {
            Ok(answer) if answer.status() == 200 => match answer.into_body().collect().await {
                Ok(_) => drop(good.fetch_add(1, Relaxed)),
                Err(e) => bad.push(format!("body: {e:?}")),
            },
            Ok(answer) => bad.push(answer.status().to_string()),
            // A kept connection that was closed just then: RFC 9112 section 9.3.1 has clients ask again.
            Err(e) if e.is_canceled() || asked > 0 && e.is_incomplete_message() => break,
            Err(e) => {
                bad.push(format!("{e:?}"));
                break;
            }
        }
        asked += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    driver.abort();
}

/// A WebSocket, as far as the proxy can tell.
struct Tunnel(TlsStream<TcpStream>);

impl Tunnel {
    async fn open(at: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        let mut socket = dial(at, config).await.unwrap();
        socket.write_all(b"GET /ws HTTP/1.1\r\nhost: a.test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n").await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", head.escape_ascii());
        Self(socket)
    }
    async fn echoes(&mut self) -> bool {
        let mut back = [0; 4];
        let (Ok(()), Ok(())) = (self.0.write_all(b"ping").await, self.0.flush().await) else { return false };
        matches!(tokio::time::timeout(PATIENCE, self.0.read_exact(&mut back)).await, Ok(Ok(_))) && &back == b"ping"
    }
}

struct Bench {
    dir: tempfile::TempDir,
    https: SocketAddr,
    admin: SocketAddr,
    east: SocketAddr,
    west: SocketAddr,
}

/// Ends with the test, also with one that fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Bench {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), https: free(), admin: free(), east: region("east"), west: region("west") }
    }
    fn write(&self, east: u32, west: u32) {
        let text = format!(
            "version: 1\n\
             edge: {{threads: 2, state_dir: state, drain_timeout: 15s}}\n\
             listeners: [{{address: \"{}\", tls: {{certificates: [{{cert: cert.pem, key: key.pem}}]}}}}]\n\
             admin: {{address: \"{}\"}}\n\
             regions: {{east: {{weight: {east}}}, west: {{weight: {west}}}}}\n\
             services: {{app: {{pools: {{east: {{endpoints: [\"{}\"]}}, west: {{endpoints: [\"{}\"]}}}}, health: {{interval: 100ms, path: /}}}}}}\n\
             routes: [{{name: all, match: {{path_prefix: /}}, service: app}}]\n",
            self.https, self.admin, self.east, self.west
        );
        std::fs::write(self.dir.path().join("next.yaml"), text).unwrap();
        std::fs::rename(self.dir.path().join("next.yaml"), self.dir.path().join("evenkeel.yaml")).unwrap();
    }
    async fn start(&self, more: &[&str]) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
        let command = command.args(["run", "--config"]).arg(self.dir.path().join("evenkeel.yaml")).args(more);
        let mut running = Running(command.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
        until("the proxy is ready", || {
            assert!(running.0.try_wait().unwrap().is_none(), "it left");
            self.ask("/readyz").starts_with("HTTP/1.1 200")
        })
        .await;
        running
    }
    /// What the admin API says.
    fn ask(&self, path: &str) -> String {
        let mut text = String::new();
        if let Ok(mut socket) = std::net::TcpStream::connect(self.admin) {
            let _ = write!(socket, "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.admin);
            let _ = socket.read_to_string(&mut text);
        }
        text
    }
    fn shares(&self) -> Vec<f64> {
        let text = self.ask("/v1/status");
        let status: serde_json::Value = text.split_once("\r\n\r\n").and_then(|(_, b)| serde_json::from_str(b).ok()).unwrap_or_default();
        status["pools"].as_array().map(|p| p.iter().filter_map(|p| p["share"].as_f64()).collect()).unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn takeover_and_reload_under_tls_and_http2_fail_nothing() {
    let b = Bench::new();
    let trusted = certificate(b.dir.path());
    b.write(50, 50);
    let mut old = b.start(&[]).await;
    let load = Load::on(b.https, &[&trusted]);
    let mut tunnel = Tunnel::open(b.https, &trusting(&[&trusted], "http/1.1")).await;
    assert!(tunnel.echoes().await);
    load.more(200).await;

    b.write(100, 0);
    until("the new weights", || b.shares() == [1.0, 0.0]).await;
    load.more(200).await;
    b.write(50, 50);
    until("the old weights", || b.shares() == [0.5, 0.5]).await;

    let _new = b.start(&["--takeover"]).await;
    load.more(400).await;
    assert!(tunnel.echoes().await, "the tunnel lives on in the old process");
    drop(tunnel);
    until("the old process has left", || old.0.try_wait().unwrap().is_some()).await;
    assert_eq!(old.0.wait().unwrap().code(), Some(0));
    load.more(200).await;
    let (bad, connections) = load.end().await;
    assert!(bad.is_empty(), "{bad:?}");
    assert!((16..100).contains(&connections), "each of eight users moved once: {connections}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_certificate_is_shown_to_new_connections_and_breaks_no_old_one() {
    let b = Bench::new();
    let first = certificate(b.dir.path());
    b.write(50, 50);
    let _proxy = b.start(&[]).await;
    // Trusts the first certificate alone: a new connection would fail, so none may be needed.
    let old = Load::on(b.https, &[&first]);
    old.more(100).await;
    let second = certificate(b.dir.path());
    let newcomer = trusting(&[&second], "h2");
    let began = Instant::now();
    while dial(b.https, &newcomer).await.is_err() {
        assert!(began.elapsed() < PATIENCE, "the new certificate is never shown");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    old.more(200).await;
    let (bad, connections) = old.end().await;
    assert!(bad.is_empty(), "{bad:?}");
    assert_eq!(connections, 8);
    let new = Load::on(b.https, &[&second]);
    new.more(100).await;
    assert_eq!(new.end().await.0, Vec::<String>::new());
}
