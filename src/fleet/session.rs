//! One session: connected, not connected, and connected again, with the same servers under the same name.
//!
//! The way in: connection up → (a random moment later) open the bucket and watch it from the last value of every key → when the
//! present is reached, *settle*: orders that the bucket has lost are put back, orders given here meanwhile are told, if what
//! they stand on still stands.

use super::link::{self, Heard};
use super::memory::{Entry, Memory};
use super::order::{About, Standing};
use super::task::{House, differs};
use super::{Ask, Given, PATIENCE, Stats};
use crate::clock;
use crate::model::dice::Dice;
use crate::model::event::{Actor, EventKind};
use crate::model::fleet::{News, Report};
use crate::model::signal::{Command, Refused};
use crate::model::time::{Duration, Moment};
use crate::model::topology::Fleet;
use crate::model::view::Compiled;
use async_nats::jetstream::kv::{self, Operation, UpdateErrorKind};
use async_nats::jetstream::stream;
use async_nats::{Client, Subscriber, jetstream};
use futures_util::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

/// Changes of our view within this time go out as one.
const TOGETHER: Duration = Duration::from_millis(30);
/// After the connection is up, the bucket is opened within this time: not by all edges at once.
const SPREAD: Duration = Duration::from_millis(300);
/// What could not be opened is tried again after this (and up to twice as long).
const AGAIN: Duration = Duration::from_secs(1);
/// Revisions of an order that are kept, for whoever looks into the bucket.
const HISTORY: i64 = 16;
/// A longer message is none of ours.
const LONGEST: usize = 1 << 20;

pub(super) struct Session {
    config: Arc<Compiled>,
    dice: Dice,
    memory: Memory,
    kept: Memory,
    /// Revisions followed in this session.
    followed: BTreeMap<String, u64>,
    /// Orders about what the config does not have.
    unknown: BTreeSet<String>,
    client: Option<Client>,
    up: bool,
    bucket: Option<Bucket>,
    /// When the bucket is (tried to be) opened.
    open_at: Moment,
    speak_at: Moment,
    edges: Arc<AtomicU32>,
    trouble: Option<String>,
    /// Which life of this edge.
    life: u64,
    leaving: bool,
    /// Keys that the bucket has, as far as it was read.
    seen: BTreeSet<String>,
}

struct Bucket {
    store: kv::Store,
    watch: kv::Watch,
    /// The present was reached.
    settled: bool,
}

impl Session {
    pub fn new(config: Arc<Compiled>, memory: Memory) -> Self {
        let edges = Arc::new(AtomicU32::new(memory.edges));
        Self {
            config,
            dice: clock::dice(),
            kept: memory.clone(),
            memory,
            followed: BTreeMap::new(),
            unknown: BTreeSet::new(),
            client: None,
            up: false,
            bucket: None,
            open_at: Moment::FAR,
            speak_at: Moment::FAR,
            edges,
            trouble: None,
            life: 0,
            leaving: false,
            seen: BTreeSet::new(),
        }
    }

    fn fleet(&self) -> &Fleet {
        self.config.topology.fleet.as_ref().expect("a session has a fleet")
    }
    fn subject(&self, what: &str) -> String {
        format!("fleet.{}.{what}", self.fleet().name)
    }
    fn servers(&self) -> String {
        self.fleet().servers.join(", ")
    }

