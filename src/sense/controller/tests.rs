//! The controller in a small world: what each kind of fault leads to, and how soon.

use super::*;
use crate::model::signal::Order;
use crate::sense::test_world::{Fault, World, topology};

const EAST: usize = 0;
const WEST: usize = 1;
const EU: usize = 2;

#[test]
fn health_moves_nothing() {
    let mut w = World::exam(1);
    w.run(20_000);
    assert_eq!(w.trips(), Vec::<String>::new());
    assert!(w.refused.is_empty() && w.failed.is_empty());
    assert_eq!(w.sent[WEST] + w.sent[EU], 0);
}

#[test]
fn a_black_hole_is_suspect_within_60_ms_and_trips_within_400() {
    let mut w = World::exam(2);
    w.faults[EAST] = Fault::Silent;
    let suspect = w.until(1000, |w| w.view(EAST).suspect);
    assert!(suspect.is_some_and(|ms| ms <= 60), "{suspect:?}");
    let tripped = w.until(1000, |w| w.state(EAST) == State::Tripped);
    assert!(tripped.is_some_and(|ms| ms <= 400), "{tripped:?}");
    assert!(w.view(EAST).dead);
    w.run(8_000);
    assert_eq!(w.trips().len(), 1, "{:?}", w.trips());
    // Only writes that were in flight are lost.
    assert!(w.failed.len() <= 3 && w.refused.is_empty(), "{:?} {:?}", w.failed, w.refused);
}

#[test]
fn refused_connections_trip_soon_and_lose_nothing() {
    let mut w = World::exam(3);
    w.faults[EAST] = Fault::Refuses;
    let tripped = w.until(1000, |w| w.state(EAST) == State::Tripped);
    assert!(tripped.is_some_and(|ms| ms <= 200), "{tripped:?}");
    w.run(5_000);
    assert!(w.failed.is_empty() && w.refused.is_empty(), "{:?} {:?}", w.failed, w.refused);
}

#[test]
fn half_of_the_answers_failing_trips_within_400_ms() {
    let mut w = World::exam(4);
    w.faults[EAST] = Fault::Errors(0.6);
    let tripped = w.until(2000, |w| w.state(EAST) == State::Tripped);
    assert!(tripped.is_some_and(|ms| ms <= 400), "{tripped:?}");
    assert!(!w.view(EAST).dead, "sick, not dead");
}

#[test]
fn one_in_ten_hanging_trips_within_a_second() {
    let mut w = World::exam(5);
    w.faults[EAST] = Fault::Hangs(0.1);
    let avoided = w.until(3000, |w| w.view(EAST).suspect || w.state(EAST) == State::Tripped);
    assert!(avoided.is_some_and(|ms| ms <= 1_600), "{avoided:?}");
    w.until(3000, |w| w.state(EAST) == State::Tripped).expect("it trips");
}

#[test]
fn probes_that_fail_everywhere_move_nothing_while_requests_succeed() {
    let mut w = World::exam(6);
    w.faults = vec![Fault::BadProbes; 3];
    w.run(10_000);
    let picture = w.c.picture();
    assert!(picture.pools.iter().all(|p| p.open()), "{:?}", picture.pools);
    assert_eq!(picture.tables[0].order.len(), 3);
    w.faults = vec![Fault::None; 3];
    w.run(5_000);
    assert_eq!(w.trips(), Vec::<String>::new());
}

#[test]
fn a_bad_request_that_fails_everywhere_trips_nothing() {
    let mut w = World::exam(7);
    w.poison = 0.7;
    w.run(15_000);
    assert_eq!(w.trips(), Vec::<String>::new());
    assert!(w.failed.is_empty());
}

#[test]
fn when_everything_goes_dark_answers_come_at_once_and_states_are_held() {
    let mut w = World::exam(8);
    w.faults = vec![Fault::Silent; 3];
    let closed = w.until(2000, |w| w.c.picture().tables.iter().all(|t| t.slots.is_empty()));
    assert!(closed.is_some_and(|ms| ms <= 500), "{closed:?}");
    w.run(7_000);
    assert!(w.c.picture().edge_suspect);
    assert_eq!(w.trips(), Vec::<String>::new());
    w.faults = vec![Fault::None; 3];
    let open = w.until(2000, |w| w.c.picture().tables.iter().all(|t| !t.slots.is_empty()));
    assert!(open.is_some_and(|ms| ms <= 300), "{open:?}");
    w.run(3_000);
    assert!(!w.c.picture().edge_suspect);
    assert!(w.refused.iter().all(|at| *at < w.now - 2_500), "nothing is refused after that");
    w.run(10_000);
    assert_eq!(w.trips(), Vec::<String>::new(), "nor by the one that is heard first");
}

