use super::*;
use crate::model::event::{Actor, Cause, EventKind};
use crate::model::time::{Duration, Moment};
use crate::model::view::State;
use proptest::prelude::*;
use std::os::unix::fs::PermissionsExt;

const SOON: Duration = Duration::from_secs(10);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).unwrap()
}

fn event(seq: u64, kind: EventKind) -> Event {
    Event { seq, at: Moment(seq * 1000), by: Actor::Operator("ann".into()), kind }
}

fn drain(seq: u64, reason: &str) -> Event {
    event(seq, EventKind::Drain { region: "east".into(), on: true, reason: reason.into(), until: Some(Moment(77)) })
}

fn settings(dir: &Path) -> Settings {
    Settings { edge: "edge-1".into(), path: dir.join("journal"), keep: Duration::from_secs(3600), max_bytes: 1 << 20 }
}

fn all(dir: &Path) -> Vec<Record> {
    read(&dir.join("journal"), Filter::default()).unwrap().collect()
}

#[test]
fn what_was_recorded_is_read_back_in_order_and_private() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::start(settings(dir.path()));
    let pool = EventKind::Pool {
        service: "api".into(),
        region: "east".into(),
        from: State::Serving,
        to: State::Tripped,
        cause: Cause::Silence { quiet_ms: 251, waiting: 9 },
    };
    journal.record(at(0), &event(1, pool));
    journal.record(at(1), &drain(2, "maintenance\nof \"grid\""));
    journal.record(at(2), &event(3, EventKind::Stopping));
    assert!(journal.flush(SOON));
    let got = all(dir.path());
    assert_eq!(got.iter().map(|r| r.event.seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(got[1].event, drain(2, "maintenance\nof \"grid\""));
    assert_eq!((got[0].edge.as_str(), got[0].time), ("edge-1", at(0)));
    let text = std::fs::read_to_string(segment_path(&dir.path().join("journal"), 1)).unwrap();
    let first = text.lines().next().unwrap();
    assert!(first.starts_with(r#"{"time":"2026-09-21T14:13:20.000000Z","edge":"edge-1","seq":1,"#), "{first}");
    assert!(first.contains(r#""kind":"pool","#) && first.contains(r#""cause":{"cause":"silence","quiet_ms":251,"waiting":9}"#), "{first}");
    let mode = std::fs::metadata(segment_path(&dir.path().join("journal"), 1)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_filter_takes_time_and_kind() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::start(settings(dir.path()));
    for i in 0..10 {
        journal.record(at(i), &if i % 2 == 0 { drain(i as u64, "x") } else { event(i as u64, EventKind::Stopping) });
    }
    assert!(journal.flush(SOON));
    let filter = Filter { since: Some(at(2)), until: Some(at(7)), kinds: vec!["drain".into()] };
    let got: Vec<_> = read(&dir.path().join("journal"), filter).unwrap().map(|r| r.event.seq).collect();
    assert_eq!(got, [2, 4, 6]);
}

#[test]
fn stays_within_its_bytes_and_keeps_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::start(Settings { max_bytes: 64 << 10, ..settings(dir.path()) });
    for i in 0..2000 {
        journal.record(at(0), &drain(i, "a reason of some length, so that segments fill"));
        if i % 500 == 0 {
            assert!(journal.flush(SOON));
        }
    }
    assert!(journal.flush(SOON));
    let bytes: u64 = segments(&dir.path().join("journal")).unwrap().iter().map(|(_, p)| p.metadata().unwrap().len()).sum();
    assert!((48 << 10..=64 << 10).contains(&bytes), "{bytes}");
    let got = all(dir.path());
    assert_eq!(got.last().unwrap().event.seq, 1999);
    assert!(got.windows(2).all(|w| w[0].event.seq + 1 == w[1].event.seq));
}

#[test]
fn old_segments_go() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::start(settings(dir.path()));
    let now = crate::clock::wall_now().as_second() - 1_790_000_000; // file times are the real clock's
    journal.record(at(now), &drain(1, "x"));
    journal.record(at(now + 3600 / 16 + 1), &drain(2, "new segment by age"));
    assert!(journal.flush(SOON));
    assert_eq!(segments(&dir.path().join("journal")).unwrap().len(), 2);
    journal.record(at(now + 3700), &drain(3, "the others are older than keep"));
    assert!(journal.flush(SOON));
    assert_eq!(all(dir.path()).iter().map(|r| r.event.seq).collect::<Vec<_>>(), [3]);
}

#[test]
fn a_torn_line_is_ended_by_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    let first = Journal::start(settings(dir.path()));
    first.record(at(0), &drain(1, "x"));
    first.record(at(1), &drain(2, "x"));
    assert!(first.flush(SOON));
    let path = segment_path(&dir.path().join("journal"), 1);
    let text = std::fs::read(&path).unwrap();
    std::fs::write(&path, &text[..text.len() - 20]).unwrap();
    let second = Journal::start(settings(dir.path()));
    second.record(at(2), &drain(3, "x"));
    assert!(second.flush(SOON));
    let mut reader = read(&dir.path().join("journal"), Filter::default()).unwrap();
    let got: Vec<_> = reader.by_ref().map(|r| r.event.seq).collect();
    assert_eq!((got, reader.skipped()), (vec![1, 3], 1));
}

#[test]
fn a_disk_that_refuses_costs_records_and_says_so_when_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("journal"), "a file where the directory should be").unwrap();
    let journal = Journal::start(settings(dir.path()));
    journal.record(at(0), &drain(1, "x"));
    journal.record(at(0), &drain(2, "x"));
    assert!(journal.flush(SOON));
    assert_eq!(journal.stats().lost, 2);
    assert!(journal.stats().error.unwrap().contains("journal"));
    std::fs::remove_file(dir.path().join("journal")).unwrap();
    journal.record(at(0), &drain(3, "x"));
    assert!(journal.flush(SOON));
    let got = all(dir.path());
    assert_eq!((got.len(), got[0].event.seq, got[0].lost), (1, 3, 2));
    assert_eq!(journal.stats(), Stats { written: 1, lost: 2, error: None });
}

#[test]
fn a_stalled_disk_blocks_nobody() {
    let dir = tempfile::tempdir().unwrap();
    // A pipe that nobody reads in the place of the newest segment: writing stalls for ever once it is full.
    std::fs::create_dir(dir.path().join("journal")).unwrap();
    let fifo = segment_path(&dir.path().join("journal"), 1);
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let journal = Journal::start(settings(dir.path()));
    let before = crate::clock::now();
    for i in 0..20_000 {
        journal.record(at(0), &drain(i, "a reason of some length, so that the pipe fills"));
    }
    assert!(crate::clock::now().since(before) < Duration::from_secs(5), "{:?}", crate::clock::now().since(before));
    assert!(journal.stats().lost > 10_000);
    assert!(!journal.flush(Duration::from_millis(10)));
}

#[test]
fn long_lists_are_cut() {
    let mut kind = EventKind::ConfigRejected { problems: vec!["x".into(); 1000] };
    write::shorten(&mut kind);
    let EventKind::ConfigRejected { problems } = kind else { unreachable!() };
    assert_eq!((problems.len(), problems[200].as_str()), (201, "and 800 more"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any truncation loses at most the record it cuts: all whole lines before it are read back.
    #[test]
    fn truncation_loses_at_most_the_last_record(reasons in prop::collection::vec(".{0,40}", 1..8), cut in 0.0..1.0f64) {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::start(settings(dir.path()));
        for (i, reason) in reasons.iter().enumerate() {
            journal.record(at(i as i64), &drain(i as u64, reason));
        }
        prop_assert!(journal.flush(SOON));
        let path = segment_path(&dir.path().join("journal"), 1);
        let text = std::fs::read(&path).unwrap();
        let kept = &text[..(text.len() as f64 * cut) as usize];
        std::fs::write(&path, kept).unwrap();
        let whole = kept.iter().filter(|b| **b == b'\n').count();
        let got: Vec<_> = all(dir.path()).into_iter().map(|r| r.event.seq).collect();
        prop_assert!(got.len() == whole || got.len() == whole + 1); // one more: only its newline was cut
        prop_assert!(got.iter().copied().eq(0..got.len() as u64));
    }

    /// Corrupt bytes anywhere cost only the lines they are in.
    #[test]
    fn corruption_costs_only_its_line(n in 2usize..10, at_byte in 0.0..1.0f64, byte in any::<u8>()) {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::start(settings(dir.path()));
        for i in 0..n {
            journal.record(at(i as i64), &drain(i as u64, "reason"));
        }
        prop_assert!(journal.flush(SOON));
        let path = segment_path(&dir.path().join("journal"), 1);
        let mut text = std::fs::read(&path).unwrap();
        let i = (text.len() as f64 * at_byte) as usize;
        text[i] = byte;
        std::fs::write(&path, text).unwrap();
        prop_assert!(all(dir.path()).len() >= n - 2); // a newline overwritten joins two lines
    }
}

#[test]
fn a_tail_reads_what_came_since_and_begins_anew_when_the_oldest_has_gone() {
    let dir = tempfile::tempdir().unwrap();
    let line = |seq| {
        let record =
            Record { time: "2026-11-21T12:00:00Z".parse().unwrap(), edge: "e".into(), lost: 0, event: event(seq, EventKind::Stopping) };
        serde_json::to_string(&record).unwrap() + "\n"
    };
    let write = |number, text: String| std::fs::write(segment_path(dir.path(), number), text).unwrap();
    let mut tail = Tail::default();
    let mut read = || {
        let (mut anew, mut seen) = (0, Vec::new());
        tail.read(dir.path(), || anew += 1, |r| seen.push(r.event.seq)).unwrap();
        (anew, seen)
    };
    assert_eq!(read(), (1, vec![]));
    let torn = line(3)[..20].to_owned();
    write(1, line(1) + &line(2) + &torn);
    assert_eq!(read(), (1, vec![1, 2]));
    assert_eq!(read(), (0, vec![]));
    // The torn line is ended by whoever writes next, and costs itself.
    write(1, line(1) + &line(2) + &torn + "\n" + &line(4));
    write(2, line(5));
    assert_eq!(read(), (0, vec![4, 5]));
    write(2, line(5) + &line(6));
    write(3, line(7));
    assert_eq!(read(), (0, vec![6, 7]));
    std::fs::remove_file(segment_path(dir.path(), 1)).unwrap();
    assert_eq!(read(), (1, vec![5, 6, 7]));
}