    /// Runs until the config wants another session (false), or the process leaves (true).
    pub async fn run(&mut self, house: &mut House) -> bool {
        self.life = house.incarnation;
        house.inbox.news(News::Remembered(self.memory.edges));
        let (client, mut heard, mut views) = loop {
            match self.connect().await {
                Ok(all) => break all,
                Err(why) => {
                    self.tell_down(house, why);
                    if self.wait_for_better(house).await {
                        return self.leaving || house.asked.is_closed();
                    }
                }
            }
        };
        self.client = Some(client);
        let left = loop {
            self.show(house);
            let next_entry = async {
                match &mut self.bucket {
                    Some(b) => b.watch.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(heard) = heard.recv() => self.hear(house, heard),
                entry = next_entry => self.entry(house, entry).await,
                Some(message) = views.next() => self.view(house, message),
                ask = house.asked.recv() => match ask {
                    Some(ask) => self.give(house, ask).await,
                    None => break true,
                },
                event = house.events.recv() => match event {
                    Ok(event) => match &event.kind {
                        EventKind::ConfigApplied { .. } => {
                            let config = house.config();
                            if differs(&self.config.topology, &config.topology) {
                                break false;
                            }
                            self.config = config;
                            self.unknown.clear();
                            self.follow_all(house).await;
                        }
                        EventKind::Stopping => {
                            self.farewell().await;
                            break true;
                        }
                        EventKind::Pool { .. } | EventKind::Suspect { .. } | EventKind::Region { .. } | EventKind::EdgeSuspect { .. } => {
                            self.speak_at = self.speak_at.min(clock::now() + TOGETHER);
                        }
                        _ => {}
                    },
                    Err(RecvError::Lagged(_)) => self.speak_at = clock::now(),
                    Err(RecvError::Closed) => break true,
                },
                () = clock::sleep_until(self.open_at) => self.open(house).await,
                () = clock::sleep_until(self.speak_at) => self.speak(house).await,
            }
            self.keep().await;
        };
        house.inbox.news(News::Link { up: false, why: if left { "leaving".into() } else { "the config changed".into() } });
        if let Some(client) = self.client.take() {
            let _ = timeout(PATIENCE, client.drain()).await;
        }
        left
    }

    async fn connect(&self) -> Result<(Client, UnboundedReceiver<Heard>, Subscriber), String> {
        let (client, heard) = link::open(self.fleet(), &self.config.topology.edge.name, self.edges.clone()).await?;
        let views = client.subscribe(self.subject("*")).await.map_err(|e| e.to_string())?;
        Ok((client, heard, views))
    }

    /// A config that cannot even be tried (credentials that cannot be read): true when another one is there.
    async fn wait_for_better(&mut self, house: &mut House) -> bool {
        let until = clock::now() + AGAIN * 5;
        loop {
            tokio::select! {
                () = clock::sleep_until(until) => return false,
                ask = house.asked.recv() => match ask {
                    Some(ask) => self.give(house, ask).await,
                    None => return true,
                },
                event = house.events.recv() => match event {
                    Ok(e) if matches!(e.kind, EventKind::ConfigApplied { .. }) => return true,
                    Ok(e) if matches!(e.kind, EventKind::Stopping) => {
                        self.leaving = true;
                        return true;
                    }
                    Err(RecvError::Closed) => return true,
                    _ => {}
                },
            }
            self.keep().await;
        }
    }

    fn hear(&mut self, house: &House, heard: Heard) {
        match heard {
            Heard::Up => {
                Stats::count(&house.board.stats.connects);
                (self.up, self.trouble) = (true, None);
                let now = clock::now();
                self.bucket = None;
                self.open_at = now + self.dice.between(Duration::ZERO, SPREAD);
                self.speak_at = now;
                house.inbox.news(News::Link { up: true, why: self.servers() });
            }
            Heard::Down => {
                let why = self.trouble.clone().unwrap_or_else(|| format!("no connection to {}", self.servers()));
                self.tell_down(house, why);
            }
            Heard::Trouble(what) => {
                tracing::debug!("NATS: {what}");
                self.trouble = Some(what.clone());
                if !self.up {
                    house.inbox.news(News::Link { up: false, why: what });
                }
            }
        }
    }

    fn tell_down(&mut self, house: &House, why: String) {
        (self.up, self.bucket) = (false, None);
        (self.open_at, self.speak_at) = (Moment::FAR, Moment::FAR);
        house.inbox.news(News::Link { up: false, why });
    }

    /// Opens the bucket and watches it from the present values on.
    async fn open(&mut self, house: &House) {
        self.open_at = Moment::FAR;
        match timeout(PATIENCE, self.bucket()).await.unwrap_or_else(|_| Err("JetStream does not answer".into())) {
            Ok(bucket) => {
                self.trouble = None;
                let empty = bucket.settled;
                self.seen.clear();
                self.bucket = Some(bucket);
                if empty {
                    self.settle(house).await;
                }
            }
            Err(why) => {
                if self.trouble.as_ref() != Some(&why) {
                    tracing::warn!("fleet: orders are not shared for the moment: {why}");
                }
                self.trouble = Some(why);
                self.open_at = clock::now() + self.dice.between(AGAIN, AGAIN * 2);
            }
        }
    }

    async fn bucket(&self) -> Result<Bucket, String> {
        let client = self.client.clone().ok_or("no connection")?;
        let mut js = jetstream::new(client);
        js.set_timeout(PATIENCE);
        let f = self.fleet();
        let name = format!("{}_orders", f.name);
        let store = match js.get_key_value(&name).await {
            Ok(store) => store,
            Err(_) => {
                // The stream below a bucket, as every client lays it out. `create_key_value` asks for the account's limits first, in a
                // shape that servers before 2.10 do not answer in.
                let config = stream::Config {
                    name: format!("KV_{name}"),
                    description: Some("Standing orders of a fleet of Evenkeel edges".into()),
                    subjects: vec![format!("$KV.{name}.>")],
                    max_messages_per_subject: HISTORY,
                    storage: stream::StorageType::File,
                    num_replicas: f.replicas as usize,
                    discard: stream::DiscardPolicy::New,
                    duplicate_window: Duration::from_secs(120),
                    allow_rollup: true,
                    deny_delete: true,
                    allow_direct: true,
                    ..stream::Config::default()
                };
                js.create_stream(config).await.map_err(|e| format!("bucket {name}: {e}"))?;
                js.get_key_value(&name).await.map_err(|e| format!("bucket {name}: {e}"))?
            }
        };
        let watch = store.watch_with_history(">").await.map_err(|e| format!("bucket {name}: {e}"))?;
        let values = store.status().await.map_err(|e| format!("bucket {name}: {e}"))?.values();
        Ok(Bucket { store, watch, settled: values == 0 })
    }

    /// A value of the bucket, old or new.
    async fn entry(&mut self, house: &House, entry: Option<Result<kv::Entry, kv::WatcherError>>) {
        let entry = match entry {
            Some(Ok(entry)) => entry,
            other => {
                let why = other.map_or("the watch ended".into(), |e| e.map_or_else(|e| e.to_string(), |_| String::new()));
                tracing::debug!("fleet: {why}; the bucket is opened again");
                self.bucket = None;
                self.open_at = clock::now() + self.dice.between(Duration::ZERO, SPREAD);
                return;
            }
        };
        let present = entry.seen_current;
        self.seen.insert(entry.key.clone());
        match (About::from_key(&entry.key), entry.operation, serde_json::from_slice::<Standing>(&entry.value)) {
            (Some(about), Operation::Put, Ok(standing)) => {
                if self.memory.pending.get(&entry.key).is_some_and(|p| p.standing == standing) {
                    // Ours, taken after all.
                    self.memory.pending.remove(&entry.key);
                    self.followed.insert(entry.key.clone(), entry.revision);
                }
                let known = Entry { standing, revision: entry.revision };
                self.memory.orders.insert(entry.key.clone(), known);
                self.follow(house, &about).await;
            }
            // Deleted by hand: as good as never given.
            (Some(_), Operation::Delete | Operation::Purge, _) => drop(self.memory.orders.remove(&entry.key)),
            _ => {
                Stats::count(&house.board.stats.garbled);
                tracing::warn!("fleet: the bucket holds a value under `{}` that is no order", entry.key);
            }
        }
        if present && self.bucket.as_ref().is_some_and(|b| !b.settled) {
            self.settle(house).await;
        }
    }

    /// The present is reached: what the bucket lost goes back, and what was given here meanwhile is told.
    async fn settle(&mut self, house: &House) {
        if let Some(b) = &mut self.bucket {
            b.settled = true;
        }
        for (key, entry) in std::mem::take(&mut self.memory.pending) {
            let Some(about) = About::from_key(&key) else { continue };
            let stands = self.memory.orders.get(&key).map_or(0, |e| e.revision);
            let lifted = |e: &Entry| e.standing.at < entry.standing.at && !e.standing.on;
            let fresh = stands == entry.revision || self.memory.orders.get(&key).is_none_or(lifted);
            let told = if fresh { self.put(&key, &entry.standing, stands).await } else { Put::First };
            match told {
                Put::Done(revision) => {
                    self.seen.insert(key.clone());
                    self.followed.insert(key.clone(), revision);
                    self.memory.orders.insert(key, Entry { revision, ..entry });
                }
                Put::First => {
                    let theirs = self.memory.orders.get(&key).map(|e| e.standing.words()).unwrap_or_default();
                    tracing::warn!("fleet: {} given here while NATS was away gives way to the one {theirs}", about.words());
                    self.followed.remove(&key);
                    self.follow(house, &about).await;
                }
                Put::Failed(_) => drop(self.memory.pending.insert(key, entry)),
            }
        }
        let now = clock::wall_now();
        let lost: Vec<String> = self.memory.orders.keys().filter(|k| !self.seen.contains(*k)).cloned().collect();
        for key in lost {
            let Some(entry) = self.memory.orders.get(&key).cloned() else { continue };
            if entry.standing.holds(now) {
                tracing::warn!("fleet: the bucket has lost the order {key} {}: it is put back", entry.standing.words());
                if let Put::Done(revision) = self.put(&key, &entry.standing, 0).await {
                    self.followed.insert(key.clone(), revision);
                    self.memory.orders.insert(key, Entry { revision, ..entry });
                }
            }
        }
    }

    /// Follows an order, if this edge has yet to.
    async fn follow(&mut self, house: &House, about: &About) {
        let key = about.key();
        let Some(entry) = self.memory.orders.get(&key).cloned() else { return };
        if self.followed.get(&key) == Some(&entry.revision) || self.memory.pending.contains_key(&key) {
            return;
        }
        let now = clock::wall_now();
        let Some(status) = house.inbox.status().await else { return };
        self.followed.insert(key.clone(), entry.revision);
        if !entry.standing.is_due(about, &status, now) {
            return;
        }
        let config = house.config();
        let order = match entry.standing.order(about, &config.topology, now) {
            Ok(Some(order)) => order,
            Ok(None) => return,
            Err(what) => {
                if entry.standing.holds(now) {
                    tracing::warn!(
                        "fleet: the order {} {} names what this edge's config does not have: {what}",
                        about.words(),
                        entry.standing.words()
                    );
                }
                self.unknown.insert(key);
                return;
            }
        };
        Stats::count(&house.board.stats.followed);
        let by = Actor::Fleet(format!("{} through {}", entry.standing.by, entry.standing.edge));
        match house.inbox.command(Command { by, order }).await {
            Ok(_) | Err(Refused::Conflict(_) | Refused::Leaving) => {}
            Err(Refused::Unknown(what)) => tracing::warn!("fleet: {} cannot be followed: {what}", about.words()),
        }
    }

    /// After a reload: orders about what the config did not have.
    async fn follow_all(&mut self, house: &House) {
        self.followed.clear();
        let all: Vec<About> = self.memory.orders.keys().filter_map(|k| About::from_key(k)).collect();
        for about in all {
            self.follow(house, &about).await;
        }
    }

    /// An operator's order: to the fleet first.
    async fn give(&mut self, house: &House, ask: Ask) {
        let Ask { about, standing, terms, reply } = ask;
        let key = about.key();
        let now = clock::wall_now();
        let stands = self.memory.of(&about).cloned().unwrap_or_default();
        // Without tokens everybody is `local`: then only the edge tells operators apart.
        let same = stands.standing.by == standing.by && (stands.standing.edge == standing.edge || !standing.by.ends_with(" local"));
        let others = stands.standing.holds(now) && standing.on && !same;
        let unseen = terms.revision.is_some_and(|seen| seen != stands.revision);
        if unseen || others && !terms.force && terms.revision.is_none() {
            Stats::count(&house.board.stats.refused);
            let _ = reply.send(Given::Refused(stands.standing.words(), stands.revision));
            return;
        }
        if !standing.on && !stands.standing.on {
            let _ = reply.send(Given::Everywhere(stands.revision));
            return;
        }
        let put = if self.bucket.as_ref().is_some_and(|b| b.settled) {
            self.put(&key, &standing, self.memory.orders.get(&key).map_or(0, |e| e.revision)).await
        } else {
            Put::Failed(self.trouble.clone().unwrap_or_else(|| "NATS is away".into()))
        };
        let given = match put {
            Put::Done(revision) => {
                self.memory.pending.remove(&key);
                self.followed.insert(key.clone(), revision);
                self.memory.orders.insert(key, Entry { standing, revision });
                Given::Everywhere(revision)
            }
            Put::First => {
                Stats::count(&house.board.stats.refused);
                let first = self.look(&key).await;
                Given::Refused(first.standing.words(), first.revision)
            }
            Put::Failed(why) => {
                let revision = self.memory.orders.get(&key).map_or(0, |e| e.revision);
                self.memory.pending.insert(key, Entry { standing, revision });
                if self.bucket.take().is_some() {
                    // Whether it was taken or not, what stands is read anew.
                    self.open_at = clock::now() + self.dice.between(Duration::ZERO, SPREAD);
                }
                Given::Here(why)
            }
        };
        let _ = reply.send(given);
    }

    async fn look(&self, key: &str) -> Entry {
        let known = || self.memory.orders.get(key).cloned().unwrap_or_default();
        let Some(b) = &self.bucket else { return known() };
        match timeout(PATIENCE, b.store.entry(key)).await {
            Ok(Ok(Some(e))) => Entry { standing: serde_json::from_slice(&e.value).unwrap_or_default(), revision: e.revision },
            _ => known(),
        }
    }

    async fn put(&self, key: &str, standing: &Standing, revision: u64) -> Put {
        let Some(b) = &self.bucket else { return Put::Failed("NATS is away".into()) };
        let value = serde_json::to_vec(standing).expect("an order is plain data");
        match timeout(PATIENCE, b.store.update(key, value.into(), revision)).await {
            Ok(Ok(revision)) => Put::Done(revision),
            Ok(Err(e)) if e.kind() == UpdateErrorKind::WrongLastRevision => Put::First,
            Ok(Err(e)) => Put::Failed(e.to_string()),
            Err(_) => Put::Failed("NATS does not answer".into()),
        }
    }

    fn view(&mut self, house: &House, message: async_nats::Message) {
        let what = message.subject.rsplit('.').next().unwrap_or_default();
        let report = if message.payload.len() <= LONGEST { serde_json::from_slice::<Report>(&message.payload).ok() } else { None };
        match (what, report) {
            ("view", Some(report)) if !report.edge.is_empty() => {
                Stats::count(&house.board.stats.heard);
                house.inbox.news(News::View(report));
            }
            ("left", Some(report)) => house.inbox.news(News::Left { edge: report.edge, incarnation: report.incarnation }),
            _ => Stats::count(&house.board.stats.garbled),
        }
    }

    /// Tells the others what we see.
    async fn speak(&mut self, house: &House) {
        let often = self.fleet().lease / 5;
        self.speak_at = clock::now() + self.dice.between(often.mul_f64(0.8), often);
        let Some(report) = house.inbox.report(house.incarnation).await else { return };
        self.send("view", &report, house).await;
        // The fleet's size, for the next time without NATS.
        if let Some(f) = house.inbox.status().await.and_then(|s| s.fleet) {
            self.edges.store(f.live, Relaxed);
            (house.sized)(f.sharing);
            if f.quorum {
                self.memory.edges = f.sharing;
            }
        }
    }

    async fn send(&self, what: &str, report: &Report, house: &House) {
        let Some(client) = self.client.as_ref().filter(|_| self.up) else { return };
        let text = serde_json::to_vec(report).expect("a report is plain data");
        if let Ok(Ok(())) = timeout(PATIENCE, client.publish(self.subject(what), text.into())).await {
            Stats::count(&house.board.stats.sent);
        }
    }

    /// Says that this edge leaves for good: nobody need wait for its lease to end.
    async fn farewell(&mut self) {
        let Some(client) = self.client.as_ref().filter(|_| self.up) else { return };
        let edge = self.config.topology.edge.name.clone();
        // With the number of this life, so that a successor of the same name is not meant.
        let report = Report { edge, incarnation: self.life, ..Report::default() };
        let text = serde_json::to_vec(&report).expect("a report is plain data");
        let _ = timeout(PATIENCE, client.publish(self.subject("left"), text.into())).await;
        let _ = timeout(PATIENCE, client.flush()).await;
    }

    /// What status shows.
    fn show(&self, house: &House) {
        let all = self.memory.orders.iter().chain(&self.memory.pending);
        let orders = all.filter_map(|(key, e)| {
            let pending = self.memory.pending.get(key).is_some_and(|p| p == e);
            let revision = if pending { 0 } else { e.revision };
            Some(e.standing.status(&About::from_key(key)?, revision))
        });
        *house.board.orders.lock() = orders.collect();
        let mut notes = Vec::new();
        if let Some(why) = self.trouble.as_ref().filter(|_| self.up && self.bucket.is_none()) {
            notes.push(format!("orders are not shared for the moment: {why}"));
        }
        for key in self.memory.pending.keys().filter_map(|k| About::from_key(k)) {
            notes.push(format!("{} was given here while NATS was away, and holds here until the fleet can be told", key.words()));
        }
        for key in self.unknown.iter().filter_map(|k| About::from_key(k)) {
            notes.push(format!("{} is ordered, but this edge's config has no such thing", key.words()));
        }
        *house.board.notes.lock() = notes;
    }

    async fn keep(&mut self) {
        if self.memory != self.kept {
            self.kept = self.memory.clone();
            self.memory.keep(self.config.topology.edge.state_dir.clone()).await;
        }
    }
}

/// What became of a write.
enum Put {
    /// Taken, under this revision.
    Done(u64),
    /// The key is at another revision.
    First,
    /// Not taken, as far as we know.
    Failed(String),
}
