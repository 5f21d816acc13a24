//! Which route a request takes, where it may go, and why not elsewhere: for one request that somebody asks about.

use super::wire::ExplainRequest;
use crate::config::value::{Ratio, Span};
use crate::model::id::{PoolIx, RegionIx};
use crate::model::policy::{Degrade, HedgeAfter, Match, Route, Writes};
use crate::model::time::Moment;
use crate::model::view::{Live, PoolView, RequestFacts, Routes, State, TableView, View};
use crate::steer::route::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The request, as it was matched.
    pub method: String,
    /// Lower case, without port.
    pub host: String,
    /// Without query.
    pub path: String,
    /// The route; null: none matches, the answer is 404.
    pub route: Option<String>,
    /// Its service.
    pub service: Option<String>,
    /// Its priority under overload.
    pub priority: Option<String>,
    /// The jurisdictions that may serve it; null: any.
    pub residency: Option<Vec<String>>,
    /// Until the first byte of the answer.
    pub deadline: Option<Span>,
    /// How long it may take, what is tried again, what is hedged.
    pub rules: Vec<String>,
    /// Routes before it that the path would fit, and why they do not take the request.
    pub passed_over: Vec<String>,
    /// Every region of the service, in the order in which they are considered.
    pub regions: Vec<Place>,
    /// What is answered when none of them can, in order.
    pub otherwise: Vec<String>,
}

/// One region for the request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// Its name.
    pub region: String,
    /// The state of the service's pool there.
    pub state: State,
    /// The part of such requests whose first attempt goes there.
    pub share: f64,
    /// Endpoints that take requests now.
    pub up: u32,
    /// Of.
    pub endpoints: u32,
    /// Why it gets what it gets.
    pub why: String,
}

/// Explains a request under a view; `live`: with what is known of the endpoints now.
pub fn explain(view: &View, live: Option<(&dyn Live, Moment)>, asked: &ExplainRequest) -> Result<Explanation, String> {
    let t = view.topology();
    let headers = fields(asked)?;
    let uri: Uri = asked.url.parse().map_err(|e| format!("`{}` is not a URL: {e}; write http://host/path", asked.url))?;
    let host = uri.host().map(str::to_owned).or_else(|| {
        let host = headers.get("host")?.to_str().ok()?;
        Some(host.rsplit_once(':').filter(|(_, p)| p.bytes().all(|b| b.is_ascii_digit())).map_or(host, |(h, _)| h).to_owned())
    });
    let method = if asked.method.is_empty() { "GET".into() } else { asked.method.to_ascii_uppercase() };
    let facts = RequestFacts { method: &method, host: &host.unwrap_or_default().to_ascii_lowercase(), path: uri.path(), headers: &headers };
    let index = view.config.routes.find(&facts);
    let found = index.map(|r| &t.routes[r.at()]);
    let before = &t.routes[..index.map_or(t.routes.len(), |r| r.at())];
    let mut explanation = Explanation {
        method: facts.method.into(),
        host: facts.host.into(),
        path: facts.path.into(),
        route: found.map(|r| r.name.to_string()),
        service: found.map(|r| t.services[r.service.at()].name.to_string()),
        priority: found.map(|r| r.priority.label().into()),
        residency: found.and_then(|r| r.residency.as_ref()).map(|r| r.iter().map(ToString::to_string).collect()),
        deadline: found.map(|r| Span(r.deadline)),
        rules: found.map(rules).unwrap_or_default(),
        passed_over: before.iter().filter_map(|r| near_miss(r, &facts)).collect(),
        regions: Vec::new(),
        otherwise: Vec::new(),
    };
    if let Some(route) = found {
        let table = &view.tables[route.table.at()];
        explanation.regions = places(view, route, table, live);
        explanation.otherwise = route.degrade.iter().map(otherwise).collect();
    }
    Ok(explanation)
}

/// Why a route whose host and path fit does not take the request after all.
fn near_miss(route: &Route, facts: &RequestFacts<'_>) -> Option<String> {
    let m = &route.matches;
    let place = Match { host: m.host.clone(), path: m.path.clone(), ..Match::default() };
    Router::over(std::iter::once(&place)).find(facts)?;
    if !m.methods.is_empty() && m.methods.iter().all(|x| x != facts.method) {
        return Some(format!("{}: takes {} only", route.name, m.methods.join(", ")));
    }
    let (name, value) = m.headers.iter().find(|(n, v)| facts.headers.get(n) != Some(v.as_bytes()))?;
    Some(format!("{}: wants the header {name}: {value}", route.name))
}

fn rules(r: &Route) -> Vec<String> {
    let writes = match r.retry.writes {
        Writes::Unsent => "writes only if no byte of them was sent",
        Writes::Incomplete => "writes only if their last byte was not sent",
        Writes::IdempotencyKey => "writes only if incomplete or with an Idempotency-Key",
    };
    let statuses = r.retry.statuses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let retry = match r.retry.attempts {
        1 => "one attempt, no retry".into(),
        n => format!("up to {n} attempts; a failure is no connection, no answer in time, or {statuses}; {writes}"),
    };
    let hedge = r.hedge.map(|h| {
        let after = match h.after {
            HedgeAfter::Percentile(p) => format!("p{}", (p * 1000.0).round() / 10.0),
            HedgeAfter::Fixed(d) => Span(d).to_string(),
        };
        format!("a second attempt after {after} for GET, HEAD and OPTIONS, at most {} of requests", Ratio(h.budget))
    });
    let time = format!(
        "first byte within {}, {} an attempt; then {} between bytes",
        Span(r.deadline),
        Span(r.attempt_timeout),
        Span(r.idle_timeout)
    );
    [Some(time), Some(retry), hedge].into_iter().flatten().collect()
}

