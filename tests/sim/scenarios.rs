//! Named outages and the opposite: hours in which nothing may happen.

use super::checks::{self, trips};
use super::fixture;
use evenkeel::model::dice::Dice;
use evenkeel::model::id::*;
use evenkeel::model::time::{Duration, Moment};
use evenkeel::model::view::State;
use evenkeel::whatif::world::BEGIN;
use evenkeel::whatif::{Fate, Fault, Note, Script, Target, Trace, What, play};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}
fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}
fn fault(at: Duration, lasting: Duration, target: Target, what: What) -> Fault {
    Fault { at, lasting, target, what }
}
fn region(n: u32) -> Target {
    Target::Region(RegionIx(n))
}
fn played(script: &Script) -> Trace {
    let trace = play(script);
    let broken = checks::all(script, &trace);
    assert!(broken.is_empty(), "{:#?}", &broken[..broken.len().min(10)]);
    trace
}
/// Good answers as a part of all requests that ended in this stretch.
fn goodput(trace: &Trace, from: Duration, to: Duration) -> f64 {
    let (mut n, mut good) = (0.0f64, 0.0);
    for (at, _, fate, _) in trace.fates().filter(|(at, ..)| *at >= BEGIN + from && *at < BEGIN + to) {
        let _ = at;
        n += 1.0;
        good += f64::from(u8::from(fate.good()));
    }
    good / n.max(1.0)
}
fn first_trip(trace: &Trace) -> Option<Duration> {
    trips(trace).first().map(|(at, _)| at.since(BEGIN))
}

#[test]
fn a_healthy_hour_with_pauses_bursts_and_stolen_cpu_trips_nothing() {
    let mut dice = Dice::new(11);
    let mut script = fixture::three(11, secs(3600), 60.0);
    for i in 0..1200u64 {
        let at = ms(3_000 * i + dice.below(3_000));
        let endpoint = Target::Endpoint(EndpointIx(dice.below(15) as u32));
        let f = match dice.below(10) {
            0..=4 => fault(at, ms(20 + dice.below(181)), endpoint, What::Pause),
            5 => fault(at, ms(15 + dice.below(150)), Target::Everywhere, What::EdgeStalls),
            6 => fault(at, ms(500 + dice.below(3_000)), Target::Everywhere, What::Burst(4.0)),
            7 | 8 => fault(at, ms(1_000 + dice.below(20_000)), endpoint, What::Slow(1.5 + dice.unit() * 1.5)),
            _ => fault(at, ms(20 + dice.below(181)), region(dice.below(3) as u32), What::Pause),
        };
        script.faults.push(f);
    }
    let trace = played(&script);
    let trips = trips(&trace);
    assert!(trips.is_empty(), "{} trips, the first: {:?}", trips.len(), &trips[..trips.len().min(5)]);
    let refused: Vec<_> = trace.fates().filter(|(.., fate, _)| matches!(fate, Fate::Degraded(_))).take(5).collect();
    assert!(refused.is_empty(), "refused in a healthy hour: {refused:?}");
}

#[test]
fn a_bad_request_that_fails_everywhere_changes_no_state() {
    for part in [0.05, 0.3, 0.7, 1.0] {
        let mut script = fixture::three(5, secs(60), 60.0);
        script.faults = vec![fault(secs(10), secs(40), Target::Everywhere, What::Poison(part))];
        let trace = played(&script);
        assert_eq!(trips(&trace), [], "poison {part}\n{}", checks::story(&trace));
    }
}

#[test]
fn all_regions_bad_together_change_no_state() {
    for what in [What::Errors(0.8, 500), What::Errors(0.7, 503), What::Errors(1.0, 503), What::Kill, What::Blackhole, What::HalfOpen] {
        let mut script = fixture::three(6, secs(60), 60.0);
        script.faults = vec![fault(secs(10), secs(30), Target::Everywhere, what)];
        let trace = played(&script);
        assert_eq!(trips(&trace), [], "{what:?}\n{}", checks::story(&trace));
    }
}

