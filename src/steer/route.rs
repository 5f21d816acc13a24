//! Which route a request takes: the first in file order that matches, found without scanning the file.
//!
//! ```text
//! host ──┬─ exact ────────┐        ┌─ exact path: a map
//!        ├─ *.suffix, each ├─▶ by ──┼─ prefixes: predecessor in sorted order, then up the chain of prefixes
//!        └─ any ──────────┘   path  ├─ expressions: one set, tested in one pass
//!                                   └─ any path
//! ```
//!
//! Each of these gives a list of routes in ascending order. The lowest of them all whose other conditions
//! (methods, headers) hold is the answer, and a list that begins above the best found so far is not looked into.
//! So the cost grows with the labels of the host and the nesting of prefixes, not with the number of routes; only
//! routes that differ in nothing but methods and headers are gone through one by one.

use crate::model::id::RouteIx;
use crate::model::policy::{Match, PathMatch};
use crate::model::topology::Topology;
use crate::model::view::{RequestFacts, Routes};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

#[cfg(test)]
mod tests;

/// The index over a topology's routes.
#[derive(Debug, Default)]
pub struct Router {
    hosts: Map<ByPath>,
    /// By what follows the star, the dot included.
    suffixes: Map<ByPath>,
    any: ByPath,
    /// What is left to check, by [`RouteIx`].
    rest: Vec<Rest>,
}

/// The conditions that are not indexed.
#[derive(Debug)]
struct Rest {
    methods: SmallVec<[Box<str>; 2]>,
    /// Names in lower case, and exact values.
    headers: SmallVec<[(Box<str>, Box<str>); 1]>,
}

/// Routes with the same host condition, by path.
#[derive(Debug, Default)]
struct ByPath {
    exact: Map<List>,
    /// Sorted by prefix.
    prefixes: Vec<Prefix>,
    /// Ascending.
    expressions: Vec<(RouteIx, regex::Regex)>,
    /// The same expressions, where they are so many that testing them together is cheaper.
    set: Option<regex::RegexSet>,
    any: List,
}

#[derive(Debug)]
struct Prefix {
    text: Box<str>,
    routes: List,
    /// The longest other prefix that this one begins with.
    parent: Option<u32>,
    /// The lowest route here or further up.
    least: RouteIx,
}

/// Routes in ascending order.
type List = SmallVec<[RouteIx; 2]>;
type Map<T> = HashMap<Box<str>, T, BuildHasherDefault<Fold>>;

/// From this many expressions on a set beats a scan: each costs about 50 ns, a set about as much as ten of them.
const SET_FROM: usize = 12;
/// Memory a set may take; beyond it the expressions are scanned.
const SET_BYTES: usize = 64 << 20;

impl Router {
    /// Index the routes.
    pub fn build(t: &Topology) -> Self {
        Self::over(t.routes.iter().map(|r| &r.matches))
    }

    /// Index matches, the first of them being route 0.
    pub fn over<'m>(matches: impl Iterator<Item = &'m Match>) -> Self {
        let mut router = Self::default();
        for (i, m) in matches.enumerate() {
            let ix = RouteIx::from(i);
            let by_path = match m.host.as_deref() {
                None => &mut router.any,
                Some(host) => match host.strip_prefix('*') {
                    Some(suffix) => router.suffixes.entry(suffix.into()).or_default(),
                    None => router.hosts.entry(host.into()).or_default(),
                },
            };
            by_path.add(ix, &m.path);
            router.rest.push(Rest {
                methods: m.methods.iter().map(|x| x.as_str().into()).collect(),
                headers: m.headers.iter().map(|(n, v)| (n.as_str().into(), v.as_str().into())).collect(),
            });
        }
        router.hosts.values_mut().chain(router.suffixes.values_mut()).chain([&mut router.any]).for_each(ByPath::finish);
        router
    }
}

impl Routes for Router {
    fn find(&self, r: &RequestFacts<'_>) -> Option<RouteIx> {
        let mut best = Best { found: None, rest: &self.rest, request: r };
        if let Some(by_path) = self.hosts.get(r.host) {
            by_path.find(&mut best);
        }
        if !self.suffixes.is_empty() {
            // A star stands for at least one character.
            for (i, _) in r.host.match_indices('.').filter(|(i, _)| *i > 0) {
                if let Some(by_path) = self.suffixes.get(&r.host[i..]) {
                    by_path.find(&mut best);
                }
            }
        }
        self.any.find(&mut best);
        best.found
    }
}

