//! Copies on disk (`stale.persist`), so that an edge that is restarted in the middle of an outage still has them.
//!
//! One file of records, `stale-copies` in `edge.state_dir`, mode 0600, written by a thread of its own that nobody waits for but
//! an operator's purge. Workers only leave word of *which* keys changed; the thread looks up what the store holds under them
//! now, so that the file always moves towards the store, in whatever order word comes.
//!
//! - What was withdrawn (a 404, `private`, a purge) is off the disk within [`TICK`]; new and renewed copies, and what was evicted
//!   for want of room, reach it every [`PERIOD`] and when the process leaves. A crash costs the copies of the last [`PERIOD`], no others.
//! - The file is written anew, beside the old one and renamed over it, when it is twice the size of what the store holds. So it
//!   takes at most twice `stale.max_bytes` and [`SLACK`], and once more `max_bytes` while it is written anew.
//! - At the start copies come back only if the config still wants them: their route keeps copies, may keep them here, and would
//!   serve them at their age. Whom they belong to stands in their keys, which no other request has.
//! - Torn at the end, as a power loss leaves it, the file is good up to there. Damaged elsewhere, it is not believed at
//!   all: behind the damage may stand that something was withdrawn. The edge then starts without copies, and says so.
//! - Two processes (`--takeover`) do not write at once: whoever holds the lock file writes, the other one waits for it.
//!
//! A disk that is full or broken costs the copies on it, nothing else: it is told once, and tried again.

use super::record::{self, Chain, MAGIC, Next};
use super::{Entry, Store};
use crate::clock;
use crate::edge::truth;
use crate::model::time::Moment;
use crate::model::topology::Topology;
use crate::steer::lastgood::Key;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long what was withdrawn stays on disk.
const TICK: Duration = Duration::from_secs(1);
/// How often new copies are written.
const PERIOD: Duration = Duration::from_secs(15);
/// How long after a failure the disk is tried again.
const RETRY: Duration = Duration::from_secs(15);
/// A file is not written anew for less, bytes.
const SLACK: u64 = 4 << 20;
/// Keys that are remembered one by one; with more, the file is written anew.
const MOST: usize = 1 << 17;
/// What is handed to the disk at a time, bytes.
const CHUNK: usize = 1 << 20;

const FILE: &str = "stale-copies";
const LOCK: &str = "stale-copies.lock";

/// Which keys the disk has yet to hear of.
#[derive(Default)]
pub struct Changes {
    wanted: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    changed: HashSet<Key>,
    gone: HashSet<Key>,
    /// More than can be remembered.
    all: bool,
}

impl Changes {
    /// There is something else under this key, or nothing for want of room.
    #[inline]
    pub fn changed(&self, key: &Key) {
        if self.wanted.load(Relaxed) {
            self.add(key, |w| &mut w.changed);
        }
    }
    /// What was under this key was withdrawn.
    #[inline]
    pub fn gone(&self, key: &Key) {
        if self.wanted.load(Relaxed) {
            self.add(key, |w| &mut w.gone);
        }
    }
    fn add(&self, key: &Key, to: impl FnOnce(&mut Waiting) -> &mut HashSet<Key>) {
        let waiting = &mut *self.waiting.lock();
        if waiting.all {
            return;
        }
        to(waiting).insert(key.clone());
        if waiting.changed.len() + waiting.gone.len() > MOST {
            *waiting = Waiting { all: true, ..Waiting::default() };
        }
    }
    /// What waits; `full`: also what need not be withdrawn.
    fn take(&self, full: bool) -> Waiting {
        let waiting = &mut *self.waiting.lock();
        let changed = if full { std::mem::take(&mut waiting.changed) } else { HashSet::new() };
        Waiting { changed, gone: std::mem::take(&mut waiting.gone), all: std::mem::take(&mut waiting.all) }
    }
}

enum Ask {
    Flush(Sender<()>),
    Leave,
}

/// The thread that writes.
pub struct Disk {
    dir: PathBuf,
    ask: Sender<Ask>,
    thread: Option<JoinHandle<()>>,
}

