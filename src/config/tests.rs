use super::*;
use crate::model::id::*;

fn around() -> Surroundings {
    Surroundings { file: "evenkeel.yaml".into(), folder: "/etc/evenkeel".into(), host: "edge-7".into(), cores: 4, readable: |_| Ok(()) }
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
    assert_eq!(t.routes[0].attempt_timeout.as_millis(), t.routes[0].deadline.as_millis() / 3);
    assert_eq!(t.routes[0].allowed, RegionSet::all(1));
    assert_eq!(t.tables.len(), 1);
}

/// `config/full.yaml` is the reference: it must name every key of the schema, and its values must be the real defaults.
mod full {
    use super::super::{file, read, schema, tree};
    use crate::model::policy;

    const TEXT: &str = include_str!("../../config/full.yaml");

    #[test]
    fn names_every_key() {
        let (tree, _) = tree::parse(TEXT).unwrap();
        let schema = schema::schema();
        let mut missing = vec![];
        schema::walk(&schema, &schema, "", &mut |place, block| {
            for key in block["properties"].as_object().unwrap().keys() {
                let given = |place: &str| tree.all(place).iter().any(|(_, node)| node.entry(key).is_some());
                // What is off by default, or refused in this version, stands in a comment.
                let comment = ["fleet", "nats", "client", "tracing", "spool", "tokens", "access", "affinity"]
                    .iter()
                    .any(|k| place.contains(k) || k == key);
                let named = given(place) || given(&format!("{place}.[]")) || comment && TEXT.contains(&format!("{key}: "));
                if !named {
                    missing.push(format!("{place}.{key}"));
                }
            }
        });
        // In a service these four may be empty: their keys stand at the top.
        let inherited =
            |m: &String| ["failover", "recovery", "overload", "retry_budget"].iter().any(|k| m.starts_with(&format!(".services.*.{k}.")));
        // Headers towards the client have the keys of headers towards the backend.
        missing.retain(|m| !inherited(m) && !m.starts_with(".routes.[].response_headers."));
        assert!(missing.is_empty(), "config/full.yaml does not name {missing:?}");
    }

    #[test]
    fn gives_the_real_defaults() {
        let (tree, flaws) = tree::parse(TEXT).unwrap();
        let reading = read::read::<file::File>(&tree);
        assert_eq!((reading.wrong, flaws), (vec![], vec![]));
        let f = reading.value;
        let d = file::File::default();
        assert_eq!((f.edge, f.limits, f.admin), (d.edge, d.limits, d.admin));
        assert_eq!((f.logging, f.tracing, f.fleet), (d.logging, d.tracing, d.fleet));
        assert_eq!((f.stale, f.spool, f.journal), (d.stale, d.spool, d.journal));
        assert_eq!(f.failover, policy::Failover::default().into());
        assert_eq!(f.recovery, policy::Recovery::default().into());
        assert_eq!(f.overload, policy::Overload::default().into());
        assert_eq!(f.retry_budget, policy::RetryBudget::default().into());
        assert_eq!(f.listeners[0], file::Listener { address: "0.0.0.0:8080".into(), ..Default::default() });
        assert_eq!(*f.regions.get("east").unwrap(), file::Region::default());
        let app = f.services.get("app").unwrap().clone();
        assert_eq!(app, file::service::Service { pools: app.pools.clone(), ..Default::default() });
        assert_eq!(f.services.get("other").unwrap().tls, Some(file::service::Tls::default()));
        let (plain, rich) = (f.routes[0].clone(), f.routes[1].clone());
        let methods = file::route::Match { methods: vec!["POST".into()], ..Default::default() };
        let default = file::route::Route { name: Some("plain".into()), service: "app".into(), r#match: methods, ..Default::default() };
        assert_eq!(plain, default);
        assert_eq!((rich.hedge, rich.rewrite), (Some(Default::default()), Some(Default::default())));
        use file::route::Degrade;
        let ways = [Degrade::Stale(Default::default()), Degrade::Static(Default::default()), Degrade::Unavailable(Default::default())];
        assert_eq!(rich.degrade, ways);
        assert!(!rich.guards[0].mask);
    }
}

#[test]
fn the_configs_in_the_repository_are_good() {
    for text in
        [include_str!("../../config/minimal.yaml"), include_str!("../../config/three-regions.yaml"), include_str!("../../config/full.yaml")]
    {
        good(text);
    }
    let minimal = good(include_str!("../../config/minimal.yaml"));
    assert_eq!(minimal.warnings, Problems::default());
    assert!(include_str!("../../config/minimal.yaml").lines().count() <= 12);
    assert_eq!(good(include_str!("../../config/three-regions.yaml")).warnings, Problems::default());
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

#[test]
fn what_changed_is_told_one_line_a_change() {
    use crate::model::diff::diff;
    let text = include_str!("../../config/three-regions.yaml");
    let changed = |edits: &[(&str, &str)]| {
        let edited = edits.iter().fold(text.to_owned(), |t, (from, to)| {
            assert!(t.contains(from), "{from}");
            t.replacen(from, to, 1)
        });
        diff(&good(text).topology, &good(&edited).topology)
    };
    assert_eq!(changed(&[]), Vec::<String>::new());
    assert_eq!(changed(&[("weight: 60", "weight: 40")]), ["region east: weight 60 -> 40"]);
    assert_eq!(changed(&[("deadline: 1500ms", "deadline: 1s")]), ["route video: deadline 1.5s -> 1s"]);
    assert_eq!(
        changed(&[(", 10.1.0.13:8080", ", 10.1.0.14:8080"), ("capacity: 600/s", "capacity: 650/s")]),
        [
            "service api: capacity of west 600/s -> 650/s",
            "service api: endpoint 10.1.0.14:8080 added to east",
            "service api: endpoint 10.1.0.13:8080 removed from east",
        ]
    );
    assert_eq!(changed(&[("0.0.0.0:8080", "0.0.0.0:8081")]), ["listener 0.0.0.0:8081 added", "listener 0.0.0.0:8080 removed"]);
    assert_eq!(
        changed(&[("- name: rest", "- name: others"), ("residency: [us]", "residency: [us, eu]"), ("{path: /healthz}", "{path: /up}")]),
        ["service api: health changed", "route us-records: residency [us] -> [us, eu]", "route others added", "route rest removed"]
    );
    let swapped = changed(&[("- name: video", "- name: x"), ("- name: us-records", "- name: video"), ("- name: x", "- name: us-records")]);
    assert!(swapped.last().unwrap().starts_with("routes: order account, us-records, video"), "{swapped:?}");
    assert_eq!(
        changed(&[("  west: {jurisdiction: us, weight: 40", "  west: {jurisdiction: us, weight: 41")]),
        ["region west: weight 40 -> 41"]
    );
}
