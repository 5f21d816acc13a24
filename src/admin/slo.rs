//! `GET /v1/slo`: objectives and the ledger.

use super::api::App;
use super::problem::Problem;
use crate::clock;
use crate::config::value::Span;
use crate::model::time::Duration;
use crate::report::slo::{Objective, Report};
use crate::report::when::At;
use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;
use std::sync::Arc;

/// No longer than it is kept.
const LONGEST: Duration = Duration::from_secs(90 * 86_400);
/// The usual window of an objective.
const USUAL: Duration = Duration::from_secs(30 * 86_400);

/// What is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    since: Option<String>,
}

/// Answers it.
pub async fn answer(State(app): State<Arc<App>>, Query(asked): Query<Asked>) -> Result<Json<Report>, Problem> {
    let span = match asked.since {
        Some(text) => text.parse::<Span>().map_err(|e| Problem::bad(format!("since: {e}")))?.0,
        None => USUAL,
    };
    if span > LONGEST || span.is_zero() {
        return Err(Problem::bad("since: between one minute and 90d, which is how long the ledger is kept"));
    }
    Ok(Json(report(&app, span)))
}

/// The ledger over the last stretch of time.
pub(super) fn report(app: &App, span: Duration) -> Report {
    let config = app.topology();
    let objectives: Vec<(String, Objective)> = config
        .topology
        .routes
        .iter()
        .map(|r| (r.name.to_string(), r.slo.map_or(Objective::default(), |s| Objective { success: s.success, latency: s.latency })))
        .collect();
    app.context.ledger.report(&objectives, At(clock::wall_now().as_microsecond()), span)
}
