use super::*;
use crate::model::view::State;
use crate::steer::fake::*;
use proptest::prelude::*;

const THREE: [(&str, &str, u32); 3] = [("east", "us", 60), ("west", "us", 40), ("eu", "eu", 0)];

fn want(route: RouteIx) -> Want<'static> {
    Want {
        route,
        priority: Priority::Normal,
        may_try: true,
        first: true,
        tried: &[],
        prefer: None,
        affinity: None,
        avoid: RegionSet::EMPTY,
        least: Level::Ejected,
    }
}

fn pick(v: &View, live: &Now, w: &Want<'_>) -> Result<Pick, Refusal> {
    choose(v, live, w, T0, &mut Dice::new(7))
}

fn pools(v: &View, live: &Now, w: &Want<'_>, n: usize) -> Vec<u32> {
    let mut dice = Dice::new(7);
    let mut counts = vec![0; v.pools.len()];
    for _ in 0..n {
        counts[choose(v, live, w, T0, &mut dice).unwrap().pool.at()] += 1;
    }
    counts
}

proptest! {
    #[test]
    fn any_thousand_first_attempts_are_within_ten_of_the_shares(
        weights in prop::collection::vec(0u32..1000, 1..20),
        start in any::<u64>(),
    ) {
        prop_assume!(weights.iter().any(|w| *w > 0));
        let names: Vec<_> = weights.iter().map(|w| ("r", "us", *w)).collect();
        let v = view(topology(&names, 1));
        let mut counts = vec![0f64; weights.len()];
        for n in 0..1000 {
            counts[slot(&v.tables[0].slots, point(start.wrapping_add(n))).unwrap().at()] += 1.0;
        }
        let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
        for (count, weight) in counts.iter().zip(&weights) {
            let share = 1000.0 * f64::from(*weight) / total;
            prop_assert!((count - share).abs() <= 10.0, "{count} instead of {share:.1}");
        }
    }

    /// Whatever the state of the world: never outside residency, never drained, never dead, never above a limit,
    /// never twice at the same endpoint, never a write as a trial; and a refusal only when no such place exists.
    #[test]
    fn what_must_hold_on_every_path(
        seed in any::<u64>(),
        states in prop::collection::vec((0usize..4, any::<bool>(), prop::bool::weighted(0.2), prop::bool::weighted(0.2), 0u32..6), 5),
        inflight in prop::collection::vec(0u32..4, 10),
        out in prop::collection::vec(any::<bool>(), 10),
        quiet in prop::collection::vec(0u64..100, 10),
        flags in any::<[bool; 4]>(),
        avoid in 0u32..32,
        max in prop::option::of(1u32..4),
    ) {
        let [us, safe, first, token] = flags;
        let mut t = topology(&[("a", "us", 5), ("b", "eu", 3), ("c", "us", 0), ("d", "us", 1), ("e", "eu", 1)], 2);
        t.pools.iter_mut().for_each(|p| p.max_inflight = max);
        let mut v = view(t);
        for (p, (state, suspect, drained, dead, limit)) in v.pools.iter_mut().zip(&states) {
            (p.state, p.suspect, p.drained, p.dead, p.limit) = (State::ALL[*state], *suspect, *drained, *dead, *limit);
        }
        share_out(&mut v);
        let live = Now::new(&v);
        *live.inflight.borrow_mut() = inflight.clone();
        *live.out.borrow_mut() = out;
        *live.quiet.borrow_mut() = quiet.into_iter().map(ms).collect();
        live.trials.borrow_mut().fill(u32::from(token));
        let tried = [EndpointIx(0), EndpointIx(3)];
        let route = if us { US } else { ANY };
        let w = Want { may_try: safe, first, tried: &tried, avoid: RegionSet(avoid.into()), ..want(route) };
        let result = choose(&v, &live, &w, T0, &mut Dice::new(seed));
        let t = v.topology();
        let table = &v.tables[t.routes[route.at()].table.at()];
        let room = |p: PoolIx, e: EndpointIx| live.pool_inflight(p) < threshold(v.pools[p.at()].limit, v.pools[p.at()].reserve, w.priority)
            && max.is_none_or(|m| inflight[e.at()] < m) && !tried.contains(&e);
        match result {
            Ok(pick) => {
                let (pool, p) = (&t.pools[pick.pool.at()], &v.pools[pick.pool.at()]);
                prop_assert!(pool.endpoints().any(|e| e == pick.endpoint));
                prop_assert!(t.routes[route.at()].allowed.has(pool.region));
                prop_assert!(!p.drained);
                prop_assert!(!tried.contains(&pick.endpoint));
                if pick.trial {
                    prop_assert!(safe && token && p.state == State::Trial);
                } else {
                    prop_assert!(p.open());
                    prop_assert!(room(pick.pool, pick.endpoint));
                }
            }
            Err(_) => for pool in &table.order {
                for e in t.pools[pool.at()].endpoints() {
                    prop_assert!(!room(*pool, e), "refused though {} has room at {e:?}", t.pools[pool.at()].name);
                }
            }
        }
    }
}

