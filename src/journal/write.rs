//! Writing: a bounded queue, and the thread behind it that owns the files.

use super::{Record, read, segment_path, segments};
use crate::logging::Throttle;
use crate::model::event::{Event, EventKind};
use crate::model::time::Duration;
use jiff::Timestamp;
use parking_lot::Mutex;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

/// Records that may wait for the disk. An outage of a hundred regions makes a few hundred in a second.
const QUEUE: usize = 4096;
/// Of `max_bytes` and of `keep`: what one segment holds, and so how finely the oldest are given up.
const SEGMENTS: u32 = 16;
/// Lines of a config change that are kept.
const LIST: usize = 200;

static TROUBLE: Throttle = Throttle::every(Duration::from_secs(10));

/// Where and how much.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Name of this process, in every record.
    pub edge: String,
    /// The directory.
    pub path: PathBuf,
    /// Records older than this are given up.
    pub keep: Duration,
    /// Over all segments.
    pub max_bytes: u64,
}

impl Settings {
    /// What a config says.
    pub fn of(t: &crate::model::topology::Topology) -> Self {
        Self { edge: t.edge.name.clone(), path: t.journal.path.clone(), keep: t.journal.keep, max_bytes: t.journal.max_bytes }
    }
    fn segment_bytes(&self) -> u64 {
        (self.max_bytes / u64::from(SEGMENTS)).max(1024)
    }
}

/// How the journal is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records written.
    pub written: u64,
    /// Records lost: the queue was full, or the disk refused.
    pub lost: u64,
    /// The last error of the disk; `None`: the last write went well.
    pub error: Option<String>,
}

enum Message {
    Record(Box<Record>),
    Flush(SyncSender<()>),
}

#[derive(Default)]
struct Shared {
    written: AtomicU64,
    lost: AtomicU64,
    untold: AtomicU64,
    error: Mutex<Option<String>>,
    /// Taken by the thread before the next record.
    settings: Mutex<Option<Settings>>,
}

impl Shared {
    fn lose(&self, n: u64) {
        self.lost.fetch_add(n, Relaxed);
        self.untold.fetch_add(n, Relaxed);
    }
}

/// The journal's near end. Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
    edge: Arc<Mutex<String>>,
}

impl Journal {
    /// Starts the thread. Always succeeds: a disk that refuses shows in [`Journal::stats`] and in the log.
    pub fn start(settings: Settings) -> Self {
        let (queue, inbox) = sync_channel(QUEUE);
        let shared = Arc::new(Shared::default());
        let edge = Arc::new(Mutex::new(settings.edge.clone()));
        let writer = Writer { settings, shared: shared.clone(), active: None };
        // Without a thread every record is lost and counted, like with a disk that refuses.
        if let Err(e) = thread::Builder::new().name("journal".into()).spawn(move || writer.run(&inbox)) {
            *shared.error.lock() = Some(format!("cannot start the journal's thread: {e}"));
        }
        Self { queue, shared, edge }
    }

    /// Takes an event that happened at `time`. Never blocks.
    pub fn record(&self, time: Timestamp, event: &Event) {
        let mut event = event.clone();
        shorten(&mut event.kind);
        let record = Box::new(Record { time, edge: self.edge.lock().clone(), lost: 0, event });
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.queue.try_send(Message::Record(record)) {
            self.shared.lose(1);
        }
    }

    /// Events that never got here: whoever brings them was too far behind.
    pub fn missed(&self, events: u64) {
        self.shared.lose(events);
    }

    /// From the next record on. Another path begins another journal; the old one stays where it is.
    pub fn reconfigure(&self, settings: Settings) {
        self.edge.lock().clone_from(&settings.edge);
        *self.shared.settings.lock() = Some(settings);
    }

    /// Waits until everything taken so far is on disk, but not longer than `at_most`.
    /// For the end of the process and for tests; blocks, so never on a runtime.
    pub fn flush(&self, at_most: Duration) -> bool {
        let (done, told) = sync_channel(1);
        self.queue.try_send(Message::Flush(done)).is_ok() && told.recv_timeout(at_most).is_ok()
    }

    /// How the journal is doing.
    pub fn stats(&self) -> Stats {
        Stats { written: self.shared.written.load(Relaxed), lost: self.shared.lost.load(Relaxed), error: self.shared.error.lock().clone() }
    }
}

/// A config of ten thousand endpoints can change in ten thousand lines; the journal keeps the first of them.
pub(super) fn shorten(kind: &mut EventKind) {
    if let EventKind::ConfigApplied { changes: list, .. } | EventKind::ConfigRejected { problems: list } = kind
        && list.len() > LIST
    {
        let more = list.len() - LIST;
        list.truncate(LIST);
        list.push(format!("and {more} more"));
    }
}

