//! Where traffic goes under one config and one set of losses: the real share code, asked for a table at a time.

use super::words;
use super::{PoolPlan, Present};
use crate::model::id::{PoolIx, RegionSet};
use crate::model::policy::Degrade;
use crate::model::topology::Topology;
use crate::model::view::TableView;
use crate::sense::share::{Use, Wish, tables};
use std::collections::BTreeMap;

/// Figures this close are the same.
const CLOSE: f64 = 1e-6;

/// Where traffic goes.
pub(super) struct Layout {
    /// By pool, as status tells them.
    pub shares: Vec<f64>,
    /// Requests per second by pool.
    load: Vec<f64>,
    /// Requests per second by table.
    rates: Vec<f64>,
    uses: Vec<Use>,
    why: Vec<Option<String>>,
    /// Whether any load is known.
    pub known: bool,
    /// What could not be borne: a name for it, and words.
    pub dangers: Vec<(String, String)>,
}

/// Lays a config out as things are at present, without these regions.
pub(super) fn lay_out(t: &Topology, present: &Present, lost: RegionSet) -> Layout {
    let (mut wishes, mut why) = (Vec::new(), Vec::new());
    for pool in &t.pools {
        let region = &t.regions[pool.region.at()];
        let (use_, because) = if lost.has(pool.region) {
            (Use::Never, Some("lost".to_owned()))
        } else if region.drained {
            (Use::Never, Some("drained by the config file".into()))
        } else if present.drained.contains(&*region.name) {
            (Use::Never, Some("drained now".into()))
        } else {
            match present.out.get(&*pool.name) {
                None | Some(Use::Open) => (Use::Open, None),
                Some(Use::Suspect) => (Use::Suspect, Some("suspect now".into())),
                Some(other) => (*other, Some("tripped now".into())),
            }
        };
        why.push(because);
        let capacity = pool.capacity.unwrap_or(f64::INFINITY);
        wishes.push(Wish { use_, weight: pool.weight, tier: pool.tier, step: 1.0, lean: 1.0, capacity, trial: false });
    }
    let (rates, known) = rates(t, present);
    let (views, shares) = tables(t, &wishes, &rates);
    let mut load = vec![0.0; t.pools.len()];
    for (view, rate) in views.iter().zip(&rates) {
        let mut from = 0u64;
        for slot in &view.slots {
            load[slot.pool.at()] += rate * ((slot.upto - from) as f64 / 2f64.powi(64));
            from = slot.upto;
        }
    }
    let uses = wishes.iter().map(|w| w.use_).collect();
    let mut layout = Layout { shares, load, rates, uses, why, known, dangers: Vec::new() };
    layout.look(t, &views, lost);
    layout
}

/// Requests per second by table, and whether anything is known of them.
fn rates(t: &Topology, present: &Present) -> (Vec<f64>, bool) {
    let mut rates = vec![0.0; t.tables.len()];
    let known = present.rates.is_some() || !present.given.is_empty();
    for route in &t.routes {
        let service = &t.services[route.service.at()].name;
        let live = |name: &str| present.rates.as_ref().and_then(|r| r.get(name)).copied().unwrap_or(0.0);
        rates[route.table.at()] += match present.given.get(&**service) {
            // As the routes stand to one another now; evenly, where nothing is known.
            Some(given) => {
                let mine: Vec<f64> = t.routes.iter().filter(|r| r.service == route.service).map(|r| live(&r.name)).collect();
                let all: f64 = mine.iter().sum();
                if all > 0.0 { given * live(&route.name) / all } else { given / mine.len() as f64 }
            }
            None => live(&route.name),
        };
    }
    (rates, known)
}

