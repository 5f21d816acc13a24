//! Regions, services, pools, endpoints.

use super::super::file::{self, Named, service as raw};
use super::super::problem::Path;
use super::Checker;
use crate::model::id::*;
use crate::model::policy;
use crate::model::topology::*;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

/// What the services came to.
#[derive(Default)]
pub(super) struct Services {
    pub services: Vec<Service>,
    pub pools: Vec<Pool>,
    pub endpoints: Vec<Endpoint>,
}

/// Detection, recovery and the rest at one level.
struct Policies {
    failover: policy::Failover,
    recovery: policy::Recovery,
    overload: policy::Overload,
    retry_budget: policy::RetryBudget,
}

impl Checker<'_> {
    pub(super) fn regions(&mut self, raw: &Named<file::Region>) -> Vec<Region> {
        let at = Path::of("regions");
        self.require(!raw.0.is_empty(), &at, "no region: there is nowhere to send a request\nadd one: regions: {here: {jurisdiction: us}}");
        self.require(raw.0.len() <= RegionSet::MAX, &at, format!("{} regions\nallowed: at most {}", raw.0.len(), RegionSet::MAX));
        let mut all = vec![];
        for (name, r) in raw.iter() {
            let at = at.key(name);
            self.name(&at, "region", name);
            self.require(r.weight <= 1_000_000, &at.key("weight"), "too large\nallowed: 0 to 1000000");
            self.require((1..=1000).contains(&r.tier), &at.key("tier"), format!("tier {}\nallowed: 1 to 1000; 1 goes first", r.tier));
            for (at, fate) in self.items(&at.key("fates"), &r.fates) {
                self.require(!fate.is_empty(), &at, "an empty fate");
                if raw.get(fate).is_some() {
                    self.warn(
                        &at,
                        format!(
                            "`{fate}` is a region's name, too: `evenkeel drain {fate}` will mean the region\ngive the fate another name"
                        ),
                    );
                }
            }
            all.push(Region {
                name: name.as_str().into(),
                jurisdiction: r.jurisdiction.as_deref().map(Into::into),
                weight: r.weight,
                tier: r.tier,
                fates: r.fates.iter().map(|f| f.as_str().into()).collect(),
                drained: r.drained,
            });
        }
        all
    }

    pub(super) fn services(&mut self, file: &file::File, regions: &[Region]) -> Services {
        let at = Path::of("services");
        self.require(
            !file.services.0.is_empty(),
            &at,
            "no service\nadd one: services: {app: {pools: {here: {endpoints: [10.1.0.11:8080]}}}}",
        );
        let top = Policies {
            failover: file.failover.over(&policy::Failover::default()),
            recovery: file.recovery.over(&policy::Recovery::default()),
            overload: file.overload.over(&policy::Overload::default()),
            retry_budget: file.retry_budget.over(&policy::RetryBudget::default()),
        };
        self.policies(&Path::default(), &top);
        let mut all = Services::default();
        for (name, s) in file.services.iter() {
            let at = at.key(name);
            self.name(&at, "service", name);
            let service = all.services.len();
            let pools = self.pools(&at, name, ServiceIx::from(service), s, regions, &mut all);
            let own = Policies {
                failover: s.failover.over(&top.failover),
                recovery: s.recovery.over(&top.recovery),
                overload: s.overload.over(&top.overload),
                retry_budget: s.retry_budget.over(&top.retry_budget),
            };
            self.policies(&at, &own);
            self.require(
                !s.connect_timeout.0.is_zero(),
                &at.key("connect_timeout"),
                "0 would let no connection through\nallowed: more than 0",
            );
            let idle = &s.idle_connections;
            let here = at.key("idle_connections");
            self.require(
                idle.warm <= idle.max,
                &here.key("warm"),
                format!("{} connections are to be kept open, but at most {} may be", idle.warm, idle.max),
            );
            self.require(
                !idle.timeout.0.is_zero(),
                &here.key("timeout"),
                "0 would keep no connection\nallowed: more than 0; `max: 0` keeps none",
            );
            let service = Service {
                name: name.as_str().into(),
                pools,
                protocol: match s.protocol {
                    raw::Protocol::Http1 => Protocol::Http1,
                    raw::Protocol::H2 => Protocol::H2,
                    raw::Protocol::Auto => Protocol::Auto,
                },
                tls: s.tls.as_ref().map(|tls| self.service_tls(&at.key("tls"), tls)),
                connect_timeout: s.connect_timeout.0,
                idle: IdleConnections { max: idle.max as usize, timeout: idle.timeout.0, warm: idle.warm as usize },
                health: s.health.as_ref().map(|h| self.health(&at.key("health"), h)),
                affinity: s.affinity.as_ref().map(|a| self.affinity(&at.key("affinity"), a)),
                failover: own.failover,
                recovery: own.recovery,
                overload: own.overload,
                retry_budget: own.retry_budget,
            };
            all.services.push(service);
        }
        all
    }

    /// Pools in region order, so that a pool's place among its siblings is the region's.
    fn pools(
        &mut self,
        at: &Path,
        name: &str,
        service: ServiceIx,
        s: &raw::Service,
        regions: &[Region],
        all: &mut Services,
    ) -> Vec<PoolIx> {
        let names = self.tree.find(&Path::of("regions")).map(|n| n.keys()).unwrap_or_default();
        let here = at.key("pools");
        self.require(
            !s.pools.0.is_empty(),
            &here,
            "no pool: this service runs nowhere\nadd one: pools: {here: {endpoints: [10.1.0.11:8080]}}",
        );
        for (region, _) in s.pools.iter() {
            self.refers(&here.key(region), true, "region", region, &names);
        }
        for (key, entries) in [("weights", &s.weights), ("tiers", &s.tiers)] {
            for (region, n) in entries.iter() {
                let here = at.key(key).key(region);
                if self.refers(&here, true, "region", region, &names) && s.pools.get(region).is_none() {
                    self.error_at_key(&here, format!("this service has no pool in {region}\nallowed: {}", names_of(&s.pools)));
                }
                let fine = if key == "tiers" { (1..=1000).contains(n) } else { *n <= 1_000_000 };
                self.require(fine, &here, if key == "tiers" { "allowed: 1 to 1000; 1 goes first" } else { "allowed: 0 to 1000000" });
            }
        }
        let mut pools = vec![];
        for (i, region) in regions.iter().enumerate() {
            let Some(p) = s.pools.get(&region.name) else { continue };
            let at = here.key(&region.name);
            let ix = PoolIx::from(all.pools.len());
            let first = all.endpoints.len() as u32;
            self.endpoints(&at, p, ix, &mut all.endpoints);
            self.require(
                p.capacity.is_none_or(|r| r.0 > 0.0),
                &at.key("capacity"),
                "0 would send nothing there\nallowed: more than 0, or null; to take the region out, drain it",
            );
            self.require(p.max_inflight != Some(0), &at.key("max_inflight"), "0 would send nothing there\nallowed: 1 or more, or null");
            all.pools.push(Pool {
                name: format!("{name}/{}", region.name).into(),
                service,
                region: RegionIx::from(i),
                endpoints: first..all.endpoints.len() as u32,
                capacity: p.capacity.map(|r| r.0),
                max_inflight: p.max_inflight,
                weight: s.weights.get(&region.name).copied().unwrap_or(region.weight),
                tier: s.tiers.get(&region.name).copied().unwrap_or(region.tier),
                dns: p.dns.clone(),
            });
            pools.push(ix);
        }
        pools
    }

    fn endpoints(&mut self, at: &Path, pool: &raw::Pool, ix: PoolIx, all: &mut Vec<Endpoint>) {
        let here = at.key("endpoints");
        if let Some(name) = &pool.dns {
            self.require(pool.endpoints.is_empty(), &here, "a pool has either endpoints or a dns name");
            let host = |h: &str| !h.is_empty() && h.len() < 254 && h.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
            let fine = match name.rsplit_once(':') {
                Some((name, port)) => host(name) && port.parse::<u16>().is_ok_and(|p| p > 0),
                None => host(name) && name.starts_with('_'),
            };
            self.require(
                fine,
                &at.key("dns"),
                format!("`{name}` cannot be looked up\nallowed: a name with a port, api.internal:8080, or the name of SRV records, _http._tcp.api.internal"),
            );
            // Stands in until the name is found; whoever only checks a config asks no name server.
            let address = "[100::1]:9".parse().expect("an address");
            all.push(Endpoint { name: format!("{name} (not found)").into(), address, pool: ix });
            return;
        }
        self.require(
            !pool.endpoints.is_empty(),
            &here,
            "no endpoints: nothing could be sent there\nadd one: endpoints: [10.1.0.11:8080], or take the pool out",
        );
        let mut addresses = BTreeSet::new();
        for (at, text) in self.items(&here, &pool.endpoints) {
            let host = text.rsplit_once(':').map(|(host, _)| host).filter(|h| !h.is_empty() && h.chars().any(char::is_alphabetic));
            if text.parse::<SocketAddr>().is_err() && host.is_some_and(|h| !h.contains([':', '/'])) && host != Some("localhost") {
                self.error(
                    &at,
                    format!("`{text}` is a name, not an address\nallowed: an address with a port, 10.1.0.11:8080 or [2001:db8::1]:8080"),
                );
                continue;
            }
            let Some(address) = self.address(&at, text) else { continue };
            if address.port() == 0 {
                self.error(&at, format!("`{text}`: port 0 cannot be connected to"));
            } else if !addresses.insert(address) {
                self.error(&at, format!("{address} is in this pool twice: it would get a double share\nkeep one of them"));
            }
            all.push(Endpoint { name: text.as_str().into(), address, pool: ix });
        }
    }

    fn affinity(&mut self, at: &Path, raw: &raw::Affinity) -> Affinity {
        match raw {
            raw::Affinity::Header(name) => {
                self.header_name(&at.key("header"), name);
                Affinity::Header(name.to_ascii_lowercase())
            }
            raw::Affinity::Cookie(name) => {
                let token = http::HeaderName::from_bytes(name.as_bytes()).is_ok();
                self.require(token, &at.key("cookie"), format!("`{name}` is not a cookie's name\nallowed: letters, digits, - and _"));
                Affinity::Cookie(name.clone())
            }
            raw::Affinity::ClientIp => Affinity::ClientIp,
        }
    }

    fn service_tls(&mut self, at: &Path, raw: &raw::Tls) -> ServiceTls {
        let client = match (&raw.client_cert, &raw.client_key) {
            (Some(cert), Some(key)) => {
                Some(CertPair { cert: self.file(&at.key("client_cert"), cert), key: self.file(&at.key("client_key"), key) })
            }
            (None, None) => None,
            (Some(_), None) => {
                self.error(&at.key("client_cert"), "`client_key` is missing beside it");
                None
            }
            (None, Some(_)) => {
                self.error(&at.key("client_key"), "`client_cert` is missing beside it");
                None
            }
        };
        if !raw.verify {
            self.warn(&at.key("verify"), "the backend's certificate is not checked: anybody on the way can read and change everything\nbetter: `ca:` with the certificate that signed it");
        }
        ServiceTls { sni: raw.sni.clone(), ca: raw.ca.as_deref().map(|p| self.file(&at.key("ca"), p)), client, verify: raw.verify }
    }

    fn health(&mut self, at: &Path, raw: &raw::Health) -> policy::Health {
        self.require(
            raw.path.starts_with('/'),
            &at.key("path"),
            format!("`{}` is not a path\nallowed: it begins with a slash, for example /healthz", raw.path),
        );
        self.require(raw.interval.0 >= Duration::from_millis(10), &at.key("interval"), "too often\nallowed: 10ms or more");
        self.require(!raw.timeout.0.is_zero(), &at.key("timeout"), "0 would fail every probe\nallowed: more than 0");
        self.require(raw.fall > 0, &at.key("fall"), "allowed: 1 or more");
        self.require(raw.rise > 0, &at.key("rise"), "allowed: 1 or more");
        self.require(raw.port != Some(0), &at.key("port"), "allowed: 1 to 65535, or null for the endpoint's own");
        let here = at.key("expect");
        self.require(
            !raw.expect.status.is_empty(),
            &here.key("status"),
            "an empty list would fail every probe\nallowed: for example [\"200-299\"]",
        );
        let mut expect_json = vec![];
        for (at, e) in self.items(&here.key("json"), &raw.expect.json) {
            let at = at.key("pointer");
            self.pointer(&at, &e.pointer);
            expect_json.push(policy::JsonExpect { pointer: e.pointer.clone(), equals: e.equals.clone() });
        }
        policy::Health {
            kind: match raw.r#type {
                raw::HealthType::Http => policy::HealthKind::Http,
                raw::HealthType::Tcp => policy::HealthKind::Tcp,
                raw::HealthType::Grpc => policy::HealthKind::Grpc,
            },
            path: raw.path.clone(),
            host: raw.host.clone(),
            port: raw.port,
            interval: raw.interval.0,
            timeout: raw.timeout.0,
            fall: raw.fall,
            rise: raw.rise,
            expect_status: raw.expect.status.iter().map(|s| (s.0, s.1)).collect(),
            expect_json,
        }
    }

    /// A JSON pointer (RFC 6901): empty, or begins with a slash.
    pub(super) fn pointer(&mut self, at: &Path, pointer: &str) {
        let meant = if pointer.is_empty() { "/views".into() } else { format!("/{}", pointer.trim_start_matches("$.").replace('.', "/")) };
        self.require(
            pointer.starts_with('/'),
            at,
            format!("`{pointer}` is not a JSON pointer\nallowed: a slash before every name (RFC 6901), for example /views, /items/0/id\ndid you mean `{meant}`?"),
        );
    }

    /// The blocks below a path; those that a service does not have came from the top, and were looked at there.
    fn policies(&mut self, at: &Path, p: &Policies) {
        let has = |this: &Self, key: &str| at.0.is_empty() || this.tree.find(&at.key(key)).is_some();
        if has(self, "failover") {
            self.failover(&at.key("failover"), &p.failover);
        }
        if has(self, "recovery") {
            self.recovery(&at.key("recovery"), &p.recovery);
        }
        if has(self, "overload") {
            self.overload(&at.key("overload").key("limit"), &p.overload);
        }
        if has(self, "retry_budget") {
            let here = at.key("retry_budget").key("reserve");
            let enough = p.retry_budget.reserve >= Duration::from_secs(1);
            self.require(enough, &here, "too short to carry the loss of a region\nallowed: 1s or more");
        }
    }

    fn failover(&mut self, here: &Path, f: &policy::Failover) {
        self.require(f.window >= Duration::from_secs(1), &here.key("window"), "too short to judge anything\nallowed: 1s or more");
        self.require(f.min_requests > 0, &here.key("min_requests"), "allowed: 1 or more");
        self.require(f.failure_rate > 0.0, &here.key("failure_rate"), "0 would trip healthy pools\nallowed: more than 0%, for example 50%");
        self.require(f.eject_after > 0, &here.key("eject_after"), "allowed: 1 or more");
        self.require(f.suspect_floor >= Duration::from_millis(1), &here.key("suspect_floor"), "too short\nallowed: 1ms or more");
        self.require(
            f.silence_floor >= f.suspect_floor,
            &here.key("silence_floor"),
            "less than suspect_floor: a pool would trip before it is suspect\nallowed: suspect_floor or more",
        );
        self.require(
            f.open.0 >= Duration::from_millis(100),
            &here.key("open"),
            "too short: a dead region would be tried again and again\nallowed: 100ms or more at first, for example 5s..5m",
        );
    }

    fn recovery(&mut self, here: &Path, r: &policy::Recovery) {
        let ascending =
            r.steps.windows(2).all(|w| w[0] < w[1]) && r.steps.first().is_some_and(|s| *s > 0.0) && r.steps.last() == Some(&1.0);
        self.require(
            ascending,
            &here.key("steps"),
            "the ramp must rise and end with everything\nallowed: ascending, the last is 100%, for example [1%, 5%, 25%, 50%, 100%]",
        );
        self.require(r.trial_successes > 0, &here.key("trial_successes"), "allowed: 1 or more");
        self.require(
            r.latency_ratio >= 1.0,
            &here.key("latency_ratio"),
            "less than 1 asks a recovering pool to be faster than it was\nallowed: 1 or more, for example 1.5",
        );
    }

    fn overload(&mut self, here: &Path, o: &policy::Overload) {
        self.require(o.min > 0, &here.key("min"), "allowed: 1 or more");
        self.require(o.max >= o.min, &here.key("max"), format!("{} is less than min, {}", o.max, o.min));
        self.require(
            (o.min..=o.max.max(o.min)).contains(&o.initial),
            &here.key("initial"),
            format!("{} is not between min, {}, and max, {}", o.initial, o.min, o.max),
        );
    }
}

fn names_of<T>(named: &Named<T>) -> String {
    named.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
}
