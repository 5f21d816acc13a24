//! Which route a request takes: the first in file order that matches.

use crate::model::id::RouteIx;
use crate::model::topology::Topology;
use crate::model::view::{RequestFacts, Routes};

/// The index over a topology's routes.
#[derive(Debug)]
pub struct Router {
    routes: Vec<crate::model::policy::Match>,
}

impl Router {
    /// Index the routes.
    pub fn build(t: &Topology) -> Self {
        Self { routes: t.routes.iter().map(|r| r.matches.clone()).collect() }
    }
}

/// Whether one route's match holds, part by part.
pub fn matches(m: &crate::model::policy::Match, r: &RequestFacts<'_>) -> bool {
    use crate::model::policy::PathMatch;
    let host = m.host.as_deref().is_none_or(|h| match h.strip_prefix('*') {
        Some(suffix) => r.host.len() > suffix.len() && r.host.ends_with(suffix),
        None => r.host == h,
    });
    let path = match &m.path {
        PathMatch::Any => true,
        PathMatch::Exact(p) => r.path == p,
        PathMatch::Prefix(p) => r.path.starts_with(p.as_str()),
        PathMatch::Regex(e) => e.is_match(r.path),
    };
    host && path
        && (m.methods.is_empty() || m.methods.iter().any(|x| x == r.method))
        && m.headers.iter().all(|(n, v)| r.headers.get(n) == Some(v.as_bytes()))
}

impl Routes for Router {
    fn find(&self, r: &RequestFacts<'_>) -> Option<RouteIx> {
        self.routes.iter().position(|m| matches(m, r)).map(RouteIx::from)
    }
}
