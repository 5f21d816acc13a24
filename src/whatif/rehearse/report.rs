//! What came of a rehearsal, in figures that people and machines read.

use super::Scenario;
use super::ledger::{Count, Felt, Ledger, Stretch};
use super::stage::Stage;
use crate::model::id::PoolIx;
use crate::model::policy::Priority;
use crate::model::time::Duration;
use crate::model::view::Compiled;
use serde::Serialize;

/// What the model does not know of: printed with every result.
pub const LEFT_OUT: &[&str] = &[
    "bandwidth, packet loss and TCP: a request arrives whole after one delay, or never",
    "what servers share: databases, caches and locks behind them fail only where a fault says so",
    "the proxy itself: its CPU, memory and connection limits",
    "bodies that stream: uploads in flight, long downloads, upgrades",
    "age, size and privacy of last good copies: one is held for every key that was once answered well",
];

/// What came of a rehearsal.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The scenario's name.
    pub scenario: String,
    /// What happens in it.
    pub what: String,
    /// The config.
    pub config: String,
    /// Chance.
    pub seed: u64,
    /// Seconds.
    pub length_s: f64,
    /// Requests a second over all edges, before the day's factors.
    pub rate: f64,
    /// Edges alike.
    pub edges: u32,
    /// Requests that were played one by one.
    pub played: u64,
    /// Real requests that each of them stands for.
    pub weight: f64,
    /// First fault, seconds.
    pub fault_s: Option<f64>,
    /// Last fault over, seconds.
    pub healed_s: Option<f64>,
    /// From the first fault until every later second up to the end was good, seconds; null: not by the end.
    pub recovered_s: Option<f64>,
    /// The same, looked at only until the last fault was over: how the failover fared, without the way back.
    pub failed_over_s: Option<f64>,
    /// From the end of the last fault on, likewise; null: not by the end.
    pub settled_s: Option<f64>,
    /// Attempts for each request.
    pub attempts_per_request: f64,
    /// Hedges for each request.
    pub hedges_per_request: f64,
    /// From the first fault on, by route.
    pub routes: Vec<RouteReport>,
    /// From the first fault until the last one was over, by route: `asked`, `served`, `shed` and `failed` alone.
    pub outage: Vec<Outage>,
    /// What has to hold, and whether it did.
    pub objectives: Vec<Objective>,
    /// What changed, and why.
    pub story: Vec<Line>,
    /// Lines that did not fit.
    pub untold: usize,
    /// Where capacity ran out.
    pub full: Vec<FullReport>,
    /// Names of the routes, as in `timeline`.
    pub route_names: Vec<String>,
    /// Names of the pools, as in `timeline`.
    pub pool_names: Vec<String>,
    /// Length of one entry of `timeline`, seconds.
    pub step_s: f64,
    /// All of it over time.
    pub timeline: Vec<Step>,
    /// What was assumed.
    pub assumed: Vec<String>,
    /// What the model does not know of.
    pub left_out: Vec<String>,
}

/// One route, counts in real requests.
#[derive(Clone, Debug, Serialize)]
pub struct RouteReport {
    /// Its name.
    pub route: String,
    /// Its priority.
    pub priority: &'static str,
    /// Asked for.
    pub asked: f64,
    /// Good answers.
    pub good: f64,
    /// Marked last good copies.
    pub stale: f64,
    /// Marked fixed answers.
    #[serde(rename = "static")]
    pub fixed: f64,
    /// Spooled writes.
    pub spooled: f64,
    /// Nonsense that went out.
    pub wrong: f64,
    /// Refused for want of room.
    pub shed: f64,
    /// Refused for want of a region or of time.
    pub refused: f64,
    /// Bad answers.
    pub failed: f64,
    /// Writes of unknown outcome.
    pub unknown: f64,
    /// Served, of what counts: what may be shed and was does not.
    pub success: f64,
    /// Median of what was served, ms.
    pub p50_ms: f64,
    /// 99 of 100, ms.
    pub p99_ms: f64,
    /// The same before the first fault, ms.
    pub p99_before_ms: f64,
}

/// A route while something was broken.
#[derive(Clone, Debug, Serialize)]
pub struct Outage {
    /// Its name.
    pub route: String,
    /// Asked for.
    pub asked: f64,
    /// Served.
    pub served: f64,
    /// Refused for want of room.
    pub shed: f64,
    /// Not served otherwise.
    pub failed: f64,
}

/// What has to hold.
#[derive(Clone, Debug, Serialize)]
pub struct Objective {
    /// In words.
    pub what: String,
    /// Measured, in words.
    pub is: String,
    /// Whether it did.
    pub met: bool,
}

