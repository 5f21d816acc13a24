//! Which pool, and which endpoint of it.
//!
//! ```text
//! trial token left? ─yes (safe, first attempt)→ the pool in trial
//!        │no
//! slot of the table's next point → the others by their shares → the table's order (standbys last)
//!        │each: below its limit for this priority, not drained, not dead; endpoint by power of two choices
//! nothing? once more with less demanded: [`Level`] by level
//! ```
//!
//! The share table is the authority: only pools it names are ever looked at, so residency, tiers and drains
//! hold by construction (residency and drains are checked once more all the same, both being promises
//! that must survive a mistake made elsewhere). Limits hold on every level: a full pool is never
//! overfilled for want of a better one. What is bound for requests with fewer regions to choose from is left to them while
//! there is room elsewhere ([`Reserve`]).
//!
//! Not here: when to try again and how often ([`super::attempt`]), what the shares are (`sense`).

use super::fallback::Refusal;
use super::patience;
use crate::model::dice::Dice;
use crate::model::id::*;
use crate::model::policy::{Priority, Route};
use crate::model::time::{Duration, Moment};
use crate::model::topology::{Pool, Topology};
use crate::model::view::{Live, Reserve, Slot, TableView, View};

#[cfg(test)]
mod tests;

/// Where an attempt goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pick {
    /// The pool.
    pub pool: PoolIx,
    /// One of its endpoints.
    pub endpoint: EndpointIx,
    /// It is a trial of a pool that wants to prove itself.
    pub trial: bool,
}

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Want<'a> {
    /// For which route.
    pub route: RouteIx,
    /// How much of a pool's limit it may use.
    pub priority: Priority,
    /// It may be a trial: it is safe (GET, HEAD, OPTIONS or TRACE), and soon over (no upgrade).
    pub may_try: bool,
    /// Whether this is the request's first attempt: it follows the shares, and may be a trial.
    pub first: bool,
    /// Endpoints not to be used again.
    pub tried: &'a [EndpointIx],
    /// This pool before all others.
    pub prefer: Option<PoolIx>,
    /// Keeps requests of the same key in the same region while the shares hold ([`affinity`]).
    pub affinity: Option<u64>,
    /// Regions to be used only when no other can take it.
    pub avoid: RegionSet,
    /// How much may be given up to find a place at all.
    pub least: Level,
}

/// What is demanded of a place, from everything to the least. A level is tried only when all before it found nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// A pool that is not suspect, in a region that is not avoided; an endpoint that is in.
    Sound,
    /// Also a region that was to be avoided.
    Avoided,
    /// Also suspect pools: doubt is not proof, and an answer may still come.
    Doubtful,
    /// Also ejected endpoints of a pool that is not dead: a likely failure goes before a sure degraded answer.
    Ejected,
    /// Also endpoints this request has already failed at.
    Again,
}

/// The n-th point of the low-discrepancy sequence: the golden-ratio (Kronecker) recurrence in 64-bit fixed point.
/// Of all additive recurrences it spreads best: any stretch of N consecutive points hits an interval of width w
/// within O(log N) of N·w times, wherever the stretch begins.
#[inline]
pub fn point(n: u64) -> u64 {
    n.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// A tenth of a pool's limit is for critical requests only, so that some can always get in. Rounded down: a pool
/// of less than ten keeps no place empty for them, since one of four is too much to waste.
const CRITICAL_RESERVE: u32 = 10;
/// A quarter is out of reach for sheddable ones: it is what lets normal traffic through when the limit binds.
/// Also a quarter at the smallest default limit of four, where it is exactly one place.
const NORMAL_RESERVE: u32 = 4;

/// Fewer than this many requests in flight, and a pool of this limit takes one more of this priority. The reserves are what is kept
/// at least; [`Reserve`] is deeper where the mix of requests needs it. One place is left to everybody: an idle pool refuses nobody.
#[inline]
pub fn threshold(limit: u32, reserve: Reserve, priority: Priority) -> u32 {
    let critical = reserve.critical.max(limit / CRITICAL_RESERVE);
    let kept = match priority {
        Priority::Critical => 0,
        Priority::Normal => critical,
        Priority::Sheddable => critical.max(reserve.normal).max(limit / NORMAL_RESERVE),
    };
    limit.saturating_sub(kept).max(limit.min(1))
}

/// Choose a pool and an endpoint, or say why there is none.
pub fn choose(view: &View, live: &dyn Live, want: &Want<'_>, now: Moment, dice: &mut Dice) -> Result<Pick, Refusal> {
    let t = view.topology();
    let route = &t.routes[want.route.at()];
    let mut search = Search { view, t, route, live, want, now, dice, full: false, yields: true, yielded: false };
    let table = &view.tables[route.table.at()];

    if want.may_try
        && (want.first || table.order.is_empty())
        && let Some(pick) = search.trial(&table.trials)
    {
        return Ok(pick);
    }
    // Drawn once per request: a point that is taken and not used would bend the shares.
    let first = match want.prefer {
        Some(pool) => Some(pool),
        None if table.slots.is_empty() => None,
        None if want.affinity.is_some() => search.home(&table.slots, want.affinity.unwrap_or_default()),
        None => {
            let point = if want.first { live.next_point(route.table) } else { search.dice.next() };
            slot(&table.slots, point)
        }
    };
    for level in [Level::Sound, Level::Avoided, Level::Doubtful, Level::Ejected, Level::Again] {
        if level > want.least {
            break;
        }
        search.yields = true;
        let found = search.at_level(level, first, table).or_else(|| {
            search.yields = false;
            std::mem::take(&mut search.yielded).then(|| search.at_level(level, first, table)).flatten()
        });
        if let Some((pool, endpoint)) = found {
            return Ok(Pick { pool, endpoint, trial: false });
        }
    }
    Err(match table.closed {
        Some(closed) => closed.into(),
        None if search.full => Refusal::Shed,
        None => Refusal::NoRegion,
    })
}

/// The affinity key of a header's, a cookie's or an address's bytes: FNV-1a, the same on every edge.
pub fn affinity(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01B3))
}

