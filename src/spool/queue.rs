//! What waits, in which order, and when the next of it may go. Holds no bytes of requests: some 150 bytes a write.
//!
//! **Lanes.** Writes with the same order key stand in one lane, oldest first; only the head of a lane is under way, and one at a time.
//! A head that was put off holds its lane up: what came later must not overtake it. A head that is settled (applied, refused,
//! expired, dropped) makes way.
//!
//! **Gates.** In an outage nothing of a route can be had, and a thousand lanes that all find that out are noise. So every route has a
//! gate: when the proxy itself had to say no (no region, no room, no answer in time), the gate closes for 0.5 s, doubling to 10 s; then one write
//! goes ahead alone, and only an answer of a backend opens the gate. A backend that answers but cannot (5xx, 408, 429) holds up one lane: 1 s,
//! doubling to 5 min. Both with jitter of a fifth.
//!
//! **Rate.** `spool.replay_rate`, divided among the edges of a fleet, saved up for a tenth of a second: a service that has just come back is not to be hit by everything at once.
//!
//! What is settled stays known for a while, so that repeats get the same answer and people can look: applied and dropped writes a day,
//! those that an operator should see a week. A full spool forgets applied ones sooner.

use super::entry::{Entry, Mark, State, cost};
use crate::model::dice::Dice;
use crate::model::time::{Duration, Moment};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// Replays under way at once, at most.
pub const UNDER_WAY: usize = 64;
/// How long a gate stays closed: first and at most.
const GATE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// How long a lane waits after a backend's failing answer: first and at most.
const LANE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
const DAY: u64 = 86_400_000;

/// What came of a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Done, with this status.
    Applied(u16),
    /// Refused for good, with this status.
    Refused(u16),
    /// A backend answered that it cannot now.
    Later(u16),
    /// The proxy had nobody to ask, in words.
    Unreachable(String),
    /// The request on disk is not the one that was accepted.
    Damaged,
}

impl Verdict {
    /// The label of `evenkeel_spool_replays_total{result}`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Applied(_) => "applied",
            Self::Refused(_) => "refused",
            Self::Later(_) => "put_off",
            Self::Unreachable(_) => "unreachable",
            Self::Damaged => "damaged",
        }
    }
    /// Where it leaves a write.
    pub fn state(&self) -> State {
        match self {
            Self::Applied(_) => State::Applied,
            Self::Refused(_) => State::Refused,
            Self::Damaged => State::Damaged,
            Self::Later(_) | Self::Unreachable(_) => State::Pending,
        }
    }
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Replay this one.
    Go(u64),
    /// Nothing before then, unless something happens.
    Wait(Moment),
}

#[derive(Clone, Debug)]
struct Known {
    state: State,
    route: usize,
    order: Mark,
    scope: u64,
    id: u64,
    cost: u64,
    /// When it expires, or is forgotten, Unix time in ms.
    until: u64,
}

#[derive(Debug, Default)]
struct Lane {
    seqs: VecDeque<u64>,
    failures: u32,
    under_way: bool,
    /// When its head may go; meaningless while it is under way.
    due: Moment,
}

#[derive(Debug, Default)]
struct Route {
    /// Lanes whose head is not under way.
    due: BTreeSet<(Moment, Mark)>,
    closed_until: Moment,
    failures: u32,
    under_way: usize,
}

/// The queue.
#[derive(Debug)]
pub struct Queue {
    known: HashMap<u64, Known>,
    ids: HashMap<u64, u64>,
    scopes: HashMap<u64, u64>,
    lanes: HashMap<Mark, Lane>,
    routes: Vec<Route>,
    names: BTreeMap<String, usize>,
    /// Pending ones by the time they expire.
    expiries: BTreeSet<(u64, u64)>,
    /// Settled ones by the time they are forgotten.
    kept: BTreeSet<(u64, u64)>,
    /// By [`State`].
    counts: [usize; 6],
    bytes: u64,
    rate: f64,
    /// Edges that replay towards the same services, this one among them.
    edges: u32,
    tokens: f64,
    filled: Moment,
    under_way: usize,
    last: u64,
    dice: Dice,
}

