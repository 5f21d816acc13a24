//! What a config, a drain or a loss would do to the traffic, before anybody does it.
//!
//! ```text
//! current + new + present (load, what is out now) ─▶ share::tables, the code that steers for real
//!     now ─▶ then                       shares, load and headroom of every pool
//!     then, without each region, without each fate (N−1)
//!          ─▶ dangers: a pool over its capacity, a route with nothing but degraded answers
//! ```
//!
//! **Safe** means that nobody is worse off. A danger of the new config as it stands is a reason against it, always. A danger that
//! shows only when something is lost is one where the present config does not have it too (a plan is no place to be refused for
//! what stands already; it is told all the same), or where the operator asked for that loss by name. Without a config to
//! compare with, every danger is a reason.
//!
//! **Load** is requests per second by route, live or given; where none is known only what capacities say can be judged: how much
//! the service can carry in all, and without each region. A pool without a declared capacity takes any load here, and the plan
//! says so.
//!
//! What it does not do: time. Ramps, retries, limits and caches that are cold are `rehearse`'s subject.

mod layout;
mod words;

use crate::model::diff::diff;
use crate::model::id::RegionSet;
use crate::model::topology::Topology;
use crate::sense::share::Use;
use layout::{Layout, lay_out, lost_together};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What is so at present, by name, so that it holds for both configs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Present {
    /// Requests per second by route; `None`: no load is known.
    pub rates: Option<BTreeMap<String, f64>>,
    /// Requests per second by service, where the operator gave them: they go before `rates`.
    pub given: BTreeMap<String, f64>,
    /// Pools (`service/region`) that ordinary work avoids now.
    pub out: BTreeMap<String, Use>,
    /// Regions that an operator or a drill drained.
    pub drained: BTreeSet<String>,
}

/// The answer: what changes, where traffic goes, and what could then not be borne.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Nothing stands against it.
    pub safe: bool,
    /// What stands against it, one a line.
    pub reasons: Vec<String>,
    /// What changes against the current config, one a line.
    pub changes: Vec<String>,
    /// Where the figures for load come from; null: no load is known.
    pub load: Option<String>,
    /// By service.
    pub services: Vec<ServicePlan>,
    /// What each single loss would do.
    pub losses: Vec<Loss>,
    /// What the plan cannot know, and what stands so already.
    pub notes: Vec<String>,
}

/// One service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServicePlan {
    /// Its name.
    pub service: String,
    /// Requests per second; null: not known.
    pub load: Option<f64>,
    /// What its pools can carry in all, requests per second; null: a pool of it declares no capacity.
    pub carries: Option<f64>,
    /// Its pools.
    pub pools: Vec<PoolPlan>,
}

/// One pool, before and after.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolPlan {
    /// `service/region`.
    pub pool: String,
    /// Its share under the current config; null: it is not in it.
    pub now: Option<f64>,
    /// Its share under the new one; null: it is not in it.
    pub then: Option<f64>,
    /// Requests per second it would get; null: not known.
    pub load: Option<f64>,
    /// Requests per second it may get; null: not declared.
    pub capacity: Option<f64>,
    /// What is left of the capacity, 0 to 1, below 0 where it is exceeded; null: not known.
    pub headroom: Option<f64>,
    /// Why it gets nothing or little, in words; null: nothing is wrong.
    pub why: Option<String>,
}

/// What one loss would do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// Regions and fates whose loss this is: they all mean the same regions.
    pub lost: Vec<String>,
    /// The regions.
    pub regions: Vec<String>,
    /// Where its traffic would go.
    pub pools: Vec<PoolPlan>,
    /// What each service could then carry, requests per second; services with an undeclared capacity are left out.
    pub carries: BTreeMap<String, f64>,
    /// What would be wrong, one a line.
    pub dangers: Vec<Danger>,
}

/// Something that could not be borne.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Danger {
    /// In words.
    pub what: String,
    /// The current config has it too.
    pub already: bool,
}

