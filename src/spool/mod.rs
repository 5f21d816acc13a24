//! Store-and-forward for writes: what no region can take is kept on disk, acknowledged, and replayed when a region can.
//!
//! ```text
//! edge ── keep ──▶ writer thread ── one fsync for many ──▶ answer 202, Location
//!                      │
//!                      ▼
//! edge ◀── take ─── queue (order, gates, rate) ◀── done ── the same exchange that clients' requests go through
//! ```
//!
//! | room | what it knows |
//! |---|---|
//! | [`entry`] | one write, its states, its record |
//! | [`log`] | the file |
//! | [`queue`] | what waits, in which order, when the next may go |
//! | [`writer`] | the thread: group commit, trouble with the disk |
//!
//! **What an acknowledgement means.** The write is on disk (fsync) and will be replayed until a backend has taken it, refused it for good, or
//! `max_age` is over; the last two stay for an operator to see, are on record in the journal, and can be sent on their way again.
//! Exactly once is the backend's part: a write is replayed with its `Idempotency-Key`, perhaps more than once (a process
//! that dies between the backend's answer and our record of it), and routes must say that their backends know
//! keys (`retry.writes: idempotency_key`), or `check` refuses them.
//!
//! **What it does not do.** It does not encrypt: files are 0600, and hold what users sent, credentials included. It does not outlive the disk.
//! It keeps no order between writes with different order keys, nor against writes that have no key.

pub mod entry;
pub mod log;
pub mod queue;
pub mod writer;

pub use entry::{Entry, Mark, State, Write, fingerprint, mark};
pub use queue::Verdict;
pub use writer::Refused;

use crate::clock;
use crate::model::event::Actor;
use crate::model::policy::Degrade;
use crate::model::time::Moment;
use crate::model::topology::Topology;
use parking_lot::Mutex;
use queue::{Next, Queue};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use writer::{Message, Writer};

/// Bytes of requests that may wait for the disk.
const WAITING: usize = 64 << 20;
/// How long a client waits for the disk.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the process waits at its beginning for a file to be opened and read.
const OPENING: Duration = Duration::from_secs(10);

/// What the spool needs of the config.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The directory.
    pub path: PathBuf,
    /// Bytes on disk, at most.
    pub max_bytes: u64,
    /// Replays a second.
    pub replay_rate: f64,
    /// A route asks for it.
    pub wanted: bool,
}

impl Settings {
    /// Of a config.
    pub fn of(t: &Topology) -> Self {
        let wanted = t.routes.iter().any(|r| r.degrade.iter().any(|d| matches!(d, Degrade::Spool(_))));
        Self { path: t.spool.path.clone(), max_bytes: t.spool.max_bytes, replay_rate: t.spool.replay_rate, wanted }
    }
    /// Whether the file is to be open: a route asks for it, or writes from before may wait in it.
    fn needed(&self) -> bool {
        self.wanted || log::file(&self.path).exists()
    }
}

/// What the spool has to tell, for the journal.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// Writes wait, or none do any more.
    Spooling {
        /// Now.
        on: bool,
        /// How many.
        entries: usize,
    },
    /// The file can be used again, or cannot.
    Open {
        /// Why it cannot.
        why: Option<String>,
    },
    /// Writes came to an end that somebody should know of, or were sent on their way again.
    Settled {
        /// Of this route.
        route: String,
        /// Where they stand.
        state: State,
        /// How many.
        count: usize,
        /// One of them.
        id: String,
        /// Who did it.
        by: Actor,
    },
}

/// Takes what the spool has to tell. Must not block.
pub type Tell = Box<dyn Fn(Told) + Send>;

/// Why an operator's order was not followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Again {
    /// There is no such write.
    Unknown(String),
    /// It stands where that cannot be done.
    Conflict(String),
    /// The file cannot be used.
    Trouble(String),
}

/// Some of what is in the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Oldest first.
    pub entries: Vec<Entry>,
}

