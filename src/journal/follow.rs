//! From the controller's events to the journal and the log.

use super::Journal;
use crate::model::event::{Event, EventKind};
use crate::model::view::State;
use std::sync::Arc;
use tokio::sync::broadcast::{Receiver, error::RecvError};

/// Writes every event down until the sender is gone: into the journal, where there is one, and into the log.
pub async fn follow(mut events: Receiver<Arc<Event>>, journal: Option<Journal>) {
    loop {
        match events.recv().await {
            Ok(event) => {
                tell(&event);
                if let Some(journal) = &journal {
                    journal.record(crate::clock::wall(event.at), &event);
                }
            }
            Err(RecvError::Lagged(missed)) => {
                if let Some(journal) = &journal {
                    journal.missed(missed);
                }
            }
            Err(RecvError::Closed) => return,
        }
    }
}

/// Where a log line says that it comes from.
const TARGET: &str = "evenkeel::event";

/// One log line for an event. What takes something out is a warning, its coming back is not.
fn tell(event: &Event) {
    let (kind, by) = (&event.kind, &event.by);
    let name = kind.name();
    match kind {
        EventKind::ConfigRejected { .. } | EventKind::Spool { up: false, .. } => {
            tracing::error!(target: TARGET, event = name, %by, "{kind}")
        }
        EventKind::Pool { to: State::Tripped, .. }
        | EventKind::Region { to: State::Tripped, .. }
        | EventKind::Endpoint { up: false, .. }
        | EventKind::Spooling { on: true, .. }
        | EventKind::SpoolWrites { .. }
        | EventKind::Fleet { connected: false, .. }
        | EventKind::Uplink { on: true, .. }
        | EventKind::EdgeSuspect { on: true, .. } => tracing::warn!(target: TARGET, event = name, %by, "{kind}"),
        EventKind::Counts(_) => tracing::debug!(target: TARGET, event = name, %by, "{kind}"),
        _ => tracing::info!(target: TARGET, event = name, %by, "{kind}"),
    }
}
