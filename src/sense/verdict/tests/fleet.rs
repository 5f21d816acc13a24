//! A fleet on paper: edges with eyes of their own, clocks that disagree, and a wire that loses, delays, repeats and splits.
//! What each edge does is [`advise`] over its [`Book`]; what must hold is asserted while it runs.

use super::*;
use crate::model::dice::Dice;
use crate::model::fleet::{PoolReport, Report};
use crate::model::time::{Duration, Moment};
use crate::sense::book::Book;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

const POOL: &str = "app/east";
const LEASE: u64 = 5_000;
const HEARTBEAT: u64 = 1_000;
const STEP: u64 = 50;
/// The latest that the wire delivers.
const LATEST: u64 = 900;

struct Edge {
    name: String,
    book: Book,
    alive: bool,
    incarnation: u64,
    seq: u64,
    /// Its clock: ahead by so much, and so much faster.
    skew: (u64, f64),
    /// Its way to the region is cut since.
    cut: Option<u64>,
    /// It sees that after so long, ms: a doubt first, then certainty.
    slow: (u64, u64),
    /// The way is open again since.
    open: u64,
    /// A passing doubt of its own until.
    hiccup: u64,
    told: Opinion,
    next: u64,
    /// Took the region out, and for what.
    moved: Option<Advice>,
}

impl Edge {
    fn clock(&self, t: u64) -> Moment {
        Moment(((t + self.skew.0) as f64 * 1000.0 * self.skew.1) as u64)
    }
    fn own(&self, t: u64) -> Own {
        let since = self.cut.map(|c| t.saturating_sub(c));
        let opinion = match since {
            Some(s) if s >= self.slow.1 => Opinion::Down,
            Some(s) if s >= self.slow.0 => Opinion::Suspect,
            _ if t < self.hiccup || t < self.open => Opinion::Suspect,
            _ => Opinion::Well,
        };
        Own { opinion, doubts: since.is_some_and(|s| s >= self.slow.0) || t < self.hiccup, experiment: false }
    }
}

struct Fleet {
    t: u64,
    mode: Verdicts,
    edges: Vec<Edge>,
    /// On the wire: when it arrives, at whom, from whom (by index into `letters`).
    wire: std::collections::BinaryHeap<Reverse<(u64, usize, usize)>>,
    letters: Vec<(usize, Report)>,
    dice: Dice,
    loss: f64,
    /// Which side of a split network each edge is on.
    side: Vec<u8>,
    /// When each edge last said down by its own eyes.
    said_down: Vec<Option<u64>>,
    most: f64,
}

impl Fleet {
    fn new(n: usize, mode: Verdicts, loss: f64, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let edge = |i: usize, dice: &mut Dice| {
            let name = format!("e{i}");
            let skew = (1_000 + dice.below(3_600_000), 1.0 + (dice.unit() - 0.5) * 1e-3);
            let slow = (40 + dice.below(100), 300 + dice.below(700));
            let mut e = Edge {
                book: Book::new(&name, Duration::from_millis(LEASE), Moment::ms(1)),
                name,
                alive: true,
                incarnation: 1 + dice.below(1_000_000),
                seq: 0,
                skew,
                cut: None,
                slow,
                open: 0,
                hiccup: 0,
                told: Opinion::Unknown,
                next: dice.below(HEARTBEAT),
                moved: None,
            };
            e.book.link(e.clock(0), true);
            e
        };
        let edges = (0..n).map(|i| edge(i, &mut dice)).collect();
        let wire = Default::default();
        Self { t: 0, mode, edges, wire, letters: vec![], dice, loss, side: vec![0; n], said_down: vec![None; n], most: 0.0 }
    }

    fn speak(&mut self, i: usize) {
        let opinion = self.edges[i].own(self.t).opinion;
        let e = &mut self.edges[i];
        e.seq += 1;
        (e.told, e.next) = (opinion, self.t + HEARTBEAT);
        let pools = BTreeMap::from([(POOL.to_string(), PoolReport { opinion, ..Default::default() })]);
        let demand = BTreeMap::from([("app".to_string(), 100.0)]);
        let report = Report { edge: e.name.clone(), incarnation: e.incarnation, seq: e.seq, demand, pools };
        e.book.said(report.clone());
        self.letters.push((i, report));
        for to in (0..self.edges.len()).filter(|to| *to != i) {
            let copies = if self.dice.chance(self.loss) { 0 } else { 1 + u64::from(self.dice.chance(0.02)) };
            for _ in 0..copies {
                let tail = if self.dice.chance(0.1) { LATEST - 20 } else { 20 };
                let at = self.t + 1 + self.dice.below(tail);
                self.wire.push(Reverse((at, to, self.letters.len() - 1)));
            }
        }
    }

