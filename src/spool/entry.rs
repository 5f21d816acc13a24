//! One write in the spool: what is known of it, and how that is written down.
//!
//! ```text
//!                 ┌── a 2xx, or a redirect after the work was done ──▶ applied
//! kept ─▶ pending ┼── any other 4xx, a repeat of the request ────────▶ refused   (dead letter: credentials that expired, too)
//!           ▲     ├── max_age passed ────────────────────────────────▶ expired   (kept for the operator to see)
//!           │     ├── an operator let it go ─────────────────────────▶ dropped
//!           │     └── its bytes are not what was written ────────────▶ damaged   (never replayed)
//!           └── an operator asks for another try ── refused, expired
//! ```
//!
//! A record is eight bytes of SHA-256 over the rest, and the rest: JSON, so that a later version may add fields and an operator can
//! read a file with plain tools.

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Where a write stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// To be replayed.
    Pending,
    /// A backend has taken it.
    Applied,
    /// A backend refused it for good.
    Refused,
    /// Nobody took it in time.
    Expired,
    /// An operator let it go.
    Dropped,
    /// What is on disk is not what was written there.
    Damaged,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Pending, Self::Applied, Self::Refused, Self::Expired, Self::Dropped, Self::Damaged];

    /// The name in JSON, on status pages and in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Applied => "applied",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::Dropped => "dropped",
            Self::Damaged => "damaged",
        }
    }
    /// Whether the same write sent again gets the same answer. What was given up without an answer of a backend may be tried anew.
    pub fn answers_repeats(self) -> bool {
        matches!(self, Self::Pending | Self::Applied | Self::Refused)
    }
    /// Whether the request itself is still needed: to replay it, or for an operator who decides about it.
    pub fn keeps_request(self) -> bool {
        matches!(self, Self::Pending | Self::Refused | Self::Expired)
    }
}

/// A digest that names a scope, an order or a body: the first half of a SHA-256.
pub type Mark = [u8; 16];

/// The mark of parts, each prefixed with its length, so that no two lists of parts share one by concatenation.
pub fn mark<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Mark {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    half(&context)
}

/// The mark of what a request asks for. How its body came in pieces does not matter.
pub fn fingerprint<'a>(method: &str, target: &str, body: impl IntoIterator<Item = &'a [u8]>) -> Mark {
    let mut context = Context::new(&SHA256);
    context.update(&mark([method.as_bytes(), target.as_bytes()]));
    body.into_iter().for_each(|piece| context.update(piece));
    half(&context)
}

fn half(context: &Context) -> Mark {
    let mut mark = [0; 16];
    mark.copy_from_slice(&context.clone().finish().as_ref()[..16]);
    mark
}

/// A write, as a client handed it in.
#[derive(Clone, Debug)]
pub struct Write {
    /// Its route's name.
    pub route: String,
    /// Its method.
    pub method: String,
    /// Host, path and query: for operators.
    pub target: String,
    /// Who it was, with which key, on which route.
    pub scope: Mark,
    /// What it asked for: method, target, body.
    pub fingerprint: Mark,
    /// Writes of one order are replayed one after the other.
    pub order: Mark,
    /// The jurisdictions that may serve it; `None`: any.
    pub residency: Option<Vec<String>>,
    /// The status it was answered with.
    pub status: u16,
    /// How long it is worth trying, ms.
    pub max_age_ms: u64,
    /// Who sent it, for `X-Forwarded-For`.
    pub client: IpAddr,
    /// What it said about others was believed.
    pub trusted: bool,
    /// It came over TLS.
    pub https: bool,
    /// The whole request, as HTTP/1.1 with a length.
    pub request: Vec<u8>,
}

/// What is known of a write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The order of acceptance.
    pub seq: u64,
    /// 128 unguessable bits, hexadecimal.
    pub id: String,
    /// Where it stands.
    pub state: State,
    /// Its route's name.
    pub route: String,
    /// Its method.
    pub method: String,
    /// Host, path and query.
    pub target: String,
    /// See [`Write::scope`].
    pub scope: Mark,
    /// See [`Write::fingerprint`].
    pub fingerprint: Mark,
    /// See [`Write::order`].
    pub order: Mark,
    /// See [`Write::residency`].
    #[serde(default)]
    pub residency: Option<Vec<String>>,
    /// The status it was answered with.
    pub status: u16,
    /// Unix time, ms.
    pub accepted_at: u64,
    /// Unix time, ms.
    pub expires_at: u64,
    /// When it came to its present state, Unix time, ms; 0: pending since it was accepted.
    #[serde(default)]
    pub settled_at: u64,
    /// What the backend answered last.
    #[serde(default)]
    pub result: Option<u16>,
    /// Why it stands there, in words.
    #[serde(default)]
    pub why: Option<String>,
    /// See [`Write::client`].
    pub client: IpAddr,
    /// See [`Write::trusted`].
    #[serde(default)]
    pub trusted: bool,
    /// See [`Write::https`].
    #[serde(default)]
    pub https: bool,
    /// The request's bytes.
    pub bytes: u64,
    /// Digest of the request's bytes.
    pub digest: Mark,
}

