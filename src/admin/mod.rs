//! The operators' door: JSON under `/v1`, `/metrics`, `/livez`, `/readyz` (DESIGN.md section 7).
//!
//! | room | what it does |
//! |---|---|
//! | [`api`] | the routes and what they do |
//! | [`dashboard`] | the page at `/` |
//! | [`gate`] | who may come in: tokens, Host, Origin |
//! | [`server`] | the socket: bounded connections, heads in time, no waiting for stalled readers |
//! | [`wire`] | JSON shapes, shared with the command line |
//! | [`explain`] | one request's way, and why |
//! | [`drills`] | live failover exercises |
//! | [`plan`] | what a config, a drain or a loss would do |
//! | [`incidents`] | what the journal on disk makes of itself |
//! | [`slo`] | objectives, and how long regions and fates were out |
//! | [`spool`] | what waits in the spool |
//! | [`metrics`] | the page for Prometheus |
//! | [`events`] | the event stream |
//! | [`problem`] | errors as problem documents |
//!
//! It runs on a thread of its own, reaches the controller only through [`crate::live::Inbox`], and reads what requests
//! count from the newest picture. Nothing here is on the way of a request, and nothing a client of it does (stall, flood,
//! scrape every 100 ms) holds anything up there. It keeps no state: after a reload it reads its settings (address, tokens) anew.

pub mod api;
pub mod dashboard;
pub mod drills;
pub mod events;
pub mod explain;
pub mod gate;
pub mod incidents;
pub mod metrics;
pub mod plan;
pub mod problem;
pub mod server;
pub mod slo;
pub mod spool;
pub mod stale;
pub mod wire;

use crate::fleet::Fleet;
use crate::journal::Journal;
use crate::ledger::Ledger;
use crate::live::{Inbox, Published};
use crate::model::event::{Actor, Event, EventKind};
use crate::model::topology::Topology;
use crate::spool::Spool;
use crate::steer::purge::Pattern;
use api::App;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio::net::TcpListener;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::task::AbortHandle;

/// What a reload says: what changed, one line each; or every problem.
pub type Reloaded = Pin<Box<dyn Future<Output = Result<Vec<String>, Vec<String>>> + Send>>;

/// What the API needs of the rest of the house, handed in by the composition root.
pub struct Context {
    /// The way to the controller.
    pub inbox: Inbox,
    /// The newest picture.
    pub published: Arc<Published>,
    /// Reads the config file again and applies it.
    pub reload: Box<dyn Fn(Actor) -> Reloaded + Send + Sync>,
    /// For its figures.
    pub journal: Option<Journal>,
    /// What requests came to over time.
    pub ledger: Ledger,
    /// Where writes are kept.
    pub spool: Option<Spool>,
    /// The other edges.
    pub fleet: Option<Fleet>,
    /// SIGTERM came: `/readyz` says 503.
    pub leaving: Arc<AtomicBool>,
    /// Open connections by listener.
    pub connections: Box<dyn Fn() -> Vec<(String, u64)> + Send + Sync>,
    /// Drops the last good copies that are meant, and says how many.
    pub purge: Arc<dyn Fn(&Pattern) -> usize + Send + Sync>,
    /// Last good copies: bytes and entries held now.
    pub copies: Box<dyn Fn() -> (u64, usize) + Send + Sync>,
    /// Certificates and when they expire, Unix time in seconds.
    pub certificates: Box<dyn Fn() -> Vec<(String, i64)> + Send + Sync>,
    /// Spans of traces by what became of them.
    pub spans: Box<dyn Fn() -> [(&'static str, u64); 3] + Send + Sync>,
}

/// Binds where a config wants it; `None`: it wants none. An error names the address and what to do.
/// Needs a runtime (of the thread that will [`run`] it).
pub fn bind(t: &Topology) -> Result<Option<TcpListener>, String> {
    bind_or(t, None)
}

/// Likewise, with a socket that listens already, if it is where the config wants it.
pub fn bind_or(t: &Topology, inherited: Option<std::net::TcpListener>) -> Result<Option<TcpListener>, String> {
    let Some(admin) = &t.admin else { return Ok(None) };
    if admin.tokens.is_empty() && !admin.address.ip().is_loopback() {
        return Err(format!("admin.address {} is beyond loopback: that needs admin.tokens", admin.address));
    }
    let inherited = inherited.filter(|socket| socket.local_addr().is_ok_and(|at| at == admin.address));
    inherited
        .map_or_else(|| server::bind(admin.address), TcpListener::from_std)
        .map(Some)
        .map_err(|e| format!("cannot listen on admin.address {}: {e}; stop what listens there, or choose another address", admin.address))
}

/// Serves until the process ends. Follows reloads: tokens are read again, and another address is listened on.
/// Events count from the call on, not from the first poll.
pub fn run(context: Context, listener: Option<TcpListener>) -> impl Future<Output = ()> + Send {
    let events = context.inbox.events();
    serve(Arc::new(App::new(context)), events, listener)
}

async fn serve(app: Arc<App>, mut events: Receiver<Arc<Event>>, listener: Option<TcpListener>) {
    let mut door = Door { app: app.clone(), open: None };
    door.app.read_tokens();
    let remembering = app.clone();
    tokio::task::spawn_blocking(move || remembering.drills.remember(&remembering.topology().topology.journal.path));
    if let Some(listener) = listener {
        door.serve(listener);
    }
    loop {
        match events.recv().await {
            Ok(event) => {
                if let EventKind::ConfigApplied { generation, .. } = event.kind
                    && generation > 1
                {
                    app.reloads.0.fetch_add(1, Relaxed);
                    door.follow();
                }
                if matches!(event.kind, EventKind::ConfigRejected { .. }) {
                    app.reloads.1.fetch_add(1, Relaxed);
                }
            }
            Err(RecvError::Lagged(_)) => door.follow(),
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// The socket that is listened on now, and where it is.
struct Door {
    app: Arc<App>,
    open: Option<(SocketAddr, AbortHandle)>,
}

/// Accepting ends with it; connections that are open go on.
impl Drop for Door {
    fn drop(&mut self) {
        if let Some((_, accepting)) = &self.open {
            accepting.abort();
        }
    }
}

impl Door {
    fn serve(&mut self, listener: TcpListener) {
        let Ok(local) = listener.local_addr() else { return };
        let accepting = tokio::spawn(server::accept(listener, api::router(self.app.clone()))).abort_handle();
        if let Some((_, old)) = self.open.replace((local, accepting)) {
            old.abort();
        }
    }
    /// Whether the socket is where the config wants it; port 0 is any.
    fn stands(&self, wanted: Option<SocketAddr>) -> bool {
        match (wanted, &self.open) {
            (None, None) => true,
            (Some(w), Some((local, _))) => w.ip() == local.ip() && (w.port() == 0 || w.port() == local.port()),
            _ => false,
        }
    }
    /// After a reload. An address that cannot be had leaves the old one open.
    fn follow(&mut self) {
        self.app.read_tokens();
        let config = self.app.topology();
        if self.stands(config.topology.admin.as_ref().map(|a| a.address)) {
            return;
        }
        match bind(&config.topology) {
            Ok(Some(listener)) => self.serve(listener),
            Ok(None) => {
                if let Some((_, old)) = self.open.take() {
                    old.abort();
                }
            }
            Err(e) => tracing::error!("{e}; the admin API stays where it was"),
        }
    }
}

#[cfg(test)]
mod tests;
