//! The difference between two configs in words, one line each: what the answer of a reload says.

use crate::model::topology::Topology;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

/// Lines like `region east: weight 60 -> 40`. Empty: nothing changed.
pub fn changes(was: &Topology, is: &Topology) -> Vec<String> {
    let mut out = Vec::new();
    named(
        &mut out,
        "region",
        &was.regions,
        &is.regions,
        |r| &r.name,
        |out, name, a, b| {
            field(out, name, "weight", &a.weight, &b.weight);
            field(out, name, "tier", &a.tier, &b.tier);
            field(out, name, "drained", &a.drained, &b.drained);
            field(out, name, "jurisdiction", &a.jurisdiction, &b.jurisdiction);
            field(out, name, "fates", &a.fates, &b.fates);
        },
    );
    named(
        &mut out,
        "service",
        &was.services,
        &is.services,
        |s| &s.name,
        |out, name, a, b| {
            field(out, name, "protocol", &a.protocol, &b.protocol);
            field(out, name, "connect_timeout", &a.connect_timeout, &b.connect_timeout);
            let blocks: [(&str, bool); 9] = [
                ("tls", a.tls != b.tls),
                ("idle_connections", a.idle != b.idle),
                ("health", a.health != b.health),
                ("affinity", a.affinity != b.affinity),
                ("failover", a.failover != b.failover),
                ("recovery", a.recovery != b.recovery),
                ("overload", a.overload != b.overload),
                ("retry_budget", a.retry_budget != b.retry_budget),
                ("pools", a.pools.len() != b.pools.len()),
            ];
            out.extend(blocks.iter().filter(|(_, changed)| *changed).map(|(what, _)| format!("{name}: {what} changed")));
        },
    );
    let region = |t: &Topology, i: usize| t.regions[t.pools[i].region.at()].weight;
    named(
        &mut out,
        "pool",
        &was.pools,
        &is.pools,
        |p| &p.name,
        |out, name, a, b| {
            let by_region = |t: &Topology, n: &Arc<str>| t.pools.iter().position(|p| p.name == *n).map(|i| region(t, i));
            // A change of the region's weight has its own line; the pool's matters where it is its own.
            if by_region(was, &a.name) == by_region(is, &b.name) || by_region(is, &b.name) != Some(b.weight) {
                field(out, name, "weight", &a.weight, &b.weight);
            }
            field(out, name, "tier", &a.tier, &b.tier);
            field(out, name, "capacity", &a.capacity, &b.capacity);
            field(out, name, "max_inflight", &a.max_inflight, &b.max_inflight);
            field(out, name, "dns", &a.dns, &b.dns);
            let addresses = |t: &Topology, r: &std::ops::Range<u32>| -> Vec<String> {
                r.clone().map(|e| t.endpoints[e as usize].name.to_string()).collect()
            };
            let (before, after) = (addresses(was, &a.endpoints), addresses(is, &b.endpoints));
            out.extend(after.iter().filter(|e| !before.contains(e)).map(|e| format!("{name}: endpoint {e} added")));
            out.extend(before.iter().filter(|e| !after.contains(e)).map(|e| format!("{name}: endpoint {e} removed")));
        },
    );
    named(
        &mut out,
        "route",
        &was.routes,
        &is.routes,
        |r| &r.name,
        |out, name, a, b| {
            // Indexes may shift without a change of meaning, so they are left out of the comparison.
            let text = |r: &crate::model::policy::Route| {
                let mut r = r.clone();
                (r.service, r.table, r.allowed) = (0.into(), 0.into(), crate::model::id::RegionSet::EMPTY);
                format!("{r:?}")
            };
            let service = |t: &Topology, r: &crate::model::policy::Route| t.services[r.service.at()].name.clone();
            field(out, name, "service", &service(was, a), &service(is, b));
            field(out, name, "deadline", &a.deadline, &b.deadline);
            field(out, name, "residency", &a.residency, &b.residency);
            if out.last().is_none_or(|l| !l.starts_with(name)) && text(a) != text(b) {
                out.push(format!("{name}: changed"));
            }
        },
    );
    let order = |t: &Topology| t.routes.iter().map(|r| r.name.clone()).collect::<Vec<_>>();
    let (mut a, mut b) = (order(was), order(is));
    a.retain(|n| b.contains(n));
    let kept = order(was);
    b.retain(|n| kept.contains(n));
    if a != b {
        out.push("routes: their order changed".into());
    }
    let listeners = |t: &Topology| t.listeners.iter().map(|l| (l.address.to_string(), format!("{l:?}"))).collect::<BTreeMap<_, _>>();
    let (a, b) = (listeners(was), listeners(is));
    out.extend(b.keys().filter(|k| !a.contains_key(*k)).map(|k| format!("listener {k} added")));
    out.extend(a.keys().filter(|k| !b.contains_key(*k)).map(|k| format!("listener {k} removed")));
    out.extend(b.iter().filter(|(k, v)| a.get(*k).is_some_and(|o| o != *v)).map(|(k, _)| format!("listener {k} changed")));
    let blocks = [
        ("edge", was.edge != is.edge),
        ("limits", was.limits != is.limits),
        ("admin", was.admin != is.admin),
        ("logging", was.logging != is.logging),
        ("stale", was.stale != is.stale),
        ("spool", was.spool != is.spool),
        ("journal", was.journal != is.journal),
    ];
    out.extend(blocks.iter().filter(|(_, changed)| *changed).map(|(what, _)| format!("{what}: changed")));
    out
}

fn named<T>(
    out: &mut Vec<String>,
    kind: &str,
    was: &[T],
    is: &[T],
    name: impl Fn(&T) -> &Arc<str>,
    mut compare: impl FnMut(&mut Vec<String>, &str, &T, &T),
) {
    for b in is {
        let title = format!("{kind} {}", name(b));
        match was.iter().find(|a| name(a) == name(b)) {
            Some(a) => compare(out, &title, a, b),
            None => out.push(format!("{title} added")),
        }
    }
    out.extend(was.iter().filter(|a| !is.iter().any(|b| name(a) == name(b))).map(|a| format!("{kind} {} removed", name(a))));
}

fn field<T: PartialEq + Debug>(out: &mut Vec<String>, title: &str, what: &str, a: &T, b: &T) {
    if a != b {
        out.push(format!("{title}: {what} {a:?} -> {b:?}"));
    }
}
