//! The routes, and what they do. `openapi.json` beside this file says the same; a test holds them together.

use super::drills::{self, Drills};
use super::explain::{Explanation, explain};
use super::gate::Gate;
use super::problem::Problem;
use super::server::Peer;
use super::wire::{self, ConfigDocument, Done, DrainRequest, ExplainRequest, FreezeRequest, Status, TripRequest};
use super::{Context, events, incidents, metrics, plan, slo, spool, stale};
use crate::config::value::Span;
use crate::fleet::{self, Given, Terms};
use crate::model::event::Actor;
use crate::model::id::{PoolIx, RegionIx, RegionSet};
use crate::model::signal::{Command, Order, Refused};
use crate::model::time::{Duration, Moment};
use crate::model::view::Compiled;
use crate::spool::Spool;
use arc_swap::ArcSwap;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post, put};
use axum::{Extension, Json, Router};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::sync::Semaphore;

/// The controller answers within a tick; later than this it does not.
const PATIENCE: Duration = Duration::from_secs(5);
/// A scrape may use a status this old, so that many scrapers cost the control task no more than one.
const STATUS_AGE: Duration = Duration::from_secs(1);
/// Readers of the event stream at a time.
const READERS: usize = 64;
/// Bodies are short.
const BODY: usize = 64 << 10;
/// But for configs.
const CONFIG: usize = 8 << 20;

/// What handlers share.
pub struct App {
    pub(super) context: Context,
    gate: ArcSwap<Gate>,
    /// Reloads applied and rejected.
    pub(super) reloads: (AtomicU64, AtomicU64),
    readers: Arc<Semaphore>,
    scraped: Mutex<Option<(Moment, Arc<Status>)>>,
    pub(super) drills: Drills,
    pub(super) incidents: Arc<Mutex<incidents::Known>>,
}

type Shared = State<Arc<App>>;
type Answer<T> = Result<Json<T>, Problem>;

impl App {
    /// Around what the house gives.
    pub fn new(context: Context) -> Self {
        Self {
            context,
            gate: ArcSwap::default(),
            reloads: (AtomicU64::new(0), AtomicU64::new(0)),
            readers: Arc::new(Semaphore::new(READERS)),
            scraped: Mutex::default(),
            drills: Drills::default(),
            incidents: Arc::default(),
        }
    }
    /// The config in force.
    pub(super) fn topology(&self) -> Arc<Compiled> {
        self.context.published.load().view.config.clone()
    }
    /// Reads the token files of the config in force.
    pub(super) fn read_tokens(&self) {
        let (gate, problems) = Gate::read(&self.topology().topology);
        for problem in problems {
            tracing::error!("{problem}");
        }
        self.gate.store(Arc::new(gate));
    }
    /// Where writes are kept.
    pub(super) fn spool(&self) -> Option<&Spool> {
        self.context.spool.as_ref()
    }
    pub(super) async fn command(&self, by: &Actor, order: Order) -> Result<Vec<String>, Problem> {
        let sent = self.context.inbox.command(Command { by: by.clone(), order });
        in_time(sent).await?.map_err(|refused| match refused {
            Refused::Unknown(what) => Problem::unknown(what),
            Refused::Conflict(what) => Problem::conflict(what),
            Refused::Leaving => Problem::new(StatusCode::SERVICE_UNAVAILABLE, refused.to_string()),
        })
    }
    /// Gives an order to the whole fleet, where there is one, and follows it here.
    pub(super) async fn order(&self, by: &Actor, order: Order, terms: Terms) -> Result<Vec<String>, Problem> {
        let config = self.topology();
        let fleet = self.context.fleet.as_ref().filter(|_| config.topology.fleet.is_some());
        let written = fleet.and_then(|f| Some((f, fleet::write_down(&config.topology, &order, &by.to_string(), crate::clock::now())?)));
        let Some((fleet, (about, standing))) = written else { return self.command(by, order).await };
        let told = match fleet.give(about, standing, terms).await {
            Given::Refused(words, revision) => {
                let detail = format!("somebody was first: it stands {words}; say `force`, or `revision: {revision}` to replace just that");
                return Err(Problem::conflict(detail));
            }
            Given::Everywhere(0) => None,
            Given::Everywhere(revision) => Some(format!("the fleet has it (revision {revision}): every edge follows")),
            Given::Here(why) => Some(format!("it holds on this edge alone for the moment, the fleet is told as soon as it can be: {why}")),
        };
        let mut changes = match self.command(by, order).await {
            Err(problem) if told.is_some() && problem.is_conflict() => vec![problem.detail],
            other => other?,
        };
        changes.extend(told);
        Ok(changes)
    }
    pub(super) fn done(&self, changes: Vec<String>) -> Json<Done> {
        Json(Done { changes, generation: self.topology().generation })
    }
}

