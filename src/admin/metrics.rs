//! `/metrics`, in the text format of Prometheus (version 0.0.4), made at scrape.
//!
//! Requests count once, in `live` cells that only grow; a scrape reads the same cells, and the states of pools from the
//! newest view. Every combination of labels that can be known is there from the start with 0, so that the first failure
//! is a step from 0 to 1 and not a series out of nowhere. A series ends when its route, pool or endpoint leaves the config.

mod fleet;
mod process;
mod text;

use crate::journal;
use crate::live::{Cells, Picture, Times};
use crate::model::id::{PoolIx, RouteIx, ServiceIx};
use crate::model::outcome::RequestOutcome;
use crate::model::policy::Priority;
use crate::model::signal::{HIST_BUCKETS, Hist};
use crate::model::status::Status;
use crate::model::time::Moment;
use crate::model::topology::Topology;
use crate::model::view::{Live, State, View};
use crate::report::slo::Report;
use crate::spool;
use std::sync::Arc;
use text::{Kind, Text};

/// What a scrape needs besides cells and view.
#[derive(Default)]
pub struct Beside {
    /// The newest status, for what the view does not know: states of regions.
    pub status: Option<Arc<Status>>,
    /// Reloads so far that were applied, rejected.
    pub reloads: (u64, u64),
    /// Open connections by listener.
    pub connections: Vec<(String, u64)>,
    /// Certificates and when they expire, Unix time in seconds.
    pub certificates: Vec<(String, i64)>,
    /// Spans of traces by what became of them.
    pub spans: [(&'static str, u64); 3],
    /// When regions last passed a drill, Unix time in seconds.
    pub drills: Vec<(String, i64)>,
    /// Objectives over thirty days.
    pub slo: Option<Report>,
    /// The journal.
    pub journal: journal::Stats,
    /// The spool.
    pub spool: Option<spool::Stats>,
    /// Last good copies: bytes and entries held.
    pub copies: (u64, usize),
    /// The other edges.
    pub fleet: Option<crate::fleet::Fleet>,
}

/// The whole page.
pub fn page(picture: &Picture, now: Moment, beside: &Beside) -> String {
    let mut out = Text::with_capacity(64 << 10);
    requests(&mut out, &picture.view, &picture.cells);
    attempts(&mut out, &picture.view, &picture.cells);
    states(&mut out, &picture.view, &picture.cells, now);
    regions(&mut out, picture.view.topology(), beside);
    objectives(&mut out, beside);
    own(&mut out, &picture.view, beside);
    fleet::write(&mut out, beside);
    let _ = process::write(&mut out);
    out.finish()
}

fn requests(out: &mut Text, view: &View, cells: &Cells) {
    let t = view.topology();
    let routes = || t.routes.iter().enumerate().map(|(i, r)| (r, cells.route(RouteIx::from(i)), RouteIx::from(i)));
    out.family("evenkeel_requests_total", Kind::Counter, "Requests by what became of them.");
    for (route, cell, _) in routes() {
        for outcome in RequestOutcome::ALL {
            out.line("", &[("route", &route.name), ("outcome", outcome.label())], cell.outcome(outcome));
        }
    }
    out.family("evenkeel_request_duration_seconds", Kind::Histogram, "From the whole request until the last byte of its answer.");
    for (route, cell, _) in routes() {
        times(out, &[("route", &route.name)], &cell.times);
    }
    out.family("evenkeel_shed_total", Kind::Counter, "Requests refused because of overload.");
    for (route, cell, _) in routes() {
        out.line("", &[("route", &route.name), ("priority", route.priority.label())], cell.sheds());
    }
    out.family("evenkeel_refusal_duration_seconds", Kind::Histogram, "From the whole request until it was refused because of overload.");
    for p in [Priority::Critical, Priority::Normal, Priority::Sheddable] {
        times(out, &[("priority", p.label())], cells.refusals(p));
    }
    out.family(
        "evenkeel_guard_rejections_total",
        Kind::Counter,
        "Answers that a guard rejected, by its place in the file and its pointer.",
    );
    for (route, _, ix) in routes() {
        for (i, (guard, n)) in route.guards.iter().zip(cells.guard_rejections(ix)).enumerate() {
            out.line("", &[("route", &route.name), ("rule", &format!("{i}:{}", guard.json))], n);
        }
    }
}

fn attempts(out: &mut Text, view: &View, cells: &Cells) {
    let t = view.topology();
    out.family("evenkeel_attempts_total", Kind::Counter, "Attempts at backends by their result.");
    for (p, labels) in pools(t) {
        for (result, n) in cells.pool(p).results() {
            out.line("", &[labels[0], labels[1], ("result", result)], n);
        }
    }
    out.family("evenkeel_attempt_duration_seconds", Kind::Histogram, "Until the first byte of a good answer.");
    for (p, labels) in pools(t) {
        times(out, &labels, &cells.pool(p).times);
    }
    let services = || t.services.iter().enumerate().map(|(i, s)| (s, cells.service(ServiceIx::from(i))));
    out.family("evenkeel_retries_total", Kind::Counter, "Attempts beyond the first, hedges not counted.");
    for (service, cell) in services() {
        out.line("", &[("service", &service.name)], cell.retries());
    }
    out.family("evenkeel_hedges_total", Kind::Counter, "Hedges, and whether they won.");
    for (service, cell) in services() {
        let (won, lost) = cell.hedges();
        out.line("", &[("service", &service.name), ("won", "true")], won);
        out.line("", &[("service", &service.name), ("won", "false")], lost);
    }
}

fn states(out: &mut Text, view: &View, cells: &Cells, now: Moment) {
    let t = view.topology();
    let seen = |p: PoolIx| &view.pools[p.at()];
    out.family("evenkeel_pool_state", Kind::Gauge, "1 for the state the pool is in.");
    for (p, labels) in pools(t) {
        for state in State::ALL {
            out.line("", &[labels[0], labels[1], ("state", state.label())], u64::from(seen(p).state == state));
        }
    }
    out.family("evenkeel_pool_suspect", Kind::Gauge, "1 while new work avoids the pool.");
    for (p, labels) in pools(t) {
        out.line("", &labels, u64::from(seen(p).suspect));
    }
    out.family("evenkeel_share", Kind::Gauge, "The part of the service's requests that the pool gets now.");
    for (p, labels) in pools(t) {
        out.line("", &labels, seen(p).share);
    }
    out.family("evenkeel_concurrency_limit", Kind::Gauge, "Requests in flight the pool may have.");
    for (p, labels) in pools(t) {
        out.line("", &labels, u64::from(seen(p).limit));
    }
    out.family("evenkeel_inflight", Kind::Gauge, "Requests in flight to the pool.");
    for (p, labels) in pools(t) {
        out.line("", &labels, u64::from(cells.pool(p).inflight()));
    }
    out.family("evenkeel_endpoint_up", Kind::Gauge, "1 while the endpoint takes requests.");
    for (p, labels) in pools(t) {
        for e in t.pools[p.at()].endpoints() {
            let up = !cells.out(e, now);
            out.line("", &[labels[0], labels[1], ("endpoint", &t.endpoints[e.at()].name)], u64::from(up));
        }
    }
}

fn regions(out: &mut Text, t: &Topology, beside: &Beside) {
    let known = |name: &str| beside.status.as_ref()?.regions.iter().find(|r| r.name == name);
    out.family("evenkeel_region_state", Kind::Gauge, "1 for the state the region is in.");
    for r in &t.regions {
        let now = known(&r.name).map_or(State::Serving, |s| s.state);
        for state in State::ALL {
            out.line("", &[("region", &r.name), ("state", state.label())], u64::from(now == state));
        }
    }
    out.family("evenkeel_drained", Kind::Gauge, "1 while the region is drained.");
    for r in &t.regions {
        let drained = known(&r.name).map_or(r.drained, |s| s.drained.is_some());
        out.line("", &[("region", &r.name)], u64::from(drained));
    }
    out.family("evenkeel_last_drill_timestamp_seconds", Kind::Gauge, "When the region last passed a drill, Unix time; 0: never.");
    for r in &t.regions {
        let passed = beside.drills.iter().find(|(name, _)| **name == *r.name).map_or(0, |(_, at)| *at);
        out.line("", &[("region", &r.name)], passed);
    }
}

/// Routes without an objective have none of these.
fn objectives(out: &mut Text, beside: &Beside) {
    let routes = || beside.slo.iter().flat_map(|s| &s.routes);
    let kept = || {
        routes()
            .flat_map(|r| [("success", &r.success), ("latency", &r.latency)].map(|(what, k)| Some((&*r.route, what, k.as_ref()?))))
            .flatten()
    };
    if kept().next().is_none() {
        return;
    }
    out.family(
        "evenkeel_slo_burn_rate",
        Kind::Gauge,
        "The part that was bad over the part that may be; 1 spends the budget in its window.",
    );
    for (route, what, k) in kept() {
        for (window, rate) in &k.burn {
            out.line("", &[("route", route), ("objective", what), ("window", window)], *rate);
        }
    }
    out.family("evenkeel_slo_budget_remaining", Kind::Gauge, "What is left of what may be bad over 30 days, 1 to 0; below 0: missed.");
    for (route, what, k) in kept() {
        out.line("", &[("route", route), ("objective", what)], k.budget);
    }
}

fn own(out: &mut Text, view: &View, beside: &Beside) {
    out.family("evenkeel_edge_suspect", Kind::Gauge, "1 while states are held because the fault may be ours or everybody's.");
    out.line("", &[], u64::from(view.edge_suspect));
    out.family("evenkeel_config_generation", Kind::Gauge, "Number of the config in force.");
    out.line("", &[], view.config.generation);
    out.family("evenkeel_config_reloads_total", Kind::Counter, "Reloads by their result.");
    out.line("", &[("result", "applied")], beside.reloads.0);
    out.line("", &[("result", "rejected")], beside.reloads.1);
    out.family("evenkeel_connections", Kind::Gauge, "Open connections of clients.");
    for (listener, n) in &beside.connections {
        out.line("", &[("listener", listener)], *n);
    }
    if !beside.certificates.is_empty() {
        out.family("evenkeel_certificate_expiry_seconds", Kind::Gauge, "When the certificate expires, Unix time.");
        for (name, at) in &beside.certificates {
            out.line("", &[("name", name)], *at);
        }
    }
    out.family("evenkeel_journal_records_total", Kind::Counter, "Events for the journal, by whether they reached the disk.");
    out.line("", &[("result", "written")], beside.journal.written);
    out.line("", &[("result", "lost")], beside.journal.lost);
    if view.topology().tracing.is_some() {
        out.family("evenkeel_trace_spans_total", Kind::Counter, "Spans of sampled requests by what became of them.");
        for (result, n) in beside.spans {
            out.line("", &[("result", result)], n);
        }
    }
    out.family("evenkeel_stale_bytes", Kind::Gauge, "Room that last good copies take; stale.max_bytes at most.");
    out.line("", &[], beside.copies.0);
    out.family("evenkeel_stale_entries", Kind::Gauge, "Last good copies held, and signposts to those that vary.");
    out.line("", &[], beside.copies.1 as u64);
    if let Some(stats) = &beside.spool {
        spooled(out, stats);
    }
    out.family("evenkeel_build_info", Kind::Gauge, "1, with the version.");
    out.line("", &[("version", env!("CARGO_PKG_VERSION"))], 1u64);
}

fn spooled(out: &mut Text, stats: &spool::Stats) {
    out.family("evenkeel_spool_entries", Kind::Gauge, "Writes that wait to be replayed.");
    out.line("", &[], stats.pending as u64);
    out.family("evenkeel_spool_bytes", Kind::Gauge, "Room that the spool takes on disk.");
    out.line("", &[], stats.bytes);
    out.family("evenkeel_spool_up", Kind::Gauge, "1 while the spool's file can be used.");
    out.line("", &[], u64::from(stats.trouble.is_none()));
    out.family("evenkeel_spool_writes", Kind::Gauge, "Writes in the spool by where they stand.");
    for (state, n) in &stats.states {
        out.line("", &[("state", state)], *n as u64);
    }
    out.family("evenkeel_spool_accepted_total", Kind::Counter, "Writes for the spool, by whether they were acknowledged.");
    out.line("", &[("result", "kept")], stats.kept);
    out.line("", &[("result", "refused")], stats.refused);
    out.family("evenkeel_spool_replays_total", Kind::Counter, "Replays by what came of them.");
    for (result, n) in &stats.replays {
        out.line("", &[("result", result)], *n);
    }
}

/// Every pool with its labels.
fn pools(t: &Topology) -> impl Iterator<Item = (PoolIx, [(&'static str, &str); 2])> {
    t.pools.iter().enumerate().map(|(i, p)| {
        let (service, region) = (&*t.services[p.service.at()].name, &*t.regions[p.region.at()].name);
        (PoolIx::from(i), [("service", service), ("region", region)])
    })
}

/// The bounds that are shown of the cells' finer buckets: two per doubling from 1 ms to 16 s, where objectives lie, and
/// one per doubling beside that.
fn shown(bucket: usize) -> bool {
    let upper = Hist::upper(bucket);
    let whole = upper.is_power_of_two();
    let half = (upper / 3).is_power_of_two() && upper.is_multiple_of(3);
    bucket + 1 < HIST_BUCKETS && (whole && upper >= 256 || half && (1 << 10..16 << 20).contains(&upper))
}

fn times(out: &mut Text, labels: &[(&str, &str)], times: &Times) {
    // Sum before counts: a time in between is then in the counts only, and no average comes out too high.
    let sum = times.sum().as_secs_f64();
    let mut total = 0;
    for (bucket, n) in times.counts().into_iter().enumerate() {
        total += n;
        if shown(bucket) {
            out.bucket(labels, Hist::upper(bucket) as f64 / 1e6, total);
        }
    }
    out.bucket(labels, f64::INFINITY, total);
    out.line("_sum", labels, sum);
    out.line("_count", labels, total);
}