impl Queue {
    /// Empty, with so many replays a second.
    pub fn new(rate: f64, dice: Dice) -> Self {
        Self {
            known: HashMap::new(),
            ids: HashMap::new(),
            scopes: HashMap::new(),
            lanes: HashMap::new(),
            routes: Vec::new(),
            names: BTreeMap::new(),
            expiries: BTreeSet::new(),
            kept: BTreeSet::new(),
            counts: [0; 6],
            bytes: 0,
            rate,
            edges: 1,
            tokens: 1.0,
            filled: Moment::ZERO,
            under_way: 0,
            last: 0,
            dice,
        }
    }

    /// Among how many edges the rate is divided from now on.
    pub fn set_edges(&mut self, edges: u32) {
        self.edges = edges.max(1);
    }
    /// Replays a second of this edge.
    fn pace(&self) -> f64 {
        self.rate / f64::from(self.edges)
    }
    /// Replays a second from now on, of all edges together.
    pub fn set_rate(&mut self, rate: f64) {
        self.rate = rate;
    }
    /// The number of the next write.
    pub fn next_seq(&self) -> u64 {
        self.last + 1
    }
    /// Numbers up to this one are taken.
    pub fn taken(&mut self, seq: u64) {
        self.last = self.last.max(seq);
    }
    /// Writes in a state.
    pub fn count(&self, state: State) -> usize {
        self.counts[state as usize]
    }
    /// Whether nothing at all is known.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
    /// Room taken on disk.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
    /// Replays under way.
    pub fn under_way(&self) -> usize {
        self.under_way
    }
    /// The write with an id that begins so.
    pub fn by_id(&self, id: &str) -> Option<u64> {
        self.ids.get(&id_key(id)?).copied()
    }
    /// The newest write of a scope whose repeats have their answer.
    pub fn by_scope(&self, scope: &Mark) -> Option<u64> {
        self.scopes.get(&short(scope)).copied()
    }
    /// Whether a write of this order waits or is under way: a newer one has to stand behind it.
    pub fn waits(&self, order: &Mark) -> bool {
        self.lanes.contains_key(order)
    }

    /// An entry that is on disk now, or was read from there.
    pub fn add(&mut self, e: &Entry, now: Moment) {
        self.taken(e.seq);
        let route = self.route(&e.route);
        let id = id_key(&e.id).unwrap_or_default();
        let until = if e.state == State::Pending { e.expires_at } else { forgotten_at(e) };
        let known = Known { state: e.state, route, order: e.order, scope: short(&e.scope), id, cost: e.cost(), until };
        self.ids.insert(id, e.seq);
        if e.state.answers_repeats() {
            self.scopes.insert(known.scope, e.seq);
        }
        self.counts[e.state as usize] += 1;
        self.bytes += known.cost;
        if e.state == State::Pending {
            self.expiries.insert((until, e.seq));
            self.enqueue(e.order, route, e.seq, now);
        } else {
            self.kept.insert((until, e.seq));
        }
        self.known.insert(e.seq, known);
    }

    fn route(&mut self, name: &str) -> usize {
        if let Some(i) = self.names.get(name) {
            return *i;
        }
        self.routes.push(Route::default());
        self.names.insert(name.to_owned(), self.routes.len() - 1);
        self.routes.len() - 1
    }

    fn enqueue(&mut self, order: Mark, route: usize, seq: u64, now: Moment) {
        let lane = self.lanes.entry(order).or_default();
        // An old one that an operator sends on its way again goes back to its place.
        let at = lane.seqs.partition_point(|s| *s < seq);
        // Nothing goes before what is under way.
        let at = if lane.under_way { at.max(1) } else { at };
        let head = at == 0;
        lane.seqs.insert(at, seq);
        if head {
            self.routes[route].due.remove(&(lane.due, order));
            lane.due = now;
            self.routes[route].due.insert((now, order));
        }
    }

