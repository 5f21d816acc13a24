use super::*;

const T: Moment = Moment::ms(100_000);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

struct Run {
    way: Way,
    now: Moment,
    dice: Dice,
    f: Failover,
    r: Recovery,
}

impl Run {
    fn tripped() -> Self {
        let mut run = Self { way: Way::new(Moment::ms(1)), now: T, dice: Dice::new(1), f: Failover::default(), r: Recovery::default() };
        run.enter(State::Tripped);
        run
    }
    fn enter(&mut self, to: State) {
        self.way.enter(self.now, to, Cause::Recovered, &self.f, Some(ms(20)), &mut self.dice);
    }
    /// Full ticks of `p` until something comes of it, at most so long.
    fn until(&mut self, most: u64, p: &Progress) -> Option<(Option<Move>, Cause)> {
        let end = self.now + ms(most);
        while self.now < end {
            self.now += ms(100);
            if let Some(x) = self.way.tick(self.now, p, &self.r) {
                return Some(x);
            }
        }
        None
    }
    fn moved(&mut self, most: u64, p: &Progress) -> Option<Move> {
        self.until(most, p).and_then(|(m, _)| m)
    }
}

fn passing() -> Progress {
    Progress { probes: Some(true), offered: 30.0, ..Default::default() }
}

fn answers(ok: u32, failed: u32, at: Duration) -> Progress {
    let mut p = Progress { ok, failed, ..passing() };
    (0..ok).for_each(|_| p.latency.add(at.as_micros() as u64));
    p
}

#[test]
fn cools_after_the_open_time_and_a_hold_of_good_evidence() {
    let mut run = Run::tripped();
    assert_eq!(run.moved(20_000, &passing()), Some(Move::Cool));
    assert!(run.now.since(T) >= ms(5_000) && run.now.since(T) <= ms(5_600), "{:?}", run.now.since(T));
    let mut run = Run::tripped();
    assert_eq!(run.moved(20_000, &Progress { probes: Some(false), ..passing() }), None);
    assert_eq!(run.moved(4_900, &passing()), None, "not 4.9 s");
    assert_eq!(run.moved(300, &passing()), Some(Move::Cool));
}

#[test]
fn a_live_failure_ends_the_hold() {
    let mut run = Run::tripped();
    assert_eq!(run.moved(4_000, &passing()), None);
    assert_eq!(run.moved(100, &Progress { failed: 1, ..passing() }), None);
    assert_eq!(run.moved(4_900, &passing()), None);
    assert_eq!(run.moved(300, &passing()), Some(Move::Cool));
}

#[test]
fn pinned_stays() {
    let mut run = Run::tripped();
    run.way.pinned = true;
    assert_eq!(run.moved(600_000, &passing()), None);
}

#[test]
fn open_time_doubles_up_to_its_most_and_is_forgiven() {
    let mut run = Run::tripped();
    let mut times = Vec::new();
    for _ in 0..8 {
        times.push(run.way.open_for.as_secs_f64());
        run.enter(State::Trial);
        run.enter(State::Tripped);
    }
    for (i, t) in times.iter().enumerate() {
        let nominal = (5.0 * 2f64.powi(i as i32)).min(300.0);
        assert!((t / nominal - 1.0).abs() <= 0.1001, "{i}: {t} of {nominal}");
    }
    run.enter(State::Serving);
    run.now += ms(700_000);
    run.enter(State::Tripped);
    assert!(run.way.open_for <= ms(5_500));
}

#[test]
fn five_good_trials_prove_and_four_do_not() {
    let trial = |ok, failed| Progress { trial_ok: ok, trial_failed: failed, ..passing() };
    let mut run = Run::tripped();
    run.enter(State::Trial);
    assert_eq!(run.moved(100, &trial(4, 0)), None);
    assert_eq!(run.moved(30_000, &passing()), None, "not by probes where there is traffic enough");
    assert_eq!(run.moved(100, &trial(1, 0)), Some(Move::Prove));
    run.enter(State::Trial);
    assert_eq!(run.moved(100, &trial(4, 1)), Some(Move::Fail));
}

#[test]
fn where_nothing_may_be_a_trial_time_and_probes_prove() {
    let mut run = Run::tripped();
    run.enter(State::Trial);
    assert_eq!(run.moved(9_900, &passing()), None, "trials may still come");
    assert_eq!(run.moved(200, &passing()), Some(Move::Prove), "only writes are asked");
    run.enter(State::Trial);
    assert_eq!(run.moved(60_000, &Progress { probes: Some(false), ..passing() }), Some(Move::Fail));
}

