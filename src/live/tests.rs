use super::testing::topology;
use super::*;
use crate::model::dice::Dice;
use crate::model::id::*;
use crate::model::outcome::Outcome;
use crate::model::time::{Duration, Moment};
use crate::model::topology::Topology;
use crate::model::view::Live;

const R: RouteIx = RouteIx(0);
const P: PoolIx = PoolIx(0);
const E: EndpointIx = EndpointIx(0);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn world() -> (Topology, Cells) {
    let t = topology(&[("east", 3), ("west", 2)]);
    let cells = Cells::build(&t, None);
    (t, cells)
}

fn look(c: &Cells, s: &mut Sampler) -> crate::model::signal::PoolTally {
    c.sample(s, Moment::ms(5000), true, Duration::ZERO).pools.swap_remove(0)
}

fn answer(c: &Cells, began: u64, took: u64, outcome: Outcome) -> Streak {
    let mut f = c.begin(R, E, Moment::ms(began), false);
    f.first_byte(Moment::ms(began + took));
    f.end(Moment::ms(began + took), outcome)
}

#[test]
fn gauges_move_back_however_a_flight_ends() {
    let (_, c) = world();
    let (mut s, mut dice) = (Sampler::new(&c), Dice::new(7));
    let mut flights: Vec<Flight> = Vec::new();
    for i in 0..10_000u64 {
        let now = Moment::ms(1000 + i);
        if flights.is_empty() || dice.chance(0.4) {
            flights.push(c.begin(R, EndpointIx(dice.below(3) as u32), now, dice.chance(0.1)));
            continue;
        }
        let at = dice.below(flights.len() as u64) as usize;
        match dice.below(8) {
            7 => {
                let flight = flights.swap_remove(at);
                let endpoint = EndpointIx(flight.bit.trailing_zeros());
                flights.push(c.attach(R, endpoint, flight.detach()));
            }
            0 => flights[at].overdue(),
            1 => flights[at].late(),
            2 => flights[at].first_byte(now),
            3 => flights[at].heard(now),
            4 => flights[at].accepted(),
            5 => drop(flights.swap_remove(at)),
            _ => {
                let all = [
                    Outcome::Ok,
                    Outcome::Status(503),
                    Outcome::Overload(429),
                    Outcome::Connect,
                    Outcome::Timeout,
                    Outcome::Reset,
                    Outcome::Guard,
                ];
                flights.swap_remove(at).end(now, all[dice.below(7) as usize]);
            }
        }
        let n = look(&c, &mut s);
        assert_eq!(n.inflight as usize, flights.len());
        assert!(n.waiting <= n.inflight && n.overdue <= n.waiting && n.late <= n.waiting, "{n:?}");
    }
    drop(flights);
    let n = look(&c, &mut s);
    assert_eq!((n.inflight, n.waiting, n.overdue, n.late), (0, 0, 0, 0));
    assert!((0..3).all(|e| c.inflight(EndpointIx(e)) == 0 && c.quiet(EndpointIx(e), Moment::FAR).is_zero()));
}

#[test]
fn every_start_ends_once_and_is_told_once() {
    let (_, c) = world();
    let mut s = Sampler::new(&c);
    c.route(R).arrived();
    drop(c.begin(R, E, Moment::ms(1000), false));
    answer(&c, 1000, 5, Outcome::Ok);
    let mut trial = c.begin(R, EndpointIx(2), Moment::ms(1000), true);
    trial.late();
    trial.late();
    trial.first_byte(Moment::ms(1900));
    trial.end(Moment::ms(2000), Outcome::Status(500));
    c.contradicted(P);
    c.confirmed(P);
    let t = c.sample(&mut s, Moment::ms(2000), true, ms(3));
    let n = &t.pools[0];
    assert_eq!((n.started, n.cancelled, n.ok, n.status), (3, 1, 1, 1));
    assert_eq!((n.failed_on, n.lates, n.late_on, n.revived), (0b100, 1, 0b100, 1));
    assert_eq!((n.trial_ok, n.trial_failed, n.contradicted, n.confirmed), (0, 1, 1, 1));
    assert_eq!((n.latency.count(), n.heard), (1, Moment::ms(1900)));
    assert_eq!((t.late, t.requests, t.routes), (ms(3), vec![1], vec![1]));
    assert_eq!((t.endpoints[0].ok, t.endpoints[2].soft, t.endpoints[2].streak), (1, 1, 1));
    let again = c.sample(&mut s, Moment::ms(2001), true, Duration::ZERO);
    assert_eq!(again.pools[0], crate::model::signal::PoolTally { heard: Moment::ms(1900), ..Default::default() });
    assert_eq!(again.requests, [0]);
    assert!(c.sample(&mut s, Moment::ms(2002), false, Duration::ZERO).endpoints.is_empty());
}

