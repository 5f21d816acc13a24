//! The task of the fleet: a session for as long as the config wants one, another one when it wants another.

use super::memory::Memory;
use super::session::Session;
use super::{Ask, Board, Given};
use crate::clock;
use crate::live::{Inbox, Published};
use crate::model::event::{Event, EventKind};
use crate::model::topology::Topology;
use std::sync::Arc;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::sync::mpsc;

/// What sessions share.
pub(super) struct House {
    pub inbox: Inbox,
    pub published: Arc<Published>,
    pub asked: mpsc::UnboundedReceiver<Ask>,
    pub events: Receiver<Arc<Event>>,
    pub board: Arc<Board>,
    /// Is told among how many edges budgets are divided.
    pub sized: Box<dyn Fn(u32)>,
    /// Which life of this edge: its beginning by the wall clock, µs.
    pub incarnation: u64,
}

impl House {
    /// The topology in force.
    pub fn config(&self) -> Arc<crate::model::view::Compiled> {
        self.published.load_full().view.config.clone()
    }
}

pub(super) async fn run(
    inbox: Inbox,
    published: Arc<Published>,
    asked: mpsc::UnboundedReceiver<Ask>,
    board: Arc<Board>,
    sized: Box<dyn Fn(u32)>,
) {
    let incarnation = clock::wall_now().as_microsecond().unsigned_abs();
    let events = inbox.events();
    let mut house = House { inbox, published, asked, events, board, sized, incarnation };
    loop {
        let config = house.config();
        let t = &config.topology;
        if t.fleet.is_none() {
            (house.sized)(1);
            if rest(&mut house).await {
                return;
            }
            continue;
        }
        let memory = Memory::read(&t.edge.state_dir);
        let mut session = Session::new(config.clone(), memory);
        let left = session.run(&mut house).await;
        house.board.orders.lock().clear();
        house.board.notes.lock().clear();
        if left {
            return;
        }
    }
}

/// Alone: orders hold here. Ends when the config has a fleet (false), or the process leaves (true).
async fn rest(house: &mut House) -> bool {
    loop {
        tokio::select! {
            ask = house.asked.recv() => match ask {
                Some(ask) => drop(ask.reply.send(Given::Here("there is no fleet in the config".into()))),
                None => return true,
            },
            event = house.events.recv() => match event {
                Ok(e) if matches!(e.kind, EventKind::ConfigApplied { .. }) && house.config().topology.fleet.is_some() => return false,
                Ok(e) if matches!(e.kind, EventKind::Stopping) => return true,
                Err(RecvError::Closed) => return true,
                _ => {}
            },
        }
    }
}

/// Whether a new config means another session.
pub(super) fn differs(was: &Topology, is: &Topology) -> bool {
    was.edge.name != is.edge.name || was.fleet != is.fleet || was.edge.state_dir != is.edge.state_dir
}
