//! Allowances: the control side grants tokens at each tick, requests take them one by one.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A stock of tokens (retries of a service, hedges of a route, trials of a pool).
#[derive(Debug, Default)]
pub struct Tokens(AtomicU32);

impl Tokens {
    /// Takes one, if there is one.
    #[inline]
    pub fn take(&self) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1)).is_ok()
    }
    /// Adds `add`, up to `cap`; what lies above a lowered cap is lost.
    pub fn grant(&self, add: u32, cap: u32) {
        let _ = self.0.fetch_update(Relaxed, Relaxed, |n| Some(n.saturating_add(add).min(cap)));
    }
    /// How many there are.
    pub fn left(&self) -> u32 {
        self.0.load(Relaxed)
    }
}
