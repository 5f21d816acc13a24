use super::incident::*;
use super::when::At;
use super::*;
use crate::model::event::{Actor, Cause, Event, EventKind};
use crate::model::time::Moment;
use crate::model::view::State;

/// 2026-11-21T12:00:00Z.
const NOON: i64 = 1_795_262_400_000_000;

fn entry(ms: i64, kind: EventKind) -> Entry {
    Entry { at: At(NOON + ms * 1000), lost: 0, event: Event { seq: 1, at: Moment::ms(1), by: Actor::Evenkeel, kind } }
}

fn pool(region: &str, from: State, to: State, cause: Cause) -> EventKind {
    EventKind::Pool { service: "api".into(), region: region.into(), from, to, cause }
}

fn silence(quiet_ms: u64) -> Cause {
    Cause::Silence { quiet_ms, waiting: 12 }
}

/// Down at 0 ms, suspect at 40, tripped at 255, then the whole way back.
fn outage(region: &str, start: i64) -> Vec<Entry> {
    use State::*;
    let suspect = EventKind::Suspect { service: "api".into(), region: region.into(), on: true, cause: silence(40) };
    vec![
        entry(start + 40, suspect),
        entry(start + 255, pool(region, Serving, Tripped, silence(255))),
        entry(start + 30_000, pool(region, Tripped, Trial, Cause::OpenTimeOver { open_s: 5 })),
        entry(start + 35_000, pool(region, Trial, Ramping, Cause::Proven { successes: 5 })),
        entry(start + 85_000, pool(region, Ramping, Serving, Cause::Recovered)),
    ]
}

#[test]
fn a_blackout_has_its_times_and_its_course() {
    let mut entries = vec![entry(-120_000, EventKind::ConfigApplied { generation: 4, changes: vec!["weights".into()] })];
    entries.extend(outage("east", 0));
    entries.push(entry(86_000, EventKind::Freeze { on: true })); // afterwards: no part of it
    let got = incidents(entries, At(NOON + 3_600_000_000));
    assert_eq!(got.len(), 1);
    let i = &got[0];
    assert_eq!((i.onset, i.detected, i.shifted), (At(NOON), At(NOON + 40_000), At(NOON + 255_000)));
    assert_eq!((i.detect_ms, i.shift_ms, i.restore_ms), (40, 255, Some(84_745)));
    assert_eq!((i.cause.as_str(), i.regions.as_slice()), ("silence", &["east".to_string()][..]));
    assert_eq!((i.pools[0].trips, i.pools[0].out_ms), (1, 34_745));
    assert_eq!(i.actions.iter().map(|l| l.what.as_str()).collect::<Vec<_>>(), ["config 4 applied: weights"]);
    assert_eq!(i.questions, ["Config 4 was applied 120 s before the onset: did it cause this?"]);
    assert_eq!(i.timeline.len(), 5);
    assert_eq!(
        tell::summary(i),
        "1795262400  2026-11-21T12:00:00.000Z  east: silence: nothing heard for 255 ms while 12 requests waited; shifted after 255 ms, restored after 84.7 s"
    );
}

#[test]
fn what_follows_soon_is_one_incident_and_what_follows_late_another() {
    let mut entries = outage("east", 0);
    entries.extend(outage("west", 85_000 + 59_000));
    entries.extend(outage("eu", 85_000 + 59_000 + 85_000 + 62_000));
    let got = incidents(entries, At(NOON + 3_600_000_000));
    assert_eq!(got.iter().map(|i| i.regions.join("+")).collect::<Vec<_>>(), ["east+west", "eu"]);
}

#[test]
fn one_that_goes_on_says_so() {
    let entries = outage("east", 0).into_iter().take(2);
    let got = incidents(entries, At(NOON + 60_000_000));
    assert_eq!((got[0].restored, got[0].pools[0].out_ms), (None, 59_745));
    assert!(got[0].questions[0].contains("goes on"));
}

#[test]
fn what_people_do_is_no_incident_of_its_own() {
    let cause = Cause::Operator { reason: "test".into() };
    let mut order = entry(0, pool("east", State::Serving, State::Tripped, cause));
    order.event.by = Actor::Operator("ann".into());
    assert!(incidents([order.clone()], At(NOON + 1)).is_empty());
    let mut entries = outage("west", 10_000);
    entries.insert(0, order);
    let got = incidents(entries, At(NOON + 3_600_000_000));
    assert_eq!(got[0].actions[0].by, "operator ann");
    assert_eq!(got[0].cause, "silence");
}

#[test]
fn lost_events_and_restarts_are_open_questions() {
    let mut entries = outage("east", 0);
    entries[2].lost = 7;
    entries.truncate(3);
    entries.push(entry(40_000, EventKind::Started { version: "1".into() }));
    let got = incidents(entries, At(NOON + 3_600_000_000));
    assert_eq!(got[0].restored, Some(At(NOON + 40_000_000)));
    assert!(
        got[0].questions[0].starts_with("7 events were lost") && got[0].questions[1].contains("started anew"),
        "{:?}",
        got[0].questions
    );
}

