//! Timelines: what the machine says at which millisecond, against a world that is set by hand.

use super::*;
use crate::model::policy::{Hedge, HedgeAfter, Priority};
use crate::model::topology::Topology;
use crate::model::view::State;
use crate::steer::fake::*;
use proptest::prelude::*;

const EAST: PoolIx = PoolIx(0);

fn three() -> Topology {
    topology(&[("east", "us", 100), ("west", "us", 0), ("eu", "eu", 0)], 2)
}

/// A machine, its world and its dice.
struct Run {
    a: Attempt,
    v: View,
    live: Now,
    dice: Dice,
}

impl Run {
    fn with(t: Topology, facts: Facts, pace_ms: u64) -> Self {
        let v = view(t);
        let live = Now::new(&v);
        let live = if pace_ms > 0 { live.paced(pace_ms) } else { live };
        Self { a: Attempt::new(facts, &v), v, live, dice: Dice::new(3) }
    }
    fn new(facts: Facts) -> Self {
        Self::with(three(), facts, 10) // p99 30 ms: overdue at 60, timeout 250
    }
    fn step(&mut self, t: u64) -> Step {
        self.a.step(at(t), &self.v, &self.live, &mut self.dice)
    }
    #[track_caller]
    fn tries(&mut self, t: u64) -> Try {
        match self.step(t) {
            Step::Try(x) => x,
            other => panic!("{other:?} instead of a try at {t} ms"),
        }
    }
    #[track_caller]
    fn waits(&mut self, t: u64, until: u64) {
        assert_eq!(self.step(t), Step::Wait(at(until)), "at {t} ms");
    }
    #[track_caller]
    fn gives_up(&mut self, t: u64, why: Refusal) {
        assert_eq!(self.step(t), Step::GiveUp(why), "at {t} ms");
    }
    fn ended(&mut self, x: Try, outcome: Outcome, sent: Sent, t: u64) {
        self.a.ended(x.id, outcome, sent, at(t));
    }
}

fn edit(mut t: Topology, f: impl Fn(&mut Route)) -> Topology {
    t.routes.iter_mut().for_each(f);
    t
}

#[test]
fn one_attempt_and_its_marks() {
    let mut r = Run::new(get(ANY));
    let x = r.tries(0);
    assert_eq!((x.id, x.pool, x.trial, x.hedge), (0, EAST, false, false));
    assert_eq!((x.timeout, x.overdue_at, x.late_at), (ms(250), at(60), at(250)));
    r.waits(0, 40);
    r.waits(40, 60);
    assert!(r.a.accepts(&r.v, Outcome::Ok));
}

#[test]
fn an_unknown_pace_makes_nothing_overdue_early() {
    let mut r = Run::with(three(), get(ANY), 0);
    let x = r.tries(0);
    assert_eq!((x.timeout, x.overdue_at, x.late_at), (ms(600), at(300), at(600)));
}

#[test]
fn attempt_times_adapt_to_the_pace_within_their_bounds() {
    for (pace, timeout) in [(1, 250), (10, 250), (12, 288), (24, 576), (30, 600)] {
        assert_eq!(Run::with(three(), get(ANY), pace).tries(0).timeout, ms(timeout), "p99 {} ms", pace * 3);
    }
    let single = edit(three(), |r| r.retry.attempts = 1);
    assert_eq!(Run::with(single, get(ANY), 1).tries(0).timeout, ms(600), "no other attempt is left: no haste");
    assert_eq!(Run::new(post(ANY)).tries(0).timeout, ms(2000), "a write that cannot be repeated has all the time there is");
    let keys = edit(three(), |r| r.retry.writes = Writes::IdempotencyKey);
    assert_eq!(Run::with(keys, Facts { keyed: true, ..post(ANY) }, 1).tries(0).timeout, ms(250));
}

