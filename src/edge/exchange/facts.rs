//! What decisions rest on, read off a request once.

use super::super::connection::Guest;
use crate::http1::RequestHead;
use crate::model::id::RouteIx;
use crate::model::policy::Route;
use crate::model::time::Moment;
use crate::model::topology::{Affinity, Topology};
use crate::model::view::Facts;
use crate::steer::choose;
use std::net::IpAddr;

/// The facts of a request that came at `began`.
pub(super) fn facts(request: &RequestHead, index: RouteIx, route: &Route, began: Moment) -> Facts {
    Facts {
        route: index,
        safe: request.method.is_safe(),
        keyed: request.head.get("idempotency-key").is_some(),
        upgrade: request.upgrade().is_some(),
        started: began,
        priority: route.priority,
    }
}

/// What keeps the client in its region, where its service wants that.
pub(super) fn affinity(topology: &Topology, route: &Route, request: &RequestHead, guest: &Guest) -> Option<u64> {
    match topology.services[route.service.at()].affinity.as_ref()? {
        Affinity::Header(name) => request.head.get(name).map(choose::affinity),
        Affinity::Cookie(name) => request.head.all("cookie").find_map(|line| cookie(line, name)).map(choose::affinity),
        Affinity::ClientIp => Some(match guest.client(request) {
            IpAddr::V4(a) => choose::affinity(&a.octets()),
            IpAddr::V6(a) => choose::affinity(&a.octets()[..8]),
        }),
    }
}

/// A cookie's value in a `Cookie` line.
fn cookie<'a>(line: &'a [u8], name: &str) -> Option<&'a [u8]> {
    line.split(|b| *b == b';').map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}
