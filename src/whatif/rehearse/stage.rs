//! From a scenario to a script: whose load, which servers, and all of it small enough to be played.

use super::super::script::{Load, Power, Script, Site};
use super::{MODELLED, Scenario};
use crate::model::id::*;
use crate::model::time::{Duration, Moment};
use crate::model::topology::Topology;
use crate::model::view::Compiled;
use crate::steer::route::Router;
use std::sync::Arc;

/// Of what nobody says what it carries: this many times its share at rest.
const HEADROOM: f64 = 2.0;
/// What a pool carries for every request of its declared capacity: nobody declares the last drop.
const SPARE: f64 = 1.2;
/// Calm is leapt over in steps of this, so that a day's load is seen at every hour.
const LEAP: Duration = Duration::from_secs(900);
/// Shorter scenarios are played whole.
const WHOLE: Duration = Duration::from_secs(900);

/// A script, and what its figures stand for.
pub struct Stage {
    /// What is played.
    pub script: Script,
    /// Requests a second over all edges.
    pub rate: f64,
    /// Requests that one played request stands for.
    pub weight: f64,
    /// What was assumed because nobody said it.
    pub assumed: Vec<String>,
}

/// Everything ready to be played.
pub fn set(scenario: &Scenario, config: &Arc<Compiled>, rate: Option<f64>, seed: u64) -> Stage {
    let (t, edges) = (&config.topology, f64::from(scenario.edges.max(1)));
    let mut assumed = Vec::new();
    let declared: Vec<Option<f64>> =
        t.pools.iter().zip(&scenario.pools).map(|(p, s)| s.carries.or(p.capacity.map(|c| c * edges))).collect();
    let carried = |i: usize| scenario.pools[i].carries.or(declared[i].map(|c| c * SPARE));
    let all: Option<f64> = declared.iter().copied().sum();
    let rate = rate.or(scenario.rate).unwrap_or_else(|| {
        let (rate, why) = all.map_or((300.0, "nobody says what the pools carry"), |c| (c / 2.0, "half of the pools' capacity"));
        assumed.push(format!("{rate:.0} requests a second: {why} (--rate, or `rate` in a scenario file)"));
        rate
    });
    let scale = (rate * peak(scenario) / edges / MODELLED).max(1.0);
    // Of every rate, what this edge gets and what of that is played.
    let down = edges * scale;
    let parts: f64 = scenario.routes.iter().map(|r| r.part).sum();
    let of_service = |s: ServiceIx| -> f64 {
        let ours = t.routes.iter().zip(&scenario.routes).filter(|(r, _)| r.service == s);
        ours.map(|(_, l)| l.part).sum::<f64>() / parts.max(1e-9) * rate
    };
    let rest = crate::sense::Controller::new(config.clone(), Moment::ms(1000), crate::model::dice::Dice::new(0)).picture();
    let mut sites = Vec::new();
    for (i, (p, s)) in t.pools.iter().zip(&scenario.pools).enumerate() {
        let endpoints = p.endpoints().len().max(1) as f64;
        let mean = s.service.as_secs_f64() * (s.spread * s.spread / 2.0).exp();
        let power = match (s.workers, carried(i)) {
            (Some(n), _) if down == 1.0 => Power::Workers(n),
            (Some(n), _) => Power::Flow(f64::from(n) / mean.max(1e-6) / down),
            (None, Some(carries)) => Power::Flow(carries / down / endpoints),
            (None, None) => {
                let share = rest.pools[i].share;
                let share = if share > 0.0 { (share * HEADROOM).min(1.0) } else { 1.0 };
                let carries = share * of_service(p.service) * peak(scenario);
                assumed.push(format!("{} carries {carries:.0}/s", p.name));
                Power::Flow((carries / down / endpoints).max(1.0))
            }
        };
        sites.push(Site { wire: s.wire, service: s.service, spread: s.spread, power, restart: s.restart });
    }
    if t.pools.iter().zip(&scenario.pools).any(|(p, s)| p.capacity.is_some() && s.carries.is_none() && s.workers.is_none()) {
        assumed.push("pools carry a fifth more than their declared capacity (`pools` in a scenario file)".into());
    }
    let load = |(i, l): (usize, &super::RouteLoad)| Load {
        route: i.into(),
        rate: l.part / parts.max(1e-9) * rate / down,
        even: scenario.even,
        writes: l.writes,
        poison: 0.0,
        resend: scenario.resend,
        resend_after: scenario.resend_after,
        keys: l.keys,
    };
    let played = scenario.routes.iter().enumerate().filter(|(_, l)| l.part > 0.0);
    let script = Script {
        seed,
        length: scenario.length,
        config: if scale > 1.0 { smaller(config, scale) } else { config.clone() },
        sites,
        loads: played.map(load).collect(),
        faults: scenario.faults.clone(),
        orders: scenario.orders.clone(),
        reloads: vec![],
        shape: scenario.day.clone(),
        leap: (scenario.length > WHOLE).then_some(LEAP),
    };
    Stage { script, rate, weight: down, assumed }
}

/// The highest factor of the day.
fn peak(scenario: &Scenario) -> f64 {
    scenario.day.iter().map(|(_, f)| *f).fold(if scenario.day.is_empty() { 1.0 } else { 0.0 }, f64::max).max(1e-6)
}

/// The config of an edge with so many times less to do: every count and rate in it divided, every ratio and time as it is.
fn smaller(config: &Compiled, by: f64) -> Arc<Compiled> {
    let least = |n: u32| ((f64::from(n) / by).ceil() as u32).max(1);
    let mut t: Topology = config.topology.clone();
    for p in &mut t.pools {
        p.capacity = p.capacity.map(|c| c / by);
        p.max_inflight = p.max_inflight.map(least);
    }
    for s in &mut t.services {
        // The least that keeps the adaptive limit in motion stays: four requests.
        s.overload.min = least(s.overload.min).max(4);
        s.overload.initial = least(s.overload.initial).max(s.overload.min);
        s.overload.max = least(s.overload.max).max(20);
        s.retry_budget.min /= by;
    }
    Arc::new(Compiled { generation: config.generation, routes: Box::new(Router::build(&t)), topology: t, source: config.source.clone() })
}
