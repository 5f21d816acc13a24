//! The spool on a real disk: what is acknowledged is there again, whatever happens to the file.

use super::log::{file, overwrite, set_format};
use super::*;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::TempDir;

type Heard = Arc<Mutex<Vec<Told>>>;

fn settings(dir: &Path) -> Settings {
    Settings { path: dir.join("spool"), max_bytes: 1 << 20, replay_rate: 1e6, wanted: true }
}

fn start(settings: Settings) -> (Spool, Heard) {
    let heard = Heard::default();
    let tell = heard.clone();
    (Spool::start(settings, Box::new(move |told| tell.lock().push(told))).unwrap(), heard)
}

fn write(n: u32, order: &str) -> Write {
    Write {
        route: "posts".into(),
        method: "POST".into(),
        target: "t.test/posts".into(),
        scope: mark([&n.to_be_bytes()[..]]),
        fingerprint: mark([&b"body"[..]]),
        order: mark([order.as_bytes()]),
        residency: None,
        status: 202,
        max_age_ms: 60_000,
        client: "192.0.2.1".parse().unwrap(),
        trusted: false,
        https: false,
        request: format!("POST /posts HTTP/1.1\r\nHost: t.test\r\nContent-Length: 4\r\n\r\n{n:04}").into_bytes(),
    }
}

