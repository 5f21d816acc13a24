//! The board and the cells that it stands for, told the same things, say the same.

use super::*;
use crate::live::{self, Cells, Sampler, testing};
use crate::model::dice::Dice;
use crate::model::signal::{Hist, PoolTally};

const ALL: [Outcome; 8] = [
    Outcome::Ok,
    Outcome::Status(503),
    Outcome::Overload(429),
    Outcome::Connect,
    Outcome::Timeout,
    Outcome::Reset,
    Outcome::Guard,
    Outcome::Cancelled,
];

/// One random thing after another, done to both; every few of them both are sampled and compared.
fn both_agree(seed: u64) {
    let t = testing::topology(&[("east", 3), ("west", 2)]);
    let (cells, mut board, mut dice) = (Cells::build(&t, None), Board::new(&t), Dice::new(seed));
    let mut sampler = Sampler::new(&cells);
    let mut flights: Vec<(live::Flight<'_>, Flight)> = Vec::new();
    let route = RouteIx(0);
    for step in 0..6_000u64 {
        let now = Moment::ms(1_000 + 7 * step);
        let (pool, endpoint) = (PoolIx(dice.below(2) as u32), EndpointIx(dice.below(5) as u32));
        if flights.is_empty() || dice.chance(0.35) {
            let trial = dice.chance(0.1);
            cells.route(route).arrived();
            board.arrived(route);
            flights.push((cells.begin(route, endpoint, now, trial), board.begin(route, endpoint, now, trial)));
        } else {
            let at = dice.below(flights.len() as u64) as usize;
            let (real, twin) = &mut flights[at];
            match dice.below(12) {
                0 => {
                    real.overdue();
                    board.overdue(twin);
                }
                1 => {
                    real.late();
                    board.late(twin);
                }
                2..=4 => {
                    real.first_byte(now);
                    board.first_byte(twin, now);
                }
                5 => {
                    real.heard(now);
                    board.heard(twin, now);
                }
                6 => {
                    real.park();
                    board.park(twin);
                }
                _ => {
                    let outcome = ALL[dice.below(8) as usize];
                    let (real, twin) = flights.swap_remove(at);
                    let (a, b) = (real.end(now, outcome), board.end(twin, now, outcome));
                    assert_eq!((a.failures, a.hard), b, "seed {seed} step {step}: streaks after {outcome:?}");
                }
            }
        }
        match dice.below(40) {
            0 => {
                cells.contradicted(pool);
                board.contradicted(pool);
            }
            1 => {
                cells.confirmed(pool);
                board.confirmed(pool);
            }
            2 => {
                cells.implausible(pool, step);
                board.implausible(pool, step);
            }
            3 => {
                let (until, hard) = (now + Duration::from_millis(dice.below(500)), dice.chance(0.5));
                cells.endpoint(endpoint).eject(now, until, hard);
                board.eject(endpoint, now, until, hard);
            }
            4 => {
                cells.endpoint(endpoint).restore();
                board.restore(endpoint);
            }
            5 => {
                let down = dice.chance(0.5);
                cells.endpoint(endpoint).set_probe_down(down);
                board.set_probe_down(endpoint, down);
            }
            _ => {}
        }
        let live: [&dyn Live; 2] = [&cells, &board];
        for e in (0..5).map(EndpointIx) {
            let [a, b] = live.map(|l| (l.inflight(e), l.latency(e), l.out(e, now), l.quiet(e, now)));
            assert_eq!(a, b, "seed {seed} step {step}: endpoint {e:?}");
        }
        for p in (0..2).map(PoolIx) {
            let [a, b] = live.map(|l| (l.pool_inflight(p), l.pace(route, p)));
            assert_eq!(a, b, "seed {seed} step {step}: pool {p:?}");
        }
        if step % 9 == 0 {
            let full = dice.chance(0.3);
            let (a, b) = (cells.sample(&mut sampler, now, full, Duration::ZERO), board.sample(now, full, Duration::ZERO));
            assert_eq!(even(a.pools), even(b.pools), "seed {seed} step {step}");
            assert_eq!((a.endpoints, a.requests, a.routes), (b.endpoints, b.requests, b.routes), "seed {seed} step {step}");
        }
    }
}

/// A histogram without counts has its buckets, or has none yet.
fn even(mut pools: Vec<PoolTally>) -> Vec<PoolTally> {
    pools.iter_mut().filter(|p| p.latency.count() == 0).for_each(|p| p.latency = Hist::default());
    pools
}

#[test]
fn the_board_is_the_twin_of_the_cells() {
    (0..20).for_each(both_agree);
}
