//! What requests came to over time: once a second the cells are looked at, and what is worth keeping is kept.
//!
//! | room | what it does |
//! |---|---|
//! | [`count`] | reads the cells: counts that only grow, by route and pool |
//! | [`episode`] | pure: which of them go on record, so that an incident knows whom it hurt |
//! | [`places`] | how every region and fate is at this second |
//! | [`store`] | the book of objectives and outages on disk |
//!
//! **Rates** by route over the last ten seconds are what `plan` reckons with. **The book** ([`report::slo`](crate::report::slo)) is kept for ninety
//! days and survives a restart, but for its last minute at most.
//!
//! It reads what requests count anyway, on a thread that answers no requests, and is never waited for.

pub mod count;
pub mod episode;
pub mod places;
pub mod store;

use crate::clock;
use crate::live::{Inbox, Picture, Published};
use crate::model::event::{Actor, Event, EventKind};
use crate::model::id::RouteIx;
use crate::model::signal::Hist;
use crate::model::time::{Duration, Moment};
use crate::model::view::State;
use crate::report::slo::{Book, Entry, Objective, Report, Tally};
use crate::report::when::At;
use count::Sample;
use episode::Episode;
use parking_lot::Mutex;
use places::Places;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tokio::sync::broadcast::{Receiver, error::TryRecvError};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Looks that are kept: rates are taken over them, and an incident begins to count so long before it was seen.
const KEPT: usize = 12;
/// Looks between two times that the book goes to disk.
const WRITE: u64 = 60;

/// A handle to what is known. Cheap to clone.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    samples: VecDeque<Sample>,
    slow: BTreeMap<String, u64>,
    book: Book,
}

impl Ledger {
    /// Requests per second by route, over the last ten seconds (or since the start).
    pub fn rates(&self) -> BTreeMap<String, f64> {
        let known = self.0.lock();
        let (Some(first), Some(last)) = (known.samples.front(), known.samples.back()) else { return BTreeMap::new() };
        let over = last.at.since(first.at).as_secs_f64().max(EVERY.as_secs_f64());
        let before = |name: &str| first.arrived.iter().find(|(r, _)| r == name).map_or(0, |(_, n)| *n);
        last.arrived.iter().map(|(name, n)| (name.clone(), n.saturating_sub(before(name)) as f64 / over)).collect()
    }

    /// Objectives and outages over the last stretch of time.
    pub fn report(&self, objectives: &[(String, Objective)], now: At, span: Duration) -> Report {
        self.0.lock().book.report(objectives, now, span)
    }

    /// The book to the disk. Waits for it.
    pub fn write(&self, dir: &std::path::Path) {
        let book = self.0.lock().book.clone();
        if let Err(e) = store::write(dir, &book) {
            tracing::error!("cannot write slo.json in {}: {e}; check edge.state_dir and the disk", dir.display());
        }
    }

    fn keep(&self, sample: Sample) {
        let mut known = self.0.lock();
        known.samples.push_back(sample);
        if known.samples.len() > KEPT {
            known.samples.pop_front();
        }
    }

    /// Enters the newest look in the book.
    fn enter(&self, picture: &Picture, places: &mut Places) {
        let known = &mut *self.0.lock();
        let Some(last) = known.samples.back() else { return };
        let before = known.samples.iter().rev().nth(1);
        let slow = slow(picture);
        let mut entry = Entry { seconds: before.map_or(0.0, |b| last.at.since(b.at).as_secs_f64()), ..Entry::default() };
        for count in &last.counts.routes {
            let was = before.and_then(|b| b.counts.routes.iter().find(|r| r.route == count.route));
            let Some(was) = was else { continue };
            let fresh = count.since(was);
            let (now, then) = (slow.get(&count.route).copied().unwrap_or(0), known.slow.get(&count.route).copied());
            let total = fresh.requests();
            let bad = total - fresh.ok - fresh.client_error;
            entry
                .routes
                .push((count.route.clone(), Tally { total, bad, slow: then.map_or(0, |then| now.saturating_sub(then)).min(total) }));
        }
        entry.routes.retain(|(_, t)| t.total > 0);
        [entry.regions, entry.fates] = places.look(picture);
        known.slow = slow;
        known.book.enter(At(clock::wall(last.at).as_microsecond()), &entry);
    }
}

/// Requests so far that were slower than their route's objective.
fn slow(picture: &Picture) -> BTreeMap<String, u64> {
    let t = picture.view.topology();
    let one = |(i, route): (usize, &crate::model::policy::Route)| {
        let (limit, _) = route.slo?.latency?;
        let over = Hist::bucket(limit.as_micros() as u64);
        let counts = picture.cells.route(RouteIx::from(i)).times.counts();
        Some((route.name.to_string(), counts[over + 1..].iter().sum()))
    };
    t.routes.iter().enumerate().filter_map(one).collect()
}

/// Looks once a second until it is dropped. Events count from the call on, not from the first poll.
pub fn run(ledger: Ledger, inbox: Inbox, published: Arc<Published>) -> impl Future<Output = ()> + Send {
    let events = inbox.events();
    look(ledger, inbox, published, events)
}

async fn look(ledger: Ledger, inbox: Inbox, published: Arc<Published>, mut events: Receiver<Arc<Event>>) {
    let (mut episode, mut places) = (Episode::default(), Places::default());
    let dir = published.load().view.topology().edge.state_dir.clone();
    let at = dir.clone();
    if let Ok(book) = tokio::task::spawn_blocking(move || store::read(&at)).await {
        ledger.0.lock().book = book;
    }
    for n in 1u64.. {
        let now = clock::now();
        loop {
            match events.try_recv() {
                Ok(event) => places.follow(&event),
                Err(TryRecvError::Lagged(_)) => {}
                Err(_) => break,
            }
        }
        let picture = published.load_full();
        ledger.keep(count::look(&picture, now));
        ledger.enter(&picture, &mut places);
        let trouble = picture.view.edge_suspect || picture.view.pools.iter().any(|p| p.state != State::Serving);
        let told: Vec<(Moment, _)> = episode.step(now, trouble, &ledger.0.lock().samples);
        drop(picture);
        for (at, counts) in told {
            inbox.note(at, Actor::Evenkeel, EventKind::Counts(counts));
        }
        if n.is_multiple_of(WRITE) {
            let (ledger, dir) = (ledger.clone(), dir.clone());
            tokio::task::spawn_blocking(move || ledger.write(&dir));
        }
        clock::sleep_until(now + EVERY).await;
    }
}
