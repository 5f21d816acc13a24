//! Who else is there, and what they say: the edges of a fleet, each with a lease.
//!
//! Three questions are asked of it, and they differ in whom they count:
//!
//! | question | counts | because |
//! |---|---|---|
//! | who speaks? ([`Book::live`]) | heard within the lease | an old view is no view |
//! | is that a majority? ([`Book::quorum`]) | live against *known*: heard within [`KNOWN`] and not gone for good | two edges cut off from a hundred are not the fleet |
//! | among how many is a capacity divided? ([`Book::sharers`]) | live; while the link is down, and a lease after it came back, all who were live when it broke; without a quorum, all heard within [`MISSED`] | silence of our link is no proof that the others stopped sending: the region would get everybody's share from everybody |
//!
//! **Order and lateness.** A report counts if it is of a later life of its edge, or of the same life and not overtaken.
//! One of an earlier life is dropped while the later one's lease holds; after that it is taken for a clock that was set
//! back. Leases run by the hearer's clock from when it hears: clocks of different machines are never compared.
//!
//! **Shares of a capacity** go by demand: each edge's part is its offered rate plus a quarter of the mean, over the sum of
//! that. All edges reckon with the same reported numbers, so the parts add up to one; the quarter keeps a place for an
//! edge whose clients come over in a moment.
//!
//! What it does not do: judge ([`verdict`](super::verdict)), or talk to anybody (room `fleet`).

use crate::model::fleet::{Opinion, Report};
use crate::model::time::{Duration, Moment};
use std::collections::BTreeMap;

/// An edge that fell silent without a farewell is missed for so long.
pub const KNOWN: Duration = Duration::from_secs(600);
/// Without a quorum, capacities go on being divided among those heard within this time: long enough for a switch of networks,
/// short enough that the last edges of a small fleet get what the dead ones no longer use.
pub const MISSED: Duration = Duration::from_secs(60);
/// Of the mean demand, what every edge is given a place for beside its own.
const PLACE: f64 = 0.25;

/// One other edge.
#[derive(Clone, Debug)]
struct Member {
    heard: Moment,
    report: Report,
}

/// All edges this one knows of.
#[derive(Clone, Debug)]
pub struct Book {
    me: String,
    incarnation: u64,
    lease: Duration,
    /// What this edge last told the others.
    mine: Report,
    others: BTreeMap<String, Member>,
    /// Up or down, and since when.
    link: (bool, Moment),
    /// When the link last broke.
    broke: Moment,
    /// Edges at the end of the last life, until there was a link for a lease.
    remembered: u32,
    /// Another process by our name, and when it was last heard.
    double: Option<Moment>,
}

/// Votes on one pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Votes {
    /// Edges that see it down.
    pub down: u32,
    /// In doubt.
    pub suspect: u32,
    /// That see it well.
    pub well: u32,
    /// Live edges, those without an opinion too.
    pub live: u32,
}

impl Votes {
    /// Edges with an opinion.
    pub fn cast(&self) -> u32 {
        self.down + self.suspect + self.well
    }
    /// With one more.
    pub fn with(mut self, o: Opinion) -> Self {
        self.live += 1;
        match o {
            Opinion::Down => self.down += 1,
            Opinion::Suspect => self.suspect += 1,
            Opinion::Well => self.well += 1,
            Opinion::Unknown => {}
        }
        self
    }
}

