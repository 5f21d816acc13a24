//! `GET /v1/incidents[/{id}]`: what the journal on disk makes of itself.

use super::api::App;
use super::problem::Problem;
use crate::journal;
use crate::report::incident::{Entry, Incident, Reader};
use crate::report::tell;
use crate::report::when::At;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

/// The form of the answer.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    #[serde(default)]
    format: Format,
    /// The newest so many; none: all.
    limit: Option<usize>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Format {
    #[default]
    Json,
    Text,
    Markdown,
}

/// All of them, the newest first.
pub async fn list(State(app): State<Arc<App>>, Query(asked): Query<Asked>) -> Result<Response, Problem> {
    let mut found = read(&app).await?;
    found.truncate(asked.limit.unwrap_or(usize::MAX));
    Ok(match asked.format {
        Format::Json => Json(found).into_response(),
        Format::Text => text(found.iter().map(|i| tell::summary(i) + "\n").collect()),
        Format::Markdown => text(found.iter().map(tell::markdown).collect::<Vec<_>>().join("\n")),
    })
}

/// One of them.
pub async fn one(State(app): State<Arc<App>>, Path(id): Path<String>, Query(asked): Query<Asked>) -> Result<Response, Problem> {
    let found = read(&app).await?;
    let Some(incident) = found.iter().find(|i| i.id == id) else {
        let ids: Vec<&str> = found.iter().map(|i| i.id.as_str()).take(10).collect();
        let there = if ids.is_empty() { "there is none".into() } else { format!("the newest are {}", ids.join(", ")) };
        return Err(Problem::unknown(format!("there is no incident `{id}`; {there}")));
    };
    Ok(match asked.format {
        Format::Json => Json(incident).into_response(),
        Format::Text | Format::Markdown => text(tell::markdown(incident)),
    })
}

fn text(body: String) -> Response {
    ([(header::CONTENT_TYPE, "text/markdown; charset=utf-8")], body).into_response()
}

/// What is known of the journal: the first question reads all of it, every further one what came since.
#[derive(Default)]
pub struct Known {
    path: PathBuf,
    tail: journal::Tail,
    reader: Reader,
}

impl Known {
    fn read(&mut self, path: &FsPath) -> std::io::Result<()> {
        if self.path != path {
            *self = Self { path: path.to_owned(), ..Self::default() };
        }
        let reader = std::cell::RefCell::new(&mut self.reader);
        let entry = |r: journal::Record| Entry { at: At(r.time.as_microsecond()), lost: r.lost, event: r.event };
        self.tail.read(path, || **reader.borrow_mut() = Reader::default(), |r| reader.borrow_mut().read(entry(r)))
    }
}

/// Reads the journal, on a thread that may wait for the disk. One at a time: who comes second finds most of it read.
async fn read(app: &App) -> Result<Vec<Incident>, Problem> {
    let path = app.topology().topology.journal.path.clone();
    let now = At(crate::clock::wall_now().as_microsecond());
    let known = app.incidents.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let mut known = known.lock();
        known.read(&path).map_err(|e| format!("journal {}: {e}", path.display()))?;
        let mut found = known.reader.so_far(now);
        found.reverse();
        Ok::<_, String>(found)
    });
    let failed = |e: String| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("{e}; can the process read it?"));
    reading.await.map_err(|e| failed(e.to_string()))?.map_err(failed)
}