#[test]
fn markdown_for_a_post_mortem() {
    let got = incidents(outage("east", 0), At(NOON + 3_600_000_000));
    let is = tell::markdown(&got[0]);
    let should = "\
# Incident 1795262400: east

Detected cause: silence: nothing heard for 255 ms while 12 requests waited

| | when (UTC) | after |
|---|---|---|
| onset, as far as the edge could see | 2026-11-21T12:00:00.000Z | |
| detected | 2026-11-21T12:00:00.040Z | 40 ms |
| traffic shifted | 2026-11-21T12:00:00.255Z | 255 ms |
| restored | 2026-11-21T12:01:25.000Z | 84.7 s after the shift |

## Pools

| pool | trips | out | first cause |
|---|---|---|---|
| api/east | 1 | 34.7 s | silence: nothing heard for 255 ms while 12 requests waited |

## Config changes and operator actions

None on record.

## Timeline

- 12:00:00.040 pool api/east suspect: silence: nothing heard for 40 ms while 12 requests waited
- 12:00:00.255 pool api/east tripped, was serving: silence: nothing heard for 255 ms while 12 requests waited
- 12:00:30.000 pool api/east trial, was tripped: the open time of 5 s is over
- 12:00:35.000 pool api/east ramping, was trial: 5 trials succeeded
- 12:01:25.000 pool api/east serving, was ramping: ramp complete

";
    assert!(is == should, "{is}");
}

#[test]
fn dates_are_right() {
    for (us, text) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_400_000_000, "2000-02-29T00:00:00.000Z"),
        (4_107_542_399_999_000, "2100-02-28T23:59:59.999Z"),
        (-1_000, "1969-12-31T23:59:59.999Z"),
    ] {
        assert_eq!(At(us).to_string(), text);
    }
}

fn counts(ms: i64, ok: u64, failed: u64, stale: u64, east: u64, west: u64) -> Entry {
    use crate::model::count::{Counts, PoolCount, RouteCount};
    let routes = vec![RouteCount { route: "home".into(), ok, failed, stale, retried: failed * 2, ..RouteCount::default() }];
    let pool = |pool: &str, ok| PoolCount { pool: pool.into(), ok, failed };
    entry(ms, EventKind::Counts(Counts { routes, pools: vec![pool("api/east", east), pool("api/west", west)] }))
}

#[test]
fn whom_it_hurt_is_counted_from_the_onset_to_the_end() {
    let mut entries = outage("east", 0);
    // Told after the trip, of the time before it; the onset lies at 0.
    let before = [counts(-2000, 100, 5, 0, 60, 40), counts(-500, 200, 5, 0, 120, 80), counts(500, 250, 8, 4, 122, 128)];
    entries.splice(2..2, before);
    entries.push(counts(85_500, 1000, 9, 10, 130, 860));
    entries.push(counts(90_000, 2000, 500, 10, 600, 900)); // after the end: no part of it
    let got = incidents(entries, At(NOON + 3_600_000_000));
    let i = &got[0];
    let r = &i.routes[0];
    assert_eq!((r.ok, r.failed, r.stale, r.retried), (800, 4, 10, 8));
    assert_eq!(i.carried.iter().map(|c| (c.region.as_str(), c.answered)).collect::<Vec<_>>(), [("east", 10), ("west", 780)]);
    assert_eq!(i.series.iter().map(|p| (p.requests, p.hurt, p.degraded)).collect::<Vec<_>>(), [(57, 3, 4), (757, 1, 6)]);
    let page = tell::markdown(i);
    let table = "| route | requests | ok | failed | stale | retried |\n|---|---|---|---|---|---|\n| home | 814 | 800 | 4 | 10 | 8 |\n";
    assert!(page.contains(table) && page.contains("| west | 780 | 98.7% | 4 |"), "{page}");
    assert!(!page.contains("so far"), "counts are no lines of the timeline: {page}");
}

#[test]
fn a_restart_in_between_adds_and_takes_nothing_off() {
    let mut entries = outage("east", 0);
    entries.truncate(2);
    entries.insert(2, counts(-500, 1000, 0, 0, 600, 400));
    entries.push(counts(1000, 1100, 3, 0, 600, 500));
    entries.push(entry(2000, EventKind::Started { version: "1".into() }));
    entries.push(counts(3000, 1500, 1, 0, 0, 0));
    let got = incidents(entries, At(NOON + 60_000_000));
    // The new process knows of no trouble, so the incident ends with it.
    assert_eq!((got[0].routes[0].ok, got[0].routes[0].failed), (100, 3));
}

#[test]
fn a_suspicion_that_was_lifted_announced_nothing() {
    let suspect = |on| EventKind::Suspect { service: "api".into(), region: "east".into(), on, cause: silence(60) };
    let mut entries = vec![entry(-20_000, suspect(true)), entry(-19_900, suspect(false))];
    entries.extend(outage("east", 0));
    let got = incidents(entries, At(NOON + 3_600_000_000));
    assert_eq!((got[0].onset, got[0].detect_ms, got[0].shift_ms), (At(NOON), 40, 255));
    assert_eq!(got[0].timeline.len(), 7, "it is told all the same");
}