    fn step(&mut self) {
        self.t += STEP;
        while let Some(Reverse((at, to, letter))) = self.wire.peek().copied().filter(|Reverse((at, ..))| *at <= self.t) {
            self.wire.pop();
            let (from, report) = &self.letters[letter];
            if self.edges[to].alive && self.side[to] == self.side[*from] {
                let now = self.edges[to].clock(at);
                self.edges[to].book.hear(now, report.clone());
            }
        }
        for i in 0..self.edges.len() {
            if !self.edges[i].alive {
                continue;
            }
            if self.dice.chance(0.002) {
                self.edges[i].hiccup = self.t + 50 + self.dice.below(200);
            }
            let own = self.edges[i].own(self.t);
            if own.opinion == Opinion::Down {
                self.said_down[i] = Some(self.t);
            }
            if own.opinion != self.edges[i].told || self.t >= self.edges[i].next {
                self.speak(i);
            }
            self.decide(i, own);
        }
        if self.t.is_multiple_of(1_000) {
            let parts = self.edges.iter().filter(|e| e.alive).map(|e| e.book.portion(e.clock(self.t), "app"));
            self.most = self.most.max(if self.t > 3_000 { parts.sum() } else { 0.0 });
        }
    }

    fn decide(&mut self, i: usize, own: Own) {
        let e = &self.edges[i];
        // Every edge looks at every change of its own eyes, and at the others' from time to time.
        if !own.doubts && !(self.t / STEP + i as u64).is_multiple_of(4) {
            return;
        }
        let now = e.clock(self.t);
        let (votes, quorum) = (e.book.votes(now, POOL), e.book.quorum(now));
        let advice = advise(self.mode, &votes, quorum, own);
        let by_own_eyes = own.opinion == Opinion::Down;
        if matches!(advice, Advice::Follow | Advice::Confirm) && !by_own_eyes {
            let recent = |d: &Option<u64>| d.is_some_and(|d| self.t - d <= LEASE + LATEST + HEARTBEAT);
            let really = self.said_down.iter().enumerate().filter(|(j, d)| *j != i && recent(d)).count();
            assert!(really as u32 >= votes.down, "{}: {} counted as down, {really} were", e.name, votes.down);
            let minority = 2 * self.side.iter().filter(|s| **s == self.side[i]).count() < self.edges.len();
            assert!(!minority || self.t < self.settled(), "{}: follows in a minority", e.name);
        }
        if advice == Advice::Follow {
            assert_eq!(self.mode, Verdicts::Follow);
        }
        if advice == Advice::Confirm {
            assert!(own.doubts, "{}: moved against its own success", e.name);
        }
        self.edges[i].moved = match advice {
            Advice::Follow | Advice::Confirm => Some(advice),
            _ => by_own_eyes.then_some(Advice::Own),
        };
    }

    /// From when on a split has come through to every book.
    fn settled(&self) -> u64 {
        SPLIT + LEASE + LATEST
    }
    fn run(&mut self, until: u64) {
        while self.t < until {
            self.step();
        }
    }
    fn cut(&mut self, which: impl IntoIterator<Item = usize>) {
        which.into_iter().for_each(|i| self.edges[i].cut = Some(self.t));
    }
    fn heal(&mut self) {
        for e in self.edges.iter_mut().filter(|e| e.cut.is_some()) {
            (e.cut, e.open) = (None, self.t + 1_000);
        }
    }
    fn moved(&self) -> BTreeSet<usize> {
        (0..self.edges.len()).filter(|i| self.edges[*i].alive && self.edges[*i].moved.is_some()).collect()
    }
    /// Everybody knows everybody who is there, and parts add up to one.
    fn agree(&self) {
        let alive = self.edges.iter().filter(|e| e.alive).count();
        let mut sum = 0.0;
        for e in self.edges.iter().filter(|e| e.alive) {
            let now = e.clock(self.t);
            assert_eq!(e.book.live(now).count() + 1, alive, "{} at {}", e.name, self.t);
            sum += e.book.portion(now, "app");
        }
        assert!((sum - 1.0).abs() < 0.02, "parts add up to {sum}");
    }
}

/// When the network splits, where it does.
const SPLIT: u64 = 10_000;

#[test]
fn one_edge_cut_off_from_a_region_moves_alone() {
    for seed in 0..3 {
        for mode in [Verdicts::Advise, Verdicts::Follow] {
            let mut f = Fleet::new(100, mode, 0.2, seed);
            f.run(5_000);
            f.cut([7]);
            f.run(10_000);
            assert_eq!(f.moved(), BTreeSet::from([7]), "seed {seed} {mode:?}");
            let e = &f.edges[7];
            let now = e.clock(f.t);
            assert!(is_alone(&e.book.votes(now, POOL), e.book.quorum(now), Opinion::Down));
        }
    }
}