#[test]
fn without_traffic_probes_prove_after_the_hold() {
    let idle = Progress { probes: Some(true), ..Default::default() };
    let mut run = Run::tripped();
    run.enter(State::Trial);
    assert_eq!(run.moved(4_900, &idle), None);
    assert_eq!(run.moved(200, &idle), Some(Move::Prove));
    run.enter(State::Trial);
    run.way.idle_trip = true;
    assert_eq!(run.moved(6_000, &idle), Some(Move::Warm), "a standby that lost nothing");
    run.enter(State::Trial);
    assert_eq!(run.moved(200, &Progress { probes: Some(false), ..Default::default() }), Some(Move::Fail));
}

#[test]
fn climbs_step_by_step() {
    let mut run = Run::tripped();
    run.enter(State::Ramping);
    let good = answers(10, 0, ms(10));
    for part in [0.01, 0.05, 0.25, 0.5] {
        assert_eq!(run.way.part(&run.r), part);
        let begun = run.now;
        assert!(matches!(run.until(20_000, &good), Some((None, Cause::Step { .. }))));
        assert_eq!(run.now.since(begun), ms(10_000));
    }
    assert_eq!(run.moved(20_000, &good), Some(Move::Fill));
}

#[test]
fn steps_back_when_it_fails_or_is_slow_and_relapses_on_the_first() {
    let mut run = Run::tripped();
    run.enter(State::Ramping);
    run.until(20_000, &answers(10, 0, ms(10)));
    assert!(matches!(run.until(20_000, &answers(10, 0, ms(40))), Some((None, Cause::Slow { p99_ms: 40, usual_ms: 20 }))));
    assert_eq!(run.way.part(&run.r), 0.01);
    assert_eq!(run.moved(20_000, &answers(10, 0, ms(40))), None, "slow on the first step waits");
    run.until(20_000, &answers(10, 0, ms(10)));
    assert!(matches!(run.until(1_000, &answers(10, 1, ms(10))), Some((None, Cause::Step { .. }))), "plainly failing");
    assert_eq!(run.moved(1_000, &answers(10, 1, ms(10))), Some(Move::Fail));
}

#[test]
fn success_is_judged_at_its_boundary() {
    // 99 % of 1,000: ten failures pass, eleven do not.
    for (failed, steps_on) in [(10, true), (11, false)] {
        let mut run = Run::tripped();
        run.enter(State::Ramping);
        run.until(20_000, &answers(10, 0, ms(10)));
        run.now += ms(100);
        assert_eq!(run.way.tick(run.now, &answers(1000 - failed, failed, ms(10)), &run.r), None);
        let (_, cause) = run.until(20_000, &passing()).unwrap();
        assert_eq!(cause == Cause::Step { percent: 25.0 }, steps_on, "{failed}: {cause:?}");
    }
}

#[test]
fn slowness_is_judged_against_its_own_past() {
    // Usually 20 ms, ratio 1.5: a bucket whose upper bound is below 30 ms passes.
    for (at, slow) in [(ms(27), false), (ms(31), true)] {
        let mut run = Run::tripped();
        run.enter(State::Ramping);
        run.until(20_000, &answers(10, 0, ms(10)));
        let (_, cause) = run.until(20_000, &answers(10, 0, at)).unwrap();
        assert_eq!(matches!(cause, Cause::Slow { .. }), slow, "{at:?} {cause:?}");
    }
}

#[test]
fn a_slow_step_is_held_while_it_becomes_faster() {
    // Usually 20 ms. The second half must be faster by two buckets: from 100 ms (its bucket ends at 115) to 80 (82) and not to 90 (98).
    for (later, held) in [(ms(80), true), (ms(90), false), (ms(100), false), (ms(120), false)] {
        let mut run = Run::tripped();
        run.enter(State::Ramping);
        run.until(20_000, &answers(10, 0, ms(10)));
        assert_eq!(run.until(5_000, &answers(10, 0, ms(100))), None);
        let then = run.until(5_100, &answers(10, 0, later));
        let back = matches!(then, Some((None, Cause::Slow { usual_ms: 20, .. })));
        assert_eq!((back, then.is_none(), run.way.part(&run.r) == 0.05), (!held, held, held), "{later:?}: {then:?}");
        if held {
            let next = run.until(20_000, &answers(10, 0, ms(10)));
            assert!(matches!(next, Some((None, Cause::Step { percent })) if percent == 25.0), "and warm it is passed: {next:?}");
        }
    }
}
