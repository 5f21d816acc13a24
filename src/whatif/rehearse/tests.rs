use super::*;
use crate::config::{self, Loaded};
use crate::model::id::{PoolIx, RegionIx};
use crate::whatif::{Target, What};
use std::path::Path;

const TWO: &str = "
version: 1
listeners: [{address: '127.0.0.1:8080'}]
regions: {east: {}, west: {}}
services: {api: {pools: {east: {endpoints: ['10.0.0.1:80', '10.0.0.2:80']}, west: {endpoints: ['10.0.1.1:80', '10.0.1.2:80']}}}}
overload: {limit: {initial: 2000, max: 100000}} # room for 200,000 requests a second
routes:
  - {name: read, match: {path_prefix: /r, methods: [GET]}, service: api, deadline: 2s, degrade: [{stale: {max_age: 1h}}]}
  - {name: rest, service: api, deadline: 2s}
";

fn compiled() -> Arc<Compiled> {
    let loaded: Loaded = config::parse(TWO, Path::new("two.yaml")).expect("valid");
    Arc::new(loaded.compile(1))
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn blackout(config: &Compiled, at: u64, lasting: u64, length: u64) -> Scenario {
    let fault = Fault { at: secs(at), lasting: secs(lasting), target: Target::Region(RegionIx(0)), what: What::Blackhole };
    Scenario { length: secs(length), faults: vec![fault], ..Scenario::calm(config) }
}

fn all(report: &Report) -> (f64, f64) {
    report.routes.iter().fold((0.0, 0.0), |(n, m), r| (n + r.asked, m + r.good))
}

#[test]
fn in_calm_everybody_is_served_and_every_request_is_counted_once() {
    let config = compiled();
    let report = rehearse(&Scenario::calm(&config), &config, Some(200.0), 1);
    let (asked, good) = all(&report);
    assert!((asked - 12_000.0).abs() < 500.0 && asked == good, "{asked} asked, {good} good");
    let over_time: f64 = report.timeline.iter().flat_map(|s| &s.asked).sum();
    assert!((over_time - asked).abs() < 1.0);
    assert_eq!((report.recovered_s, report.story.len(), report.full.len()), (Some(0.0), 0, 0), "{:?}", report.full);
    assert!(report.routes.iter().all(|r| r.p99_ms < 60.0), "{:?}", report.routes);
}

#[test]
fn a_world_of_samples_tells_what_the_whole_one_does() {
    let config = compiled();
    let play = |rate: f64| {
        let mut scenario = blackout(&config, 10, 20, 100);
        scenario.pools.iter_mut().for_each(|p| p.carries = Some(2.0 * rate));
        rehearse(&scenario, &config, Some(rate), 1)
    };
    let (whole, sampled) = (play(1_000.0), play(200_000.0));
    assert!(whole.weight == 1.0 && sampled.weight == 100.0);
    let (a, b) = (all(&whole), all(&sampled));
    assert!((b.0 / a.0 - 200.0).abs() < 4.0, "{a:?} {b:?}");
    for (report, (asked, good)) in [(&whole, a), (&sampled, b)] {
        assert!(good / asked > 0.99, "{}: {good} of {asked}", report.weight);
        assert!(report.story.iter().any(|l| l.at < 10.6 && l.what.contains("api/east tripped")), "{:?}", report.story);
        assert!(report.story.iter().any(|l| l.what.contains("api/east ramping")), "{:?}", report.story);
    }
}

#[test]
fn calm_that_is_leapt_over_still_counts() {
    let config = compiled();
    let day = |length| Scenario { day: vec![(secs(0), 0.5), (secs(length), 1.5)], ..blackout(&config, 3_600, 20, length) };
    let report = rehearse(&day(7_200), &config, Some(100.0), 1);
    let counted: f64 = report.timeline.iter().flat_map(|s| &s.asked).sum();
    assert!(report.played < 200_000, "{} of 720,000 were played", report.played);
    // What is leapt over counts like the seconds before it, which here is a little less than it would have been.
    assert!((counted / 720_000.0 - 1.0).abs() < 0.1, "{counted} counted");
    let at = report.story.iter().find(|l| l.what.starts_with("fault:")).map(|l| l.at);
    assert_eq!(at, Some(3_600.0), "the clock goes on");
    assert!(report.story.iter().any(|l| (3_600.0..3_601.0).contains(&l.at) && l.what.contains("tripped")), "{:?}", report.story);
}

#[test]
fn objectives_are_met_or_missed() {
    let config = compiled();
    let mut scenario = blackout(&config, 5, 10, 30);
    scenario.pools.iter_mut().for_each(|p| p.carries = Some(1_000.0));
    scenario.objectives =
        Objectives { success: Some(0.9), recover_within: Some(secs(20)), routes: vec![(RouteIx(0), Some(0.9), Some(secs(1)))] };
    assert!(rehearse(&scenario, &config, Some(200.0), 1).met());
    scenario.faults[0].target = Target::Everywhere;
    let report = rehearse(&scenario, &config, Some(200.0), 1);
    assert!(!report.met() && report.objectives.iter().any(|o| !o.met && o.what.starts_with("all routes")), "{:?}", report.objectives);
    assert!(report.routes[0].stale > 0.0 && report.routes[1].stale == 0.0, "copies stand in for reads: {:?}", report.routes);
}

#[test]
fn a_pool_with_too_much_to_do_is_named() {
    let config = compiled();
    let mut scenario = blackout(&config, 10, 20, 40);
    scenario.pools.iter_mut().for_each(|p| p.carries = Some(150.0));
    let report = rehearse(&scenario, &config, Some(200.0), 1);
    let west = &report.pool_names[PoolIx(1).at()];
    assert!(report.full.iter().any(|f| f.pool == *west && (10.0..30.0).contains(&f.from)), "{:?}", report.full);
}
