//! An operator's word over the last good copies.

use super::api::App;
use super::problem::Problem;
use super::wire::{Done, PurgeRequest};
use crate::clock;
use crate::model::event::{Actor, EventKind};
use crate::steer::purge::Pattern;
use axum::body::Bytes;
use axum::extract::State;
use axum::{Extension, Json};
use std::sync::Arc;

/// `POST /v1/stale/purge`.
pub async fn purge(State(app): State<Arc<App>>, Extension(by): Extension<Actor>, bytes: Bytes) -> Result<Json<Done>, Problem> {
    let PurgeRequest { pattern: text } = super::api::body(&bytes)?;
    let config = app.topology();
    let pattern = Pattern::read(&text, config.topology.routes.iter().map(|r| &*r.name)).map_err(Problem::bad)?;
    let drop_them = app.context.purge.clone();
    // A million copies take a while to look through: not on the thread that answers.
    let copies = tokio::task::spawn_blocking(move || drop_them(&pattern)).await.map_err(|_| Problem::busy())?;
    let gone = EventKind::StalePurged { pattern: text, copies: copies as u64 };
    let changes = if copies == 0 { Vec::new() } else { vec![gone.to_string()] };
    // Also when nothing was there: whoever asks later whether it was done finds that it was.
    app.context.inbox.note(clock::now(), by, gone);
    Ok(app.done(changes))
}
