//! What waits in the spool, and an operator's word over it.
//!
//! A listing shows who wrote where and what became of it, never what was written: bodies hold what users sent.

use super::api::App;
use super::problem::Problem;
use super::wire::{Done, SpoolEntry, SpoolReplayRequest, SpoolStatus};
use crate::clock::stamp;
use crate::model::event::Actor;
use crate::spool::{Again, Entry, Spool, State};
use axum::body::Bytes;
use axum::extract::{Path, Query, State as Shared};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Deserialize;
use std::sync::Arc;

/// Entries of one listing: by default, and at most.
const LISTED: (usize, usize) = (100, 1000);

/// What of it is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Comma-separated; default: all but the applied ones.
    state: Option<String>,
    /// Behind this `seq`.
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
}

fn spool(app: &App) -> Result<&Spool, Problem> {
    app.spool().ok_or_else(|| Problem::unknown("this process has no spool"))
}

fn trouble(why: Again) -> Problem {
    match why {
        Again::Unknown(what) => Problem::unknown(what),
        Again::Conflict(what) => Problem::conflict(what),
        Again::Trouble(what) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, what),
    }
}

/// `GET /v1/spool`.
pub async fn list(Shared(app): Shared<Arc<App>>, Query(asked): Query<Asked>) -> Result<Json<SpoolStatus>, Problem> {
    let spool = spool(&app)?;
    let states = match &asked.state {
        None => State::ALL.into_iter().filter(|s| *s != State::Applied).collect(),
        Some(names) => names
            .split(',')
            .map(|name| {
                let known = State::ALL.into_iter().find(|s| s.label() == name.trim());
                known.ok_or_else(|| {
                    Problem::bad(format!("state: there is no `{name}`; there are {}", State::ALL.map(State::label).join(", ")))
                })
            })
            .collect::<Result<Vec<_>, _>>()?,
    };
    let stats = spool.stats();
    let limit = asked.limit.unwrap_or(LISTED.0).clamp(1, LISTED.1);
    // A file that cannot be read is part of how things stand.
    let (entries, trouble) = match spool.list(states, asked.after, limit).await {
        Ok(found) => (found.entries.iter().map(shown).collect(), stats.trouble),
        Err(why) => (Vec::new(), Some(stats.trouble.unwrap_or(why))),
    };
    let states = stats.states.into_iter().map(|(name, n)| (name.to_owned(), n)).collect();
    Ok(Json(SpoolStatus { pending: stats.pending, bytes: stats.bytes, states, damaged: stats.damaged, trouble, entries }))
}

/// `POST /v1/spool/replay`.
pub async fn replay(Shared(app): Shared<Arc<App>>, Extension(by): Extension<Actor>, bytes: Bytes) -> Result<Json<Done>, Problem> {
    let asked: SpoolReplayRequest = super::api::body(&bytes)?;
    let n = spool(&app)?.replay(asked.id.clone(), by).await.map_err(trouble)?;
    let change = match asked.id {
        Some(id) => format!("write {id} goes now"),
        None => format!("{n} writes go as soon as a region takes them"),
    };
    Ok(app.done(if n == 0 { Vec::new() } else { vec![change] }))
}

/// `DELETE /v1/spool/{id}`.
pub async fn discard(
    Shared(app): Shared<Arc<App>>,
    Extension(by): Extension<Actor>,
    Path(id): Path<String>,
) -> Result<Json<Done>, Problem> {
    spool(&app)?.drop_write(id.clone(), by).await.map_err(trouble)?;
    Ok(app.done(vec![format!("write {id} is dropped: it will not be replayed")]))
}

fn shown(e: &Entry) -> SpoolEntry {
    let time = |ms: u64| jiff::Timestamp::from_millisecond(ms as i64).map(stamp).unwrap_or_default();
    SpoolEntry {
        seq: e.seq,
        id: e.id.clone(),
        state: e.state.label().into(),
        route: e.route.clone(),
        method: e.method.clone(),
        target: e.target.clone(),
        bytes: e.bytes,
        accepted_at: time(e.accepted_at),
        expires_at: time(e.expires_at),
        settled_at: (e.settled_at > 0).then(|| time(e.settled_at)),
        result: e.result,
        why: e.why.clone(),
    }
}