#[test]
fn a_refused_connection_tries_the_neighbour_then_another_region() {
    for facts in [get(ANY), post(ANY)] {
        let mut r = Run::new(facts);
        let a = r.tries(0);
        r.ended(a, Outcome::Connect, Sent::Nothing, 1);
        let b = r.tries(1);
        assert_eq!(b.pool, EAST);
        assert_ne!(b.endpoint, a.endpoint);
        r.ended(b, Outcome::Connect, Sent::Nothing, 2);
        let c = r.tries(2);
        assert_ne!(c.pool, EAST);
        r.ended(c, Outcome::Connect, Sent::Nothing, 3);
        r.gives_up(3, Refusal::NoRegion);
        assert_eq!(r.live.retries.get(), 98, "two retries, each charged");
    }
}

#[test]
fn a_refused_connection_leaves_the_region_at_once_where_more_speaks_against_it() {
    type Change = fn(&mut Run, EndpointIx);
    let suspect: Change = |r, _| set(&mut r.v, 0, |p| p.suspect = true);
    let tripped: Change = |r, _| set(&mut r.v, 0, |p| p.state = State::Tripped);
    let sibling: Change = |r, used| r.live.out.borrow_mut()[1 - used.at()] = true;
    for (name, change) in [("suspect", suspect), ("tripped", tripped), ("another endpoint is out", sibling)] {
        let mut r = Run::new(get(ANY));
        let a = r.tries(0);
        change(&mut r, a.endpoint);
        r.ended(a, Outcome::Connect, Sent::Nothing, 1);
        assert_ne!(r.tries(1).pool, EAST, "{name}");
    }
}

#[test]
fn statuses_of_the_list_move_a_safe_request_to_another_region() {
    let mut r = Run::new(get(ANY));
    let a = r.tries(0);
    assert!(r.a.accepts(&r.v, Outcome::Status(500)), "not in the list: handed to the client");
    assert!(!r.a.accepts(&r.v, Outcome::Status(503)));
    r.ended(a, Outcome::Status(503), Sent::Complete, 1);
    let b = r.tries(1);
    assert_ne!(b.pool, EAST);
    let mut w = Run::new(post(ANY));
    w.tries(0);
    assert!(w.a.accepts(&w.v, Outcome::Status(503)), "an answered write is not repeated");
}

#[test]
fn overload_moves_a_safe_request_once_and_only_to_a_sound_pool() {
    let mut r = Run::new(get(ANY));
    let a = r.tries(0);
    assert!(!r.a.accepts(&r.v, Outcome::Overload(503)));
    r.ended(a, Outcome::Overload(503), Sent::Complete, 1);
    let b = r.tries(1);
    assert_ne!(b.pool, EAST);
    assert!(r.a.accepts(&r.v, Outcome::Overload(503)), "the second one is the answer");

    let mut alone = Run::with(topology(&[("east", "us", 1)], 2), get(ANY), 10);
    let a = alone.tries(0);
    alone.ended(a, Outcome::Overload(503), Sent::Complete, 1);
    alone.gives_up(1, Refusal::Shed);
}

#[test]
fn writes_are_repeated_as_the_operator_says_and_else_in_doubt() {
    use Writes::*;
    let table = [
        (Unsent, false, [true, false, false]),
        (Unsent, true, [true, false, false]),
        (Incomplete, false, [true, true, false]),
        (IdempotencyKey, false, [true, true, false]),
        (IdempotencyKey, true, [true, true, true]),
    ];
    for (writes, keyed, repeated) in table {
        for (sent, repeated) in SENT.into_iter().zip(repeated) {
            for outcome in [Outcome::Reset, Outcome::Timeout] {
                let t = edit(three(), |r| r.retry.writes = writes);
                let mut r = Run::with(t, Facts { keyed, ..post(ANY) }, 10);
                let x = r.tries(0);
                r.ended(x, outcome, sent, 5);
                match r.step(5) {
                    Step::Try(_) => assert!(repeated, "{writes:?} keyed {keyed} {sent:?}"),
                    other => assert_eq!((other, repeated), (Step::GiveUp(Refusal::UnknownOutcome), false), "{writes:?} {sent:?}"),
                }
            }
        }
    }
}