#[test]
fn first_attempts_follow_the_shares_and_leave_standbys_alone() {
    let v = view(topology(&THREE, 2));
    let counts = pools(&v, &Now::new(&v), &want(ANY), 1000);
    assert!(counts[0].abs_diff(600) <= 10 && counts[1].abs_diff(400) <= 10, "{counts:?}");
    assert_eq!(counts[2], 0);
}

#[test]
fn a_full_pool_spills_by_share_then_to_standbys_then_sheds() {
    let four = [("east", "us", 50), ("west", "us", 30), ("south", "us", 10), ("eu", "eu", 0)];
    let v = view(topology(&four, 1));
    let live = Now::new(&v);
    live.inflight.borrow_mut()[0] = 90; // of 100: the limit for normal traffic
    let counts = pools(&v, &live, &want(ANY), 900);
    assert_eq!((counts[0], counts[3]), (0, 0));
    assert!(counts[1].abs_diff(675) < 40, "spilled 3 : 1 like the shares: {counts:?}");
    live.inflight.borrow_mut()[1] = 90;
    live.inflight.borrow_mut()[2] = 90;
    assert_eq!(pools(&v, &live, &want(ANY), 10)[3], 10);
    assert_eq!(pick(&v, &live, &want(US)), Err(Refusal::Shed), "full, and residency forbids the standby");
    live.inflight.borrow_mut()[3] = 90;
    assert_eq!(pick(&v, &live, &want(ANY)), Err(Refusal::Shed));
    assert!(pick(&v, &live, &Want { priority: Priority::Critical, ..want(ANY) }).is_ok());
}

#[test]
fn thresholds_keep_the_order_of_priorities_and_let_normal_traffic_through_small_limits() {
    use Priority::*;
    assert_eq!([Sheddable, Normal, Critical].map(|p| threshold(100, Reserve::default(), p)), [75, 90, 100]);
    assert_eq!([Sheddable, Normal, Critical].map(|p| threshold(4, Reserve::default(), p)), [3, 4, 4]);
    assert_eq!([Sheddable, Normal, Critical].map(|p| threshold(1, Reserve::default(), p)), [1, 1, 1]);
    assert_eq!([Sheddable, Normal, Critical].map(|p| threshold(0, Reserve::default(), p)), [0, 0, 0]);
    let kept = |critical, normal| move |p| threshold(100, Reserve { critical, normal, bound: 0 }, p);
    assert_eq!([Sheddable, Normal, Critical].map(kept(10, 25)), [75, 90, 100], "no deeper than it is anyway");
    assert_eq!([Sheddable, Normal, Critical].map(kept(11, 26)), [74, 89, 100]);
    assert_eq!([Sheddable, Normal, Critical].map(kept(40, 26)), [60, 60, 100], "who is kept from normal ones is kept from sheddable ones");
    assert_eq!([Sheddable, Normal, Critical].map(kept(100, 100)), [1, 1, 100], "an idle pool refuses nobody");
    for (limit, deep) in (0..2000).flat_map(|limit| [(limit, 0), (limit, limit / 3), (limit, 2 * limit)]) {
        let [s, n, c] = [Sheddable, Normal, Critical].map(|p| threshold(limit, Reserve { critical: deep, normal: deep, bound: deep }, p));
        assert!(s <= n && n <= c && c == limit && (limit == 0 || s > 0));
    }
}

