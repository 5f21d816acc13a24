//! The threads that serve clients.
//!
//! Every worker is one operating-system thread with a single-threaded runtime, its own connections to endpoints and its own
//! dice: a request never waits for another thread. A client's connection stays with the worker that accepted it.
//!
//! Leaving: [`Edge::drain`] closes the listeners and tells every connection; idle ones close, busy ones finish their request
//! and say `Connection: close`. [`Edge::drained`] waits for them, [`Edge::stop`] does not.

use super::clients::Clients;
use super::listener::{Accept, Door, Listeners, REST, judge};
use super::once::Once;
use super::stale::Copies;
use super::upload::ReplayStore;
use super::{access, connection, replay, trace};
use crate::clock;
use crate::live::{Beats, Picture, Published};
use crate::model::dice::Dice;
use crate::model::id::{EndpointIx, ServiceIx};
use crate::model::topology::{IdleConnections, Protocol, ServiceTls};
use crate::spool::Spool;
use crate::upstream::tls::ClientTls;
use crate::upstream::{Dial, Pool, Target, TcpDial};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::Waker;
use tokio::sync::watch;
use tokio::task::spawn_local;

/// How often idle connections to endpoints are looked over.
const HOUSEKEEPING: std::time::Duration = std::time::Duration::from_secs(1);

/// What the request side needs from the rest of the process.
#[derive(Clone)]
pub struct Setup {
    /// The newest picture.
    pub published: Arc<Published>,
    /// Where workers show that they are alive, one place each.
    pub beats: Arc<Beats>,
    /// Where records of requests go.
    pub access: Arc<access::Log>,
    /// Where traces of sampled requests go.
    pub traces: trace::Outbox,
    /// Where writes are kept that no region can take; `None`: nowhere.
    pub spool: Option<Spool>,
}

/// The request side of the process.
pub struct Edge {
    listeners: Arc<Listeners>,
    phase: watch::Sender<Phase>,
    connections: Arc<AtomicUsize>,
    copies: Arc<Copies>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Phase {
    Serve,
    Drain,
    Stop,
}

impl Edge {
    /// Start so many workers; they accept wherever [`Edge::listeners`] says.
    pub fn start(setup: &Setup, threads: usize) -> std::io::Result<Self> {
        let (listeners, connections, shared) = (Listeners::new(), Arc::default(), Shared::default());
        let (phase, _) = watch::channel(Phase::Serve);
        let mut edge = Self { listeners, phase, connections, copies: shared.copies.clone(), threads: Vec::new() };
        for index in 0..threads {
            let (setup, shared, doors, phase) = (setup.clone(), shared.clone(), edge.listeners.subscribe(), edge.phase.subscribe());
            let connections = edge.connections.clone();
            let run = move || Worker::run((index, threads), setup, shared, connections, doors, phase);
            edge.threads.push(std::thread::Builder::new().name(format!("worker-{index}")).spawn(run)?);
        }
        Ok(edge)
    }

    /// The listening sockets.
    pub fn listeners(&self) -> &Arc<Listeners> {
        &self.listeners
    }

    /// The last good copies.
    pub fn copies(&self) -> &Arc<Copies> {
        &self.copies
    }

    /// Clients connected now.
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Stop accepting, close idle connections, let requests in flight come to their end.
    pub fn drain(&self) {
        self.listeners.close();
        self.phase.send_replace(Phase::Drain);
    }

