use super::*;
use crate::steer::fake::*;

fn judged(n: u32, failures: u32, hard: bool, out: &[usize], ejections: u32) -> Option<Duration> {
    let v = view(topology(&[("east", "us", 1)], n));
    let live = Now::new(&v);
    out.iter().for_each(|i| live.out.borrow_mut()[*i] = true);
    judge(failures, hard, &Failover::default(), &v.topology().pools[0], &live, ejections, T0, &mut Dice::new(1))
}

#[test]
fn soft_at_five_and_hard_at_three() {
    assert_eq!(judged(3, 4, false, &[], 0), None);
    assert!(judged(3, 5, false, &[], 0).is_some());
    assert_eq!(judged(3, 2, true, &[], 0), None);
    assert!(judged(3, 3, true, &[], 0).is_some());
}

#[test]
fn soft_evidence_takes_half_of_a_pool_and_hard_all_of_it() {
    for (n, allowed) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)] {
        let out: Vec<_> = (0..allowed).collect();
        assert_eq!(judged(n, 5, false, &out, 0), None, "{n} endpoints, {allowed} out");
        assert_eq!(judged(n, 5, false, &out[..out.len().saturating_sub(1)], 0).is_some(), allowed > 0);
        assert!(judged(n, 5, true, &(0..n as usize).collect::<Vec<_>>(), 0).is_some());
    }
}

#[test]
fn the_time_doubles_up_to_the_bound() {
    let time = |ejections| judged(2, 5, true, &[], ejections).unwrap().as_secs_f64();
    for (ejections, base) in [(0, 5.0), (1, 10.0), (2, 20.0)] {
        assert!((base * 0.9..=base * 1.1).contains(&time(ejections)), "{ejections}: {}", time(ejections));
    }
    for ejections in [3, 7, 16, 17, 1000, u32::MAX] {
        assert!((27.0..=30.0).contains(&time(ejections)));
    }
}
