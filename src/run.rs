//! The composition root: the only file that knows every room.
//!
//! ```text
//! thread      runs
//! main        signals, file watch, reloads, the admin API, journal and access log (one small runtime)
//! control     the control task: ticks of 10 ms that nothing else may delay
//! probe       the probes
//! worker-N    requests
//! state, journal, log …   write to the disk, one thread each; nobody waits for them
//! traces      sends spans of sampled requests to a collector; nobody waits for it
//! spool       writes that no region takes; the clients whose writes these are wait for the disk, nobody else does
//! ```
//!
//! **Beginning.** Config, logs, cells and the first picture, sockets, then threads: what can fail (a bad config, a taken
//! port) fails before anything runs, with exit code 2 and in words. With `--last-good` a bad file is replaced by the
//! copy of the last one that was applied.
//!
//! **Leaving** (SIGTERM, SIGINT): `/readyz` says 503 at once; after `edge.shutdown_delay` the listeners close; requests in flight
//! get `edge.drain_timeout` to come to their end. A second signal ends the waiting. SIGUSR2 starts the program again, which takes
//! over ([`takeover`]); this process then leaves likewise.

mod access;
mod reload;
mod system;
mod takeover;
mod traces;

use crate::admin;
use crate::config::{self, Loaded, Problems};
use crate::control::{Control, store};
use crate::discover::Discovery;
use crate::edge::{self, Edge};
use crate::journal::{self, Journal};
use crate::ledger::{self, Ledger};
use crate::live::{self, Beats, Inbox, Published};
use crate::model::event::{Actor, EventKind};
use crate::model::time::Duration;
use crate::model::topology::Topology;
use crate::spool::{self, Spool};
use crate::steer::purge::Pattern;
use crate::{clock, fleet, logging, probe};
use reload::Reloader;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use system::{Asked, Signals};
use takeover::{Counter, Estate, Predecessor};
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

/// How to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The config file.
    pub config: PathBuf,
    /// Start from the copy of the last applied config, should the file be bad.
    pub last_good: bool,
    /// Take the listening sockets over from the process that holds the state directory.
    pub takeover: bool,
}

/// Why it cannot run: what went wrong, and what to do next.
#[derive(Debug)]
pub struct CannotRun {
    /// What went wrong; may have many lines.
    pub what: String,
    /// What to do next.
    pub next: &'static str,
}

impl CannotRun {
    fn new(what: impl ToString, next: &'static str) -> Self {
        Self { what: what.to_string(), next }
    }
}

/// How long the end of the process waits for a slow disk or log reader.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Runs the proxy in the foreground until a signal ends it.
pub fn run(options: &Options) -> Result<(), CannotRun> {
    let house = House::build(options)?;
    let signals = house.runtime.block_on(async { Signals::new() }).map_err(|e| CannotRun::new(format!("signals: {e}"), ""))?;
    house.live(signals);
    Ok(())
}

/// A proxy on threads of its own, inside another program (demo, tests).
pub struct Proxy {
    stop: mpsc::UnboundedSender<Asked>,
    thread: JoinHandle<()>,
}

/// Starts a proxy on threads of its own. It listens when this returns.
pub fn spawn(config: &Path) -> Result<Proxy, String> {
    let options = Options { config: config.to_owned(), ..Options::default() };
    let house = House::build(&options).map_err(|e| e.what)?;
    let (stop, asked) = mpsc::unbounded_channel();
    let live = move || house.live(Signals::from(asked));
    let thread = std::thread::Builder::new().name("evenkeel".into()).spawn(live).map_err(|e| e.to_string())?;
    Ok(Proxy { stop, thread })
}

