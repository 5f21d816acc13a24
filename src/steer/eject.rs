//! When one endpoint's own failures take it out, at once, in the request path.

use crate::model::dice::Dice;
use crate::model::policy::Failover;
use crate::model::time::{Duration, Moment};
use crate::model::topology::Pool;
use crate::model::view::Live;

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
    let _ = (hard, pool, live, now, dice);
    (failures >= failover.eject_after).then(|| failover.open.0 * (ejections + 1))
}
