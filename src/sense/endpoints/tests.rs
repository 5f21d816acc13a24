use super::*;
use crate::model::policy::HealthKind;

const E: EndpointIx = EndpointIx(0);

fn health() -> Health {
    Health {
        kind: HealthKind::Http,
        path: "/".into(),
        host: None,
        port: None,
        interval: Duration::from_secs(1),
        timeout: Duration::from_millis(500),
        fall: 2,
        rise: 2,
        expect_status: vec![],
        expect_json: vec![],
    }
}

fn at(s: u64) -> Moment {
    Moment::ms(100_000 + s * 1000)
}

/// Probe once a second and decide each time.
fn probes(mind: &mut Mind, from: u64, verdicts: &[ProbeVerdict], lying: bool) -> Vec<Option<EndpointOrder>> {
    let one = |(i, v): (usize, &ProbeVerdict)| {
        mind.probed(at(from + i as u64), v.clone());
        mind.decide(at(from + i as u64), E, &health(), lying, true)
    };
    verdicts.iter().enumerate().map(one).collect()
}

const PASS: ProbeVerdict = ProbeVerdict::Pass;
const BAD: ProbeVerdict = ProbeVerdict::Status(503);
const GONE: ProbeVerdict = ProbeVerdict::Timeout;

#[test]
fn falls_at_two_and_rises_at_two() {
    let mut m = Mind::new();
    let down = Some(EndpointOrder::ProbeDown(E, true));
    let up = Some(EndpointOrder::ProbeDown(E, false));
    let got = probes(&mut m, 0, &[PASS, GONE, PASS, GONE, GONE, PASS, GONE, PASS, PASS], false);
    assert_eq!(got, [None, None, None, None, down, None, None, None, up]);
}

#[test]
fn soft_failures_wait_for_the_others_to_be_heard() {
    let down = Some(EndpointOrder::ProbeDown(E, true));
    assert_eq!(probes(&mut Mind::new(), 0, &[BAD, BAD, BAD], false), [None, None, down]);
}

#[test]
fn live_success_outweighs_probes_for_ten_seconds() {
    let mut m = Mind::new();
    m.told(at(0), &EndpointTally { ok: 1, ..Default::default() });
    let got = probes(&mut m, 1, &[GONE; 11], false);
    assert!(got[..10].iter().all(Option::is_none), "{got:?}");
    assert_eq!(got[10], Some(EndpointOrder::ProbeDown(E, true)));
    let mut m = Mind::new();
    m.told(at(0), &EndpointTally { ok: 1, streak: 1, ..Default::default() });
    assert!(probes(&mut m, 1, &[GONE; 2], false)[1].is_some(), "but not once it fails live, too");
}

#[test]
fn a_checker_that_is_wrong_elsewhere_is_not_believed_on_soft_failures() {
    assert!(probes(&mut Mind::new(), 0, &[BAD; 5], true).iter().all(Option::is_none));
    assert!(probes(&mut Mind::new(), 0, &[GONE; 2], true)[1].is_some());
}

#[test]
fn an_ejection_ends_early_only_by_probes_that_saw_it() {
    let ejected = EndpointTally { ejected_until: at(60), ejected_hard: true, streak: 5, ..Default::default() };
    let mut blind = Mind::new();
    blind.told(at(0), &ejected);
    assert!(probes(&mut blind, 1, &[PASS; 5], false).iter().all(Option::is_none));
    let mut saw = Mind::new();
    saw.told(at(0), &ejected);
    let got = probes(&mut saw, 1, &[GONE, PASS, PASS], false);
    assert_eq!(got, [None, None, Some(EndpointOrder::Restore(E))]);
}