impl Disk {
    /// Starts it: first of all it writes down everything that the store holds.
    pub fn start(dir: &Path, store: Arc<Store>) -> io::Result<Self> {
        let (ask, asked) = channel();
        store.changes.wanted.store(true, Relaxed);
        let mut writer = Writer { dir: dir.to_owned(), store, lock: None, out: None, trouble: None };
        let thread = std::thread::Builder::new().name("copies".into()).spawn(move || writer.run(&asked))?;
        Ok(Self { dir: dir.to_owned(), ask, thread: Some(thread) })
    }

    /// Where the file lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Word comes when everything so far is on disk; the channel just ends when it cannot be.
    pub fn flush(&self) -> Receiver<()> {
        let (done, told) = channel();
        let _ = self.ask.send(Ask::Flush(done));
        told
    }
}

impl Drop for Disk {
    /// Everything is on disk then, or cannot be.
    fn drop(&mut self) {
        let _ = self.ask.send(Ask::Leave);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// There is to be no file.
pub fn remove(dir: &Path) {
    for name in [FILE, LOCK] {
        let path = dir.join(name);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("last good copies of an earlier process stay in {}: {e}; remove the file", path.display());
            }
            _ => {}
        }
    }
}

struct Writer {
    dir: PathBuf,
    store: Arc<Store>,
    lock: Option<File>,
    out: Option<Out>,
    /// When the disk failed.
    trouble: Option<Moment>,
}

struct Out {
    file: File,
    chain: Chain,
    bytes: u64,
}

impl Writer {
    fn run(&mut self, asked: &Receiver<Ask>) {
        let mut full = clock::now();
        loop {
            let ask = asked.recv_timeout(TICK);
            let now = clock::now();
            let leaves = matches!(ask, Ok(Ask::Leave) | Err(RecvTimeoutError::Disconnected));
            let everything = leaves || matches!(ask, Ok(Ask::Flush(_))) || now.since(full) >= PERIOD;
            if everything {
                full = now;
            }
            let tried = leaves || self.trouble.is_none_or(|since| now.since(since) >= RETRY);
            let written = tried && self.pass(everything, now);
            match ask {
                Ok(Ask::Flush(done)) if written => drop(done.send(())),
                _ if leaves => {
                    self.store.changes.wanted.store(false, Relaxed);
                    return;
                }
                _ => {}
            }
        }
    }

    /// Brings the file up to date. False: it is not.
    fn pass(&mut self, full: bool, now: Moment) -> bool {
        match self.write(full) {
            Ok(done) => {
                if done && self.trouble.take().is_some() {
                    tracing::info!("last good copies are written to {} again", self.dir.join(FILE).display());
                }
                done
            }
            Err(e) => {
                // Where the file ends is not known any more.
                self.out = None;
                if self.trouble.replace(now).is_none() {
                    let path = self.dir.join(FILE);
                    tracing::error!("last good copies cannot be written to {}: {e}; they stay in memory. Check the disk", path.display());
                }
                false
            }
        }
    }

    fn write(&mut self, full: bool) -> io::Result<bool> {
        if self.lock.is_none() {
            std::fs::create_dir_all(&self.dir)?;
            let lock = private().create(true).truncate(false).write(true).open(self.dir.join(LOCK))?;
            match lock.try_lock() {
                Ok(()) => self.lock = Some(lock),
                // The process that is being taken over from: it leaves.
                Err(std::fs::TryLockError::WouldBlock) => return Ok(false),
                Err(std::fs::TryLockError::Error(e)) => return Err(e),
            }
        }
        let Some(out) = &mut self.out else { return self.anew().map(|()| true) };
        let waiting = self.store.changes.take(full);
        if waiting.all {
            return self.anew().map(|()| true);
        }
        let (most, mut bytes) = (2 * self.store.bytes() + SLACK, Vec::new());
        for key in waiting.gone.union(&waiting.changed) {
            record::write(&mut bytes, &mut out.chain, key, self.store.cache.peek(key).as_ref());
            if bytes.len() >= CHUNK {
                out.write(&mut bytes)?;
            }
            if out.bytes + bytes.len() as u64 > most {
                return self.anew().map(|()| true);
            }
        }
        if !waiting.gone.is_empty() || !waiting.changed.is_empty() {
            out.write(&mut bytes)?;
            out.file.sync_data()?;
        }
        Ok(true)
    }

