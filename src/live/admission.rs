//! Allowances: the control side grants tokens at each tick, requests take them one by one.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A stock of tokens (retries of a service, hedges of a route, trials of a pool).
/// Fractions add up: what one tick earns is often less than one token.
#[derive(Debug, Default)]
pub struct Tokens(AtomicU64);

/// One token, in the unit they are kept in.
const ONE: u64 = 1_000_000;

fn units(tokens: f64) -> u64 {
    (tokens * ONE as f64) as u64
}

impl Tokens {
    /// Takes one, if there is one.
    #[inline]
    pub fn take(&self) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(ONE)).is_ok()
    }
    /// Adds `add`, up to `cap`; what lies above a lowered cap is lost.
    pub fn grant(&self, add: f64, cap: f64) {
        let (add, cap) = (units(add), units(cap));
        let _ = self.0.fetch_update(Relaxed, Relaxed, |n| Some(n.saturating_add(add).min(cap)));
    }
    /// How many whole ones there are.
    pub fn left(&self) -> u64 {
        self.0.load(Relaxed) / ONE
    }
}
