//! Who gets which part of a service's requests: weights, tiers, states, capacities and residency in,
//! [`TableView`]s out.
//!
//! Tables with the fewest pools choose first (requests that may go to two regions only must not find them
//! full of requests that could go anywhere); what a table gives a pool is taken off the pool's capacity for
//! the next. Within a table, requests fill pools like water:
//!
//! 1. open pools, lowest tier first, by weight, each up to its capacity and, while it ramps, up to its step
//!    of what it would normally get; what is left goes on to the next tier, and behind every tier to pools
//!    of weight 0;
//! 2. what is still left: ramping pools up to their capacity, in the same order (an answer from a pool that
//!    is not proved yet goes before a refusal);
//! 3. what is still left is more than all can take: by capacity, and the limits shed it.
//!
//! Where no pool is open, the *last resorts* are asked: pools that are suspect, then pools that are out but
//! answer some requests. Where there is none either, the table is closed. While all open pools are full,
//! pools that are out but seem well stand at the very end of the order ([`Use::Spare`]): what they can answer
//! would otherwise be refused.
//!
//! Slots stand in the order of pools, not of shares, so that a client with affinity keeps its pool while
//! shares hold.

use crate::model::id::*;
use crate::model::topology::Topology;
use crate::model::view::{Closed, Slot, TableView};

/// How far a pool may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// Ordinary work.
    Open,
    /// Only when nothing is open: it is quiet at the moment.
    Suspect,
    /// Out, but it seems well and the open ones are full: like [`Use::Sick`], and last in the order even so.
    Spare,
    /// Only when nothing else is left: it is out, but answers some requests.
    Sick,
    /// Nothing but trials.
    Dead,
    /// Nothing at all.
    Never,
}

/// What shares depend on, per pool.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wish {
    /// How far it may be used.
    pub use_: Use,
    /// Weight within its tier.
    pub weight: u32,
    /// Lower ones first.
    pub tier: u32,
    /// Of its normal share: ramp step, drain fade; 1 normally.
    pub step: f64,
    /// Of its weight: slow pools give up to a fifth; 1 normally.
    pub lean: f64,
    /// Requests per second; infinite where none is declared.
    pub capacity: f64,
    /// Wants safe trials.
    pub trial: bool,
}

/// The parts of one table, by position in `pools`, in requests per second. `rate`: offered; `room`: capacity left per pool.
fn fill(wishes: &[(PoolIx, Wish)], rate: f64, room: &[f64]) -> Vec<f64> {
    let n = wishes.len();
    let best = wishes.iter().map(|(_, w)| w.use_).filter(|u| *u <= Use::Sick).min();
    let Some(best) = best else { return vec![0.0; n] };
    let takes: Vec<usize> = (0..n).filter(|i| wishes[*i].1.use_ == best).collect();
    let mut got = vec![0.0; n];
    let mut rest = rate;
    let stepped = best == Use::Open && takes.iter().any(|i| wishes[*i].1.step < 1.0);
    if stepped {
        let caps: Vec<f64> = (0..n).map(|i| room[i]).collect();
        let mut normal = vec![0.0; n];
        let mut all = rate;
        levels(wishes, &takes, &caps, &mut normal, &mut all);
        let caps: Vec<f64> =
            (0..n).map(|i| if wishes[i].1.step < 1.0 { room[i].min(normal[i] * wishes[i].1.step) } else { room[i] }).collect();
        levels(wishes, &takes, &caps, &mut got, &mut rest);
    }
    levels(wishes, &takes, room, &mut got, &mut rest);
    if rest > rate * 1e-9 {
        let finite = |r: f64| if r.is_finite() { r } else { 0.0 };
        let total: f64 = takes.iter().map(|i| finite(wishes[*i].1.capacity)).sum();
        for i in &takes {
            let part = if total > 0.0 { finite(wishes[*i].1.capacity) / total } else { 1.0 / takes.len() as f64 };
            got[*i] += rest * part;
        }
    }
    got
}

/// Fill tier by tier, and weight 0 last.
fn levels(wishes: &[(PoolIx, Wish)], takes: &[usize], caps: &[f64], got: &mut [f64], rest: &mut f64) {
    let level = |i: usize| (wishes[i].1.weight == 0, wishes[i].1.tier);
    let mut all: Vec<_> = takes.iter().map(|i| level(*i)).collect();
    all.sort_unstable();
    all.dedup();
    for l in all {
        let members: Vec<usize> = takes.iter().copied().filter(|i| level(*i) == l).collect();
        water(wishes, &members, caps, got, rest);
    }
}

/// Share `rest` out among `members` by weight; who is full leaves what is left to the others.
fn water(wishes: &[(PoolIx, Wish)], members: &[usize], caps: &[f64], got: &mut [f64], rest: &mut f64) {
    let mut open: Vec<usize> = members.iter().copied().filter(|i| caps[*i] > got[*i]).collect();
    while *rest > 0.0 && !open.is_empty() {
        let weight = |i: usize| f64::from(wishes[i].1.weight.max(1)) * wishes[i].1.lean;
        let total: f64 = open.iter().map(|i| weight(*i)).sum();
        let part = *rest / total;
        let full: Vec<usize> = open.iter().copied().filter(|i| caps[*i] - got[*i] <= part * weight(*i)).collect();
        if full.is_empty() {
            open.iter().for_each(|i| got[*i] += part * weight(*i));
            *rest = 0.0;
        } else {
            for i in &full {
                *rest -= caps[*i] - got[*i];
                got[*i] = caps[*i];
            }
            *rest = rest.max(0.0);
            open.retain(|i| !full.contains(i));
        }
    }
}

