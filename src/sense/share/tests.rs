use super::*;
use crate::sense::test_world::topology;
use proptest::prelude::*;

fn wish(tier: u32, weight: u32) -> Wish {
    Wish { use_: Use::Open, weight, tier, step: 1.0, lean: 1.0, capacity: f64::INFINITY, trial: false }
}

/// Shares of the unrestricted table of three pools, at 100 requests per second.
fn shares(wishes: &[Wish]) -> Vec<f64> {
    let t = topology(&[("a", 1, 1), ("b", 1, 1), ("c", 1, 1)]);
    let (tables, _) = tables(&t, wishes, &[100.0, 0.0]);
    widths(&tables[0], 3)
}

fn widths(table: &TableView, n: usize) -> Vec<f64> {
    let mut out = vec![0.0; n];
    let mut from = 0.0;
    for s in &table.slots {
        let upto = s.upto as f64 / 2f64.powi(64);
        out[s.pool.at()] += upto - from;
        from = upto;
    }
    out
}

fn close(got: &[f64], want: &[f64]) -> bool {
    got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-6)
}

#[track_caller]
fn expect(wishes: &[Wish], want: &[f64]) {
    let got = shares(wishes);
    assert!(close(&got, want), "{got:?}, not {want:?}");
}

#[test]
fn by_weight_within_the_lowest_tier() {
    expect(&[wish(1, 60), wish(1, 40), wish(2, 100)], &[0.6, 0.4, 0.0]);
}

#[test]
fn weight_nought_stands_behind_every_tier() {
    expect(&[wish(1, 0), wish(1, 0), wish(9, 1)], &[0.0, 0.0, 1.0]);
    let mut w = [wish(1, 0), wish(1, 0), wish(9, 1)];
    w[2].use_ = Use::Dead;
    expect(&w, &[0.5, 0.5, 0.0]);
}

#[test]
fn what_is_over_capacity_spills_by_weight_then_by_tier() {
    let mut w = [wish(1, 50), wish(1, 50), wish(2, 100)];
    w[0].capacity = 30.0;
    expect(&w, &[0.3, 0.7, 0.0]);
    w[1].capacity = 50.0;
    expect(&w, &[0.3, 0.5, 0.2]);
    w[2].capacity = 20.0;
    expect(&w, &[0.3, 0.5, 0.2]);
}

#[test]
fn over_all_capacity_it_is_shared_out_by_capacity() {
    let mut w = [wish(1, 50), wish(1, 50), wish(2, 100)];
    (w[0].capacity, w[1].capacity, w[2].capacity) = (10.0, 20.0, 20.0);
    expect(&w, &[0.2, 0.4, 0.4]);
}

#[test]
fn a_ramping_pool_gets_its_step_and_all_of_it_when_nobody_else_is_there() {
    let mut w = [wish(1, 50), wish(1, 50), wish(2, 100)];
    w[0].step = 0.1;
    expect(&w, &[0.05, 0.95, 0.0]);
    w[1].use_ = Use::Dead;
    expect(&w, &[0.1, 0.0, 0.9]);
    w[2].use_ = Use::Dead;
    expect(&w, &[1.0, 0.0, 0.0]);
}

#[test]
fn last_resorts_in_their_order() {
    let mut w = [wish(1, 50), wish(1, 50), wish(2, 100)];
    (w[0].use_, w[1].use_, w[2].use_) = (Use::Suspect, Use::Sick, Use::Open);
    expect(&w, &[0.0, 0.0, 1.0]);
    w[2].use_ = Use::Dead;
    expect(&w, &[1.0, 0.0, 0.0]);
    w[0].use_ = Use::Dead;
    expect(&w, &[0.0, 1.0, 0.0]);
    w[1].use_ = Use::Never;
    expect(&w, &[0.0, 0.0, 0.0]);
}

#[test]
fn the_order_is_slots_then_standbys_then_suspects() {
    let t = topology(&[("a", 1, 1), ("b", 1, 1), ("c", 1, 1)]);
    let mut w = [wish(2, 10), wish(1, 10), wish(1, 90)];
    let order = |w: &[Wish]| tables(&t, w, &[1.0, 0.0]).0[0].order.iter().map(|p| p.0).collect::<Vec<_>>();
    assert_eq!(order(&w), [2, 1, 0]);
    w[2].use_ = Use::Suspect;
    assert_eq!(order(&w), [1, 0, 2]);
    w[1].use_ = Use::Sick;
    assert_eq!(order(&w), [0, 2], "sick pools only where nothing else is left");
    w[1].use_ = Use::Spare;
    assert_eq!(order(&w), [0, 2, 1], "spare ones behind everybody");
}