#[test]
fn suspect_pools_get_nothing_new_while_another_can_take_it() {
    let mut v = view(topology(&THREE, 2));
    let live = Now::new(&v);
    set(&mut v, 0, |p| p.suspect = true);
    assert_eq!(pools(&v, &live, &want(ANY), 100)[0], 0);
    set(&mut v, 1, |p| p.suspect = true);
    assert_eq!(pools(&v, &live, &want(ANY), 100)[2], 100, "a standby that is well goes before a suspect");
    assert!(pick(&v, &live, &want(US)).is_ok(), "all allowed ones suspect: doubt is not proof");
}

#[test]
fn ejected_endpoints_are_the_last_resort_and_dead_pools_none() {
    let mut v = view(topology(&THREE, 1));
    let live = Now::new(&v);
    live.out.borrow_mut()[0] = true;
    assert_eq!(pools(&v, &live, &want(ANY), 100)[0], 0, "all endpoints of the pool out: the next pool");
    live.out.borrow_mut().fill(true);
    assert!(pick(&v, &live, &want(ANY)).is_ok());
    set(&mut v, 0, |p| p.dead = true);
    set(&mut v, 1, |p| p.dead = true);
    assert_eq!(pick(&v, &live, &want(US)), Err(Refusal::Residency));
    set(&mut v, 2, |p| p.dead = true);
    assert_eq!(pick(&v, &live, &want(US)), Err(Refusal::NoRegion));
}

#[test]
fn quiet_endpoints_are_passed_over_beyond_the_floor_and_not_at_it() {
    let v = view(topology(&[("east", "us", 1), ("west", "us", 0)], 2));
    let live = Now::new(&v).paced(1);
    let used = |quiet: u64| {
        live.quiet.borrow_mut()[0] = ms(quiet);
        let mut dice = Dice::new(1);
        (0..100).any(|_| choose(&v, &live, &want(ANY), T0, &mut dice).unwrap().endpoint == EndpointIx(0))
    };
    assert!(used(30));
    assert!(!used(31));
    live.quiet.borrow_mut()[1] = ms(31);
    assert!(used(31), "all quiet: any of them, and not another region");
}

#[test]
fn the_less_loaded_of_two_is_taken_and_a_slow_one_is_seen_again() {
    let v = view(topology(&THREE[..1], 2));
    let live = Now::new(&v);
    let share = |live: &Now| {
        let mut dice = Dice::new(1);
        (0..1000).filter(|_| choose(&v, live, &want(ANY), T0, &mut dice).unwrap().endpoint == EndpointIx(0)).count()
    };
    assert!(share(&live).abs_diff(500) < 60, "equals share alike");
    *live.inflight.borrow_mut() = vec![3, 2];
    assert!(share(&live) < 60);
    *live.latency.borrow_mut() = vec![1000, 2000];
    assert!(share(&live) > 940, "4 × 1 ms against 3 × 2 ms");
    *live.latency.borrow_mut() = vec![100_000, 1000];
    assert!((15..60).contains(&share(&live)), "now and then, to learn whether it is well again");
}

#[test]
fn trials_cost_a_token_and_are_never_writes() {
    let mut v = view(topology(&THREE, 2));
    let live = Now::new(&v);
    set(&mut v, 0, |p| p.state = State::Trial);
    live.trials.borrow_mut()[0] = 1;
    live.out.borrow_mut()[..2].fill(true);
    assert!(!pick(&v, &live, &Want { may_try: false, ..want(ANY) }).unwrap().trial);
    assert!(!pick(&v, &live, &Want { first: false, ..want(ANY) }).unwrap().trial, "a retry is no trial while others can take it");
    let trial = pick(&v, &live, &want(ANY)).unwrap();
    assert!(trial.trial && trial.pool == PoolIx(0), "ejected endpoints too: that is what a trial finds out");
    assert!(!pick(&v, &live, &want(ANY)).unwrap().trial, "the token is used");
}

