use super::super::tests::{by_language, copy, key, language};
use super::super::{Copies, Copy};
use super::*;
use crate::live::testing;
use crate::model::policy::{Degrade, StaleRule};
use crate::steer::lastgood::Keep;
use crate::steer::purge::Pattern;
use bytes::Bytes;
use http::HeaderMap;
use std::os::unix::fs::PermissionsExt;

const AGE: Duration = Duration::from_secs(60);

fn rule() -> StaleRule {
    StaleRule { max_age: AGE, key_headers: vec![], ignore_cookies: vec![] }
}

/// A config whose route `all` keeps copies in this directory.
fn topology(dir: &Path) -> Topology {
    let mut t = testing::topology(&[("east", 1)]);
    t.edge.state_dir = dir.to_owned();
    (t.stale.max_bytes, t.stale.max_body, t.stale.persist) = (1 << 20, 1 << 16, true);
    t.routes.truncate(1);
    t.routes[0].name = "all".into();
    t.routes[0].degrade = vec![Degrade::Stale(rule())];
    t
}

fn opened(t: &Topology) -> Copies {
    let copies = Copies::default();
    copies.open(t);
    copies
}

fn put(copies: &Copies, t: &Topology, name: &str, body: &str) {
    let copy = Copy { fields: vec![(Bytes::from_static(b"ETag"), Bytes::from_static(b"\"1\""))], ..copy(body.as_bytes(), truth::now()) };
    copies.store(&t.stale).put(&key(name), &HeaderMap::new(), Keep::Yes(vec![]), copy);
}

fn found(copies: &Copies, t: &Topology, name: &str) -> Option<String> {
    let copy = copies.store(&t.stale).get(&key(name), &HeaderMap::new(), truth::now(), AGE)?;
    assert_eq!((copy.field("etag"), &*copy.region), (Some(&b"\"1\""[..]), "east"));
    Some(String::from_utf8(copy.body.to_vec()).unwrap())
}

/// Everything so far is on disk.
fn flush(copies: &Copies) {
    copies.disk.lock().as_ref().map(Disk::flush).expect("it persists").recv().expect("written");
}

#[test]
fn copies_survive_a_restart_in_a_file_that_is_nobody_elses_business() {
    let dir = tempfile::tempdir().unwrap();
    let t = topology(dir.path());
    let copies = opened(&t);
    put(&copies, &t, "/a", "one");
    copies.store(&t.stale).put(&key("/v"), &language("de"), by_language(), copy(b"hallo", truth::now()));
    flush(&copies);
    // As if it were killed now: nothing more is written, and the next one reads what is there.
    let killed = std::fs::read(dir.path().join(FILE)).unwrap();
    assert_eq!(std::fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode() & 0o777, 0o600);
    put(&copies, &t, "/b", "two");
    copies.close();
    std::fs::write(dir.path().join(FILE), killed).unwrap();

    let copies = opened(&t);
    assert_eq!((found(&copies, &t, "/a").as_deref(), found(&copies, &t, "/b")), (Some("one"), None));
    let hallo = |l| copies.store(&t.stale).get(&key("/v"), &language(l), truth::now(), AGE).map(|c| c.body.clone());
    assert_eq!((hallo("de").as_deref(), hallo("fr")), (Some(&b"hallo"[..]), None));
    put(&copies, &t, "/b", "two");
    copies.close();
    let copies = opened(&t);
    assert_eq!((found(&copies, &t, "/a").as_deref(), found(&copies, &t, "/b").as_deref()), (Some("one"), Some("two")), "left in peace");
}

#[test]
fn what_was_withdrawn_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let t = topology(dir.path());
    let copies = opened(&t);
    for name in ["/a", "/b", "/c"] {
        put(&copies, &t, name, "x");
    }
    flush(&copies);
    copies.store(&t.stale).evict(&key("/a"), &HeaderMap::new());
    assert_eq!(copies.purge(&Pattern::Place { host: None, target: "/b".into() }), 1);
    // The purge has waited for the disk: also a process that is killed now has lost them.
    let killed = std::fs::read(dir.path().join(FILE)).unwrap();
    copies.close();
    std::fs::write(dir.path().join(FILE), killed).unwrap();
    let copies = opened(&t);
    assert_eq!(["/a", "/b", "/c"].map(|n| found(&copies, &t, n).is_some()), [false, false, true]);
}