    /// What to replay next. It is under way until [`Queue::done`].
    pub fn next(&mut self, now: Moment) -> Next {
        let burst = (self.pace() / 10.0).max(1.0);
        self.tokens = (self.tokens + now.since(self.filled).as_secs_f64() * self.pace()).min(burst);
        self.filled = now;
        if self.under_way >= UNDER_WAY {
            return Next::Wait(Moment::FAR);
        }
        let mut soonest = Moment::FAR;
        let mut found: Option<(Moment, usize, Mark)> = None;
        for (i, r) in self.routes.iter().enumerate() {
            let Some((due, order)) = r.due.first() else { continue };
            let due = (*due).max(r.closed_until);
            // Behind a gate that was closed one goes ahead, alone.
            if r.failures > 0 && r.under_way > 0 {
                continue;
            }
            if due > now {
                soonest = soonest.min(due);
            } else if found.is_none_or(|(d, ..)| due < d) {
                found = Some((due, i, *order));
            }
        }
        let Some((_, route, order)) = found else { return Next::Wait(soonest) };
        if self.tokens < 1.0 {
            return Next::Wait(now + Duration::from_secs_f64((1.0 - self.tokens) / self.pace()).max(Duration::from_millis(1)));
        }
        let Some(lane) = self.lanes.get_mut(&order) else { return Next::Wait(soonest) };
        let Some(seq) = lane.seqs.front().copied() else { return Next::Wait(soonest) };
        self.tokens -= 1.0;
        lane.under_way = true;
        self.routes[route].due.remove(&(lane.due, order));
        self.routes[route].under_way += 1;
        self.under_way += 1;
        Next::Go(seq)
    }

    /// A replay came to its end; true: the write is settled by it, and [`Queue::settle`] is to be told before anything else is asked.
    pub fn done(&mut self, seq: u64, verdict: &Verdict, now: Moment) -> bool {
        let Some(known) = self.known.get(&seq) else { return false };
        let (route, order) = (known.route, known.order);
        self.under_way = self.under_way.saturating_sub(1);
        let r = &mut self.routes[route];
        r.under_way = r.under_way.saturating_sub(1);
        match verdict {
            Verdict::Unreachable(_) => {
                r.failures += 1;
                r.closed_until = now + pause(GATE, r.failures, &mut self.dice);
            }
            _ => (r.failures, r.closed_until) = (0, Moment::ZERO),
        }
        let Some(lane) = self.lanes.get_mut(&order) else { return false };
        lane.under_way = false;
        lane.due = now;
        match verdict {
            Verdict::Later(_) => {
                lane.failures += 1;
                lane.due = now + pause(LANE, lane.failures, &mut self.dice);
            }
            Verdict::Unreachable(_) => {}
            _ => lane.failures = 0,
        }
        r.due.insert((lane.due, order));
        debug_assert!(!lane.seqs.is_empty(), "what is under way is neither dropped nor forgotten");
        verdict.state() != State::Pending && known.state == State::Pending
    }

    /// A write that waited stands elsewhere now.
    pub fn settle(&mut self, e: &Entry, now: Moment) {
        let Some(known) = self.known.get_mut(&e.seq) else { return };
        let (was, order, route) = (known.state, known.order, known.route);
        self.counts[was as usize] -= 1;
        self.counts[e.state as usize] += 1;
        self.bytes = self.bytes - known.cost + e.cost();
        let until = if e.state == State::Pending { e.expires_at } else { forgotten_at(e) };
        if was == State::Pending { &mut self.expiries } else { &mut self.kept }.remove(&(known.until, e.seq));
        if e.state == State::Pending { &mut self.expiries } else { &mut self.kept }.insert((until, e.seq));
        (known.state, known.cost, known.until) = (e.state, e.cost(), until);
        let scope = known.scope;
        if e.state.answers_repeats() {
            self.scopes.entry(scope).or_insert(e.seq);
        } else if self.scopes.get(&scope) == Some(&e.seq) {
            self.scopes.remove(&scope);
        }
        match (was, e.state) {
            (State::Pending, State::Pending) => {}
            (State::Pending, _) => self.leave(order, route, e.seq),
            (_, State::Pending) => self.enqueue(order, route, e.seq, now),
            _ => {}
        }
    }