#[test]
fn a_keyed_write_that_was_once_sent_stays_in_doubt_however_it_ends() {
    let t = edit(three(), |r| r.retry.writes = Writes::IdempotencyKey);
    let mut r = Run::with(t, Facts { keyed: true, ..post(ANY) }, 10);
    for (outcome, sent) in [(Outcome::Timeout, Sent::Complete), (Outcome::Connect, Sent::Nothing), (Outcome::Connect, Sent::Nothing)] {
        let x = r.tries(0);
        r.ended(x, outcome, sent, 0);
    }
    r.gives_up(0, Refusal::UnknownOutcome);
}

#[test]
fn the_deadline_is_the_end() {
    let mut r = Run::new(get(ANY));
    r.tries(0);
    r.live.retries.set(0);
    assert!(matches!(r.step(1999), Step::Wait(t) if t <= at(2000)));
    r.gives_up(2000, Refusal::Deadline);
    let mut w = Run::new(post(ANY));
    w.tries(0);
    w.waits(0, 2000);
    w.gives_up(2000, Refusal::UnknownOutcome);
    let mut late = Run::new(get(ANY));
    let x = late.tries(0);
    late.ended(x, Outcome::Timeout, Sent::Complete, 1900);
    assert_eq!(late.tries(1900).timeout, ms(100), "what is left");
}

#[test]
fn without_tokens_there_is_no_retry() {
    let mut r = Run::new(get(ANY));
    r.live.retries.set(0);
    let x = r.tries(0);
    r.ended(x, Outcome::Timeout, Sent::Complete, 250);
    r.gives_up(250, Refusal::Deadline);
}

#[test]
fn a_safe_request_in_a_pool_that_falls_suspect_gets_company_elsewhere() {
    for change in [(|p| p.suspect = true) as fn(&mut crate::model::view::PoolView), |p| p.state = State::Tripped, |p| p.dead = true] {
        let mut r = Run::new(get(ANY));
        let a = r.tries(0);
        r.waits(59, 60);
        set(&mut r.v, 0, change);
        let b = r.tries(60);
        assert!(b.hedge && b.pool != EAST);
        assert_eq!(r.live.retries.get(), 99);
        r.waits(60, 75);
        assert!(!r.a.accepts(&r.v, Outcome::Status(500)), "the other one may still do better");
        r.ended(b, Outcome::Connect, Sent::Nothing, 61);
        let c = r.tries(61);
        assert!(c.hedge && c.id == 2 && c.pool != EAST);
        r.ended(a, Outcome::Timeout, Sent::Complete, 250);
        r.ended(c, Outcome::Timeout, Sent::Complete, 311);
        r.gives_up(311, Refusal::Deadline);
    }
}

#[test]
fn a_drained_pool_finishes_what_it_has() {
    let mut r = Run::new(get(ANY));
    r.tries(0);
    set(&mut r.v, 0, |p| p.drained = true);
    r.waits(60, 75);
}

#[test]
fn a_suspect_pool_without_a_sound_one_beside_it_is_waited_for() {
    let mut r = Run::with(topology(&[("east", "us", 1), ("west", "us", 1)], 2), get(ANY), 10);
    r.tries(0);
    set(&mut r.v, 0, |p| p.suspect = true);
    set(&mut r.v, 1, |p| p.suspect = true);
    r.waits(60, 75);
    assert_eq!(r.live.retries.get(), 100);
}

#[test]
fn overdue_on_a_quiet_endpoint_gets_company_and_on_a_busy_one_waits() {
    let mut r = Run::new(get(ANY));
    let a = r.tries(0);
    r.waits(60, 75);
    r.live.quiet.borrow_mut()[a.endpoint.at()] = ms(59);
    r.waits(75, 90);
    r.live.quiet.borrow_mut()[a.endpoint.at()] = ms(60);
    let b = r.tries(90);
    assert!(b.hedge && b.endpoint != a.endpoint);
}