/// Whose slot a point falls into.
#[inline]
fn slot(slots: &[Slot], point: u64) -> Option<PoolIx> {
    slots.get(slots.partition_point(|s| s.upto < point)).or(slots.last()).map(|s| s.pool)
}

/// How many points a slot has.
fn width(slots: &[Slot], i: usize) -> u64 {
    slots[i].upto - if i == 0 { 0 } else { slots[i - 1].upto }
}

/// One search, with what it needs at hand.
struct Search<'a> {
    view: &'a View,
    t: &'a Topology,
    route: &'a Route,
    live: &'a dyn Live,
    want: &'a Want<'a>,
    now: Moment,
    dice: &'a mut Dice,
    /// Something was passed over only because it was full.
    full: bool,
    /// What is bound for requests that may go nowhere else is left to them.
    yields: bool,
    /// And something was.
    yielded: bool,
}

impl Search<'_> {
    /// A place in the first pool in trial that has both a token and an endpoint. Ejected endpoints too: whether they
    /// are well again is the question.
    fn trial(&mut self, trials: &[PoolIx]) -> Option<Pick> {
        for &pool in trials {
            if !self.lawful(pool) || self.want.avoid.has(self.t.pools[pool.at()].region) {
                continue;
            }
            let Some(endpoint) = self.endpoint(pool, Level::Sound).or_else(|| self.endpoint(pool, Level::Ejected)) else { continue };
            if self.live.take_trial(pool) {
                return Some(Pick { pool, endpoint, trial: true });
            }
        }
        None
    }

    /// The slot's pool, else the others by share, else the order.
    fn at_level(&mut self, level: Level, first: Option<PoolIx>, table: &TableView) -> Option<(PoolIx, EndpointIx)> {
        let mut at = |pool: PoolIx| self.takes(pool, level).then(|| self.endpoint(pool, level)).flatten().map(|e| (pool, e));
        if let Some(found) = first.and_then(&mut at) {
            return Some(found);
        }
        // What the slot's pool cannot take spills to the others in proportion to their shares.
        if let Some(found) = self.spill(level, first, &table.slots).and_then(|p| Some((p, self.endpoint(p, level)?))) {
            return Some(found);
        }
        table.order.iter().find_map(|p| self.takes(*p, level).then(|| self.endpoint(*p, level)).flatten().map(|e| (*p, e)))
    }

    /// One of the slots' pools that would take it, by share, without the one that was asked already.
    fn spill(&mut self, level: Level, asked: Option<PoolIx>, slots: &[Slot]) -> Option<PoolIx> {
        if slots.len() < 2 {
            return None;
        }
        let mut room = 0u64;
        for (i, s) in slots.iter().enumerate() {
            if Some(s.pool) != asked && self.takes(s.pool, level) {
                room = room.saturating_add(width(slots, i));
            }
        }
        let mut at = if room == 0 { return None } else { self.dice.below(room) };
        for (i, s) in slots.iter().enumerate() {
            if Some(s.pool) != asked && self.takes(s.pool, level) {
                if at < width(slots, i) {
                    return Some(s.pool);
                }
                at -= width(slots, i);
            }
        }
        None
    }

    /// The region an affinity key lives in: weighted rendezvous hashing over the slots (Schindelhauer and Schomaker 2005:
    /// the highest -w / ln(h)). A region that loses its share loses its clients to the others in proportion, and no other
    /// client moves; when it comes back, so do they. By the region's name: the same on every edge and after every reload.
    fn home(&self, slots: &[Slot], key: u64) -> Option<PoolIx> {
        let score = |i: usize| {
            let region = self.t.pools[slots[i].pool.at()].region;
            let hash = Dice::new(key ^ affinity(self.t.regions[region.at()].name.as_bytes())).unit();
            -(width(slots, i) as f64) / hash.max(f64::MIN_POSITIVE).ln()
        };
        (0..slots.len()).map(|i| (score(i), slots[i].pool)).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, pool)| pool)
    }

    /// What must hold on every level.
    fn lawful(&self, pool: PoolIx) -> bool {
        let allowed = self.t.tables[self.route.table.at()].allowed.has(self.t.pools[pool.at()].region);
        debug_assert!(allowed, "{} stands in a table that residency forbids it", self.t.pools[pool.at()].name);
        allowed && !self.view.pools[pool.at()].drained
    }

    /// Whether a pool takes one more of this priority.
    fn takes(&mut self, pool: PoolIx, level: Level) -> bool {
        let p = &self.view.pools[pool.at()];
        if p.dead
            || (p.suspect && level < Level::Doubtful)
            || (level < Level::Avoided && self.want.avoid.has(self.t.pools[pool.at()].region))
            || !self.lawful(pool)
        {
            return false;
        }
        let (used, most) = (self.live.pool_inflight(pool), threshold(p.limit, p.reserve, self.want.priority));
        if used >= most {
            self.full = true;
            return false;
        }
        if self.yields && p.reserve.bound > 0 && used >= p.limit.saturating_sub(p.reserve.bound) && self.has_choice(pool) {
            self.yielded = true;
            return false;
        }
        true
    }

    /// Whether others may use this pool that have fewer pools to choose from than this request.
    fn has_choice(&self, pool: PoolIx) -> bool {
        let mine = &self.t.tables[self.route.table.at()];
        let fewer = |a: RegionSet| a != mine.allowed && a.0 & mine.allowed.0 == a.0 && a.has(self.t.pools[pool.at()].region);
        self.t.tables.iter().any(|t| t.service == mine.service && fewer(t.allowed))
    }

    /// Power of two choices among a pool's endpoints that will do; those where requests wait and nothing has been heard for
    /// longer than it normally takes only when all are so. That moves nothing to another pool: a slow route's requests may
    /// be all that waits there, and whether the pool as a whole is silent is for the detectors to say.
    fn endpoint(&mut self, pool: PoolIx, level: Level) -> Option<EndpointIx> {
        let p = &self.t.pools[pool.at()];
        let n = p.endpoints.end.saturating_sub(p.endpoints.start);
        if n == 0 {
            return None;
        }
        let failover = &self.t.services[p.service.at()].failover;
        let mut quiet = patience::overdue(self.live.pace(self.want.route, pool), failover, self.route);
        let start = self.dice.below(n.into()) as u32;
        let a = self.scan(p, start, level, quiet, None).or_else(|| {
            quiet = Duration::MAX;
            self.scan(p, start, level, quiet, None)
        })?;
        if n == 1 {
            return Some(a);
        }
        let start = (a.0 - p.endpoints.start + 1 + self.dice.below(u64::from(n) - 1) as u32) % n;
        let Some(b) = self.scan(p, start, level, quiet, Some(a)) else { return Some(a) };
        Some(self.lesser(a, b))
    }

    /// The first endpoint from `start` on, around the pool once, that will do. Next in line instead of drawn again:
    /// the neighbour of an ejected endpoint is offered more, and the second choice evens that out.
    fn scan(&mut self, p: &Pool, start: u32, level: Level, quiet: Duration, not: Option<EndpointIx>) -> Option<EndpointIx> {
        let n = p.endpoints.end - p.endpoints.start;
        for i in 0..n {
            let at = start + i;
            let e = EndpointIx(p.endpoints.start + if at >= n { at - n } else { at });
            if Some(e) == not
                || (level < Level::Again && self.want.tried.contains(&e))
                || (level < Level::Ejected && self.live.out(e, self.now))
                || self.live.quiet(e, self.now) > quiet
            {
                continue;
            }
            if p.max_inflight.is_some_and(|max| self.live.inflight(e) >= max) {
                self.full = true;
                continue;
            }
            return Some(e);
        }
        None
    }

    /// The one with the lesser (requests in flight + 1) × latency. One choice in [`BLIND`] is not asked: an endpoint
    /// that was slow once would otherwise lose for ever in light traffic, and nobody would learn that it is well again.
    fn lesser(&mut self, a: EndpointIx, b: EndpointIx) -> EndpointIx {
        if self.dice.below(BLIND) == 0 {
            return a;
        }
        let load = |e| u64::from(self.live.inflight(e)) + 1;
        let (la, lb) = (u64::from(self.live.latency(a)), u64::from(self.live.latency(b)));
        let (ca, cb) = if la == 0 || lb == 0 { (load(a), load(b)) } else { (load(a) * la, load(b) * lb) };
        if cb < ca { b } else { a }
    }
}

/// See [`Search::lesser`].
const BLIND: u64 = 16;