/// A line of the story.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Seconds.
    pub at: f64,
    /// What changed.
    pub what: String,
}

/// Where capacity ran out.
#[derive(Clone, Debug, Serialize)]
pub struct FullReport {
    /// The pool.
    pub pool: String,
    /// Seconds.
    pub from: f64,
    /// Seconds.
    pub to: f64,
    /// Longest wait at its servers, ms.
    pub wait_ms: f64,
    /// The concurrency limit was reached.
    pub limited: bool,
}

/// One stretch.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// When it began, seconds.
    pub at: f64,
    /// Asked for, by route.
    pub asked: Vec<f64>,
    /// Served in any way, by route.
    pub served: Vec<f64>,
    /// Of those: degraded, by route.
    pub degraded: Vec<f64>,
    /// Refused for want of room, by route.
    pub shed: Vec<f64>,
    /// p99 of what was served, by route, ms.
    pub p99_ms: Vec<f64>,
    /// By pool: share of its service.
    pub share: Vec<f64>,
    /// By pool: concurrency limit.
    pub limit: Vec<u32>,
    /// By pool: in flight.
    pub inflight: Vec<u32>,
    /// By pool: state.
    pub state: Vec<&'static str>,
}

fn round(x: f64) -> f64 {
    (x * 1000.0).round() / 1000.0
}
fn ms(d: Option<Duration>) -> f64 {
    d.map_or(0.0, |d| round(d.as_secs_f64() * 1000.0))
}
fn secs(d: Duration) -> f64 {
    round(d.as_secs_f64())
}
fn whole(v: &Count, felt: Felt) -> f64 {
    v.of(felt).round()
}

/// The part of what counts that was served.
pub fn success(count: &Count, sheddable: bool) -> f64 {
    let asked = count.asked() - if sheddable { count.of(Felt::Shed) } else { 0.0 };
    if asked <= 0.0 { 1.0 } else { count.served() / asked }
}

impl Report {
    pub(super) fn of(scenario: &Scenario, config: &Compiled, stage: &Stage, l: Ledger) -> Self {
        let t = &config.topology;
        let sheddable = |r: usize| t.routes[r].priority == Priority::Sheddable;
        let route = |(i, c): (usize, &Count)| RouteReport {
            route: t.routes[i].name.to_string(),
            priority: t.routes[i].priority.label(),
            asked: c.asked().round(),
            good: whole(c, Felt::Good),
            stale: whole(c, Felt::Stale),
            fixed: whole(c, Felt::Static),
            spooled: whole(c, Felt::Spooled),
            wrong: whole(c, Felt::Wrong),
            shed: whole(c, Felt::Shed),
            refused: whole(c, Felt::Refused),
            failed: whole(c, Felt::Failed),
            unknown: whole(c, Felt::Unknown),
            success: (success(c, sheddable(i)) * 1e6).round() / 1e6,
            p50_ms: ms(c.took.quantile(0.5)),
            p99_ms: ms(c.took.quantile(0.99)),
            p99_before_ms: ms(l.before[i].took.quantile(0.99)),
        };
        let routes: Vec<RouteReport> = l.after.iter().enumerate().filter(|(_, c)| c.asked() > 0.0).map(route).collect();
        let (fault, end) = (l.fault.unwrap_or_default(), scenario.length);
        let healed = l.healed.unwrap_or(end).min(end);
        let asked: f64 = l.before.iter().chain(&l.after).map(Count::asked).sum();
        let tries: f64 = l.stretches.iter().flat_map(|s| &s.tries).sum();
        // Attempts of leapt stretches are not counted, nor are their requests here.
        let played = l.played as f64 * stage.weight;
        let per = |x: f64| if asked > 0.0 { round(x / played.max(1.0)) } else { 0.0 };
        let step = |(i, s): (usize, &Stretch)| Step {
            at: secs(l.width * i as u32),
            asked: s.routes.iter().map(|c| c.asked().round()).collect(),
            served: s.routes.iter().map(|c| c.served().round()).collect(),
            degraded: s.routes.iter().map(|c| (c.served() - c.of(Felt::Good)).round()).collect(),
            shed: s.routes.iter().map(|c| whole(c, Felt::Shed)).collect(),
            p99_ms: s.routes.iter().map(|c| ms(c.took.quantile(0.99))).collect(),
            share: s.gauges.iter().map(|g| round(g.share)).collect(),
            limit: s.gauges.iter().map(|g| g.limit).collect(),
            inflight: s.gauges.iter().map(|g| g.inflight).collect(),
            state: s.gauges.iter().map(|g| g.state.label()).collect(),
        };
        let names = |p: PoolIx| t.pools[p.at()].name.to_string();
        let stretches = l.stretches.iter().take((end.as_micros().div_ceil(l.width.as_micros())) as usize);
        let mut report = Self {
            scenario: scenario.name.clone(),
            what: scenario.what.clone(),
            config: config.source.path.display().to_string(),
            seed: stage.script.seed,
            length_s: secs(end),
            rate: stage.rate,
            edges: scenario.edges,
            played: l.played,
            weight: stage.weight,
            fault_s: l.fault.map(secs),
            healed_s: l.healed.map(secs),
            recovered_s: l.recovered(fault, end).map(secs),
            failed_over_s: l.recovered(fault, healed).map(secs),
            settled_s: l.recovered(healed, end).map(secs),
            attempts_per_request: per(tries),
            hedges_per_request: per(l.repeated.1),
            outage: vec![],
            objectives: vec![],
            story: l.story.iter().map(|(at, what)| Line { at: secs(*at), what: what.clone() }).collect(),
            untold: l.untold,
            full: l
                .full
                .iter()
                .map(|f| FullReport {
                    pool: names(f.pool),
                    from: secs(f.from),
                    to: secs(f.to),
                    wait_ms: ms(Some(f.wait)),
                    limited: f.limited,
                })
                .collect(),
            route_names: t.routes.iter().map(|r| r.name.to_string()).collect(),
            pool_names: t.pools.iter().map(|p| p.name.to_string()).collect(),
            step_s: secs(l.width),
            timeline: stretches.enumerate().map(step).collect(),
            assumed: stage.assumed.clone(),
            left_out: LEFT_OUT.iter().map(|s| (*s).to_owned()).collect(),
            routes,
        };
        report.outage = outage(&report, &l, fault, healed);
        report.objectives = objectives(scenario, config, &report, &l);
        report
    }

