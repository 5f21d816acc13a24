//! The sockets clients come in by.
//!
//! A socket is bound once for the whole process; every worker thread accepts from its own duplicate of it, so that none is lost
//! when listeners come and go, and so that the descriptors can be handed to a successor. A new picture of listeners is
//! applied in two steps: [`Listeners::prepare`] binds and reads certificates and may fail without a trace;
//! [`Prepared::commit`] cannot fail.
//!
//! | what binds | then |
//! |---|---|
//! | `max_connections` | accepting waits; clients wait in the kernel's backlog |
//! | `connections_per_client` | the connection is closed at once |
//! | out of descriptors or memory | accepting rests for [`REST`]; established connections go on |

use super::tls::{self, Terminator};
use crate::model::topology::{Listener, Topology};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, mpsc};

/// Connections the kernel keeps for us until they are accepted; it may cut this to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// How long accepting rests after the process ran out of descriptors or memory.
pub(super) const REST: Duration = Duration::from_millis(50);

/// All listening sockets of the process.
#[derive(Debug, Default)]
pub struct Listeners {
    doors: Mutex<Vec<Arc<Door>>>,
    workers: Mutex<Vec<mpsc::UnboundedSender<Arc<Door>>>>,
    /// Sockets that listen already and wait for their listener to be configured.
    inherited: Mutex<Vec<(SocketAddr, std::net::TcpListener)>>,
}

/// One listening socket.
#[derive(Debug)]
pub struct Door {
    /// As configured; a port of 0 stays 0 here.
    pub address: SocketAddr,
    /// As bound.
    pub local: SocketAddr,
    socket: std::net::TcpListener,
    settings: ArcSwap<Settings>,
    pub(super) permits: Arc<Semaphore>,
    /// Connections open now.
    pub(super) open: Arc<AtomicU32>,
    closed: AtomicBool,
    closing: Notify,
}

/// What may change on a listener without binding it anew. A connection keeps what it was accepted with.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) config: Listener,
    pub(crate) tls: Option<Arc<Terminator>>,
}

impl Settings {
    /// Whether an address may speak for others.
    pub(crate) fn trusts(&self, address: std::net::IpAddr) -> bool {
        let address = address.to_canonical();
        self.config.trusted_proxies.iter().any(|n| n.contains(&address))
    }
}

/// Everything bound and read; nothing changed yet.
#[derive(Debug)]
pub struct Prepared<'a> {
    listeners: &'a Listeners,
    /// Sockets to keep or to open, with what they get.
    next: Vec<(Arc<Door>, Arc<Settings>)>,
}

impl Listeners {
    /// None yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Take sockets that listen already: whoever is configured for such an address gets it, instead of binding anew.
    pub fn inherit(&self, sockets: Vec<(SocketAddr, std::net::TcpListener)>) {
        self.inherited.lock().extend(sockets);
    }

    /// Close inherited sockets that nobody was configured for, and tell which.
    pub fn disown(&self) -> Vec<SocketAddr> {
        self.inherited.lock().drain(..).map(|(at, _)| at).collect()
    }

    fn heirloom(&self, address: SocketAddr) -> Option<std::net::TcpListener> {
        let mut inherited = self.inherited.lock();
        // systemd's `ListenStream=8080` is one socket for both families.
        let same =
            |at: SocketAddr| at == address || at.port() == address.port() && at.ip().is_unspecified() && address.ip().is_unspecified();
        let found = inherited.iter().position(|(at, _)| *at == address).or_else(|| inherited.iter().position(|(at, _)| same(*at)))?;
        Some(inherited.swap_remove(found).1)
    }

    /// A worker's stream of doors to accept at: those that are open now, then those that are opened.
    pub(super) fn subscribe(&self) -> mpsc::UnboundedReceiver<Arc<Door>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let doors = self.doors.lock();
        doors.iter().for_each(|d| drop(sender.send(d.clone())));
        self.workers.lock().push(sender);
        receiver
    }

    /// Bind what is new and read all certificates. The errors name the address or the file, and what to do.
    pub fn prepare(&self, topology: &Topology) -> Result<Prepared<'_>, Vec<String>> {
        let now = self.doors.lock().clone();
        let (mut next, mut problems) = (Vec::new(), Vec::new());
        for config in &topology.listeners {
            let old = now.iter().find(|d| d.address == config.address);
            let tls = match config.tls.as_ref().map(|t| terminator(t, old)).transpose() {
                Ok(tls) => tls,
                Err(e) => {
                    problems.push(format!("listener {}: {e}", config.address));
                    continue;
                }
            };
            let settings = Arc::new(Settings { config: config.clone(), tls });
            match old.cloned().map_or_else(|| Door::bind(&settings, self.heirloom(config.address)), Ok) {
                Ok(door) => next.push((door, settings)),
                Err(e) => problems.push(e),
            }
        }
        if problems.is_empty() { Ok(Prepared { listeners: self, next }) } else { Err(problems) }
    }

    /// [`Listeners::prepare`] and [`Prepared::commit`].
    pub fn apply(&self, topology: &Topology) -> Result<(), Vec<String>> {
        self.prepare(topology).map(Prepared::commit)
    }

    /// Read certificates again whose files changed; what cannot be read stays as it was and is named.
    pub fn refresh_certificates(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for door in self.doors.lock().iter() {
            let settings = door.settings();
            let (Some(files), Some(old)) = (&settings.config.tls, &settings.tls) else { continue };
            if tls::fingerprint(files) == old.fingerprint {
                continue;
            }
            match tls::load(files) {
                Ok(new) => door.settings.store(Arc::new(Settings { config: settings.config.clone(), tls: Some(Arc::new(new)) })),
                Err(e) => problems.push(format!("listener {}: {e}; the certificates in use stay", door.address)),
            }
        }
        problems
    }

    /// The certificates in use, and when they expire, seconds since 1970.
    pub fn expiries(&self) -> Vec<(String, i64)> {
        self.doors.lock().iter().filter_map(|d| d.settings().tls.clone()).flat_map(|t| t.expiries.clone()).collect()
    }

    /// Stop accepting everywhere; what waits in a backlog is reset by the kernel.
    pub fn close(&self) {
        self.workers.lock().clear();
        self.doors.lock().drain(..).for_each(|d| d.close());
    }

    /// The sockets, for status, metrics and for a successor.
    pub fn doors(&self) -> Vec<Arc<Door>> {
        self.doors.lock().clone()
    }
}