impl Layout {
    /// Finds what could not be borne.
    fn look(&mut self, t: &Topology, views: &[TableView], lost: RegionSet) {
        for route in &t.routes {
            // Pools that are out but answer some requests are last resorts, no answer to a plan.
            let open = |p: &PoolIx| self.uses[p.at()] <= Use::Suspect && route.allowed.has(t.pools[p.at()].region);
            let pools = &t.services[route.service.at()].pools;
            if pools.iter().any(open) && views[route.table.at()].closed.is_none() {
                continue;
            }
            let residency = route.residency.as_ref().map_or(String::new(), |r| format!(" (residency {})", r.join(", ")));
            let kinds: Vec<&str> = route.degrade.iter().map(kind).collect();
            let what = format!(
                "route {}: no region is left that may and can serve it{residency}: only degraded answers ({})",
                route.name,
                kinds.join(", then ")
            );
            self.dangers.push((format!("route {}", route.name), what));
        }
        for (i, pool) in t.pools.iter().enumerate() {
            let Some(capacity) = pool.capacity.filter(|c| self.load[i] > c * (1.0 + CLOSE) && !lost.has(pool.region)) else { continue };
            let what = format!(
                "pool {} would get {}, {} more than its capacity of {}",
                pool.name,
                words::rate(self.load[i]),
                words::rate(self.load[i] - capacity),
                words::rate(capacity)
            );
            self.dangers.push((format!("pool {}", pool.name), what));
        }
    }

    /// Requests per second of a service.
    pub fn offered(&self, t: &Topology, service: usize) -> f64 {
        t.tables.iter().zip(&self.rates).filter(|(table, _)| table.service.at() == service).map(|(_, rate)| rate).sum()
    }

    /// What each service can carry, where every pool of it declares it.
    pub fn carries(&self, t: &Topology) -> BTreeMap<String, f64> {
        let of = |pools: &[PoolIx]| -> Option<f64> {
            let open = pools.iter().filter(|p| self.uses[p.at()] <= Use::Suspect);
            open.map(|p| t.pools[p.at()].capacity).sum()
        };
        t.services.iter().filter_map(|s| Some((s.name.to_string(), of(&s.pools)?))).collect()
    }

    /// One pool under this layout.
    pub fn pool(&self, t: &Topology, p: PoolIx) -> PoolPlan {
        let capacity = t.pools[p.at()].capacity;
        let load = self.known.then_some(self.load[p.at()]);
        PoolPlan {
            pool: t.pools[p.at()].name.to_string(),
            now: None,
            then: Some(self.shares[p.at()]),
            load,
            capacity,
            headroom: load.zip(capacity).map(|(l, c)| if c > 0.0 { 1.0 - l / c } else { -1.0 }),
            why: self.why[p.at()].clone(),
        }
    }
}

fn kind(d: &Degrade) -> &'static str {
    match d {
        Degrade::Stale(_) => "stale",
        Degrade::Static(_) => "static",
        Degrade::Spool(_) => "spooled",
        Degrade::Unavailable(_) => "unavailable",
    }
}

/// What is lost together: every region and every fate, or those that are named. Names that mean the same regions stand together.
pub(super) fn lost_together(t: &Topology, named: &[String]) -> Result<Vec<(Vec<String>, RegionSet)>, String> {
    let mut all: Vec<(String, RegionSet)> = Vec::new();
    for (i, r) in t.regions.iter().enumerate() {
        all.push((r.name.to_string(), RegionSet::EMPTY.with(i.into())));
    }
    for (i, r) in t.regions.iter().enumerate() {
        for fate in &r.fates {
            // A fate may bear a region's name; the region is meant then.
            match all.iter_mut().find(|(name, _)| *name == **fate) {
                Some((name, set)) if t.region(name).is_none() => *set = set.with(i.into()),
                Some(_) => {}
                None => all.push((fate.to_string(), RegionSet::EMPTY.with(i.into()))),
            }
        }
    }
    if let Some(unknown) = named.iter().find(|n| all.iter().all(|(name, _)| name != *n)) {
        let known: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        return Err(format!("there is no region or fate `{unknown}`; there are {}", known.join(", ")));
    }
    let mut out: Vec<(Vec<String>, RegionSet)> = Vec::new();
    for (name, set) in all.into_iter().filter(|(name, _)| named.is_empty() || named.contains(name)) {
        match out.iter_mut().find(|(_, s)| *s == set) {
            Some((names, _)) => names.push(name),
            None => out.push((vec![name], set)),
        }
    }
    Ok(out)
}
