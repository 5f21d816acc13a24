use super::*;
use crate::model::policy::Priority;
use crate::steer::fake::*;
use proptest::prelude::*;

fn ms_range(a: u64, b: u64) -> (Duration, Duration) {
    (ms(a), ms(b))
}

fn full(status: u16) -> Route {
    let stale = StaleRule { max_age: ms(1000), key_headers: vec![], ignore_cookies: vec![] };
    let spool = SpoolRule { max_age: ms(1000), status: 202, order_key: "path".into(), make_key: false };
    let fixed = StaticAnswer { status, content_type: "application/json".into(), body: Bytes::from_static(b"{}") };
    let last = Unavailable { retry_after: ms_range(3000, 5000), body: Some(Bytes::from_static(b"sorry")) };
    Route { degrade: vec![Degrade::Stale(stale), Degrade::Spool(spool), Degrade::Static(fixed), Degrade::Unavailable(last)], ..route("r") }
}

fn plan(r: &Route, refusal: Refusal, facts: &Facts) -> (Vec<&'static str>, Answer) {
    let p = decide(r, refusal, facts, &mut Dice::new(1));
    (p.ways.iter().map(|w| if matches!(w, Way::Stale(_)) { "stale" } else { "spool" }).collect(), p.answer)
}

#[test]
fn each_way_serves_what_it_honestly_can() {
    let (ways, answer) = plan(&full(200), Refusal::NoRegion, &get(ANY));
    assert_eq!((ways, answer.status, answer.outcome), (vec!["stale"], 200, RequestOutcome::Static));
    assert_eq!(answer.header("evenkeel-degraded"), Some("static"));
    assert_eq!(answer.header("retry-after"), None);
    let (ways, answer) = plan(&full(200), Refusal::NoRegion, &post(ANY));
    assert_eq!((ways.len(), answer.status), (0, 503), "a fixed 200 would acknowledge a write");
    let keyed = Facts { keyed: true, ..post(ANY) };
    assert!(plan(&full(200), Refusal::NoRegion, &keyed).0.is_empty(), "a backend that knows no keys");
    let mut knows = full(200);
    knows.retry.writes = Writes::IdempotencyKey;
    assert_eq!(plan(&knows, Refusal::NoRegion, &keyed).0, ["spool"]);
    assert!(plan(&knows, Refusal::NoRegion, &post(ANY)).0.is_empty(), "no key");
    assert_eq!(answer.body, "sorry");
    assert_eq!(plan(&full(503), Refusal::NoRegion, &post(ANY)).1.outcome, RequestOutcome::Static);
}

#[test]
fn an_unknown_outcome_is_told_as_such() {
    let (ways, answer) = plan(&full(503), Refusal::UnknownOutcome, &post(ANY));
    assert_eq!((ways.len(), answer.status, answer.outcome), (0, 504, RequestOutcome::Failed));
    assert_eq!(answer.header("Evenkeel-Degraded"), Some("unavailable; reason=unknown_outcome"));
    assert_eq!(answer.header("Retry-After"), None);
    assert_ne!(answer.body, "sorry");
    let mut r = full(503);
    r.retry.writes = Writes::IdempotencyKey;
    assert_eq!(plan(&r, Refusal::UnknownOutcome, &post(ANY)).1.header("Retry-After"), None, "no key");
    let (ways, answer) = plan(&r, Refusal::UnknownOutcome, &Facts { keyed: true, ..post(ANY) });
    assert_eq!((ways, answer.status), (vec!["spool"], 504));
    assert!(answer.header("Retry-After").is_some());
}

proptest! {
    #[test]
    fn every_answer_is_marked_and_every_503_says_when_to_come_back(
        seed in any::<u64>(),
        refusal in prop::sample::select(Refusal::ALL.to_vec()),
        safe in any::<bool>(),
        range in (0u64..20_000, 0u64..20_000),
        status in prop::sample::select(vec![200u16, 404, 503]),
        bare in any::<bool>(),
    ) {
        let mut r = if bare { route("r") } else { full(status) };
        let range = ms_range(range.0.min(range.1), range.0.max(range.1));
        *r.degrade.last_mut().unwrap() = Degrade::Unavailable(Unavailable { retry_after: range, body: None });
        let facts = Facts { safe, priority: Priority::Normal, ..get(ANY) };
        let a = decide(&r, refusal, &facts, &mut Dice::new(seed)).answer;
        prop_assert!(a.header("Evenkeel-Degraded").is_some());
        prop_assert!(a.header("Proxy-Status").unwrap().starts_with("evenkeel; error="));
        prop_assert!(!a.body.is_empty());
        if refusal != Refusal::UnknownOutcome {
            prop_assert_eq!(a.header("Retry-After").is_some(), a.status == 503);
        }
        if let Some(after) = a.header("Retry-After") {
            let after: u64 = after.parse().unwrap();
            prop_assert!(after >= 1);
            prop_assert!(after * 1000 >= range.0.as_millis() as u64);
            prop_assert!(after == 1 || after * 1000 < range.1.as_millis() as u64 + 1000);
        }
        if let Some(mark) = a.header("Evenkeel-Degraded").filter(|m| *m != "static") {
            prop_assert_eq!(mark, format!("unavailable; reason={}", refusal.reason()));
        }
    }
}