impl Prepared<'_> {
    /// Make it so: settings change, new sockets are accepted from, sockets no longer wanted are closed.
    pub fn commit(self) {
        let mut doors = self.listeners.doors.lock();
        let old = std::mem::take(&mut *doors);
        for (door, settings) in self.next {
            door.set(settings);
            if !old.iter().any(|o| Arc::ptr_eq(o, &door)) {
                self.listeners.workers.lock().retain(|w| w.send(door.clone()).is_ok());
            }
            doors.push(door);
        }
        old.iter().filter(|o| !doors.iter().any(|d| Arc::ptr_eq(o, d))).for_each(|o| o.close());
    }
}

/// Certificates that did not change keep their terminator, and with it the sessions clients may resume.
fn terminator(files: &crate::model::topology::ListenerTls, old: Option<&Arc<Door>>) -> Result<Arc<Terminator>, String> {
    let kept = old.map(|d| d.settings()).filter(|s| s.config.tls.as_ref() == Some(files)).and_then(|s| s.tls.clone());
    match kept {
        Some(kept) if kept.fingerprint == tls::fingerprint(files) => Ok(kept),
        _ => tls::load(files).map(Arc::new),
    }
}

impl Door {
    fn bind(settings: &Arc<Settings>, inherited: Option<std::net::TcpListener>) -> Result<Arc<Self>, String> {
        let config = &settings.config;
        let at = config.address;
        let socket = inherited.map_or_else(|| open(at), Ok).map_err(|e| format!("listener {at}: {e}{}", advice(&e)))?;
        let local = socket.local_addr().map_err(|e| format!("listener {at}: {e}"))?;
        Ok(Arc::new(Self {
            address: at,
            local,
            socket,
            permits: Arc::new(Semaphore::new(config.max_connections as usize)),
            settings: ArcSwap::new(settings.clone()),
            open: Arc::default(),
            closed: AtomicBool::new(false),
            closing: Notify::new(),
        }))
    }

    fn set(&self, settings: Arc<Settings>) {
        let (old, new) = (self.settings().config.max_connections as usize, settings.config.max_connections as usize);
        if new > old {
            self.permits.add_permits(new - old);
        } else if new < old {
            // Permits in use cannot be taken away; they are taken when they come back.
            let missing = old - new - self.permits.forget_permits(old - new);
            if missing > 0 {
                let permits = self.permits.clone();
                let later = async move {
                    if let Ok(p) = permits.acquire_many(missing as u32).await {
                        p.forget();
                    }
                };
                if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                    runtime.spawn(later);
                }
            }
        }
        self.settings.store(settings);
    }

    pub(super) fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// This worker's own handle to accept from. Needs its runtime.
    pub(super) fn listener(&self) -> std::io::Result<tokio::net::TcpListener> {
        tokio::net::TcpListener::from_std(self.socket.try_clone()?)
    }

    /// Connections open now.
    pub fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.closing.notify_waiters();
    }

    /// Ready once nothing is to be accepted here any more.
    pub(super) async fn closed(&self) {
        loop {
            let notified = self.closing.notified();
            if self.closed.load(Ordering::Acquire) {
                return;
            }
            notified.await;
        }
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn open(at: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if at.is_ipv6() {
        // One socket, one family: a second listener on 0.0.0.0 with the same port stays possible.
        socket.set_only_v6(true)?;
    }
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn advice(e: &std::io::Error) -> &'static str {
    match e.kind() {
        std::io::ErrorKind::AddrInUse => "; another process holds it: `ss -ltnp` shows which",
        std::io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE",
        std::io::ErrorKind::AddrNotAvailable => "; this machine has no such address: use 0.0.0.0 or [::], or add it",
        _ => "",
    }
}

/// What an error of accept(2) means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Accept {
    /// That one connection is gone; the next may be fine.
    Again,
    /// Out of descriptors or memory.
    Rest,
}

pub(super) fn judge(e: &std::io::Error) -> Accept {
    match e.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => Accept::Rest,
        _ => Accept::Again,
    }
}