impl Entry {
    /// The record of a write that was accepted `now` (Unix time, ms).
    pub fn of(write: &Write, seq: u64, id: String, now: u64) -> Self {
        Self {
            seq,
            id,
            state: State::Pending,
            route: write.route.clone(),
            method: write.method.clone(),
            target: write.target.clone(),
            scope: write.scope,
            fingerprint: write.fingerprint,
            order: write.order,
            residency: write.residency.clone(),
            status: write.status,
            accepted_at: now,
            expires_at: now.saturating_add(write.max_age_ms),
            settled_at: 0,
            result: None,
            why: None,
            client: write.client,
            trusted: write.trusted,
            https: write.https,
            bytes: write.request.len() as u64,
            digest: mark([&write.request[..]]),
        }
    }

    /// Whether these are the bytes that were accepted.
    pub fn owns(&self, request: &[u8]) -> bool {
        self.digest == mark([request])
    }

    /// Room it takes on disk now, bytes: its pages are rounded up as the store rounds them.
    pub fn cost(&self) -> u64 {
        cost(if self.state.keeps_request() { self.bytes } else { 0 })
    }
}

/// Room that a write of so many bytes takes, record included.
pub fn cost(bytes: u64) -> u64 {
    const RECORD: u64 = 1024;
    const PAGE: u64 = 4096;
    // Small values share a page; a large one has a run of pages of its own, a power of two long.
    RECORD + if bytes <= PAGE / 2 { bytes * 4 / 3 } else { (bytes + 64).next_power_of_two().max(PAGE) }
}

/// An entry as a record.
pub fn encode(entry: &Entry) -> Vec<u8> {
    let mut record = vec![0; 8];
    // Plain data with string keys: this cannot fail.
    let _ = serde_json::to_writer(&mut record, entry);
    let sum = mark([&record[8..]]);
    record[..8].copy_from_slice(&sum[..8]);
    record
}

/// A record as an entry, or what is wrong with it.
pub fn decode(record: &[u8]) -> Result<Entry, String> {
    let Some((sum, json)) = record.split_at_checked(8) else { return Err("the record is cut short".into()) };
    if mark([json])[..8] != *sum {
        return Err("the record is not what was written".into());
    }
    serde_json::from_slice(json).map_err(|e| format!("the record cannot be read: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(in crate::spool) fn write() -> Write {
        Write {
            route: "posts".into(),
            method: "POST".into(),
            target: "t.test/posts".into(),
            scope: mark([&b"scope"[..]]),
            fingerprint: mark([&b"body"[..]]),
            order: mark([&b"order"[..]]),
            residency: None,
            status: 202,
            max_age_ms: 1000,
            client: "192.0.2.1".parse().unwrap(),
            trusted: false,
            https: true,
            request: b"POST /posts HTTP/1.1\r\nHost: t.test\r\nContent-Length: 0\r\n\r\n".to_vec(),
        }
    }

    #[test]
    fn a_record_survives_its_way_to_disk_and_a_flipped_bit_does_not() {
        let entry = Entry::of(&write(), 7, "00".repeat(16), 5000);
        let mut record = encode(&entry);
        assert_eq!(decode(&record), Ok(entry));
        for at in [0, 8, record.len() / 2, record.len() - 1] {
            record[at] ^= 1;
            assert!(decode(&record).is_err(), "byte {at}");
            record[at] ^= 1;
        }
        assert!(decode(&record[..5]).is_err());
    }

    #[test]
    fn marks_do_not_depend_on_where_parts_meet() {
        assert_ne!(mark([&b"ab"[..], b"c"]), mark([&b"a"[..], b"bc"]));
        assert_eq!(mark([&b"ab"[..], b"c"]), mark([&b"ab"[..], b"c"]));
    }

    #[test]
    fn room_is_counted_as_the_store_rounds_it() {
        assert_eq!(cost(0), 1024);
        assert_eq!(cost(1024), 1024 + 1365);
        assert_eq!(cost(5000), 1024 + 8192);
        assert_eq!(cost(1 << 20), 1024 + (2 << 20), "a little more than a power of two takes the next one");
    }
}
