//! Five controllers in worlds of their own, whose views reach each other after twenty milliseconds.

use super::*;
use crate::model::topology::Fleet;
use crate::sense::test_world::{Fault, World, topology};

const EAST: usize = 0;
const WEST: usize = 1;
const EU: usize = 2;
const EDGES: usize = 5;
const LATENCY: u64 = 20;

struct House {
    worlds: Vec<World>,
    wire: Vec<(u64, usize, Report)>,
    last: Vec<(u64, Vec<Opinion>)>,
}

impl House {
    /// Two regions of equal weight and a far one behind them, five seconds of health.
    fn new(verdicts: Verdicts, seed: u64, change: impl Fn(&mut Topology)) -> Self {
        let world = |i: usize| {
            let mut t = topology(&[("east", 1, 100), ("west", 1, 100), ("eu", 2, 100)]);
            t.edge.name = format!("edge-{i}");
            t.fleet = Some(Fleet {
                servers: vec![],
                credentials: None,
                token_file: None,
                ca: None,
                client: None,
                name: "test".into(),
                replicas: 1,
                verdicts,
                lease: Duration::from_secs(5),
            });
            change(&mut t);
            let mut w = World::of(t, &[5, 5, 83], seed * 100 + i as u64);
            w.hear(News::Link { up: true, why: "here".into() });
            w
        };
        let mut h = Self { worlds: (0..EDGES).map(world).collect(), wire: vec![], last: vec![(0, vec![]); EDGES] };
        h.run(5_000);
        h
    }
    fn step(&mut self) {
        for (i, w) in self.worlds.iter_mut().enumerate() {
            w.run(1);
            if !w.now.is_multiple_of(10) {
                continue;
            }
            let now = Moment::ms(w.now);
            let opinions: Vec<Opinion> = (0..3).map(|p| w.c.opinion(now, PoolIx::from(p))).collect();
            if opinions != self.last[i].1 || w.now >= self.last[i].0 + 1_000 {
                let report = w.c.report(now, 1).unwrap();
                self.last[i] = (w.now, opinions);
                self.wire.push((w.now + LATENCY, i, report));
            }
        }
        let now = self.worlds[0].now;
        for (_, from, report) in self.wire.extract_if(.., |(at, ..)| *at <= now) {
            let others = self.worlds.iter_mut().enumerate().filter(|(i, _)| *i != from);
            others.for_each(|(_, w)| w.hear(News::View(report.clone())));
        }
    }
    fn run(&mut self, ms: u64) {
        (0..ms).for_each(|_| self.step());
    }
    fn until(&mut self, most: u64, mut is: impl FnMut(&Self) -> bool) -> u64 {
        for ms in 0..most {
            if is(self) {
                return ms;
            }
            self.step();
        }
        panic!("not within {most} ms: {:?}", self.worlds.iter().map(World::trips).collect::<Vec<_>>());
    }
    fn tripped(&self, pool: usize) -> Vec<usize> {
        (0..EDGES).filter(|i| self.worlds[*i].state(pool) == State::Tripped).collect()
    }
    fn fault(&mut self, edges: std::ops::Range<usize>, pool: usize, fault: Fault) {
        edges.for_each(|i| self.worlds[i].faults[pool] = fault);
    }
    fn status(&self, edge: usize) -> FleetStatus {
        let w = &self.worlds[edge];
        w.c.status(Moment::ms(w.now)).fleet.unwrap()
    }
}

#[test]
fn one_edge_cut_off_moves_alone_and_says_so() {
    for verdicts in [Verdicts::Advise, Verdicts::Follow] {
        let mut h = House::new(verdicts, 1, |_| {});
        assert!(h.status(0).quorum && h.status(0).live == EDGES as u32);
        h.fault(0..1, EAST, Fault::Silent);
        h.until(500, |h| h.tripped(EAST) == [0]);
        h.until(4_000, |h| h.status(0).alone == ["east"]);
        assert_eq!(h.tripped(EAST), [0], "{verdicts:?}");
        let told = |e: &Event| matches!(&e.kind, EventKind::Uplink { on: true, regions, .. } if regions == &["east"]);
        assert_eq!(h.worlds[0].events.iter().filter(|e| told(e)).count(), 1);
        h.fault(0..1, EAST, Fault::None);
        h.until(15_000, |h| h.status(0).alone.is_empty());
        assert!(h.worlds[1..].iter().all(|w| w.trips().is_empty()), "nobody else moved");
    }
}

#[test]
fn three_of_five_move_and_the_others_only_where_they_follow() {
    let mut h = House::new(Verdicts::Advise, 2, |_| {});
    h.fault(0..3, EAST, Fault::Silent);
    h.until(500, |h| h.tripped(EAST) == [0, 1, 2]);
    h.run(4_000);
    assert!(h.worlds[3..].iter().all(|w| w.trips().is_empty()), "advice overrules no success");

    let mut h = House::new(Verdicts::Follow, 2, |_| {});
    h.fault(0..3, EAST, Fault::Silent);
    h.until(700, |h| h.tripped(EAST).len() == EDGES);
    let cause = h.worlds[4].c.status(Moment::ms(h.worlds[4].now)).pools[EAST].cause.clone().unwrap();
    assert!(cause.contains("3 of 5 edges"), "{cause}");
    assert_eq!(h.worlds[4].view(EAST).epoch, 0, "hearsay cuts no connection");
    // They are held out for as long as the majority holds, and come back when it ends.
    h.run(12_000);
    assert_eq!(h.tripped(EAST).len(), EDGES);
    h.fault(0..3, EAST, Fault::None);
    h.until(120_000, |h| h.worlds.iter().all(|w| w.state(EAST) == State::Serving));
    assert!(h.worlds[3..].iter().all(|w| w.failed.is_empty() && w.refused.is_empty()));
}

