//! From a changed file to one new picture: check, bind what is new, ask the controller, go over.
//!
//! Nothing changes before everything that can fail has succeeded; then all of it changes. Whoever asks
//! ([`Reloads::ask`]: SIGHUP, the admin API) and the file itself (`config::watch`) stand in one line.

use crate::clock;
use crate::config::watch::{Ask, watch};
use crate::config::{self, Loaded, Problems};
use crate::discover::Discovery;
use crate::edge::listener::Listeners;
use crate::live::{Inbox, Published};
use crate::model::event::Actor;
use crate::model::topology::{Service, Topology};
use crate::upstream::tls::ClientTls;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// What changed, one line each; or every problem, and then nothing changed.
pub type Answer = Result<Vec<String>, Vec<String>>;

/// How often it is looked whether there are names to follow.
const NAMES: Duration = Duration::from_secs(1);
/// How often the certificates' files are looked at.
const CERTIFICATES: Duration = Duration::from_secs(5);

/// Asks for the config file to be read again.
#[derive(Clone)]
pub struct Reloads(mpsc::Sender<Ask>);

impl Reloads {
    /// Reads it again now, changed or not.
    pub async fn ask(&self, by: Actor) -> Answer {
        let (reply, answer) = oneshot::channel();
        let _ = self.0.send(Ask { by, reply }).await;
        answer.await.unwrap_or_else(|_| Err(vec!["the proxy is shutting down".into()]))
    }
}

/// Applies configs.
pub struct Reloader {
    /// The file.
    pub path: PathBuf,
    /// The way to the controller.
    pub inbox: Inbox,
    /// The newest picture.
    pub published: Arc<Published>,
    /// The sockets.
    pub listeners: Arc<Listeners>,
    /// What else follows a config: logs, journal.
    pub apply: Box<dyn Fn(&Topology) + Send + Sync>,
    /// Addresses of pools that have a name instead. Held while a config is applied: one at a time.
    pub discovery: tokio::sync::Mutex<Discovery>,
}

impl Reloader {
    /// Applies configs from now on, on this thread's `LocalSet`.
    pub fn start(self) -> Reloads {
        let (asks, asked) = mpsc::channel(1);
        let text = self.published.load().view.config.source.text.clone();
        let this = Rc::new(self);
        tokio::task::spawn_local(this.clone().follow_names());
        tokio::task::spawn_local(
            async move { watch(this.path.clone(), &text, asked, async |loaded, by| this.go_over(loaded, by).await).await },
        );
        Reloads(asks)
    }

    /// Applies the config in force anew whenever a name has other addresses.
    async fn follow_names(self: Rc<Self>) {
        loop {
            let due = self.discovery.lock().await.due().min(clock::now() + NAMES);
            clock::sleep_until(due).await;
            if !self.discovery.lock().await.refresh().await {
                continue;
            }
            let source = self.published.load().view.config.source.clone();
            let again = config::parse(&source.text, &source.path);
            match self.go_over(again, Actor::Evenkeel).await {
                Ok(changes) => tracing::info!("dns: {}", changes.join("; ")),
                Err(problems) => tracing::error!("dns: other addresses cannot be applied: {}", problems.join("; ")),
            }
        }
    }

    async fn go_over(&self, loaded: Result<Loaded, Problems>, by: Actor) -> Answer {
        let answer = self.try_to(loaded, by.clone()).await;
        if let Err(problems) = &answer {
            self.inbox.rejected(by, problems.clone());
        }
        answer
    }

    async fn try_to(&self, loaded: Result<Loaded, Problems>, by: Actor) -> Answer {
        let mut loaded = loaded.map_err(|p| p.headlines())?;
        let mut discovery = self.discovery.lock().await;
        discovery.place(&mut loaded.checked.topology).await;
        let old = self.published.load_full().view.config.clone();
        let warnings = loaded.checked.warnings.headlines();
        let config = Arc::new(loaded.compile(old.generation + 1));
        upstream_tls(&config.topology)?;
        let doors = self.listeners.prepare(&config.topology)?;
        let mut changes = self.inbox.reload(config.clone(), by).await.map_err(|refused| vec![refused.to_string()])?;
        doors.commit();
        (self.apply)(&config.topology);
        warnings.iter().for_each(|w| tracing::warn!("{w}"));
        if old.topology.edge.threads != config.topology.edge.threads {
            changes.push(format!("edge.threads: {} from the next start on", config.topology.edge.threads));
        }
        Ok(changes)
    }
}

/// Whether the files that services name for TLS can be used. Workers and prober read them again, each for itself.
pub fn upstream_tls(t: &Topology) -> Result<(), Vec<String>> {
    let wrong = |s: &Service| Some(format!("services.{}: {}", s.name, ClientTls::build(s.tls.as_ref()?, s.protocol).err()?));
    let problems: Vec<_> = t.services.iter().filter_map(wrong).collect();
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// Takes over certificates whose files change though the config does not.
pub async fn renew_certificates(listeners: Arc<Listeners>) {
    loop {
        tokio::time::sleep(CERTIFICATES).await;
        let listeners = listeners.clone();
        let problems = tokio::task::spawn_blocking(move || listeners.refresh_certificates()).await.unwrap_or_default();
        problems.iter().for_each(|p| tracing::error!("{p}"));
    }
}
