//! The state machine of a pool, as a table, and the state of a region, which follows from its pools.
//!
//! ```text
//! Serving ─trip→ Tripped ─cool→ Trial ─prove→ Ramping ─fill→ Serving
//! Trial ─fail→ Tripped     Ramping ─fail, trip→ Tripped
//! Serving ─chill→ Ramping  (was drained too long to be warm)
//! Trial ─warm→ Serving     (an idle standby that only its probes took out lost nothing)
//! any ─order trip→ Tripped, any ─order reset→ Serving   (the operator's last word)
//! ```
//!
//! A move that is not in the table does not happen: the caller's evidence came too late. Drained and
//! suspect are no states but flags beside them.

use crate::model::view::State;

/// What can move a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// Live traffic, silence or probes say it is bad.
    Trip,
    /// The open time is over and good evidence has held long enough.
    Cool,
    /// Trials succeeded.
    Prove,
    /// A trial or the first ramp step failed.
    Fail,
    /// The last step was held.
    Fill,
    /// It was away too long to be warm.
    Chill,
    /// It was out for a moment without having lost anything.
    Warm,
    /// An operator takes it out.
    OrderTrip,
    /// An operator puts it back.
    OrderReset,
}

impl Move {
    /// All of them.
    pub const ALL: [Self; 9] =
        [Self::Trip, Self::Cool, Self::Prove, Self::Fail, Self::Fill, Self::Chill, Self::Warm, Self::OrderTrip, Self::OrderReset];
}

/// Where a move leads; `None`: nowhere.
pub fn next(from: State, by: Move) -> Option<State> {
    use Move::*;
    use State::*;
    match (from, by) {
        (Serving | Trial | Ramping, Trip) => Some(Tripped),
        (Tripped, Cool) => Some(Trial),
        (Trial, Prove) => Some(Ramping),
        (Trial | Ramping, Fail) => Some(Tripped),
        (Ramping, Fill) => Some(Serving),
        (Serving, Chill) => Some(Ramping),
        (Trial, Warm) => Some(Serving),
        (Serving | Trial | Ramping, OrderTrip) => Some(Tripped),
        (Tripped | Trial | Ramping, OrderReset) => Some(Serving),
        _ => None,
    }
}

/// The state of a region, from `(state, has recent traffic, tripped within ten seconds)` of its pools.
///
/// It trips when at least half of its pools with recent traffic (where none has any: of all) tripped within ten
/// seconds; from then on it
/// is as far back as its pools are: tripped while half of them are, in trial while any is out, ramping while
/// any is, serving when all are.
pub fn of_region(before: State, pools: impl Iterator<Item = (State, bool, bool)> + Clone) -> State {
    let any = pools.clone().any(|(_, traffic, _)| traffic);
    let counted = pools.clone().filter(|(_, traffic, _)| *traffic || !any);
    let fresh = counted.clone().filter(|(s, _, fresh)| *fresh && *s == State::Tripped).count();
    if fresh > 0 && 2 * fresh >= counted.count() {
        return State::Tripped;
    }
    if before == State::Serving {
        return State::Serving;
    }
    let (mut all, mut tripped, mut trial, mut ramping) = (0, 0, 0, 0);
    for (s, ..) in pools {
        all += 1;
        match s {
            State::Serving => {}
            State::Tripped => tripped += 1,
            State::Trial => trial += 1,
            State::Ramping => ramping += 1,
        }
    }
    if before == State::Tripped && tripped > 0 && 2 * tripped >= all {
        State::Tripped
    } else if tripped + trial > 0 {
        State::Trial
    } else if ramping > 0 {
        State::Ramping
    } else {
        State::Serving
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    /// Every state × move. To change it knowingly: `GOLDEN=write cargo nextest run --lib sense::region`.
    #[test]
    fn the_table_is_as_agreed() {
        let mut text = String::new();
        for from in State::ALL {
            for by in Move::ALL {
                let to = next(from, by).map_or("-", State::label);
                writeln!(text, "{:<8} {:<10} {to}", from.label(), format!("{by:?}")).unwrap();
            }
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/states.txt");
        if std::env::var_os("GOLDEN").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(path).unwrap(), "the state table changed");
    }

    #[test]
    fn a_region_trips_at_half_of_its_pools_with_traffic() {
        let tripped = (State::Tripped, true, true);
        let well = (State::Serving, true, false);
        let idle = (State::Serving, false, false);
        let of = |pools: &[(State, bool, bool)]| of_region(State::Serving, pools.iter().copied());
        assert_eq!(of(&[tripped]), State::Tripped);
        assert_eq!(of(&[tripped, well]), State::Tripped);
        assert_eq!(of(&[tripped, well, well]), State::Serving);
        assert_eq!(of(&[tripped, idle, idle]), State::Tripped);
        assert_eq!(of(&[(State::Tripped, false, true), idle]), State::Tripped, "nobody has traffic");
        assert_eq!(of(&[(State::Tripped, false, true), idle, idle]), State::Serving);
        assert_eq!(of(&[(State::Tripped, true, false), well]), State::Serving, "not within ten seconds");
    }

    #[test]
    fn a_region_comes_back_with_its_pools() {
        let of = |before, states: &[State]| of_region(before, states.iter().map(|s| (*s, true, false)));
        use State::*;
        assert_eq!(of(Tripped, &[Tripped, Serving]), Tripped);
        assert_eq!(of(Tripped, &[Trial, Ramping]), Trial);
        assert_eq!(of(Trial, &[Ramping, Serving]), Ramping);
        assert_eq!(of(Ramping, &[Serving, Serving]), Serving);
    }
}
