//! The other edges, over NATS JetStream: orders that hold on all of them, and what each of them sees.
//!
//! ```text
//!                 operator, drill                      other edges
//!                       │ give                          ▲      │
//!   admin ─▶ Fleet ─────┤                     orders: KV bucket (revisions, watched)
//!                       ▼                     views:  plain subjects (with a lease)
//!                    task (one) ◀──────────────────────▶ NATS
//!                       │ commands, news
//!                       ▼
//!                     Inbox ─▶ Controller (sense::book, sense::verdict)
//! ```
//!
//! | what | where | why there |
//! |---|---|---|
//! | orders ([`order`]) | a JetStream key-value bucket, one key a region, pool or freeze | they survive everybody; a write names the revision it stands on, so of two operators at once the second is refused and told who was first |
//! | views | core NATS, sent five times a lease and at every change | old ones are worthless: nothing should store and repeat them |
//!
//! **Nobody waits for it.** Requests and the control task never talk to this room. An order waits for NATS for [`PATIENCE`] at
//! most; with NATS away it holds on this edge at once, is kept (room [`memory`]), and is told to the fleet when it is back,
//! unless somebody else's stands there by then: the fleet's goes first, and that is said.
//!
//! **Without NATS** the last known orders hold (the controller keeps them on disk), and every edge goes by its own eyes;
//! budgets stay divided among the edges there were. Status, metrics (`evenkeel_fleet_connected`) and the journal say so.
//!
//! **Trust.** Who may write the bucket or the subjects can drain regions: NATS credentials and permissions are the fence.
//! A view can at most confirm a doubt (`advise`), and never takes out the last pool of a service.
//!
//! What it does not do: decide what a majority is (that is `sense`), or elect anybody. There is no leader.

mod link;
mod memory;
mod order;
mod session;
mod task;

use crate::live::{Inbox, Published};
use crate::model::fleet::{FleetStatus, OrderStatus};
use crate::model::signal::Order;
use crate::model::time::{Duration, Moment};
use crate::model::topology::Topology;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::sync::{mpsc, oneshot};

pub use order::{About, Standing};

/// An operator waits for NATS for so long, at most.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// What became of an order.
#[derive(Clone, Debug, PartialEq)]
pub enum Given {
    /// The fleet has it, under this revision: every edge follows.
    Everywhere(u64),
    /// NATS is away, for this reason: it holds here, and waits to be told.
    Here(String),
    /// Somebody was first: the order that stands, in words, and its revision.
    Refused(String, u64),
}

/// How strictly an order is given.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terms {
    /// Replace what somebody else ordered.
    pub force: bool,
    /// The revision the operator has seen.
    pub revision: Option<u64>,
}

struct Ask {
    about: About,
    standing: Standing,
    terms: Terms,
    reply: oneshot::Sender<Given>,
}

/// What others may look at without asking the task.
#[derive(Debug, Default)]
struct Board {
    orders: Mutex<Vec<OrderStatus>>,
    notes: Mutex<Vec<String>>,
    stats: Stats,
}

/// Counters for metrics.
#[derive(Debug, Default)]
pub struct Stats {
    /// Views sent.
    pub sent: AtomicU64,
    /// Views heard.
    pub heard: AtomicU64,
    /// Messages that could not be understood.
    pub garbled: AtomicU64,
    /// Connections opened.
    pub connects: AtomicU64,
    /// Orders of others followed.
    pub followed: AtomicU64,
    /// Orders refused because somebody was first.
    pub refused: AtomicU64,
}

/// A handle to the fleet. Cheap to clone.
#[derive(Clone)]
pub struct Fleet {
    asks: mpsc::UnboundedSender<Ask>,
    board: Arc<Board>,
}

/// The handle, and the task that must run for it. It follows reloads: with `fleet: null` it rests. When
/// the process leaves it says farewell, and ends. `sized` is told among how many edges budgets are divided.
pub fn fleet(inbox: Inbox, published: Arc<Published>, sized: impl Fn(u32) + 'static) -> (Fleet, impl Future<Output = ()>) {
    let (asks, asked) = mpsc::unbounded_channel();
    let board = Arc::new(Board::default());
    let task = task::run(inbox, published, asked, board.clone(), Box::new(sized));
    (Fleet { asks, board }, task)
}

impl Fleet {
    /// Gives an order to all edges. It must be followed here by the caller, unless it is refused. `by`: who gives it.
    pub async fn give(&self, about: About, standing: Standing, terms: Terms) -> Given {
        let (reply, answer) = oneshot::channel();
        let ask = Ask { about, standing, terms, reply };
        if self.asks.send(ask).is_err() {
            return Given::Here("the fleet's task has ended".into());
        }
        match tokio::time::timeout(PATIENCE * 2, answer).await {
            Ok(Ok(given)) => given,
            _ => Given::Here("NATS does not answer".into()),
        }
    }
    /// Adds orders and notes to what the controller says.
    pub fn complete(&self, status: &mut FleetStatus) {
        status.orders = self.board.orders.lock().clone();
        status.notes.extend(self.board.notes.lock().iter().cloned());
    }
    /// For metrics.
    pub fn stats(&self) -> &Stats {
        &self.board.stats
    }
}

/// What an order is about and what it says, as given here; `None`: it is no matter for a fleet.
pub fn write_down(t: &Topology, order: &Order, by: &str, now: Moment) -> Option<(About, Standing)> {
    Some((About::of(t, order)?, Standing::of(order, by, &t.edge.name, now)))
}

impl Stats {
    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }
}
