//! The invariants of ARCHITECTURE.md, each a small pure function over what happened.

use evenkeel::model::event::{Actor, Event, EventKind};
use evenkeel::model::id::*;
use evenkeel::model::outcome::Outcome;
use evenkeel::model::time::{Duration, Moment};
use evenkeel::model::topology::Topology;
use evenkeel::model::view::{State, View};
use evenkeel::sense::region::{Move, next};
use evenkeel::steer::fallback::Refusal;
use evenkeel::whatif::world::BEGIN;
use evenkeel::whatif::{Fate, Note, Record, Script, Trace, What};
use std::collections::BTreeMap;

/// Which rule, and what broke it.
pub type Broken = Vec<(&'static str, String)>;

/// Trips of one pool in a minute, at most: with an open time of at least 5 s that doubles, and a trial between, no more fit.
pub const TRIPS_A_MINUTE: usize = 5;

/// Every check.
pub fn all(script: &Script, trace: &Trace) -> Broken {
    let mut broken = Vec::new();
    for check in [
        nothing_drained,
        only_named_pools,
        tripped_only_when_nothing_else,
        shares_sum_to_one,
        residency,
        no_write_is_a_trial,
        retries_within_budget,
        trial_ends_on_new_evidence,
        no_flapping,
        one_event_per_transition,
        in_time,
        writes_once,
        no_needless_no_region,
    ] {
        check(script, trace, &mut broken);
    }
    broken
}

/// What a run was like, for a summary.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told {
    pub requests: usize,
    pub good: usize,
    pub repeated: usize,
    pub trips: usize,
    pub recovered: usize,
}

impl Told {
    pub fn add(&mut self, o: Self) {
        self.requests += o.requests;
        self.good += o.good;
        self.repeated += o.repeated;
        self.trips += o.trips;
        self.recovered += o.recovered;
    }
}

pub fn told(trace: &Trace) -> Told {
    let (requests, good) = trace.fates().fold((0, 0), |(n, g), f| (n + 1, g + usize::from(f.2.good())));
    let repeated = trace.0.iter().filter(|r| matches!(r.note, Note::Try { id: 1.., .. })).count();
    let back = |k: &EventKind| matches!(k, EventKind::Pool { from: State::Ramping, to: State::Serving, .. });
    let recovered = trace.events().filter(|e| back(&e.kind)).count();
    Told { requests, good, repeated, trips: trips(trace).len(), recovered }
}

/// When pools tripped by the program's own verdict.
pub fn trips(trace: &Trace) -> Vec<(Moment, String)> {
    let tripped = |k: &EventKind| match k {
        EventKind::Pool { service, region, to: State::Tripped, cause, .. } => Some(format!("{service}/{region}: {cause}")),
        _ => None,
    };
    trace.events().filter(|e| e.by == Actor::Evenkeel).filter_map(|e| Some((e.at, tripped(&e.kind)?))).collect()
}

/// The events of a run, one a line, for people.
pub fn story(trace: &Trace) -> String {
    let line = |e: &Event| {
        let what = match &e.kind {
            EventKind::Pool { service, region, from, to, cause } => format!("{service}/{region} {from} to {to}: {cause}"),
            EventKind::Region { region, from, to, cause } => format!("{region} {from} to {to}: {cause}"),
            EventKind::Suspect { service, region, on, cause } => format!("{service}/{region} suspect {on}: {cause}"),
            EventKind::Endpoint { endpoint, up, cause, .. } => format!("{endpoint} up {up}: {cause}"),
            other => format!("{other:?}"),
        };
        format!("{:8.3} {what}", e.at.since(BEGIN).as_secs_f64())
    };
    trace.events().map(line).collect::<Vec<_>>().join("\n")
}

/// Every record with the picture that held then.
fn with_view(trace: &Trace) -> impl Iterator<Item = (&Record, &View)> {
    let mut view = None;
    trace.0.iter().filter_map(move |r| {
        if let Note::View(v) = &r.note {
            view = Some(&**v);
        }
        view.map(|v| (r, v))
    })
}

fn name(t: &Topology, p: PoolIx) -> &str {
    &t.pools[p.at()].name
}

fn nothing_drained(_: &Script, trace: &Trace, broken: &mut Broken) {
    for (r, view) in with_view(trace) {
        if let Note::Try { pool, request, .. } = r.note
            && view.pools[pool.at()].drained
        {
            broken
                .push(("no request goes to a drained region", format!("{:?} request {request} to {}", r.at, name(view.topology(), pool))));
        }
    }
}

fn only_named_pools(_: &Script, trace: &Trace, broken: &mut Broken) {
    for (r, view) in with_view(trace) {
        let Note::Try { pool, request, route, trial, generation, .. } = r.note else { continue };
        if generation != view.config.generation {
            continue;
        }
        let table = &view.tables[view.topology().routes[route.at()].table.at()];
        let named = if trial { table.trials.contains(&pool) } else { table.order.contains(&pool) };
        if !named {
            let what = if trial { "trial" } else { "attempt" };
            broken.push((
                "an attempt goes only where the picture says",
                format!("{:?} {what} of request {request} to {}", r.at, name(view.topology(), pool)),
            ));
        }
    }
}

