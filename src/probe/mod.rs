//! Probes: every endpoint of every service with `health` is asked, again and again, each by a task of its own.
//!
//! ```text
//!          interval ±10 %                      ask: Pass, or why not
//!   sleep ───────────────▶ question ──patience──▶ Inbox ─▶ controller (fall, rise, verdicts)
//!     ▲         ▲ woken at once, when a pool of the service becomes suspect     │
//!     └─────────┴───────────────────────────────────────────────────────────────┘
//! ```
//!
//! **Hot.** While a service is changing (a pool is suspect or in trial, a table has no slots, or something changed in
//! the last [`HOT_FOR`]) all its endpoints are asked every [`HOT_EVERY`], and an answer is waited for only four
//! times as long as that endpoint usually needs (at least [`HOT_PATIENCE`]): whether the *other* regions live is what the next
//! decision rests on. All hot endpoints together are asked at most [`HOT_RATE`] times a second.
//!
//! **Cost.** A task that sleeps is a few hundred bytes and one entry of the timer wheel, so 10,000 endpoints are no
//! burden; a question is a connection, about 0.1 ms of CPU. There is at most one at a time per endpoint, so a slow one delays
//! nobody else. All of this runs on a thread of its own: no number of probes makes a control tick late.
//!
//! What it does not do: judge. One failed question means nothing here.

pub mod check;
#[cfg(test)]
mod tests;

use crate::clock;
use crate::live::{Inbox, Published};
use crate::model::dice::Dice;
use crate::model::id::*;
use crate::model::policy::HealthKind;
use crate::model::signal::{Probe, ProbeVerdict};
use crate::model::time::{Duration, Moment};
use crate::model::topology::{Protocol, Service, Table};
use crate::model::view::{Compiled, State, View};
use crate::upstream::tls::ClientTls;
use check::Question;
use std::cell::Cell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, spawn_local};

/// How often an endpoint of a hot service is asked.
pub const HOT_EVERY: Duration = Duration::from_millis(100);
/// The least that a hot endpoint's answer is waited for: a scheduling hiccup on either side is no verdict.
pub const HOT_PATIENCE: Duration = Duration::from_millis(150);
/// How long a service stays hot after something changed.
pub const HOT_FOR: Duration = Duration::from_secs(5);
/// Questions a second to all hot endpoints together.
pub const HOT_RATE: f64 = 2000.0;
/// First questions, and those that are woken, are spread over so much time.
const SPREAD: Duration = Duration::from_millis(20);

/// Keeps one task per endpoint, for whatever config is published. Runs until dropped, on a `LocalSet`.
pub async fn run(published: Arc<Published>, inbox: Inbox) {
    let mut changes = published.changes();
    let mut rounds = Rounds { inbox, dice: clock::dice(), generation: 0, posts: HashMap::new(), heat: Vec::new() };
    loop {
        changes.mark_unchanged();
        let picture = published.load_full();
        let now = clock::now();
        rounds.follow(&picture.view.config);
        let cools = rounds.heat(&picture.view, now);
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = clock::sleep_until(cools) => {}
        }
    }
}

/// An endpoint across configs.
type Name = (Arc<str>, Arc<str>, SocketAddr);

/// All tasks.
struct Rounds {
    inbox: Inbox,
    dice: Dice,
    generation: u64,
    posts: HashMap<Name, Stationed>,
    /// By service.
    heat: Vec<Heat>,
}

struct Stationed {
    post: Rc<Post>,
    task: AbortHandle,
    /// What it was stationed for: another service block means another task.
    service: Service,
}

impl Drop for Stationed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the supervisor tells a task.
struct Post {
    /// Its endpoint in the config of this generation.
    at: Cell<(u64, EndpointIx)>,
    /// Asked this often instead, while hot.
    hot: Cell<Option<Duration>>,
    wake: Notify,
}

#[derive(Clone, Default)]
struct Heat {
    states: Vec<(State, bool)>,
    until: Moment,
}

