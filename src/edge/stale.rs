//! The store of last good copies: bounded by bytes, shared by all worker threads.
//!
//! What may be kept, and who may be given it, is decided by the pure rules in [`crate::steer::lastgood`]; this room
//! only holds. Eviction is quick_cache's (a sharded Clock-PRO variant), weighed by real bytes: key, fields, body, and
//! a fixed overhead per entry. An answer that varies leaves a small signpost under the plain key that names the
//! fields, and the copy itself under the key of the variant (RFC 9111 section 4.1).
//!
//! **Single flight.** A popular key is not copied on every answer: a copy younger than [`REFRESH`] is left as it is, and of the
//! answers that pass at the same time one is collected ([`Claim`]), the others only pass. In an outage a copy is then at most
//! [`REFRESH`] and one answer older than it could have been. What is being collected is bounded as well: beyond an eighth of the
//! store's bound, answers pass uncollected.
//!
//! With `stale.persist` the copies are on disk as well, and there again after a restart: [`disk`].

pub mod disk;
mod record;

use crate::model::topology::{StaleStore, Topology};
use crate::model::view::Fields;
use crate::steer::lastgood::{self, Keep, Key};
use crate::steer::purge::Pattern;
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use disk::{Changes, Disk};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, Weighter};
use std::cell::Cell;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A copy younger than this is not replaced.
pub const REFRESH: Duration = Duration::from_secs(1);

/// Bytes an entry costs beside its content: slots in tables that have room to grow, reference counts, the allocator. With it a full store of
/// small answers takes no more of the machine's memory than it says (`tests/stale.rs`).
const OVERHEAD: u64 = 288;

/// Bytes that the allocator hands out for so many.
fn allocated(bytes: usize) -> usize {
    bytes.next_multiple_of(16)
}

/// The part of the bound that may be under collection.
const COLLECTED: u64 = 8;

/// One kept answer.
#[derive(Debug, PartialEq)]
pub struct Copy {
    /// The origin's status.
    pub status: u16,
    /// End-to-end fields as the origin sent them.
    pub fields: Vec<(Bytes, Bytes)>,
    /// The whole body.
    pub body: Bytes,
    /// When it was kept, milliseconds since the Unix epoch (so that it survives a restart).
    pub kept_at: u64,
    /// Which region it came from.
    pub region: Arc<str>,
}

