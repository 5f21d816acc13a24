use super::*;
use http::HeaderMap;

pub(super) fn key(name: &str) -> Key {
    let rule = crate::model::policy::StaleRule { max_age: Duration::from_secs(60), key_headers: vec![], ignore_cookies: vec![] };
    let none = HeaderMap::new();
    let asked = lastgood::Asked { method: "GET", scheme: "http", host: "a.test", target: name, fields: &none, certificate: false };
    lastgood::key("all", &rule, &asked).expect("not personal")
}
pub(super) fn copy(body: &[u8], kept_at: u64) -> Copy {
    Copy { status: 200, fields: Vec::new(), body: Bytes::copy_from_slice(body), kept_at, region: "east".into() }
}
pub(super) fn language(value: &str) -> HeaderMap {
    let mut map = HeaderMap::new();
    map.insert("accept-language", value.parse().expect("a field value"));
    map
}
pub(super) fn by_language() -> Keep {
    Keep::Yes(vec!["accept-language".to_owned()])
}

#[test]
fn gives_back_what_was_kept_until_it_is_too_old() {
    let (store, none) = (Arc::new(Store::new(1 << 20, 1 << 16)), HeaderMap::new());
    store.put(&key("a"), &none, Keep::Yes(vec![]), copy(b"one", 1_000));
    let at = |now, max| store.get(&key("a"), &none, now, Duration::from_millis(max)).map(|c| c.body.clone());
    assert_eq!(at(2_000, 1_000).as_deref(), Some(&b"one"[..]));
    assert_eq!(at(2_001, 1_000), None);
    store.put(&key("a"), &none, Keep::Evict, copy(b"", 3_000));
    assert_eq!(at(2_000, 1_000), None);
}

#[test]
fn a_variant_goes_only_to_those_who_asked_for_it() {
    let store = Store::new(1 << 20, 1 << 16);
    store.put(&key("a"), &language("de"), by_language(), copy(b"hallo", 0));
    store.put(&key("a"), &language("fr"), by_language(), copy(b"salut", 0));
    let body = |l: &str| store.get(&key("a"), &language(l), 0, Duration::from_secs(1)).map(|c| c.body.clone());
    assert_eq!(body("de").as_deref(), Some(&b"hallo"[..]));
    assert_eq!(body("fr").as_deref(), Some(&b"salut"[..]));
    assert_eq!(body("en"), None);
}

#[test]
fn one_answer_at_a_time_is_collected_and_none_while_there_is_a_fresh_copy() {
    let (store, none) = (Arc::new(Store::new(1 << 20, 1 << 16)), HeaderMap::new());
    let claim = |name, fields: &HeaderMap, now| store.claim(&key(name), fields, now, false);
    let first = claim("a", &none, 0).expect("nobody is at it");
    assert!(claim("a", &none, 0).is_none(), "somebody is at it");
    assert!(claim("b", &none, 0).is_some(), "at another one");
    assert!(store.claim(&key("a"), &none, 0, true).is_some(), "what two regions agree on is collected in any case");
    assert!(claim("a", &none, 0).is_none(), "and takes nobody's right away");
    drop(first);
    assert!(claim("a", &none, 0).is_some(), "the first one gave up");
    store.put(&key("a"), &none, Keep::Yes(vec![]), copy(b"one", 1_000));
    assert!(claim("a", &none, 1_999).is_none() && claim("a", &none, 2_000).is_some());
    // Variants do not stand in each other's way.
    store.put(&key("v"), &language("de"), by_language(), copy(b"hallo", 0));
    let german = claim("v", &language("de"), 5_000).expect("its copy is old");
    assert!(claim("v", &language("fr"), 5_000).is_some() && claim("v", &language("de"), 5_000).is_none());
    drop(german);
}

#[test]
fn what_is_under_collection_is_bounded() {
    let (store, none) = (Arc::new(Store::new(800, 100)), HeaderMap::new());
    let mut claims: Vec<Claim> = (0..3).map(|n| store.claim(&key(&format!("{n}")), &none, 0, false).expect("free")).collect();
    assert!(claims[0].take(100) && claims[1].take(100), "an eighth of the bound, and one body");
    assert!(!claims[2].take(1));
    claims.clear();
    assert!(store.claim(&key("0"), &none, 0, false).is_some_and(|mut c| c.take(200)), "what ends is not counted any more");
}

#[test]
fn the_bound_holds_and_large_bodies_stay_out() {
    let (store, none) = (Store::new(1 << 20, 1000), HeaderMap::new());
    for i in 0..20_000u32 {
        store.put(&key(&format!("key-{i}")), &none, Keep::Yes(vec![]), copy(&[b'x'; 500], 0));
        assert!(store.bytes() <= 1 << 20, "{} bytes after {i}", store.bytes());
    }
    assert!(store.len() > 500, "{} entries: the bound is used", store.len());
    store.put(&key("large"), &none, Keep::Yes(vec![]), copy(&[b'x'; 1001], 0));
    assert!(store.get(&key("large"), &none, 0, Duration::from_secs(1)).is_none());
    assert_eq!(store.purge(&Pattern::Route("no such thing".into())), 0);
    let held = store.len();
    assert_eq!((store.purge(&Pattern::All), store.len(), store.bytes()), (held, 0, 0));
}

#[test]
fn copies_outlive_a_change_of_the_bounds() {
    let (copies, none) = (Copies::default(), HeaderMap::new());
    let bounds = |max_bytes| StaleStore { max_bytes, max_body: 1000, persist: false };
    for i in 0..1000u32 {
        copies.store(&bounds(1 << 20)).put(&key(&format!("key-{i}")), &none, Keep::Yes(vec![]), copy(&[b'x'; 500], 0));
    }
    let before = copies.held().1;
    assert_eq!(copies.store(&bounds(2 << 20)).len(), before);
    let small = copies.store(&bounds(1 << 18));
    assert!(small.bytes() <= 1 << 18 && small.len() > 100, "{} bytes in {} entries", small.bytes(), small.len());
}

#[test]
fn age_counts_what_it_came_with() {
    let mut c = copy(b"", 10_000);
    c.fields.push((Bytes::from_static(b"Age"), Bytes::from_static(b"7")));
    assert_eq!(c.age(12_500), 9);
}
