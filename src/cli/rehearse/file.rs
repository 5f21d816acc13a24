//! A scenario file: as it is written, and checked against the config it is played on.
//!
//! Regions, pools and routes go by their names. `$largest` is the region with the largest share at rest, `$second` the one
//! after it, so that the built-in scenarios fit every config.

use crate::config::document::Document;
use crate::config::file::{Named, block, words};
use crate::config::problem::{Path, Problems};
use crate::config::value::{Rate, Ratio, Span};
use crate::model::id::{EndpointIx, PoolIx, RegionIx, RouteIx};
use crate::model::signal::Order;
use crate::model::time::Duration;
use crate::model::view::Compiled;
use crate::whatif::rehearse::{Objectives, RouteLoad, Scenario, Servers};
use crate::whatif::{Cold, Fault as Broken, Target, What};
use std::sync::Arc;

block! {
    /// A scenario.
    #[derive(Default)]
    pub struct File {
        /// Always 1.
        pub version: Option<u32>,
        /// What happens, in a line.
        pub what: String,
        /// How long load is offered.
        pub length: Option<Span>,
        /// Requests a second, over all edges.
        pub rate: Option<Rate>,
        /// Edges alike.
        pub edges: Option<u32>,
        /// The load over time.
        pub day: Vec<Hour>,
        /// How requests come.
        pub arrivals: Option<Arrivals>,
        /// What clients do that were not answered well.
        pub clients: Clients,
        /// The load of each route.
        pub routes: Named<Route>,
        /// How far away regions are, one way.
        pub wire: Named<Span>,
        /// The servers of each pool (`service/region`, or `*` for all).
        pub pools: Named<Pool>,
        /// What breaks.
        pub faults: Vec<Fault>,
        /// What operators do.
        pub orders: Vec<Told>,
        /// What has to hold from the first fault on.
        pub objectives: Goals,
    }

    /// The load at one time.
    #[derive(Default)]
    pub struct Hour {
        /// When.
        pub at: Span0,
        /// Times the rate.
        pub times: f64,
    }

    /// What clients do that were not answered well.
    #[derive(Default)]
    pub struct Clients {
        /// How often they ask again.
        pub again: u32,
        /// After what time.
        pub after: Option<Span>,
    }

    /// The load of one route.
    #[derive(Default)]
    pub struct Route {
        /// Its part of all requests.
        pub part: Option<Ratio>,
        /// The part of them that is not safe.
        pub writes: Option<Ratio>,
        /// Different things asked for.
        pub keys: Option<u32>,
    }

    /// The servers of one pool.
    #[derive(Default)]
    pub struct Pool {
        /// Median time a request keeps a worker.
        pub service: Option<Span>,
        /// Sigma of its log-normal; 0: always the same.
        pub spread: Option<f64>,
        /// Requests that each endpoint serves side by side.
        pub workers: Option<u32>,
        /// Requests a second that the pool can do, over all edges.
        pub carries: Option<Rate>,
        /// How its processes begin after they died.
        pub cold: Option<ColdStart>,
    }

    /// Empty caches.
    #[derive(Default)]
    pub struct ColdStart {
        /// Requests take this many times as long.
        pub times: f64,
        /// So many requests warm an endpoint.
        pub requests: u32,
        /// Little by little, not all at once.
        pub fades: bool,
        /// Only so many are served side by side meanwhile.
        pub workers: Option<u32>,
    }

    /// Something that breaks.
    #[derive(Default)]
    pub struct Fault {
        /// When.
        pub at: Span0,
        /// For how long.
        #[serde(rename = "for")]
        pub lasting: Span0,
        /// A region.
        pub region: Option<String>,
        /// All regions that share this fate.
        pub fate: Option<String>,
        /// A pool.
        pub pool: Option<String>,
        /// An endpoint.
        pub endpoint: Option<String>,
        /// What.
        pub is: Option<Kind>,
        /// How much of it: of slow, cold, burst.
        pub times: Option<f64>,
        /// Which part of it: of errors, hang, workers, zeros, poison.
        pub part: Option<Ratio>,
        /// The status of errors.
        pub status: Option<u16>,
        /// Again after this time …
        pub every: Option<Span>,
        /// … so often in all.
        pub repeat: Option<u32>,
    }

    /// Something operators do.
    #[derive(Default)]
    pub struct Told {
        /// When.
        pub at: Span0,
        /// A region to drain.
        pub drain: Option<String>,
        /// Little by little over this time.
        pub over: Span0,
        /// A region to give back.
        pub undrain: Option<String>,
        /// A pool to trip.
        pub trip: Option<String>,
        /// A pool to reset.
        pub reset: Option<String>,
    }

    /// What has to hold.
    #[derive(Default)]
    pub struct Goals {
        /// Served, of all requests; what may be shed and was does not count.
        pub success: Option<Ratio>,
        /// Well again, for good.
        pub recover_within: Option<Span>,
        /// p99 of every route.
        pub p99: Option<Span>,
        /// By route.
        pub routes: Named<Goal>,
    }

    /// What has to hold for one route.
    #[derive(Default)]
    pub struct Goal {
        /// Served.
        pub success: Option<Ratio>,
        /// Of what is served.
        pub p99: Option<Span>,
    }
}

