//! What is lawful but dangerous: a config that works until the day it is needed.

use super::super::problem::Path;
use super::Checker;
use super::covered::Earlier;
use crate::model::id::*;
use crate::model::policy::*;
use crate::model::topology::*;

/// Looks for all of it.
pub(super) fn all(checker: &mut Checker<'_>, t: &Topology) {
    let mut earlier = Earlier::default();
    for i in 0..t.routes.len() {
        let at = Path::of("routes").at(i);
        route(checker, t, i, &at, &earlier);
        earlier.add(i, &t.routes[i].matches);
    }
    for (i, service) in t.services.iter().enumerate() {
        self::service(checker, t, ServiceIx::from(i), &Path::of("services").key(&service.name));
    }
    for (i, region) in t.regions.iter().enumerate() {
        if t.pools_of(RegionIx::from(i)).next().is_none() {
            checker.warn(&Path::of("regions").key(&region.name), "no service has a pool in this region");
        }
    }
}

fn route(checker: &mut Checker<'_>, t: &Topology, i: usize, at: &Path, earlier: &Earlier<'_>) {
    let r = &t.routes[i];
    let writes = takes_writes(r);
    if r.attempt_timeout > r.deadline {
        let message = "longer than the route's deadline: an attempt never gets this long, and none is left for a second one";
        checker.warn(&at.key("attempt_timeout"), format!("{message}\nbetter: a third of the deadline, which is the default"));
    }
    fates(checker, t, r, at);
    if let Some(earlier) = earlier.covering(&r.matches, &t.routes) {
        checker.warn(
            at,
            format!("never reached: route {} before it matches everything that this one does\nput the narrower route first", earlier.name),
        );
    }
    let header = r.matches.headers.first().map(|(name, _)| name);
    if let (Some(header), Some(residency)) = (header, &r.residency) {
        let foreign = |later: &Route| -> Vec<&str> {
            let homes = t.services[later.service.at()].pools.iter().map(|p| t.pools[p.at()].region);
            homes.filter(|x| later.allowed.has(*x) && !r.allowed.has(*x)).map(|x| &*t.regions[x.at()].name).collect()
        };
        let without =
            |later: &&Route| overlaps(&later.matches, &r.matches) && later.matches.headers.is_empty() && !foreign(later).is_empty();
        if let Some(later) = t.routes[i + 1..].iter().find(without) {
            checker.warn(
                &at.key("residency"),
                format!(
                    "the residency [{}] hangs on the request header `{header}` alone: without it route {} takes the request, which may go to {}\nbetter: tell such requests by host or path, or see to it that something trusted sets the header",
                    residency.join(", "),
                    later.name,
                    foreign(later).join(", "),
                ),
            );
        }
    }
    for (n, way) in r.degrade.iter().enumerate() {
        let at = at.key("degrade").at(n);
        match way {
            Degrade::Static(s) if s.status < 300 && writes => checker.warn(
                &at,
                format!("a write that nobody stored is answered with {}: the client believes it is done\nbetter: `methods: [GET, HEAD]` in this route's match, or a status of 503", s.status),
            ),
            Degrade::Stale(_) if r.residency.is_some() && t.edge.jurisdiction.is_none() => checker.warn(
                &at,
                "no copy will be kept: the route has a residency, and where this edge stands is not said\nset edge.jurisdiction",
            ),
            _ => {}
        }
    }
    if r.hedge.is_some() && !r.matches.methods.is_empty() && r.matches.methods.iter().all(|m| !safe(m)) {
        checker.warn(&at.key("hedge"), "never happens: only GET, HEAD and OPTIONS are hedged, and this route matches none of them");
    }
}

/// One blow that takes a route down.
fn fates(checker: &mut Checker<'_>, t: &Topology, r: &Route, at: &Path) {
    let pools = &t.services[r.service.at()].pools;
    let homes: Vec<&Region> = pools
        .iter()
        .map(|p| t.pools[p.at()].region)
        .filter(|x| r.allowed.has(*x))
        .map(|x| &t.regions[x.at()])
        .filter(|x| !x.drained)
        .collect();
    match homes[..] {
        [] => checker.warn(at, "every region that may serve this route is drained: all its requests degrade"),
        [only] => checker.warn(at, format!("only region {} may serve this route: when it is lost, nothing is left", only.name)),
        [first, ..] => {
            if let Some(fate) = first.fates.iter().find(|f| homes.iter().all(|h| h.fates.contains(f))) {
                let names: Vec<&str> = homes.iter().map(|h| &*h.name).collect();
                checker.warn(
                    at,
                    format!(
                        "all regions that may serve this route ({}) share the fate {fate}: one failure takes the route down",
                        names.join(", ")
                    ),
                );
            }
        }
    }
}