    fn leave(&mut self, order: Mark, route: usize, seq: u64) {
        let Some(lane) = self.lanes.get_mut(&order) else { return };
        lane.seqs.retain(|s| *s != seq);
        if lane.seqs.is_empty() && !lane.under_way {
            self.routes[route].due.remove(&(lane.due, order));
            self.lanes.remove(&order);
        }
    }

    /// A write is gone from disk.
    pub fn forget(&mut self, seq: u64) {
        let Some(known) = self.known.remove(&seq) else { return };
        self.counts[known.state as usize] -= 1;
        self.bytes -= known.cost;
        self.expiries.remove(&(known.until, seq));
        self.kept.remove(&(known.until, seq));
        if self.ids.get(&known.id) == Some(&seq) {
            self.ids.remove(&known.id);
        }
        if self.scopes.get(&known.scope) == Some(&seq) {
            self.scopes.remove(&known.scope);
        }
        if known.state == State::Pending {
            self.leave(known.order, known.route, seq);
        }
    }

    /// Whether a write is being replayed right now.
    pub fn is_under_way(&self, seq: u64) -> bool {
        let lane = self.known.get(&seq).and_then(|k| self.lanes.get(&k.order));
        lane.is_some_and(|l| l.under_way && l.seqs.front() == Some(&seq))
    }

    /// Pending writes whose time is over, but for those under way.
    pub fn expired(&self, wall: u64, most: usize) -> Vec<u64> {
        let over = self.expiries.iter().take_while(|(until, _)| *until <= wall).map(|(_, seq)| *seq);
        over.filter(|seq| !self.is_under_way(*seq)).take(most).collect()
    }

    /// Settled writes that were known for long enough.
    pub fn forgotten(&self, wall: u64, most: usize) -> Vec<u64> {
        self.kept.iter().take_while(|(until, _)| *until <= wall).map(|(_, seq)| *seq).take(most).collect()
    }

    /// Applied writes to forget so that `more` bytes fit within `max`; `None`: that is not enough.
    pub fn room(&self, more: u64, max: u64) -> Option<Vec<u64>> {
        let mut over = (self.bytes + more).saturating_sub(max);
        let mut go = Vec::new();
        for (_, seq) in &self.kept {
            if over == 0 {
                break;
            }
            if let Some(known) = self.known.get(seq).filter(|k| matches!(k.state, State::Applied | State::Dropped)) {
                over = over.saturating_sub(known.cost);
                go.push(*seq);
            }
        }
        (over == 0).then_some(go)
    }

    /// Everything that waits may go now: an operator says that things are well again.
    pub fn hurry(&mut self, now: Moment) {
        for r in &mut self.routes {
            (r.failures, r.closed_until) = (0, Moment::ZERO);
            let due: Vec<_> = r.due.iter().map(|(_, order)| *order).collect();
            r.due = due.iter().map(|order| (now, *order)).collect();
            for order in &due {
                if let Some(lane) = self.lanes.get_mut(order) {
                    (lane.due, lane.failures) = (now, 0);
                }
            }
        }
    }

    /// The numbers of all that wait, oldest first.
    pub fn pending(&self) -> Vec<u64> {
        let mut all: Vec<u64> = self.expiries.iter().map(|(_, seq)| *seq).collect();
        all.sort_unstable();
        all
    }
}

/// When a settled write is forgotten, Unix time in ms.
fn forgotten_at(e: &Entry) -> u64 {
    e.settled_at + if matches!(e.state, State::Applied | State::Dropped) { DAY } else { 7 * DAY }
}

fn short(mark: &Mark) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&mark[..8]);
    u64::from_be_bytes(first)
}

fn id_key(id: &str) -> Option<u64> {
    u64::from_str_radix(id.get(..16)?, 16).ok()
}

fn pause((first, most): (Duration, Duration), failures: u32, dice: &mut Dice) -> Duration {
    let plain = first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(most);
    plain.mul_f64(0.8 + 0.4 * dice.unit())
}

/// Whether a write of so many bytes could ever be kept.
pub fn fits(bytes: u64, max: u64) -> bool {
    cost(bytes) <= max
}

#[cfg(test)]
mod tests;
