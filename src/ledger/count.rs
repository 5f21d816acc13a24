//! One look at the cells.

use crate::live::Picture;
use crate::model::count::{Counts, PoolCount, RouteCount};
use crate::model::id::{PoolIx, RouteIx};
use crate::model::outcome::RequestOutcome;
use crate::model::time::Moment;

/// What was counted by then.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// When.
    pub at: Moment,
    /// Requests that came, by route.
    pub arrived: Vec<(String, u64)>,
    /// What they, and attempts at pools, came to.
    pub counts: Counts,
}

/// Reads every cell.
pub fn look(picture: &Picture, at: Moment) -> Sample {
    let (t, cells) = (picture.view.topology(), &picture.cells);
    let mut sample = Sample { at, ..Sample::default() };
    for (i, route) in t.routes.iter().enumerate() {
        let cell = cells.route(RouteIx::from(i));
        let n = |o| cell.outcome(o);
        let (retried, hedged) = cell.agains();
        sample.arrived.push((route.name.to_string(), cell.requests()));
        sample.counts.routes.push(RouteCount {
            route: route.name.to_string(),
            ok: n(RequestOutcome::Ok),
            client_error: n(RequestOutcome::ClientError),
            failed: n(RequestOutcome::Failed),
            stale: n(RequestOutcome::Stale),
            fixed: n(RequestOutcome::Static),
            spooled: n(RequestOutcome::Spooled),
            shed: n(RequestOutcome::Shed),
            unavailable: n(RequestOutcome::Unavailable),
            retried,
            hedged,
            in_doubt: cell.doubts(),
        });
    }
    for (i, pool) in t.pools.iter().enumerate() {
        let mut count = PoolCount { pool: pool.name.to_string(), ..PoolCount::default() };
        for (result, n) in cells.pool(PoolIx::from(i)).results() {
            match result {
                "ok" => count.ok += n,
                "cancelled" => {}
                _ => count.failed += n,
            }
        }
        sample.counts.pools.push(count);
    }
    sample
}