#[test]
fn three_of_five_move_and_the_others_only_where_they_follow() {
    for seed in 0..4 {
        for mode in [Verdicts::Advise, Verdicts::Follow] {
            let mut f = Fleet::new(100, mode, 0.2, seed);
            f.run(5_000);
            f.cut(0..60);
            f.run(6_100);
            let here: BTreeSet<usize> = (0..60).collect();
            assert!(f.moved().is_superset(&here), "seed {seed}: with their own eyes, within 1.1 s");
            f.run(10_000);
            let want: BTreeSet<usize> = if mode == Verdicts::Follow { (0..100).collect() } else { here };
            // Who has a hiccup at this very moment is confirmed in it: that is what advice is for.
            let lasting: BTreeSet<usize> =
                f.moved().into_iter().filter(|i| want.contains(i) || f.t >= f.edges[*i].hiccup + 4 * STEP).collect();
            assert_eq!(lasting, want, "seed {seed} {mode:?}");
            f.heal();
            f.run(18_000);
            assert_eq!(f.moved(), BTreeSet::new(), "seed {seed} {mode:?}: well again");
            f.loss = 0.0;
            f.run(f.t + 2 * HEARTBEAT);
            f.agree();
        }
    }
}

#[test]
fn advice_makes_the_slow_ones_quicker() {
    // The slowest to be certain by themselves take 1 s; confirmed they are at it in less.
    let sum = |mode| {
        let mut late = 0;
        for seed in 0..4 {
            let mut f = Fleet::new(100, mode, 0.0, seed);
            f.run(5_000);
            f.cut(0..100);
            while f.moved().len() < 100 {
                f.step();
            }
            late += f.t - 5_000;
        }
        late / 4
    };
    let (alone, advised) = (sum(Verdicts::Off), sum(Verdicts::Advise));
    assert!(advised + 200 <= alone, "{advised} ms, alone {alone} ms");
}

#[test]
fn a_minority_of_a_split_fleet_keeps_to_its_own_eyes() {
    for seed in 0..6 {
        let mut f = Fleet::new(50, Verdicts::Follow, 0.1, seed);
        f.run(SPLIT);
        (0..20).for_each(|i| f.side[i] = 1);
        f.run(f.settled());
        // In the minority, most lose the region: theirs is no majority of the fleet.
        f.cut(0..15);
        f.run(f.t + 5_000);
        assert_eq!(f.moved(), (0..15).collect(), "seed {seed}");
        f.side.fill(0);
        f.heal();
        f.run(f.t + 8_000);
        assert_eq!(f.moved(), BTreeSet::new());
        f.agree();
        assert!(f.most < 1.5, "seed {seed}: {} of a capacity, while the fleet was split", f.most);
    }
}

#[test]
fn edges_that_come_and_go_are_counted_right_in_the_end() {
    for seed in 0..10 {
        let mut f = Fleet::new(30, Verdicts::Follow, 0.3, seed);
        let mut dice = Dice::new(seed ^ 0xfade);
        while f.t < 40_000 {
            f.run(f.t + 500);
            let i = dice.below(30) as usize;
            if f.edges[i].alive && dice.chance(0.5) {
                f.edges[i].alive = false;
                if dice.chance(0.5) {
                    let (name, life) = (f.edges[i].name.clone(), f.edges[i].incarnation);
                    f.edges.iter_mut().for_each(|e| e.book.left(&name, life));
                }
            } else if !f.edges[i].alive {
                let t = f.t;
                let e = &mut f.edges[i];
                // Sometimes on a machine whose clock was set back.
                e.incarnation = if dice.chance(0.2) { e.incarnation / 2 } else { e.incarnation + 1 + dice.below(1_000) };
                (e.alive, e.seq, e.next) = (true, 0, t);
                e.book = Book::new(&e.name, Duration::from_millis(LEASE), e.clock(t));
                e.book.link(e.clock(t), true);
            }
        }
        assert_eq!(f.moved(), BTreeSet::new(), "seed {seed}: nobody saw anything down");
        f.loss = 0.0;
        f.run(f.t + 2 * LEASE + HEARTBEAT);
        f.agree();
    }
}

#[test]
fn the_same_seed_is_the_same_fleet() {
    let run = || {
        let mut f = Fleet::new(20, Verdicts::Follow, 0.3, 42);
        f.run(5_000);
        f.cut(0..12);
        f.run(9_000);
        (f.moved(), f.letters.len(), f.most.to_bits())
    };
    assert_eq!(run(), run());
}
