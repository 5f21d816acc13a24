//! The one task that owns the [`Controller`]: what is heard goes in, pictures, allowances and events come out.
//!
//! ```text
//! every 10 ms   pools' tallies ─┐                       ┌─▶ Published (picture, when it changed)
//! every 100 ms  all tallies ────┼─▶ Controller.handle ──┼─▶ cells (tokens, endpoints out and back)
//! any time      Inbox ──────────┘                       └─▶ events ─▶ journal, log, event stream
//! ```
//!
//! Why two rates: silence is judged in steps of 10 ms (`suspect_floor` is 30 ms); shares, limits and endpoints
//! need counts to look at, and 100 ms of them. A fast tick in which nothing moved is not told, and while nothing is in
//! flight at all there are none: an idle proxy costs each thread ten wake-ups a second.
//!
//! **Lateness.** A tick tells how late it came itself, or how late the slowest worker's heartbeat is, whichever
//! is more: while we did not run, silence proves nothing about backends.
//!
//! It never waits for anybody: the journal, the event stream and the disk ([`store`]) read behind it, and may miss.
//! What it does not do: judge (that is `sense`), or know requests (that is `steer`).

mod overrides;
pub mod store;
#[cfg(test)]
mod tests;

use crate::clock;
use crate::live::{Beats, Cells, Inbox, Message, Picture, Published, Sampler};
use crate::model::dice::Dice;
use crate::model::event::{Actor, EventKind};
use crate::model::id::*;
use crate::model::signal::{Command, PoolTally, ProbeVerdict, Signal, Tallies};
use crate::model::time::{Duration, Moment};
use crate::model::view::Compiled;
use crate::sense::{Controller, EndpointOrder};
use overrides::Overrides;
use std::sync::Arc;
use store::Store;
use tokio::sync::mpsc::UnboundedReceiver;

/// Between two looks at the pools.
pub const FAST: Duration = Duration::from_millis(10);
/// Every so many fast ticks everything is looked at.
const FULL: u64 = 10;
/// Lateness that any machine has: the timer's own millisecond, and as much for being scheduled.
const JITTER: Duration = Duration::from_millis(2);

/// The control task's state.
pub struct Control {
    controller: Controller,
    config: Arc<Compiled>,
    cells: Arc<Cells>,
    sampler: Sampler,
    published: Arc<Published>,
    inbox: Inbox,
    beats: Arc<Beats>,
    store: Store,
    overrides: Overrides,
    applied_at: Moment,
    last_error: Option<String>,
    ticks: u64,
    /// The last fast tick had something to tell: the next one is told too, so that an end is seen as soon as a beginning.
    stirred: bool,
}

impl Control {
    /// Begins with a config, with everything serving, and with the overrides that were in force when the
    /// process was last there. The first picture is published when this returns.
    pub fn new(config: Arc<Compiled>, inbox: Inbox, beats: Arc<Beats>, store: Store, dice: Dice) -> Self {
        let now = clock::now();
        let mut controller = Controller::new(config.clone(), now, dice);
        let cells = Arc::new(Cells::build(&config.topology, None));
        let overrides = Overrides::default();
        let view = controller.view().unwrap_or_else(|| controller.picture());
        let published = Arc::new(Published::new(Arc::new(Picture { view, cells: cells.clone() })));
        let sampler = Sampler::new(&cells);
        let mut control = Self {
            controller,
            config,
            cells,
            sampler,
            published,
            inbox,
            beats,
            store,
            overrides,
            applied_at: now,
            last_error: None,
            ticks: 0,
            stirred: false,
        };
        control.restore(now);
        // The first requests may need a retry, and come before the first tick.
        control.grant();
        control
    }

    /// Where pictures appear.
    pub fn published(&self) -> Arc<Published> {
        self.published.clone()
    }

    /// Runs until every [`Inbox`] is gone, or the task is dropped.
    pub async fn run(mut self, mut from: UnboundedReceiver<Message>) {
        self.store.last_good(&self.config.source);
        let version = env!("CARGO_PKG_VERSION").into();
        self.controller.record(clock::now(), Actor::Evenkeel, EventKind::Started { version });
        let mut due = clock::now() + FAST;
        loop {
            tokio::select! {
                biased;
                () = clock::sleep_until(due) => {
                    let now = clock::now();
                    self.tick(now, now.since(due));
                    due = (due + self.pause()).max(now);
                }
                message = from.recv() => match message {
                    Some(message) => self.take(clock::now(), message),
                    None => return,
                }
            }
        }
    }

    fn tick(&mut self, now: Moment, own_late: Duration) {
        let late = self.late(now, own_late);
        self.ticks += 1;
        let full = self.ticks.is_multiple_of(FULL);
        let tallies = self.cells.sample(&mut self.sampler, now, full, late);
        let stirs = stirs(&tallies);
        if !(full || stirs || self.stirred) {
            return;
        }
        self.stirred = stirs;
        let _ = self.controller.handle(now, Signal::Tick(tallies));
        self.grant();
        self.publish();
    }

    /// Until the next tick: the next full one, while nothing is in flight.
    fn pause(&mut self) -> Duration {
        let idle = !self.stirred && self.ticks.is_multiple_of(FULL);
        self.beats.rest(idle);
        if idle {
            self.ticks += FULL - 1;
            return FAST * FULL as u32;
        }
        FAST
    }