fn tripped_only_when_nothing_else(_: &Script, trace: &Trace, broken: &mut Broken) {
    for (r, view) in with_view(trace).filter(|(r, _)| matches!(r.note, Note::View(_))) {
        for (i, table) in view.tables.iter().enumerate() {
            let out = |p: &&PoolIx| matches!(view.pools[p.at()].state, State::Tripped | State::Trial);
            let open = view.topology().tables[i].clone();
            let other = view.topology().services[open.service.at()]
                .pools
                .iter()
                .find(|p| open.allowed.has(view.topology().pools[p.at()].region) && view.pools[p.at()].open());
            // While every open pool is full, one that is out but seems well may stand behind all of them.
            let open_last = table.order.iter().rposition(|p| view.pools[p.at()].open());
            let ahead = table.order.iter().enumerate().filter(|(i, _)| open_last.is_none_or(|last| *i < last)).map(|(_, p)| p);
            let offered = table.slots.iter().map(|s| &s.pool).chain(ahead).find(out);
            if let (Some(p), Some(q)) = (offered, other) {
                let what = format!(
                    "{:?} table {i} offers {} ({:?}) though {} is open",
                    r.at,
                    name(view.topology(), *p),
                    view.pools[p.at()].state,
                    name(view.topology(), *q)
                );
                broken.push(("nothing goes to a tripped pool while another can take it", what));
            }
        }
    }
}

fn shares_sum_to_one(_: &Script, trace: &Trace, broken: &mut Broken) {
    for (r, view) in with_view(trace).filter(|(r, _)| matches!(r.note, Note::View(_))) {
        for (i, table) in view.tables.iter().enumerate() {
            let rising = table.slots.windows(2).all(|w| w[0].upto < w[1].upto);
            let whole = table.slots.last().is_some_and(|s| s.upto == u64::MAX);
            let named = table.slots.iter().all(|s| table.order.contains(&s.pool));
            let closed = table.slots.is_empty() && table.order.is_empty() && table.closed.is_some();
            if !(closed || (rising && whole && named && table.closed.is_none())) {
                broken.push(("shares sum to one, or the table is closed", format!("{:?} table {i}: {table:?}", r.at)));
            }
        }
    }
}

fn residency(script: &Script, trace: &Trace, broken: &mut Broken) {
    let t = &script.config.topology;
    for r in &trace.0 {
        let Note::Try { pool, request, route, .. } = r.note else { continue };
        if !t.routes[route.at()].allowed.has(t.pools[pool.at()].region) {
            broken.push(("residency holds on every path", format!("{:?} request {request} to {}", r.at, name(t, pool))));
        }
    }
}

fn no_write_is_a_trial(_: &Script, trace: &Trace, broken: &mut Broken) {
    for r in &trace.0 {
        if let Note::Try { trial: true, safe: false, request, .. } = r.note {
            broken.push(("no write is a trial", format!("{:?} request {request}", r.at)));
        }
    }
}

fn retries_within_budget(script: &Script, trace: &Trace, broken: &mut Broken) {
    let t = &script.config.topology;
    for (s, service) in t.services.iter().enumerate() {
        let (mut asked, mut paid, mut begin) = (0.0, 0.0, None);
        let mut seconds: BTreeMap<u64, f64> = BTreeMap::new();
        for r in &trace.0 {
            let begin = *begin.get_or_insert(r.at);
            match r.note {
                Note::Asked { route, .. } if t.routes[route.at()].service.at() == s => {
                    asked += 1.0;
                    *seconds.entry(r.at.0 / 1_000_000).or_default() += 1.0;
                }
                Note::Try { route, id, request, .. } if id > 0 && t.routes[route.at()].service.at() == s => {
                    paid += 1.0;
                    let b = &service.retry_budget;
                    let rate = seconds.values().copied().fold(0.0, f64::max);
                    let most =
                        b.ratio * asked + b.min * r.at.since(begin).as_secs_f64() + b.reserve.as_secs_f64() * (b.ratio * rate + b.min);
                    if paid > most + 1.0 {
                        let what =
                            format!("{:?} request {request}: {paid} repeated attempts for {asked} requests, at most {most:.0}", r.at);
                        broken.push(("attempts stay within the retry budget", what));
                        return;
                    }
                }
                _ => {}
            }
        }
    }
}