    /// Ready once no client is connected any more.
    pub async fn drained(&self) {
        // Looked at rather than told: connections end on other threads, and nobody is in a hurry here.
        while self.connections() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// End all workers now, with whatever they are doing.
    pub fn stop(mut self) {
        self.listeners.close();
        self.phase.send_replace(Phase::Stop);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// What all workers share.
#[derive(Clone, Default)]
struct Shared {
    clients: Arc<Clients>,
    replay: Arc<ReplayStore>,
    copies: Arc<Copies>,
    once: Arc<Once>,
}

/// A picture counted by one thread alone.
#[allow(clippy::redundant_allocation)] // the inner count is shared by all threads; requests count on the outer one
pub(crate) type Kept = Rc<Arc<Picture>>;

/// TLS towards services; `None`: it cannot be set up.
type ClientSettings = HashMap<ServiceIx, Option<Arc<ClientTls>>>;

/// One worker thread, as its connections see it.
pub(crate) struct Worker {
    pub(crate) published: Arc<Published>,
    pub(crate) upstream: Pool,
    pub(crate) dice: RefCell<Dice>,
    pub(crate) clients: Arc<Clients>,
    pub(crate) replay: Arc<ReplayStore>,
    pub(crate) copies: Arc<Copies>,
    pub(crate) once: Arc<Once>,
    pub(crate) spool: Option<Spool>,
    pub(crate) access: Arc<access::Log>,
    pub(crate) traces: trace::Outbox,
    /// Losers that are still listened to.
    pub(crate) lingering: Cell<usize>,
    /// The newest picture, and its version.
    kept: RefCell<(u64, Kept)>,
    /// Of the generation named.
    client_tls: RefCell<(u64, ClientSettings)>,
    threads: usize,
    draining: Cell<bool>,
    present: RefCell<Present>,
    connections: Arc<AtomicUsize>,
}

impl Worker {
    /// A worker without a thread of its own, for tests that hold the runtime and dial themselves.
    #[cfg(test)]
    pub(crate) fn alone(setup: &Setup, dial: impl Dial + 'static) -> Rc<Self> {
        Rc::new(Self::new(setup, &Shared::default(), Arc::default(), 1, dial))
    }

    fn new(setup: &Setup, shared: &Shared, connections: Arc<AtomicUsize>, threads: usize, dial: impl Dial + 'static) -> Self {
        Self {
            published: setup.published.clone(),
            upstream: Pool::new(dial),
            dice: RefCell::new(clock::dice()),
            clients: shared.clients.clone(),
            replay: shared.replay.clone(),
            copies: shared.copies.clone(),
            once: shared.once.clone(),
            spool: setup.spool.clone(),
            access: setup.access.clone(),
            traces: setup.traces.clone(),
            lingering: Cell::default(),
            kept: RefCell::new((setup.published.version(), Rc::new(setup.published.load_full()))),
            client_tls: RefCell::default(),
            threads,
            draining: Cell::new(false),
            present: RefCell::default(),
            connections,
        }
    }

    fn run(
        (index, threads): (usize, usize),
        setup: Setup,
        shared: Shared,
        connections: Arc<AtomicUsize>,
        doors: tokio::sync::mpsc::UnboundedReceiver<Arc<Door>>,
        phase: watch::Receiver<Phase>,
    ) {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(e) => return tracing::error!("worker {index} cannot start: {e}"),
        };
        let beats = setup.beats.clone();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let worker = Rc::new(Self::new(&setup, &shared, connections, threads, TcpDial));
            spawn_local({
                let beats = beats.clone();
                async move { beats.keep(index).await }
            });
            spawn_local(accept_all(worker.clone(), doors));
            spawn_local(housekeep(worker.clone()));
            if let Some(spool) = worker.spool.clone().filter(|_| index == 0) {
                spawn_local(replay::run(worker.clone(), spool));
            }
            worker.follow(phase).await;
        });
        beats.gone(index);
    }

    /// Wake connections when the process is to leave; ready when it is to stop.
    async fn follow(&self, mut phase: watch::Receiver<Phase>) {
        loop {
            let now = *phase.borrow_and_update();
            if now >= Phase::Drain && !self.draining.replace(true) {
                self.present.borrow().wakers.iter().flatten().for_each(Waker::wake_by_ref);
            }
            if now == Phase::Stop || phase.changed().await.is_err() {
                return;
            }
        }
    }

    /// The newest picture, to keep for the life of a request. Counted per worker: the shared count would be fought over by all.
    pub(crate) fn picture(&self) -> Kept {
        let version = self.published.version();
        let mut kept = self.kept.borrow_mut();
        if kept.0 != version {
            *kept = (version, Rc::new(self.published.load_full()));
        }
        kept.1.clone()
    }

    /// Where an attempt goes, as its service wants to be spoken to. `None`: its TLS cannot be set up (and it is never
    /// spoken to without).
    pub(crate) fn target<'h>(&self, picture: &Picture, to: EndpointIx, host: impl FnOnce() -> &'h str) -> Option<Target> {
        let topology = picture.view.topology();
        let endpoint = &topology.endpoints[to.at()];
        let index = topology.pools[endpoint.pool.at()].service;
        let service = &topology.services[index.at()];
        let newest = self.picture();
        let same = newest.view.config.generation == picture.view.config.generation;
        let view = if same { &newest.view } else { &picture.view };
        let tls = match &service.tls {
            None => None,
            Some(tls) => {
                let client = self.client_tls(picture.view.config.generation, index, tls, service.protocol)?;
                let name = client.name(host(), endpoint.address.ip());
                Some((client, name))
            }
        };
        Some(Target {
            id: picture.cells.endpoint(to).cell_id(),
            address: endpoint.address,
            epoch: view.pools[endpoint.pool.at()].epoch,
            connect_timeout: service.connect_timeout,
            idle: IdleConnections {
                max: service.idle.max.div_ceil(self.threads),
                warm: service.idle.warm.div_ceil(self.threads),
                timeout: service.idle.timeout,
            },
            protocol: service.protocol,
            tls,
        })
    }

