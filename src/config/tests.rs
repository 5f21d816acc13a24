use super::*;
use crate::model::id::*;

fn around() -> Surroundings {
    Surroundings { file: "evenkeel.yaml".into(), folder: "/etc/evenkeel".into(), host: "edge-7".into(), cores: 4 }
}

fn good(text: &str) -> Checked {
    validate::check(text, &around()).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn the_shortest_config_has_all_defaults() {
    let checked = good(
        "version: 1\nlisteners: [{address: 127.0.0.1:8080}]\nregions: {here: {}}\nservices: {app: {pools: {here: {endpoints: [127.0.0.1:9000]}}}}\nroutes: [{name: all, service: app}]\n",
    );
    let t = checked.topology;
    assert_eq!((t.edge.name.as_str(), t.edge.threads), ("edge-7", 4));
    assert_eq!(t.journal.path, std::path::Path::new("/etc/evenkeel/state/journal"));
    assert_eq!(t.admin.unwrap().address, "127.0.0.1:9900".parse().unwrap());
    assert_eq!(t.limits, crate::model::topology::Limits::default());
    assert_eq!(t.services[0].failover, crate::model::policy::Failover::default());
    assert_eq!(t.services[0].health.as_ref().unwrap().path, "/healthz");
    assert_eq!(t.routes[0].attempt_timeout, t.routes[0].deadline / 3);
    assert_eq!(t.routes[0].allowed, RegionSet::all(1));
    assert_eq!(t.tables.len(), 1);
}

#[test]
fn the_exam_configs_are_accepted_as_they_are() {
    for (text, service) in [
        (include_str!("../../tests/golden/config/exam-perf.yaml"), "app"),
        (include_str!("../../tests/golden/config/exam-conformance.yaml"), "grpc"),
        (include_str!("../../tests/golden/config/exam-failover.json"), "app"),
    ] {
        let checked = good(text);
        assert!(checked.topology.service(service).is_some());
    }
}