#[test]
fn when_both_lawful_regions_die_the_rest_is_refused_and_comes_back_with_them() {
    let mut w = World::exam(9);
    w.faults[EAST] = Fault::Refuses;
    w.faults[WEST] = Fault::Refuses;
    w.run(1_000);
    let picture = w.c.picture();
    assert!(picture.tables[1].slots.is_empty(), "{:?}", picture.tables[1]);
    assert_eq!(picture.tables[1].closed, Some(crate::model::view::Closed::Residency));
    assert_eq!(picture.tables[0].slots.len(), 1);
    w.run(8_000);
    w.faults = vec![Fault::None; 3];
    let open = w.until(3000, |w| !w.c.picture().tables[1].slots.is_empty());
    assert!(open.is_some_and(|ms| ms <= 500), "{open:?}");
}

#[test]
fn a_flapping_region_costs_one_trip() {
    let mut w = World::exam(10);
    for _ in 0..6 {
        w.faults[EAST] = Fault::Refuses;
        w.run(2_000);
        w.faults[EAST] = Fault::None;
        w.run(2_000);
    }
    assert_eq!(w.trips().len(), 1, "{:?}", w.trips());
    assert!(w.failed.is_empty() && w.refused.is_empty());
}

#[test]
fn the_way_back_is_hold_trial_and_every_step() {
    let mut w = World::exam(11);
    w.faults[EAST] = Fault::Refuses;
    w.run(3_000);
    w.faults[EAST] = Fault::None;
    let healed = w.now;
    let serving = w.until(90_000, |w| w.state(EAST) == State::Serving).expect("it comes back");
    assert!(serving >= 5_000 + 4 * 10_000, "{serving}");
    let states: Vec<String> = w.trips().iter().map(|t| t.split(' ').nth(2).unwrap().to_string()).collect();
    assert_eq!(states, ["serving->tripped", "tripped->trial", "trial->ramping", "ramping->serving"]);
    let trial: u64 = w.trips()[1].split(' ').next().unwrap().parse().unwrap();
    assert!(trial >= healed + 5_000, "good evidence held for five seconds: {trial} after {healed}");
    let steps = w.events.iter().filter(|e| matches!(&e.kind, EventKind::Pool { cause: Cause::Step { .. }, .. })).count();
    assert_eq!(steps, 4, "1 -> 5 -> 25 -> 50 -> 100 %");
    assert!(w.failed.is_empty() && w.refused.is_empty());
}

#[test]
fn a_region_that_is_still_sick_relapses_and_stays_open_longer() {
    let mut w = World::exam(12);
    w.faults[EAST] = Fault::Errors(0.9);
    w.run(60_000);
    let trips = w.trips();
    let tripped: Vec<u64> =
        trips.iter().filter(|t| t.contains("->tripped")).map(|t| t.split(' ').next().unwrap().parse().unwrap()).collect();
    assert!(tripped.len() >= 3, "{trips:?}");
    let gaps: Vec<u64> = tripped.windows(2).map(|w| w[1] - w[0]).collect();
    assert!(gaps.windows(2).all(|g| g[1] > g[0] * 3 / 2), "{gaps:?}");
}

#[test]
fn pauses_bursts_and_our_own_stalls_trip_nothing() {
    let mut w = World::new(&[("east", 1, 60), ("west", 1, 40)], &[5, 33], 13);
    let mut dice = Dice::new(99);
    for s in 0..300u32 {
        w.rate = if s % 20 < 2 { 1_200.0 } else { 300.0 };
        if dice.chance(0.3) {
            let region = dice.below(2) as usize;
            w.pause[region] = w.now + dice.below(200);
        }
        if dice.chance(0.1) {
            w.stalled = w.now + dice.below(400);
        }
        w.run(1_000);
    }
    assert_eq!(w.trips(), Vec::<String>::new());
    assert!(w.refused.is_empty(), "{:?}", w.refused);
}