fn service(checker: &mut Checker<'_>, t: &Topology, ix: ServiceIx, at: &Path) {
    let s = &t.services[ix.at()];
    if t.routes.iter().all(|r| r.service != ix) {
        checker.warn(at, "no route uses this service");
    }
    let routes = || t.routes.iter().filter(|r| r.service == ix);
    if s.health.is_none() && routes().next().is_some() && routes().all(|r| !takes_reads(r)) {
        let spools = routes().any(|r| r.degrade.iter().any(|d| matches!(d, Degrade::Spool(_))));
        let writes = if spools { "users' writes, spooled ones included, are" } else { "users' writes are" };
        checker.warn(
            &at.key("health"),
            format!("no probes, and only writes come here, which are never trials: nothing tells whether a pool that failed is well again, so {writes} what tries it, when its time is over\nbetter: health: {{type: tcp}}, or a path to ask for"),
        );
    }
    let pools: Vec<&Pool> = s.pools.iter().map(|p| &t.pools[p.at()]).collect();
    let mut tiers: Vec<u32> = pools.iter().map(|p| p.tier).collect();
    tiers.sort_unstable();
    tiers.dedup();
    for tier in &tiers {
        let mates: Vec<&&Pool> = pools.iter().filter(|p| p.tier == *tier).collect();
        if mates.iter().all(|p| p.weight == 0) {
            let names: Vec<&str> = mates.iter().map(|p| &*t.regions[p.region.at()].name).collect();
            checker.warn(
                at,
                format!("all weights of tier {tier} are 0 ({}): these regions are last resorts, behind every tier", names.join(", ")),
            );
        }
    }
    // A standby gets, at worst, all that the largest pool before it was meant to carry.
    for (n, tier) in tiers.iter().enumerate().skip(1) {
        let before = pools.iter().filter(|p| tiers[..n].contains(&p.tier));
        let Some(largest) =
            before.filter(|p| p.capacity.is_some()).max_by(|a, b| a.capacity.partial_cmp(&b.capacity).unwrap_or(std::cmp::Ordering::Equal))
        else {
            continue;
        };
        let (lost, inherits) = (&t.regions[largest.region.at()].name, largest.capacity.unwrap_or_default());
        let mates: Vec<&&Pool> = pools.iter().filter(|p| p.tier == *tier).collect();
        if let Some(unknown) = mates.iter().find(|p| p.capacity.is_none()) {
            let region = &t.regions[unknown.region.at()].name;
            let message = format!(
                "a standby without `capacity`: when {lost} is lost, up to {inherits}/s come here, and nothing says how much it can take"
            );
            checker.warn(&at.key("pools").key(region), message);
            continue;
        }
        let room: f64 = mates.iter().filter_map(|p| p.capacity).sum();
        if room < inherits {
            let region = &t.regions[mates[0].region.at()].name;
            let message = format!(
                "the standbys of tier {tier} can take {room}/s, but when {lost} is lost, up to {inherits}/s come here: the rest is shed"
            );
            checker.warn(&at.key("pools").key(region).key("capacity"), message);
        }
    }
}

fn safe(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE")
}

fn takes_reads(r: &Route) -> bool {
    r.matches.methods.is_empty() || r.matches.methods.iter().any(|m| safe(m))
}

fn takes_writes(r: &Route) -> bool {
    r.matches.methods.is_empty() || r.matches.methods.iter().any(|m| !safe(m))
}

/// Whether every request that `b` matches is surely matched by `a`.
pub(super) fn covers(a: &Match, b: &Match) -> bool {
    let host = match (&a.host, &b.host) {
        (None, _) => true,
        (Some(a), Some(b)) => a == b || a.strip_prefix('*').is_some_and(|domain| b.ends_with(domain)),
        (Some(_), None) => false,
    };
    let path = match (&a.path, &b.path) {
        (PathMatch::Any, _) => true,
        (PathMatch::Prefix(a), PathMatch::Prefix(b) | PathMatch::Exact(b)) => b.starts_with(a.as_str()),
        (PathMatch::Prefix(a), _) => a == "/",
        (PathMatch::Exact(a), PathMatch::Exact(b)) => a == b,
        (PathMatch::Regex(a), PathMatch::Exact(b)) => a.is_match(b),
        (PathMatch::Regex(a), PathMatch::Regex(b)) => a.as_str() == b.as_str(),
        _ => false,
    };
    let methods = a.methods.is_empty() || !b.methods.is_empty() && b.methods.iter().all(|m| a.methods.contains(m));
    host && path && methods && a.headers.iter().all(|h| b.headers.contains(h))
}

/// Whether a request may exist that both match, headers aside (regular expressions: always assumed).
fn overlaps(a: &Match, b: &Match) -> bool {
    let wild = |w: &str, h: &str| w.strip_prefix('*').is_some_and(|domain| h.ends_with(domain));
    let host = match (&a.host, &b.host) {
        (Some(a), Some(b)) => a == b || wild(a, b) || wild(b, a),
        _ => true,
    };
    let path = match (&a.path, &b.path) {
        (PathMatch::Exact(a), PathMatch::Exact(b)) => a == b,
        (PathMatch::Prefix(p), PathMatch::Exact(e)) | (PathMatch::Exact(e), PathMatch::Prefix(p)) => e.starts_with(p.as_str()),
        (PathMatch::Prefix(a), PathMatch::Prefix(b)) => a.starts_with(b.as_str()) || b.starts_with(a.as_str()),
        (PathMatch::Regex(r), PathMatch::Exact(e)) | (PathMatch::Exact(e), PathMatch::Regex(r)) => r.is_match(e),
        _ => true,
    };
    host && path && (a.methods.is_empty() || b.methods.is_empty() || a.methods.iter().any(|m| b.methods.contains(m)))
}
