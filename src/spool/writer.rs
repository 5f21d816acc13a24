//! The thread that owns the file. Everything that touches the disk happens here, and nobody else waits for the disk.
//!
//! **Group commit.** What came in while the last commit was under way goes into the next one: one fsync for all of it. Only then
//! are the answers given. Under no load a write waits for one fsync, under load for two at most.
//!
//! **Trouble.** A commit that failed fails every write in it, and closes the file: what redb holds in memory is no longer what is on
//! disk. It is opened again at once and then every second; new writes are tried again a second after the last failure, and the trouble
//! is told as over when one was kept, or nothing failed for ten seconds. What a failed commit left on disk all the same is removed then, because its
//! clients were told that it is not kept. What became of replays meanwhile is remembered, and written down as soon as
//! there is room: a process that dies before that replays those writes again, and the backend knows them by their keys.

use super::entry::{Entry, Mark, State, Write, cost};
use super::log::{Change, Log, Trouble};
use super::queue::{Queue, Verdict};
use super::{Again, Listing, Settings, Shared, Tell, Told};
use crate::clock;
use crate::model::event::Actor;
use crate::model::time::Moment;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;
use tokio::sync::oneshot;

/// Writes and bytes of one commit, at most.
const BATCH: (usize, usize) = (4096, 16 << 20);
/// Between two looks at what expired, and two tries to open a file that could not be.
const LOOK: Duration = Duration::from_millis(250);
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// How long nothing must wait, or fail, until that is told: what comes and goes within seconds is one story.
const CALM: Duration = Duration::from_secs(10);
/// Settled at most in one look.
const SOME: usize = 2048;

/// Why a write is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// `spool.max_bytes`.
    Full,
    /// More waits for the disk than may.
    Busy,
    /// The file cannot be used, in words.
    Trouble(String),
    /// The disk took too long: it may be kept or not.
    Unknown,
}

/// One message to the thread.
pub(super) enum Message {
    Keep(Box<Write>, oneshot::Sender<Result<Entry, Refused>>),
    ById(String, oneshot::Sender<Result<Option<Entry>, Trouble>>),
    ByScope(Mark, oneshot::Sender<Result<Option<Entry>, Trouble>>),
    Fetch(u64, oneshot::Sender<Option<(Entry, Vec<u8>)>>),
    Done(Box<Entry>, Verdict),
    List(Vec<State>, u64, usize, oneshot::Sender<Result<Listing, Trouble>>),
    Drop(String, Actor, oneshot::Sender<Result<(), Again>>),
    Again(Option<String>, Actor, oneshot::Sender<Result<usize, Again>>),
    Configure(Settings),
    Stop(SyncSender<()>),
}

type Keeper = (Entry, oneshot::Sender<Result<Entry, Refused>>);

/// The thread's state.
pub(super) struct Writer {
    settings: Settings,
    log: Option<Log>,
    shared: Arc<Shared>,
    tell: Tell,
    /// Everything up to this number was acknowledged, or removed.
    acknowledged: u64,
    loaded: bool,
    /// Changes that are in force and not on disk yet.
    unsaved: Vec<Change>,
    keepers: Vec<Keeper>,
    batch: Vec<Change>,
    batched: usize,
    /// Room that the writes of this batch will take.
    promised: u64,
    settled: BTreeMap<(String, State), (usize, String, Actor)>,
    trouble: Option<Trouble>,
    try_at: Moment,
    /// A commit failed last at this time, and none has kept a write since.
    failed: Option<Moment>,
    /// The journal knows that writes wait; since when none does.
    spooling: bool,
    empty_since: Option<Moment>,
}

impl Writer {
    pub(super) fn new(settings: Settings, shared: Arc<Shared>, tell: Tell) -> Self {
        Self {
            settings,
            log: None,
            shared,
            tell,
            acknowledged: 0,
            loaded: false,
            unsaved: Vec::new(),
            keepers: Vec::new(),
            batch: Vec::new(),
            batched: 0,
            promised: 0,
            settled: BTreeMap::new(),
            trouble: None,
            try_at: clock::now(),
            failed: None,
            spooling: false,
            empty_since: None,
        }
    }

