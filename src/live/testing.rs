//! Small worlds for tests.

use crate::model::id::*;
use crate::model::policy::*;
use crate::model::time::Duration;
use crate::model::topology::*;
use crate::model::view::*;
use std::sync::Arc;

/// A topology with one service `app`, one route `all`, and these regions with so many endpoints each
/// (`127.0.REGION.NUMBER:8080`).
pub fn topology(regions: &[(&str, u32)]) -> Topology {
    let all = RegionSet::all(regions.len());
    let (mut pools, mut endpoints) = (Vec::new(), Vec::new());
    for (r, (name, n)) in regions.iter().enumerate() {
        let start = endpoints.len() as u32;
        for i in 0..*n {
            let address = format!("127.0.{r}.{}:8080", i + 1);
            endpoints.push(Endpoint { name: (&*address).into(), address: address.parse().unwrap(), pool: r.into() });
        }
        pools.push(Pool {
            name: format!("app/{name}").into(),
            service: ServiceIx(0),
            region: r.into(),
            endpoints: start..start + n,
            capacity: None,
            max_inflight: None,
            weight: 100,
            tier: 1,
            dns: None,
        });
    }
    let route = Route {
        name: "all".into(),
        matches: Match::default(),
        service: ServiceIx(0),
        table: TableIx(0),
        priority: Priority::Normal,
        residency: None,
        allowed: all,
        deadline: Duration::from_secs(10),
        attempt_timeout: Duration::from_secs(3),
        idle_timeout: Duration::from_secs(60),
        retry: Retry { attempts: 3, statuses: vec![502, 503, 504], writes: Writes::Unsent },
        hedge: None,
        request_headers: HeaderOps::default(),
        response_headers: HeaderOps::default(),
        rewrite: None,
        guards: vec![],
        degrade: vec![],
        slo: None,
    };
    Topology {
        edge: Edge {
            name: "edge".into(),
            jurisdiction: None,
            threads: 1,
            state_dir: "state".into(),
            shutdown_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(1),
            expose_region: false,
        },
        listeners: vec![],
        limits: Limits::default(),
        admin: None,
        logging: Logging { level: "info".into(), format: LogFormat::Auto, access: None },
        tracing: None,
        regions: regions
            .iter()
            .map(|(n, _)| Region { name: (*n).into(), jurisdiction: None, weight: 100, tier: 1, fates: vec![], drained: false })
            .collect(),
        services: vec![Service {
            name: "app".into(),
            pools: (0..regions.len()).map(PoolIx::from).collect(),
            protocol: Protocol::Http1,
            tls: None,
            connect_timeout: Duration::from_millis(250),
            idle: IdleConnections { max: 64, timeout: Duration::from_secs(30), warm: 2 },
            health: None,
            affinity: None,
            failover: Failover::default(),
            recovery: Recovery::default(),
            overload: Overload::default(),
            retry_budget: RetryBudget::default(),
        }],
        pools,
        endpoints,
        routes: vec![route],
        tables: vec![Table { service: ServiceIx(0), allowed: all }],
        stale: StaleStore { max_bytes: 0, max_body: 0, persist: false },
        spool: SpoolStore { path: "spool".into(), max_bytes: 0, replay_rate: 1.0 },
        journal: JournalStore { path: "journal".into(), keep: Duration::ZERO, max_bytes: 0 },
        fleet: None,
    }
}

/// Sends everything to the first route.
#[derive(Debug)]
pub struct FirstRoute;

impl Routes for FirstRoute {
    fn find(&self, _: &RequestFacts<'_>) -> Option<RouteIx> {
        Some(RouteIx(0))
    }
}

/// A topology as a config of this generation, with [`FirstRoute`].
pub fn compiled(generation: u64, topology: Topology) -> Arc<Compiled> {
    Arc::new(Compiled { generation, topology, routes: Box::new(FirstRoute), source: Source::default() })
}