    /// How long we were not there to hear anything.
    fn late(&self, now: Moment, own: Duration) -> Duration {
        own.max(self.beats.late(now)).saturating_sub(JITTER)
    }

    fn take(&mut self, now: Moment, message: Message) {
        match message {
            Message::Probe(probe) => {
                if probe.generation == self.config.generation && probe.verdict == ProbeVerdict::Pass {
                    let pool = self.config.topology.endpoints[probe.endpoint.at()].pool;
                    self.cells.pool(pool).reached(probe.took);
                }
                let _ = self.controller.handle(now, Signal::Probe(probe));
            }
            Message::Command(command, reply) => {
                let answer = self.controller.handle(now, Signal::Command(command));
                self.publish();
                let _ = reply.send(answer);
                return;
            }
            Message::Reload(config, by, reply) => {
                let answer = self.reload(now, config, by);
                let _ = reply.send(answer);
                return;
            }
            Message::Rejected(by, problems) => {
                self.last_error = Some(problems.join("\n"));
                self.controller.record(now, by, EventKind::ConfigRejected { problems });
            }
            Message::Fleet(news) => {
                let _ = self.controller.handle(now, Signal::Fleet(news));
            }
            Message::Report(incarnation, reply) => {
                let _ = reply.send(self.controller.report(now, incarnation));
                return;
            }
            Message::Note(at, by, kind) => self.controller.record(at, by, kind),
            Message::Status(reply) => {
                let mut status = self.controller.status(now);
                status.config.path = self.config.source.path.display().to_string();
                status.config.loaded_at = Some(self.applied_at.into());
                status.config.last_error.clone_from(&self.last_error);
                let _ = reply.send(status);
            }
            Message::Leaving(reply) => {
                self.controller.record(now, Actor::Evenkeel, EventKind::Stopping);
                self.publish();
                self.store.overrides(&self.overrides);
                self.store.when_written(reply);
                return;
            }
        }
        self.publish();
    }

    /// Goes over to another config as one step: requests see the old picture with the old cells, or the new with the new.
    fn reload(&mut self, now: Moment, config: Arc<Compiled>, by: Actor) -> crate::live::ReloadReply {
        let changes = self.controller.handle(now, Signal::Reload(config.clone(), by))?;
        let cells = Arc::new(Cells::build(&config.topology, Some((&self.config.topology, &self.cells))));
        self.sampler.follow(&self.cells, &cells);
        (self.config, self.cells) = (config, cells);
        (self.applied_at, self.last_error) = (now, None);
        self.store.last_good(&self.config.source);
        // Published even where the controller finds its view unchanged: the cells are others.
        let view = self.controller.view().unwrap_or_else(|| self.controller.picture());
        self.published.store(Arc::new(Picture { view, cells: self.cells.clone() }));
        self.grant();
        self.publish();
        Ok(changes)
    }

    /// Everything that came of the last signal goes where it belongs.
    fn publish(&mut self) {
        for order in self.controller.orders_for_endpoints() {
            match order {
                EndpointOrder::ProbeDown(e, down) => self.cells.endpoint(e).set_probe_down(down),
                EndpointOrder::Restore(e) => self.cells.endpoint(e).restore(),
            }
        }
        if let Some(view) = self.controller.view() {
            self.published.store(Arc::new(Picture { view, cells: self.cells.clone() }));
        }
        let mut ordered = false;
        while let Some(event) = self.controller.poll_event() {
            ordered |= self.overrides.follow(&event);
            self.inbox.tell(Arc::new(event));
        }
        if ordered {
            self.store.overrides(&self.overrides);
        }
    }

    fn grant(&mut self) {
        let grants = self.controller.grants();
        for (i, a) in grants.retry.iter().enumerate() {
            self.cells.service(ServiceIx::from(i)).allowance.grant(a.add, a.cap);
        }
        for (i, a) in grants.hedge.iter().enumerate() {
            self.cells.route(RouteIx::from(i)).hedges.grant(a.add, a.cap);
        }
        for (i, a) in grants.trial.iter().enumerate() {
            self.cells.pool(PoolIx::from(i)).trials.grant(a.add, a.cap);
        }
    }

    /// Gives the orders again that were in force when the process was last there.
    fn restore(&mut self, now: Moment) {
        let saved = match self.store.read_overrides() {
            Ok(saved) => saved,
            Err(why) => return tracing::error!("{why}; drains, trips and freezes given before are not in force: give them again"),
        };
        for (by, order) in saved.orders(&self.config.topology, now) {
            match order {
                Ok(order) => {
                    if let Err(why) = self.controller.handle(now, Signal::Command(Command { by, order: order.clone() })) {
                        tracing::warn!("an order from before the restart is no longer possible ({order:?}): {why}");
                    }
                }
                Err(what) => tracing::warn!("an order from before the restart names what the config no longer has: {what}"),
            }
        }
        self.publish();
    }
}

/// Whether a fast tick has anything to tell.
fn stirs(t: &Tallies) -> bool {
    let idle =
        |p: &PoolTally| p.started == 0 && p.inflight == 0 && p.judged() + p.overload + p.cancelled + p.contradicted + p.confirmed == 0;
    !t.late.is_zero() || !t.pools.iter().all(idle)
}