#[test]
fn a_single_region_is_held_and_closed_while_it_is_silent() {
    let mut w = World::new(&[("only", 1, 100)], &[5], 14);
    w.run(3_000);
    w.pause[0] = w.now + 200;
    w.run(1_000);
    assert!(w.refused.is_empty(), "a pause refuses nothing: there is nowhere better");
    w.faults[0] = Fault::Silent;
    let closed = w.until(1000, |w| w.c.picture().tables[0].slots.is_empty());
    assert!(closed.is_some_and(|ms| ms <= 400), "{closed:?}");
    w.run(3_000);
    w.faults[0] = Fault::None;
    let open = w.until(1000, |w| !w.c.picture().tables[0].slots.is_empty());
    assert!(open.is_some_and(|ms| ms <= 300), "{open:?}");
    assert_eq!(w.trips(), Vec::<String>::new());
}

#[test]
fn a_dead_standby_is_known_and_comes_back_warm() {
    let mut w = World::exam(15);
    w.faults[WEST] = Fault::Refuses;
    w.run(4_000);
    assert!(!w.view(WEST).open());
    assert_eq!(w.c.picture().tables[0].order.last(), Some(&PoolIx(2)));
    w.faults[WEST] = Fault::None;
    w.run(25_000);
    assert!(w.view(WEST).open(), "{:?}", w.trips());
    assert!(w.failed.is_empty());
}

#[test]
fn the_operator_has_the_last_word() {
    let mut w = World::exam(16);
    w.command(Order::Trip { pool: PoolIx(0), reason: "maintenance".into() }).unwrap();
    assert!(w.command(Order::Trip { pool: PoolIx(0), reason: "again".into() }).is_err());
    w.run(60_000);
    assert_eq!(w.state(EAST), State::Tripped, "it stays out, however healthy");
    w.command(Order::Reset { pool: PoolIx(0) }).unwrap();
    assert_eq!(w.state(EAST), State::Serving);
    w.command(Order::Freeze { on: true }).unwrap();
    w.faults[EAST] = Fault::Errors(1.0);
    w.run(3_000);
    assert_eq!(w.state(EAST), State::Serving, "held");
    assert!(!w.view(EAST).suspect);
    w.command(Order::Freeze { on: false }).unwrap();
    w.run(1_000);
    assert_eq!(w.state(EAST), State::Tripped);
}

#[test]
fn a_drain_fades_lasts_and_ends() {
    let mut w = World::new(&[("east", 1, 50), ("west", 1, 50), ("eu", 2, 50)], &[5, 5, 83], 17);
    w.run(2_000);
    let second = Duration::from_secs(1);
    let drain = Order::Drain { region: RegionIx(0), reason: "drill".into(), over: 10 * second, lasting: Some(30 * second) };
    w.command(drain).unwrap();
    w.run(5_000);
    let share = w.view(EAST).share;
    assert!((0.2..0.3).contains(&share), "half of its half: {share}");
    w.run(5_100);
    assert!(w.view(EAST).drained);
    let sent = w.sent[EAST];
    w.run(10_000);
    assert_eq!(w.sent[EAST], sent, "nothing, not even one");
    w.run(10_000);
    assert!(!w.view(EAST).drained);
    assert!((0.4..0.6).contains(&w.view(EAST).share), "at once, for it is warm");
    assert!(w.failed.is_empty() && w.refused.is_empty());
}

#[test]
fn a_recalled_region_is_back_at_once_and_a_second_drain_brings_nothing_back() {
    let mut w = World::new(&[("east", 1, 50), ("west", 1, 50)], &[5, 5], 19);
    w.run(2_000);
    let second = Duration::from_secs(1);
    let drain = |over| Order::Drain { region: RegionIx(0), reason: "drill".into(), over, lasting: None };
    w.command(drain(10 * second)).unwrap();
    w.run(5_000);
    let before = w.view(EAST).share;
    w.command(drain(20 * second)).unwrap();
    w.run(500);
    assert!(w.view(EAST).share <= before + 0.01, "{} after {before}", w.view(EAST).share);
    // Longer away than `warm`.
    w.run(80_000);
    assert!(w.view(EAST).drained);
    w.command(Order::Recall { region: RegionIx(0) }).unwrap();
    assert_eq!(w.view(EAST).state, State::Serving);
    assert!(w.view(EAST).share > 0.4, "{}", w.view(EAST).share);
    assert!(w.command(Order::Recall { region: RegionIx(0) }).is_err());
}

