//! How long things may take: every time that a request waits for, worked out from what its route allows and what
//! its pool normally needs ([`Pace`]).
//!
//! ```text
//! 0 ──── p95 ────── 2 × p99 ─────────── 5 × p99 ──── 8 × p99 ─────── attempt_timeout ──── deadline
//!        hedge      overdue             late         given up, where another attempt is left
//!        (policy)   (≥ suspect_floor)   (≥ silence_floor, both)
//! ```
//!
//! As long as the pace is not known, nothing is early: overdue at half of the attempt's time, late at its end.
//! A service that is slow by nature must not look silent at start. Where the route's pace is known elsewhere, and the way
//! to the pool by its probes, they serve as a guess for what is overdue ([`guess`]): a standby that died unseen, together
//! with the region it stands by for, must not cost its first requests half a second.

use crate::model::policy::{Failover, HedgeAfter, Overload, Priority, Route};
use crate::model::time::Duration;
use crate::model::view::Pace;

/// How often a request that waits too long looks at the newest view and at its endpoint. Several looks fit
/// between the suspicion (30 ms) and the trip (250 ms) of a pool, and only requests in trouble pay for them.
pub const LOOK: Duration = Duration::from_millis(15);
/// How often one looks that is not yet overdue: its pool may fall out for the evidence of others.
pub const LOOK_EARLY: Duration = Duration::from_millis(40);
/// How often an upload looks, which may go on for minutes.
pub const LOOK_UPLOAD: Duration = Duration::from_millis(60);
/// How often a request that found every pool full asks again. Whoever asks most often finds the place that was just left:
/// critical ones do.
pub fn ask_again(priority: Priority) -> Duration {
    Duration::from_millis(if priority == Priority::Critical { 1 } else { 2 })
}
/// How long a safe request waits in a pool that is dead, or suspect and tried, while its route has no other: time for a trial to be answered by a
/// pool that came back, and still an honest answer within 50 ms. Pools further away prove themselves by probes.
pub const DOOMED: Duration = Duration::from_millis(40);
/// The least wait before a hedge: below it the timer's grain (1 ms) and the histogram's (19 %) decide, not the backend.
const HEDGE_FLOOR: Duration = Duration::from_millis(3);
/// An attempt that takes this many times its pool's p99 is not merely slow; another one will be sooner.
const GIVE_UP: u32 = 8;
/// What makes an attempt late, in multiples of its pool's p99 (DESIGN.md section 5, silence).
const LATE: u32 = 5;
/// What makes an attempt overdue, likewise.
const OVERDUE: u32 = 2;

/// From then on an attempt is overdue: max(`suspect_floor`, 2 × p99).
#[inline]
pub fn overdue(pace: Pace, failover: &Failover, route: &Route) -> Duration {
    failover.suspect_floor.max(if pace.known() { pace.p99 * OVERDUE } else { route.attempt_timeout / 2 })
}

/// What to take for the pace of a pool that has not answered a route's requests yet: what they need elsewhere, and the way
/// to the pool on top. Good for suspicion alone, which the first byte ends; nothing is called late or given up by a guess.
pub fn guess(elsewhere: Pace, reach: Duration) -> Pace {
    if !elsewhere.known() || reach.is_zero() {
        return Pace::default();
    }
    let far = |d: Duration| d + reach;
    Pace { p50: far(elsewhere.p50), p95: far(elsewhere.p95), p99: far(elsewhere.p99) }
}

/// From then on it is late: max(`silence_floor`, 5 × p99).
pub fn late(pace: Pace, failover: &Failover, route: &Route) -> Duration {
    failover.silence_floor.max(if pace.known() { pace.p99 * LATE } else { route.attempt_timeout })
}

/// How long an attempt may take to its first byte, of the time that is `left` to the deadline.
///
/// A write that may not be repeated once it was sent gets all of it: to abandon it sooner helps nobody.
/// Others at most `attempt_timeout`, and less where the pool is normally much faster and `another` attempt is left;
/// but never less than `silence_floor`, since a pause that is too short to be called silence must not be called a failure.
pub fn attempt(pace: Pace, failover: &Failover, route: &Route, left: Duration, repeatable: bool, another: bool) -> Duration {
    if !repeatable {
        return left;
    }
    let most = route.attempt_timeout.min(left);
    if pace.known() && another { most.min(failover.silence_floor.max(pace.p99 * GIVE_UP)) } else { most }
}

