//! What changed from one config to the next, in words that an operator can check against what was meant: one line a change.
//!
//! Both are laid out as named things with named values (so a new field is one line here), then compared by name: moving a
//! region up in the file is no change, moving a route is one, as the first match wins.

use super::policy::{Degrade, HedgeAfter, Route};
use super::topology::{Service, Topology};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Display};

/// Lines like `region east: weight 60 -> 40`, `route stats: deadline 2s -> 1s`, `service api: endpoint 10.1.0.12:8080
/// added to east`. Empty: the two mean the same.
pub fn diff(old: &Topology, new: &Topology) -> Vec<String> {
    let mut out = vec![];
    let (before, after) = (things(old), things(new));
    let (earlier, later) = (by_name(&before), by_name(&after));
    for thing in &after {
        match earlier.get(&*thing.name) {
            Some(was) => was.compare(thing, &mut out),
            None => out.push(format!("{} added", thing.name)),
        }
    }
    for gone in before.iter().filter(|b| !later.contains_key(&*b.name)) {
        out.push(format!("{} removed", gone.name));
    }
    let kept = |t: &Topology, other: &Topology| -> Vec<String> {
        let names: BTreeSet<&str> = other.routes.iter().map(|o| &*o.name).collect();
        let known = |r: &&Route| names.contains(&*r.name);
        t.routes.iter().filter(known).map(|r| r.name.to_string()).collect()
    };
    let (was, is) = (kept(old, new), kept(new, old));
    if was != is {
        out.push(format!("routes: order {} -> {}", was.join(", "), is.join(", ")));
    }
    out
}

/// Configs have thousands of routes: nothing is looked up by going through all of them. The first of a name counts.
fn by_name(things: &[Thing]) -> BTreeMap<&str, &Thing> {
    things.iter().rev().map(|t| (&*t.name, t)).collect()
}

/// Something that the file names, with what it says of it.
struct Thing {
    name: String,
    values: Vec<(String, String)>,
    /// Things of which only coming and going matters: `endpoint 10.1.0.11:8080`, `east`.
    members: Vec<(String, String)>,
}

/// Longer values are not shown: that they changed must do.
const LONG: usize = 80;

impl Thing {
    fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), values: vec![], members: vec![] }
    }
    fn with(mut self, key: &str, value: impl Display) -> Self {
        self.values.push((key.into(), value.to_string()));
        self
    }
    fn debug(self, key: &str, value: &impl Debug) -> Self {
        let text = format!("{value:?}");
        let bare = text.strip_prefix("Some(").and_then(|t| t.strip_suffix(')')).unwrap_or(&text).to_owned();
        self.with(key, if bare == "None" { "null" } else { &bare })
    }
    fn compare(&self, new: &Self, out: &mut Vec<String>) {
        for (key, is) in &new.values {
            match self.values.iter().find(|(k, _)| k == key) {
                Some((_, was)) if was == is => {}
                Some((_, was)) if was.len() <= LONG && is.len() <= LONG => out.push(format!("{}: {key} {was} -> {is}", self.name)),
                Some(_) => out.push(format!("{}: {key} changed", self.name)),
                None => {}
            }
        }
        let (were, are): (BTreeSet<_>, BTreeSet<_>) = (self.members.iter().collect(), new.members.iter().collect());
        out.extend(new.members.iter().filter(|m| !were.contains(m)).map(|(what, to)| format!("{}: {what} added to {to}", self.name)));
        out.extend(self.members.iter().filter(|m| !are.contains(m)).map(|(what, of)| format!("{}: {what} removed from {of}", self.name)));
    }
}