/// Polls until it holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let end = clock::now() + Duration::from_secs(10);
    while !holds() {
        assert!(clock::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn what_was_kept_is_there_after_a_restart_in_its_order_and_for_nobody_else_to_read() {
    let dir = TempDir::new().unwrap();
    let (spool, _) = start(settings(dir.path()));
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(spool.keep(write(n, "one lane")).await.unwrap().id);
    }
    let mode = std::fs::metadata(file(&settings(dir.path()).path)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (first, _) = spool.next().await;
    spool.done(first.clone(), Verdict::Applied(201));
    until("the first one is applied", || spool.stats().pending == 19).await;
    spool.stop(Duration::from_secs(5));

    let (spool, _) = start(settings(dir.path()));
    assert_eq!(spool.stats().pending, 19);
    for n in 1..20u32 {
        let (entry, request) = spool.next().await;
        assert_eq!(entry.id, ids[n as usize]);
        assert!(request.ends_with(format!("{n:04}").as_bytes()));
        spool.done(entry, Verdict::Applied(200));
    }
    until("all are applied", || spool.stats().pending == 0).await;
    let known = spool.repeated(write(3, "").scope).await.unwrap().unwrap();
    assert_eq!((known.state, known.result, &known.id), (State::Applied, Some(200), &ids[3]));
    let by_id = spool.by_id(&ids[0]).await.unwrap().unwrap();
    assert_eq!((by_id.state, by_id.result), (State::Applied, Some(201)));
    assert_eq!(spool.by_id(&format!("{}{}", &ids[0][..16], "0".repeat(16))).await, Ok(None), "half an id opens nothing");
}

#[tokio::test]
async fn many_at_once_share_a_commit() {
    let dir = TempDir::new().unwrap();
    let (spool, _) = start(settings(dir.path()));
    let all: Vec<_> = (0..200).map(|n| spool.keep(write(n, &format!("{n}")))).collect();
    let kept = futures_util::future::join_all(all).await;
    assert!(kept.iter().all(Result::is_ok));
    let mut seqs: Vec<u64> = kept.into_iter().map(|e| e.unwrap().seq).collect();
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=200).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_full_spool_says_so_and_forgets_what_is_applied_before_it_does() {
    let dir = TempDir::new().unwrap();
    let one = entry::cost(write(0, "").request.len() as u64);
    let (spool, _) = start(Settings { max_bytes: 3 * one, ..settings(dir.path()) });
    for n in 0..3 {
        spool.keep(write(n, "")).await.unwrap();
    }
    assert_eq!(spool.keep(write(3, "")).await, Err(Refused::Full));
    let (entry, _) = spool.next().await;
    spool.done(entry, Verdict::Applied(200));
    until("one is applied", || spool.stats().pending == 2).await;
    let mut huge = write(4, "");
    huge.request = vec![0; 8 * one as usize];
    assert_eq!(spool.keep(huge).await, Err(Refused::Full));
    spool.keep(write(5, "")).await.expect("the applied one makes room");
    assert_eq!(spool.repeated(write(0, "").scope).await, Ok(None));
    assert_eq!(spool.stats().refused, 2);
}

#[tokio::test]
async fn damaged_entries_are_told_and_never_replayed() {
    let dir = TempDir::new().unwrap();
    let (spool, _) = start(settings(dir.path()));
    for n in 0..4 {
        spool.keep(write(n, "lane")).await.unwrap();
    }
    spool.stop(Duration::from_secs(5));
    let at = settings(dir.path()).path;
    overwrite(&at, 1, Some(b"not what was written"), None);
    overwrite(&at, 2, None, Some(b"POST /other HTTP/1.1\r\n\r\n"));
    let (spool, heard) = start(settings(dir.path()));
    assert_eq!(spool.stats().damaged, 1);
    let (entry, _) = spool.next().await;
    assert_eq!(entry.seq, 3, "what cannot be trusted is passed over");
    until("it is told", || heard.lock().iter().any(|t| matches!(t, Told::Settled { state: State::Damaged, count: 1, .. }))).await;
    spool.done(entry, Verdict::Applied(200));
    let kept = spool.keep(write(9, "lane")).await.unwrap();
    assert_eq!(kept.seq, 5, "numbers are not used twice");
}

#[tokio::test]
async fn a_file_of_another_format_is_left_alone() {
    let dir = TempDir::new().unwrap();
    let at = settings(dir.path()).path;
    let (spool, _) = start(settings(dir.path()));
    spool.keep(write(0, "")).await.unwrap();
    spool.stop(Duration::from_secs(5));
    for (format, than) in [(0, "older"), (7, "newer")] {
        set_format(&at, format);
        let (spool, heard) = start(settings(dir.path()));
        let Err(Refused::Trouble(why)) = spool.keep(write(1, "")).await else { panic!("it must not be used") };
        assert!(why.contains(than) && why.contains("spool.redb"), "{why}");
        assert!(matches!(&heard.lock()[..], [Told::Open { why: Some(_) }]), "said once");
        assert_eq!(spool.stats().trouble.as_deref(), Some(&*why));
        spool.stop(Duration::from_secs(5));
    }
    set_format(&at, log::FORMAT);
    let (spool, _) = start(settings(dir.path()));
    assert_eq!(spool.stats().pending, 1, "the acknowledged write is still there");
}

#[tokio::test]
async fn what_is_no_spool_is_refused_in_words() {
    let dir = TempDir::new().unwrap();
    let at = settings(dir.path()).path;
    std::fs::create_dir_all(&at).unwrap();
    std::fs::write(file(&at), b"something else that somebody keeps here, and that is longer than a header would be".repeat(200)).unwrap();
    let (spool, _) = start(settings(dir.path()));
    let Err(Refused::Trouble(why)) = spool.keep(write(1, "")).await else { panic!("it must not be used") };
    assert!(why.contains("no spool") || why.contains("damaged"), "{why}");
    assert!(std::fs::read(file(&at)).unwrap().starts_with(b"something else"));
}

#[tokio::test]
async fn two_processes_do_not_share_a_file_and_the_second_gets_it_when_the_first_leaves() {
    let dir = TempDir::new().unwrap();
    let (first, _) = start(settings(dir.path()));
    first.keep(write(0, "")).await.unwrap();
    let (second, _) = start(settings(dir.path()));
    let Err(Refused::Trouble(why)) = second.keep(write(1, "")).await else { panic!("it is taken") };
    assert!(why.contains("another process"), "{why}");
    first.stop(Duration::from_secs(5));
    until("it is opened", || second.stats().trouble.is_none()).await;
    assert_eq!(second.stats().pending, 1);
    second.keep(write(1, "")).await.unwrap();
}

#[tokio::test]
async fn a_file_that_was_cut_short_is_told_and_left_alone() {
    let dir = TempDir::new().unwrap();
    let at = settings(dir.path()).path;
    let (spool, _) = start(settings(dir.path()));
    for n in 0..50 {
        spool.keep(write(n, "")).await.unwrap();
    }
    spool.stop(Duration::from_secs(5));
    let whole = std::fs::read(file(&at)).unwrap();
    let half = &whole[..whole.len() / 2 + 100];
    std::fs::write(file(&at), half).unwrap();
    let (spool, _) = start(settings(dir.path()));
    let Err(Refused::Trouble(why)) = spool.keep(write(99, "")).await else { panic!("it must not be used") };
    assert!(why.contains("damaged") && why.contains("keep the file"), "{why}");
    std::fs::remove_file(file(&at)).unwrap();
    until("a new one is begun once it is out of the way", || spool.stats().trouble.is_none()).await;
    spool.keep(write(99, "")).await.unwrap();
}

#[tokio::test]
async fn operators_let_go_and_try_again() {
    let dir = TempDir::new().unwrap();
    let (spool, heard) = start(settings(dir.path()));
    let by = Actor::Operator("ops".into());
    let kept = spool.keep(write(0, "a")).await.unwrap();
    let other = spool.keep(write(1, "b")).await.unwrap();
    let (entry, _) = spool.next().await;
    assert!(matches!(spool.drop_write(entry.id.clone(), by.clone()).await, Err(Again::Conflict(_))), "it is under way");
    spool.done(entry, Verdict::Refused(401));
    until("it is refused", || spool.stats().states.contains(&("refused", 1))).await;
    assert_eq!(spool.replay(Some(kept.id.clone()), by.clone()).await, Ok(1));
    let mut again = vec![spool.next().await.0.id, spool.next().await.0.id];
    again.sort();
    let mut both = vec![kept.id.clone(), other.id.clone()];
    both.sort();
    assert_eq!(again, both);
    for id in [&kept.id, &other.id] {
        let entry = spool.by_id(id).await.unwrap().unwrap();
        spool.done(entry, Verdict::Later(503));
    }
    until("nothing is under way", || spool.shared.queue.lock().under_way() == 0).await;
    spool.drop_write(other.id.clone(), by.clone()).await.unwrap();
    assert!(matches!(spool.drop_write(other.id.clone(), by.clone()).await, Err(Again::Conflict(_))));
    assert!(matches!(spool.drop_write("0".repeat(32), by.clone()).await, Err(Again::Unknown(_))));
    assert_eq!(spool.repeated(write(1, "").scope).await, Ok(None), "the client may send it anew");
    let listed = spool.list(State::ALL.into(), 0, 10).await.unwrap().entries;
    assert_eq!(listed.iter().map(|e| e.state).collect::<Vec<_>>(), [State::Pending, State::Dropped]);
    let dropped = |t: &Told| matches!(t, Told::Settled { state: State::Dropped, by, .. } if *by == Actor::Operator("ops".into()));
    // Told behind the answer, so that a listener that is slow delays nobody.
    until("it is on record", || heard.lock().iter().any(dropped)).await;
    assert!(heard.lock().iter().any(|t| matches!(t, Told::Spooling { on: true, .. })));
}
