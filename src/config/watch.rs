//! The config file's changes, as they happen.
//!
//! Watched is the *folder*, as files are replaced rather than written: an editor and a careful script rename a new file over
//! the old one, and a Kubernetes ConfigMap swaps a link (`..data`) that the file's own link leads through; after either, a
//! watch on the file itself would look at what is gone. Where links lead elsewhere, the folders they lead to are watched, too.
//! An event says only "look": the text decides. Nothing that leaves it the same (touch, chmod, a neighbour's change) goes on.
//!
//! | time | why |
//! |---|---|
//! | 20 ms of quiet, at most 100 ms | several writes are one change, and new weights rule within 200 ms of it |
//! | 2 s | who asks for what was applied so shortly ago (SIGHUP after a write) is told what came of it, and it is not applied again |
//! | every 2 s | a look without any event, for file systems that send none (NFS, some overlays) |
//!
//! Not done here: applying, and remembering errors. The caller gets each text once, good or bad.

use super::{Loaded, Problems};
use crate::clock;
use crate::model::event::Actor;
use crate::model::time::Moment;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

const QUIET: Duration = Duration::from_millis(20);
const LATEST: Duration = Duration::from_millis(100);
const POLL: Duration = Duration::from_secs(2);
const ONCE: Duration = Duration::from_secs(2);

/// Hands every new text of the file to `apply`, for ever. `text` is what is in force.
///
/// `reread` asks for a look without a change (SIGHUP, `POST /v1/reload`): then the text goes on even if it is the same,
/// unless it went on just now.
pub async fn watch(
    path: PathBuf,
    text: &str,
    mut reread: mpsc::Receiver<Ask>,
    mut apply: impl AsyncFnMut(Result<Loaded, Problems>, Actor) -> Answer,
) {
    let (tell, mut told) = mpsc::channel(1);
    let mut eyes = Eyes::open(tell);
    let mut known = Known::Text(hash(text));
    // The first look is at once: the file may have changed since `text` was read.
    let mut patience = Duration::ZERO;
    let mut last: Option<(Moment, Answer)> = None;
    loop {
        let asked = tokio::select! {
            ask = reread.recv() => match ask {
                Some(ask) => Some(ask),
                None => return,
            },
            _ = timeout(patience, told.recv()) => {
                settle(&mut told).await;
                // Who changes a file and asks at once is who did it.
                reread.try_recv().ok()
            }
        };
        patience = POLL;
        // Before the look, so that no change falls between the two.
        eyes.follow(&path);
        // A file that is gone for a moment (between unlink and create) is not worth a word before it stays away.
        let read = match super::read_text(&path) {
            Err(_) if asked.is_none() && known != Known::Missing => {
                tokio::time::sleep(LATEST).await;
                super::read_text(&path)
            }
            read => read,
        };
        let now = read.as_ref().map_or(Known::Missing, |text| Known::Text(hash(text)));
        if now == known && asked.is_none() {
            continue;
        }
        let fresh = last.as_ref().filter(|(at, _)| now == known && clock::now().since(*at) < ONCE);
        let answer = match fresh {
            Some((_, answer)) => answer.clone(),
            None => {
                let by = asked.as_ref().map_or(Actor::File, |ask| ask.by.clone());
                let answer = apply(read.and_then(|text| super::parse(&text, &path)), by).await;
                last = Some((clock::now(), answer.clone()));
                answer
            }
        };
        known = now;
        if let Some(ask) = asked {
            let _ = ask.reply.send(answer);
        }
    }
}

/// What came of a text: what changed, one line each, or every problem.
pub type Answer = Result<Vec<String>, Vec<String>>;

/// Somebody wants the file to be read again now, and to know what came of it.
pub struct Ask {
    /// Who.
    pub by: Actor,
    /// Gets what came of it.
    pub reply: tokio::sync::oneshot::Sender<Answer>,
}

/// What was last handed on.
#[derive(PartialEq)]
enum Known {
    Text(u64),
    Missing,
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// Waits until events stop coming.
async fn settle(told: &mut mpsc::Receiver<()>) {
    let quiet = async { while let Ok(Some(())) = timeout(QUIET, told.recv()).await {} };
    let _ = timeout(LATEST, quiet).await;
}

/// The folders that are watched at the moment.
struct Eyes {
    watcher: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
    /// Without a watcher nobody else would hold the channel open, and its end would be heard all the time.
    _alive: mpsc::Sender<()>,
}

impl Eyes {
    /// Without a watcher (no inotify instances left) polling must do.
    fn open(tell: mpsc::Sender<()>) -> Self {
        let alive = tell.clone();
        let on_event = move |event: notify::Result<notify::Event>| {
            if !event.is_ok_and(|e| matches!(e.kind, EventKind::Access(_))) {
                // Full: a look is coming anyhow.
                let _ = tell.try_send(());
            }
        };
        let watcher = notify::recommended_watcher(on_event);
        if let Err(e) = &watcher {
            tracing::warn!("config: no file events ({e}); the file is looked at every {POLL:?}");
        }
        Self { watcher: watcher.ok(), folders: BTreeSet::new(), _alive: alive }
    }

    /// Watches the folders on the way to the file as it leads now.
    fn follow(&mut self, path: &Path) {
        let Some(watcher) = &mut self.watcher else { return };
        let wanted = folders(path);
        for gone in self.folders.difference(&wanted) {
            let _ = watcher.unwatch(gone);
        }
        // Only what is watched in fact is remembered, so that a folder that is not there yet is tried again.
        let watched = |folder: &&PathBuf| self.folders.contains(*folder) || watcher.watch(folder, RecursiveMode::NonRecursive).is_ok();
        self.folders = wanted.iter().filter(watched).cloned().collect();
    }
}

/// The folder of the file, and of everything that its links lead to.
fn folders(path: &Path) -> BTreeSet<PathBuf> {
    let mut all = BTreeSet::new();
    let mut next = Some(path.to_owned());
    // More links than this are a circle (Linux gives up at 40, too).
    for _ in 0..40 {
        let Some(file) = next else { break };
        let folder = match file.parent() {
            Some(p) if !p.as_os_str().is_empty() => p.to_owned(),
            _ => PathBuf::from("."),
        };
        next = std::fs::read_link(&file).ok().map(|target| folder.join(target));
        if let Ok(real) = folder.canonicalize() {
            all.insert(real);
        }
        // A link further up (`..data`) is swapped in its own folder.
        let up = folder.ancestors().find(|a| a.is_symlink()).and_then(Path::parent);
        all.extend(up.and_then(|u| u.canonicalize().ok()));
    }
    all
}

#[cfg(test)]
mod tests;