/// Plans `new`, in the place of `current` if there is one. `source`: where the load is known from, in words.
/// `lose`: regions and fates to look at; none: every one. `Err`: a name that the new config does not have.
pub fn plan(current: Option<&Topology>, new: &Topology, present: &Present, source: &str, lose: &[String]) -> Result<Plan, String> {
    let then = lay_out(new, present, RegionSet::EMPTY);
    let now = current.map(|t| lay_out(t, present, RegionSet::EMPTY));
    let mut plan = Plan { changes: current.map_or(Vec::new(), |c| diff(c, new)), ..Plan::default() };
    plan.load = then.known.then(|| source.to_owned());
    plan.services = services(current.zip(now.as_ref()), (new, &then));
    plan.reasons = then.dangers.iter().map(|(_, what)| what.clone()).collect();

    let mut stands = Vec::new();
    for (lost, set) in lost_together(new, lose)? {
        let without = lay_out(new, present, set);
        let regions: Vec<String> = set.iter().map(|r| new.regions[r.at()].name.to_string()).collect();
        // A danger is an old one where the loss of the same name brings it under the current config, too.
        let before: Vec<Layout> = current.map_or(Vec::new(), |t| {
            let same = lost_together(t, &[]).unwrap_or_default().into_iter().filter(|(names, _)| names.iter().any(|n| lost.contains(n)));
            same.map(|(_, set)| lay_out(t, present, set)).collect()
        });
        let had = |key: &str, l: &Layout| l.dangers.iter().any(|(k, _)| k == key);
        let dangers = without.dangers.iter().filter(|(key, _)| !had(key, &then));
        let dangers: Vec<Danger> =
            dangers.map(|(key, what)| Danger { what: what.clone(), already: before.iter().any(|b| had(key, b)) }).collect();
        for danger in &dangers {
            let line = format!("losing {}: {}", words::named(&lost), danger.what);
            if danger.already && lose.is_empty() { stands.push(line) } else { plan.reasons.push(line) }
        }
        plan.losses.push(Loss { pools: moved(new, &then, &without), carries: without.carries(new), lost, regions, dangers });
    }
    plan.safe = plan.reasons.is_empty();
    plan.notes = notes(new, &then, present, current);
    plan.notes.extend(stands.into_iter().map(|line| format!("so already: {line}")));
    Ok(plan)
}

/// What taking these regions out of a running config would do wrong, one a line; empty: nothing.
pub fn without(t: &Topology, present: &Present, away: RegionSet) -> Vec<String> {
    let now = lay_out(t, present, RegionSet::EMPTY);
    let then = lay_out(t, present, away);
    let fresh = then.dangers.into_iter().filter(|(key, _)| now.dangers.iter().all(|(k, _)| k != key));
    fresh.map(|(_, what)| what).collect()
}

fn services(now: Option<(&Topology, &Layout)>, (new, then): (&Topology, &Layout)) -> Vec<ServicePlan> {
    let mut all: Vec<ServicePlan> = new
        .services
        .iter()
        .enumerate()
        .map(|(s, service)| ServicePlan {
            service: service.name.to_string(),
            load: then.known.then(|| then.offered(new, s)),
            carries: then.carries(new).get(&*service.name).copied(),
            pools: service.pools.iter().map(|p| then.pool(new, *p)).collect(),
        })
        .collect();
    let Some((old, layout)) = now else { return all };
    for (i, tp) in old.pools.iter().enumerate() {
        let service = &*old.services[tp.service.at()].name;
        let at = all.iter().position(|s| s.service == service).unwrap_or_else(|| {
            all.push(ServicePlan { service: service.into(), ..ServicePlan::default() });
            all.len() - 1
        });
        let pools = &mut all[at].pools;
        match pools.iter_mut().find(|p| p.pool == *tp.name) {
            Some(pool) => pool.now = Some(layout.shares[i]),
            None => pools.push(PoolPlan { pool: tp.name.to_string(), now: Some(layout.shares[i]), ..PoolPlan::default() }),
        }
    }
    all
}

/// The pools whose part changes by a loss.
fn moved(t: &Topology, before: &Layout, after: &Layout) -> Vec<PoolPlan> {
    let all = (0..t.pools.len()).filter(|i| (before.shares[*i] - after.shares[*i]).abs() > 5e-4);
    all.map(|i| PoolPlan { now: Some(before.shares[i]), ..after.pool(t, i.into()) }).collect()
}

fn notes(new: &Topology, then: &Layout, present: &Present, current: Option<&Topology>) -> Vec<String> {
    let mut notes = Vec::new();
    if !then.known {
        notes.push("no load is known: --admin URL takes it from a running proxy, --rate SERVICE=800/s says it".into());
    }
    let unbounded: Vec<&str> = new.pools.iter().filter(|p| p.capacity.is_none()).map(|p| &*p.name).collect();
    if !unbounded.is_empty() {
        notes.push(format!("no capacity is declared for {}: whether it can carry more cannot be told", unbounded.join(", ")));
    }
    if let (Some(rates), Some(_)) = (&present.rates, current) {
        for (route, rate) in rates.iter().filter(|(_, rate)| **rate >= 0.05) {
            if new.routes.iter().all(|r| *r.name != **route) {
                notes.push(format!("route {route} gets {} now and is gone: its load is not counted", words::rate(*rate)));
            }
        }
    }
    notes
}

#[cfg(test)]
mod tests;
