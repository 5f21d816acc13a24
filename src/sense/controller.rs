//! The one place where belief changes: signals in, picture, events and allowances out.

use super::endpoints::EndpointOrder;
use super::grants::Grants;
use crate::model::dice::Dice;
use crate::model::event::{Actor, Event, EventKind};
use crate::model::id::*;
pub use crate::model::signal::Refused;
use crate::model::signal::Signal;
use crate::model::status::{ConfigStatus, Status};
use crate::model::time::Moment;
use crate::model::view::{Compiled, PoolView, Slot, State, TableView, View};
use std::collections::VecDeque;
use std::sync::Arc;

/// What we believe about every pool and region.
pub struct Controller {
    config: Arc<Compiled>,
    seq: u64,
    events: VecDeque<Event>,
    latest: Arc<View>,
    published: u64,
}

impl Controller {
    /// Everything serving, nothing known yet.
    pub fn new(config: Arc<Compiled>, _now: Moment, _dice: Dice) -> Self {
        let t = &config.topology;
        let pools = t.pools.iter().map(|_| PoolView {
            state: State::Serving,
            suspect: false,
            drained: false,
            dead: false,
            limit: 1000,
            epoch: 0,
            share: 0.0,
        });
        let tables = t.tables.iter().map(|table| {
            let order: Vec<PoolIx> =
                t.services[table.service.at()].pools.iter().copied().filter(|p| table.allowed.has(t.pools[p.at()].region)).collect();
            let slots = order.first().map(|p| Slot { pool: *p, upto: u64::MAX }).into_iter().collect();
            TableView { slots, order, trials: Vec::new(), closed: None }
        });
        let latest =
            Arc::new(View { version: 1, edge_suspect: false, pools: pools.collect(), tables: tables.collect(), config: config.clone() });
        Self { config, seq: 0, events: VecDeque::new(), latest, published: 0 }
    }
    /// Take one signal in. For commands and reloads the answer says what followed, one line each.
    pub fn handle(&mut self, _now: Moment, _signal: Signal) -> Result<Vec<String>, Refused> {
        Ok(Vec::new())
    }
    /// Put something on record that others did (started, stopping, a refused config).
    pub fn record(&mut self, now: Moment, by: Actor, kind: EventKind) {
        self.seq += 1;
        self.events.push_back(Event { seq: self.seq, at: now, by, kind });
    }
    /// The next thing to remember.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
    /// The picture, where it changed since this was last asked.
    pub fn view(&mut self) -> Option<Arc<View>> {
        (self.published != self.latest.version).then(|| {
            self.published = self.latest.version;
            self.latest.clone()
        })
    }
    /// The picture as it is.
    pub fn picture(&self) -> Arc<View> {
        self.latest.clone()
    }
    /// Tokens earned since this was last asked. Ask after every tick.
    pub fn grants(&mut self) -> Grants {
        Grants::default()
    }
    /// What must be written into endpoints' cells, since this was last asked.
    pub fn orders_for_endpoints(&mut self) -> Vec<EndpointOrder> {
        Vec::new()
    }
    /// Everything an operator asks first.
    pub fn status(&self, _now: Moment) -> Status {
        Status {
            edge: self.config.topology.edge.name.clone(),
            generation: self.config.generation,
            mode: "active".into(),
            edge_suspect: false,
            regions: Vec::new(),
            pools: Vec::new(),
            config: ConfigStatus::default(),
        }
    }
    /// When time alone will change something, and what; `None`: nothing is pending. Ticks do the work;
    /// this is for simulations that skip quiet stretches.
    pub fn next_deadline(&self) -> Option<(Moment, &'static str)> {
        None
    }
}