    /// Writes everything the store holds to a new file, and puts that in the old one's place.
    fn anew(&mut self) -> io::Result<()> {
        self.out = None;
        // Whatever changes from here on is told again.
        self.store.changes.take(true);
        let next = self.dir.join(format!(".{FILE}.new"));
        let written = self.all_to(&next).and_then(|out| {
            std::fs::rename(&next, self.dir.join(FILE))?;
            File::open(&self.dir)?.sync_all()?;
            Ok(out)
        });
        match written {
            Ok(out) => self.out = Some(out),
            Err(e) => {
                let _ = std::fs::remove_file(&next);
                return Err(e);
            }
        }
        Ok(())
    }

    fn all_to(&self, path: &Path) -> io::Result<Out> {
        let file = private().create(true).truncate(true).write(true).open(path)?;
        let (mut out, mut bytes) = (Out { file, chain: Chain::default(), bytes: 0 }, MAGIC.to_vec());
        for (key, entry) in self.store.cache.iter() {
            record::write(&mut bytes, &mut out.chain, &key, Some(&entry));
            if bytes.len() >= CHUNK {
                out.write(&mut bytes)?;
            }
        }
        out.write(&mut bytes)?;
        out.file.sync_all()?;
        Ok(out)
    }
}

impl Out {
    fn write(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        bytes.clear();
        Ok(())
    }
}

/// Nobody else's business.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// Reads what an earlier process left, before the first request.
pub fn load(store: &Store, t: &Topology) {
    let (path, began) = (t.edge.state_dir.join(FILE), clock::now());
    match read(store, t, &path) {
        Ok(None) => {}
        Ok(Some(torn)) => {
            let (n, took) = (store.len(), clock::now().since(began));
            tracing::info!("{n} last good copies read from {} in {} ms", path.display(), took.as_millis());
            if torn > 0 {
                tracing::warn!(
                    "{}: the last {torn} bytes are torn, as after a power loss; what was written before them holds",
                    path.display()
                );
            }
        }
        Err(e) => {
            store.cache.clear();
            tracing::warn!("{}: {e}; starting without last good copies, the file is written anew", path.display());
        }
    }
}

/// `None`: there is none. Else: how many bytes at its end are torn.
fn read(store: &Store, t: &Topology, path: &Path) -> io::Result<Option<u64>> {
    let file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut left = file.metadata()?.len();
    let mut from = BufReader::with_capacity(CHUNK, file);
    let mut magic = [0; MAGIC.len()];
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
    if left < MAGIC.len() as u64 || from.read_exact(&mut magic).is_err() || magic != *MAGIC {
        return Err(bad("is not a file of copies that this version writes"));
    }
    left -= MAGIC.len() as u64;
    let (mut chain, mut payload, now) = (Chain::default(), Vec::new(), truth::now());
    loop {
        let at = left;
        match record::read(&mut from, &mut left, &mut chain, &mut payload)? {
            Next::End { torn } => return Ok(Some(torn)),
            Next::Damaged => return Err(bad(&format!("is damaged {at} bytes before its end"))),
            Next::Record(key, Some(entry)) if wanted(store, t, &key, &entry, now) => store.cache.insert(key, entry),
            // Also what an earlier record had under this key.
            Next::Record(key, _) => drop(store.cache.remove(&key)),
        }
    }
}

/// Whether the config still has a use for it.
fn wanted(store: &Store, t: &Topology, key: &Key, entry: &Entry, now: u64) -> bool {
    let Some(rule) = truth::rule_of(t, key) else { return false };
    match entry {
        Entry::Varies(_) => true,
        Entry::Copy(copy) => {
            let age = now.saturating_sub(copy.kept_at);
            u128::from(age) <= rule.max_age.as_millis() && copy.body.len() as u64 <= store.max_body()
        }
    }
}

#[cfg(test)]
mod tests;
