//! Do too many requests fail, or hang? A verdict on one pool from its own [`Window`] alone; whether it
//! counts is for [`common_mode`](super::common_mode) to say.
//!
//! - **Failure rate**: the shortest suffix that holds `min_requests` judged attempts and of which at least
//!   `failure_rate` failed. Looking at every suffix notices half of the requests failing at 300/s within
//!   150 ms. More looks mean more chances of an unlucky streak, which is why a verdict also needs contrast.
//! - **Hangs**: requests that never get a first byte while others are answered. Users feel 4 % of these more
//!   than 40 % of quick failures that a retry mends, and no health check sees them; so few are enough: 5 in
//!   two seconds, and 4 % of what was judged. A late attempt may yet be answered: late ones alone are a
//!   [`Doubt`](Verdict::Doubt) (new work goes elsewhere, nothing else), and count fully after [`GRACE`].
//! - **Implausible** answers that another region contradicted, of at least [`KEYS`] distinct keys: fewer are odd items, not
//!   an odd pool, and count for nothing here.
//!
//! One bad endpoint is not a bad pool: where a pool has two endpoints or more in use, two must have failed.
//! Overload answers and cancelled attempts are not counted at all. A slow answer is not a failure.

use super::window::{Counts, Window};
use crate::model::event::Cause;
use crate::model::policy::Failover;
use crate::model::time::{Duration, Moment};

/// Hanging requests that make a verdict.
pub const HANGS: u32 = 5;
/// And this part of what was judged.
pub const HANG_RATIO: f64 = 0.04;
/// Over suffixes of at most this length.
const HANG_SPAN: Duration = Duration::from_secs(2);
/// Timeouts among them that make late attempts certain.
const SURE_TIMEOUTS: u32 = 3;
/// Or that the doubt has lasted this long and they are still unanswered.
pub const GRACE: Duration = Duration::from_millis(100);
/// Implausible answers that make a verdict, each contradicted by another region.
const IMPLAUSIBLE: u32 = 5;
/// And distinct keys among them. Counted by a bit of each key's hash, so rather too few than too many.
pub const KEYS: u32 = 10;

/// What the window says.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Late attempts that may yet be answered: avoid it for the moment.
    Doubt(Cause),
    /// Bad, for this reason, by these counts of the last so long.
    Bad(Cause, Counts, Duration),
}

/// Judge a pool. `in_use`: endpoints that get traffic; `doubted`: for how long [`Verdict::Doubt`] has stood.
pub fn judge(window: &Window, now: Moment, rules: &Failover, in_use: u32, doubted: Duration) -> Option<Verdict> {
    let wide = in_use.clamp(1, 2);
    failing(window, now, rules, wide).or_else(|| implausible(window, now, rules, wide)).or_else(|| hanging(window, now, wide, doubted))
}

/// Whether what guards rejected is the pool's fault.
fn believed(c: &Counts) -> bool {
    c.guard >= IMPLAUSIBLE && c.contradicted >= IMPLAUSIBLE.max(2 * c.confirmed) && c.implausible_keys.count_ones() >= KEYS
}

fn implausible(window: &Window, now: Moment, rules: &Failover, wide: u32) -> Option<Verdict> {
    let spans = [HANG_SPAN / 2, HANG_SPAN, rules.window].map(|span| (span, window.last(now, span)));
    let (span, c) = spans.into_iter().find(|(_, c)| believed(c) && c.failed_on.count_ones() >= wide)?;
    let cause = Cause::Implausible { rejected: c.guard, keys: c.implausible_keys.count_ones() };
    Some(Verdict::Bad(cause, c, span))
}

fn failing(window: &Window, now: Moment, rules: &Failover, wide: u32) -> Option<Verdict> {
    let counted = |c: &Counts| {
        let odd = if believed(c) { 0 } else { c.guard };
        (c.failed() - odd, c.judged() - odd)
    };
    let bad = |c: &Counts| {
        let (failed, judged) = counted(c);
        judged >= rules.min_requests.max(1)
            && f64::from(failed) >= rules.failure_rate * f64::from(judged)
            && failed > 0
            && c.failed_on.count_ones() >= wide
    };
    let (span, c) = window.suffixes(now).find(|(_, c)| bad(c))?;
    let (failed, judged) = counted(&c);
    let cause = if believed(&c) && c.guard * 2 > failed {
        Cause::Implausible { rejected: c.guard, keys: c.implausible_keys.count_ones() }
    } else if c.timeout * 2 > failed {
        Cause::Timeouts { timeouts: c.timeout, judged }
    } else {
        Cause::FailureRate { failed, judged }
    };
    Some(Verdict::Bad(cause, c, span))
}

