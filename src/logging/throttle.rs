//! A limit on how often something is said.

use crate::model::time::{Duration, Moment};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Lets `burst` lines through per window and counts the rest, so that the next one can say
/// "`n` more like this were suppressed". Cheap enough for the way of a request; may be a `static`:
///
/// ```
/// # use evenkeel::logging::Throttle; use std::time::Duration;
/// static REFUSED: Throttle = Throttle::every(Duration::from_secs(10));
/// if let Some(suppressed) = REFUSED.pass() {
///     tracing::warn!(suppressed, "connection refused: max_connections is reached");
/// }
/// ```
#[derive(Debug)]
pub struct Throttle {
    window: Duration,
    burst: u32,
    /// When the current window began, µs; 0: none did.
    began: AtomicU64,
    /// Lines in the current window, those held back included.
    count: AtomicU64,
}

impl Throttle {
    /// One line per window.
    pub const fn every(window: Duration) -> Self {
        Self::new(window, 1)
    }
    /// `burst` lines per window.
    pub const fn new(window: Duration, burst: u32) -> Self {
        Self { window, burst, began: AtomicU64::new(0), count: AtomicU64::new(0) }
    }
    /// May a line be written now? `Some(n)`: yes, and `n` were suppressed since the last window.
    pub fn pass(&self) -> Option<u64> {
        self.pass_at(crate::clock::now())
    }
    /// The same at a given time.
    pub fn pass_at(&self, now: Moment) -> Option<u64> {
        let began = self.began.load(Relaxed);
        if (began == 0 || now.since(Moment(began)) >= self.window) && self.began.compare_exchange(began, now.0, Relaxed, Relaxed).is_ok() {
            return Some(self.count.swap(1, Relaxed).saturating_sub(u64::from(self.burst)));
        }
        (self.count.fetch_add(1, Relaxed) < u64::from(self.burst)).then_some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lets_the_burst_through_and_counts_the_rest() {
        let t = Throttle::new(Duration::from_secs(10), 3);
        let at = |s: u64| Moment::ms(s * 1000);
        assert_eq!([(); 5].map(|()| t.pass_at(at(1))), [Some(0), Some(0), Some(0), None, None]);
        assert_eq!(t.pass_at(Moment(11_000_000 - 1)), None);
        assert_eq!(t.pass_at(at(11)), Some(3));
        assert_eq!(t.pass_at(at(12)), Some(0));
        assert_eq!(t.pass_at(at(30)), Some(0));
    }
}
