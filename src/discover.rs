//! Endpoints found by DNS: names in, addresses out, for as long as the records say.
//!
//! ```text
//! pools' `dns:` ─▶ lookup ─▶ addresses ─(changed?)─▶ the config is applied anew with them
//!        ▲                     │ kept for the records' TTL, at least SHORTEST, at most LONGEST
//!        └──── RETRY ──── failed: the last good answer stays
//! ```
//!
//! A name with a port asks for A and AAAA records; one that begins with `_` and has none (`_http._tcp.api.internal`) for SRV records, of
//! which those with the lowest priority count, each with the port it names. Every address is an endpoint.
//!
//! An answer without addresses counts as a failed lookup: emptying a pool on the word of a broken name server would be the
//! outage this program is made against. A name that was never found stands for one endpoint that cannot be reached
//! ([`unresolved`]), so that its pool is dead and says why, instead of missing.
//!
//! What it does not do: it judges no endpoint, and it does not drop connections to addresses that are gone from DNS; requests
//! on them come to their end.

use crate::clock;
use crate::model::time::{Duration, Moment};
use crate::model::topology::Topology;
use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RData;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Instant;

/// However short a TTL: the name is not asked for more often.
const SHORTEST: Duration = Duration::from_secs(1);
/// However long: an operator who changed a record should not wait for longer.
const LONGEST: Duration = Duration::from_secs(300);
/// After a failed lookup.
const RETRY: Duration = Duration::from_secs(5);
/// For one name, all its questions and repeats included.
const PATIENCE: Duration = Duration::from_secs(2);
/// Addresses of one name; more are left out.
const MOST: usize = 64;

/// What stands in for a name that was never found: an address of the discard-only prefix (RFC 6666), which is routed nowhere.
pub fn unresolved(name: &str) -> SocketAddr {
    let port = name.rsplit_once(':').and_then(|(_, p)| p.parse().ok()).filter(|p| *p > 0).unwrap_or(9);
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1)), port)
}

/// What is known of names.
pub struct Discovery {
    resolver: Option<TokioResolver>,
    names: BTreeMap<String, Known>,
}

struct Known {
    /// Sorted. Empty: never found.
    addresses: Vec<SocketAddr>,
    until: Moment,
    failing: bool,
}

impl Discovery {
    /// Of no name yet.
    pub fn new() -> Self {
        Self { resolver: None, names: BTreeMap::new() }
    }

    /// The system's resolvers (`/etc/resolv.conf`, `/etc/hosts`), read when they are first needed.
    fn resolver(&mut self) -> Result<&TokioResolver, String> {
        if self.resolver.is_none() {
            let mut builder = TokioResolver::builder_tokio().map_err(|e| format!("{e}; check /etc/resolv.conf"))?;
            // Times are kept here; a cache below would only blur them.
            builder.options_mut().cache_size = 0;
            builder.options_mut().timeout = PATIENCE / 2;
            self.resolver = Some(builder.build().map_err(|e| e.to_string())?);
        }
        self.resolver.as_ref().ok_or_else(String::new)
    }

    /// Puts what is known into a config, after asking for names that are new. Names it no longer has are forgotten.
    pub async fn place(&mut self, topology: &mut Topology) {
        let wanted: BTreeSet<&String> = topology.pools.iter().filter_map(|p| p.dns.as_ref()).collect();
        self.names.retain(|name, _| wanted.contains(name));
        let new: Vec<String> = wanted.into_iter().filter(|n| !self.names.contains_key(*n)).cloned().collect();
        if !new.is_empty() {
            self.ask(new).await;
        }
        topology.place(|name| self.names.get(name).map(|k| k.addresses.clone()).filter(|a| !a.is_empty()), unresolved);
    }

    /// When some name is to be asked for again. [`Moment::FAR`]: there is none.
    pub fn due(&self) -> Moment {
        self.names.values().map(|k| k.until).min().unwrap_or(Moment::FAR)
    }

    /// Asks for the names that are due. Whether any address changed.
    pub async fn refresh(&mut self) -> bool {
        let now = clock::now();
        let due = self.names.iter().filter(|(_, k)| k.until <= now).map(|(n, _)| n.clone()).collect();
        self.ask(due).await
    }

    async fn ask(&mut self, names: Vec<String>) -> bool {
        if names.is_empty() {
            return false;
        }
        let asked = match self.resolver() {
            Ok(resolver) => {
                let ask = async |name: String| {
                    let found = tokio::time::timeout(PATIENCE, lookup(resolver, &name)).await;
                    (name, found.unwrap_or_else(|_| Err("no answer in time".into())))
                };
                futures_util::future::join_all(names.into_iter().map(ask)).await
            }
            Err(why) => names.into_iter().map(|name| (name, Err(why.clone()))).collect(),
        };
        asked.into_iter().fold(false, |changed, (name, found)| self.learn(name, found, clock::now()) | changed)
    }

