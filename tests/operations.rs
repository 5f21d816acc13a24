//! What stands under `deploy/`: the rules and the dashboard use metrics that there are, and every alert has its page in the runbook.

use regex::Regex;
use std::collections::BTreeSet;
use std::path::Path;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

fn metrics(text: &str) -> BTreeSet<String> {
    let name = Regex::new(r"\bevenkeel_[a-z_]+").unwrap();
    name.find_iter(text).map(|m| m.as_str().trim_end_matches("_bucket").to_owned()).collect()
}

#[test]
fn rules_and_dashboard_use_metrics_that_there_are() {
    let there = metrics(&(read("src/admin/metrics.rs") + &read("src/admin/metrics/fleet.rs")));
    assert!(there.len() > 20);
    for file in ["deploy/prometheus/evenkeel.rules.yaml", "deploy/grafana/evenkeel.json"] {
        let unknown: Vec<_> = metrics(&read(file)).into_iter().filter(|m| !there.contains(m)).collect();
        assert!(unknown.is_empty(), "{file}: no such metrics: {unknown:?}");
    }
    serde_json::from_str::<serde_json::Value>(&read("deploy/grafana/evenkeel.json")).unwrap();
}

#[test]
fn every_alert_has_its_page_and_every_page_its_alert() {
    let (rules, runbook) = (read("deploy/prometheus/evenkeel.rules.yaml"), read("deploy/runbook.md"));
    let found = |pattern: &str, text: &str| -> BTreeSet<String> {
        Regex::new(pattern).unwrap().captures_iter(text).map(|c| c[1].to_owned()).collect()
    };
    let alerts = found(r"(?m)^\s+- alert: (\w+)$", &rules);
    assert!(alerts.len() > 10);
    assert_eq!(alerts, found(r"(?m)^## (Evenkeel\w+)$", &runbook));
    let links = found(r"runbook: deploy/runbook.md#(\w+)", &rules);
    assert_eq!(alerts.iter().map(|a| a.to_lowercase()).collect::<BTreeSet<_>>(), links);
}