#[test]
fn a_closed_table_has_room_for_trials_only() {
    let mut v = view(topology(&THREE, 1));
    let live = Now::new(&v);
    for pool in 0..3 {
        set(&mut v, pool, |p| (p.state, p.dead) = (State::Tripped, true));
    }
    assert_eq!(pick(&v, &live, &want(ANY)), Err(Refusal::NoRegion));
    set(&mut v, 1, |p| p.state = State::Trial);
    assert_eq!(pick(&v, &live, &want(ANY)), Err(Refusal::NoRegion), "no token");
    live.trials.borrow_mut()[1] = 1;
    assert_eq!(pick(&v, &live, &Want { may_try: false, ..want(ANY) }), Err(Refusal::NoRegion));
    assert!(pick(&v, &live, &Want { first: false, ..want(ANY) }).unwrap().trial);
}

proptest! {
    #[test]
    fn affinity_moves_only_the_clients_of_the_region_that_lost_its_share(key in any::<[u8; 8]>(), lost in 0u32..3, point in any::<u64>()) {
        let mut v = view(topology(&[("east", "us", 50), ("west", "us", 30), ("eu", "eu", 20)], 1));
        let live = Now::new(&v);
        live.points.borrow_mut()[0] = point;
        let w = Want { affinity: Some(affinity(&key)), ..want(ANY) };
        let before = pick(&v, &live, &w).unwrap().pool;
        prop_assert_eq!(pick(&v, &live, &w).unwrap().pool, before);
        set(&mut v, lost, |p| p.state = State::Tripped);
        let during = pick(&v, &live, &w).unwrap().pool;
        prop_assert_eq!(during == before, before != PoolIx(lost));
        set(&mut v, lost, |p| p.state = State::Serving);
        prop_assert_eq!(pick(&v, &live, &w).unwrap().pool, before);
    }
}

#[test]
fn affinity_keeps_the_shares() {
    let v = view(topology(&[("east", "us", 50), ("west", "us", 30), ("eu", "eu", 20)], 1));
    let live = Now::new(&v);
    let mut counts = [0i32; 3];
    for client in 0..10_000u32 {
        let w = Want { affinity: Some(affinity(format!("user-{client}").as_bytes())), ..want(ANY) };
        counts[pick(&v, &live, &w).unwrap().pool.at()] += 1;
    }
    assert!(counts.iter().zip([5000, 3000, 2000]).all(|(c, w)| (c - w).abs() < 200), "{counts:?}");
}

#[test]
fn what_is_bound_is_left_to_those_with_nowhere_else_to_go_while_there_is_room_elsewhere() {
    // `us` may use the first pool alone, `any` both.
    let t = topology(&[("east", "us", 100), ("eu", "eu", 0)], 2);
    let mut v = view(t);
    set(&mut v, 0, |p| (p.limit, p.reserve.bound) = (10, 4));
    set(&mut v, 1, |p| p.limit = 10);
    let pool = |live: &Now, route: RouteIx| {
        let want = Want { least: Level::Sound, ..want(route) };
        choose(&v, live, &want, T0, &mut Dice::new(1)).map(|pick| pick.pool.0)
    };
    let live = Now::new(&v);
    *live.inflight.borrow_mut() = vec![3, 2, 0, 0];
    assert_eq!((pool(&live, ANY), pool(&live, US)), (Ok(0), Ok(0)), "five of ten");
    live.inflight.borrow_mut()[1] = 3;
    assert_eq!((pool(&live, ANY), pool(&live, US)), (Ok(1), Ok(0)), "six of ten, and four are bound");
    *live.inflight.borrow_mut() = vec![3, 3, 5, 5];
    assert_eq!((pool(&live, ANY), pool(&live, US)), (Ok(0), Ok(0)), "nothing left elsewhere");
}