#[test]
fn observe_tells_and_moves_nothing() {
    let mut t = topology(&[("east", 1, 100), ("west", 2, 100)]);
    t.services[0].failover.mode = Mode::Observe;
    let mut w = World::of(t, &[5, 33], 18);
    w.run(3_000);
    w.faults[EAST] = Fault::Refuses;
    w.run(3_000);
    assert_eq!(w.trips().len(), 1, "{:?}", w.trips());
    assert_eq!(w.view(EAST).state, State::Serving);
    assert_eq!(w.c.picture().tables[0].slots[0].pool, PoolIx(0));
}

#[test]
fn a_region_event_follows_its_pools() {
    let mut w = World::exam(19);
    w.faults[EAST] = Fault::Refuses;
    w.run(1_000);
    let of = |e: &Event| matches!(&e.kind, EventKind::Region { region, to: State::Tripped, .. } if region == "east");
    assert_eq!(w.events.iter().filter(|e| of(e)).count(), 1);
    assert_eq!(w.c.status(Moment::ms(w.now)).regions[0].state, State::Tripped);
}

#[test]
fn the_same_seed_gives_the_same_events() {
    let run = || {
        let mut w = World::exam(20);
        w.faults[EAST] = Fault::Errors(0.7);
        w.run(20_000);
        w.faults[WEST] = Fault::Silent;
        w.run(10_000);
        (w.events, w.good)
    };
    assert_eq!(run(), run());
}

#[test]
fn a_reload_carries_states_over_and_says_what_changed() {
    let mut w = World::exam(21);
    w.faults[EAST] = Fault::Refuses;
    w.run(1_000);
    assert_eq!(w.state(EAST), State::Tripped);
    let mut t = topology(&[("north", 1, 10), ("east", 1, 70), ("west", 2, 100), ("eu", 3, 100)]);
    t.services[0].connect_timeout = Duration::from_millis(100);
    let lines = w.c.handle(Moment::ms(w.now), Signal::Reload(crate::sense::test_world::compiled(2, t), Actor::File)).unwrap();
    assert!(lines.contains(&"region north added".to_string()), "{lines:?}");
    assert!(lines.contains(&"region east: weight 100 -> 70".to_string()), "{lines:?}");
    let picture = w.c.picture();
    assert_eq!(picture.pools[1].state, State::Tripped, "east by name");
    assert_eq!(picture.pools[0].state, State::Serving);
    assert_eq!(picture.config.generation, 2);
}

#[test]
fn weights_take_effect_with_the_reload() {
    let mut w = World::new(&[("east", 1, 100), ("west", 1, 0), ("eu", 1, 0)], &[5, 5, 83], 22);
    w.run(2_000);
    assert_eq!(w.sent[WEST], 0);
    let t = topology(&[("east", 1, 0), ("west", 1, 100), ("eu", 1, 0)]);
    w.c.handle(Moment::ms(w.now), Signal::Reload(crate::sense::test_world::compiled(2, t), Actor::File)).unwrap();
    let sent = w.sent.clone();
    w.run(1_000);
    assert_eq!(w.sent[EAST], sent[EAST]);
    assert!(w.sent[WEST] > 250);
}

#[test]
fn while_survivors_are_full_a_region_that_seems_well_takes_the_rest() {
    let mut t = topology(&[("east", 1, 100), ("west", 2, 100), ("eu", 3, 100)]);
    // Survivors that can carry a third of the load.
    (t.pools[1].max_inflight, t.pools[2].max_inflight) = (Some(1), Some(1));
    let mut w = World::of(t, &[5, 60, 60], 24);
    w.run(3_000);
    w.faults[EAST] = Fault::Refuses;
    w.run(3_000);
    assert!(w.refused.len() > 300, "{}", w.refused.len());
    w.faults[EAST] = Fault::None;
    w.run(1_000);
    assert_eq!(w.state(EAST), State::Tripped, "it is held");
    assert_eq!(w.view(EAST).limit, 4);
    let refused = w.refused.len();
    w.run(1_000);
    assert!(w.refused.len() - refused < 10, "{}", w.refused.len() - refused);
}

