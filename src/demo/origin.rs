//! A simulated app server: answers like a small video site, and fails in the ways regions fail.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What ails a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// The site lost power: connections hang, nothing is answered, not even probes.
    Blackout,
    /// The processes are gone: connections are reset and refused.
    Kill,
    /// Everything comes two seconds late, probes too.
    Slow,
    /// Every second data request fails with 503; probes pass.
    Errors,
    /// Every tenth data request hangs for ever; probes pass.
    Gray,
}

impl Fault {
    /// All that can be asked for, with the word for it.
    pub const NAMES: [(&'static str, Self); 6] = [
        ("heal", Self::None),
        ("blackout", Self::Blackout),
        ("kill", Self::Kill),
        ("slow", Self::Slow),
        ("errors", Self::Errors),
        ("gray", Self::Gray),
    ];

    fn from_code(code: u8) -> Self {
        Self::NAMES.iter().map(|(_, f)| *f).find(|f| *f as u8 == code).unwrap_or_default()
    }
}

/// One simulated region with its app servers.
#[derive(Clone)]
pub struct Region {
    /// Its name.
    pub name: &'static str,
    /// Where its servers listen.
    pub addresses: Vec<SocketAddr>,
    fault: Arc<AtomicU8>,
    changed: watch::Sender<Fault>,
    /// Data requests it has served.
    pub served: Arc<AtomicU64>,
}

impl Region {
    /// Binds `servers` app servers on free ports of a loopback address of the region's own, and serves them
    /// until the runtime ends. Every answer takes `rtt` plus a few milliseconds of work.
    pub async fn start(name: &'static str, host: [u8; 4], servers: usize, rtt: Duration) -> std::io::Result<Self> {
        let mut region =
            Self { name, addresses: Vec::new(), fault: Arc::default(), changed: watch::Sender::new(Fault::None), served: Arc::default() };
        for _ in 0..servers {
            let listener = TcpListener::bind(SocketAddr::from((host, 0))).await?;
            region.addresses.push(listener.local_addr()?);
            tokio::spawn(region.clone().accept(listener, rtt));
        }
        Ok(region)
    }

    /// Makes the region fail, or heals it.
    pub fn fail(&self, fault: Fault) {
        self.fault.store(fault as u8, Relaxed);
        self.changed.send_replace(fault);
    }

    /// What ails it now.
    pub fn fault(&self) -> Fault {
        Fault::from_code(self.fault.load(Relaxed))
    }

    async fn accept(self, listener: TcpListener, rtt: Duration) {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            if self.fault() == Fault::Kill {
                reset(stream);
                continue;
            }
            let region = self.clone();
            tokio::spawn(async move {
                let killed = region.changed.subscribe();
                let serve = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(|request| region.answer(request, rtt)));
                tokio::select! {
                    _ = serve => {}
                    () = until_killed(killed) => {}
                }
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>, rtt: Duration) -> Result<Response<Full<Bytes>>, Infallible> {
        let probe = request.uri().path() == "/healthz";
        let path = request.uri().path().to_owned();
        if let Ok(body) = request.into_body().collect().await {
            drop(body);
        }
        let n = if probe { 0 } else { self.served.fetch_add(1, Relaxed) };
        match self.fault() {
            Fault::Blackout => std::future::pending().await,
            Fault::Gray if !probe && n.is_multiple_of(10) => std::future::pending().await,
            Fault::Slow => tokio::time::sleep(Duration::from_secs(2)).await,
            Fault::Errors if !probe && n.is_multiple_of(2) => {
                return Ok(self.json(StatusCode::SERVICE_UNAVAILABLE, r#"{"error":"injected"}"#.to_owned()));
            }
            _ => {}
        }
        tokio::time::sleep(rtt + Duration::from_millis(2)).await;
        if self.fault() == Fault::Blackout {
            std::future::pending::<()>().await;
        }
        let body = format!(r#"{{"region":"{}","path":"{path}","views":{}}}"#, self.name, 1_000_000 + n);
        Ok(self.json(StatusCode::OK, body))
    }

    fn json(&self, status: StatusCode, body: String) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert("content-type", http::HeaderValue::from_static("application/json"));
        headers.insert("x-region", http::HeaderValue::from_static(self.name));
        response
    }
}

async fn until_killed(mut fault: watch::Receiver<Fault>) {
    if fault.wait_for(|f| *f == Fault::Kill).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Closes with RST, as a machine does that has no such process any more.
fn reset(stream: TcpStream) {
    let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}
