//! How much of a pool's limit is kept for whom, when not everybody can be served: thresholds by priority, and a share for those
//! who may go nowhere else.
//!
//! ```text
//! 0 ─────────────── sheddable ─────── normal ──────── limit
//!     everybody              │ kept for  │  kept for
//!                            │ normal    │  critical
//! ```
//!
//! A fixed threshold is wrong for nearly every mix: with little critical traffic a tenth of the limit is a waste, and when
//! four of five requests are critical it is full of normal ones at the moment a critical one comes. How deep a
//! reserve must be follows from the mix (trunk reservation: refusals fall geometrically with its depth), and the mix is not known.
//! So it is measured where it hurts: a request that finds every pool of its table full *waits* (`Live::turned_away`). Where
//! more than [`TOLERATED`] of a priority's requests do, what is kept from the lower ones grows by as many places as
//! requests waited; when it has been well for [`HOLD`] the reserve goes back quickly, before that slowly. (DAGOR at
//! WeChat and Uber's Cinnamon move an admission threshold over priorities by the same kind of feedback.)
//!
//! Each pool that a table may use at the moment has a reserve of its own; one that comes back begins with none.
//!
//! **Nowhere else.** A route with a residency may use fewer pools than others. Where its requests wait more often than those of the
//! same priority that have more to choose from, a part of the pool is *bound*: those others go elsewhere first, as long as there is room.
//!
//! Nothing is kept in quiet times: as long as nobody waits, the thresholds are those of [`Reserve::default`], far above what is in use.
//! Sheddable requests never make anybody yield.

use crate::model::policy::Priority;
use crate::model::time::{Duration, Moment};
use crate::model::view::Reserve;

/// The part of a priority's requests that may find everything full: the queue gets nearly all of them in.
const TOLERATED: f64 = 0.01;
/// As long as somebody waited less than this ago, a reserve shrinks slowly: it is still needed.
const HOLD: Duration = Duration::from_secs(2);
/// Per full tick, within [`HOLD`] (half in 14 s) and after it (half in 0.3 s).
const SHRINK: (f64, f64) = (0.995, 0.8);
/// No reserve grows by more than this part of the limit at once.
const GROW: f64 = 0.25;

/// How requests of one share table fared since the last full tick, and on the whole.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fared {
    /// Requests.
    pub asked: f64,
    /// Those that found every pool full.
    pub waited: f64,
    /// The part that waited, over about a second.
    pub part: f64,
}

impl Fared {
    /// A tick's counts.
    pub fn tick(&mut self, asked: u32, waited: u32) {
        (self.asked, self.waited) = (f64::from(asked), f64::from(waited));
        if asked > 0 {
            self.part += 0.1 * ((self.waited / self.asked).min(1.0) - self.part);
        }
    }
    fn too_often(&self) -> bool {
        self.waited > TOLERATED * self.asked
    }
}

/// A share table's requests by priority.
pub type ByPriority = [Fared; 3];

/// One kind of reserve, in places.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    places: f64,
    needed: Moment,
}

impl Kept {
    fn tick(&mut self, now: Moment, missed: f64, limit: f64) {
        if missed > 0.0 {
            self.places = (self.places + missed.clamp(1.0, (limit * GROW).max(1.0))).min(limit);
            self.needed = now;
        } else if self.places > 0.0 {
            self.places *= if now.since(self.needed) < HOLD { SHRINK.0 } else { SHRINK.1 };
            if self.places < 0.5 {
                self.places = 0.0;
            }
        }
    }
}

/// The reserves of one pool.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reserves {
    critical: Kept,
    normal: Kept,
    bound: Kept,
}

impl Reserves {
    /// A full tick. `tables`: those that may use the pool, each with the ones among them that have more to choose from.
    pub fn tick<'a>(&mut self, now: Moment, limit: u32, tables: impl Iterator<Item = (&'a ByPriority, Vec<&'a ByPriority>)>) {
        let (mut critical, mut normal, mut bound) = (0.0f64, 0.0f64, 0.0f64);
        for (fared, wider) in tables {
            let missed = |p: Priority| if fared[p as usize].too_often() { fared[p as usize].waited } else { 0.0 };
            critical += missed(Priority::Critical);
            normal += missed(Priority::Critical) + missed(Priority::Normal);
            for p in [Priority::Normal, Priority::Critical] {
                let theirs = wider.iter().map(|w| w[p as usize].part).fold(f64::INFINITY, f64::min);
                if fared[p as usize].part > theirs + TOLERATED {
                    bound += missed(p);
                }
            }
        }
        let limit = f64::from(limit);
        self.critical.tick(now, critical, limit);
        self.normal.tick(now, normal, limit);
        self.bound.tick(now, bound, limit);
    }
    /// For the picture.
    pub fn view(&self) -> Reserve {
        let places = |k: Kept| k.places.round() as u32;
        Reserve { critical: places(self.critical), normal: places(self.normal), bound: places(self.bound) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Moment = Moment::ms(100_000);

    fn fared(priority: Priority, asked: u32, waited: u32) -> ByPriority {
        let mut f = ByPriority::default();
        f[priority as usize].tick(asked, waited);
        f
    }
    fn after(ticks: &[(Priority, u32, u32)], limit: u32) -> Reserve {
        let mut r = Reserves::default();
        for (i, (p, asked, waited)) in (0..).zip(ticks) {
            let f = fared(*p, *asked, *waited);
            r.tick(T + Duration::from_millis(100 * i), limit, [(&f, vec![])].into_iter());
        }
        r.view()
    }

    #[test]
    fn grows_by_those_who_waited_beyond_one_in_a_hundred() {
        use Priority::*;
        assert_eq!(after(&[(Critical, 100, 1)], 40), Reserve::default(), "one in a hundred is what the queue is for");
        assert_eq!(after(&[(Critical, 99, 1)], 40), Reserve { critical: 1, normal: 1, bound: 0 });
        assert_eq!(
            after(&[(Critical, 20, 3), (Critical, 20, 20)], 40),
            Reserve { critical: 13, normal: 13, bound: 0 },
            "a quarter at once"
        );
        assert_eq!(after(&[(Normal, 20, 3)], 40), Reserve { critical: 0, normal: 3, bound: 0 }, "nobody above yields to them");
        assert_eq!(after(&[(Sheddable, 20, 20)], 40), Reserve::default());
        assert_eq!(after(&[(Critical, 9, 9); 50], 8).critical, 8, "never more than there is");
    }

    #[test]
    fn shrinks_slowly_while_needed_and_quickly_once_it_is_not() {
        let calm = |n: usize| [vec![(Priority::Critical, 20, 10)], vec![(Priority::Critical, 20, 0); n]].concat();
        assert_eq!(after(&calm(0), 40).critical, 10);
        assert_eq!(after(&calm(19), 40).critical, 9, "within two seconds");
        assert_eq!(after(&calm(35), 40).critical, 0, "and 1.5 s later");
    }

    #[test]
    fn is_bound_while_those_with_less_to_choose_from_fare_worse() {
        let bound = |narrow: u32, wide: u32| {
            let (n, w) = (fared(Priority::Normal, 10, narrow), fared(Priority::Normal, 10, wide));
            let mut r = Reserves::default();
            r.tick(T, 40, [(&n, vec![&w]), (&w, vec![])].into_iter());
            r.view().bound
        };
        assert_eq!((bound(4, 0), bound(4, 2), bound(4, 4), bound(0, 4)), (4, 4, 0, 0));
    }
}