/// What threads share.
#[derive(Debug)]
pub(crate) struct Shared {
    queue: Mutex<Queue>,
    /// The queue holds anything.
    any: AtomicBool,
    stirred: Notify,
    /// Bytes that wait for the disk.
    waiting: AtomicUsize,
    trouble: Mutex<Option<String>>,
    kept: AtomicU64,
    refused: AtomicU64,
    /// By [`Verdict`].
    replays: [AtomicU64; 5],
    damaged: AtomicUsize,
}

impl Shared {
    fn count(&self, verdict: &Verdict) {
        let at = RESULTS.iter().position(|r| *r == verdict.label()).unwrap_or(0);
        self.replays[at].fetch_add(1, Relaxed);
    }
}

const RESULTS: [&str; 5] = ["applied", "refused", "put_off", "unreachable", "damaged"];

/// Figures for metrics and status.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Writes by where they stand.
    pub states: Vec<(&'static str, usize)>,
    /// Writes that wait.
    pub pending: usize,
    /// Room taken on disk, bytes.
    pub bytes: u64,
    /// Writes acknowledged by this process.
    pub kept: u64,
    /// Writes not taken.
    pub refused: u64,
    /// Replays by what came of them.
    pub replays: Vec<(&'static str, u64)>,
    /// Why the file cannot be used.
    pub trouble: Option<String>,
    /// Records that cannot be read.
    pub damaged: usize,
}

/// A handle to the spool. Cheap to clone; none of its calls blocks a thread.
#[derive(Clone, Debug)]
pub struct Spool {
    shared: Arc<Shared>,
    to: mpsc::Sender<Message>,
}

impl Spool {
    /// Starts the thread, and waits until the file is open and read, or cannot be.
    pub fn start(settings: Settings, tell: Tell) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue::new(settings.replay_rate, clock::dice())),
            any: AtomicBool::new(false),
            stirred: Notify::new(),
            waiting: AtomicUsize::new(0),
            trouble: Mutex::new(None),
            kept: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            replays: Default::default(),
            damaged: AtomicUsize::new(0),
        });
        let (to, from) = mpsc::channel();
        let writer = Writer::new(settings, shared.clone(), tell);
        let (opened, is_open) = mpsc::sync_channel(1);
        std::thread::Builder::new().name("spool".into()).spawn(move || writer.run(&from, &opened))?;
        // A file that takes longer is used as soon as it is read.
        let _ = is_open.recv_timeout(OPENING);
        Ok(Self { shared, to })
    }

    /// Follows a reload.
    pub fn configure(&self, settings: Settings) {
        let _ = self.to.send(Message::Configure(settings));
    }

    /// So many edges replay towards the same services: this one takes its part of the rate.
    pub fn share_among(&self, edges: u32) {
        self.shared.queue.lock().set_edges(edges);
    }

    /// Keeps a write. `Ok` when it is on disk.
    pub async fn keep(&self, write: Write) -> Result<Entry, Refused> {
        let kept = self.try_keep(write).await;
        if kept.is_err() {
            self.shared.refused.fetch_add(1, Relaxed);
        }
        kept
    }

    async fn try_keep(&self, write: Write) -> Result<Entry, Refused> {
        let bytes = write.request.len();
        if self.shared.waiting.fetch_add(bytes, Relaxed) + bytes > WAITING {
            self.shared.waiting.fetch_sub(bytes, Relaxed);
            return Err(Refused::Busy);
        }
        let asked = self.ask(|reply| Message::Keep(Box::new(write), reply));
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Some(kept)) => kept,
            Ok(None) => Err(Refused::Trouble("the spool has stopped".into())),
            Err(_) => Err(Refused::Unknown),
        }
    }

    /// Whether a write of this scope was kept before; [`Spool::repeated`] says which. Looks at memory alone.
    pub fn knows(&self, scope: &Mark) -> bool {
        self.shared.any.load(Relaxed) && self.shared.queue.lock().by_scope(scope).is_some()
    }

    /// Whether a write with this order waits: a newer one has to stand behind it. Looks at memory alone.
    pub fn waits(&self, order: &Mark) -> bool {
        self.shared.any.load(Relaxed) && self.shared.queue.lock().waits(order)
    }

    /// The write of this scope. `Err`: it cannot be read now, in words.
    pub async fn repeated(&self, scope: Mark) -> Result<Option<Entry>, String> {
        self.read(|reply| Message::ByScope(scope, reply)).await
    }

    /// The write with this id. `Err`: it cannot be read now, in words.
    pub async fn by_id(&self, id: &str) -> Result<Option<Entry>, String> {
        if !self.shared.any.load(Relaxed) || self.shared.queue.lock().by_id(id).is_none() {
            return Ok(None);
        }
        let id = id.to_owned();
        self.read(|reply| Message::ById(id, reply)).await
    }

    /// Up to `limit` writes in these states behind number `after`, oldest first.
    pub async fn list(&self, states: Vec<State>, after: u64, limit: usize) -> Result<Listing, String> {
        self.read(|reply| Message::List(states, after, limit, reply)).await
    }

    /// Lets a write go.
    pub async fn drop_write(&self, id: String, by: Actor) -> Result<(), Again> {
        self.order(|reply| Message::Drop(id, by, reply)).await
    }

    /// Replays now: one write, also one that was refused or expired; or everything that waits. Tells how many.
    pub async fn replay(&self, id: Option<String>, by: Actor) -> Result<usize, Again> {
        self.order(|reply| Message::Again(id, by, reply)).await
    }

    /// The next write to replay, as soon as one may go. One caller at a time: whoever is told of a change looks for all.
    pub async fn next(&self) -> (Entry, Vec<u8>) {
        loop {
            let next = if self.shared.any.load(Relaxed) { self.shared.queue.lock().next(clock::now()) } else { Next::Wait(Moment::FAR) };
            match next {
                Next::Go(seq) => {
                    if let Some(Some(found)) = self.ask(|reply| Message::Fetch(seq, reply)).await {
                        return found;
                    }
                }
                Next::Wait(until) => {
                    tokio::select! {
                        () = self.shared.stirred.notified() => {}
                        () = clock::sleep_until(until) => {}
                    }
                }
            }
        }
    }

    /// What came of a replay.
    pub fn done(&self, entry: Entry, verdict: Verdict) {
        let _ = self.to.send(Message::Done(Box::new(entry), verdict));
    }

    /// How things stand.
    pub fn stats(&self) -> Stats {
        let s = &self.shared;
        let queue = s.queue.lock();
        Stats {
            states: State::ALL.map(|state| (state.label(), queue.count(state))).into(),
            pending: queue.count(State::Pending),
            bytes: queue.bytes(),
            kept: s.kept.load(Relaxed),
            refused: s.refused.load(Relaxed),
            replays: RESULTS.iter().zip(&s.replays).map(|(name, n)| (*name, n.load(Relaxed))).collect(),
            trouble: s.trouble.lock().clone(),
            damaged: s.damaged.load(Relaxed),
        }
    }

    /// Writes down what is left and closes the file.
    pub fn stop(&self, patience: Duration) {
        let (reply, stopped) = mpsc::sync_channel(1);
        if self.to.send(Message::Stop(reply)).is_ok() {
            let _ = stopped.recv_timeout(patience);
        }
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.to.send(message(reply)).ok()?;
        answer.await.ok()
    }

    async fn read<T>(&self, message: impl FnOnce(oneshot::Sender<Result<T, log::Trouble>>) -> Message) -> Result<T, String> {
        match tokio::time::timeout(PATIENCE, self.ask(message)).await {
            Ok(Some(found)) => found.map_err(|e| e.to_string()),
            Ok(None) => Err("the spool has stopped".into()),
            Err(_) => Err("the disk takes too long".into()),
        }
    }

    async fn order<T>(&self, message: impl FnOnce(oneshot::Sender<Result<T, Again>>) -> Message) -> Result<T, Again> {
        match tokio::time::timeout(PATIENCE, self.ask(message)).await {
            Ok(Some(done)) => done,
            Ok(None) => Err(Again::Trouble("the spool has stopped".into())),
            Err(_) => Err(Again::Trouble("the disk takes too long".into())),
        }
    }
}

#[cfg(test)]
mod power;
#[cfg(test)]
mod tests;