    /// The TLS settings of a service, read once per config.
    fn client_tls(&self, generation: u64, service: ServiceIx, tls: &ServiceTls, protocol: Protocol) -> Option<Arc<ClientTls>> {
        let mut cache = self.client_tls.borrow_mut();
        if cache.0 != generation {
            *cache = (generation, HashMap::new());
        }
        let build = || match ClientTls::build(tls, protocol) {
            Ok(client) => Some(Arc::new(client)),
            Err(e) => {
                tracing::error!("TLS towards a service cannot be set up: {e}");
                None
            }
        };
        cache.1.entry(service).or_insert_with(build).clone()
    }

    /// Whether connections are to close as soon as they have nothing to do.
    pub(crate) fn draining(&self) -> bool {
        self.draining.get()
    }

    /// Enter a connection's task, to be woken when the worker drains.
    pub(crate) fn enter(self: &Rc<Self>, waker: Waker) -> Presence {
        let mut present = self.present.borrow_mut();
        let place = present.free.pop().unwrap_or_else(|| {
            present.wakers.push(None);
            present.wakers.len() - 1
        });
        present.wakers[place] = Some(waker);
        self.connections.fetch_add(1, Relaxed);
        Presence { worker: self.clone(), place }
    }
}

/// The tasks of a worker's connections.
#[derive(Default)]
struct Present {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

/// A connection of a worker; leaves when dropped.
pub(crate) struct Presence {
    worker: Rc<Worker>,
    place: usize,
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut present = self.worker.present.borrow_mut();
        present.wakers[self.place] = None;
        present.free.push(self.place);
        self.worker.connections.fetch_sub(1, Relaxed);
    }
}

/// Close idle connections to endpoints that ended, or whose endpoint or epoch is gone; open those that are to be kept warm.
async fn housekeep(worker: Rc<Worker>) {
    loop {
        let picture = worker.picture();
        let topology = picture.view.topology();
        let live: HashMap<u64, u32> = (0..topology.endpoints.len())
            .map(|i| (picture.cells.endpoint(i.into()).cell_id(), picture.view.pools[topology.endpoints[i].pool.at()].epoch))
            .collect();
        worker.upstream.sweep();
        worker.upstream.retain(|id, epoch| live.get(&id) == Some(&epoch));
        for i in 0..topology.endpoints.len() {
            if let Some(target) = cold(&worker, &picture, i.into()) {
                let worker = worker.clone();
                // What cannot be opened is tried again at the next round; whether an endpoint is well is for probes and requests to say.
                spawn_local(async move { worker.upstream.warm(&target).await });
            }
        }
        drop(picture);
        tokio::time::sleep(HOUSEKEEPING).await;
    }
}

/// Where connections are missing that are to be kept warm. Not to endpoints that are out, and not where the name asked for
/// in the TLS handshake is the request's own.
fn cold(worker: &Worker, picture: &Picture, e: EndpointIx) -> Option<Target> {
    let topology = picture.view.topology();
    let pool = topology.endpoints[e.at()].pool;
    let by_name = topology.services[topology.pools[pool.at()].service.at()].tls.as_ref().is_some_and(|t| t.sni.is_none());
    if by_name || picture.view.pools[pool.at()].dead || picture.cells.endpoint(e).out(clock::now()) {
        return None;
    }
    worker.target(picture, e, || "").filter(|t| worker.upstream.idle(t.id) < t.idle.warm)
}

/// Accept at every door there is and comes to be.
async fn accept_all(worker: Rc<Worker>, mut doors: tokio::sync::mpsc::UnboundedReceiver<Arc<Door>>) {
    while let Some(door) = doors.recv().await {
        spawn_local(accept(worker.clone(), door));
    }
}

async fn accept(worker: Rc<Worker>, door: Arc<Door>) {
    let listener = match door.listener() {
        Ok(listener) => listener,
        Err(e) => return tracing::error!("listener {}: a worker cannot accept there: {e}", door.address),
    };
    loop {
        let next = async {
            let permit = door.permits.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            next = next => next,
            () = door.closed() => return,
        };
        match (permit, accepted) {
            (Ok(permit), Ok((socket, peer))) => {
                let guest = connection::Guest::new(peer.ip(), door.settings());
                let place = connection::Place::new(&door, permit);
                spawn_local(connection::serve(worker.clone(), socket, guest, place));
                // Let the other workers have theirs: a burst is shared out better one at a time.
                tokio::task::yield_now().await;
            }
            (Err(_), _) => return,
            (_, Err(e)) if judge(&e) == Accept::Rest => {
                tracing::warn!("listener {}: accepting rests for {} ms: {e}", door.address, REST.as_millis());
                tokio::time::sleep(REST).await;
            }
            (_, Err(_)) => {}
        }
    }
}
