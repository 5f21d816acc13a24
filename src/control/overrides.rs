//! The operator's standing orders (drains, trips, freeze): what of them survives a restart.
//!
//! They are read off the events, so that whoever gave an order (API, drill, fleet) and however it ended
//! (undrained, expired, reset, recovered) there is one account of it. Drains by the config file are not kept: the file is; nor are those of a drill: a process that
//! dies takes it along.

use crate::clock;
use crate::model::event::{Actor, Cause, Event, EventKind};
use crate::model::signal::Order;
use crate::model::time::{Duration, Moment};
use crate::model::topology::Topology;
use crate::model::view::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Orders in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Overrides {
    /// By region.
    drains: BTreeMap<String, Standing>,
    /// By pool (`service/region`).
    trips: BTreeMap<String, Standing>,
    frozen: Option<Actor>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Standing {
    by: Actor,
    reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
}

impl Overrides {
    /// Takes an event in. True: the orders in force are others now.
    pub fn follow(&mut self, event: &Event) -> bool {
        let before = self.clone();
        match &event.kind {
            EventKind::Drain { region, on: true, reason, until } if !matches!(event.by, Actor::File | Actor::Drill(_)) => {
                let standing = Standing { by: event.by.clone(), reason: reason.clone(), until: until.map(clock::wall) };
                self.drains.insert(region.clone(), standing);
            }
            EventKind::Drain { region, on: false, .. } => drop(self.drains.remove(region)),
            EventKind::Pool { service, region, to: State::Tripped, cause: Cause::Operator { reason }, .. } => {
                let standing = Standing { by: event.by.clone(), reason: reason.clone(), until: None };
                self.trips.insert(format!("{service}/{region}"), standing);
            }
            EventKind::Pool { service, region, to, .. } if *to != State::Tripped => {
                self.trips.remove(&format!("{service}/{region}"));
            }
            EventKind::Freeze { on } => self.frozen = on.then(|| event.by.clone()),
            _ => {}
        }
        *self != before
    }

    /// The orders to give again, in the terms of this config; or the name that it no longer has.
    pub fn orders(self, t: &Topology, now: Moment) -> Vec<(Actor, Result<Order, String>)> {
        let mut orders = Vec::new();
        for (name, s) in self.drains {
            let lasting = s.until.map(|until| clock::moment(until).since(now));
            if lasting == Some(Duration::ZERO) {
                continue;
            }
            let region = t.region(&name).ok_or(format!("region {name}"));
            let order = region.map(|region| Order::Drain { region, reason: s.reason, over: Duration::ZERO, lasting });
            orders.push((s.by, order));
        }
        for (name, s) in self.trips {
            let pool = t.pools.iter().position(|p| *p.name == *name).ok_or(format!("pool {name}"));
            orders.push((s.by, pool.map(|pool| Order::Trip { pool: pool.into(), reason: s.reason })));
        }
        if let Some(by) = self.frozen {
            orders.push((by, Ok(Order::Freeze { on: true })));
        }
        orders
    }
}
