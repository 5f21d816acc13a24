//! Routes, and the share tables they need.

use super::super::file::{self, route as raw};
use super::super::problem::{Path, nearest};
use super::Checker;
use super::service::Services;
use crate::model::id::*;
use crate::model::policy::*;
use crate::model::topology::{Region, Table};
use http::{HeaderName, HeaderValue};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"];
/// Fields that belong to one connection, not to the message (RFC 9110 section 7.6.1), or frame it.
const HOP: [&str; 9] =
    ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "content-length", "host"];

/// A third, in whole milliseconds.
fn third(deadline: Duration) -> Duration {
    Duration::from_millis((deadline.as_micros() as u64 / 3000).max(1))
}

impl Checker<'_> {
    /// The routes, and the share tables: first the unrestricted one of each service, in order of services, then one for
    /// each other set of regions that a route of the service is restricted to.
    pub(super) fn routes(
        &mut self,
        file: &file::File,
        default: Option<&[String]>,
        regions: &[Region],
        services: &Services,
    ) -> (Vec<Route>, Vec<Table>) {
        let at = Path::of("routes");
        self.require(!file.routes.is_empty(), &at, "no route: every request would get 404\nadd one: routes: [{name: all, service: app}]");
        let known = self.tree.find(&Path::of("services")).map(|n| n.keys()).unwrap_or_default();
        let everywhere = RegionSet::all(regions.len());
        let mut tables: Vec<Table> =
            (0..services.services.len()).map(|s| Table { service: ServiceIx::from(s), allowed: everywhere }).collect();
        let mut routes: Vec<Route> = vec![];
        let mut names = BTreeSet::new();
        let places: BTreeMap<&str, usize> = services.services.iter().enumerate().rev().map(|(i, s)| (&*s.name, i)).collect();
        for (at, r) in self.items(&at, &file.routes) {
            let name = r.name.clone().unwrap_or_default();
            match &r.name {
                None => self.error(&at.key("name"), "`name` is missing\nmetrics and reports call the route by it"),
                Some(name) => {
                    self.name(&at.key("name"), "route", name);
                    let twice = !names.insert(name.as_str());
                    self.require(!twice, &at.key("name"), format!("a route `{name}` is there already\ngive one of them another name"));
                }
            }
            let service = if r.service.is_empty() {
                self.error(&at.key("service"), "`service` is missing\nit names where the requests of this route go");
                None
            } else if self.refers(&at.key("service"), false, "service", &r.service, &known) {
                places.get(r.service.as_str()).copied()
            } else {
                None
            };
            let (residency, allowed) = self.residency(&at, r, default, regions);
            let table = service.map(|s| self.table(&at, s, allowed, services, &mut tables));
            routes.push(self.route(
                &at,
                r,
                name.into(),
                (ServiceIx::from(service.unwrap_or(0)), table.unwrap_or(TableIx(0))),
                (residency, allowed),
            ));
        }
        (routes, tables)
    }

    fn residency(
        &mut self,
        at: &Path,
        r: &raw::Route,
        default: Option<&[String]>,
        regions: &[Region],
    ) -> (Option<Vec<Arc<str>>>, RegionSet) {
        let Some(list) = r.residency.as_deref().or(default) else { return (None, RegionSet::all(regions.len())) };
        let here = if r.residency.is_some() { at.key("residency") } else { Path::of("edge").key("residency_default") };
        let mut known: Vec<&str> = regions.iter().filter_map(|r| r.jurisdiction.as_deref()).collect();
        known.sort_unstable();
        known.dedup();
        let strange = |(_, j): &(usize, &String)| !known.contains(&j.as_str());
        for (i, j) in list.iter().enumerate().filter(strange).filter(|_| list.iter().any(|j| known.contains(&j.as_str()))) {
            let meant = nearest(j, known.iter().copied()).map_or(String::new(), |n| format!("\ndid you mean `{n}`?"));
            self.warn(&here.at(i), format!("no region has the jurisdiction `{j}`\nthere are: {}{meant}", known.join(", ")));
        }
        let lawful = |r: &&Region| r.jurisdiction.as_ref().is_some_and(|j| list.iter().any(|l| **l == **j));
        let allowed = (0..).map(RegionIx).zip(regions).filter(|(_, r)| lawful(r)).fold(RegionSet::EMPTY, |set, (ix, _)| set.with(ix));
        if allowed.is_empty() && !regions.is_empty() {
            self.error(
                &here,
                format!("no region may serve this: none has a jurisdiction of [{}]\nthere are: {}", list.join(", "), known.join(", ")),
            );
        }
        (Some(list.iter().map(|j| j.as_str().into()).collect()), allowed)
    }

    fn table(&mut self, at: &Path, service: usize, allowed: RegionSet, services: &Services, tables: &mut Vec<Table>) -> TableIx {
        let s = &services.services[service];
        if !allowed.is_empty() && !s.pools.is_empty() && !s.pools.iter().any(|p| allowed.has(services.pools[p.at()].region)) {
            let key = if self.tree.find(&at.key("residency")).is_some() { "residency" } else { "service" };
            self.error(
                &at.key(key),
                format!("service {} has no pool in a region that may serve this route\nadd one, or widen the residency", s.name),
            );
        }
        let service = ServiceIx::from(service);
        let found = tables.iter().position(|t| t.service == service && t.allowed == allowed);
        TableIx::from(found.unwrap_or_else(|| {
            tables.push(Table { service, allowed });
            tables.len() - 1
        }))
    }

    fn route(
        &mut self,
        at: &Path,
        r: &raw::Route,
        name: Arc<str>,
        (service, table): (ServiceIx, TableIx),
        (residency, allowed): (Option<Vec<Arc<str>>>, RegionSet),
    ) -> Route {
        let deadline = r.deadline.0;
        let attempt_timeout = r.attempt_timeout.map_or_else(|| third(deadline), |s| s.0);
        for (key, time) in [("deadline", Some(r.deadline)), ("attempt_timeout", r.attempt_timeout), ("idle_timeout", Some(r.idle_timeout))]
        {
            self.require(time.is_none_or(|t| !t.0.is_zero()), &at.key(key), "0 would fail every request\nallowed: more than 0");
        }
        if let Some(hedge) = &r.hedge {
            let zero = matches!(hedge.after.0, HedgeAfter::Fixed(d) if d.is_zero());
            self.require(
                !zero,
                &at.key("hedge").key("after"),
                "0 would send everything twice\nallowed: a percentile (p95) or a time above 0",
            );
        }
        Route {
            name,
            matches: self.matches(&at.key("match"), &r.r#match),
            service,
            table,
            priority: match r.priority {
                raw::Priority::Critical => Priority::Critical,
                raw::Priority::Normal => Priority::Normal,
                raw::Priority::Sheddable => Priority::Sheddable,
            },
            residency,
            allowed,
            deadline,
            attempt_timeout,
            idle_timeout: r.idle_timeout.0,
            retry: self.retry(&at.key("retry"), &r.retry),
            hedge: r.hedge.as_ref().map(|h| Hedge { after: h.after.0, budget: h.budget.0 }),
            request_headers: readable(self.headers(&at.key("request_headers"), &r.request_headers), !r.guards.is_empty()),
            response_headers: self.headers(&at.key("response_headers"), &r.response_headers),
            rewrite: r.rewrite.as_ref().map(|w| self.rewrite(&at.key("rewrite"), w)),
            guards: self.guards(&at.key("guards"), &r.guards),
            degrade: self.degrade(&at.key("degrade"), &r.degrade),
            slo: r.slo.as_ref().map(|s| Slo { success: s.success.map(|r| r.0), latency: s.latency.map(|l| (l.0, l.1)) }),
        }
    }

    /// What the spool needs of its route: a backend that deduplicates, and an edge that may hold the data.
    pub(super) fn spooled(&mut self, file: &file::File, residency_default: Option<&[String]>) {
        let here = file.edge.jurisdiction.as_deref();
        for (at, r) in self.items(&Path::of("routes"), &file.routes) {
            let spool = r.degrade.iter().position(|d| matches!(d, raw::Degrade::Spool(_)));
            let Some(at_spool) = spool.map(|i| at.key("degrade").at(i).key("spool")) else { continue };
            if r.retry.writes != raw::Writes::IdempotencyKey {
                let known = at.key("retry").key("writes");
                let place = if self.tree.find(&known).is_some() { known } else { at_spool.clone() };
                self.error(
                    &place,
                    "a spooled write may reach the backend more than once, which only a backend that deduplicates makes one\n\
                     set retry: {writes: idempotency_key} if it knows Idempotency-Key across regions, or take `spool` out",
                );
            }
            if let Some(lawful) = r.residency.as_deref().or(residency_default)
                && !here.is_some_and(|here| lawful.iter().any(|j| j == here))
            {
                let stands = here.map_or("edge.jurisdiction is not set".to_owned(), |h| format!("this edge stands in {h}"));
                self.error(
                    &at_spool,
                    format!(
                        "its writes may not lie on this edge: residency allows [{}], {stands}\nset edge.jurisdiction, or take `spool` out",
                        lawful.join(", ")
                    ),
                );
            }
            let reads = ["GET", "HEAD", "OPTIONS", "TRACE"];
            if !r.r#match.methods.is_empty() && r.r#match.methods.iter().all(|m| reads.contains(&m.as_str())) {
                self.warn(&at_spool, "never used: the route takes reads only, and the spool keeps writes");
            }
        }
    }

    fn matches(&mut self, at: &Path, raw: &raw::Match) -> Match {
        let kinds: Vec<&str> = [("path", &raw.path), ("path_prefix", &raw.path_prefix), ("path_regex", &raw.path_regex)]
            .iter()
            .filter(|(_, v)| v.is_some())
            .map(|(k, _)| *k)
            .collect();
        if let [_, second, ..] = kinds[..] {
            self.error_at_key(&at.key(second), format!("a route matches one of {}, not several\nkeep one of them", kinds.join(", ")));
        }
        for (key, value) in [("path", &raw.path), ("path_prefix", &raw.path_prefix)] {
            if let Some(path) = value {
                self.require(
                    path.starts_with('/'),
                    &at.key(key),
                    format!("`{path}` would never match: every path begins with a slash\ndid you mean `/{path}`?"),
                );
                self.require(!path.contains(['?', '#']), &at.key(key), format!("`{path}` would never match: the path ends before `?`"));
            }
        }
        let path = if let Some(p) = &raw.path {
            PathMatch::Exact(p.clone())
        } else if let Some(p) = &raw.path_prefix {
            PathMatch::Prefix(p.clone())
        } else if let Some(p) = &raw.path_regex {
            match regex::Regex::new(p) {
                Ok(regex) => PathMatch::Regex(regex),
                Err(e) => {
                    let why = e.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                    self.error(&at.key("path_regex"), format!("`{p}` is not a regular expression: {why}\nallowed: the syntax of https://docs.rs/regex; in YAML best in 'single quotes'"));
                    PathMatch::Any
                }
            }
        } else {
            PathMatch::Any
        };
        for (at, m) in self.items(&at.key("methods"), &raw.methods) {
            let upper = m.to_ascii_uppercase();
            if http::Method::from_bytes(m.as_bytes()).is_err() {
                self.error(&at, format!("`{m}` is not a method\nallowed: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, …"));
            } else if *m != upper && METHODS.contains(&upper.as_str()) {
                self.error(&at, format!("`{m}` would never match: methods are in upper case\ndid you mean `{upper}`?"));
            }
        }
        let headers = &at.key("headers");
        for (name, value) in raw.headers.iter() {
            self.header_name(&headers.key(name), name);
            self.require(
                HeaderValue::from_str(value).is_ok(),
                &headers.key(name),
                "not a header value\nallowed: visible characters, no line breaks",
            );
        }
        Match {
            host: raw.host.as_ref().map(|h| self.host(&at.key("host"), h)),
            path,
            methods: raw.methods.clone(),
            headers: raw.headers.iter().map(|(n, v)| (n.to_ascii_lowercase(), v.clone())).collect(),
        }
    }

    fn host(&mut self, at: &Path, text: &str) -> String {
        let bare = text.strip_prefix("*.").unwrap_or(text);
        let port = !bare.starts_with('[') && bare.rsplit_once(':').is_some_and(|(_, p)| p.parse::<u16>().is_ok());
        if text.contains("://") || text.contains('/') {
            self.error(
                at,
                format!("`{text}` is not a host name\nallowed: the name alone, without scheme and path: example.com, *.example.com"),
            );
        } else if port {
            self.error(at, format!("`{text}`: hosts are compared without their port\nleave the port out"));
        } else if bare.is_empty() || bare.contains(['*', ' ']) {
            self.error(
                at,
                format!("`{text}` is not a host name\nallowed: example.com, or *.example.com for any subdomain; no `host` at all for any"),
            );
        }
        text.to_ascii_lowercase()
    }

    fn retry(&mut self, at: &Path, raw: &raw::Retry) -> Retry {
        self.require(
            (1..=10).contains(&raw.attempts),
            &at.key("attempts"),
            format!("{} attempts\nallowed: 1 (no retry) to 10; the first one counts", raw.attempts),
        );
        for (at, status) in self.items(&at.key("statuses"), &raw.statuses) {
            self.require((400..=599).contains(status), &at, format!("{status} is not a status of failure\nallowed: 400 to 599"));
        }
        Retry {
            attempts: raw.attempts,
            statuses: raw.statuses.clone(),
            writes: match raw.writes {
                raw::Writes::Unsent => Writes::Unsent,
                raw::Writes::Incomplete => Writes::Incomplete,
                raw::Writes::IdempotencyKey => Writes::IdempotencyKey,
            },
        }
    }

    pub(super) fn header_name(&mut self, at: &Path, name: &str) -> Option<HeaderName> {
        let parsed = HeaderName::from_bytes(name.as_bytes()).ok();
        self.require(parsed.is_some(), at, format!("`{name}` is not a header name\nallowed: letters, digits and -, for example X-Edge"));
        parsed
    }

    fn headers(&mut self, at: &Path, raw: &raw::Headers) -> HeaderOps {
        let mut ops = HeaderOps::default();
        let hop = |name: &HeaderName| HOP.contains(&name.as_str());
        for (name, value) in raw.set.iter() {
            let at = at.key("set").key(name);
            let Some(name) = self.header_name(&at, name) else { continue };
            if hop(&name) {
                let instead =
                    if name == "host" { "use `rewrite: {host: …}`" } else { "it belongs to the connection, and is ours to set" };
                self.error_at_key(&at, format!("`{name}` cannot be set\n{instead}"));
            }
            match HeaderValue::from_str(value) {
                Ok(value) => ops.set.push((name, value)),
                Err(_) => self.error(&at, format!("{value:?} is not a header value\nallowed: visible characters, no line breaks")),
            }
        }
        for (at, name) in self.items(&at.key("remove"), &raw.remove) {
            let Some(name) = self.header_name(&at, name) else { continue };
            self.require(!hop(&name), &at, format!("`{name}` cannot be removed\nit belongs to the connection, and is ours to set"));
            ops.remove.push(name);
        }
        ops
    }

    fn rewrite(&mut self, at: &Path, raw: &raw::Rewrite) -> Rewrite {
        if let Some(host) = &raw.host {
            let fine = host.parse::<http::uri::Authority>().is_ok_and(|a| !a.as_str().contains('@'));
            self.require(fine, &at.key("host"), format!("`{host}` is not a host\nallowed: example.com or example.com:8080"));
        }
        for (key, value) in [("strip_prefix", &raw.strip_prefix), ("add_prefix", &raw.add_prefix)] {
            if let Some(prefix) = value {
                self.require(
                    prefix.starts_with('/'),
                    &at.key(key),
                    format!("`{prefix}` does not begin with a slash\ndid you mean `/{prefix}`?"),
                );
                self.require(!prefix.contains(['?', '#', ' ']), &at.key(key), "only a path, without query");
            }
        }
        Rewrite { host: raw.host.clone(), strip_prefix: raw.strip_prefix.clone(), add_prefix: raw.add_prefix.clone() }
    }

    fn guards(&mut self, at: &Path, raw: &[raw::Guard]) -> Vec<Guard> {
        let mut all = vec![];
        for (at, g) in self.items(at, raw) {
            self.pointer(&at.key("json"), &g.json);
            self.require(!g.reject.0.is_empty(), &at.key("reject"), "a guard that rejects nothing\nallowed: missing, \"null\", zero_after_nonzero, {not_a: number}, {drops_by: 90%}, {out_of: 0..1000}");
            let reject = |r: &raw::Reject| match r {
                raw::Reject::Missing => Reject::Missing,
                raw::Reject::Null => Reject::Null,
                raw::Reject::ZeroAfterNonzero => Reject::ZeroAfterNonzero,
                raw::Reject::NotA(kind) => Reject::NotA(format!("{kind:?}").to_lowercase()),
                raw::Reject::DropsBy(ratio) => Reject::DropsBy(ratio.0),
                raw::Reject::OutOf(range) => Reject::OutOf(range.0, range.1),
            };
            all.push(Guard { json: g.json.clone(), reject: g.reject.0.iter().map(reject).collect(), mask: g.mask });
        }
        all
    }

    fn degrade(&mut self, at: &Path, raw: &[raw::Degrade]) -> Vec<Degrade> {
        let mut all = vec![];
        for (at, d) in self.items(at, raw) {
            if let Some(Degrade::Unavailable(_)) = all.last() {
                self.warn(&at, "never reached: `unavailable` before it always answers\nput `unavailable` last");
                break;
            }
            all.push(match d {
                raw::Degrade::Stale(s) => {
                    self.require(!s.max_age.0.is_zero(), &at.key("stale").key("max_age"), "0 would serve no copy\nallowed: more than 0");
                    let lower = |(at, name): (Path, &String), this: &mut Self| {
                        this.header_name(&at, name);
                        name.to_ascii_lowercase()
                    };
                    let key_headers = self.items(&at.key("stale").key("key_headers"), &s.key_headers);
                    Degrade::Stale(StaleRule {
                        max_age: s.max_age.0,
                        key_headers: key_headers.into_iter().map(|item| lower(item, self)).collect(),
                        ignore_cookies: s.ignore_cookies.clone(),
                    })
                }
                raw::Degrade::Static(s) => {
                    let at = at.key("static");
                    self.require(
                        (200..=599).contains(&s.status),
                        &at.key("status"),
                        format!("{} cannot be a final answer\nallowed: 200 to 599", s.status),
                    );
                    let fine = HeaderValue::from_str(&s.content_type).is_ok() && s.content_type.contains('/');
                    self.require(
                        fine,
                        &at.key("content_type"),
                        format!("`{}` is not a media type\nallowed: for example application/json", s.content_type),
                    );
                    Degrade::Static(StaticAnswer { status: s.status, content_type: s.content_type.clone(), body: s.body.clone().into() })
                }
                raw::Degrade::Spool(s) => {
                    let at = at.key("spool");
                    self.require(
                        (200..=299).contains(&s.status),
                        &at.key("status"),
                        format!("{} does not say that the write was taken\nallowed: 200 to 299, best 202", s.status),
                    );
                    self.require(!s.max_age.0.is_zero(), &at.key("max_age"), "0 would give every write up at once\nallowed: more than 0");
                    if s.order_key != "path" {
                        self.header_name(&at.key("order_key"), &s.order_key);
                    }
                    Degrade::Spool(SpoolRule {
                        max_age: s.max_age.0,
                        status: s.status,
                        order_key: s.order_key.to_ascii_lowercase(),
                        make_key: s.make_key,
                    })
                }
                raw::Degrade::Unavailable(u) => {
                    let here = at.key("unavailable").key("retry_after");
                    self.require(
                        u.retry_after.0 >= Duration::from_secs(1),
                        &here,
                        "Retry-After counts in whole seconds\nallowed: 1s or more, for example 2s..10s",
                    );
                    Degrade::Unavailable(Unavailable {
                        retry_after: (u.retry_after.0, u.retry_after.1),
                        body: u.body.clone().map(Into::into),
                    })
                }
            });
        }
        if !matches!(all.last(), Some(Degrade::Unavailable(_))) {
            let default = raw::Unavailable::default();
            all.push(Degrade::Unavailable(Unavailable { retry_after: (default.retry_after.0, default.retry_after.1), body: None }));
        }
        all
    }
}

/// Guards read answers, so guarded routes ask backends for plain ones, unless the operator says otherwise.
fn readable(mut ops: HeaderOps, guarded: bool) -> HeaderOps {
    let name = http::header::ACCEPT_ENCODING;
    if guarded && !ops.set.iter().any(|(n, _)| *n == name) {
        ops.set.push((name, http::HeaderValue::from_static("identity")));
    }
    ops
}