#[test]
fn a_slowness_everywhere_never_empties_a_service() {
    // Twenty times slower everywhere is not told apart from single silences at six requests a second and pool. What
    // must hold: somebody is left, and nearly everybody is answered.
    for what in [What::Slow(20.0), What::Hang(0.5)] {
        let mut script = fixture::three(6, secs(60), 60.0);
        script.faults = vec![fault(secs(10), secs(30), Target::Everywhere, what)];
        let trace = played(&script);
        let t = &script.config.topology;
        for r in &trace.0 {
            let Note::View(view) = &r.note else { continue };
            let left = |s: &evenkeel::model::topology::Service| s.pools.iter().any(|p| view.pools[p.at()].state != State::Tripped);
            assert!(t.services.iter().all(left), "{what:?} at {:?}\n{}", r.at, checks::story(&trace));
        }
        let good = goodput(&trace, secs(10), secs(40));
        assert!(good > 0.6, "{what:?}: {good:.3} good");
    }
}

#[test]
fn a_blackout_is_noticed_within_half_a_second_and_hardly_felt() {
    for (what, within) in [(What::Kill, ms(500)), (What::Blackhole, ms(600)), (What::HalfOpen, ms(700)), (What::AnswersLost, ms(700))] {
        let mut script = fixture::three(3, secs(90), 200.0);
        script.faults = vec![fault(secs(20), secs(20), region(0), what)];
        let trace = played(&script);
        let at = first_trip(&trace).unwrap_or_else(|| panic!("{what:?}: never noticed"));
        assert!(at >= secs(20) && at <= secs(20) + within, "{what:?}: noticed at {at:?}");
        let (during, after) = (goodput(&trace, secs(20), secs(40)), goodput(&trace, secs(40), secs(90)));
        assert!(during > 0.985 && after > 0.995, "{what:?}: {during:.4} good during, {after:.4} after");
    }
}

#[test]
fn one_request_in_ten_that_hangs_is_noticed_although_hedges_mend_it() {
    let mut script = fixture::three(21, secs(60), 300.0);
    script.faults = vec![fault(secs(20), secs(20), region(0), What::Hang(0.1))];
    let trace = played(&script);
    let at = first_trip(&trace).expect("noticed");
    assert!(at >= secs(20) && at <= secs(20) + ms(1500), "noticed at {at:?}\n{}", checks::story(&trace));
    let during = goodput(&trace, secs(20), secs(40));
    assert!(during > 0.999, "{during:.4} good");
    let within = |r: &&evenkeel::whatif::Record| r.at >= BEGIN + secs(20) && r.at < BEGIN + secs(40);
    let firsts = trace.0.iter().filter(within).filter(|r| matches!(r.note, Note::Try { id: 0, .. })).count();
    let all = trace.0.iter().filter(within).filter(|r| matches!(r.note, Note::Try { .. })).count();
    assert!((all as f64) < 1.1 * firsts as f64, "{all} attempts for {firsts} requests");
}

#[test]
fn a_region_that_comes_back_gets_its_share_back() {
    // Cold caches hold the ramp back: a step that is slow is not passed.
    let mut script = fixture::three(4, secs(400), 100.0);
    script.faults = vec![fault(secs(20), secs(15), region(0), What::Kill)];
    let trace = played(&script);
    let (mut east, mut all) = (0, 0);
    for r in trace.0.iter().filter(|r| r.at >= BEGIN + secs(340)) {
        if let Note::Try { pool, id: 0, route: RouteIx(1), .. } = r.note {
            all += 1;
            east += usize::from(pool == PoolIx(0));
        }
    }
    let share = east as f64 / all as f64;
    assert!((share - 0.5).abs() < 0.03, "its share is {share:.3} of {all}\n{}", checks::story(&trace));
}