#[test]
fn a_damaged_file_gives_nothing_and_a_torn_one_what_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (t, path) = (topology(dir.path()), dir.path().join(FILE));
    let copies = opened(&t);
    for n in 0..20 {
        put(&copies, &t, &format!("/{n}"), &format!("body of {n}"));
        flush(&copies);
    }
    copies.close();
    let whole = std::fs::read(&path).unwrap();
    let held = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let copies = opened(&t);
        let all: Vec<Option<String>> = (0..20).map(|n| found(&copies, &t, &format!("/{n}"))).collect();
        for (n, body) in all.iter().enumerate().filter_map(|(n, body)| Some((n, body.as_ref()?))) {
            assert_eq!(*body, format!("body of {n}"), "never another one's");
        }
        put(&copies, &t, "/new", "new");
        copies.close();
        let next = opened(&t);
        assert_eq!(found(&next, &t, "/new").as_deref(), Some("new"), "the file is good again");
        all.iter().flatten().count()
    };
    assert_eq!(held(&whole), 20);
    for at in (0..whole.len()).step_by(whole.len() / 40) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        assert_eq!(held(&damaged), 0, "a bit of byte {at} of {}", whole.len());
    }
    for (part, least) in [(0.9, 15), (0.5, 7), (0.1, 0)] {
        let n = held(&whole[..(whole.len() as f64 * part) as usize]);
        assert!((least..20).contains(&n), "{n} of what {part} of the file holds");
    }
    assert_eq!(held(b"evenkeel last good copies 9\nwhatever"), 0);
    assert_eq!(held(b""), 0);
}

#[test]
fn only_what_the_config_still_wants_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let t = topology(dir.path());
    let copies = opened(&t);
    put(&copies, &t, "/a", "x");
    copies.close();
    let comes_back = |change: &dyn Fn(&mut Topology)| {
        let other = tempfile::tempdir().unwrap();
        std::fs::copy(dir.path().join(FILE), other.path().join(FILE)).unwrap();
        let mut t = topology(other.path());
        change(&mut t);
        let copies = opened(&t);
        let held = copies.held().1 > 0;
        // What does not come back is not on disk either.
        copies.close();
        assert_eq!(std::fs::read(other.path().join(FILE)).is_ok_and(|bytes| bytes.windows(2).any(|w| w == b"/a")), held);
        held
    };
    assert!(comes_back(&|_| {}));
    assert!(!comes_back(&|t| t.routes[0].name = "other".into()));
    assert!(!comes_back(&|t| t.routes[0].degrade = vec![]));
    assert!(!comes_back(&|t| t.routes[0].residency = Some(["eu".into()].into())), "nobody knows where this edge stands");
    assert!(!comes_back(&|t| t.routes[0].degrade = vec![Degrade::Stale(StaleRule { key_headers: vec!["x-user".into()], ..rule() })]));
    assert!(!comes_back(&|t| t.routes[0].degrade = vec![Degrade::Stale(StaleRule { max_age: Duration::ZERO, ..rule() })]));
    assert!(!comes_back(&|t| t.stale.max_body = 0));
    assert!(!comes_back(&|t| t.stale.persist = false));
}

#[test]
fn the_file_is_bounded_however_often_copies_change() {
    let dir = tempfile::tempdir().unwrap();
    let mut t = topology(dir.path());
    (t.stale.max_bytes, t.stale.max_body) = (4 << 20, 1 << 18);
    let copies = opened(&t);
    let body = "x".repeat(200 << 10);
    for n in 0..100 {
        put(&copies, &t, &format!("/{n}"), &body);
        flush(&copies);
        let length = std::fs::metadata(dir.path().join(FILE)).unwrap().len();
        assert!(length <= 2 * (4 << 20) + SLACK + (1 << 20), "{length} bytes after {n}");
    }
    assert!(copies.held().1 >= 5);
}

#[test]
fn a_disk_that_fails_costs_the_file_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let t = topology(&dir.path().join("state"));
    // What is to be a directory is a file.
    std::fs::write(dir.path().join("state"), "").unwrap();
    let copies = opened(&t);
    put(&copies, &t, "/a", "one");
    assert_eq!(found(&copies, &t, "/a").as_deref(), Some("one"));
    assert_eq!(copies.purge(&Pattern::All), 1);
    copies.close();
}

#[test]
fn a_successor_writes_when_its_predecessor_has_left() {
    let dir = tempfile::tempdir().unwrap();
    let t = topology(dir.path());
    let old = opened(&t);
    put(&old, &t, "/a", "one");
    flush(&old);
    let new = opened(&t);
    assert_eq!(found(&new, &t, "/a").as_deref(), Some("one"));
    put(&new, &t, "/b", "two");
    put(&old, &t, "/a", "three");
    old.close();
    new.close();
    let next = opened(&t);
    assert_eq!((found(&next, &t, "/a").as_deref(), found(&next, &t, "/b").as_deref()), (Some("one"), Some("two")));
}

#[test]
fn word_of_changes_is_bounded() {
    let changes = Changes::default();
    changes.changed(&key("/a"));
    assert!(changes.take(true).changed.is_empty(), "nobody wants to know");
    changes.wanted.store(true, Relaxed);
    changes.changed(&key("/a"));
    changes.gone(&key("/b"));
    let urgent = changes.take(false);
    assert_eq!((urgent.gone.len(), urgent.changed.len(), urgent.all), (1, 0, false));
    assert_eq!(changes.take(true).changed.len(), 1);
    (0..=MOST).for_each(|n| changes.changed(&key(&n.to_string())));
    assert!(changes.take(false).all);
}
