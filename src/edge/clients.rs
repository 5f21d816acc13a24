//! What one client address may have open, and how often it may ask: `limits.connections_per_client` and
//! `limits.requests_per_client`. Process-wide, locked for a moment per connection (and per request only where a rate is set).
//!
//! Neither holds for trusted proxies, who speak for many.
//!
//! An IPv6 client is its /64: that is what a subscriber gets, and one host can draw any number of addresses from it.

use crate::model::time::Moment;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// Shards keep two workers from waiting for each other.
const SHARDS: usize = 16;

/// Who is connected.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    shards: [Mutex<HashMap<IpAddr, Client>>; SHARDS],
}

#[derive(Debug)]
struct Client {
    connections: u32,
    /// Requests it may make at once: a bucket of one second's worth.
    tokens: f64,
    at: Moment,
}

/// One connection of a client; gives its place back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    clients: Arc<Clients>,
    key: IpAddr,
}

fn key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let s = v6.segments();
            IpAddr::V6(Ipv6Addr::new(s[0], s[1], s[2], s[3], 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

impl Clients {
    fn shard(&self, key: &IpAddr) -> &Mutex<HashMap<IpAddr, Client>> {
        let last = match key {
            IpAddr::V4(a) => u32::from(*a),
            IpAddr::V6(a) => (u128::from(*a) >> 64) as u32,
        };
        &self.shards[(last.wrapping_mul(0x9E37_79B1) >> 28) as usize % SHARDS]
    }

    /// Take a place for one more connection of a client; `None`: it has enough.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr, most: Option<u32>) -> Option<Place> {
        let key = key(address);
        let mut shard = self.shard(&key).lock();
        let client = shard.entry(key).or_insert(Client { connections: 0, tokens: f64::INFINITY, at: Moment::ZERO });
        if most.is_some_and(|m| client.connections >= m) {
            return None;
        }
        client.connections += 1;
        drop(shard);
        Some(Place { clients: self.clone(), key })
    }

    /// Whether this client may make one more request now, at `rate` requests per second (and as many at once).
    pub(crate) fn may_ask(&self, address: IpAddr, rate: f64, now: Moment) -> bool {
        let key = key(address);
        let mut shard = self.shard(&key).lock();
        let Some(client) = shard.get_mut(&key) else { return true };
        let burst = rate.max(1.0);
        client.tokens = (client.tokens + now.since(client.at).as_secs_f64() * rate).min(burst);
        client.at = now;
        let may = client.tokens >= 1.0;
        if may {
            client.tokens -= 1.0;
        }
        may
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut shard = self.clients.shard(&self.key).lock();
        if let Some(client) = shard.get_mut(&self.key) {
            client.connections -= 1;
            if client.connections == 0 {
                shard.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_per_client_and_given_back() {
        let clients = Arc::new(Clients::default());
        let a: IpAddr = "2001:db8::1".parse().unwrap();
        let same_64: IpAddr = "2001:db8::ffff:2".parse().unwrap();
        let other: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        let first = clients.enter(a, Some(2)).unwrap();
        let _second = clients.enter(same_64, Some(2)).unwrap();
        assert!(clients.enter(a, Some(2)).is_none());
        assert!(clients.enter(other, Some(2)).is_some());
        drop(first);
        assert!(clients.enter(a, Some(2)).is_some());
    }

    #[test]
    fn a_rate_lets_a_seconds_worth_through_at_once() {
        let clients = Arc::new(Clients::default());
        let a: IpAddr = "192.0.2.1".parse().unwrap();
        let _place = clients.enter(a, None);
        let asked = |at| (0..20).filter(|_| clients.may_ask(a, 10.0, Moment::ms(at))).count();
        assert_eq!((asked(1000), asked(1000), asked(1500)), (10, 0, 5));
    }
}
