//! How many writes a second the spool acknowledges, beside what the disk's fsync allows: both figures, on the same disk, one after the other.
//!
//!     cargo bench --bench spool [-- DIRECTORY]

#![allow(clippy::disallowed_methods)] // a bench looks at the clock

use evenkeel::spool::{Settings, Spool, Write, mark};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const SPAN: Duration = Duration::from_secs(5);
const CLIENTS: usize = 512;
const BODY: usize = 1024;

fn main() {
    let dir = std::env::args().nth(1).filter(|a| !a.starts_with('-')).map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let dir = tempfile::tempdir_in(dir).expect("a directory to write in");
    let one = fsyncs(dir.path(), 4 << 10);
    let batch = fsyncs(dir.path(), CLIENTS * BODY);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (kept, took) = runtime.block_on(spooled(dir.path()));
    let rate = kept as f64 / took.as_secs_f64();
    println!("the disk: {one:.0} fdatasync/s of 4 KiB appended, {batch:.0}/s of {} KiB appended", (CLIENTS * BODY) >> 10);
    println!(
        "          so {:.0} writes/s of {BODY} B, if each commit holds {CLIENTS} and costs nothing but its fsync",
        batch * CLIENTS as f64
    );
    println!(
        "the spool: {rate:.0} writes/s of {BODY} B acknowledged with fsync, by {CLIENTS} clients that wait for each answer ({kept} in {took:.1?})"
    );
}

/// Appends and syncs as fast as the disk takes it.
fn fsyncs(dir: &Path, bytes: usize) -> f64 {
    let mut file = std::fs::File::create(dir.join("fsync")).expect("a file");
    let (data, began, mut n) = (vec![0x5a; bytes], Instant::now(), 0u32);
    while began.elapsed() < Duration::from_secs(2) {
        file.write_all(&data).expect("room on the disk");
        file.sync_data().expect("fsync");
        n += 1;
    }
    f64::from(n) / began.elapsed().as_secs_f64()
}

async fn spooled(dir: &Path) -> (u64, Duration) {
    let settings = Settings { path: dir.join("spool"), max_bytes: 8 << 30, replay_rate: 1.0, wanted: true };
    let spool = Spool::start(settings, Box::new(drop)).expect("a thread");
    let began = Instant::now();
    let client = |c: usize| {
        let spool = spool.clone();
        async move {
            let mut n = 0u64;
            while began.elapsed() < SPAN {
                spool.keep(write(c, n)).await.expect("kept");
                n += 1;
            }
            n
        }
    };
    let kept: u64 = futures_util::future::join_all((0..CLIENTS).map(client)).await.iter().sum();
    let took = began.elapsed();
    spool.stop(Duration::from_secs(10));
    (kept, took)
}

fn write(client: usize, n: u64) -> Write {
    let name = format!("{client}-{n}");
    let mut request =
        format!("POST /posts HTTP/1.1\r\nHost: t.test\r\nIdempotency-Key: {name}\r\nContent-Length: {BODY}\r\n\r\n").into_bytes();
    request.resize(request.len() + BODY, b'x');
    Write {
        route: "posts".into(),
        method: "POST".into(),
        target: "t.test/posts".into(),
        scope: mark([name.as_bytes()]),
        fingerprint: mark([name.as_bytes()]),
        order: mark([&client.to_be_bytes()[..]]),
        residency: None,
        status: 202,
        max_age_ms: 3_600_000,
        client: std::net::IpAddr::from([192, 0, 2, 1]),
        trusted: false,
        https: false,
        request,
    }
}
