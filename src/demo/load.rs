//! An open-loop load: requests leave on schedule whatever became of the earlier ones, and are timed from
//! when they were due, so that a stall shows in every request it delayed (no coordinated omission).

use crate::clock;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// What a user of this patience gets.
const PATIENCE: Duration = Duration::from_secs(2);

/// What users felt during one second.
#[derive(Clone, Debug, Default)]
pub struct Second {
    /// Good answers by region.
    pub good: BTreeMap<String, u32>,
    /// Answers marked as degraded.
    pub degraded: u32,
    /// Refused honestly: 503 with Retry-After.
    pub refused: u32,
    /// Everything else: errors, resets, timeouts.
    pub failed: u32,
    /// Times of all that were answered, milliseconds.
    pub times: Vec<f64>,
}

impl Second {
    /// All good answers.
    pub fn ok(&self) -> u32 {
        self.good.values().sum()
    }
    /// All requests.
    pub fn total(&self) -> u32 {
        self.ok() + self.degraded + self.refused + self.failed
    }
    /// A quantile of the times, milliseconds.
    pub fn quantile(&self, q: f64) -> f64 {
        let mut times = self.times.clone();
        times.sort_by(f64::total_cmp);
        times.get(((times.len() as f64 * q) as usize).min(times.len().saturating_sub(1))).copied().unwrap_or(0.0)
    }
    /// Adds another second's figures.
    pub fn merge(&mut self, other: &Self) {
        for (region, n) in &other.good {
            *self.good.entry(region.clone()).or_default() += n;
        }
        self.degraded += other.degraded;
        self.refused += other.refused;
        self.failed += other.failed;
        self.times.extend(&other.times);
    }
}

enum Felt {
    Good(String),
    Degraded,
    Refused,
    Failed,
}

/// The load generator and its idle connections.
#[derive(Clone)]
pub struct Load {
    target: SocketAddr,
    idle: Arc<Mutex<Vec<SendRequest<Full<Bytes>>>>>,
    felt: Arc<Mutex<Second>>,
}

impl Load {
    /// A load on this address.
    pub fn new(target: SocketAddr) -> Self {
        Self { target, idle: Arc::default(), felt: Arc::default() }
    }

    /// What users felt since last asked.
    pub fn take(&self) -> Second {
        std::mem::take(&mut self.felt.lock())
    }

    /// Sends `rate` requests a second, every seventh a write, until the runtime ends.
    pub async fn run(self, rate: u32) {
        let begin = clock::now();
        for n in 0u64.. {
            let due = begin + Duration::from_secs_f64(n as f64 / f64::from(rate));
            tokio::time::sleep(clock::now().until(due)).await;
            let load = self.clone();
            tokio::spawn(async move {
                let felt = tokio::time::timeout(clock::now().until(due + PATIENCE), load.one(n)).await.unwrap_or(Felt::Failed);
                let mut second = load.felt.lock();
                second.times.push(clock::now().since(due).as_secs_f64() * 1e3);
                match felt {
                    Felt::Good(region) => *second.good.entry(region).or_default() += 1,
                    Felt::Degraded => second.degraded += 1,
                    Felt::Refused => second.refused += 1,
                    Felt::Failed => second.failed += 1,
                }
            });
        }
    }

    async fn one(&self, n: u64) -> Felt {
        let request = match n % 7 {
            0 => Request::post("/upload").header("idempotency-key", format!("demo-{n}")).body(Full::new(Bytes::from(vec![b'x'; 2048]))),
            1 | 2 => Request::get(format!("/video/{}", n % 400)).body(Full::default()),
            _ => Request::get("/feed").body(Full::default()),
        };
        let Ok(mut request) = request else { return Felt::Failed };
        request.headers_mut().insert("host", http::HeaderValue::from_static("demo.test"));
        self.send(request).await.unwrap_or(Felt::Failed)
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Option<Felt> {
        let mut connection = self.connection().await?;
        let response = connection.send_request(request).await.ok()?;
        let header = |name| response.headers().get(name).and_then(|v| v.to_str().ok());
        let felt = if header("evenkeel-degraded").is_some() && response.status().is_success() {
            Felt::Degraded
        } else if response.status().as_u16() == 503 && header("retry-after").is_some() {
            Felt::Refused
        } else if response.status().is_success() {
            Felt::Good(header("x-region").unwrap_or("?").to_owned())
        } else {
            Felt::Failed
        };
        response.into_body().collect().await.ok()?;
        self.idle.lock().push(connection);
        Some(felt)
    }

    async fn connection(&self) -> Option<SendRequest<Full<Bytes>>> {
        loop {
            let Some(idle) = self.idle.lock().pop() else { break };
            if idle.is_ready() {
                return Some(idle);
            }
        }
        let stream = TcpStream::connect(self.target).await.ok()?;
        stream.set_nodelay(true).ok()?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        Some(sender)
    }
}
