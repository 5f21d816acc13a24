//! The journal: what happened, on disk, so that it can be told after the outage.
//!
//! **Form.** A directory of segments `journal-000001.jsonl`, `journal-000002.jsonl`, … of JSON lines,
//! one [`Record`] each: an event with the wall clock and the name of the edge. Lines are only ever
//! appended. Files are 0600: reasons given by operators and names of hosts are nobody else's business.
//!
//! **Never in the way.** [`Journal::record`] puts a record into a bounded queue and returns; a thread
//! of its own writes and syncs. When the disk is full, slow or gone, records are lost, counted, and
//! the next record that reaches the disk says how many (`"lost": n`). It does not block, it does not
//! grow, and it does not stop the proxy.
//!
//! **Bounded.** A segment is closed when it is a sixteenth of `max_bytes` or of `keep` old; the oldest
//! segments go when the whole would pass `max_bytes`, or when their last record is older than `keep`.
//!
//! **Torn and corrupt lines.** A crash can cut the last line. Whoever opens the segment next ends that
//! line first, so it costs itself and nothing else; the [`Reader`] skips what it cannot read and counts it.
//!
//! What it does not do: it is no ledger of requests (metrics and the access log are), and it does not
//! promise the last second before a power loss: it syncs after each burst, not before each answer.

mod follow;
mod read;
mod write;

pub use follow::follow;
pub use read::{Filter, Reader, Tail, read};
pub use write::{Journal, Settings, Stats};

use crate::model::event::Event;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Wall clock, RFC 3339 in UTC with microseconds.
    #[serde(with = "rfc3339")]
    pub time: Timestamp,
    /// Which edge.
    pub edge: String,
    /// Records lost right before this one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for it
fn is_zero(n: &u64) -> bool {
    *n == 0
}

mod rfc3339 {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(t: &Timestamp, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&crate::clock::stamp(*t))
    }
    pub fn deserialize<'d, D: Deserializer<'d>>(d: D) -> Result<Timestamp, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

/// The segments of a directory, oldest first, with their numbers. No directory: none.
fn segments(dir: &Path) -> std::io::Result<Vec<(u64, PathBuf)>> {
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let number =
            path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_prefix("journal-")?.strip_suffix(".jsonl")?.parse().ok());
        if let Some(number) = number {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("journal-{number:06}.jsonl"))
}

#[cfg(test)]
mod tests;