#[test]
fn quiet_counts_from_the_later_of_heard_and_waited() {
    let (_, c) = world();
    let at = |n| c.quiet(E, Moment::ms(n));
    assert_eq!(at(9000), ms(0), "nothing waits");
    let mut a = c.begin(R, E, Moment::ms(1000), false);
    assert_eq!(at(1040), ms(40));
    let b = c.begin(R, E, Moment::ms(1030), false);
    assert_eq!(at(1040), ms(40), "since something waits, not since the last began");
    a.first_byte(Moment::ms(1050));
    assert_eq!(at(1060), ms(10), "heard");
    drop(b);
    assert_eq!(at(1090), ms(0));
    let _c = c.begin(R, E, Moment::ms(2000), false);
    assert_eq!(at(2025), ms(25), "an old silence in which nobody waited says nothing");
    a.heard(Moment::ms(2020));
    assert_eq!(at(2025), ms(5), "more of another's body counts as well");
}

#[test]
fn a_reload_keeps_cells_by_name_and_counts_once() {
    let (old_t, old) = world();
    let mut s = Sampler::new(&old);
    for i in 0..40 {
        answer(&old, 1000 + i, 5, Outcome::Ok);
    }
    let flight = old.begin(R, E, Moment::ms(1100), false);
    look(&old, &mut s);
    assert!(old.pace(R, P).known());
    answer(&old, 1200, 5, Outcome::Timeout);
    // `north` comes first, `west` goes; one endpoint of `east` moves.
    let mut new_t = topology(&[("north", 1), ("east", 3)]);
    for (e, was) in new_t.endpoints[1..].iter_mut().zip(&old_t.endpoints) {
        (e.name, e.address) = (was.name.clone(), was.address);
    }
    new_t.endpoints[3].address.set_port(9);
    let new = Cells::build(&new_t, Some((&old_t, &old)));
    s.follow(&old, &new);
    let east = PoolIx(1);
    assert_eq!(new.pool(east).inflight(), 1);
    assert_eq!(new.endpoint(EndpointIx(1)).cell_id(), old.endpoint(E).cell_id());
    assert_ne!(new.endpoint(EndpointIx(3)).cell_id(), old.endpoint(EndpointIx(2)).cell_id(), "another address, another cell");
    assert_eq!(new.pace(R, east), old.pace(R, P));
    assert!(!new.pace(R, P).known());
    flight.end(Moment::ms(1300), Outcome::Ok);
    let n = new.sample(&mut s, Moment::ms(1300), true, Duration::ZERO);
    assert_eq!((n.pools[1].ok, n.pools[1].timeout, n.pools[1].started, n.pools[1].inflight), (1, 1, 1, 0));
    assert_eq!(n.pools[0].started, 0);
    assert_eq!(n.endpoints[1].hard, 1);
}

#[test]
fn a_route_that_moves_to_another_service_learns_its_pace_anew() {
    let (old_t, old) = world();
    for _ in 0..40 {
        answer(&old, 1000, 5, Outcome::Ok);
    }
    look(&old, &mut Sampler::new(&old));
    let mut new_t = old_t.clone();
    let mut other = new_t.services[0].clone();
    other.name = "other".into();
    other.pools = vec![PoolIx(2)];
    new_t.services.push(other);
    let mut pool = new_t.pools[0].clone();
    (pool.name, pool.service) = ("other/east".into(), ServiceIx(1));
    new_t.pools.push(pool);
    new_t.routes[0].service = ServiceIx(1);
    let new = Cells::build(&new_t, Some((&old_t, &old)));
    assert!(old.pace(R, P).known() && !new.pace(R, PoolIx(2)).known());
    let back = Cells::build(&old_t, Some((&new_t, &new)));
    assert!(!back.pace(R, P).known());
}

