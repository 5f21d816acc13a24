//! Lines to somewhere that may stall: a bounded queue, and a thread behind it that writes.

use crate::model::time::Duration;
use parking_lot::Mutex;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Lines and bytes that may wait. A second of access log at 50,000 requests/s is about 15 MB; a reader that
/// is further behind than this is not merely late.
const QUEUE: usize = 16_384;
const QUEUE_BYTES: usize = 8 << 20;
/// Lines that are there together are written together, up to this many bytes.
const BATCH: usize = 64 << 10;

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// Appended to a file, made with 0640.
    File(PathBuf),
}

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

#[derive(Default)]
struct Shared {
    queued: AtomicUsize,
    lost: AtomicU64,
    reopen: AtomicBool,
    target: Mutex<Option<Target>>,
}

/// The near end. Cheap to clone.
#[derive(Clone)]
pub struct Lossy {
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
}

impl Lossy {
    /// Starts the thread, named `name`.
    pub fn start(name: &str, target: Target) -> Self {
        let (queue, inbox) = sync_channel(QUEUE);
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        // Without a thread every line is lost and counted.
        let _ = std::thread::Builder::new().name(name.into()).spawn(move || run(&inbox, &theirs, target));
        Self { queue, shared }
    }

    /// Takes a line (with its newline). Never blocks.
    pub fn send(&self, line: Vec<u8>) {
        let bytes = line.len();
        let fits = self.shared.queued.fetch_add(bytes, Relaxed) + bytes <= QUEUE_BYTES;
        if !fits || self.queue.try_send(Message::Line(line)).is_err() {
            self.shared.queued.fetch_sub(bytes, Relaxed);
            self.shared.lost.fetch_add(1, Relaxed);
        }
    }

    /// Lines lost since the last call.
    pub fn take_lost(&self) -> u64 {
        if self.shared.lost.load(Relaxed) == 0 { 0 } else { self.shared.lost.swap(0, Relaxed) }
    }

    /// Another target, from the next line on.
    pub fn redirect(&self, target: Target) {
        *self.shared.target.lock() = Some(target);
        self.reopen();
    }

    /// Opens the file again, from the next line on: somebody moved it away (SIGHUP).
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Relaxed);
    }

    /// Waits until what was taken so far is written, but not longer than `at_most`. Blocks: never on a runtime.
    pub fn flush(&self, at_most: Duration) -> bool {
        let (done, told) = sync_channel(1);
        self.queue.try_send(Message::Flush(done)).is_ok() && told.recv_timeout(at_most).is_ok()
    }
}

enum Out {
    Std(Box<dyn Write>),
    File(File),
}

impl Out {
    fn open(target: &Target) -> io::Result<Self> {
        Ok(match target {
            Target::Stderr => Self::Std(Box::new(io::stderr())),
            Target::Stdout => Self::Std(Box::new(io::stdout())),
            Target::File(path) => Self::File(OpenOptions::new().create(true).append(true).mode(0o640).open(path)?),
        })
    }
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Std(w) => w.write_all(bytes).and_then(|()| w.flush()),
            Self::File(f) => f.write_all(bytes),
        }
    }
}

fn run(inbox: &Receiver<Message>, shared: &Shared, mut target: Target) {
    let mut out = None;
    let mut batch = Vec::with_capacity(BATCH);
    let mut waiting = Vec::new();
    while let Ok(first) = inbox.recv() {
        let mut lines = 0;
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Line(line) => {
                    batch.extend_from_slice(&line);
                    lines += 1;
                }
                Message::Flush(done) => waiting.push(done),
            }
            next = if batch.len() < BATCH { inbox.try_recv().ok() } else { None };
        }
        if shared.reopen.swap(false, Relaxed) {
            if let Some(new) = shared.target.lock().take() {
                target = new;
            }
            out = None;
        }
        let written = match &mut out {
            Some(o) => Ok(o),
            none => Out::open(&target).map(|o| none.insert(o)),
        }
        .and_then(|o| o.write(&batch));
        if written.is_err() {
            shared.lost.fetch_add(lines, Relaxed);
            out = None;
        }
        shared.queued.fetch_sub(batch.len(), Relaxed);
        batch.clear();
        for done in waiting.drain(..) {
            let _ = done.try_send(());
        }
    }
}