pub(super) async fn in_time<T>(f: impl Future<Output = T>) -> Result<T, Problem> {
    tokio::time::timeout(PATIENCE, f).await.map_err(|_| Problem::busy())
}

/// Every route: method, path, handler.
fn routes() -> Vec<(&'static str, &'static str, MethodRouter<Arc<App>>)> {
    vec![
        ("get", "/livez", get(async || "ok\n")),
        ("get", "/readyz", get(readyz)),
        ("get", "/metrics", get(scrape)),
        ("get", "/v1/openapi.json", get(openapi)),
        ("get", "/v1/status", get(status)),
        ("get", "/v1/config", get(config)),
        ("get", "/v1/events", get(follow)),
        ("get", "/v1/incidents", get(incidents::list)),
        ("get", "/v1/incidents/{id}", get(incidents::one)),
        ("get", "/v1/slo", get(slo::answer)),
        ("get", "/v1/drills", get(drills::list)),
        ("post", "/v1/drills", post(drills::start)),
        ("get", "/v1/drills/{id}", get(drills::one)),
        ("put", "/v1/drills/{id}", put(drills::renew)),
        ("delete", "/v1/drills/{id}", delete(drills::stop)),
        ("post", "/v1/reload", post(reload)),
        ("post", "/v1/explain", post(explain_request)),
        ("post", "/v1/plan", post(plan::answer).layer(DefaultBodyLimit::max(CONFIG))),
        ("post", "/v1/regions/{name}/drain", post(drain)),
        ("post", "/v1/regions/{name}/undrain", post(undrain)),
        ("post", "/v1/pools/{service}/{region}/trip", post(trip)),
        ("post", "/v1/pools/{service}/{region}/reset", post(reset)),
        ("put", "/v1/freeze", put(freeze)),
        ("get", "/v1/spool", get(spool::list)),
        ("post", "/v1/spool/replay", post(spool::replay)),
        ("delete", "/v1/spool/{id}", delete(spool::discard)),
        ("post", "/v1/stale/purge", post(stale::purge)),
    ]
}

/// The whole API.
pub fn router(app: Arc<App>) -> Router {
    let all = routes().into_iter().fold(Router::new(), |r, (_, path, handler)| r.route(path, handler));
    all.merge(super::dashboard::router())
        .fallback(async |request: Request| {
            Problem::unknown(format!("there is no {}; /v1/openapi.json lists what there is", request.uri().path()))
        })
        .method_not_allowed_fallback(async |request: Request| {
            let detail = format!("{} does not take {}; see /v1/openapi.json", request.uri().path(), request.method());
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
        })
        .layer(DefaultBodyLimit::max(BODY))
        .layer(axum::middleware::from_fn_with_state(app.clone(), guard))
        .with_state(app)
}

