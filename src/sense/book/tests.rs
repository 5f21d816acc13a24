use super::*;
use crate::model::fleet::PoolReport;
use proptest::prelude::*;

const LEASE: Duration = Duration::from_secs(5);

fn s(n: f64) -> Moment {
    Moment((n * 1e6) as u64)
}
fn report(edge: &str, incarnation: u64, seq: u64, demand: f64) -> Report {
    let pools = [("app/east".to_string(), PoolReport { opinion: Opinion::Well, ..Default::default() })].into();
    Report { edge: edge.into(), incarnation, seq, demand: [("app".to_string(), demand)].into(), pools }
}
/// Of `n` others, heard at ten seconds over a link that is up since the first.
fn book(n: usize) -> Book {
    let mut b = Book::new("me", LEASE, s(1.0));
    b.link(s(1.0), true);
    b.said(report("me", 1, 1, 10.0));
    for i in 0..n {
        assert!(b.hear(s(10.0), report(&format!("e{i}"), 1, 1, 10.0)));
    }
    b
}

#[test]
fn a_lease_holds_to_its_end_and_no_longer() {
    let b = book(2);
    assert_eq!(b.live(s(15.0)).count(), 2);
    assert_eq!(b.live(s(15.001)).count(), 0);
}

#[test]
fn overtaken_reports_and_past_lives_are_dropped() {
    let mut b = book(1);
    assert!(!b.hear(s(11.0), report("e0", 1, 1, 99.0)), "the same again");
    assert!(b.hear(s(11.0), report("e0", 2, 1, 1.0)), "a later life");
    assert!(!b.hear(s(12.0), report("e0", 1, 7, 99.0)), "late news of the earlier life");
    assert!(b.hear(s(17.0), report("e0", 1, 1, 99.0)), "whose clock was set back: the later life's lease is over");
    b.left("e0", 2);
    assert_eq!(b.live(s(17.0)).count(), 1, "a farewell of another life");
    b.left("e0", 1);
    assert_eq!(b.live(s(17.0)).count(), 0);
}

#[test]
fn our_own_name_from_another_process_is_noticed_and_not_counted() {
    let mut b = book(0);
    assert!(!b.hear(s(10.0), report("me", 1, 1, 10.0)));
    assert!(!b.double(s(10.0)), "an echo of ours");
    assert!(!b.hear(s(10.0), report("me", 2, 1, 10.0)));
    assert!(b.double(s(10.0)) && !b.double(s(21.0)));
    assert_eq!(b.live(s(10.0)).count(), 0);
}

#[test]
fn a_quorum_is_more_than_half_of_those_known() {
    let mut b = book(4);
    b.hear(s(20.0), report("e0", 1, 2, 1.0));
    assert!(!b.quorum(s(20.0)), "two of five");
    b.hear(s(20.0), report("e1", 1, 2, 1.0));
    assert!(b.quorum(s(20.0)), "three of five");
    b.link(s(20.0), false);
    assert!(!b.quorum(s(20.0)), "without a link there is none");
}

#[test]
fn capacity_stays_divided_while_the_link_is_away_and_a_lease_longer() {
    let mut b = book(4);
    assert_eq!(b.sharers(s(12.0)), 5);
    b.link(s(12.0), false);
    assert_eq!(b.sharers(s(3600.0)), 5, "an hour later nobody has proved to be gone");
    b.link(s(3600.0), true);
    assert_eq!(b.sharers(s(3604.9)), 5);
    for i in 0..4 {
        b.hear(s(3602.0), report(&format!("e{i}"), 1, 2, 10.0));
    }
    b.prune(s(3606.0));
    assert_eq!(b.sharers(s(3606.0)), 5);
    assert_eq!(b.sharers(s(3608.0)), 5, "none of them live: no quorum, so they go on being counted");
    assert_eq!(b.sharers(s(3663.0)), 1, "but not for ever");
}

#[test]
fn a_minority_takes_no_more_than_before_and_a_majority_does() {
    let mut b = book(4);
    b.hear(s(20.0), report("e0", 1, 2, 10.0));
    assert_eq!(b.sharers(s(20.0)), 5, "two of five");
    b.hear(s(20.0), report("e1", 1, 2, 10.0));
    assert_eq!(b.sharers(s(20.0)), 3, "three of five");
}

#[test]
fn what_was_remembered_counts_until_there_was_a_link_for_a_lease() {
    let mut b = Book::new("me", LEASE, s(1.0));
    b.remember(5);
    assert_eq!(b.sharers(s(60.0)), 5);
    assert!((b.portion(s(60.0), "app") - 0.2).abs() < 1e-9);
    b.link(s(60.0), true);
    b.prune(s(64.0));
    assert_eq!(b.sharers(s(64.0)), 5);
    b.prune(s(66.0));
    assert_eq!(b.sharers(s(66.0)), 1);
}

proptest! {
    /// All edges reckon with the same numbers: their parts add up to one, and nobody is left without.
    #[test]
    fn parts_add_up_to_one(demands in prop::collection::vec(0.0f64..1e6, 1..30)) {
        let n = demands.len();
        let mut sum = 0.0;
        for me in 0..n {
            let mut b = Book::new(&format!("e{me}"), LEASE, s(1.0));
            b.link(s(1.0), true);
            for (i, d) in demands.iter().enumerate() {
                let r = report(&format!("e{i}"), 1, 1, *d);
                if i == me { b.said(r) } else { b.hear(s(10.0), r); }
            }
            let part = b.portion(s(10.0), "app");
            prop_assert!(part >= PLACE / (1.0 + PLACE) / n as f64 - 1e-12, "{part}");
            sum += part;
        }
        prop_assert!((sum - 1.0).abs() < 1e-9, "{sum}");
    }
}