#[test]
fn a_flapping_region_costs_less_each_time() {
    let mut script = fixture::two(8, secs(600), 60.0);
    script.faults = (0..60).map(|i| fault(secs(10 + 10 * i), secs(4), region(0), What::Blackhole)).collect();
    let trace = played(&script);
    let n = trips(&trace).len();
    assert!((1..=12).contains(&n), "{n} trips in ten minutes of flapping: {:?}", trips(&trace));
}

#[test]
fn weights_move_by_reload_within_ten_of_a_thousand() {
    let with = |east: u32, west: u32, generation| {
        let text = fixture::TWO.replace("east: {weight: 50}", &format!("east: {{weight: {east}}}"));
        fixture::compiled(&text.replace("west: {weight: 50}", &format!("west: {{weight: {west}}}")), generation)
    };
    let mut script = fixture::two(9, secs(60), 100.0);
    script.config = with(100, 0, 1);
    script.reloads = vec![(secs(20), with(0, 100, 2)), (secs(40), with(50, 50, 3))];
    let trace = played(&script);
    assert!((goodput(&trace, secs(0), secs(60)) - 1.0).abs() < 1e-9, "a reload fails no request");
    for (from, want) in [(0, 1000), (20, 0), (40, 500)] {
        let from = BEGIN + secs(from);
        let firsts = trace.0.iter().filter(|r| r.at > from).filter_map(|r| match r.note {
            Note::Try { pool, id: 0, .. } => Some(pool),
            _ => None,
        });
        let east = firsts.take(1000).filter(|p| p.0 == 0).count() as i64;
        assert!((east - want).abs() <= 10, "{east} of 1,000 to east after {from:?}; its share is {want}");
    }
}

#[test]
fn no_pool_is_offered_more_than_its_capacity_while_another_has_room() {
    let text = fixture::TWO.replace(r#"["10.0.0.1:80", "10.0.0.2:80"]"#, r#"["10.0.0.1:80", "10.0.0.2:80"], capacity: 60/s"#);
    let mut script = fixture::two(10, secs(60), 200.0);
    script.config = fixture::compiled(&text, 1);
    let trace = played(&script);
    let mut seconds = [0u32; 60];
    for r in &trace.0 {
        if let Note::Try { pool: PoolIx(0), .. } = r.note {
            seconds[(r.at.since(BEGIN).as_secs() as usize).min(59)] += 1;
        }
    }
    let worst = seconds[10..].iter().max().copied().unwrap_or(0);
    let mean = f64::from(seconds[10..].iter().sum::<u32>()) / 50.0;
    assert!((50.0..=62.0).contains(&mean), "{mean:.1} requests a second offered to a pool of 60/s (worst second {worst})");
}

#[test]
fn retrying_clients_do_not_keep_it_down() {
    let mut script = fixture::two(12, secs(180), 60.0);
    for l in &mut script.loads {
        (l.resend, l.resend_after) = (3, ms(100));
    }
    script.faults = vec![fault(secs(30), secs(20), Target::Everywhere, What::Workers(0.02))];
    let trace = played(&script);
    let after = goodput(&trace, secs(110), secs(180));
    assert!(after > 0.99, "a minute after the cause is gone {after:.4} are good");
}

#[test]
fn states_change_only_on_record() {
    // The shortest proof that checkers see anything at all: a trip by an operator, and its way back.
    let mut script = fixture::two(13, secs(30), 60.0);
    script.orders = vec![(secs(5), evenkeel::model::signal::Order::Trip { pool: PoolIx(0), reason: "told to".into() })];
    let trace = played(&script);
    let to_east = |r: &&evenkeel::whatif::Record| matches!(r.note, Note::Try { pool: PoolIx(0), trial: false, .. });
    let stretch = |from: u64, to: u64| move |r: &&evenkeel::whatif::Record| r.at > Moment::ms(from) && r.at < Moment::ms(to);
    assert!(trace.0.iter().filter(stretch(1_000, 6_000)).any(|r| to_east(&r)), "east serves at first");
    assert!(!trace.0.iter().filter(stretch(6_001, 10_000)).any(|r| to_east(&r)), "nothing goes there once it is tripped");
}