/// Every table, and every pool's share of its service: that of the table that may use every pool, or, where
/// there is none, over all tables by their rates.
///
/// `rates`: requests per second by table. They matter only where a capacity is declared.
pub fn tables(t: &Topology, wishes: &[Wish], rates: &[f64]) -> (Vec<TableView>, Vec<f64>) {
    let mut views = vec![TableView::default(); t.tables.len()];
    let mut shares = vec![0.0; t.pools.len()];
    for (s, service) in t.services.iter().enumerate() {
        let mine = |table: TableIx| -> Vec<(PoolIx, Wish)> {
            let allowed = t.tables[table.at()].allowed;
            let here = service.pools.iter().filter(|p| allowed.has(t.pools[p.at()].region));
            here.map(|p| (*p, wishes[p.at()])).collect()
        };
        let mut order: Vec<TableIx> = (0..t.tables.len()).map(TableIx::from).collect();
        order.retain(|table| t.tables[table.at()].service.at() == s);
        order.sort_by_key(|table| mine(*table).len());
        let mut room: Vec<f64> = service.pools.iter().map(|p| wishes[p.at()].capacity).collect();
        let mut sum = vec![0.0; service.pools.len()];
        let mut whole = None;
        let place = |p: PoolIx| service.pools.iter().position(|q| *q == p).unwrap_or(0);
        for table in order {
            let pools = mine(table);
            // An idle table is laid out as for a few requests, without taking anybody's room.
            let real = rates.get(table.at()).copied().unwrap_or(0.0);
            let rate = real.max(1e-3);
            let rooms: Vec<f64> = pools.iter().map(|(p, _)| room[place(*p)]).collect();
            let got = fill(&pools, rate, &rooms);
            for ((p, _), g) in pools.iter().zip(&got) {
                room[place(*p)] = (room[place(*p)] - g * (real / rate)).max(0.0);
                sum[place(*p)] += g;
            }
            if pools.len() == service.pools.len() {
                whole = Some(got.clone());
            }
            let elsewhere = service.pools.iter().any(|p| wishes[p.at()].use_ == Use::Open && !pools.iter().any(|(q, _)| q == p));
            views[table.at()] = lay_out(&pools, &got, elsewhere);
        }
        let sum = whole.unwrap_or(sum);
        let total: f64 = sum.iter().sum();
        for (p, g) in service.pools.iter().zip(&sum) {
            shares[p.at()] = if total > 0.0 { g / total } else { 0.0 };
        }
    }
    (views, shares)
}

/// Cut the unit interval, and rank who comes next.
fn lay_out(pools: &[(PoolIx, Wish)], got: &[f64], open_elsewhere: bool) -> TableView {
    let total: f64 = got.iter().sum();
    let trials = |also_dead: bool| -> Vec<PoolIx> {
        let wants = |w: &Wish| w.use_ != Use::Never && (w.trial || also_dead && w.use_ > Use::Open);
        pools.iter().filter(|(_, w)| wants(w)).map(|(p, _)| *p).collect()
    };
    if total <= 0.0 {
        let closed = if open_elsewhere { Closed::Residency } else { Closed::NoRegion };
        return TableView { slots: Vec::new(), order: Vec::new(), trials: trials(true), closed: Some(closed) };
    }
    let mut slots: Vec<Slot> = Vec::new();
    let mut sum = 0.0;
    for ((pool, _), g) in pools.iter().zip(got) {
        if *g > total * 1e-12 {
            sum += g;
            let upto = ((sum / total) * 2f64.powi(64)) as u64;
            slots.push(Slot { pool: *pool, upto });
        }
    }
    if let Some(last) = slots.last_mut() {
        last.upto = u64::MAX;
    }
    let used = (0..pools.len()).filter(|i| got[*i] > total * 1e-12).map(|i| pools[i].1.use_).max().unwrap_or(Use::Open);
    let mut ranked: Vec<usize> = (0..pools.len()).filter(|i| pools[*i].1.use_ <= used.max(Use::Spare)).collect();
    let key = |i: usize| {
        let w = &pools[i].1;
        let named = got[i] > total * 1e-12;
        (w.use_, !named, if named { 0 } else { u32::from(w.weight == 0) }, if named { 0 } else { w.tier })
    };
    ranked.sort_by(|a, b| key(*a).cmp(&key(*b)).then(got[*b].total_cmp(&got[*a])).then(pools[*b].1.weight.cmp(&pools[*a].1.weight)));
    TableView { slots, order: ranked.into_iter().map(|i| pools[i].0).collect(), trials: trials(used > Use::Open), closed: None }
}

#[cfg(test)]
mod tests;
