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

/// One log line for an event. What takes something out is a warning, its coming back is not.
fn tell(event: &Event) {
    let by = &event.by;
    match &event.kind {
        EventKind::Started { version } => tracing::info!(version, "started"),
        EventKind::Stopping => tracing::info!("stopping"),
        EventKind::Pool { service, region, from, to: to @ State::Tripped, cause } => {
            tracing::warn!(%by, %from, %to, "pool {service}/{region} {to}: {cause}");
        }
        EventKind::Pool { service, region, from, to, cause } => {
            tracing::info!(%by, %from, %to, "pool {service}/{region} {to}: {cause}");
        }
        EventKind::Region { region, from, to: to @ State::Tripped, cause } => {
            tracing::warn!(%by, %from, %to, "region {region} {to}: {cause}");
        }
        EventKind::Region { region, from, to, cause } => tracing::info!(%by, %from, %to, "region {region} {to}: {cause}"),
        EventKind::Suspect { service, region, on: true, cause } => tracing::info!("pool {service}/{region} suspect: {cause}"),
        EventKind::Suspect { service, region, on: false, cause } => tracing::info!("pool {service}/{region} no longer suspect: {cause}"),
        EventKind::Endpoint { service, region, endpoint, up: false, cause } => {
            tracing::warn!("endpoint {endpoint} of {service}/{region} out: {cause}");
        }
        EventKind::Endpoint { service, region, endpoint, up: true, cause } => {
            tracing::info!("endpoint {endpoint} of {service}/{region} back: {cause}");
        }
        EventKind::Drain { region, on: true, reason, .. } => tracing::info!(%by, "region {region} drained: {reason}"),
        EventKind::Drain { region, on: false, .. } => tracing::info!(%by, "region {region} no longer drained"),
        EventKind::Freeze { on } => tracing::info!(%by, "states {}", if *on { "frozen" } else { "no longer frozen" }),
        EventKind::EdgeSuspect { on: true, cause } => tracing::warn!("states are held: {cause}"),
        EventKind::EdgeSuspect { on: false, .. } => tracing::info!("states are no longer held"),
        EventKind::ConfigApplied { generation, changes } => {
            tracing::info!(%by, generation, changes = changes.len(), "config applied");
        }
        EventKind::ConfigRejected { problems } => {
            tracing::error!(%by, "config refused, the old one stays: {}", problems.join("\n"));
        }
    }
}
