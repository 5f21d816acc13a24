//! The command line from outside: what it prints, and its exit codes. Golden files are read by people, too:
//! `UPDATE_GOLDEN=1 cargo test --test cli` writes them anew, `git diff` shows what became of them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn evenkeel(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_evenkeel"))
        .args(args)
        .env_remove("EVENKEEL_ADMIN")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("the program can be started")
}

/// Exit code, standard output and standard error in one text.
fn told(out: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = out.status.code().map_or("none".into(), |c| c.to_string());
    format!("{}{}exit {code}\n", text(&out.stderr), text(&out.stdout))
}

fn golden(path: &Path, is: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, is).expect("golden file written");
    }
    let should = std::fs::read_to_string(path).unwrap_or_default();
    assert!(should == is, "{} differs; it says now:\n{is}", path.display());
}

#[test]
fn every_broken_config_is_answered_as_in_its_golden_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/config");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "yaml" || e == "json"));
    files.sort();
    assert!(files.len() > 10);
    for file in files {
        let name = format!("tests/golden/config/{}", file.file_name().unwrap().to_string_lossy());
        golden(&file.with_extension("txt"), &told(&evenkeel(&["check", "--config", &name])));
    }
}

#[test]
fn check_says_by_its_exit_code_whether_it_could_run() {
    let missing = evenkeel(&["check", "--config", "no/such/file.yaml"]);
    assert_eq!(missing.status.code(), Some(2));
    let told = String::from_utf8_lossy(&missing.stderr);
    assert!(told.contains("error: no/such/file.yaml: cannot be read") && told.contains("next:"), "{told}");
    assert_eq!(evenkeel(&["check"]).status.code(), Some(2));
    assert_eq!(evenkeel(&["check", "--config", "tests/golden/config/exam-perf.yaml"]).status.code(), Some(0));
    assert_eq!(evenkeel(&["check", "--strict", "--config", "tests/golden/config/exam-failover.json"]).status.code(), Some(1));
}

#[test]
fn check_for_machines() {
    let out = evenkeel(&["check", "--json", "--config", "tests/golden/config/unknown-key.yaml"]);
    let document: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(document["valid"], false);
    let first = &document["problems"][0];
    assert!(first["line"].is_u64() && first["column"].is_u64() && first["path"].is_string(), "{first}");
    assert_eq!(out.status.code(), Some(1));
}

#[test]
fn the_schema_in_the_repository_is_the_one_that_the_program_prints() {
    let out = evenkeel(&["schema"]);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/evenkeel.schema.json");
    golden(&file, &String::from_utf8_lossy(&out.stdout));
}

#[test]
fn explain_tells_the_way_of_a_request() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/explain");
    let config = "config/three-regions.yaml";
    let cases: [(&str, &[&str]); 6] = [
        ("read", &[config, "GET", "http://www.example.com/video/7?t=1"]),
        ("write", &[config, "POST", "/video/7"]),
        ("resident", &[config, "GET", "/records/1"]),
        ("header", &["tests/golden/config/exam-failover.json", "GET", "/feed", "--header", "X-Residency: us"]),
        ("near-miss", &["tests/golden/config/exam-failover.json", "GET", "/feed"]),
        ("no-route", &["tests/golden/config/dangerous.yaml", "GET", "/"]),
    ];
    for (name, args) in cases {
        let args: Vec<&str> = ["explain", "--config"].iter().chain(args).copied().collect();
        golden(&folder.join(name).with_extension("txt"), &told(&evenkeel(&args)));
    }
    let bad = evenkeel(&["explain", "--config", "tests/golden/config/wrong-type.yaml", "GET", "/"]);
    assert_eq!(bad.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&bad.stderr).contains("next: evenkeel check --config"));
    let machine = evenkeel(&["explain", "--json", "--config", config, "GET", "/video/7"]);
    let document: serde_json::Value = serde_json::from_slice(&machine.stdout).unwrap();
    assert_eq!(document["route"], "video");
}

#[test]
fn every_config_that_is_handed_out_is_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let map = std::fs::read_to_string(root.join("deploy/kubernetes/configmap.yaml")).unwrap();
    let (_, text) = map.split_once("  evenkeel.yaml: |\n").expect("the config in the ConfigMap");
    let text: Vec<&str> = text.lines().map(|l| l.strip_prefix("    ").unwrap_or(l)).collect();
    let folder = tempfile::tempdir().unwrap();
    let embedded = folder.path().join("evenkeel.yaml");
    std::fs::write(&embedded, text.join("\n")).unwrap();
    let mut files: Vec<PathBuf> = std::fs::read_dir(root.join("config")).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "yaml"));
    assert!(files.len() >= 3, "{files:?}");
    files.extend([embedded, root.join("deploy/compose/edge/evenkeel.yaml")]);
    for file in files {
        let out = evenkeel(&["check", "--config", file.to_str().unwrap()]);
        assert!(out.status.success(), "{}\n{}", file.display(), told(&out));
    }
}