impl Book {
    /// Nobody else known yet, no link.
    pub fn new(me: &str, lease: Duration, now: Moment) -> Self {
        Self {
            me: me.into(),
            incarnation: 0,
            lease,
            mine: Report::default(),
            others: BTreeMap::new(),
            link: (false, now),
            broke: now,
            remembered: 0,
            double: None,
        }
    }
    /// Another name or lease, after a reload. What is known of others stays.
    pub fn rename(&mut self, me: &str, lease: Duration) {
        self.others.remove(me);
        (self.me, self.lease) = (me.into(), lease);
    }
    /// What this edge tells the others from now on.
    pub fn said(&mut self, report: Report) {
        self.incarnation = report.incarnation;
        self.mine = report;
    }
    /// What this edge told the others last.
    pub fn mine(&self) -> &Report {
        &self.mine
    }
    /// A report came in. False: it was overtaken, or is our own.
    pub fn hear(&mut self, now: Moment, report: Report) -> bool {
        if report.edge == self.me {
            if self.incarnation != 0 && report.incarnation != self.incarnation {
                self.double = Some(now);
            }
            return false;
        }
        if let Some(m) = self.others.get(&report.edge) {
            let (was, is) = ((m.report.incarnation, m.report.seq), (report.incarnation, report.seq));
            let expired = now.since(m.heard) > self.lease;
            if is.0 == was.0 && is.1 <= was.1 || is.0 < was.0 && !expired {
                return false;
            }
        }
        self.others.insert(report.edge.clone(), Member { heard: now, report });
        true
    }
    /// An edge left for good.
    pub fn left(&mut self, edge: &str, incarnation: u64) {
        if self.others.get(edge).is_some_and(|m| m.report.incarnation == incarnation) {
            self.others.remove(edge);
        }
    }
    /// The link opened or broke. True: that is news.
    pub fn link(&mut self, now: Moment, up: bool) -> bool {
        if self.link.0 == up {
            return false;
        }
        if !up {
            // Who was still counted as of the last break goes on being counted: links that flap forget nobody.
            if now.since(self.link.1) >= self.lease {
                self.broke = now;
            }
        }
        self.link = (up, now);
        true
    }
    /// How many edges there were at the end of the last life.
    pub fn remember(&mut self, edges: u32) {
        self.remembered = edges;
    }
    /// Whether the link is up.
    pub fn linked(&self) -> bool {
        self.link.0
    }
    /// Another process calls itself by our name, at present.
    pub fn double(&self, now: Moment) -> bool {
        self.double.is_some_and(|at| now.since(at) <= self.lease * 2)
    }
    /// Forget whom nobody misses any more.
    pub fn prune(&mut self, now: Moment) {
        if self.link.0 && now.since(self.link.1) > self.lease {
            self.others.retain(|_, m| now.since(m.heard) <= KNOWN);
            self.remembered = 0;
        }
    }
    fn is_live(&self, now: Moment, m: &Member) -> bool {
        now.since(m.heard) <= self.lease
    }
    /// The other edges that speak.
    pub fn live(&self, now: Moment) -> impl Iterator<Item = &Report> {
        self.others.values().filter(move |m| self.is_live(now, m)).map(|m| &m.report)
    }
    /// Every other edge known of: its last report, how long ago, and whether it is live.
    pub fn known(&self, now: Moment) -> impl Iterator<Item = (&Report, Duration, bool)> {
        self.others.values().map(move |m| (&m.report, now.since(m.heard), self.is_live(now, m)))
    }
    /// Whether more than half of the edges known of are live, this one among them.
    pub fn quorum(&self, now: Moment) -> bool {
        let known = 1 + self.others.values().filter(|m| now.since(m.heard) <= KNOWN).count();
        self.link.0 && 2 * (1 + self.live(now).count()) > known
    }
    fn shares(&self, now: Moment, m: &Member) -> bool {
        let fresh = self.link.0 && now.since(self.link.1) > self.lease;
        if fresh && self.quorum(now) {
            return self.is_live(now, m);
        }
        if fresh { now.since(m.heard) <= MISSED.max(self.lease) } else { self.is_live(now, m) || self.broke.since(m.heard) <= self.lease }
    }
    /// Among how many edges a pool's capacity is divided, this one among them.
    pub fn sharers(&self, now: Moment) -> u32 {
        let here = 1 + self.others.values().filter(|m| self.shares(now, m)).count() as u32;
        here.max(self.remembered)
    }
    /// This edge's part of what a service's pools can take.
    pub fn portion(&self, now: Moment, service: &str) -> f64 {
        let n = f64::from(self.sharers(now));
        if n <= 1.0 {
            return 1.0;
        }
        let demand = |r: &Report| r.demand.get(service).copied().filter(|d| d.is_finite() && *d > 0.0).unwrap_or(0.0);
        let mine = demand(&self.mine);
        let sum = mine + self.others.values().filter(|m| self.shares(now, m)).map(|m| demand(&m.report)).sum::<f64>();
        if sum <= 0.0 {
            return 1.0 / n;
        }
        let place = PLACE * sum / n;
        (mine + place) / (sum + n * place)
    }
    /// What the other live edges say of a pool.
    pub fn votes(&self, now: Moment, pool: &str) -> Votes {
        let opinion = |r: &Report| r.pools.get(pool).map_or(Opinion::Unknown, |p| p.opinion);
        self.live(now).fold(Votes::default(), |v, r| v.with(opinion(r)))
    }
    /// The fewest ramp steps passed by any live edge where the pool is coming back; `None`: it comes back nowhere else.
    pub fn lowest_rung(&self, now: Moment, pool: &str) -> Option<u32> {
        self.live(now).filter_map(|r| r.pools.get(pool)).filter(|p| p.opinion != Opinion::Down).filter_map(|p| p.rung).min()
    }
}

#[cfg(test)]
mod tests;