fn hanging(window: &Window, now: Moment, wide: u32, doubted: Duration) -> Option<Verdict> {
    let mut doubt = None;
    for (span, c) in window.suffixes(now).take_while(|(span, _)| *span <= HANG_SPAN) {
        let (hangs, judged) = (c.hangs(), c.judged().max(c.hangs()));
        let enough = hangs >= HANGS && f64::from(hangs) >= HANG_RATIO * f64::from(judged);
        if !enough || (c.failed_on | c.late_on).count_ones() < wide {
            continue;
        }
        let cause = Cause::Timeouts { timeouts: hangs, judged };
        if c.timeout >= SURE_TIMEOUTS || doubted >= GRACE {
            return Some(Verdict::Bad(cause, c, span));
        }
        doubt = Some(Verdict::Doubt(cause));
    }
    doubt
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::signal::PoolTally;

    const T: Moment = Moment::ms(100_000);

    fn with(tallies: &[(u64, PoolTally)]) -> Window {
        let mut w = Window::new(Duration::from_secs(10));
        for (ms, t) in tallies {
            w.add(T + Duration::from_millis(*ms), t);
        }
        w
    }
    fn judged(ok: u32, status: u32, on: u64) -> PoolTally {
        PoolTally { ok, status, failed_on: on, ..Default::default() }
    }
    fn ask(w: &Window, ms: u64, in_use: u32, doubted: u64) -> Option<Verdict> {
        judge(w, T + Duration::from_millis(ms), &Failover::default(), in_use, Duration::from_millis(doubted))
    }
    fn is_bad(v: Option<Verdict>) -> bool {
        matches!(v, Some(Verdict::Bad(..)))
    }

    #[test]
    fn trips_at_the_rate_and_not_below() {
        assert!(is_bad(ask(&with(&[(0, judged(10, 10, 0b11))]), 0, 3, 0)));
        assert!(!is_bad(ask(&with(&[(0, judged(11, 10, 0b11))]), 0, 3, 0)));
    }

    #[test]
    fn needs_min_requests_and_not_one_more() {
        assert!(is_bad(ask(&with(&[(0, judged(0, 20, 0b11))]), 0, 3, 0)));
        assert!(!is_bad(ask(&with(&[(0, judged(0, 19, 0b11))]), 0, 3, 0)));
    }

    #[test]
    fn one_endpoint_of_several_is_not_the_pool() {
        let w = with(&[(0, judged(0, 40, 0b01))]);
        assert!(!is_bad(ask(&w, 0, 3, 0)));
        assert!(is_bad(ask(&w, 0, 1, 0)), "it is, when it is the only one in use");
    }

    #[test]
    fn a_young_fault_stands_out_of_a_healthy_past() {
        // 300/s healthy for six seconds, then half fail: 20 judged take 70 ms.
        let mut tallies: Vec<_> = (0..600).map(|i| (i * 10, judged(3, 0, 0))).collect();
        tallies.extend((600..620).map(|i| (i * 10, judged(1, 2, 0b11))));
        let at = (600..620).find(|i| is_bad(ask(&with(&tallies[..=*i as usize]), i * 10, 3, 0)));
        assert!(at.is_some_and(|i| (i - 600) * 10 <= 150), "{at:?}");
    }

    #[test]
    fn hangs_count_from_five_and_from_four_percent() {
        let t = |ok, timeout| PoolTally { ok, timeout, failed_on: 0b11, ..Default::default() };
        assert!(is_bad(ask(&with(&[(0, t(100, 5))]), 0, 3, 0)));
        assert!(!is_bad(ask(&with(&[(0, t(100, 4))]), 0, 3, 0)));
        assert!(!is_bad(ask(&with(&[(0, t(200, 5))]), 0, 3, 0)), "2.4 %");
    }

    #[test]
    fn late_attempts_are_a_doubt_first_and_certain_after_the_grace() {
        let w = with(&[(0, PoolTally { ok: 50, lates: 5, late_on: 0b110, ..Default::default() })]);
        assert!(matches!(ask(&w, 0, 3, 0), Some(Verdict::Doubt(_))));
        assert!(matches!(ask(&w, 0, 3, 99), Some(Verdict::Doubt(_))));
        assert!(is_bad(ask(&w, 0, 3, 100)));
        let w = with(&[(0, PoolTally { ok: 50, lates: 5, revived: 1, late_on: 0b110, ..Default::default() })]);
        assert_eq!(ask(&w, 0, 3, 500), None, "one was answered after all");
    }

    #[test]
    fn implausible_answers_need_contradiction() {
        let of = |keys| {
            move |contradicted, confirmed| PoolTally {
                ok: 100,
                guard: 12,
                contradicted,
                confirmed,
                failed_on: 0b11,
                implausible_keys: keys,
                ..Default::default()
            }
        };
        let t = of(0x3ff);
        assert!(is_bad(ask(&with(&[(0, t(5, 0))]), 0, 3, 0)));
        assert!(!is_bad(ask(&with(&[(0, t(4, 0))]), 0, 3, 0)));
        assert!(!is_bad(ask(&with(&[(0, t(5, 3))]), 0, 3, 0)));
        assert!(!is_bad(ask(&with(&[(0, of(0x1ff)(12, 0))]), 0, 3, 0)), "nine keys are odd items");
        let alone = PoolTally { ok: 0, guard: 100, contradicted: 100, failed_on: 0b11, implausible_keys: 1, ..Default::default() };
        assert!(!is_bad(ask(&with(&[(0, alone)]), 0, 3, 0)), "one item, however often it is asked for");
    }
}
