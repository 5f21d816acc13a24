//! Which earlier route takes everything that a later one would: found by host and path, without comparing every route with
//! every other one.

use super::warn::covers;
use crate::model::policy::{Match, PathMatch, Route};
use std::collections::{BTreeMap, BTreeSet};

/// The routes so far, in file order.
#[derive(Default)]
pub(super) struct Earlier<'t> {
    hosts: BTreeMap<Option<&'t str>, Paths<'t>>,
    /// Hosts that begin with a star.
    wild: BTreeSet<&'t str>,
}

/// Routes with the same host condition; ascending in each list.
#[derive(Default)]
struct Paths<'t> {
    any: Vec<usize>,
    exact: BTreeMap<&'t str, Vec<usize>>,
    prefixes: BTreeMap<&'t str, Vec<usize>>,
    /// How long prefixes are: only so long beginnings of a path need be looked up.
    lengths: BTreeSet<usize>,
    expressions: Vec<usize>,
}

impl<'t> Earlier<'t> {
    pub(super) fn add(&mut self, i: usize, m: &'t Match) {
        let host = m.host.as_deref();
        if let Some(wild) = host.filter(|h| h.starts_with('*')) {
            self.wild.insert(wild);
        }
        let paths = self.hosts.entry(host).or_default();
        match &m.path {
            PathMatch::Any => paths.any.push(i),
            PathMatch::Exact(p) => paths.exact.entry(p).or_default().push(i),
            PathMatch::Prefix(p) => {
                paths.lengths.insert(p.len());
                paths.prefixes.entry(p).or_default().push(i);
            }
            PathMatch::Regex(_) => paths.expressions.push(i),
        }
    }

    /// The first of them that matches whatever this one does.
    pub(super) fn covering<'r>(&self, m: &Match, routes: &'r [Route]) -> Option<&'r Route> {
        let host = m.host.as_deref();
        let stars = self.wild.iter().copied().filter(|w| host.is_some_and(|h| h != *w && h.ends_with(&w[1..]))).map(Some);
        let hosts = [host, None].into_iter().take(if host.is_some() { 2 } else { 1 }).chain(stars);
        let first = hosts.filter_map(|h| self.hosts.get(&h)?.covering(m, routes)).min()?;
        Some(&routes[first])
    }
}

impl Paths<'_> {
    fn covering(&self, m: &Match, routes: &[Route]) -> Option<usize> {
        let first = |list: &[usize]| list.iter().copied().find(|i| covers(&routes[*i].matches, m));
        let none = Vec::new();
        let under = |text: &str| self.prefixes.get(text).unwrap_or(&none);
        let (exact, starts) = match &m.path {
            PathMatch::Any | PathMatch::Regex(_) => (&none, vec![under("/")]),
            PathMatch::Prefix(p) => (&none, self.beginnings(p).map(under).collect()),
            PathMatch::Exact(p) => (self.exact.get(p.as_str()).unwrap_or(&none), self.beginnings(p).map(under).collect()),
        };
        [&self.any, exact, &self.expressions].into_iter().chain(starts).filter_map(|list| first(list)).min()
    }

    fn beginnings<'p>(&self, path: &'p str) -> impl Iterator<Item = &'p str> {
        self.lengths.range(..=path.len()).filter_map(|n| path.get(..*n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pair of a set that has them all: hosts, stars, prefixes, exact paths, expressions, methods.
    #[test]
    fn it_finds_what_comparing_everything_with_everything_finds() {
        let mut text = String::from(
            "version: 1\nlisteners: [{address: 127.0.0.1:0}]\nregions: {east: {}}\nservices: {s: {pools: {east: {endpoints: [10.0.0.1:80]}}}}\nroutes:\n",
        );
        let hosts = ["", "host: a.example.com, ", "host: \"*.example.com\", ", "host: b.test, ", "host: \"*.a.example.com\", "];
        let paths = ["path_prefix: /", "path: /a/b", "path_prefix: /a", "path_prefix: /a/b/", "path_regex: \"/a/.*\"", "path: /a/b/c"];
        let mut dice = crate::model::dice::Dice::new(3);
        for n in 0..150 {
            let (host, path) = (hosts[dice.below(5) as usize], paths[dice.below(6) as usize]);
            let method = ["", ", methods: [GET]"][dice.below(2) as usize];
            text += &format!("  - {{name: r{n}, service: s, match: {{{host}{path}{method}}}}}\n");
        }
        let loaded = crate::config::parse(&text, std::path::Path::new("t.yaml")).unwrap_or_else(|p| panic!("{p}"));
        let routes = &loaded.checked.topology.routes;
        let (mut earlier, mut found) = (Earlier::default(), 0);
        for (i, r) in routes.iter().enumerate() {
            let by_index = earlier.covering(&r.matches, routes).map(|e| e.name.clone());
            let by_hand = routes[..i].iter().find(|e| covers(&e.matches, &r.matches)).map(|e| e.name.clone());
            assert_eq!(by_index, by_hand, "{}", r.name);
            found += usize::from(by_hand.is_some());
            earlier.add(i, &r.matches);
        }
        assert!(found > 50 && found < 150, "{found}");
    }
}
