//! `edge.state_dir`: overrides (`overrides.json`) and the last config that was applied (`last-good.yaml`).
//!
//! Written by a thread of its own, each file whole: to a temporary name, synced, renamed. A slow or full
//! disk delays nobody; what could not be written is told in the log and tried again with the next change.
//! Files are 0600: a config may name what is nobody else's business.

use super::Overrides;
use crate::model::view::Source;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use tokio::sync::oneshot;

const OVERRIDES: &str = "overrides.json";
const LAST_GOOD: &str = "last-good.yaml";

enum Work {
    Write(&'static str, Arc<str>),
    Tell(oneshot::Sender<()>),
}

/// A handle to the writing thread of a state directory.
pub struct Store {
    dir: PathBuf,
    work: Sender<Work>,
}

/// Where the copy of the last applied config lies.
pub fn last_good_path(state_dir: &Path) -> PathBuf {
    state_dir.join(LAST_GOOD)
}

impl Store {
    /// Starts the thread.
    pub fn start(dir: PathBuf) -> io::Result<Self> {
        let (work, todo) = channel();
        let at = dir.clone();
        std::thread::Builder::new().name("state".into()).spawn(move || {
            for work in todo {
                match work {
                    Work::Write(name, text) => {
                        if let Err(e) = replace(&at, name, &text) {
                            let path = at.join(name);
                            tracing::error!("cannot write {}: {e}; check edge.state_dir and the disk", path.display());
                        }
                    }
                    Work::Tell(done) => drop(done.send(())),
                }
            }
        })?;
        Ok(Self { dir, work })
    }

    /// Keep these orders.
    pub(super) fn overrides(&self, o: &Overrides) {
        let text = serde_json::to_string_pretty(o).expect("overrides are plain data");
        let _ = self.work.send(Work::Write(OVERRIDES, text.into()));
    }

    /// Keep this config for `--last-good`.
    pub(super) fn last_good(&self, source: &Source) {
        let _ = self.work.send(Work::Write(LAST_GOOD, source.text.clone()));
    }

    /// Answers once everything handed over so far is on disk, or could not be written.
    pub(super) fn when_written(&self, done: oneshot::Sender<()>) {
        let _ = self.work.send(Work::Tell(done));
    }

    /// The orders as they were kept last; none were: none.
    pub(super) fn read_overrides(&self) -> Result<Overrides, String> {
        let path = self.dir.join(OVERRIDES);
        match std::fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).map_err(|e| format!("{} cannot be understood: {e}", path.display())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Overrides::default()),
            Err(e) => Err(format!("cannot read {}: {e}", path.display())),
        }
    }
}

fn replace(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    let path = dir.join(name);
    if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    std::fs::create_dir_all(dir)?;
    let next = dir.join(format!(".{name}.new"));
    let mut file = std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&next)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&next, &path)?;
    std::fs::File::open(dir)?.sync_all()
}