    /// An answer, or why there is none. Whether the addresses are others now.
    fn learn(&mut self, name: String, found: Result<(Vec<SocketAddr>, Duration), String>, now: Moment) -> bool {
        let known = self.names.entry(name.clone()).or_insert(Known { addresses: Vec::new(), until: now, failing: false });
        match found {
            Ok((mut addresses, ttl)) => {
                addresses.sort_unstable();
                addresses.dedup();
                addresses.truncate(MOST);
                known.until = now + ttl.clamp(SHORTEST, LONGEST);
                if std::mem::take(&mut known.failing) {
                    tracing::info!("dns: {name} is found again");
                }
                std::mem::replace(&mut known.addresses, addresses) != known.addresses
            }
            Err(why) => {
                known.until = now + RETRY;
                if !std::mem::replace(&mut known.failing, true) {
                    let stays = known.addresses.len();
                    tracing::warn!("dns: {name}: {why}; {stays} addresses of the last good answer stay");
                }
                false
            }
        }
    }
}

impl Default for Discovery {
    fn default() -> Self {
        Self::new()
    }
}

async fn lookup(resolver: &TokioResolver, name: &str) -> Result<(Vec<SocketAddr>, Duration), String> {
    let wrong = |e: &dyn std::fmt::Display| e.to_string();
    let ttl = |until: Instant| until.saturating_duration_since(clock::instant(clock::now()).into_std());
    let (mut found, mut least) = (Vec::new(), LONGEST);
    if let Some((host, port)) = name.rsplit_once(':') {
        let port = port.parse().map_err(|e| wrong(&e))?;
        let answer = resolver.lookup_ip(host).await.map_err(|e| wrong(&e))?;
        found.extend(answer.iter().map(|ip| SocketAddr::new(ip, port)));
        least = ttl(answer.valid_until());
    } else {
        let answer = resolver.srv_lookup(name).await.map_err(|e| wrong(&e))?;
        least = least.min(ttl(answer.valid_until()));
        let services: Vec<_> =
            answer.answers().iter().filter_map(|r| if let RData::SRV(srv) = &r.data { Some(srv) } else { None }).collect();
        let first = services.iter().map(|s| s.priority).min();
        for service in services.iter().filter(|s| Some(s.priority) == first).take(MOST) {
            let answer = resolver.lookup_ip(service.target.clone()).await.map_err(|e| wrong(&e))?;
            found.extend(answer.iter().map(|ip| SocketAddr::new(ip, service.port)));
            least = least.min(ttl(answer.valid_until()));
        }
    }
    if found.is_empty() { Err("no address in the answer".into()) } else { Ok((found, least)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Vec<SocketAddr> {
        text.split(' ').map(|a| a.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn a_failed_lookup_keeps_the_last_good_answer() {
        let mut d = Discovery { resolver: None, names: BTreeMap::new() };
        let now = Moment(1_000_000);
        let name = || "api.internal:80".to_owned();
        assert!(d.learn(name(), Ok((at("10.0.0.2:80 10.0.0.1:80 10.0.0.2:80"), Duration::from_secs(30))), now));
        assert_eq!(d.due(), now + Duration::from_secs(30));
        assert!(!d.learn(name(), Err("SERVFAIL".into()), now));
        assert_eq!((d.names[&name()].addresses.clone(), d.due()), (at("10.0.0.1:80 10.0.0.2:80"), now + RETRY));
        assert!(!d.learn(name(), Ok((at("10.0.0.2:80 10.0.0.1:80"), Duration::ZERO)), now), "the order says nothing");
        assert_eq!(d.due(), now + SHORTEST);
        assert!(d.learn(name(), Ok((at("10.0.0.3:80"), Duration::from_secs(9999))), now));
        assert_eq!(d.due(), now + LONGEST);
    }

    #[tokio::test]
    async fn localhost_is_found_and_nonsense_is_not() {
        let mut d = Discovery::new();
        assert!(d.ask(vec!["localhost:8080".into(), "no such name.invalid:1".into()]).await);
        assert!(d.names["localhost:8080"].addresses.contains(&"127.0.0.1:8080".parse().unwrap()));
        assert!(d.names["no such name.invalid:1"].addresses.is_empty());
        assert_eq!(unresolved("api.internal:8443").port(), 8443);
    }
}
