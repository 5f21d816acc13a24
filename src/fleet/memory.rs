//! What an edge knows of its fleet when NATS is away: `fleet.json` in `edge.state_dir`.
//!
//! The last known orders (the controller keeps those in force itself, in `overrides.json`; here are their revisions, so that
//! a store that lost them gets them back), the orders given here that the fleet has not heard yet, and how many edges there
//! were, so that a fleet that boots without NATS does not offer a region everybody's share from everybody.

use super::order::{About, Standing};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The file's name.
const FILE: &str = "fleet.json";

/// An order and its revision in the fleet's store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// What it says.
    pub standing: Standing,
    /// 0: not there yet.
    pub revision: u64,
}

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Live edges, this one among them.
    pub edges: u32,
    /// Orders by key, as last heard.
    pub orders: BTreeMap<String, Entry>,
    /// Given here while NATS was away, on top of this revision.
    pub pending: BTreeMap<String, Entry>,
}

impl Memory {
    /// As it was kept last.
    pub fn read(dir: &Path) -> Self {
        let path = dir.join(FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).unwrap_or_else(|e| {
                tracing::warn!("{} cannot be understood, the fleet is asked afresh: {e}", path.display());
                Self::default()
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(e) => {
                tracing::warn!("cannot read {}, the fleet is asked afresh: {e}", path.display());
                Self::default()
            }
        }
    }
    /// Keeps it. On a thread of the runtime that may wait for the disk.
    pub async fn keep(&self, dir: PathBuf) {
        let text = serde_json::to_string_pretty(self).expect("memory is plain data");
        let wrote = tokio::task::spawn_blocking(move || write(&dir, &text).map_err(|e| (dir, e))).await;
        if let Ok(Err((dir, e))) = wrote {
            tracing::error!("cannot write {}: {e}; check edge.state_dir and the disk", dir.join(FILE).display());
        }
    }
    /// The orders about something: what the fleet last said, or what waits here to be told.
    pub fn of(&self, about: &About) -> Option<&Entry> {
        let key = about.key();
        self.pending.get(&key).or_else(|| self.orders.get(&key))
    }
}

fn write(dir: &Path, text: &str) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let next = dir.join(format!(".{FILE}.new"));
    let mut file = std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&next)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&next, dir.join(FILE))
}
