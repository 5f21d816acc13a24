//! What a config, a drain or a loss would do to the traffic as it is now: [`whatif::plan`](crate::whatif::plan) with live facts.

use super::api::{App, body, in_time};
use super::problem::Problem;
use super::wire::{PlanRequest, Status};
use crate::config;
use crate::model::event::Actor;
use crate::model::id::RegionSet;
use crate::model::view::{State as Stage, View};
use crate::sense::share::Use;
use crate::whatif::plan::{self, Plan, Present};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use std::path::Path;
use std::sync::Arc;

/// `POST /v1/plan`: a text, or the file as it lies there, against the config in force.
pub async fn answer(State(app): State<Arc<App>>, bytes: Bytes) -> Result<Json<Plan>, Problem> {
    let asked: PlanRequest = body(&bytes)?;
    let path = app.topology().source.path.clone();
    let loaded = tokio::task::spawn_blocking(move || new(asked.config.as_deref(), &path));
    let loaded = loaded.await.map_err(|e| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    let loaded = loaded.map_err(|problems| {
        let detail = format!("this config cannot be applied: {}", problems.join("\n"));
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail).with(problems)
    })?;
    let mut present = present(&app).await?;
    present.given = asked.rates.into_iter().map(|(service, rate)| (service, rate.0)).collect();
    let source = if present.given.is_empty() { "live, the last 10 s" } else { "given" };
    let config = app.topology();
    let planned = plan::plan(Some(&config.topology), &loaded.checked.topology, &present, source, &asked.lose);
    planned.map(Json).map_err(Problem::bad)
}

fn new(text: Option<&str>, path: &Path) -> Result<config::Loaded, Vec<String>> {
    let loaded = match text {
        Some(text) => config::parse(text, path),
        None => config::load(path),
    };
    loaded.map_err(|p| p.headlines())
}

/// Whether the regions can be taken out now: what would then be wrong, one a line.
pub(super) async fn without(app: &App, away: RegionSet) -> Result<Vec<String>, Problem> {
    let present = present(app).await?;
    Ok(plan::without(&app.topology().topology, &present, away))
}

/// How things stand.
async fn present(app: &App) -> Result<Present, Problem> {
    let status = in_time(app.context.inbox.status()).await?.ok_or_else(Problem::busy)?;
    let picture = app.context.published.load_full();
    let mut rates = app.context.ledger.rates();
    if let Some(fleet) = &status.fleet {
        // Capacities are the fleet's: so must the load be.
        let t = picture.view.topology();
        for (name, rate) in &mut rates {
            let service = t.routes.iter().find(|r| *r.name == **name).map(|r| &t.services[r.service.at()].name);
            let part = service.and_then(|s| fleet.portions.get(&**s)).copied().filter(|p| *p > 0.0);
            *rate /= part.unwrap_or(1.0);
        }
    }
    Ok(Present { rates: Some(rates), ..standing(&picture.view, &status) })
}

fn standing(view: &View, status: &Status) -> Present {
    let use_ = |p: &crate::model::view::PoolView| match p.state {
        _ if p.dead => Use::Dead,
        Stage::Tripped | Stage::Trial => Use::Sick,
        Stage::Serving | Stage::Ramping if p.suspect => Use::Suspect,
        Stage::Serving | Stage::Ramping => Use::Open,
    };
    let out = view.topology().pools.iter().zip(&view.pools).map(|(t, p)| (t.name.to_string(), use_(p)));
    let file = Actor::File.to_string();
    let drained = status.regions.iter().filter(|r| r.drained.as_ref().is_some_and(|d| d.by != file));
    Present {
        out: out.filter(|(_, u)| *u != Use::Open).collect(),
        drained: drained.map(|r| r.name.clone()).collect(),
        ..Present::default()
    }
}