#[test]
fn why_a_table_is_closed() {
    let t = topology(&[("a", 1, 1), ("b", 1, 1), ("eu", 1, 1)]);
    let mut w = [wish(1, 1), wish(1, 1), wish(1, 1)];
    (w[0].use_, w[1].use_) = (Use::Dead, Use::Dead);
    let (views, _) = tables(&t, &w, &[1.0, 1.0]);
    assert_eq!((views[0].closed, views[1].closed), (None, Some(Closed::Residency)));
    assert_eq!(views[1].trials.len(), 2);
    w[2].use_ = Use::Dead;
    let (views, _) = tables(&t, &w, &[1.0, 1.0]);
    assert_eq!((views[0].closed, views[1].closed), (Some(Closed::NoRegion), Some(Closed::NoRegion)));
}

#[test]
fn those_with_the_fewest_choices_choose_first() {
    let t = topology(&[("us", 1, 1), ("eu", 1, 1)]);
    let mut w = [wish(1, 1), wish(1, 1)];
    w[0].capacity = 50.0;
    // Fifty a second may use `us` only; fifty may use either, and leave `us` to them.
    let (views, _) = tables(&t, &w, &[50.0, 50.0]);
    assert!(close(&widths(&views[1], 2), &[1.0, 0.0]));
    assert!(close(&widths(&views[0], 2), &[0.0, 1.0]), "{:?}", widths(&views[0], 2));
}

prop_compose! {
    fn any_wish()(use_ in 0..6usize, weight in 0u32..5, tier in 1u32..4, step in 0usize..4, lean in 0usize..2, cap in 0usize..4) -> Wish {
        Wish {
            use_: [Use::Open, Use::Suspect, Use::Spare, Use::Sick, Use::Dead, Use::Never][use_],
            weight,
            tier,
            step: [0.01, 0.25, 1.0, 1.0][step],
            lean: [0.8, 1.0][lean],
            capacity: [10.0, 60.0, f64::INFINITY, f64::INFINITY][cap],
            trial: false,
        }
    }
}

proptest! {
    /// Shares sum to one or the table is closed; nobody who must not gets anything; nobody is over capacity
    /// while somebody open has room.
    #[test]
    fn invariants(wishes in prop::collection::vec(any_wish(), 3), rate in 0.0f64..200.0) {
        let t = topology(&[("a", 1, 1), ("b", 1, 1), ("c", 1, 1)]);
        let (views, shares) = tables(&t, &wishes, &[rate, 0.0]);
        for (table, n) in views.iter().zip([3, 2]) {
            let got = widths(table, 3);
            let sum: f64 = got.iter().sum();
            prop_assert_eq!(table.slots.is_empty(), table.closed.is_some());
            prop_assert!(table.slots.is_empty() || (sum - 1.0).abs() < 1e-9, "{}", sum);
            for (i, w) in wishes.iter().enumerate() {
                prop_assert!(w.use_ <= Use::Sick || got[i] == 0.0);
                prop_assert!(i < n || got[i] == 0.0, "residency");
                prop_assert!(got[i] == 0.0 || table.order.contains(&PoolIx::from(i)));
            }
            prop_assert!(table.slots.windows(2).all(|s| s[0].upto < s[1].upto));
            prop_assert!(table.order.iter().all(|p| wishes[p.at()].use_ <= Use::Sick));
        }
        let got = widths(&views[0], 3);
        let open = |i: &usize| wishes[*i].use_ == Use::Open;
        let over = (0..3).any(|i| got[i] * rate > wishes[i].capacity + 1e-6);
        let room = (0..3).filter(open).any(|i| got[i] * rate < wishes[i].capacity - 1e-2);
        prop_assert!(!(over && room), "{got:?} of {rate}");
        prop_assert!(shares.iter().sum::<f64>() < 1.0 + 1e-9);
    }
}