#[test]
fn a_pace_is_known_from_thirty_good_answers_on() {
    let (_, c) = world();
    let mut s = Sampler::new(&c);
    for i in 0..29 {
        answer(&c, 1000 + i, 10, Outcome::Ok);
        answer(&c, 1000 + i, 900, Outcome::Status(500));
    }
    look(&c, &mut s);
    assert!(!c.pace(R, P).known());
    answer(&c, 1100, 10, Outcome::Ok);
    look(&c, &mut s);
    let pace = c.pace(R, P);
    assert!(pace.p50 >= ms(10) && pace.p99 < ms(13), "failures are no norm: {pace:?}");
}

#[test]
fn a_known_pace_rises_by_a_tenth_a_second_and_falls_at_once() {
    let e = Estimator::default();
    let mut now = Moment::ms(1000);
    let second = |e: &Estimator, now: &mut Moment, took| {
        (0..100).for_each(|_| e.add(took));
        *now += Duration::from_secs(1);
        e.refresh(*now);
        e.pace().p99
    };
    second(&e, &mut now, ms(10));
    let usual = second(&e, &mut now, ms(10));
    let risen = second(&e, &mut now, ms(1000));
    assert!(risen > usual && risen <= usual.mul_f64(1.11), "{usual:?} {risen:?}");
    let mut seconds = 1;
    while second(&e, &mut now, ms(1000)) < ms(1000) {
        seconds += 1;
        assert!(seconds < 100, "it becomes the norm in the end");
    }
    assert!(seconds > 20, "but not in {seconds} s");
    for _ in 0..65 {
        second(&e, &mut now, ms(10));
    }
    assert!(e.pace().p99 < ms(13));
}

#[test]
fn tokens_add_up_and_are_capped() {
    let t = Tokens::default();
    assert!(!t.take());
    (0..4).for_each(|_| t.grant(0.25, 2.0));
    assert!(t.take() && !t.take());
    t.grant(100.0, 2.0);
    assert!(t.take() && t.take() && !t.take());
}

#[test]
fn points_are_shared_out_within_ten_in_a_thousand() {
    let (_, c) = world();
    for share in [0.01, 0.1, 1.0 / 3.0, 0.5, 0.6, 0.95] {
        let upto = (share * u64::MAX as f64) as u64;
        for _ in 0..50 {
            let hits = (0..1000).filter(|_| c.next_point(TableIx(0)) <= upto).count() as f64;
            assert!((hits - share * 1000.0).abs() <= 10.0, "{share}: {hits}");
        }
    }
}

#[test]
fn an_ejection_counts_once_and_a_good_answer_long_after_it_forgets() {
    let (_, c) = world();
    let e = c.endpoint(E);
    assert_eq!(answer(&c, 1000, 1, Outcome::Status(500)), Streak { failures: 1, hard: false });
    assert_eq!(answer(&c, 1000, 1, Outcome::Reset), Streak { failures: 2, hard: false });
    assert_eq!(answer(&c, 1000, 1, Outcome::Reset), Streak { failures: 3, hard: true });
    assert_eq!(answer(&c, 1000, 1, Outcome::Overload(503)), Streak { failures: 3, hard: true }, "neither good nor bad");
    let now = Moment::ms(2000);
    assert!(e.eject(now, now + ms(500), false));
    assert!(!e.eject(now, now + ms(900), true));
    assert_eq!((e.ejections(), e.ejected_until(), e.out(now)), (1, now + ms(500), true));
    assert!(!e.out(now + ms(500)));
    assert_eq!(answer(&c, 2600, 1, Outcome::Ok), Streak { failures: 0, hard: false });
    assert_eq!(e.ejections(), 1);
    answer(&c, 33_000, 1, Outcome::Ok);
    assert_eq!(e.ejections(), 0);
    e.set_probe_down(true);
    assert!(c.out(E, now + ms(900)));
}

#[test]
fn the_slowest_heart_tells_how_late_we_are() {
    let b = Beats::new(3);
    assert_eq!(b.late(Moment::ms(9000)), ms(0), "workers that have not begun are not late");
    b.beat(0, Moment::ms(5000));
    b.beat(1, Moment::ms(5005));
    assert_eq!(b.late(Moment::ms(5010)), ms(0));
    assert_eq!(b.late(Moment::ms(5050)), ms(40));
    b.gone(0);
    assert_eq!(b.late(Moment::ms(5050)), ms(35));
    b.rest(true);
    b.beat(1, Moment::ms(5050));
    b.rest(false);
    assert_eq!(b.late(Moment::ms(5140)), ms(0), "it rests until it was to beat again");
    assert_eq!(b.late(Moment::ms(5160)), ms(10));
}