impl Rounds {
    /// One task for each endpoint of this config. Tasks whose question stays the same go on.
    fn follow(&mut self, config: &Compiled) {
        if config.generation == self.generation {
            return;
        }
        self.generation = config.generation;
        self.heat.clear();
        let t = &config.topology;
        let mut old = std::mem::take(&mut self.posts);
        for service in &t.services {
            let Some(health) = &service.health else { continue };
            let protocol = if health.kind == HealthKind::Grpc { Protocol::H2 } else { service.protocol };
            let tls = match service.tls.as_ref().map(|tls| ClientTls::build(tls, protocol)).transpose() {
                Ok(tls) => tls.map(Arc::new),
                Err(why) => {
                    tracing::error!("service {} is not probed, live traffic alone decides: {why}", service.name);
                    continue;
                }
            };
            for e in service.pools.iter().flat_map(|p| t.pools[p.at()].endpoints()) {
                let endpoint = &t.endpoints[e.at()];
                let name = (t.pools[endpoint.pool.at()].name.clone(), endpoint.name.clone(), endpoint.address);
                // With TLS the files may have changed though their names did not.
                let same = |s: &Stationed| tls.is_none() && s.service.health == service.health && s.service.protocol == service.protocol;
                let stationed = old.remove(&name).filter(same).unwrap_or_else(|| {
                    let post = Rc::new(Post { at: Cell::new((0, e)), hot: Cell::new(None), wake: Notify::new() });
                    let question = Question::new(health, service, tls.as_ref(), endpoint);
                    let task = stand(post.clone(), question, (health.interval, health.timeout), self.inbox.clone(), self.dice.split());
                    Stationed { post, task: spawn_local(task).abort_handle(), service: service.clone() }
                });
                stationed.post.at.set((config.generation, e));
                self.posts.insert(name, stationed);
            }
        }
    }

    /// Finds out which services are hot, and wakes those that became so. Tells when to look again by time alone.
    fn heat(&mut self, view: &View, now: Moment) -> Moment {
        let t = view.topology();
        self.heat.resize_with(t.services.len(), Heat::default);
        let mut hot = vec![false; t.services.len()];
        for (i, (service, heat)) in t.services.iter().zip(&mut self.heat).enumerate() {
            let pools = || service.pools.iter().map(|p| &view.pools[p.at()]);
            let states: Vec<_> = pools().map(|p| (p.state, p.suspect)).collect();
            if !heat.states.is_empty() && heat.states != states {
                heat.until = now + HOT_FOR;
            }
            heat.states = states;
            // Where operators drained all there is, nobody waits for an answer.
            let wanted =
                |table: &Table| service.pools.iter().any(|p| table.allowed.has(t.pools[p.at()].region) && !view.pools[p.at()].drained);
            let closed = t.tables.iter().zip(&view.tables).any(|(table, v)| table.service.at() == i && v.closed.is_some() && wanted(table));
            hot[i] = closed || heat.until > now || pools().any(|p| p.suspect || p.state == State::Trial);
        }
        let service_of = |e: EndpointIx| t.pools[t.endpoints[e.at()].pool.at()].service.at();
        let many = self.posts.values().filter(|s| hot[service_of(s.post.at.get().1)]).count();
        let every = HOT_EVERY.max(Duration::from_secs_f64(many as f64 / HOT_RATE));
        for s in self.posts.values() {
            let was = s.post.hot.replace(hot[service_of(s.post.at.get().1)].then_some(every));
            if was.is_none() && s.post.hot.get().is_some() {
                s.post.wake.notify_one();
            }
        }
        self.heat.iter().map(|h| h.until).filter(|u| *u > now).min().unwrap_or(Moment::FAR)
    }
}

/// The rounds of one endpoint.
async fn stand(post: Rc<Post>, question: Question, (interval, timeout): (Duration, Duration), inbox: Inbox, mut dice: Dice) {
    let mut usual = Duration::ZERO;
    let mut next = clock::now() + dice.between(Duration::ZERO, SPREAD.min(interval));
    loop {
        tokio::select! {
            () = clock::sleep_until(next) => {}
            () = post.wake.notified() => {
                next = next.min(clock::now() + dice.between(Duration::ZERO, SPREAD));
                continue;
            }
        }
        let began = clock::now();
        let verdict = patiently(&post, &question, began, timeout, usual).await;
        let took = clock::now().since(began);
        if verdict.passed() {
            usual = if usual.is_zero() { took } else { (usual * 3 + took) / 4 };
        }
        let (generation, endpoint) = post.at.get();
        inbox.probe(Probe { generation, endpoint, verdict, took });
        let every = post.hot.get().map_or(interval, |hot| hot.min(interval));
        next = began + dice.between(every.mul_f64(0.9), every.mul_f64(1.1));
    }
}

/// Asks, and gives up in time: what is usual for the endpoint shortens the wait as soon as its service is hot.
async fn patiently(post: &Post, question: &Question, began: Moment, timeout: Duration, usual: Duration) -> ProbeVerdict {
    let mut answer = std::pin::pin!(question.ask());
    let mut until = began + timeout;
    let hurry = if usual.is_zero() { timeout } else { (usual * 4).max(HOT_PATIENCE).min(timeout) };
    if post.hot.get().is_some() {
        until = began + hurry;
    }
    loop {
        tokio::select! {
            biased;
            verdict = &mut answer => return verdict,
            () = clock::sleep_until(until) => return ProbeVerdict::Timeout,
            // From now, not from the beginning: what was asked before the fault deserves no less than what is asked after it.
            () = post.wake.notified() => until = until.min(clock::now() + hurry),
        }
    }
}
