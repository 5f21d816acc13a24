//! The architecture, held by a test: who may import whom, which words have no place in the pure rooms, how long a
//! file may be, and that the README knows every command. ARCHITECTURE.md explains the rules; the tables are here.

use regex::Regex;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Who may import whom. A room not named here may import nothing of the crate; `*` is everything.
const LAYERS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("sense", &["model"]),
    ("steer", &["model"]),
    ("report", &["model"]),
    ("whatif", &["model", "sense", "steer", "report"]),
    ("http1", &["model"]),
    ("clock", &["model"]),
    ("live", &["model", "clock"]),
    ("logging", &["model", "clock", "live"]),
    ("upstream", &["model", "live", "clock", "http1"]),
    ("spool", &["model", "clock"]),
    ("edge", &["model", "steer", "live", "upstream", "clock", "http1", "logging", "spool"]),
    ("control", &["model", "sense", "live", "clock"]),
    ("probe", &["model", "live", "upstream", "clock", "http1"]),
    ("discover", &["model", "clock"]),
    ("config", &["model", "steer", "clock"]),
    ("journal", &["model", "clock", "logging"]),
    ("ledger", &["model", "clock", "live", "report"]),
    ("fleet", &["model", "live", "clock"]),
    ("admin", &["fleet", "model", "sense", "steer", "live", "clock", "http1", "config", "report", "journal", "ledger", "whatif", "spool"]),
    ("cli", &["model", "steer", "clock", "http1", "config", "report", "journal", "whatif", "admin", "run", "demo", "logging"]),
    ("demo", &["*"]),
    ("run", &["*"]),
    ("main", &["cli"]),
    ("lib", &[]),
];

/// Rooms that take time and chance as arguments and touch nothing outside, so that the same seed gives the same bytes.
const PURE: &[&str] = &["model", "sense", "steer", "whatif", "report", "http1"];

/// What a pure room must not say, and why.
const BANNED: &[(&str, &str)] = &[
    (r"\btokio\b|\basync\b|\.await\b|\bpingora\w*", "nothing waits here"),
    (r"\bInstant\b|\bSystemTime\b|\bjiff\b|crate::clock\b", "time is a Moment argument"),
    (r"\brand\b|\bgetrandom\b|\bRandomState\b", "chance is a Dice argument"),
    (r"\bAtomic\w+|\bMutex\b|\bRwLock\b|\bRefCell\b|\bthread_local\b|\bOnceLock\b", "no shared or hidden state"),
    (r"\bHash(Map|Set)\b", "its order is not the same twice: BTreeMap, a sorted vector, or LOOKED_UP (tests/tidy.rs)"),
    (r"\btracing::|\bprintln!|\beprintln!", "say it with an Event or a value"),
    (r"\bstd::fs\b|\bstd::env\b|\bstd::process\b|\bTcp(Stream|Listener)\b|\bUdpSocket\b|\bToSocketAddrs\b", "nothing outside is touched"),
];

/// Pure files whose hash maps are only ever looked up, never walked.
const LOOKED_UP: &[&str] = &["src/steer/route.rs"];

/// Lines of a file, at most.
const LONGEST: usize = 600;

/// Files that are longer today, and how long they may be. May shrink; may not grow.
const LONG: &[(&str, usize)] = &[];

struct Source {
    path: String,
    room: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() && path.file_name().is_some_and(|n| n == "target") {
            // What fuzzing builds.
        } else if path.is_dir() {
            walk(&path, out);
        } else {
            out.push(path);
        }
    }
}

fn files(dirs: &[&str], ext: &str) -> Vec<(String, String)> {
    let mut paths = Vec::new();
    dirs.iter().for_each(|d| walk(&root().join(d), &mut paths));
    paths.sort();
    paths
        .into_iter()
        .filter(|p| p.extension().is_some_and(|e| e == ext))
        .map(|p| (p.strip_prefix(root()).unwrap().display().to_string(), fs::read_to_string(&p).unwrap()))
        .collect()
}

/// Modules that exist in tests only: `tests.rs`, `tests/`, and what is declared so.
fn is_test(path: &str, all: &[(String, String)]) -> bool {
    let declared = Regex::new(r"#\[cfg\(test\)\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([a-z]+\))? )?mod (\w+);").unwrap();
    let test_only = |(parent, text): &(String, String)| {
        let dir = parent.strip_suffix("/mod.rs").or(parent.strip_suffix(".rs")).unwrap_or(parent);
        let dir = if parent == "src/lib.rs" { "src" } else { dir };
        declared.captures_iter(text).any(|c| path == format!("{dir}/{}.rs", &c[1]) || path.starts_with(&format!("{dir}/{}/", &c[1])))
    };
    path.contains("/tests/") || path.ends_with("/tests.rs") || all.iter().any(test_only)
}

/// The product's own code: no test modules, no comments.
fn sources() -> Vec<Source> {
    let comment = Regex::new(r"(?m)//.*$").unwrap();
    let tests = Regex::new(r"(?s)#\[cfg\(test\)\]\s*mod \w+ \{.*").unwrap();
    let all = files(&["src"], "rs");
    all.iter()
        .filter(|(path, _)| !is_test(path, &all))
        .map(|(path, text)| {
            let room = path.trim_start_matches("src/").split('/').next().unwrap().trim_end_matches(".rs").to_string();
            let text = comment.replace_all(&tests.replace(text, ""), "").into_owned();
            Source { path: path.clone(), room, text }
        })
        .collect()
}