#[test]
fn hedges_start_at_their_time_with_a_token_and_only_once() {
    let t = edit(three(), |r| r.hedge = Some(Hedge { after: HedgeAfter::Percentile(0.95), budget: 0.05 }));
    let mut r = Run::with(t.clone(), get(ANY), 10);
    r.tries(0);
    r.waits(0, 20);
    r.waits(20, 60); // no token
    let mut r = Run::with(t.clone(), get(ANY), 10);
    r.live.hedges.set(9);
    r.tries(0);
    let b = r.tries(20);
    assert!(b.hedge && b.pool != EAST);
    assert_eq!((r.live.hedges.get(), r.live.retries.get()), (8, 100));
    r.ended(b, Outcome::Reset, Sent::Complete, 21);
    r.waits(21, 60);
    for facts in [post(ANY), Facts { upgrade: true, ..get(ANY) }] {
        let mut r = Run::with(t.clone(), facts, 10);
        r.live.hedges.set(9);
        r.tries(0);
        r.waits(20, 2000);
    }
    let mut unpaced = Run::with(t, get(ANY), 0);
    unpaced.live.hedges.set(9);
    unpaced.tries(0);
    unpaced.waits(0, 40);
    unpaced.waits(280, 300);
}

#[test]
fn a_full_world_is_waited_for_briefly_by_those_that_matter() {
    for (priority, patience) in [(Priority::Sheddable, 0), (Priority::Normal, 15), (Priority::Critical, 20)] {
        let mut r = Run::new(Facts { priority, ..get(ANY) });
        r.live.inflight.borrow_mut().fill(50);
        let mut now = 0;
        while let Step::Wait(until) = r.step(now) {
            now = until.since(T0).as_millis() as u64;
        }
        assert_eq!(now, patience);
        r.gives_up(now, Refusal::Shed);
    }
    // Where others have waited in vain already, a normal request is refused sooner.
    let mut r = Run::new(get(ANY));
    r.live.inflight.borrow_mut().fill(50);
    set(&mut r.v, 0, |p| p.reserve.critical = 1);
    r.waits(6, 8);
    r.gives_up(11, Refusal::Shed);
    let mut r = Run::new(get(ANY));
    r.live.inflight.borrow_mut().fill(50);
    r.waits(0, 2);
    r.live.inflight.borrow_mut().fill(0);
    let x = r.tries(2);
    r.ended(x, Outcome::Timeout, Sent::Complete, 300);
    r.live.inflight.borrow_mut().fill(50);
    r.waits(300, 302);
    r.waits(305, 307);
    r.gives_up(315, Refusal::Deadline);
}

#[test]
fn a_closed_table_gives_up_at_once_and_says_why() {
    let mut r = Run::new(get(US));
    for pool in 0..2 {
        set(&mut r.v, pool, |p| (p.state, p.dead) = (State::Tripped, true));
    }
    r.gives_up(0, Refusal::Residency);
    set(&mut r.v, 2, |p| (p.state, p.dead) = (State::Tripped, true));
    r.gives_up(0, Refusal::NoRegion);
    set(&mut r.v, 0, |p| p.state = State::Trial);
    r.live.trials.borrow_mut()[0] = 1;
    assert!(r.tries(0).trial);
}