/// When a hedge starts; `None`: the pace it depends on is not known.
pub fn hedge(after: HedgeAfter, pace: Pace) -> Option<Duration> {
    match after {
        HedgeAfter::Fixed(d) => Some(d.max(HEDGE_FLOOR)),
        HedgeAfter::Percentile(_) if !pace.known() => None,
        // The nearest quantile that is kept, from above.
        HedgeAfter::Percentile(q) if q <= 0.5 => Some(pace.p50.max(HEDGE_FLOOR)),
        HedgeAfter::Percentile(q) if q <= 0.95 => Some(pace.p95.max(HEDGE_FLOOR)),
        HedgeAfter::Percentile(_) => Some(pace.p99.max(HEDGE_FLOOR)),
    }
}

/// How long a request waits for room. Critical ones as long as the operator allows; normal ones three quarters of it,
/// which by default is longer than the control side needs to see a burst and make room (a tick is 10 ms); sheddable ones not at all, since an immediate refusal costs the client and us the least.
///
/// `standing`: others have been waiting in vain for a while. Then a queue only adds delay to the same refusals, and normal requests wait
/// a quarter of it (controlled delay: Nichols and Jacobson 2012; the two time limits as in Maurer, "Fail at Scale", 2015).
pub fn queue(overload: &Overload, priority: Priority, standing: bool) -> Duration {
    match priority {
        Priority::Critical => overload.max_queue,
        Priority::Normal if standing => overload.max_queue / 4,
        Priority::Normal => overload.max_queue * 3 / 4,
        Priority::Sheddable => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steer::fake::{ms, route};

    #[test]
    fn times_follow_the_pace_between_their_bounds() {
        let (r, f) = (route("r"), Failover::default());
        for (p99, overdue_at, late_at, given_up) in
            [(0, 300, 600, 600), (1, 30, 250, 250), (15, 30, 250, 250), (16, 32, 250, 250), (51, 102, 255, 408), (100, 200, 500, 600)]
        {
            let pace = Pace { p50: ms(p99) / 3, p95: ms(p99) / 2, p99: ms(p99) };
            assert_eq!(overdue(pace, &f, &r), ms(overdue_at), "p99 {p99}");
            assert_eq!(late(pace, &f, &r), ms(late_at), "p99 {p99}");
            assert_eq!(attempt(pace, &f, &r, ms(2000), true, true), ms(given_up), "p99 {p99}");
            assert_eq!(attempt(pace, &f, &r, ms(2000), true, false), ms(600), "the last attempt has no reason to hurry");
            assert_eq!(attempt(pace, &f, &r, ms(2000), false, true), ms(2000));
            assert_eq!(attempt(pace, &f, &r, ms(100), true, true), ms(100));
        }
    }

    #[test]
    fn nobody_but_critical_requests_waits_long_where_others_wait_in_vain() {
        let waits =
            |standing| [Priority::Critical, Priority::Normal, Priority::Sheddable].map(|p| queue(&Overload::default(), p, standing));
        assert_eq!(waits(false), [ms(20), ms(15), ms(0)]);
        assert_eq!(waits(true), [ms(20), ms(5), ms(0)]);
    }

    #[test]
    fn a_guess_needs_both_the_pace_elsewhere_and_the_way() {
        let pace = Pace { p50: ms(5), p95: ms(10), p99: ms(20) };
        assert_eq!(guess(pace, ms(40)), Pace { p50: ms(45), p95: ms(50), p99: ms(60) });
        assert!(!guess(pace, Duration::ZERO).known() && !guess(Pace::default(), ms(40)).known());
    }

    #[test]
    fn hedges_take_the_nearest_kept_quantile_from_above() {
        let pace = Pace { p50: ms(10), p95: ms(20), p99: ms(30) };
        for (q, at) in [(0.5, 10), (0.51, 20), (0.95, 20), (0.96, 30)] {
            assert_eq!(hedge(HedgeAfter::Percentile(q), pace), Some(ms(at)));
        }
        assert_eq!(hedge(HedgeAfter::Percentile(0.95), Pace::default()), None);
        assert_eq!(hedge(HedgeAfter::Fixed(ms(1)), Pace::default()), Some(ms(3)));
    }
}
