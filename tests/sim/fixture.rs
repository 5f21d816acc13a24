//! The topologies the worlds are made of.

use evenkeel::config;
use evenkeel::model::id::*;
use evenkeel::model::time::Duration;
use evenkeel::model::view::Compiled;
use evenkeel::whatif::{Load, Power, Script, Site};
use std::path::Path;
use std::sync::Arc;

/// Three regions of three servers; two services; one route bound to two of the regions; writes; a critical and a sheddable route.
pub const THREE: &str = r#"
version: 1
listeners: [{address: "127.0.0.1:8080"}]
regions:
  east: {jurisdiction: us, weight: 50, fates: [grid-east]}
  west: {jurisdiction: us, weight: 30, fates: [grid-west]}
  eu:   {jurisdiction: eu, weight: 20, fates: [grid-eu]}
services:
  api:
    pools:
      east: {endpoints: ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]}
      west: {endpoints: ["10.0.1.1:80", "10.0.1.2:80", "10.0.1.3:80"]}
      eu:   {endpoints: ["10.0.2.1:80", "10.0.2.2:80", "10.0.2.3:80"]}
  img:
    pools:
      east: {endpoints: ["10.1.0.1:80", "10.1.0.2:80"]}
      west: {endpoints: ["10.1.1.1:80", "10.1.1.2:80"]}
      eu:   {endpoints: ["10.1.2.1:80", "10.1.2.2:80"]}
routes:
  - {name: pay,  match: {path_prefix: /pay/},  service: api, priority: critical, residency: [us], deadline: 2s, attempt_timeout: 600ms, hedge: {after: p95, budget: 5%}}
  - {name: api,  match: {path_prefix: /api/},  service: api, deadline: 2s, attempt_timeout: 600ms, hedge: {after: p95, budget: 5%}}
  - {name: img,  match: {path_prefix: /img/},  service: img, priority: sheddable, deadline: 3s, attempt_timeout: 1s}
"#;

/// One service in two equal regions.
pub const TWO: &str = r#"
version: 1
listeners: [{address: "127.0.0.1:8080"}]
regions:
  east: {weight: 50}
  west: {weight: 50}
services:
  api:
    pools:
      east: {endpoints: ["10.0.0.1:80", "10.0.0.2:80"]}
      west: {endpoints: ["10.0.1.1:80", "10.0.1.2:80"]}
routes:
  - {name: all, match: {path_prefix: /}, service: api, deadline: 2s, attempt_timeout: 600ms}
"#;

pub fn compiled(text: &str, generation: u64) -> Arc<Compiled> {
    match config::parse(text, Path::new("sim.yaml")) {
        Ok(loaded) => Arc::new(loaded.compile(generation)),
        Err(problems) => panic!("{problems:?}"),
    }
}

/// A world of [`THREE`] at this many requests a second in all; regions at different distances.
pub fn three(seed: u64, length: Duration, rate: f64) -> Script {
    let config = compiled(THREE, 1);
    let mut script = Script::calm(seed, length, config.clone());
    for (site, pool) in script.sites.iter_mut().zip(&config.topology.pools) {
        let wire = [1, 4, 12][pool.region.at()];
        *site =
            Site { wire: Duration::from_millis(wire), service: Duration::from_millis(12), power: Power::Workers(16), ..Site::default() };
    }
    script.loads = vec![Load::plain(RouteIx(0), rate * 0.2), Load::plain(RouteIx(1), rate * 0.5), Load::plain(RouteIx(2), rate * 0.3)];
    script
}

/// A world of [`TWO`].
pub fn two(seed: u64, length: Duration, rate: f64) -> Script {
    let mut script = Script::calm(seed, length, compiled(TWO, 1));
    script.loads = vec![Load::plain(RouteIx(0), rate)];
    script
}