/// The rooms a text names: `crate::room`, `crate::{room::…, other}`, and `evenkeel::room` in main.
fn imports(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let at = Regex::new(r"\b(?:crate|evenkeel)::").unwrap();
    let word = Regex::new(r"^\s*(\w+)").unwrap();
    for m in at.find_iter(text) {
        let rest = &text[m.end()..];
        if let Some(group) = rest.strip_prefix('{') {
            let (mut depth, mut start) = (1, 0);
            for (i, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                if depth == 0 || (depth == 1 && c == ',') {
                    found.extend(word.captures(&group[start..i]).map(|c| c[1].to_string()));
                    start = i + 1;
                }
                if depth == 0 {
                    break;
                }
            }
        } else {
            found.extend(word.captures(rest).map(|c| c[1].to_string()));
        }
    }
    found
}

fn verdict(rule: &str, problems: Vec<String>) {
    assert!(problems.is_empty(), "{rule}\n  {}\n", problems.join("\n  "));
}

#[test]
fn rooms_import_only_what_the_layer_rule_allows() {
    let rooms: BTreeSet<&str> = LAYERS.iter().map(|(r, _)| *r).collect();
    let mut problems = Vec::new();
    for s in sources() {
        let Some((_, allowed)) = LAYERS.iter().find(|(r, _)| *r == s.room) else {
            problems.push(format!("{}: room `{}` has no line in LAYERS (tests/tidy.rs)", s.path, s.room));
            continue;
        };
        for to in imports(&s.text) {
            if to != s.room && rooms.contains(to.as_str()) && !allowed.contains(&"*") && !allowed.contains(&to.as_str()) {
                problems.push(format!("{}: `{}` may not import `{to}`", s.path, s.room));
            }
        }
    }
    verdict("the layer rule (ARCHITECTURE.md, who may import whom)", problems);
}

#[test]
fn pure_rooms_stay_pure() {
    let banned: Vec<_> = BANNED.iter().map(|(r, why)| (Regex::new(r).unwrap(), why)).collect();
    let mut problems = Vec::new();
    for s in sources().iter().filter(|s| PURE.contains(&s.room.as_str())) {
        for (n, line) in s.text.lines().enumerate() {
            for (regex, why) in &banned {
                let looked_up = LOOKED_UP.contains(&s.path.as_str()) && line.contains("HashMap");
                if let Some(word) = regex.find(line).filter(|_| !looked_up) {
                    problems.push(format!("{}:{}: `{}`: {why}", s.path, n + 1, word.as_str()));
                }
            }
        }
    }
    verdict("pure rooms take time and chance as arguments and touch nothing outside", problems);
}

#[test]
fn files_stay_readable() {
    let mut problems = Vec::new();
    for (path, text) in files(&["src", "tests", "benches"], "rs") {
        let lines = text.lines().count();
        match LONG.iter().find(|(p, _)| *p == path) {
            None if lines > LONGEST => problems.push(format!("{path}: {lines} lines; at most {LONGEST}: split it by what it knows")),
            Some((_, most)) if lines > *most => problems.push(format!("{path}: {lines} lines; was {most}, and may only shrink")),
            Some(_) if lines <= LONGEST => problems.push(format!("{path}: {lines} lines: take it off the list LONG (tests/tidy.rs)")),
            _ => {}
        }
    }
    for (path, _) in LONG {
        if !root().join(path).exists() {
            problems.push(format!("{path}: gone: take it off the list LONG (tests/tidy.rs)"));
        }
    }
    verdict("file sizes", problems);
}

#[test]
fn every_module_says_what_it_is() {
    let all = files(&["src"], "rs");
    let problems = all
        .iter()
        .filter(|(path, text)| path != "src/main.rs" && !is_test(path, &all) && !text.starts_with("//!"))
        .map(|(path, _)| format!("{path}: begins without a `//!` header"))
        .collect();
    verdict("the module header is the domain model", problems);
}

#[test]
fn words_that_do_not_belong() {
    let unfinished = Regex::new(&format!(r"\b({}|{}|{})\b", concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"))).unwrap();
    let mut problems = Vec::new();
    let mut texts = files(&["src", "tests", "benches"], "rs");
    texts.extend(files(&["config", "deploy"], "yaml"));
    for name in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"] {
        texts.push((name.to_string(), fs::read_to_string(root().join(name)).unwrap_or_default()));
    }
    for (path, text) in &texts {
        for (n, line) in text.lines().enumerate() {
            if line.contains('\u{2014}') {
                problems.push(format!("{path}:{}: an em dash: a colon, a comma or a full stop does", n + 1));
            }
            if let Some(word) = unfinished.find(line) {
                problems.push(format!("{path}:{}: {}: finish it, or file an issue", n + 1, word.as_str()));
            }
        }
    }
    verdict("words that do not belong", problems);
}

#[test]
fn the_readme_knows_every_command() {
    let help = Command::new(env!("CARGO_BIN_EXE_evenkeel")).arg("--help").output().expect("evenkeel --help runs");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let command = Regex::new(r"^  ([a-z][a-z-]+)(\s|$)").unwrap();
    let problems = help
        .lines()
        .skip_while(|l| !l.starts_with("Commands:"))
        .skip(1)
        .take_while(|l| !l.is_empty())
        .filter_map(|l| command.captures(l).map(|c| c[1].to_string()))
        .filter(|c| c != "help" && !readme.contains(&format!("evenkeel {c}")))
        .map(|c| format!("`evenkeel {c}` is not in README.md"))
        .collect();
    verdict("README.md lists every command", problems);
}

#[test]
fn the_import_reader_reads_what_people_write() {
    let text = "use crate::model::id::*; use crate::{live::{a, b}, steer, clock::now}; fn f() { crate::edge::x() }";
    let want: BTreeSet<String> = ["clock", "edge", "live", "model", "steer"].map(String::from).into();
    assert_eq!(imports(text), want);
}