impl ByPath {
    fn add(&mut self, ix: RouteIx, path: &PathMatch) {
        match path {
            PathMatch::Any => self.any.push(ix),
            PathMatch::Exact(p) => self.exact.entry(p.as_str().into()).or_default().push(ix),
            PathMatch::Prefix(p) => {
                self.prefixes.push(Prefix { text: p.as_str().into(), routes: List::from_slice(&[ix]), parent: None, least: ix })
            }
            PathMatch::Regex(e) => self.expressions.push((ix, e.clone())),
        }
    }

    /// Sort and link the prefixes, make the set.
    fn finish(&mut self) {
        self.prefixes.sort_by(|a, b| a.text.cmp(&b.text)); // stable: equal ones stay in file order
        self.prefixes.dedup_by(|later, kept| {
            let same = later.text == kept.text;
            if same {
                kept.routes.append(&mut later.routes);
            }
            same
        });
        let mut open: Vec<usize> = Vec::new(); // the chain of prefixes that the current one begins with
        for i in 0..self.prefixes.len() {
            while open.last().is_some_and(|p| !self.prefixes[i].text.starts_with(&*self.prefixes[*p].text)) {
                open.pop();
            }
            if let Some(&p) = open.last() {
                self.prefixes[i].parent = Some(p as u32);
                self.prefixes[i].least = self.prefixes[i].least.min(self.prefixes[p].least);
            }
            open.push(i);
        }
        if self.expressions.len() >= SET_FROM {
            let patterns = self.expressions.iter().map(|(_, e)| e.as_str());
            self.set = regex::RegexSetBuilder::new(patterns).size_limit(SET_BYTES).build().ok();
        }
    }

    fn find(&self, best: &mut Best<'_>) {
        let path = best.request.path;
        if let Some(list) = self.exact.get(path) {
            best.offer(list); // an empty map does not hash
        }
        // Every prefix of the path is the path's predecessor in sorted order, or one that the predecessor begins with.
        let mut at = self.prefixes.partition_point(|p| *p.text <= *path).checked_sub(1);
        while let Some(p) = at.map(|i| &self.prefixes[i]).filter(|p| best.beats(p.least)) {
            if path.starts_with(&*p.text) {
                best.offer(&p.routes);
            }
            at = p.parent.map(|i| i as usize);
        }
        best.offer(&self.any);
        match &self.set {
            Some(set) if best.beats(self.expressions[0].0) => {
                for i in &set.matches(path) {
                    best.offer(&[self.expressions[i].0]);
                }
            }
            Some(_) => {}
            None => {
                for (ix, e) in &self.expressions {
                    if !best.beats(*ix) {
                        break;
                    }
                    if e.is_match(path) {
                        best.offer(&[*ix]);
                    }
                }
            }
        }
    }
}

/// The lowest route found so far.
struct Best<'a> {
    found: Option<RouteIx>,
    rest: &'a [Rest],
    request: &'a RequestFacts<'a>,
}

impl Best<'_> {
    fn beats(&self, ix: RouteIx) -> bool {
        self.found.is_none_or(|found| ix < found)
    }

    /// The first of an ascending list whose other conditions hold, if it is lower than what was found.
    fn offer(&mut self, list: &[RouteIx]) {
        for ix in list {
            if !self.beats(*ix) {
                return;
            }
            if self.rest[ix.at()].holds(self.request) {
                self.found = Some(*ix);
                return;
            }
        }
    }
}

impl Rest {
    fn holds(&self, r: &RequestFacts<'_>) -> bool {
        (self.methods.is_empty() || self.methods.iter().any(|m| **m == *r.method))
            && self.headers.iter().all(|(name, value)| {
                let mut any = false;
                r.headers.each(name, &mut |v| any |= v == value.as_bytes());
                any
            })
    }
}

/// A quick hash for tables that only the operator fills: eight bytes at a time, folded by multiplication.
#[derive(Debug, Default)]
struct Fold(u64);

impl Hasher for Fold {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let wide = u128::from(self.0 ^ u64::from_le_bytes(word)) * 0xF39C_C060_5CED_C835;
            self.0 = (wide as u64 ^ (wide >> 64) as u64).wrapping_add(0x9E37_79B9_7F4A_7C15);
        }
    }
    #[inline]
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}