    /// Runs until told to stop, or until nobody is left who could.
    pub(super) fn run(mut self, from: &Receiver<Message>, opened: &SyncSender<()>) {
        self.look();
        let _ = opened.send(());
        loop {
            let mut stop = None;
            match from.recv_timeout(LOOK) {
                Ok(message) => {
                    let mut next = Some(message);
                    while let Some(message) = next.take() {
                        if let Message::Stop(reply) = message {
                            stop = Some(reply);
                            break;
                        }
                        self.take(message);
                        if self.batch.len() < BATCH.0 && self.batched < BATCH.1 {
                            next = from.try_recv().ok();
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.look();
            self.commit();
            if let Some(reply) = stop {
                self.log = None;
                let _ = reply.send(());
                return;
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Keep(write, reply) => self.keep(&write, reply),
            Message::ById(id, reply) => {
                let seq = self.shared.queue.lock().by_id(&id);
                let found = self.find(seq).map(|e| e.filter(|e| e.id == id));
                let _ = reply.send(found);
            }
            Message::ByScope(scope, reply) => {
                let seq = self.shared.queue.lock().by_scope(&scope);
                let found = self.find(seq).map(|e| e.filter(|e| e.scope == scope));
                let _ = reply.send(found);
            }
            Message::Fetch(seq, reply) => {
                let found = self.fetch(seq);
                let _ = reply.send(found);
            }
            Message::Done(entry, verdict) => self.done(*entry, &verdict),
            Message::List(states, after, limit, reply) => {
                let found = self.with(|log| log.list(&states, after, limit));
                let _ = reply.send(found.map(|entries| Listing { entries }));
            }
            Message::Drop(id, by, reply) => {
                let done = self.drop_one(&id, by);
                self.commit();
                let _ = reply.send(done);
            }
            Message::Again(id, by, reply) => {
                let done = self.again(id.as_deref(), by);
                self.commit();
                let _ = reply.send(done);
            }
            Message::Configure(settings) => self.configure(settings),
            Message::Stop(_) => {}
        }
    }

    fn keep(&mut self, write: &Write, reply: oneshot::Sender<Result<Entry, Refused>>) {
        self.shared.waiting.fetch_sub(write.request.len(), Relaxed);
        if reply.is_closed() {
            return;
        }
        if self.log.is_none() || self.failed.is_some_and(|at| clock::now().since(at) < TRY_AGAIN) {
            let why = self.trouble.as_ref().map_or_else(|| "the spool is not open".to_owned(), ToString::to_string);
            let _ = reply.send(Err(Refused::Trouble(why)));
            return;
        }
        let (room, seq) = {
            let mut queue = self.shared.queue.lock();
            let room = queue.room(self.promised + cost(write.request.len() as u64), self.settings.max_bytes);
            let seq = queue.next_seq();
            if room.is_some() {
                queue.taken(seq);
            }
            (room, seq)
        };
        let Some(go) = room else {
            let _ = reply.send(Err(Refused::Full));
            return;
        };
        for seq in go {
            self.shared.queue.lock().forget(seq);
            self.batch.push(Change::Forget(seq));
        }
        let entry = Entry::of(write, seq, clock::unguessable_id(), unix());
        self.batched += write.request.len();
        self.promised += entry.cost();
        self.batch.push(Change::Add(entry.clone(), write.request.clone()));
        self.keepers.push((entry, reply));
    }

    fn find(&self, seq: Option<u64>) -> Result<Option<Entry>, Trouble> {
        // What was settled and could not be written down yet is known better here.
        let unsaved = self.unsaved.iter().chain(&self.batch).rev().find_map(|c| match c {
            Change::Settle(e) if Some(e.seq) == seq => Some(e.clone()),
            _ => None,
        });
        match (unsaved, seq) {
            (Some(e), _) => Ok(Some(e)),
            (None, None) => Ok(None),
            (None, Some(seq)) => self.with(|log| Ok(log.entry(seq)?.and_then(Result::ok))),
        }
    }

    fn with<T>(&self, f: impl FnOnce(&Log) -> Result<T, Trouble>) -> Result<T, Trouble> {
        let Some(log) = &self.log else {
            return Err(self.trouble.clone().unwrap_or_else(|| Trouble::Disk("the spool is not open".into())));
        };
        guarded(|| f(log))
    }

    /// What to replay. A request that is not what was accepted is put aside, and told.
    fn fetch(&mut self, seq: u64) -> Option<(Entry, Vec<u8>)> {
        match (self.find(Some(seq)), self.with(|log| log.request(seq))) {
            (Ok(Some(entry)), Ok(Some(request))) if entry.owns(&request) => return Some((entry, request)),
            (Ok(Some(entry)), Ok(_)) => self.done(entry, &Verdict::Damaged),
            (Ok(None), _) => {
                self.shared.queue.lock().done(seq, &Verdict::Damaged, clock::now());
                self.lost(seq);
            }
            // It cannot be read just now: the replay is put off.
            (Err(e), _) | (_, Err(e)) => {
                self.shared.queue.lock().done(seq, &Verdict::Unreachable(e.to_string()), clock::now());
            }
        }
        None
    }

    fn done(&mut self, mut entry: Entry, verdict: &Verdict) {
        self.shared.count(verdict);
        let now = clock::now();
        let mut queue = self.shared.queue.lock();
        if queue.done(entry.seq, verdict, now) {
            (entry.state, entry.settled_at) = (verdict.state(), unix());
            (entry.result, entry.why) = match verdict {
                Verdict::Applied(status) => (Some(*status), None),
                Verdict::Refused(status) => (Some(*status), Some(format!("the backend answered {status}"))),
                _ => (None, Some("its bytes on disk are not what was accepted".into())),
            };
            queue.settle(&entry, now);
            drop(queue);
            self.record(entry, Actor::Evenkeel);
        }
        self.shared.stirred.notify_one();
    }

    /// An entry that is settled in the queue goes to disk and, but for the applied ones, on record.
    fn record(&mut self, entry: Entry, by: Actor) {
        if entry.state != State::Applied {
            let told = self.settled.entry((entry.route.clone(), entry.state)).or_insert((0, entry.id.clone(), by));
            told.0 += 1;
        }
        self.batch.push(Change::Settle(entry));
    }

    fn drop_one(&mut self, id: &str, by: Actor) -> Result<(), Again> {
        let mut entry = self.named(id)?;
        if matches!(entry.state, State::Applied | State::Dropped) {
            return Err(Again::Conflict(format!("it is {} already", entry.state.label())));
        }
        (entry.state, entry.settled_at, entry.why) = (State::Dropped, unix(), Some(format!("dropped by {by}")));
        let now = clock::now();
        self.shared.queue.lock().settle(&entry, now);
        self.record(entry, by);
        self.shared.stirred.notify_one();
        Ok(())
    }

    fn again(&mut self, id: Option<&str>, by: Actor) -> Result<usize, Again> {
        let now = clock::now();
        let Some(id) = id else {
            let mut queue = self.shared.queue.lock();
            queue.hurry(now);
            self.shared.stirred.notify_one();
            return Ok(queue.count(State::Pending));
        };
        let mut entry = self.named(id)?;
        if !matches!(entry.state, State::Refused | State::Expired | State::Pending) {
            return Err(Again::Conflict(format!(
                "it is {}: only pending, refused and expired writes can be replayed",
                entry.state.label()
            )));
        }
        if entry.state != State::Pending {
            // As much time as it had at first.
            let age = entry.expires_at.saturating_sub(entry.accepted_at);
            (entry.state, entry.expires_at, entry.settled_at) = (State::Pending, unix() + age, unix());
            entry.why = Some(format!("sent on its way again by {by}"));
            self.shared.queue.lock().settle(&entry, now);
            self.record(entry, by);
        }
        self.shared.queue.lock().hurry(now);
        self.shared.stirred.notify_one();
        Ok(1)
    }

    /// The entry with this id, not under way.
    fn named(&mut self, id: &str) -> Result<Entry, Again> {
        let seq = self.shared.queue.lock().by_id(id);
        let entry = self.find(seq).map_err(|e| Again::Trouble(e.to_string()))?.filter(|e| e.id == id);
        let entry = entry.ok_or_else(|| Again::Unknown(format!("there is no write `{id}` in the spool")))?;
        if self.shared.queue.lock().is_under_way(entry.seq) {
            return Err(Again::Conflict("it is being replayed right now: try again in a moment".into()));
        }
        Ok(entry)
    }

    fn configure(&mut self, settings: Settings) {
        self.shared.queue.lock().set_rate(settings.replay_rate);
        if settings.path != self.settings.path && self.log.is_some() {
            let (pending, under_way) = {
                let queue = self.shared.queue.lock();
                (queue.count(State::Pending), queue.under_way())
            };
            if pending + under_way + self.keepers.len() > 0 {
                tracing::warn!(
                    "spool.path: {} writes wait in {}; the spool stays there until they are through and the process restarts",
                    pending,
                    self.settings.path.display()
                );
                self.settings = Settings { path: self.settings.path.clone(), ..settings };
                return;
            }
            self.commit();
            (self.log, self.loaded, self.acknowledged) = (None, false, 0);
            self.unsaved.clear();
            *self.shared.queue.lock() = Queue::new(settings.replay_rate, clock::dice());
        }
        self.settings = settings;
        self.try_at = clock::now();
    }

    /// What is to be done from time to time.
    fn look(&mut self) {
        if self.log.is_none() && self.settings.needed() && clock::now() >= self.try_at {
            self.open();
        }
        if self.log.is_some() {
            self.sweep();
        }
        let (pending, any) = {
            let queue = self.shared.queue.lock();
            (queue.count(State::Pending), !queue.is_empty())
        };
        self.shared.any.store(any, Relaxed);
        self.empty_since = if pending > 0 { None } else { self.empty_since.or(Some(clock::now())) };
        let over = self.empty_since.is_some_and(|since| clock::now().since(since) >= CALM);
        if (pending > 0 && !self.spooling) || (over && self.spooling) {
            self.spooling = pending > 0;
            (self.tell)(Told::Spooling { on: self.spooling, entries: pending });
        }
        if self.log.is_some() && self.failed.is_some_and(|at| clock::now().since(at) >= CALM) {
            self.well();
        }
        for ((route, state), (count, id, by)) in std::mem::take(&mut self.settled) {
            (self.tell)(Told::Settled { route, state, count, id, by });
        }
    }

    fn open(&mut self) {
        self.try_at = clock::now() + TRY_AGAIN;
        let (log, entries, damaged) = match guarded(|| Log::open(&self.settings.path)) {
            Ok(opened) => opened,
            Err(trouble) => return self.close(trouble),
        };
        self.log = Some(log);
        for (seq, why) in &damaged {
            tracing::error!("spool: write {seq} cannot be read and will not be replayed: {why}; its record stays in the file");
        }
        let now = clock::now();
        if self.loaded {
            // Told to their clients as not kept.
            let gone = entries.iter().filter(|e| e.seq > self.acknowledged && !self.keepers.iter().any(|(k, _)| k.seq == e.seq));
            let gone: Vec<Change> = gone.map(|e| Change::Forget(e.seq)).collect();
            self.unsaved.extend(gone);
        } else {
            let mut queue = self.shared.queue.lock();
            damaged.iter().for_each(|(seq, _)| queue.taken(*seq));
            entries.iter().for_each(|e| queue.add(e, now));
            self.acknowledged = queue.next_seq() - 1;
            self.loaded = true;
            let waiting = queue.count(State::Pending);
            if waiting > 0 {
                tracing::info!("spool: {waiting} writes wait to be replayed ({})", self.settings.path.display());
            }
        }
        self.shared.damaged.store(damaged.len(), Relaxed);
        if self.failed.is_none() {
            self.well();
        }
        self.shared.stirred.notify_one();
    }

    /// The trouble is over.
    fn well(&mut self) {
        self.failed = None;
        *self.shared.trouble.lock() = None;
        if self.trouble.take().is_some() {
            (self.tell)(Told::Open { why: None });
        }
    }

    /// Closes the file because of trouble, and says so once.
    fn close(&mut self, trouble: Trouble) {
        self.log = None;
        self.try_at = clock::now() + TRY_AGAIN;
        let why = trouble.to_string();
        *self.shared.trouble.lock() = Some(why.clone());
        if self.trouble.as_ref() != Some(&trouble) {
            (self.tell)(Told::Open { why: Some(why) });
        }
        self.trouble = Some(trouble);
    }

    /// Settles what expired, forgets what was known for long enough.
    fn sweep(&mut self) {
        let (wall, now) = (unix(), clock::now());
        let (expired, forgotten) = {
            let queue = self.shared.queue.lock();
            (queue.expired(wall, SOME), queue.forgotten(wall, SOME))
        };
        for seq in expired {
            let Ok(found) = self.find(Some(seq)) else { return };
            let mut queue = self.shared.queue.lock();
            match found {
                Some(mut entry) => {
                    (entry.state, entry.settled_at) = (State::Expired, wall);
                    entry.why = Some("no region took it within max_age".into());
                    queue.settle(&entry, now);
                    drop(queue);
                    self.record(entry, Actor::Evenkeel);
                }
                None => {
                    drop(queue);
                    self.lost(seq);
                }
            }
        }
        for seq in forgotten {
            self.shared.queue.lock().forget(seq);
            self.batch.push(Change::Forget(seq));
        }
    }

    /// A record that could be read once cannot be any more.
    fn lost(&self, seq: u64) {
        tracing::error!("spool: the record of write {seq} is damaged, it cannot be replayed; it stays in the file");
        self.shared.damaged.fetch_add(1, Relaxed);
        self.shared.queue.lock().forget(seq);
    }

    /// Everything that came in goes to disk as one, and is answered.
    fn commit(&mut self) {
        let rests = self.log.is_none() || self.failed.is_some_and(|at| clock::now().since(at) < TRY_AGAIN);
        if self.keepers.is_empty() && rests {
            // What is settled is in force; it is written down when the disk takes it.
            self.unsaved.append(&mut self.batch);
            return;
        }
        if self.batch.is_empty() && self.unsaved.is_empty() {
            return;
        }
        let mut changes = std::mem::take(&mut self.unsaved);
        let keepers = std::mem::take(&mut self.keepers);
        changes.append(&mut self.batch);
        (self.batched, self.promised) = (0, 0);
        let done = self.with(|log| log.commit(&changes));
        match done {
            Ok(()) => {
                let now = clock::now();
                self.shared.kept.fetch_add(keepers.len() as u64, Relaxed);
                {
                    let mut queue = self.shared.queue.lock();
                    keepers.iter().for_each(|(entry, _)| queue.add(entry, now));
                    self.acknowledged = queue.next_seq() - 1;
                }
                self.shared.any.store(true, Relaxed);
                if !keepers.is_empty() {
                    self.well();
                }
                for (entry, reply) in keepers {
                    let _ = reply.send(Ok(entry));
                }
                self.shared.stirred.notify_one();
                self.shrink();
            }
            Err(trouble) => {
                // What was decided stays in force; new writes are not kept.
                self.unsaved = changes.into_iter().filter(|c| !matches!(c, Change::Add(..))).collect();
                let why = trouble.to_string();
                self.close(trouble);
                for (_, reply) in keepers {
                    let _ = reply.send(Err(Refused::Trouble(why.clone())));
                }
                (self.failed, self.try_at) = (Some(clock::now()), clock::now());
            }
        }
    }

    /// A spool that was full once and is empty now gives the room back.
    fn shrink(&mut self) {
        const LARGE: u64 = 64 << 20;
        if self.shared.queue.lock().count(State::Pending) > 0 {
            return;
        }
        let size = std::fs::metadata(super::log::file(&self.settings.path)).map_or(0, |m| m.len());
        if size < LARGE || self.shared.queue.lock().bytes() > size / 8 {
            return;
        }
        let Some(mut log) = self.log.take() else { return };
        match guarded(|| log.compact().map(|()| log)) {
            Ok(log) => self.log = Some(log),
            Err(trouble) => self.close(trouble),
        }
    }
}

/// A damaged file may make the store panic: that ends the file's use, not the thread.
fn guarded<T>(f: impl FnOnce() -> Result<T, Trouble>) -> Result<T, Trouble> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|_| {
        Err(Trouble::Unreadable(
            "the spool's file is damaged in a way its store did not expect: keep the file, move it away to begin a new one".into(),
        ))
    })
}

/// Unix time, ms.
fn unix() -> u64 {
    u64::try_from(clock::wall_now().as_millisecond()).unwrap_or(0)
}
