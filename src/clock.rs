//! The only reader of the operating system's time and entropy.
//!
//! Everything inside works on [`Moment`]: microseconds on one monotonic line that begins at one second
//! (zero means "never" in atomics). It follows `tokio::time::Instant`, so a test with paused time
//! moves the whole program. The wall clock is looked at only at the borders: status, journal, `Date`,
//! names. It may jump; a `Moment` is therefore translated at the time of asking, never stored as wall time.

#![allow(clippy::disallowed_methods)] // this is the place they are kept for

use crate::model::dice::Dice;
use crate::model::time::{Duration, Moment};
use jiff::Timestamp;
use std::cell::Cell;
use std::sync::OnceLock;
use tokio::time::Instant;

/// What a clock shows at its origin.
const BEGIN: Duration = Duration::from_secs(1);

fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

/// The present.
#[inline]
pub fn now() -> Moment {
    Moment::ZERO + (Instant::now().saturating_duration_since(origin()) + BEGIN)
}

/// The same point for tokio's timers.
#[inline]
pub fn instant(at: Moment) -> Instant {
    let origin = origin();
    let after = Duration::from_micros(at.0).saturating_sub(BEGIN);
    // `Moment::FAR` lies beyond what an `Instant` can hold: a century is far enough.
    origin + after.min(Duration::from_secs(100 * 365 * 86_400))
}

/// Waits until a moment.
pub fn sleep_until(at: Moment) -> tokio::time::Sleep {
    tokio::time::sleep_until(instant(at))
}

/// The wall clock now.
pub fn wall_now() -> Timestamp {
    Timestamp::now()
}

/// The wall-clock time of a moment, past or future, as the wall clock stands now.
pub fn wall(at: Moment) -> Timestamp {
    let (now, wall) = (now(), wall_now());
    let moved = if at <= now { wall.checked_sub(now.since(at)) } else { wall.checked_add(now.until(at)) };
    moved.unwrap_or(if at <= now { Timestamp::MIN } else { Timestamp::MAX })
}

/// A wall-clock time as RFC 3339 in UTC with microseconds, as everywhere in JSON outside.
pub fn stamp(at: Timestamp) -> String {
    format!("{at:.6}")
}

/// The moment of a wall-clock time, as the wall clock stands now.
pub fn moment(at: Timestamp) -> Moment {
    let (now, wall) = (now(), wall_now());
    let apart = at.duration_since(wall);
    if apart.is_negative() { now - apart.unsigned_abs() } else { now + apart.unsigned_abs() }
}

/// A stream of chance, seeded by the operating system: one per worker thread.
pub fn dice() -> Dice {
    Dice::new(u64::from_le_bytes(entropy()))
}

/// 128 unguessable bits as 32 hexadecimal digits: for addresses that are the only key to what they name.
/// Costs a system call; names that need not be secret are drawn from a [`Dice`].
pub fn unguessable_id() -> String {
    entropy::<16>().iter().map(|b| format!("{b:02x}")).collect()
}

fn entropy<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Linux's getrandom(2) on an initialised pool cannot fail; without entropy nothing here may go on.
    getrandom::fill(&mut bytes).expect("the operating system gives no entropy (getrandom)");
    bytes
}

/// The `Date` field's value (RFC 9110 section 5.6.7), made once a second and thread.
pub fn http_date() -> [u8; 29] {
    thread_local! { static CACHED: Cell<(Moment, [u8; 29])> = const { Cell::new((Moment::ZERO, [0; 29])) }; }
    CACHED.with(|cached| {
        let now = now();
        let (until, date) = cached.get();
        if now < until {
            return date;
        }
        let wall = wall_now();
        let date = imf_fixdate(wall);
        let rest = 1_000_000_000 - u64::from(wall.subsec_nanosecond().unsigned_abs());
        cached.set((now + Duration::from_nanos(rest), date));
        date
    })
}

fn imf_fixdate(at: Timestamp) -> [u8; 29] {
    let text = at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let mut out = [b' '; 29];
    let n = text.len().min(29);
    out[..n].copy_from_slice(&text.as_bytes()[..n]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn moments_follow_paused_time() {
        let before = now();
        assert!(before >= Moment::ms(1000));
        tokio::time::sleep(Duration::from_secs(8)).await;
        assert_eq!(now().since(before).as_secs(), 8);
        sleep_until(before + Duration::from_secs(20)).await;
        assert_eq!(now().since(before).as_secs(), 20);
    }

    #[test]
    fn wall_and_moment_are_each_others_inverse() {
        let at = now() + Duration::from_secs(3600);
        let back = moment(wall(at));
        assert!(back.since(at).max(at.since(back)) < Duration::from_millis(50), "{at:?} {back:?}");
        assert_eq!(wall(Moment::FAR), Timestamp::MAX);
        assert!(instant(Moment::FAR) > Instant::now());
    }

    #[test]
    fn the_date_is_the_one_of_the_rfc() {
        let at: Timestamp = "1994-11-06T08:49:37Z".parse().unwrap();
        assert_eq!(&imf_fixdate(at), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert!(http_date().ends_with(b" GMT"));
    }

    #[test]
    fn ids_differ() {
        let (a, b) = (unguessable_id(), unguessable_id());
        assert!(a.len() == 32 && a != b);
        assert_ne!(dice().next(), dice().next());
    }
}