#[test]
fn a_doubt_that_others_share_is_confirmed_sooner() {
    let alone = {
        let mut h = House::new(Verdicts::Off, 3, |_| {});
        h.fault(0..4, EAST, Fault::Silent);
        h.run(1_000);
        h.fault(4..5, EAST, Fault::Silent);
        h.until(1_000, |h| h.tripped(EAST).len() == EDGES)
    };
    let mut h = House::new(Verdicts::Advise, 3, |_| {});
    h.fault(0..4, EAST, Fault::Silent);
    h.run(1_000);
    assert_eq!(h.tripped(EAST), [0, 1, 2, 3]);
    h.fault(4..5, EAST, Fault::Silent);
    let advised = h.until(1_000, |h| h.tripped(EAST).len() == EDGES);
    assert!(advised * 2 < alone, "{advised} ms, alone {alone} ms");
}

#[test]
fn no_verdict_takes_the_last_region() {
    let mut h = House::new(Verdicts::Follow, 4, |_| {});
    let now = Moment::ms(h.worlds[4].now);
    for i in 0..4 {
        let down = PoolReport { opinion: Opinion::Down, ..Default::default() };
        let pools = ["app/east", "app/west", "app/eu"].map(|p| (p.to_string(), down.clone())).into();
        let report = Report { edge: format!("edge-{i}"), incarnation: 2, seq: 1, pools, ..Default::default() };
        h.worlds[4].hear(News::View(report));
    }
    h.worlds[4].run(500);
    assert!(h.worlds[4].now > now.0 / 1000);
    let open = [EAST, WEST, EU].iter().filter(|p| h.worlds[4].view(**p).open()).count();
    assert_eq!(open, 1, "{:?}", h.worlds[4].trips());
}

#[test]
fn capacity_is_divided_by_demand_and_stays_so_without_a_link() {
    let mut h = House::new(Verdicts::Advise, 5, |t| t.pools[EAST].capacity = Some(500.0));
    let part = |h: &House, i: usize| h.worlds[i].c.portion(ServiceIx(0));
    let sum: f64 = (0..EDGES).map(|i| part(&h, i)).sum();
    assert!((sum - 1.0).abs() < 0.05 && (0..EDGES).all(|i| (part(&h, i) - 0.2).abs() < 0.04), "{sum}");
    // 1,500 a second are offered, and half of them would go east: more than it can take.
    let before: u32 = h.worlds.iter().map(|w| w.sent[EAST]).sum();
    h.run(4_000);
    let rate = f64::from(h.worlds.iter().map(|w| w.sent[EAST]).sum::<u32>() - before) / 4.0;
    assert!((rate - 500.0).abs() < 50.0, "{rate} a second");
    for w in &mut h.worlds {
        w.hear(News::Link { up: false, why: "cut".into() });
    }
    h.worlds.iter_mut().for_each(|w| w.run(20_000));
    assert!(h.status(0).sharing == EDGES as u32 && !h.status(0).quorum);
    assert!((part(&h, 0) - 0.2).abs() < 0.04);
}

#[test]
fn a_region_that_returns_sees_one_step_of_all_traffic() {
    let steps = [0.1, 0.5, 1.0];
    let mut h = House::new(Verdicts::Advise, 6, |t| t.services[0].recovery.steps = steps.to_vec());
    h.fault(0..EDGES, EAST, Fault::Silent);
    h.until(1_000, |h| h.tripped(EAST).len() == EDGES);
    h.run(2_000);
    h.fault(0..EDGES, EAST, Fault::None);
    h.until(60_000, |h| h.worlds.iter().all(|w| w.state(EAST) == State::Ramping));
    let sent = |h: &House| h.worlds.iter().map(|w| (w.sent[EAST], w.sent[EAST] + w.sent[WEST])).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    // Nobody is ahead of anybody by more than a report takes.
    for step in &steps[..2] {
        let on_it = |h: &House| h.worlds.iter().all(|w| (w.view(EAST).share - 0.5 * step).abs() < 0.02);
        h.until(30_000, on_it);
        let (from, mut held) = (sent(&h), 0);
        while on_it(&h) {
            h.step();
            held += 1;
        }
        let to = sent(&h);
        let got = f64::from(to.0 - from.0) / f64::from(to.1 - from.1);
        assert!((got - 0.5 * step).abs() <= 0.2 * 0.5 * step, "{got} of all requests on a step of {}", 0.5 * step);
        assert!(held >= 7_000, "they were on it together for {held} ms of 10 s");
    }
    h.until(20_000, |h| h.worlds.iter().all(|w| w.state(EAST) == State::Serving));
}
