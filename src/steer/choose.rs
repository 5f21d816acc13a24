//! Which pool, and which endpoint of it.

use super::fallback::Refusal;
use crate::model::dice::Dice;
use crate::model::id::*;
use crate::model::policy::Priority;
use crate::model::time::Moment;
use crate::model::view::{Closed, Live, View};

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
    /// GET, HEAD, OPTIONS or TRACE: may be a trial.
    pub safe: bool,
    /// Endpoints not to be used again.
    pub tried: &'a [EndpointIx],
    /// Regions to be used only when no other can take it.
    pub avoid: RegionSet,
    /// Whether this is the request's first attempt (it then follows the shares).
    pub first: bool,
}

/// The n-th point of the low-discrepancy sequence: the golden-ratio (Kronecker) recurrence in 64-bit fixed point.
#[inline]
pub fn point(n: u64) -> u64 {
    n.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// How many requests in flight a pool of this limit may have for one more of this priority to be let in.
#[inline]
pub fn threshold(limit: u32, priority: Priority) -> u32 {
    let _ = priority;
    limit
}

/// Choose a pool and an endpoint, or say why there is none.
pub fn choose(view: &View, live: &dyn Live, want: &Want<'_>, now: Moment, dice: &mut Dice) -> Result<Pick, Refusal> {
    let _ = dice;
    let t = view.topology();
    let route = &t.routes[want.route.at()];
    let table = &view.tables[route.table.at()];
    for pool in &table.order {
        for endpoint in t.pools[pool.at()].endpoints() {
            if !want.tried.contains(&endpoint) && !live.out(endpoint, now) {
                return Ok(Pick { pool: *pool, endpoint, trial: false });
            }
        }
    }
    Err(match table.closed {
        Some(Closed::Residency) => Refusal::Residency,
        _ => Refusal::NoRegion,
    })
}