fn things(t: &Topology) -> Vec<Thing> {
    let mut all = vec![edge(t)];
    for l in &t.listeners {
        let thing = Thing::new(format!("listener {}", l.address))
            .with("redirect_https", l.redirect_https)
            .with("proxy_protocol", l.proxy_protocol)
            .with("trusted_proxies", list(l.trusted_proxies.iter()))
            .with("max_connections", l.max_connections)
            .with("tls", l.tls.as_ref().map_or("null".into(), fingerprint));
        all.push(thing);
    }
    all.push(limits(t));
    for r in &t.regions {
        let thing = Thing::new(format!("region {}", r.name))
            .with("jurisdiction", r.jurisdiction.as_deref().unwrap_or("null"))
            .with("weight", r.weight)
            .with("tier", r.tier)
            .with("fates", list(r.fates.iter()))
            .with("drained", r.drained);
        all.push(thing);
    }
    all.extend(t.services.iter().map(|s| service(t, s)));
    all.extend(t.routes.iter().map(|r| route(t, r)));
    all.push(Thing::new("stale").with("max_bytes", t.stale.max_bytes).with("max_body", t.stale.max_body).with("persist", t.stale.persist));
    let spool = Thing::new("spool").with("path", t.spool.path.display()).with("max_bytes", t.spool.max_bytes);
    all.push(spool.with("replay_rate", rate(Some(t.spool.replay_rate))));
    let journal = Thing::new("journal").with("path", t.journal.path.display());
    all.push(journal.debug("keep", &t.journal.keep).with("max_bytes", t.journal.max_bytes));
    if let Some(f) = &t.fleet {
        let fleet = Thing::new("fleet").with("servers", list(f.servers.iter())).with("name", &f.name).with("replicas", f.replicas);
        let fleet = fleet.debug("credentials", &f.credentials).debug("token_file", &f.token_file).debug("ca", &f.ca);
        all.push(fleet.debug("client", &f.client).with("verdicts", f.verdicts.label()).debug("lease", &f.lease));
    }
    all
}

fn edge(t: &Topology) -> Thing {
    let (e, l) = (&t.edge, &t.logging);
    let admin = t.admin.as_ref();
    Thing::new("edge")
        .with("name", &e.name)
        .with("jurisdiction", e.jurisdiction.as_deref().unwrap_or("null"))
        .with("threads", e.threads)
        .with("state_dir", e.state_dir.display())
        .debug("shutdown_delay", &e.shutdown_delay)
        .debug("drain_timeout", &e.drain_timeout)
        .with("expose_region", e.expose_region)
        .with("admin.address", admin.map_or("null".into(), |a| a.address.to_string()))
        .with("admin.tokens", admin.map_or("null".into(), |a| list(a.tokens.iter().map(|t| &t.name))))
        .with("admin.tokens settings", fingerprint(&admin.map(|a| &a.tokens)))
        .with("logging.level", &l.level)
        .debug("logging.format", &l.format)
        .with("logging.access", fingerprint(&l.access))
        .with("tracing", t.tracing.as_ref().map_or("null".into(), |t| format!("{} of requests to {}", t.sample, t.otlp)))
}

fn limits(t: &Topology) -> Thing {
    let l = &t.limits;
    Thing::new("limits")
        .debug("header_timeout", &l.header_timeout)
        .with("header_bytes", l.header_bytes)
        .with("header_count", l.header_count)
        .with("uri_bytes", l.uri_bytes)
        .debug("body_bytes", &l.body_bytes)
        .debug("body_timeout", &l.body_timeout)
        .with("body_min_rate", l.body_min_rate)
        .debug("tls_handshake_timeout", &l.tls_handshake_timeout)
        .debug("idle_timeout", &l.idle_timeout)
        .debug("requests_per_connection", &l.requests_per_connection)
        .debug("connections_per_client", &l.connections_per_client)
        .with("requests_per_client", rate(l.requests_per_client))
        .with("h2_streams", l.h2_streams)
        .with("replay_bytes", l.replay_bytes)
        .with("replay_total", l.replay_total)
}

