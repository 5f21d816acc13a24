use super::*;
use crate::model::topology::AccessLog;
use std::path::Path;

const SOON: Duration = Duration::from_secs(10);

fn settings(level: &str, format: LogFormat) -> Logging {
    Logging { level: level.into(), format, access: None }
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(|l| serde_json::from_str(l).expect(l)).collect()
}

#[test]
fn lines_are_json_with_their_fields_and_level_is_live() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (log, subscriber) = build(&settings("info", LogFormat::Json), Target::File(path.clone()));
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!(pool = "api/east", share = 0.5, up = true, time = 3, "tripped: \"why\"\n");
        tracing::debug!("not at this level");
        tracing::warn!(target: "pingora_core", "a library");
        tracing::info!(target: "pingora_core", "a library says too much");
        log.apply(&settings("debug", LogFormat::Json));
        tracing::debug!("now at this level");
    });
    assert!(log.flush(SOON));
    let got = lines(&path);
    let messages: Vec<_> = got.iter().map(|l| l["message"].as_str().unwrap()).collect();
    assert_eq!(messages, ["tripped: \"why\"\n", "a library", "now at this level"]);
    assert_eq!((&got[0]["level"], &got[0]["pool"], &got[0]["share"]), (&"info".into(), &"api/east".into(), &0.5.into()));
    assert_eq!((&got[0]["up"], &got[0]["time_"]), (&true.into(), &3.into()));
    assert_eq!(got[0]["target"], "evenkeel::logging::tests");
}

#[test]
fn a_callsite_cannot_flood() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (log, subscriber) = build(&settings("info", LogFormat::Json), Target::File(path.clone()));
    tracing::subscriber::with_default(subscriber, || {
        for i in 0..10_000 {
            tracing::warn!(i, "a request failed");
            tracing::error!(target: "h2", "a connection broke");
        }
        tracing::warn!("another place");
    });
    assert!(log.flush(SOON));
    let got = lines(&path);
    assert_eq!(got.iter().filter(|l| l["message"] == "a request failed").count(), BURST as usize);
    assert_eq!(got.iter().filter(|l| l["target"] == "h2").count(), FOREIGN_BURST as usize);
    assert_eq!(got.last().unwrap()["message"], "another place");
}

#[test]
fn a_stalled_reader_blocks_nobody_and_is_told_of_the_loss() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    // Both ends are held open and nobody reads: writing stalls once the pipe is full.
    let _ends = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    let sink = Lossy::start("test", Target::File(path));
    let before = crate::clock::now();
    for _ in 0..20_000 {
        sink.send(vec![b'x'; 1000]);
    }
    assert!(crate::clock::now().since(before) < Duration::from_secs(5));
    assert!(sink.take_lost() > 10_000);
    assert!(!sink.flush(Duration::from_millis(10)));
}

#[test]
fn what_a_client_sent_cannot_fake_a_line() {
    let mut line = Line::new("2026-11-21T11:00:00Z".parse().unwrap(), tracing::Level::WARN, "evenkeel::edge");
    line.message("bad path: /\x1b[2J\r2026 ERROR");
    line.number("n", 3);
    assert_eq!(line.human(false), "2026-11-21T11:00:00.000Z WARN  bad path: /\\u{1b}[2J\\r2026 ERROR n=3\n");
}

#[test]
fn an_access_log_that_was_moved_away_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.jsonl");
    let access = access::Access::start(Some(&AccessLog { file: Some(path.clone()), sample: 1.0 }));
    access.write(&serde_json::json!({"status": 200}));
    assert!(access.flush(SOON));
    std::fs::rename(&path, dir.path().join("access.1")).unwrap();
    access.reopen();
    access.write(&serde_json::json!({"status": 503}));
    assert!(access.flush(SOON));
    assert_eq!(lines(&path), [serde_json::json!({"status": 503})]);
    assert_eq!(lines(&dir.path().join("access.1")).len(), 1);
    access.apply(None);
    access.write(&serde_json::json!({"status": 503}));
    assert_eq!(lines(&path).len(), 1);
}
