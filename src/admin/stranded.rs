//! What a drain would leave without a region: the least that must be asked before it is done.
//!
//! It counts a pool as able to serve when requests may go there now. It does not ask whether those that stay can carry
//! the load.

use crate::model::id::RegionSet;
use crate::model::view::View;

/// One line per route that some region can serve now, and none could once `away` are drained.
pub fn stranded(view: &View, away: RegionSet) -> Vec<String> {
    let t = view.topology();
    let mut told = Vec::new();
    for route in &t.routes {
        let able = |without: RegionSet| {
            t.services[route.service.at()].pools.iter().any(|p| {
                let region = t.pools[p.at()].region;
                route.allowed.has(region) && !without.has(region) && view.pools[p.at()].open()
            })
        };
        if able(RegionSet::EMPTY) && !able(away) {
            let residency = route.residency.as_ref().map_or(String::new(), |r| format!(" (residency {})", r.join(", ")));
            told.push(format!("route {}: no region is left that may and can serve it{residency}", route.name));
        }
    }
    told
}
