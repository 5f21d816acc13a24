use super::*;
use std::path::Path;

const US: &str = "
version: 1
listeners: [{address: \"127.0.0.1:1\"}]
regions:
  east: {jurisdiction: us, weight: 60, fates: [grid]}
  west: {jurisdiction: us, weight: 40, fates: [grid]}
  eu: {jurisdiction: eu, tier: 2}
services:
  api:
    pools:
      east: {endpoints: [\"10.0.0.1:1\"], capacity: 800/s}
      west: {endpoints: [\"10.0.0.2:1\"], capacity: 600/s}
      eu: {endpoints: [\"10.0.0.3:1\"], capacity: 300/s}
routes:
  - {name: home, match: {path_prefix: /home}, service: api, residency: [us]}
  - {name: rest, service: api}
";

fn topology(text: &str) -> Topology {
    crate::config::parse(text, Path::new("x.yaml")).unwrap().checked.topology
}

fn present(home: f64, rest: f64) -> Present {
    Present { rates: Some([("home".to_owned(), home), ("rest".to_owned(), rest)].into()), ..Present::default() }
}

fn planned(current: Option<&str>, new: &str, present: &Present, lose: &[&str]) -> Plan {
    let lose: Vec<String> = lose.iter().map(ToString::to_string).collect();
    plan(current.map(topology).as_ref(), &topology(new), present, "live", &lose).unwrap()
}

#[test]
fn load_goes_where_the_share_code_sends_it() {
    let p = planned(None, US, &present(200.0, 300.0), &[]);
    let pools = &p.services[0].pools;
    let load: Vec<f64> = pools.iter().map(|p| p.load.unwrap().round()).collect();
    assert_eq!(load, [300.0, 200.0, 0.0]);
    assert!((pools[0].headroom.unwrap() - 0.625).abs() < 1e-9);
    assert_eq!((p.services[0].load, p.services[0].carries), (Some(500.0), Some(1700.0)));
    let names: Vec<Vec<String>> = p.losses.iter().map(|l| l.lost.clone()).collect();
    assert_eq!(names, [["east"], ["west"], ["eu"], ["grid"]], "provider-less fates stand by themselves");
}

#[test]
fn a_survivor_over_its_capacity_is_a_reason_at_one_and_not_below() {
    // Without east: west takes 600, eu 300.
    let bears = |rest: f64| planned(None, US, &present(0.0, rest), &["east"]);
    assert!(bears(900.0).safe, "{}", bears(900.0));
    let p = bears(901.0);
    let over = &p.losses[0].dangers;
    assert!(!p.safe && over.len() == 2 && over.iter().all(|d| d.what.contains("more than its capacity")), "{p}");
    // What must stay in the country does not spill.
    let p = planned(None, US, &present(700.0, 0.0), &["east"]);
    assert_eq!(p.reasons, ["losing east: pool api/west would get 700/s, 100/s more than its capacity of 600/s"]);
}

#[test]
fn residency_without_an_alternative_is_found_behind_a_fate() {
    let p = planned(None, US, &present(10.0, 10.0), &[]);
    assert_eq!(
        p.reasons,
        ["losing grid: route home: no region is left that may and can serve it (residency us): only degraded answers (unavailable)"]
    );
}

#[test]
fn what_stands_already_is_told_and_is_no_reason_unless_it_is_asked_for() {
    let new = US.replace("weight: 60", "weight: 50");
    let p = planned(Some(US), &new, &present(10.0, 10.0), &[]);
    assert!(p.safe && p.notes.iter().any(|n| n.starts_with("so already: losing grid: route home")), "{p}");
    assert_eq!(p.changes, ["region east: weight 60 -> 50"]);
    assert!(!planned(Some(US), &new, &present(10.0, 10.0), &["grid"]).safe);
    // A danger that the change brings is one.
    let p = planned(Some(US), &US.replace("capacity: 600/s", "capacity: 100/s"), &present(150.0, 100.0), &[]);
    assert_eq!(p.reasons, ["losing east: pool api/west would get 150/s, 50/s more than its capacity of 100/s"], "{p}");
}

#[test]
fn what_is_out_now_stays_out() {
    let mut now = present(0.0, 500.0);
    now.out.insert("api/east".into(), Use::Sick);
    let p = planned(None, US, &now, &["west"]);
    assert_eq!(p.services[0].pools[0].why.as_deref(), Some("tripped now"));
    assert!(p.reasons.iter().any(|r| r.starts_with("losing west: pool api/eu would get 500/s, 200/s more")), "{p}");
    now.drained.insert("west".into());
    let p = planned(None, US, &now, &["eu"]);
    assert!(p.reasons.iter().any(|r| r.starts_with("route home: no region is left")), "{p}");
}

#[test]
fn without_load_capacities_are_told() {
    let p = planned(None, US, &Present::default(), &[]);
    assert_eq!((p.load, p.services[0].load), (None, None));
    assert_eq!(p.losses[0].carries["api"], 900.0);
    let given = Present { given: [("api".to_owned(), 1000.0)].into(), ..Present::default() };
    let p = planned(None, US, &given, &["east"]);
    assert!(p.reasons[0].contains("more than its capacity"), "{p}");
}

#[test]
fn pools_and_routes_that_come_and_go() {
    let new = US.replace("      eu: {endpoints: [\"10.0.0.3:1\"], capacity: 300/s}\n", "").replace("name: rest", "name: other");
    let p = planned(Some(US), &new, &present(1.0, 40.0), &[]);
    let eu = p.services[0].pools.iter().find(|p| p.pool == "api/eu").unwrap();
    assert_eq!((eu.now, eu.then), (Some(0.0), None));
    assert!(p.notes.iter().any(|n| n == "route rest gets 40/s now and is gone: its load is not counted"), "{:?}", p.notes);
    assert!(plan(None, &topology(US), &Present::default(), "", &["mars".into()]).unwrap_err().contains("no region or fate `mars`"));
}

#[test]
fn a_drain_is_judged_by_the_same_words() {
    let t = topology(US);
    let away = |name: &str| RegionSet::EMPTY.with(t.region(name).unwrap());
    assert!(without(&t, &present(100.0, 100.0), away("east")).is_empty());
    assert_eq!(without(&t, &present(700.0, 0.0), away("east")), ["pool api/west would get 700/s, 100/s more than its capacity of 600/s"]);
}