#[test]
fn plan_tells_what_would_be_before_it_is() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/plan");
    let new = "tests/golden/plan/new.yaml";
    let old = "config/three-regions.yaml";
    let cases: [(&str, &[&str]); 4] = [
        ("change", &["--config", new, "--current", old, "--rate", "api=500/s"]),
        ("too-much", &["--config", new, "--current", old, "--rate", "api=1600/s", "--lose", "east"]),
        ("no-load", &["--config", old, "--current", old]),
        ("unknown", &["--config", old, "--current", old, "--lose", "mars"]),
    ];
    for (name, args) in cases {
        let args: Vec<&str> = ["plan"].iter().chain(args).copied().collect();
        golden(&folder.join(name).with_extension("txt"), &told(&evenkeel(&args)));
    }
    let machine = evenkeel(&["plan", "--json", "--config", new, "--current", old, "--rate", "api=1100/s", "--lose", "provider-a"]);
    let document: serde_json::Value = serde_json::from_slice(&machine.stdout).unwrap();
    assert_eq!(
        (machine.status.code(), &document["safe"], &document["losses"][0]["regions"]),
        (Some(1), &false.into(), &serde_json::json!(["east", "west"]))
    );
    assert_eq!(evenkeel(&["plan", "--config", "tests/golden/config/wrong-type.yaml", "--current", old]).status.code(), Some(2));
    assert_eq!(evenkeel(&["plan", "--config", new, "--admin", "http://127.0.0.1:1"]).status.code(), Some(2));
}

#[test]
fn shells_and_man_know_every_command() {
    let help = String::from_utf8(evenkeel(&["--help"]).stdout).unwrap();
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|l| !l.starts_with("Commands:"))
        .skip(1)
        .take_while(|l| l.starts_with("  "))
        .filter_map(|l| l.strip_prefix("  ")?.split(' ').next())
        .filter(|c| !c.is_empty())
        .collect();
    assert!(commands.contains(&"drill") && commands.len() > 15, "{commands:?}");
    for shell in ["bash", "zsh", "fish"] {
        let script = String::from_utf8(evenkeel(&["completions", shell]).stdout).unwrap();
        assert!(commands.iter().all(|c| script.contains(c)), "{shell}");
    }
    let dir = tempfile::tempdir().unwrap();
    assert!(evenkeel(&["man", dir.path().to_str().unwrap()]).status.success());
    for command in commands {
        let page = std::fs::read_to_string(dir.path().join(format!("evenkeel-{command}.1"))).expect(command);
        assert!(page.contains(".TH evenkeel"), "{command}");
    }
}

#[test]
fn rehearse_tells_what_an_outage_would_do() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/rehearse");
    let play = |scenario: &str, more: &[&str]| {
        let args = ["rehearse", "--config", "config/three-regions.yaml", "--scenario", scenario, "--rate", "150/s"];
        evenkeel(&[&args, more].concat())
    };
    golden(&folder.join("mistakes.txt"), &told(&play("tests/golden/rehearse/mistakes.yaml", &[])));
    let blackout = told(&play("blackout", &[]));
    // Headings, and a line of each kind; the figures are the decision core's, and change with it.
    for part in [
        "what users felt",
        "api/east share",
        "fault: region east",
        "pool api/east tripped",
        "where capacity ran out",
        "the model leaves out",
        "exit 0",
    ] {
        assert!(blackout.contains(part), "{part}: {blackout}");
    }
    let gate = told(&play("tests/golden/rehearse/gate.yaml", &[]));
    assert!(gate.contains("MISSED  all routes: 99.900 % served") && gate.ends_with("exit 1\n"), "{gate}");
    assert!(told(&play("fate:provider-b", &[])).contains("fault: region west"));
    let machine = |seed| play("errors", &["--json", "--seed", seed]).stdout;
    assert!(machine("7") == machine("7"), "the same seed gives the same bytes");
    let document: serde_json::Value = serde_json::from_slice(&machine("7")).unwrap();
    assert!(document["story"].as_array().is_some_and(|s| !s.is_empty()) && document["timeline"][20]["asked"].is_array(), "{document}");
    assert_eq!(play("no/such/file.yaml", &[]).status.code(), Some(2));
}