#[test]
fn where_nothing_is_left_a_trial_of_a_dead_pool_is_short_and_of_a_living_one_is_not() {
    let mut r = Run::new(get(US));
    r.tries(0);
    let mut w = Run::new(post(US));
    w.tries(0);
    for run in [&mut r, &mut w] {
        for pool in 0..2 {
            set(&mut run.v, pool, |p| (p.state, p.dead) = (State::Tripped, true));
        }
    }
    r.gives_up(60, Refusal::Residency);
    w.waits(60, 2000);

    for dead in [true, false] {
        let mut r = Run::new(get(ANY));
        for pool in 0..3 {
            set(&mut r.v, pool, |p| (p.state, p.dead) = (State::Tripped, true));
        }
        set(&mut r.v, 0, |p| (p.state, p.dead) = (State::Trial, dead));
        r.live.trials.borrow_mut()[0] = 1;
        assert!(r.tries(0).trial);
        r.waits(0, 40);
        if dead {
            r.gives_up(40, Refusal::NoRegion);
        } else {
            r.waits(40, 60);
            r.waits(60, 75);
        }
    }
}

#[test]
fn two_trials_beside_each_other_are_as_short_as_one() {
    let mut r = Run::with(three(), get(ANY), 3);
    for pool in 0..3 {
        set(&mut r.v, pool, |p| (p.state, p.dead, p.suspect) = (State::Trial, true, true));
    }
    *r.live.trials.borrow_mut() = vec![1, 1, 0];
    let (a, b) = (r.tries(0), r.tries(30));
    assert!(a.trial && b.trial && a.pool != b.pool);
    r.waits(31, 40);
    r.gives_up(40, Refusal::NoRegion);
}

#[test]
fn two_attempts_look_whether_all_is_lost() {
    let mut r = Run::new(get(ANY));
    r.tries(0);
    set(&mut r.v, 0, |p| p.dead = true);
    r.tries(20);
    r.waits(21, 36);
    for pool in 0..3 {
        set(&mut r.v, pool, |p| (p.state, p.dead) = (State::Tripped, true));
    }
    r.waits(36, 40);
    r.gives_up(40, Refusal::NoRegion);
}

#[test]
fn what_waits_in_a_dead_pool_goes_to_a_suspect_one_if_there_is_no_better() {
    let mut r = Run::new(get(US));
    r.tries(0);
    set(&mut r.v, 0, |p| p.dead = true);
    set(&mut r.v, 1, |p| p.suspect = true);
    assert_eq!(r.tries(60).pool, PoolIx(1));
}

#[test]
fn an_upload_moves_while_incomplete_and_runs_on_when_complete() {
    let t = edit(three(), |r| r.retry.writes = Writes::Incomplete);
    let mut r = Run::with(t.clone(), post(ANY), 10);
    r.a.streams();
    let a = r.tries(0);
    r.waits(5000, 5060);
    set(&mut r.v, 0, |p| p.state = State::Tripped);
    assert_eq!(r.step(5060), Step::Stop(a.id));
    r.ended(a, Outcome::Cancelled, Sent::Incomplete, 5060);
    assert_ne!(r.tries(5060).pool, EAST);

    let mut done = Run::with(t.clone(), post(ANY), 10);
    done.a.streams();
    done.tries(0);
    done.a.complete(&done.v, at(5000));
    set(&mut done.v, 0, |p| p.state = State::Tripped);
    done.waits(5000, 7000);
    done.gives_up(7000, Refusal::UnknownOutcome);

    let mut held = Run::with(t.clone(), post(ANY), 10);
    let a = held.tries(0);
    held.a.sent(a.id, Sent::Incomplete);
    set(&mut held.v, 0, |p| p.suspect = true);
    assert_eq!(held.step(60), Step::Stop(a.id), "its last byte is held back");

    let mut spent = Run::with(t, post(ANY), 10);
    spent.a.streams();
    let a = spent.tries(0);
    spent.a.spent();
    set(&mut spent.v, 0, |p| p.state = State::Tripped);
    assert_eq!(spent.step(60), Step::Wait(Moment::FAR));
    spent.ended(a, Outcome::Reset, Sent::Incomplete, 70);
    spent.gives_up(70, Refusal::NoRegion);
}

