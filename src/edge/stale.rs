//! The store of last good copies: bounded by bytes, shared by all worker threads.
//!
//! What may be kept, and who may be given it, is decided by the pure rules in [`crate::steer::lastgood`]; this room
//! only holds. Eviction is quick_cache's (a sharded Clock-PRO variant), weighed by real bytes: key, fields, body, and
//! a fixed overhead per entry. An answer that varies leaves a small signpost under the plain key that names the
//! fields, and the copy itself under the key of the variant (RFC 9111 section 4.1).
//!
//! A popular key is not copied on every answer: a copy younger than [`REFRESH`] is left as it is. In an outage a
//! copy is then at most that much older than it could have been.

use crate::model::topology::StaleStore;
use crate::steer::lastgood::{self, Keep, Key};
use crate::steer::purge::Pattern;
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use crate::model::view::Fields;

/// A copy younger than this is not replaced.
pub const REFRESH: Duration = Duration::from_secs(1);

/// Bytes an entry costs beside its content: table slot, reference counts, allocator.
const OVERHEAD: u64 = 160;

/// One kept answer.
#[derive(Debug)]
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
        (self.body.len() + self.fields.iter().map(|(n, v)| n.len() + v.len() + 2 * size_of::<Bytes>()).sum::<usize>()) as u64
    }
}

#[derive(Clone)]
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

/// The store.
pub struct Store {
    cache: Cache<Key, Entry, ByBytes>,
    max_body: u64,
}

impl Store {
    /// A store of at most `max_bytes` in all; bodies above `max_body` bytes are not kept.
    pub fn new(max_bytes: u64, max_body: u64) -> Self {
        // The estimate only sizes the tables: entries of 4 KiB are typical of JSON answers.
        let estimate = (max_bytes / 4096).clamp(16, 1 << 20) as usize;
        Self { cache: Cache::with_weighter(estimate, max_bytes, ByBytes), max_body }
    }

    /// The largest body worth collecting, bytes.
    pub fn max_body(&self) -> u64 {
        self.max_body
    }