fn trial_ends_on_new_evidence(script: &Script, trace: &Trace, broken: &mut Broken) {
    let t = &script.config.topology;
    let n = t.pools.len();
    let (mut tripped, mut good) = (vec![Moment::ZERO; n], vec![Moment::ZERO; n]);
    let mut trials: BTreeMap<(u32, u8), PoolIx> = BTreeMap::new();
    for r in &trace.0 {
        match &r.note {
            Note::Try { request, id, pool, trial: true, .. } => {
                trials.insert((*request, *id), *pool);
            }
            Note::Ended { request, id, pool, outcome: Outcome::Ok } if trials.contains_key(&(*request, *id)) => good[pool.at()] = r.at,
            Note::Probe { endpoint, verdict } if verdict.passed() => good[t.endpoints[endpoint.at()].pool.at()] = r.at,
            Note::Event(e) => {
                let EventKind::Pool { service, region, from, to, .. } = &e.kind else { continue };
                let p = t.pool(service, region).expect("events name pools that there are");
                match (from, to) {
                    (_, State::Tripped) => tripped[p.at()] = r.at,
                    (State::Trial, State::Ramping | State::Serving) if good[p.at()] <= tripped[p.at()] => {
                        broken.push(("a pool leaves trial only on evidence newer than its trip", format!("{:?} {service}/{region}", r.at)));
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }
}

fn no_flapping(_: &Script, trace: &Trace, broken: &mut Broken) {
    let mut by_pool: BTreeMap<String, Vec<Moment>> = BTreeMap::new();
    for (at, what) in trips(trace) {
        by_pool.entry(what.split(':').next().unwrap_or_default().into()).or_default().push(at);
    }
    for (pool, times) in by_pool {
        if let Some(w) = times.windows(TRIPS_A_MINUTE + 1).find(|w| w[TRIPS_A_MINUTE].since(w[0]) < Duration::from_secs(60)) {
            broken.push(("no flapping", format!("{pool} tripped {} times within a minute from {:?}", w.len(), w[0])));
        }
    }
}

fn one_event_per_transition(script: &Script, trace: &Trace, broken: &mut Broken) {
    let t = &script.config.topology;
    let mut states = vec![State::Serving; t.pools.len()];
    let mut last = 0;
    let mut tell =
        |at: Moment, what: String| broken.push(("every transition has one event, and only lawful ones happen", format!("{at:?} {what}")));
    for r in &trace.0 {
        match &r.note {
            Note::Event(e) => {
                if e.seq != last + 1 {
                    tell(r.at, format!("event {} follows {last}", e.seq));
                }
                last = e.seq;
                let EventKind::Pool { service, region, from, to, .. } = &e.kind else { continue };
                let p = t.pool(service, region).expect("events name pools that there are");
                let by_operator = |m: &Move| matches!(m, Move::OrderTrip | Move::OrderReset);
                let moves = Move::ALL.into_iter().filter(|m| by_operator(m) == (e.by != Actor::Evenkeel));
                let lawful = moves.into_iter().any(|m| next(*from, m) == Some(*to));
                // A step of the ramp, or a trip that an operator makes his own, stays in its state.
                let step = from == to && (*to == State::Ramping || e.by != Actor::Evenkeel);
                if states[p.at()] != *from || !(lawful || step) {
                    tell(r.at, format!("{service}/{region} was {:?}: {from:?} to {to:?} by {}", states[p.at()], e.by));
                }
                states[p.at()] = *to;
            }
            Note::View(v) => {
                for (p, (view, state)) in v.pools.iter().zip(&states).enumerate() {
                    if view.state != *state {
                        tell(r.at, format!("{} is {:?} in the picture; by its events it is {state:?}", name(t, p.into()), view.state));
                    }
                }
            }
            _ => {}
        }
    }
}

fn in_time(script: &Script, trace: &Trace, broken: &mut Broken) {
    let stalls: Duration = script.faults.iter().filter(|f| f.what == What::EdgeStalls).map(|f| f.lasting).sum();
    for (at, route, fate, took) in trace.fates() {
        let deadline = script.config.topology.routes[route.at()].deadline;
        if took > deadline + stalls {
            broken.push(("a request never waits longer than its deadline", format!("{at:?} {fate:?} after {took:?} of {deadline:?}")));
        }
    }
}

fn writes_once(_: &Script, trace: &Trace, broken: &mut Broken) {
    let mut applied: BTreeMap<u32, PoolIx> = BTreeMap::new();
    for r in &trace.0 {
        let Note::Applied { request, pool } = r.note else { continue };
        if let Some(first) = applied.insert(request, pool) {
            broken.push((
                "a write is never applied twice on our account",
                format!("{:?} request {request} in {pool:?}, after {first:?}", r.at),
            ));
        }
    }
}

fn no_needless_no_region(_: &Script, trace: &Trace, broken: &mut Broken) {
    for (r, view) in with_view(trace) {
        let Note::Done { request, route, fate: Fate::Degraded(Refusal::NoRegion), took, .. } = r.note else { continue };
        let table = &view.tables[view.topology().routes[route.at()].table.at()];
        if took.is_zero() && table.order.iter().any(|p| view.pools[p.at()].open() && !view.pools[p.at()].suspect) {
            broken.push(("an open region goes before a degraded answer", format!("{:?} request {request}: {table:?}", r.at)));
        }
    }
}