#[derive(Clone, Debug)]
enum Act {
    Pass(u64),
    End(Outcome, Sent),
    Change(u32, bool, usize),
    Quiet(u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let outcome = prop::sample::select(vec![
        Outcome::Status(503),
        Outcome::Status(500),
        Outcome::Overload(429),
        Outcome::Connect,
        Outcome::Timeout,
        Outcome::Reset,
        Outcome::Guard,
    ]);
    prop::collection::vec(
        prop_oneof![
            (0u64..200).prop_map(Act::Pass),
            (outcome, prop::sample::select(SENT.to_vec())).prop_map(|(o, s)| Act::End(o, s)),
            (0u32..3, any::<bool>(), 0usize..4).prop_map(|(p, s, state)| Act::Change(p, s, state)),
            (0u64..200).prop_map(Act::Quiet),
        ],
        1..60,
    )
}

proptest! {
    /// Whatever happens: bounds on attempts, company, budget, time and place hold, and it comes to an end.
    #[test]
    fn the_machine_keeps_its_rules(
        acts in acts(),
        flags in any::<[bool; 4]>(),
        writes in prop::sample::select(vec![Writes::Unsent, Writes::Incomplete, Writes::IdempotencyKey]),
        tokens in (0u32..4, 0u32..2),
    ) {
        let [safe, keyed, us, hedged] = flags;
        let t = edit(three(), |r| {
            r.retry.writes = writes;
            r.hedge = hedged.then_some(Hedge { after: HedgeAfter::Fixed(ms(5)), budget: 0.05 });
        });
        let mut r = Run::with(t, Facts { safe, keyed, ..get(if us { US } else { ANY }) }, 10);
        r.live.retries.set(tokens.0);
        r.live.hedges.set(tokens.1);
        let (mut now, mut running, mut made, mut in_doubt) = (0, Vec::<Try>::new(), 0u32, false);
        for act in acts.into_iter().chain([Act::Pass(5000)]) {
            match act {
                Act::Pass(t) => now += t,
                Act::Quiet(q) => r.live.quiet.borrow_mut().fill(ms(q)),
                Act::Change(p, suspect, state) => set(&mut r.v, p, |p| (p.suspect, p.state) = (suspect, State::ALL[state])),
                Act::End(outcome, sent) if !running.is_empty() => {
                    let x = running.swap_remove(0);
                    let answered = matches!(outcome, Outcome::Status(_) | Outcome::Overload(_) | Outcome::Guard);
                    let sent = if answered { Sent::Complete } else { sent };
                    in_doubt |= !safe && !answered && sent == Sent::Complete;
                    r.ended(x, outcome, sent, now);
                }
                Act::End(..) => {}
            }
            for _ in 0..20 {
                match r.step(now) {
                    Step::Try(x) => {
                        prop_assert!(at(now) < r.a.deadline());
                        prop_assert!(x.timeout <= at(now).until(r.a.deadline()));
                        prop_assert!(x.overdue_at <= x.late_at);
                        prop_assert!(safe || running.is_empty(), "a write never runs twice at once");
                        prop_assert!(!in_doubt || keyed && writes == Writes::IdempotencyKey, "a write in doubt is not repeated");
                        prop_assert!(safe || !x.trial);
                        prop_assert!(!us || x.pool != PoolIx(2), "residency");
                        prop_assert!(running.iter().all(|y| y.endpoint != x.endpoint));
                        prop_assert_eq!(x.hedge, !running.is_empty());
                        running.push(x);
                        made += 1;
                        prop_assert!(running.len() <= 2);
                        prop_assert!(made <= 4 && made <= 1 + tokens.0 + tokens.1);
                    }
                    Step::Wait(until) => {
                        prop_assert!(until > at(now) && until <= r.a.deadline());
                        break;
                    }
                    Step::GiveUp(why) => {
                        prop_assert_eq!(in_doubt, in_doubt && why == Refusal::UnknownOutcome);
                        return Ok(());
                    }
                    Step::Stop(_) => prop_assert!(false, "nothing here is incomplete"),
                }
            }
        }
        prop_assert!(false, "past its deadline and still going");
    }
}