impl Copy {
    /// A field of the copy.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, v)| &**v)
    }
    /// Seconds since it was made by the origin: time kept, and the `Age` it came with.
    pub fn age(&self, now: u64) -> u64 {
        let came_with = self.field("age").and_then(|v| std::str::from_utf8(v).ok()).and_then(|v| v.trim().parse().ok()).unwrap_or(0u64);
        came_with.saturating_add(now.saturating_sub(self.kept_at) / 1000)
    }
    fn bytes(&self) -> u64 {
        let fields = self.fields.iter().map(|(n, v)| allocated(n.len()) + allocated(v.len()) + 2 * size_of::<Bytes>());
        (allocated(self.body.len()) + fields.sum::<usize>()) as u64
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Entry {
    Copy(Arc<Copy>),
    /// The answer varies on these fields.
    Varies(Arc<[String]>),
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Key, Entry> for ByBytes {
    fn weight(&self, key: &Key, entry: &Entry) -> u64 {
        let content = match entry {
            Entry::Copy(copy) => copy.bytes(),
            Entry::Varies(names) => names.iter().map(|n| (n.len() + size_of::<String>()) as u64).sum(),
        };
        OVERHEAD + key.0.len() as u64 + content
    }
}

/// What is evicted for want of room leaves the disk as well.
#[derive(Clone)]
struct Farewell(Arc<Changes>);

impl Lifecycle<Key, Entry> for Farewell {
    /// Dropped when the cache's lock is free again.
    type RequestState = Vec<(Key, Entry)>;

    fn on_evict(&self, state: &mut Self::RequestState, key: Key, entry: Entry) {
        self.0.changed(&key);
        state.push((key, entry));
    }
}

/// The store.
pub struct Store {
    cache: Cache<Key, Entry, ByBytes, DefaultHashBuilder, Farewell>,
    changes: Arc<Changes>,
    claimed: Mutex<HashSet<Key>>,
    /// Bytes of answers under collection.
    collected: AtomicU64,
    max_bytes: AtomicU64,
    max_body: AtomicU64,
}

impl Store {
    /// A store of at most `max_bytes` in all; bodies above `max_body` bytes are not kept.
    pub fn new(max_bytes: u64, max_body: u64) -> Self {
        // The estimate only sizes the tables: entries of 4 KiB are typical of JSON answers.
        let estimate = (max_bytes / 4096).clamp(16, 1 << 20) as usize;
        let changes = Arc::<Changes>::default();
        Self {
            cache: Cache::with(estimate, max_bytes, ByBytes, DefaultHashBuilder::default(), Farewell(changes.clone())),
            changes,
            claimed: Mutex::default(),
            collected: AtomicU64::new(0),
            max_bytes: AtomicU64::new(max_bytes),
            max_body: AtomicU64::new(max_body),
        }
    }

    fn rebound(&self, bounds: &StaleStore) {
        self.max_body.store(bounds.max_body, Relaxed);
        self.max_bytes.store(bounds.max_bytes, Relaxed);
        self.cache.set_capacity(bounds.max_bytes);
    }

    /// The largest body worth collecting, bytes.
    pub fn max_body(&self) -> u64 {
        self.max_body.load(Relaxed)
    }

    /// The right to collect this answer: there is no copy that is fresh enough, and nobody else is at it.
    /// `anyway`: however fresh the copy is, and whoever is at it.
    pub fn claim(self: &Arc<Self>, key: &Key, request: &dyn Fields, now: u64, anyway: bool) -> Option<Claim> {
        let key = match self.cache.get(key) {
            Some(Entry::Varies(names)) => lastgood::variant(key, &names, request),
            _ => key.clone(),
        };
        let fresh = |c: &Copy| now.saturating_sub(c.kept_at) < REFRESH.as_millis() as u64;
        if !anyway && matches!(self.cache.get(&key), Some(Entry::Copy(copy)) if fresh(&copy)) {
            return None;
        }
        let first = self.claimed.lock().insert(key.clone());
        (first || anyway).then(|| Claim { store: self.clone(), key: first.then_some(key), bytes: 0 })
    }

    /// The copy for this request, if there is one no older than `max_age`.
    pub fn get(&self, key: &Key, request: &dyn Fields, now: u64, max_age: Duration) -> Option<Arc<Copy>> {
        self.find(key, request).filter(|c| u128::from(now.saturating_sub(c.kept_at)) <= max_age.as_millis())
    }

    fn find(&self, key: &Key, request: &dyn Fields) -> Option<Arc<Copy>> {
        match self.cache.get(key)? {
            Entry::Copy(copy) => Some(copy),
            Entry::Varies(names) => match self.cache.get(&lastgood::variant(key, &names, request))? {
                Entry::Copy(copy) => Some(copy),
                Entry::Varies(_) => None,
            },
        }
    }

    /// Takes the verdict of [`lastgood::keep`] on a whole answer.
    pub fn put(&self, key: &Key, request: &dyn Fields, verdict: Keep, copy: Copy) {
        match verdict {
            Keep::No => {}
            Keep::Evict => self.evict(key, request),
            Keep::Yes(_) if copy.body.len() as u64 > self.max_body() => {}
            Keep::Yes(names) if names.is_empty() => self.insert(key.clone(), Entry::Copy(Arc::new(copy))),
            Keep::Yes(names) => {
                self.insert(lastgood::variant(key, &names, request), Entry::Copy(Arc::new(copy)));
                let signpost = Entry::Varies(names.into());
                if self.cache.get(key).as_ref() != Some(&signpost) {
                    self.insert(key.clone(), signpost);
                }
            }
        }
    }

    fn insert(&self, key: Key, entry: Entry) {
        self.cache.insert(key.clone(), entry);
        self.changes.changed(&key);
    }

    /// Drops what is kept for this request.
    pub fn evict(&self, key: &Key, request: &dyn Fields) {
        let Some((_, entry)) = self.cache.remove(key) else { return };
        self.changes.gone(key);
        if let Entry::Varies(names) = entry {
            let variant = lastgood::variant(key, &names, request);
            if self.cache.remove(&variant).is_some() {
                self.changes.gone(&variant);
            }
        }
    }

    /// Drops every copy that is meant, and gives how many went.
    pub fn purge(&self, pattern: &Pattern) -> usize {
        let gone = Cell::new(0);
        self.cache.retain(|key, entry| {
            let meant = pattern.names(key);
            if meant {
                gone.set(gone.get() + usize::from(matches!(entry, Entry::Copy(_))));
                self.changes.gone(key);
            }
            !meant
        });
        gone.get()
    }

    /// Bytes held now.
    pub fn bytes(&self) -> u64 {
        self.cache.weight()
    }

    /// Entries held now.
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.cache.is_empty()
    }
}

/// The right to collect an answer, while it is collected.
pub struct Claim {
    store: Arc<Store>,
    /// `None`: another one has it as well.
    key: Option<Key>,
    bytes: u64,
}

impl Claim {
    /// So many more bytes were collected. False: too much is under collection, and this one is to be let go.
    pub fn take(&mut self, bytes: u64) -> bool {
        self.bytes += bytes;
        let all = self.store.collected.fetch_add(bytes, Relaxed) + bytes;
        all <= self.store.max_bytes.load(Relaxed) / COLLECTED + self.store.max_body()
    }
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claim").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.store.collected.fetch_sub(self.bytes, Relaxed);
        if let Some(key) = &self.key {
            self.store.claimed.lock().remove(key);
        }
    }
}