fn fields(asked: &ExplainRequest) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in &asked.headers {
        let wrong = || format!("`{name}: {value}` is not a header field");
        let name: HeaderName = name.parse().map_err(|_| wrong())?;
        headers.append(name, HeaderValue::from_str(value).map_err(|_| wrong())?);
    }
    Ok(headers)
}

/// Every pool of the route's service: those that take work in their order, then those that want trials, then the rest.
fn places(view: &View, route: &Route, table: &TableView, live: Option<(&dyn Live, Moment)>) -> Vec<Place> {
    let t = view.topology();
    let rest = t.services[route.service.at()].pools.iter().filter(|p| !table.order.contains(p) && !table.trials.contains(p));
    let lowest = table.order.iter().map(|p| t.pools[p.at()].tier).min();
    let pools = table.order.iter().chain(&table.trials).chain(rest);
    pools
        .map(|&pool| {
            let endpoints = t.pools[pool.at()].endpoints();
            let total = endpoints.len() as u32;
            let out = live.map_or(0, |(l, now)| endpoints.filter(|e| l.out(*e, now)).count() as u32);
            let share = share(table, pool);
            Place {
                region: t.regions[t.pools[pool.at()].region.at()].name.to_string(),
                state: view.pools[pool.at()].state,
                share,
                up: total - out,
                endpoints: total,
                why: why(view, route, pool, share, lowest),
            }
        })
        .collect()
}

/// The width of a pool's slots in a table.
pub fn share(table: &TableView, pool: PoolIx) -> f64 {
    let mut below = 0;
    let mut sum = 0.0;
    for slot in &table.slots {
        if slot.pool == pool {
            sum += (slot.upto - below) as f64 / u64::MAX as f64;
        }
        below = slot.upto;
    }
    sum
}

fn why(view: &View, route: &Route, pool: PoolIx, share: f64, lowest: Option<u32>) -> String {
    let (t, v): (_, &PoolView) = (view.topology(), &view.pools[pool.at()]);
    let p = &t.pools[pool.at()];
    let region: RegionIx = p.region;
    if !route.allowed.has(region) {
        let place = t.regions[region.at()].jurisdiction.as_deref().unwrap_or("no jurisdiction");
        return format!("not allowed: the route's residency does not include {place}");
    }
    match v.state {
        _ if v.drained => "drained: gets nothing".into(),
        State::Trial => "in trial: gets probes and a few safe requests".into(),
        State::Tripped if v.dead => "tripped, and nothing answers there: gets probes only".into(),
        State::Tripped => "tripped".into(),
        _ if v.dead => "nothing answers there".into(),
        _ if v.suspect => "suspect: avoided for the moment".into(),
        _ if share > 0.0 && v.state == State::Ramping => format!("ramping: {:.1} % of first attempts", share * 100.0),
        _ if share > 0.0 => format!("{:.1} % of first attempts", share * 100.0),
        _ if p.weight == 0 => "weight 0: a last resort, behind every tier".into(),
        _ if lowest.is_some_and(|l| p.tier > l) => format!("tier {}: gets what lower tiers cannot take", p.tier),
        _ => "gets retries and hedges, no share now".into(),
    }
}

fn otherwise(d: &Degrade) -> String {
    match d {
        Degrade::Stale(s) => format!("the last good copy, at most {} old", Span(s.max_age)),
        Degrade::Static(s) => format!("a static answer, {}", s.status),
        Degrade::Spool(s) => format!("{}, the write is kept and replayed (at most {})", s.status, Span(s.max_age)),
        Degrade::Unavailable(u) => format!("503, Retry-After {} to {} s", u.retry_after.0.as_secs(), u.retry_after.1.as_secs()),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = if self.host.is_empty() { "(no host)" } else { &self.host };
        writeln!(f, "{} {host}{}", self.method, self.path)?;
        let (Some(route), Some(service)) = (&self.route, &self.service) else {
            return writeln!(f, "  no route matches: 404");
        };
        write!(f, "  route {route}, service {service}")?;
        if let Some(p) = &self.priority {
            write!(f, ", priority {p}")?;
        }
        if let Some(d) = self.deadline {
            write!(f, ", deadline {d}")?;
        }
        writeln!(f, ", residency {}", self.residency.as_ref().map_or("any".into(), |r| r.join(", ")))?;
        self.passed_over.iter().try_for_each(|line| writeln!(f, "  not route {line}"))?;
        self.rules.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        let width = self.regions.iter().map(|r| r.region.len()).max().unwrap_or(0);
        for (i, r) in self.regions.iter().enumerate() {
            writeln!(f, "  {}. {:width$}  {:8}  {}/{} up  {}", i + 1, r.region, r.state.label(), r.up, r.endpoints, r.why)?;
        }
        writeln!(f, "  otherwise: {}", self.otherwise.join("; then "))
    }
}