/// The gate before every handler, and the headers that keep browsers strict after it.
async fn guard(State(app): Shared, Extension(Peer(peer)): Extension<Peer>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let mut response = match app.gate.load().check(&parts, peer) {
        Ok(actor) => {
            parts.extensions.insert(actor);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(problem) => problem.into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// A JSON body, whatever its declared type (curl and urllib declare forms); none stands for `{}`.
pub(super) fn body<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, Problem> {
    let text: &[u8] = if bytes.trim_ascii().is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(text).map_err(|e| Problem::bad(format!("body: {e}; see /v1/openapi.json for its shape")))
}

pub(super) fn reason(text: &str) -> Result<String, Problem> {
    match text.trim() {
        "" => Err(Problem::bad("body: a `reason` is needed, for those who look at status and journal later: {\"reason\": \"…\"}")),
        reason => Ok(reason.into()),
    }
}

/// Ready while answers can be given, also when backends are dead: whoever routes to us has nothing better then.
async fn readyz(State(app): Shared) -> Response {
    if app.context.leaving.load(Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n").into_response();
    }
    "ok\n".into_response()
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], include_str!("openapi.json")).into_response()
}

async fn status(State(app): Shared) -> Answer<Status> {
    let mut status = in_time(app.context.inbox.status()).await?.ok_or_else(Problem::busy)?;
    if let (Some(status), Some(fleet)) = (&mut status.fleet, &app.context.fleet) {
        fleet.complete(status);
    }
    wire::fill_times(&mut status);
    Ok(Json(status))
}

async fn scrape(State(app): Shared) -> Response {
    let now = crate::clock::now();
    let known = app.scraped.lock().clone().filter(|(at, _)| now.since(*at) < STATUS_AGE);
    let status = match known {
        Some((_, status)) => Some(status),
        None => {
            let fresh = in_time(app.context.inbox.status()).await.ok().flatten().map(Arc::new);
            *app.scraped.lock() = fresh.clone().map(|s| (now, s));
            fresh
        }
    };
    let beside = metrics::Beside {
        status,
        reloads: (app.reloads.0.load(Relaxed), app.reloads.1.load(Relaxed)),
        connections: (app.context.connections)(),
        certificates: (app.context.certificates)(),
        spans: (app.context.spans)(),
        drills: app.drills.passed(),
        slo: Some(slo::report(&app, Duration::from_secs(30 * 86_400))),
        journal: app.context.journal.as_ref().map(crate::journal::Journal::stats).unwrap_or_default(),
        spool: app.spool().map(Spool::stats),
        copies: (app.context.copies)(),
        fleet: app.context.fleet.clone(),
    };
    let page = metrics::page(&app.context.published.load_full(), now, &beside);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response()
}

async fn follow(State(app): Shared) -> Result<Response, Problem> {
    let permit =
        app.readers.clone().try_acquire_owned().map_err(|_| {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("{READERS} readers follow the events already; close one"))
        })?;
    let edge = app.topology().topology.edge.name.clone();
    Ok(events::follow(edge, app.context.inbox.events(), permit).into_response())
}

async fn config(State(app): Shared) -> Json<ConfigDocument> {
    let config = app.topology();
    let t = &config.topology;
    let strings = |list: &[Arc<str>]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let regions = t.regions.iter().map(|r| wire::RegionConfig {
        name: r.name.to_string(),
        jurisdiction: r.jurisdiction.as_ref().map(ToString::to_string),
        weight: r.weight,
        tier: r.tier,
        fates: strings(&r.fates),
    });
    let routes = t.routes.iter().map(|r| wire::RouteConfig {
        name: r.name.to_string(),
        service: t.services[r.service.at()].name.to_string(),
        priority: r.priority.label().into(),
        residency: r.residency.as_deref().map(strings),
        regions: r.allowed.iter().filter_map(|r| t.regions.get(r.at())).map(|r| r.name.to_string()).collect(),
        deadline: Span(r.deadline),
    });
    Json(ConfigDocument {
        generation: config.generation,
        path: config.source.path.display().to_string(),
        text: config.source.text.to_string(),
        regions: regions.collect(),
        routes: routes.collect(),
    })
}

async fn reload(State(app): Shared, Extension(by): Extension<Actor>) -> Answer<Done> {
    tracing::info!(%by, "reload asked for");
    match (app.context.reload)(by).await {
        Ok(changes) => Ok(app.done(changes)),
        Err(problems) => {
            let detail = format!("the file was not applied, the config in force stays: {}", problems.join("\n"));
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail).with(problems))
        }
    }
}

async fn explain_request(State(app): Shared, bytes: Bytes) -> Answer<Explanation> {
    let asked: ExplainRequest = body(&bytes)?;
    let picture = app.context.published.load_full();
    let live: (&dyn crate::model::view::Live, Moment) = (&*picture.cells, crate::clock::now());
    explain(&picture.view, Some(live), &asked).map(Json).map_err(Problem::bad)
}