#[test]
fn a_region_that_was_silent_comes_back_all_the_way() {
    let mut w = World::exam(23);
    w.faults[EAST] = Fault::Silent;
    w.run(3_000);
    w.faults[EAST] = Fault::None;
    w.until(90_000, |w| w.state(EAST) == State::Serving).expect("it comes back");
    w.run(1_000);
    assert!(w.view(EAST).open() && w.view(EAST).share == 1.0);
    assert_eq!(w.trips().len(), 4, "{:?}", w.trips());
}

/// An hour of health in six worlds of ten minutes: bursts of four times the rate, pauses of regions and of
/// endpoints up to 200 ms, an endpoint that is slow by nature, stolen CPU of ours up to 400 ms.
#[test]
fn an_hour_of_health_trips_and_refuses_nothing() {
    for seed in 0..6 {
        let regions: &[(&str, u32, u32)] = match seed % 3 {
            0 => &[("east", 1, 60), ("west", 1, 40), ("eu", 2, 10)],
            1 => &[("east", 1, 60), ("west", 2, 40), ("eu", 3, 10)],
            _ => &[("east", 1, 60)],
        };
        let mut w = World::new(regions, &[5, 33, 83][..regions.len()], seed);
        let mut dice = Dice::new(seed);
        w.drag[1] = 60;
        w.run(1_000);
        for second in 0..600u32 {
            w.rate = if second % 20 < 2 { 1_200.0 } else { 300.0 };
            if dice.chance(0.3) {
                let region = dice.below(regions.len() as u64) as usize;
                w.pause[region] = w.now + dice.below(200);
            }
            if dice.chance(0.1) {
                w.stalled = w.now + dice.below(400);
            }
            for _ in 0..10 {
                for nap in &mut w.nap {
                    if dice.chance(0.02) {
                        *nap = w.now + dice.below(200);
                    }
                }
                w.run(100);
            }
        }
        assert_eq!((w.trips(), w.refused.len()), (vec![], 0), "seed {seed}");
    }
}

/// Any faults, in any order, for two minutes: what must hold at every moment.
#[test]
fn whatever_happens_the_picture_is_sound() {
    const FAULTS: [Fault; 9] = [
        Fault::None,
        Fault::None,
        Fault::Silent,
        Fault::Refuses,
        Fault::Errors(0.6),
        Fault::Errors(0.2),
        Fault::Hangs(0.1),
        Fault::BadProbes,
        Fault::Slow(300),
    ];
    for seed in 0..20 {
        let mut w = World::new(&[("east", 1, 60), ("west", 1, 40), ("eu", 2, 10)], &[5, 33, 83], seed);
        let mut dice = Dice::new(seed);
        let mut states = [State::Serving; 3];
        let mut moves = 0;
        while w.now < 120_000 {
            let region = dice.below(3) as usize;
            w.faults[region] = FAULTS[dice.below(FAULTS.len() as u64) as usize];
            let until = w.now + dice.below(4_000);
            while w.now < until {
                w.run(1);
                let picture = w.c.picture();
                for (p, seen) in states.iter_mut().enumerate() {
                    moves += u32::from(*seen != picture.pools[p].state);
                    *seen = picture.pools[p].state;
                }
                for table in &picture.tables {
                    assert_eq!(table.slots.is_empty(), table.closed.is_some());
                    assert!(table.slots.last().is_none_or(|s| s.upto == u64::MAX));
                    let open = |p: &PoolIx| picture.pools[p.at()].open() && !picture.pools[p.at()].suspect;
                    let any_open = table.order.iter().any(open);
                    let sound = |s: &crate::model::view::Slot| open(&s.pool) || !any_open;
                    assert!(table.slots.iter().all(sound), "{seed} {table:?} {:?}", picture.pools);
                    assert!(!table.order.iter().any(|p| picture.pools[p.at()].dead));
                }
                assert!(!picture.tables[1].order.contains(&PoolIx(2)), "residency");
            }
        }
        assert_eq!(w.trips().len() as u32, moves, "every transition has one event: {:#?}", w.trips());
        // Two minutes hold at most one trip per pool and open time (at least 4.5 s), and what leads back from it.
        assert!(moves <= 3 * 4 * 12, "{seed}: {moves}");
    }
}