fn service(t: &Topology, s: &Service) -> Thing {
    let mut thing = Thing::new(format!("service {}", s.name))
        .debug("protocol", &s.protocol)
        .with("tls", s.tls.as_ref().map_or("null".into(), fingerprint))
        .debug("connect_timeout", &s.connect_timeout)
        .with("idle_connections.max", s.idle.max)
        .debug("idle_connections.timeout", &s.idle.timeout)
        .with("idle_connections.warm", s.idle.warm)
        .with("health", s.health.as_ref().map_or("null".into(), fingerprint))
        .debug("affinity", &s.affinity)
        .debug("failover.mode", &s.failover.mode)
        .debug("failover.window", &s.failover.window)
        .with("failover.min_requests", s.failover.min_requests)
        .with("failover.failure_rate", part(s.failover.failure_rate))
        .with("failover.eject_after", s.failover.eject_after)
        .debug("failover.suspect_floor", &s.failover.suspect_floor)
        .debug("failover.silence_floor", &s.failover.silence_floor)
        .with("failover.open", range(&s.failover.open))
        .debug("recovery.hold", &s.recovery.hold)
        .with("recovery.trial_share", part(s.recovery.trial_share))
        .with("recovery.trial_successes", s.recovery.trial_successes)
        .with("recovery.steps", list(s.recovery.steps.iter().map(|r| part(*r))))
        .debug("recovery.step_time", &s.recovery.step_time)
        .with("recovery.success", part(s.recovery.success))
        .with("recovery.latency_ratio", s.recovery.latency_ratio)
        .debug("recovery.warm", &s.recovery.warm)
        .with("overload.limit.initial", s.overload.initial)
        .with("overload.limit.min", s.overload.min)
        .with("overload.limit.max", s.overload.max)
        .debug("overload.max_queue", &s.overload.max_queue)
        .with("retry_budget.ratio", part(s.retry_budget.ratio))
        .with("retry_budget.min", rate(Some(s.retry_budget.min)))
        .debug("retry_budget.reserve", &s.retry_budget.reserve);
    for pool in s.pools.iter().map(|p| &t.pools[p.at()]) {
        let region = &t.regions[pool.region.at()];
        thing.members.push(("pool".into(), region.name.to_string()));
        // The region's own weight and tier are told there.
        let own = |own: u32, regions: u32| if own == regions { "the region's".into() } else { own.to_string() };
        thing = thing
            .with(&format!("capacity of {}", region.name), rate(pool.capacity))
            .debug(&format!("max_inflight of {}", region.name), &pool.max_inflight)
            .with(&format!("weight of {}", region.name), own(pool.weight, region.weight))
            .with(&format!("tier of {}", region.name), own(pool.tier, region.tier))
            .debug(&format!("dns of {}", region.name), &pool.dns);
        for e in pool.endpoints() {
            thing.members.push((format!("endpoint {}", t.endpoints[e.at()].name), region.name.to_string()));
        }
    }
    thing
}

fn route(t: &Topology, r: &Route) -> Thing {
    let hedge = r.hedge.map(|h| match h.after {
        HedgeAfter::Percentile(p) => format!("p{} up to {}", round(p * 100.0), part(h.budget)),
        HedgeAfter::Fixed(d) => format!("{d:?} up to {}", part(h.budget)),
    });
    let way = |d: &Degrade| match d {
        Degrade::Stale(s) => format!("stale {:?}", s.max_age),
        Degrade::Static(s) => format!("static {}", s.status),
        Degrade::Spool(s) => format!("spool {:?}", s.max_age),
        Degrade::Unavailable(u) => format!("unavailable {}", range(&u.retry_after)),
    };
    Thing::new(format!("route {}", r.name))
        .with("match", fingerprint(&r.matches))
        .with("service", &t.services[r.service.at()].name)
        .with("priority", r.priority.label())
        .with("residency", r.residency.as_ref().map_or("any".into(), |l| list(l.iter())))
        .debug("deadline", &r.deadline)
        .debug("attempt_timeout", &r.attempt_timeout)
        .debug("idle_timeout", &r.idle_timeout)
        .with("retry.attempts", r.retry.attempts)
        .with("retry.statuses", list(r.retry.statuses.iter()))
        .debug("retry.writes", &r.retry.writes)
        .with("hedge", hedge.unwrap_or("null".into()))
        .with("request_headers", fingerprint(&r.request_headers))
        .with("response_headers", fingerprint(&r.response_headers))
        .with("rewrite", fingerprint(&r.rewrite))
        .with("guards", fingerprint(&r.guards))
        .with("degrade", list(r.degrade.iter().map(way)))
        .with("degrade settings", fingerprint(&r.degrade))
        .with("slo", fingerprint(&r.slo))
}

fn list<T: Display>(items: impl Iterator<Item = T>) -> String {
    format!("[{}]", items.map(|i| i.to_string()).collect::<Vec<_>>().join(", "))
}
/// A value that is compared but too long to be shown.
fn fingerprint(value: &impl Debug) -> String {
    format!("{value:?}{:LONG$}", "")
}
fn rate(r: Option<f64>) -> String {
    r.map_or("null".into(), |r| format!("{}/s", round(r)))
}
fn part(r: f64) -> String {
    format!("{}%", round(r * 100.0))
}
fn range((low, high): &(std::time::Duration, std::time::Duration)) -> String {
    format!("{low:?}..{high:?}")
}
/// Without what binary fractions add.
fn round(n: f64) -> f64 {
    (n * 1e9).round() / 1e9
}