impl Proxy {
    /// Asks it to drain and leave, as SIGTERM does.
    pub fn stop(&self) {
        let _ = self.stop.send(Asked::Leave);
    }
    /// Asks it to read its config again, as SIGHUP does.
    pub fn reload(&self) {
        let _ = self.stop.send(Asked::Reload);
    }
    /// Whether it has left.
    pub fn stopped(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Everything that runs.
struct House {
    /// The threads of control and probes end when this is dropped.
    alive: watch::Sender<()>,
    runtime: tokio::runtime::Runtime,
    edge: Edge,
    inbox: Inbox,
    published: Arc<Published>,
    reloader: Reloader,
    records: mpsc::Receiver<edge::access::Record>,
    admin: Option<tokio::net::TcpListener>,
    /// A second handle to it, for a successor.
    admin_socket: Option<Arc<(SocketAddr, TcpListener)>>,
    predecessor: Option<Predecessor>,
    /// Where a successor may ask; `None`: this process is inside another program, or there is no place.
    counter: Option<Counter>,
    journal: Journal,
    spool: Spool,
    log: Arc<logging::Log>,
    access: logging::access::Access,
    traces: traces::Exporter,
    spans: Arc<edge::trace::Stats>,
}

impl House {
    fn build(options: &Options) -> Result<Self, CannotRun> {
        let (mut loaded, passed_over) = load(options)?;
        let warnings = loaded.checked.warnings.headlines();
        let log = Arc::new(logging::start(&loaded.checked.topology.logging));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| CannotRun::new(format!("cannot start a runtime: {e}"), ""))?;
        let mut discovery = Discovery::new();
        runtime.block_on(discovery.place(&mut loaded.checked.topology));
        let config = Arc::new(loaded.compile(1));
        let t = &config.topology;
        if let Some(bad) = passed_over {
            let problems = bad.headlines().join("\n");
            tracing::error!("the config file is bad, started from the copy of the last one that was applied: {problems}");
        }
        warnings.iter().for_each(|w| tracing::warn!("{w}"));
        reload::upstream_tls(t).map_err(|problems| CannotRun::new(problems.join("\n"), "mend the files or the config"))?;
        match system::raise_file_limit() {
            Ok(limit) => tracing::debug!("up to {limit} files and connections"),
            Err(e) => tracing::warn!("the limit of open files stays as it was: {e}"),
        }
        let _ = rustls::crypto::ring::default_provider().install_default();

        let Estate { listeners: inherited, admin: socket, predecessor } = estate(options, t)?;
        let admin = runtime.block_on(async { admin::bind_or(t, socket) }).map_err(|e| CannotRun::new(e, "choose another admin.address"))?;
        let admin_socket = admin.as_ref().and_then(|a| {
            let socket = TcpListener::from(rustix::io::dup(a).ok()?);
            Some(Arc::new((socket.local_addr().ok()?, socket)))
        });

        let thread = |e: std::io::Error| CannotRun::new(format!("cannot start a thread: {e}"), "check the limit of threads (ulimit -u)");
        let (inbox, letters) = live::inbox();
        let beats = Arc::new(Beats::new(t.edge.threads));
        let state = store::Store::start(t.edge.state_dir.clone()).map_err(thread)?;
        let journal = Journal::start(journal::Settings::of(t));
        runtime.spawn(journal::follow(inbox.events(), Some(journal.clone())));
        let control = Control::new(config.clone(), inbox.clone(), beats.clone(), state, clock::dice());
        let published = control.published();

        let spool = Spool::start(spool::Settings::of(t), Box::new(on_record(inbox.clone()))).map_err(thread)?;
        let (access_log, records) = edge::access::channel();
        let (outbox, recorded) = edge::trace::channel();
        let spans = outbox.stats().clone();
        let traces = traces::Exporter::start(t, recorded, spans.clone()).map_err(thread)?;
        let setup = edge::Setup { published: published.clone(), beats, access: access_log, traces: outbox, spool: Some(spool.clone()) };
        let edge = Edge::start(&setup, t.edge.threads).map_err(thread)?;
        edge.copies().open(t);
        edge.listeners().inherit(inherited);
        if let Err(problems) = edge.listeners().apply(t) {
            edge.stop();
            return Err(CannotRun::new(
                problems.join("\n"),
                "stop what listens there, choose another address, or take it over (--takeover)",
            ));
        }
        for at in edge.listeners().disown() {
            tracing::warn!("a listening socket for {at} was handed to this process, but no listener is configured there: closed");
        }
        let counter = runtime.block_on(async { Counter::open(&t.edge.state_dir) });
        let counter = counter.map_err(|e| tracing::warn!("no --takeover from this process: {}: {e}", t.edge.state_dir.display())).ok();
        let alive = watch::Sender::new(());
        on_a_thread("control", &alive, move || control.run(letters)).map_err(thread)?;
        on_a_thread("probe", &alive, {
            let (published, inbox) = (published.clone(), inbox.clone());
            move || probe::run(published, inbox)
        })
        .map_err(thread)?;

        let access = logging::access::Access::start(t.logging.access.as_ref());
        let apply = {
            let (log, access, journal, spool) = (log.clone(), access.clone(), journal.clone(), spool.clone());
            let (collector, copies) = (traces.apply(), edge.copies().clone());
            move |t: &Topology| {
                log.apply(&t.logging);
                access.apply(t.logging.access.as_ref());
                collector(t);
                journal.reconfigure(journal::Settings::of(t));
                spool.configure(spool::Settings::of(t));
                copies.configure(t);
            }
        };
        let reloader = Reloader {
            path: options.config.clone(),
            inbox: inbox.clone(),
            published: published.clone(),
            listeners: edge.listeners().clone(),
            apply: Box::new(apply),
            discovery: discovery.into(),
        };
        tell_where(t, &options.config);
        Ok(Self {
            alive,
            runtime,
            edge,
            inbox,
            published,
            reloader,
            records,
            admin,
            admin_socket,
            predecessor,
            counter,
            journal,
            spool,
            log,
            access,
            traces,
            spans,
        })
    }

    /// Lives until it is asked to leave, and leaves.
    fn live(self, mut signals: Signals) {
        let Self { alive, runtime, edge, inbox, published, reloader, records, admin, journal, spool, log, access, traces, spans, .. } =
            self;
        let (admin_socket, predecessor, counter) = (self.admin_socket, self.predecessor, self.counter);
        let leaving = Arc::new(AtomicBool::new(false));
        let (doors, certificates) = (edge.listeners().clone(), edge.listeners().clone());
        let (ledger, copies) = (Ledger::default(), edge.copies().clone());
        let state_dir = published.load().view.topology().edge.state_dir.clone();
        LocalSet::new().block_on(&runtime, async {
            let reloads = reloader.start();
            let again = reloads.clone();
            let (others, fleet_task) = fleet::fleet(inbox.clone(), published.clone(), {
                let spool = spool.clone();
                move |edges| spool.share_among(edges)
            });
            let fleet_task = tokio::task::spawn_local(fleet_task);
            let context = admin::Context {
                inbox: inbox.clone(),
                published: published.clone(),
                reload: Box::new(move |by| {
                    let again = again.clone();
                    Box::pin(async move { again.ask(by).await })
                }),
                journal: Some(journal.clone()),
                ledger: ledger.clone(),
                spool: Some(spool.clone()),
                fleet: Some(others),
                leaving: leaving.clone(),
                connections: Box::new(move || doors.doors().iter().map(|d| (d.address.to_string(), d.open().into())).collect()),
                purge: Arc::new({
                    let copies = copies.clone();
                    move |pattern: &Pattern| copies.purge(pattern)
                }),
                copies: Box::new({
                    let copies = copies.clone();
                    move || copies.held()
                }),
                certificates: Box::new(move || certificates.expiries()),
                spans: Box::new(move || spans.all()),
            };
            tokio::spawn(ledger::run(ledger.clone(), inbox.clone(), published.clone()));
            let admin = tokio::spawn(admin::run(context, admin));
            tokio::spawn(access::follow(records, access.clone()));
            tokio::spawn(reload::renew_certificates(edge.listeners().clone()));
            if let Some(predecessor) = predecessor {
                predecessor.relieve();
            }
            system::ready();
            let mut relieved = std::pin::pin!(async {
                match counter {
                    Some(counter) => counter.relieved(edge.listeners().clone(), admin_socket).await,
                    None => std::future::pending().await,
                }
            });
            let handed_over = loop {
                let asked = tokio::select! {
                    () = &mut relieved => break true,
                    asked = signals.next() => asked,
                };
                match asked {
                    Asked::Leave => break false,
                    Asked::Upgrade => match system::start_successor() {
                        Ok(id) => tracing::info!("asked to upgrade: process {id} is to take over"),
                        Err(e) => tracing::error!("asked to upgrade, but the program cannot be started again: {e}"),
                    },
                    Asked::Reload => {
                        access.reopen();
                        // Refusals are on record through the controller's event.
                        let _ = reloads.ask(Actor::Operator("SIGHUP".into())).await;
                    }
                }
            };
            leaving.store(true, Relaxed);
            if handed_over {
                tracing::info!("another process has taken over: what is in flight comes to its end here");
                admin.abort();
            } else {
                system::stopping();
            }
            leave(&edge, &inbox, &published, &mut signals, handed_over).await;
            // It has said farewell since the controller put our leaving on record.
            let _ = tokio::time::timeout(LAST_WORDS, fleet_task).await;
        });
        edge.stop();
        traces.finish(LAST_WORDS);
        copies.close();
        spool.stop(LAST_WORDS);
        drop(alive);
        ledger.write(&state_dir);
        journal.flush(LAST_WORDS);
        access.flush(LAST_WORDS);
        log.flush(LAST_WORDS);
    }
}

/// What the spool has to tell, on its way to the controller, which makes events of it.
fn on_record(inbox: Inbox) -> impl Fn(spool::Told) {
    move |told| match told {
        spool::Told::Spooling { on, entries } => {
            inbox.note(clock::now(), Actor::Evenkeel, EventKind::Spooling { on, entries: entries as u64 })
        }
        spool::Told::Open { why } => inbox.note(clock::now(), Actor::Evenkeel, EventKind::Spool { up: why.is_none(), why }),
        spool::Told::Settled { route, state, count, id, by } => {
            inbox.note(clock::now(), by, EventKind::SpoolWrites { route, state: state.label().into(), count: count as u64, id });
        }
    }
}

/// Drains: what is in flight comes to its end, or to the end of our patience.
async fn leave(edge: &Edge, inbox: &Inbox, published: &Published, signals: &mut Signals, handed_over: bool) {
    let picture = published.load_full();
    let settings = &picture.view.topology().edge;
    let drained = async {
        // Nobody has to be told to go elsewhere when elsewhere is here.
        if !handed_over {
            tokio::time::sleep(settings.shutdown_delay).await;
        }
        edge.drain();
        tokio::time::timeout(settings.drain_timeout, edge.drained()).await.is_ok()
    };
    let on_record = tokio::time::timeout(LAST_WORDS, inbox.leaving());
    let asked_again = async { while signals.next().await != Asked::Leave {} };
    tokio::select! {
        (all, _) = async { tokio::join!(drained, on_record) } => if !all {
            tracing::warn!("{} connections are cut off: they are still busy after edge.drain_timeout", edge.connections());
        },
        () = asked_again => tracing::warn!("asked again to leave: {} connections are cut off", edge.connections()),
    }
}

/// Sockets that listen already: another process's, or systemd's.
fn estate(options: &Options, t: &Topology) -> Result<Estate, CannotRun> {
    if options.takeover {
        let asked = takeover::ask(&t.edge.state_dir);
        match asked.map_err(|e| CannotRun::new(e, "stop the other process, then start this one without --takeover"))? {
            Some(estate) => return Ok(estate),
            None => {
                tracing::warn!("nobody holds {}: there is nothing to take over, this process starts afresh", t.edge.state_dir.display())
            }
        }
    }
    let admin = t.admin.as_ref().map(|a| a.address);
    takeover::activated(admin).map_err(|e| CannotRun::new(format!("sockets of systemd's: {e}"), "see deploy/systemd"))
}

/// The config to start with, and what was wrong with the file if it is the copy.
fn load(options: &Options) -> Result<(Loaded, Option<Problems>), CannotRun> {
    let bad = match config::load(&options.config) {
        Ok(loaded) => return Ok((loaded, None)),
        Err(problems) => problems,
    };
    if !options.last_good {
        return Err(CannotRun::new(
            bad,
            "`evenkeel check --config FILE` shows the same; --last-good starts from the last config that was applied",
        ));
    }
    Ok((last_good(&options.config, &bad)?, Some(bad)))
}

/// The copy of the last applied config. Where it lies stands in the bad file, if anywhere: a line that says `state_dir: …`
/// is believed if there is one, else the default is tried.
fn last_good(path: &Path, bad: &Problems) -> Result<Loaded, CannotRun> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let named = text.split_once("state_dir").and_then(|(_, rest)| {
        let value = rest.trim_start_matches(['"', '\'', ':', ' ']).split(['\n', '#', ',', '}']).next()?;
        Some(value.trim().trim_matches(['"', '\'']).to_owned()).filter(|v| !v.is_empty())
    });
    let state_dir = folder.join(named.as_deref().unwrap_or("state"));
    let copy = store::last_good_path(&state_dir);
    let text = std::fs::read_to_string(&copy).map_err(|e| {
        CannotRun::new(format!("{bad}\nand there is no copy of a good one in {}: {e}", copy.display()), "mend the config file")
    })?;
    config::parse(&text, path)
        .map_err(|worse| CannotRun::new(format!("{bad}\nand the copy {} is bad, too:\n{worse}", copy.display()), "mend the config file"))
}

/// A runtime of its own for one task, which ends with the house.
fn on_a_thread<F>(name: &str, alive: &watch::Sender<()>, task: impl FnOnce() -> F + Send + 'static) -> std::io::Result<()>
where
    F: Future<Output = ()> + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut alive = alive.subscribe();
    let run = move || {
        LocalSet::new().block_on(&runtime, async {
            tokio::select! {
                () = task() => {}
                _ = alive.changed() => {}
            }
        });
    };
    std::thread::Builder::new().name(name.into()).spawn(run).map(drop)
}

fn tell_where(t: &Topology, config: &Path) {
    for l in &t.listeners {
        tracing::info!("listening on {}{}", l.address, if l.tls.is_some() { " (TLS)" } else { "" });
    }
    let admin = t.admin.as_ref().map_or("none".into(), |a| format!("http://{}", a.address));
    tracing::info!("config {}, {} worker threads, admin {admin}", config.display(), t.edge.threads);
}