/// A region, or all regions with a fate.
fn regions(config: &Compiled, name: &str) -> Result<Vec<RegionIx>, Problem> {
    let t = &config.topology;
    if let Some(region) = t.region(name) {
        return Ok(vec![region]);
    }
    let sharing = |fate: &str| {
        t.regions.iter().enumerate().filter(|(_, r)| r.fates.iter().any(|f| &**f == fate)).map(|(i, _)| i.into()).collect::<Vec<_>>()
    };
    let found = sharing(name);
    if found.is_empty() {
        let names: Vec<&str> =
            t.regions.iter().map(|r| &*r.name).chain(t.regions.iter().flat_map(|r| r.fates.iter().map(|f| &**f))).collect();
        return Err(Problem::unknown(format!("there is no region or fate `{name}`; there are {}", names.join(", "))));
    }
    Ok(found)
}

async fn drain(State(app): Shared, Extension(by): Extension<Actor>, Path(name): Path<String>, bytes: Bytes) -> Answer<Done> {
    let asked: DrainRequest = body(&bytes)?;
    let reason = reason(&asked.reason)?;
    let found = regions(&app.topology(), &name)?;
    if !asked.force {
        let wrong = plan::without(&app, found.iter().fold(RegionSet::EMPTY, |set, r| set.with(*r))).await?;
        if !wrong.is_empty() {
            let detail = format!("without {name}: {}; say `force` to drain it all the same", wrong.join("; "));
            return Err(Problem::conflict(detail).with(wrong));
        }
    }
    let mut changes = Vec::new();
    for region in found {
        let (over, lasting) = (asked.over.map_or(Duration::ZERO, |s| s.0), asked.lasting.map(|s| s.0));
        let terms = Terms { force: asked.force, revision: asked.revision };
        changes.extend(app.order(&by, Order::Drain { region, reason: reason.clone(), over, lasting }, terms).await?);
    }
    Ok(app.done(changes))
}

async fn undrain(State(app): Shared, Extension(by): Extension<Actor>, Path(name): Path<String>) -> Answer<Done> {
    let mut changes = Vec::new();
    for region in regions(&app.topology(), &name)? {
        changes.extend(app.order(&by, Order::Undrain { region }, Terms::default()).await?);
    }
    Ok(app.done(changes))
}

fn pool(app: &App, (service, region): &(String, String)) -> Result<PoolIx, Problem> {
    let config = app.topology();
    config.topology.pool(service, region).ok_or_else(|| {
        let names: Vec<&str> = config.topology.pools.iter().map(|p| &*p.name).collect();
        Problem::unknown(format!("there is no pool `{service}/{region}`; there are {}", names.join(", ")))
    })
}

async fn trip(State(app): Shared, Extension(by): Extension<Actor>, Path(name): Path<(String, String)>, bytes: Bytes) -> Answer<Done> {
    let asked: TripRequest = body(&bytes)?;
    let order = Order::Trip { pool: pool(&app, &name)?, reason: reason(&asked.reason)? };
    let terms = Terms { force: asked.force, revision: asked.revision };
    Ok(app.done(app.order(&by, order, terms).await?))
}

async fn reset(State(app): Shared, Extension(by): Extension<Actor>, Path(name): Path<(String, String)>) -> Answer<Done> {
    let order = Order::Reset { pool: pool(&app, &name)? };
    Ok(app.done(app.order(&by, order, Terms::default()).await?))
}

async fn freeze(State(app): Shared, Extension(by): Extension<Actor>, bytes: Bytes) -> Answer<Done> {
    let asked: FreezeRequest = body(&bytes)?;
    Ok(app.done(app.order(&by, Order::Freeze { on: asked.on }, Terms::default()).await?))
}

/// Method and path of every route.
#[cfg(test)]
pub(super) fn listed() -> Vec<(&'static str, &'static str)> {
    routes().into_iter().map(|(method, path, _)| (method, path)).collect()
}