words! {
    /// How requests come.
    pub enum Arrivals { Poisson, Even }

    /// What breaks.
    pub enum Kind { Kill, Blackhole, AnswersLost, HalfOpen, Slow, Errors, Hang, Pause, Workers, Cold, Zeros, ProbesPass, ProbesFail, EdgeStalls, Burst, Poison }
}

/// A duration that is nothing where it is not written.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct Span0(pub Span);

impl Default for Span0 {
    fn default() -> Self {
        Self(Span(Duration::ZERO))
    }
}

/// Reads a scenario for this config. `name`: for messages and the report's title.
pub fn scenario(text: &str, file: &str, name: &str, config: &Arc<Compiled>) -> Result<Scenario, Problems> {
    let (raw, document) = Document::read::<File>(text, file);
    let mut check = Check { document, config };
    let scenario = check.scenario(&raw, name);
    check.document.end().map(|()| scenario)
}

struct Check<'c> {
    document: Document,
    config: &'c Arc<Compiled>,
}

impl Check<'_> {
    fn scenario(&mut self, raw: &File, name: &str) -> Scenario {
        if raw.version != Some(1) {
            self.document.error(&Path::of("version"), "a scenario begins with `version: 1`");
        }
        let mut s = Scenario { name: name.into(), what: raw.what.clone(), ..Scenario::calm(self.config) };
        s.length = raw.length.map_or(s.length, |l| l.0);
        if s.length.is_zero() || s.length > Duration::from_secs(8 * 86_400) {
            self.document.error(&Path::of("length"), "out of bounds\nallowed: more than 0s, up to 8d");
        }
        s.rate = raw.rate.map(|r| r.0);
        s.edges = raw.edges.unwrap_or(1).max(1);
        s.even = raw.arrivals == Some(Arrivals::Even);
        s.resend = raw.clients.again;
        s.resend_after = raw.clients.after.map_or(s.resend_after, |a| a.0);
        s.day = raw.day.iter().map(|h| (h.at.0.0, h.times)).collect();
        if !s.day.is_sorted_by(|a, b| a.0 < b.0) || s.day.iter().any(|(_, f)| !(0.0..=1e6).contains(f)) {
            self.document.error(&Path::of("day"), "times must rise, and factors lie between 0 and 1,000,000");
        }
        self.routes(raw, &mut s);
        self.pools(raw, &mut s);
        for (i, f) in raw.faults.iter().enumerate() {
            let path = Path::of("faults").at(i);
            let broken = self.fault(f, &path);
            if broken.iter().any(|b| b.at >= s.length) {
                self.document.error(&path.key("at"), &format!("begins when all is over: the scenario lasts {}", Span(s.length)));
            }
            s.faults.extend(broken);
        }
        s.faults.sort_by_key(|f| f.at);
        for (i, o) in raw.orders.iter().enumerate() {
            let order = self.order(o, &Path::of("orders").at(i));
            s.orders.extend(order.map(|order| (o.at.0.0, order)));
        }
        s.orders.sort_by_key(|(at, _)| *at);
        s.objectives = self.objectives(&raw.objectives);
        s
    }

    fn routes(&mut self, raw: &File, s: &mut Scenario) {
        let config = self.config.clone();
        let names: Vec<&str> = config.topology.routes.iter().map(|r| &*r.name).collect();
        // Where parts are named, what is not named is not asked for.
        if raw.routes.iter().any(|(_, r)| r.part.is_some()) {
            s.routes.iter_mut().for_each(|r| r.part = 0.0);
        }
        for (name, r) in raw.routes.iter() {
            let path = Path::of("routes").key(name);
            let Some(i) = self.document.one_of(&path, "route", name, &names) else { continue };
            let l: &mut RouteLoad = &mut s.routes[i];
            l.part = r.part.map_or(l.part, |p| p.0);
            l.writes = r.writes.map_or(l.writes, |p| p.0);
            l.keys = r.keys.unwrap_or(l.keys).min(10_000_000);
        }
        if s.routes.iter().all(|r| r.part <= 0.0) {
            self.document.error(&Path::of("routes"), "nobody asks for anything: no route has a part above 0%");
        }
    }

    fn pools(&mut self, raw: &File, s: &mut Scenario) {
        let config = self.config.clone();
        let t = &config.topology;
        let regions: Vec<&str> = t.regions.iter().map(|r| &*r.name).collect();
        for (name, wire) in raw.wire.iter() {
            let Some(i) = self.document.one_of(&Path::of("wire").key(name), "region", name, &regions) else { continue };
            t.pools.iter().zip(&mut s.pools).filter(|(p, _)| p.region == RegionIx(i as u32)).for_each(|(_, p)| p.wire = wire.0);
        }
        let names: Vec<&str> = ["*"].into_iter().chain(t.pools.iter().map(|p| &*p.name)).collect();
        let ordered = raw.pools.iter().filter(|(n, _)| n == "*").chain(raw.pools.iter().filter(|(n, _)| n != "*"));
        for (name, p) in ordered {
            let path = Path::of("pools").key(name);
            let Some(i) = self.document.one_of(&path, "pool", name, &names) else { continue };
            if p.spread.is_some_and(|x| !(0.0..=3.0).contains(&x)) {
                self.document.error(&path.key("spread"), "out of bounds\nallowed: 0 to 3");
            }
            if p.cold.as_ref().is_some_and(|c| !(1.0..=1e4).contains(&c.times)) {
                self.document.error(&path.key("cold").key("times"), "out of bounds\nallowed: 1 to 10000");
            }
            let some = if i == 0 { 0..s.pools.len() } else { i - 1..i };
            s.pools[some].iter_mut().for_each(|to| set(to, p));
        }
    }

    /// A region by its name, or by its place among shares.
    fn region(&mut self, name: &str, path: &Path) -> Option<RegionIx> {
        let config = self.config.clone();
        let t = &config.topology;
        if let Some(place) = ["$largest", "$second"].iter().position(|n| *n == name) {
            let rest = crate::whatif::at_rest(config.clone());
            let share = |r: RegionIx| -> f64 { t.pools.iter().zip(&rest.pools).filter(|(p, _)| p.region == r).map(|(_, v)| v.share).sum() };
            let mut order: Vec<RegionIx> = (0..t.regions.len()).map(RegionIx::from).collect();
            order.sort_by(|a, b| share(*b).total_cmp(&share(*a)));
            return order.get(place.min(order.len() - 1)).copied();
        }
        let mut names: Vec<&str> = t.regions.iter().map(|r| &*r.name).collect();
        names.extend(["$largest", "$second"]);
        self.document.one_of(path, "region", name, &names).map(RegionIx::from)
    }

    fn pool(&mut self, name: &str, path: &Path) -> Option<PoolIx> {
        let config = self.config.clone();
        let names: Vec<&str> = config.topology.pools.iter().map(|p| &*p.name).collect();
        self.document.one_of(path, "pool", name, &names).map(PoolIx::from)
    }

    fn targets(&mut self, f: &Fault, path: &Path) -> Vec<Target> {
        let config = self.config.clone();
        let t = &config.topology;
        match (&f.region, &f.fate, &f.pool, &f.endpoint) {
            (None, None, None, None) => vec![Target::Everywhere],
            (Some(name), None, None, None) => self.region(name, &path.key("region")).map(Target::Region).into_iter().collect(),
            (None, Some(fate), None, None) => {
                let mut fates: Vec<&str> = t.regions.iter().flat_map(|r| r.fates.iter().map(|f| &**f)).collect();
                fates.sort_unstable();
                fates.dedup();
                if self.document.one_of(&path.key("fate"), "fate", fate, &fates).is_none() {
                    return vec![];
                }
                let shares = |i: &usize| t.regions[*i].fates.iter().any(|x| **x == **fate);
                (0..t.regions.len()).filter(shares).map(|i| Target::Region(i.into())).collect()
            }
            (None, None, Some(name), None) => self.pool(name, &path.key("pool")).map(Target::Pool).into_iter().collect(),
            (None, None, None, Some(address)) => {
                let addresses: Vec<String> = t.endpoints.iter().map(|e| e.address.to_string()).collect();
                let names: Vec<&str> = addresses.iter().map(String::as_str).collect();
                let found = self.document.one_of(&path.key("endpoint"), "endpoint", address, &names);
                found.map(|e| Target::Endpoint(EndpointIx(e as u32))).into_iter().collect()
            }
            _ => {
                self.document
                    .error(path, "a fault is in one place\nallowed: one of region, fate, pool and endpoint; none of them: everywhere");
                vec![]
            }
        }
    }

    fn fault(&mut self, f: &Fault, path: &Path) -> Vec<Broken> {
        let targets = self.targets(f, path);
        let Some(kind) = f.is else {
            self.document.error(path, "what breaks is missing\nput `is: blackhole`, or another kind, into the fault");
            return vec![];
        };
        if f.lasting.0.0.is_zero() {
            self.document.error(path, "how long it lasts is missing\nput `for: 30s` into the fault");
        }
        let needs = |what: bool, key: &str, d: &mut Document| {
            if !what {
                d.error(path, &format!("this kind of fault needs `{key}`"));
            }
        };
        let d = &mut self.document;
        match kind {
            Kind::Slow | Kind::Cold | Kind::Burst => needs(f.times.is_some_and(|x| x > 0.0), "times: 10", d),
            Kind::Errors | Kind::Hang | Kind::Workers | Kind::Poison => needs(f.part.is_some(), "part: 50%", d),
            _ => {}
        }
        let (times, part) = (f.times.unwrap_or(1.0), f.part.map_or(1.0, |p| p.0));
        let what = match kind {
            Kind::Kill => What::Kill,
            Kind::Blackhole => What::Blackhole,
            Kind::AnswersLost => What::AnswersLost,
            Kind::HalfOpen => What::HalfOpen,
            Kind::Slow => What::Slow(times),
            Kind::Errors => What::Errors(part, f.status.unwrap_or(503)),
            Kind::Hang => What::Hang(part),
            Kind::Pause => What::Pause,
            Kind::Workers => What::Workers(part.max(0.001)),
            Kind::Cold => What::Cold(times),
            Kind::Zeros => What::Zeros(part),
            Kind::ProbesPass => What::ProbesSay(true),
            Kind::ProbesFail => What::ProbesSay(false),
            Kind::EdgeStalls => What::EdgeStalls,
            Kind::Burst => What::Burst(times),
            Kind::Poison => What::Poison(part),
        };
        let repeat = f.repeat.unwrap_or(1).clamp(1, 1000);
        let every = f.every.map_or(f.lasting.0.0 * 2, |e| e.0);
        let one =
            |n: u32| targets.iter().map(move |target| Broken { at: f.at.0.0 + every * n, lasting: f.lasting.0.0, target: *target, what });
        (0..repeat).flat_map(one).collect()
    }

    fn order(&mut self, o: &Told, path: &Path) -> Option<Order> {
        let reason = "rehearsal".to_owned();
        match (&o.drain, &o.undrain, &o.trip, &o.reset) {
            (Some(r), None, None, None) => {
                let region = self.region(r, &path.key("drain"))?;
                Some(Order::Drain { region, reason, over: o.over.0.0, lasting: None })
            }
            (None, Some(r), None, None) => self.region(r, &path.key("undrain")).map(|region| Order::Undrain { region }),
            (None, None, Some(p), None) => self.pool(p, &path.key("trip")).map(|pool| Order::Trip { pool, reason }),
            (None, None, None, Some(p)) => self.pool(p, &path.key("reset")).map(|pool| Order::Reset { pool }),
            _ => {
                self.document.error(path, "an order is one thing\nallowed: one of drain, undrain, trip and reset");
                None
            }
        }
    }

    /// What the file asks for; where it asks for nothing, what the routes' `slo` does.
    fn objectives(&mut self, raw: &Goals) -> Objectives {
        let config = self.config.clone();
        let t = &config.topology;
        let mut o = Objectives { success: raw.success.map(|r| r.0), recover_within: raw.recover_within.map(|s| s.0), routes: vec![] };
        let names: Vec<&str> = t.routes.iter().map(|r| &*r.name).collect();
        for (name, goal) in raw.routes.iter() {
            let path = Path::of("objectives").key("routes").key(name);
            let Some(i) = self.document.one_of(&path, "route", name, &names) else { continue };
            o.routes.push((i.into(), goal.success.map(|r| r.0), goal.p99.or(raw.p99).map(|s| s.0)));
        }
        if let Some(p99) = raw.p99 {
            let rest = (0..t.routes.len()).map(RouteIx::from).filter(|r| o.routes.iter().all(|(x, ..)| x != r)).collect::<Vec<_>>();
            o.routes.extend(rest.into_iter().map(|r| (r, None, Some(p99.0))));
        }
        if o == Objectives::default() {
            let slo = |(i, r): (usize, &crate::model::policy::Route)| {
                let slo = r.slo?;
                Some((RouteIx::from(i), slo.success, slo.latency.filter(|(_, q)| *q >= 0.99).map(|(d, _)| d)))
            };
            o.routes = t.routes.iter().enumerate().filter_map(slo).collect();
        }
        o
    }
}

fn set(to: &mut Servers, p: &Pool) {
    to.service = p.service.map_or(to.service, |s| s.0);
    to.spread = p.spread.unwrap_or(to.spread);
    to.workers = p.workers.or(to.workers);
    to.carries = p.carries.map(|c| c.0).or(to.carries);
    if let Some(c) = &p.cold {
        let cold = Cold { slow: c.times, requests: c.requests, fades: c.fades, workers: c.workers };
        to.restart = (c.times > 1.0).then_some(cold);
    }
}
