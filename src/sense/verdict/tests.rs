use super::*;
use proptest::prelude::*;

mod fleet;

fn votes(down: u32, suspect: u32, well: u32, unknown: u32) -> Votes {
    Votes { down, suspect, well, live: down + suspect + well + unknown }
}
const DOUBT: Own = Own { opinion: Opinion::Suspect, doubts: true, experiment: false };
const FINE: Own = Own { opinion: Opinion::Well, doubts: false, experiment: false };

#[test]
fn a_majority_is_more_than_half_of_the_votes_cast() {
    assert_eq!(majority(&votes(3, 0, 2, 0), true), Majority::Down);
    assert_eq!(majority(&votes(2, 0, 2, 0), true), Majority::None);
    assert_eq!(majority(&votes(2, 1, 2, 0), true), Majority::None);
    assert_eq!(majority(&votes(0, 2, 3, 0), true), Majority::Well);
    assert_eq!(majority(&votes(1, 0, 0, 0), true), Majority::None, "one voice is none");
    assert_eq!(majority(&votes(2, 0, 0, 2), true), Majority::Down, "half of them can tell");
    assert_eq!(majority(&votes(2, 0, 0, 3), true), Majority::None, "less than half can tell");
    assert_eq!(majority(&votes(5, 0, 0, 0), false), Majority::None, "no quorum");
}

#[test]
fn advice_confirms_a_doubt_and_nothing_else() {
    let two = votes(2, 0, 2, 0);
    assert_eq!(advise(Verdicts::Advise, &two, true, DOUBT), Advice::Confirm, "ours is the third of five");
    assert_eq!(advise(Verdicts::Advise, &votes(1, 0, 2, 0), true, DOUBT), Advice::Own, "ours would be two of four");
    assert_eq!(advise(Verdicts::Advise, &votes(4, 0, 0, 0), true, FINE), Advice::Own, "success here is not overruled");
    assert_eq!(advise(Verdicts::Off, &votes(4, 0, 0, 0), true, DOUBT), Advice::Own);
    assert_eq!(advise(Verdicts::Advise, &votes(0, 3, 0, 0), true, DOUBT), Advice::Own, "doubts do not confirm each other");
}

#[test]
fn an_experiment_ends_where_the_others_are_well_served() {
    let own = Own { experiment: true, ..DOUBT };
    assert_eq!(advise(Verdicts::Advise, &votes(0, 0, 4, 0), true, own), Advice::Calm);
    assert_eq!(advise(Verdicts::Advise, &votes(0, 2, 2, 0), true, own), Advice::Own);
    assert_eq!(advise(Verdicts::Advise, &votes(0, 0, 4, 0), true, DOUBT), Advice::Own, "silence is not an experiment");
}

#[test]
fn followers_follow() {
    assert_eq!(advise(Verdicts::Follow, &votes(3, 0, 1, 0), true, FINE), Advice::Follow, "three of five");
    assert_eq!(advise(Verdicts::Follow, &votes(2, 0, 2, 0), true, FINE), Advice::Hold, "two of five: three are well");
    let down = Own { opinion: Opinion::Down, ..DOUBT };
    assert_eq!(advise(Verdicts::Follow, &votes(0, 0, 4, 0), true, down), Advice::Hold, "soft evidence moves nothing");
}

#[test]
fn alone_is_who_nobody_shares_a_doubt_with() {
    assert!(is_alone(&votes(0, 0, 4, 0), true, Opinion::Down));
    assert!(!is_alone(&votes(0, 1, 3, 0), true, Opinion::Down));
    assert!(!is_alone(&votes(1, 0, 3, 0), true, Opinion::Down));
    assert!(!is_alone(&votes(0, 0, 1, 0), true, Opinion::Down), "one against one");
    assert!(!is_alone(&votes(0, 0, 4, 0), true, Opinion::Suspect));
}

fn any_votes() -> impl Strategy<Value = Votes> {
    (0u32..60, 0u32..60, 0u32..60, 0u32..60).prop_map(|(d, s, w, u)| votes(d, s, w, u))
}

proptest! {
    #[test]
    fn advice_never_moves_an_edge_that_does_not_doubt(v in any_votes(), quorum: bool, o in 0..4) {
        let opinion = [Opinion::Unknown, Opinion::Well, Opinion::Suspect, Opinion::Down][o as usize];
        let own = Own { opinion, doubts: false, experiment: false };
        prop_assert_eq!(advise(Verdicts::Advise, &v, quorum, own), Advice::Own);
    }

    #[test]
    fn nobody_is_moved_by_fewer_than_two_or_without_a_quorum(v in any_votes(), mode in 0..3, doubts: bool) {
        let mode = [Verdicts::Off, Verdicts::Advise, Verdicts::Follow][mode as usize];
        let own = Own { doubts, ..FINE };
        prop_assert_eq!(advise(mode, &v, false, own), Advice::Own);
        if matches!(advise(mode, &v, true, own), Advice::Follow | Advice::Confirm) {
            prop_assert!(v.down + u32::from(doubts) >= 2 && v.down >= 1);
        }
    }

    #[test]
    fn one_more_vote_for_down_never_speaks_for_it(v in any_votes()) {
        let rank = |m| match m { Majority::Well => 0, Majority::None => 1, Majority::Down => 2 };
        let before = rank(majority(&v, true));
        if v.well > 0 {
            let turned = Votes { well: v.well - 1, down: v.down + 1, ..v };
            prop_assert!(rank(majority(&turned, true)) >= before);
        }
    }
}