/// The process's one store, made when a route first asks for it, and its file.
#[derive(Default)]
pub struct Copies {
    store: ArcSwapOption<(StaleStore, Arc<Store>)>,
    disk: Mutex<Option<Disk>>,
}

impl Copies {
    /// The store with these bounds. What it holds stays when they change.
    #[inline]
    pub fn store(&self, bounds: &StaleStore) -> Arc<Store> {
        match &*self.store.load() {
            Some(now) if now.0 == *bounds => now.1.clone(),
            _ => self.made(bounds),
        }
    }

    #[cold]
    fn made(&self, bounds: &StaleStore) -> Arc<Store> {
        // One at a time: two threads may come here at once, and there is one store.
        let _one = self.disk.lock();
        let store = match &*self.store.load() {
            Some(now) if now.0 == *bounds => return now.1.clone(),
            Some(now) => {
                now.1.rebound(bounds);
                now.1.clone()
            }
            None => Arc::new(Store::new(bounds.max_bytes, bounds.max_body)),
        };
        self.store.store(Some(Arc::new((bounds.clone(), store.clone()))));
        store
    }

    /// Before the first request: reads what an earlier process left, where the config wants that.
    pub fn open(&self, t: &Topology) {
        if t.stale.persist {
            disk::load(&self.store(&t.stale), t);
        }
        self.configure(t);
    }

    /// The config is this one now.
    pub fn configure(&self, t: &Topology) {
        let store = t.stale.persist.then(|| self.store(&t.stale));
        let mut disk = self.disk.lock();
        if disk.as_ref().is_some_and(|d| store.is_none() || d.dir() != t.edge.state_dir) {
            drop(disk.take());
        }
        match store {
            // Nobody may find them again who turns it on later: what was withdrawn meanwhile would be among them.
            None => disk::remove(&t.edge.state_dir),
            Some(store) if disk.is_none() => match Disk::start(&t.edge.state_dir, store) {
                Ok(started) => *disk = Some(started),
                Err(e) => tracing::error!("last good copies are not written to disk: cannot start a thread: {e}"),
            },
            Some(_) => {}
        }
    }

    /// [`Store::purge`], where there is a store, and on disk. Waits for the disk.
    pub fn purge(&self, pattern: &Pattern) -> usize {
        let gone = self.store.load_full().map_or(0, |now| now.1.purge(pattern));
        let flushed = self.disk.lock().as_ref().map(Disk::flush);
        if flushed.is_some_and(|f| f.recv().is_err()) {
            tracing::error!("purged copies are still on disk: see the errors before this one");
        }
        gone
    }

    /// Bytes and entries held now.
    pub fn held(&self) -> (u64, usize) {
        self.store.load().as_ref().map_or((0, 0), |now| (now.1.bytes(), now.1.len()))
    }

    /// The process ends: what has not reached the disk does now.
    pub fn close(&self) {
        drop(self.disk.lock().take());
    }
}

#[cfg(test)]
mod tests;