    /// Whether everything that has to hold did.
    pub fn met(&self) -> bool {
        self.objectives.iter().all(|o| o.met)
    }
}

fn outage(report: &Report, l: &Ledger, from: Duration, to: Duration) -> Vec<Outage> {
    let index = |d: Duration| (d.as_micros() / l.width.as_micros()) as usize;
    let within = index(from)..index(to).clamp(index(from), l.stretches.len());
    let mut sums = vec![Count::default(); report.route_names.len()];
    for s in &l.stretches[within.start.min(l.stretches.len())..within.end] {
        sums.iter_mut().zip(&s.routes).for_each(|(a, b)| a.add(b));
    }
    let one = |(name, c): (&String, &Count)| Outage {
        route: name.clone(),
        asked: c.asked().round(),
        served: c.served().round(),
        shed: whole(c, Felt::Shed),
        failed: (c.asked() - c.served()).round() - whole(c, Felt::Shed),
    };
    report.route_names.iter().zip(&sums).filter(|(_, c)| c.asked() > 0.0).map(one).collect()
}

fn objectives(scenario: &Scenario, config: &Compiled, report: &Report, l: &Ledger) -> Vec<Objective> {
    let (t, o, mut all) = (&config.topology, &scenario.objectives, vec![]);
    let percent = |x: f64| format!("{:.3} %", (x * 1e5).floor() / 1e3);
    let mut success_of = |who: String, want: f64, is: f64| {
        all.push(Objective { what: format!("{who}: {} served", percent(want)), is: percent(is), met: is >= want });
    };
    if let Some(want) = o.success {
        let (asked, served) = l.after.iter().zip(&t.routes).fold((0.0, 0.0), |(n, m), (c, r)| {
            let shed = if r.priority == Priority::Sheddable { c.of(Felt::Shed) } else { 0.0 };
            (n + c.asked() - shed, m + c.served())
        });
        success_of("all routes".into(), want, if asked > 0.0 { served / asked } else { 1.0 });
    }
    for (r, want, _) in &o.routes {
        if let Some(want) = want {
            let sheddable = t.routes[r.at()].priority == Priority::Sheddable;
            success_of(format!("route {}", t.routes[r.at()].name), *want, success(&l.after[r.at()], sheddable));
        }
    }
    for (r, _, p99) in &o.routes {
        let Some(want) = p99 else { continue };
        let is = l.after[r.at()].took.quantile(0.99).unwrap_or_default();
        let what = format!("route {}: p99 of {:?}", t.routes[r.at()].name, want);
        all.push(Objective { what, is: format!("{is:?}"), met: is <= *want });
    }
    if let Some(within) = o.recover_within {
        let is = report.recovered_s;
        all.push(Objective {
            what: format!("well again within {within:?}, and for good"),
            is: is.map_or("not by the end".into(), |s| format!("{s} s")),
            met: is.is_some_and(|s| s <= within.as_secs_f64()),
        });
    }
    all
}