struct Active {
    file: File,
    bytes: u64,
    /// Of its first record.
    since: Timestamp,
    number: u64,
}

struct Writer {
    settings: Settings,
    shared: Arc<Shared>,
    active: Option<Active>,
}

impl Writer {
    fn run(mut self, inbox: &Receiver<Message>) {
        let mut unsynced = false;
        loop {
            let message = match inbox.try_recv() {
                Ok(m) => m,
                Err(_) => {
                    if std::mem::take(&mut unsynced)
                        && let Some(active) = &self.active
                        && let Err(e) = active.file.sync_data()
                    {
                        self.trouble(&e);
                    }
                    match inbox.recv() {
                        Ok(m) => m,
                        Err(_) => return,
                    }
                }
            };
            match message {
                Message::Record(r) => {
                    self.take(*r);
                    unsynced = true;
                }
                Message::Flush(done) => {
                    if let Some(active) = &self.active {
                        let _ = active.file.sync_data();
                    }
                    let _ = done.try_send(());
                }
            }
        }
    }

    fn take(&mut self, mut record: Record) {
        if let Some(new) = self.shared.settings.lock().take() {
            if new.path != self.settings.path {
                self.active = None;
            }
            self.settings = new;
        }
        let untold = self.shared.untold.swap(0, Relaxed);
        record.lost = untold;
        match self.write(&record) {
            Ok(()) => {
                self.shared.written.fetch_add(1, Relaxed);
                *self.shared.error.lock() = None;
            }
            Err(e) => {
                // Opened anew for the next record, which ends a line that was cut short.
                self.active = None;
                self.shared.untold.fetch_add(untold, Relaxed);
                self.shared.lose(1);
                self.trouble(&e);
            }
        }
    }

    fn trouble(&self, e: &io::Error) {
        let text = format!("journal {}: {e}", self.settings.path.display());
        if let Some(suppressed) = TROUBLE.pass() {
            tracing::warn!(suppressed, "{text}; events are lost until it can be written again: free space there, or set journal.path");
        }
        *self.shared.error.lock() = Some(text);
    }

    fn write(&mut self, record: &Record) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        let active = self.segment_for(record.time, line.len() as u64)?;
        active.file.write_all(&line)?;
        active.bytes += line.len() as u64;
        Ok(())
    }

    /// The segment that the next line goes to: the newest, or a new one when that is full or old.
    fn segment_for(&mut self, now: Timestamp, length: u64) -> io::Result<&mut Active> {
        let mut active = match self.active.take() {
            Some(a) => a,
            None => self.open_newest(now)?,
        };
        let full = active.bytes > 0 && active.bytes + length > self.settings.segment_bytes();
        let age = Duration::try_from(now.duration_since(active.since)).unwrap_or_default();
        if full || (active.bytes > 0 && age > self.settings.keep / SEGMENTS) {
            active = self.create(active.number + 1, now)?;
            self.prune(now, active.number)?;
        }
        Ok(self.active.insert(active))
    }

    fn open_newest(&self, now: Timestamp) -> io::Result<Active> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.settings.path)?;
        let Some((number, path)) = segments(&self.settings.path)?.pop() else {
            return self.create(1, now);
        };
        let mut file = OpenOptions::new().read(true).append(true).mode(0o600).open(&path)?;
        let mut bytes = file.metadata()?.len();
        if bytes > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
                bytes += 1;
            }
        }
        let since = read::first_time(&path).unwrap_or(now);
        self.prune(now, number)?;
        Ok(Active { file, bytes, since, number })
    }

    fn create(&self, number: u64, now: Timestamp) -> io::Result<Active> {
        // Not `create_new`: while a successor takes over, two processes may come to the same number, and both append.
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(segment_path(&self.settings.path, number))?;
        let bytes = file.metadata()?.len();
        Ok(Active { file, bytes, since: now, number })
    }

    /// Gives up the oldest segments, so that all of them and a full newest one stay within `max_bytes`.
    fn prune(&self, now: Timestamp, newest: u64) -> io::Result<()> {
        let mut closed = Vec::new();
        for (number, path) in segments(&self.settings.path)? {
            if number != newest {
                let meta = std::fs::metadata(&path)?;
                closed.push((path, meta.len(), meta.modified().ok().and_then(|t| Timestamp::try_from(t).ok())));
            }
        }
        let mut total: u64 = closed.iter().map(|(_, bytes, _)| bytes).sum();
        let room = self.settings.max_bytes.saturating_sub(self.settings.segment_bytes());
        for (path, bytes, last) in closed {
            let age = last.and_then(|t| Duration::try_from(now.duration_since(t)).ok()).unwrap_or_default();
            if total > room || age > self.settings.keep {
                std::fs::remove_file(&path)?;
                total -= bytes;
            }
        }
        Ok(())
    }
}
