//! The connection to NATS: how it is opened, how often it is tried again, what is heard of it.
//!
//! **No stampede.** Between two tries lies a random part (half to all) of a time that doubles from 100 ms to a second and a half,
//! and a little more for every edge of the fleet: a server that comes back is not met by a thousand edges at once. A
//! connection that is silent for two pings ([`PING`]) is given up, so that a server that hangs is noticed like one that is gone.

use crate::clock;
use crate::model::time::Duration;
use crate::model::topology::Fleet;
use async_nats::{Client, ConnectOptions, Event};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use tokio::sync::mpsc;

/// Between two pings.
const PING: Duration = Duration::from_secs(2);
/// For one try.
const CONNECT: Duration = Duration::from_secs(2);
/// Between tries: at first, at most, and on top for every edge.
const BETWEEN: (Duration, Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(1500), Duration::from_millis(5));

/// What is heard of the connection.
#[derive(Debug)]
pub enum Heard {
    /// It is open.
    Up,
    /// It is not.
    Down,
    /// Something went wrong, in words.
    Trouble(String),
}

/// Opens a connection that is kept open from then on. `edges`: how many there are, for the pace of tries.
pub async fn open(f: &Fleet, edge: &str, edges: Arc<AtomicU32>) -> Result<(Client, mpsc::UnboundedReceiver<Heard>), String> {
    let (to, heard) = mpsc::unbounded_channel();
    let dice = Mutex::new(clock::dice());
    let mut options = ConnectOptions::new()
        .name(format!("evenkeel {edge}"))
        .retry_on_initial_connect()
        .max_reconnects(None)
        .ping_interval(PING)
        .connection_timeout(CONNECT)
        .request_timeout(Some(CONNECT))
        .no_echo()
        .reconnect_delay_callback(move |tries| pause(tries, edges.load(Relaxed), dice.lock().unit()))
        .event_callback(move |event| {
            let told = match event {
                Event::Connected => Some(Heard::Up),
                Event::Disconnected | Event::Closed => Some(Heard::Down),
                Event::ServerError(e) => Some(Heard::Trouble(e.to_string())),
                Event::ClientError(e) => Some(Heard::Trouble(e.to_string())),
                Event::LameDuckMode | Event::Draining | Event::SlowConsumer(_) => None,
            };
            let _ = told.map(|t| to.send(t));
            async {}
        });
    let unreadable = |what: &str, path: &std::path::Path, e: std::io::Error| format!("{what} {} cannot be read: {e}", path.display());
    if let Some(path) = &f.credentials {
        options = options.credentials_file(path).await.map_err(|e| unreadable("fleet.nats.credentials", path, e))?;
    }
    if let Some(path) = &f.token_file {
        let token = tokio::fs::read_to_string(path).await.map_err(|e| unreadable("fleet.nats.token_file", path, e))?;
        options = options.token(token.trim().to_owned());
    }
    if let Some(path) = &f.ca {
        options = options.add_root_certificates(path.clone());
    }
    if let Some(pair) = &f.client {
        options = options.add_client_certificate(pair.cert.clone(), pair.key.clone());
    }
    if f.ca.is_some() || f.client.is_some() || f.servers.iter().any(|s| s.starts_with("tls://")) {
        options = options.require_tls(true);
    }
    let client = options.connect(&f.servers[..]).await.map_err(|e| e.to_string())?;
    Ok((client, heard))
}

/// How long to wait before the next try.
fn pause(tries: usize, edges: u32, die: f64) -> Duration {
    let (first, most, each) = BETWEEN;
    let nominal = first.saturating_mul(1 << tries.saturating_sub(1).min(8)).min(most) + each * edges.min(2_000);
    nominal.mul_f64(0.5 + die / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_are_spread_and_bounded() {
        assert!(pause(1, 1, 0.0) >= Duration::from_millis(50));
        assert!((1..100).all(|t| pause(t, 5, 1.0) < Duration::from_millis(1600)));
        assert!(pause(50, 1000, 0.5) > Duration::from_secs(4), "a thousand edges take their time");
    }
}
