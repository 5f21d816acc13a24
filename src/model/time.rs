//! Time as a value. Only `clock.rs` knows where it comes from.

use serde::{Deserialize, Serialize};
use std::ops::{Add, AddAssign, Sub};
pub use std::time::Duration;

/// A point in monotonic time: microseconds since the process (or the simulation) began.
/// Zero is reserved for "never" in atomics, so a clock starts at one second.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Moment(pub u64);

impl Moment {
    /// Before everything.
    pub const ZERO: Self = Self(0);
    /// After everything.
    pub const FAR: Self = Self(u64::MAX);

    /// The time since `earlier`, zero if that is in the future.
    #[inline]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
    /// The time until `later`, zero if that has passed.
    #[inline]
    pub fn until(self, later: Self) -> Duration {
        later.since(self)
    }
    /// Seconds since the beginning.
    pub fn secs(self) -> f64 {
        self.0 as f64 / 1e6
    }
    /// `n` milliseconds after the beginning; for tests and tables.
    pub const fn ms(n: u64) -> Self {
        Self(n * 1000)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;
    #[inline]
    fn add(self, d: Duration) -> Self {
        Self(self.0.saturating_add(d.as_micros() as u64))
    }
}
impl AddAssign<Duration> for Moment {
    fn add_assign(&mut self, d: Duration) {
        *self = *self + d;
    }
}
impl Sub<Duration> for Moment {
    type Output = Self;
    #[inline]
    fn sub(self, d: Duration) -> Self {
        Self(self.0.saturating_sub(d.as_micros() as u64))
    }
}