    /// Whether a copy of this answer is worth collecting now: there is none that is fresh enough.
    pub fn wants(&self, key: &Key, request: &dyn Fields, now: u64) -> bool {
        self.find(key, request).is_none_or(|c| now.saturating_sub(c.kept_at) >= REFRESH.as_millis() as u64)
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
            Keep::Yes(_) if copy.body.len() as u64 > self.max_body => {}
            Keep::Yes(names) if names.is_empty() => self.cache.insert(key.clone(), Entry::Copy(Arc::new(copy))),
            Keep::Yes(names) => {
                self.cache.insert(lastgood::variant(key, &names, request), Entry::Copy(Arc::new(copy)));
                self.cache.insert(key.clone(), Entry::Varies(names.into()));
            }
        }
    }

    /// Drops what is kept for this request.
    pub fn evict(&self, key: &Key, request: &dyn Fields) {
        if let Some((_, Entry::Varies(names))) = self.cache.remove(key) {
            self.cache.remove(&lastgood::variant(key, &names, request));
        }
    }

    /// Drops every copy that is meant, and gives how many went.
    pub fn purge(&self, pattern: &Pattern) -> usize {
        let gone = Cell::new(0);
        self.cache.retain(|key, entry| {
            let meant = pattern.names(key);
            gone.set(gone.get() + usize::from(meant && matches!(entry, Entry::Copy(_))));
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

/// The process's one store: made when a route first asks for it, and anew (empty) when a reload changes its bounds.
#[derive(Default)]
pub struct Copies(ArcSwapOption<(StaleStore, Arc<Store>)>);

impl Copies {
    /// The store with these bounds.
    pub fn store(&self, bounds: &StaleStore) -> Arc<Store> {
        match &*self.0.load() {
            Some(now) if now.0 == *bounds => return now.1.clone(),
            _ => {}
        }
        let fresh = Arc::new((bounds.clone(), Arc::new(Store::new(bounds.max_bytes, bounds.max_body))));
        // Two threads may come here at once: the first one's store stays.
        self.0.rcu(|now| match now {
            Some(now) if now.0 == *bounds => Some(now.clone()),
            _ => Some(fresh.clone()),
        });
        self.0.load_full().map_or_else(|| fresh.1.clone(), |now| now.1.clone())
    }

    /// [`Store::purge`], where there is a store.
    pub fn purge(&self, pattern: &Pattern) -> usize {
        self.0.load().as_ref().map_or(0, |now| now.1.purge(pattern))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    fn key(name: &str) -> Key {
        Key(name.as_bytes().into())
    }
    fn copy(body: &[u8], kept_at: u64) -> Copy {
        Copy { status: 200, fields: Vec::new(), body: Bytes::copy_from_slice(body), kept_at, region: "east".into() }
    }
    fn language(value: &str) -> HeaderMap {
        let mut map = HeaderMap::new();
        map.insert("accept-language", value.parse().expect("a field value"));
        map
    }

    #[test]
    fn gives_back_what_was_kept_until_it_is_too_old() {
        let (store, none) = (Store::new(1 << 20, 1 << 16), HeaderMap::new());
        store.put(&key("a"), &none, Keep::Yes(vec![]), copy(b"one", 1_000));
        let at = |now, max| store.get(&key("a"), &none, now, Duration::from_millis(max)).map(|c| c.body.clone());
        assert_eq!(at(2_000, 1_000).as_deref(), Some(&b"one"[..]));
        assert_eq!(at(2_001, 1_000), None);
        assert!(!store.wants(&key("a"), &none, 1_999) && store.wants(&key("a"), &none, 2_000));
        store.put(&key("a"), &none, Keep::Evict, copy(b"", 3_000));
        assert_eq!(at(2_000, 1_000), None);
    }

    #[test]
    fn a_variant_goes_only_to_those_who_asked_for_it() {
        let store = Store::new(1 << 20, 1 << 16);
        let vary = || Keep::Yes(vec!["accept-language".to_owned()]);
        store.put(&key("a"), &language("de"), vary(), copy(b"hallo", 0));
        store.put(&key("a"), &language("fr"), vary(), copy(b"salut", 0));
        let body = |l: &str| store.get(&key("a"), &language(l), 0, Duration::from_secs(1)).map(|c| c.body.clone());
        assert_eq!(body("de").as_deref(), Some(&b"hallo"[..]));
        assert_eq!(body("fr").as_deref(), Some(&b"salut"[..]));
        assert_eq!(body("en"), None);
    }

    #[test]
    fn the_bound_holds_and_large_bodies_stay_out() {
        let (store, none) = (Store::new(1 << 20, 1000), HeaderMap::new());
        for i in 0..20_000u32 {
            store.put(&key(&format!("key-{i}")), &none, Keep::Yes(vec![]), copy(&[b'x'; 500], 0));
            assert!(store.bytes() <= 1 << 20, "{} bytes after {i}", store.bytes());
        }
        assert!(store.len() > 500, "{} entries: the bound is used", store.len());
        store.put(&key("large"), &none, Keep::Yes(vec![]), copy(&[b'x'; 1001], 0));
        assert!(store.get(&key("large"), &none, 0, Duration::from_secs(1)).is_none());
        assert_eq!(store.purge(&Pattern::Route("no such thing".into())), 0);
        let held = store.len();
        assert_eq!((store.purge(&Pattern::All), store.len(), store.bytes()), (held, 0, 0));
    }

    #[test]
    fn age_counts_what_it_came_with() {
        let mut c = copy(b"", 10_000);
        c.fields.push((Bytes::from_static(b"Age"), Bytes::from_static(b"7")));
        assert_eq!(c.age(12_500), 9);
    }
}
