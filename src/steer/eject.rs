//! When one endpoint's own failures take it out, at once, in the request path.
//!
//! | evidence | how many in a row | how much of a pool |
//! |---|---|---|
//! | hard: no connection, no answer in time, broken off | [`HARD_STREAK`], or `eject_after` where that is less | all of it |
//! | soft: failing statuses, implausible answers | `eject_after` | at most half |
//!
//! Hard evidence needs no cap: a host that does not answer serves nobody, and a pool that is out as a whole is
//! what moves traffic to the next region before the detectors have enough for a verdict. Soft evidence may be the
//! request's fault or a shared database's, so half of the pool stays in whatever happens (Envoy's
//! `max_ejection_percent` is 10 %, HAProxy has none; with three endpoints 10 % would mean none at all).
//!
//! Why three: one refused connection may be a restart, one reset a stale connection, and two may share a cause;
//! the third costs at most one more request its retry. Ejection is cheap to get wrong: the endpoint comes back
//! by itself, and is asked anyway where nothing else is left.
//!
//! How long: [`BASE`] × 2^ejections, ±10 %, at most [`MOST`] and `open.1`. Envoy's `base_ejection_time` is 30 s, which suits a fleet that
//! ejects 10 %; a region's endpoints all matter, and `open` begins at 5 s too. `open.1` (5 min) is what a flapping pool may cost; an
//! endpoint that stays away so long after an overload is over keeps the overload going for the others (`tests/sim/metastable.rs`: half
//! of all endpoints out for 80 to 160 s, a sixth of all requests lost, with every host well). Trying again every half minute costs three attempts, which
//! are retried; an endpoint whose probes fail stays out by those.
//!
//! Not here: pools and regions (`sense`), and coming back sooner because probes pass.

use crate::model::dice::Dice;
use crate::model::policy::Failover;
use crate::model::time::{Duration, Moment};
use crate::model::topology::Pool;
use crate::model::view::Live;

/// Hard failures in a row.
pub const HARD_STREAK: u32 = 3;
/// The first ejection.
pub const BASE: Duration = Duration::from_secs(5);
/// The longest ejection.
pub const MOST: Duration = Duration::from_secs(30);
/// Endpoints that failed together do not come back together.
const JITTER: f64 = 0.1;

/// Judge an endpoint after a failure: `Some` is how long it stays out.
///
/// `failures`: in a row, this one included. `hard`: all of them were hard evidence. `ejections`: how often
/// the endpoint was ejected since it was last well.
#[allow(clippy::too_many_arguments)]
pub fn judge(
    failures: u32,
    hard: bool,
    failover: &Failover,
    pool: &Pool,
    live: &dyn Live,
    ejections: u32,
    now: Moment,
    dice: &mut Dice,
) -> Option<Duration> {
    let needed = if hard { HARD_STREAK.min(failover.eject_after) } else { failover.eject_after };
    if failures < needed.max(1) {
        return None;
    }
    if !hard {
        // The one at hand included; it may be out already, by the same streak.
        let out = pool.endpoints().filter(|e| live.out(*e, now)).count() + 1;
        if out * 2 > pool.endpoints().len() {
            return None;
        }
    }
    let most = MOST.min(failover.open.1);
    let least = BASE.min(most);
    let time = least.saturating_mul(1 << ejections.min(16)).min(most);
    Some(time.mul_f64(1.0 - JITTER + 2.0 * JITTER * dice.unit()).min(most))
}

#[cfg(test)]
mod tests;
