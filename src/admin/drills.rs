//! `/v1/drills`: a failover exercise under way, watched ten times a second, and those that are over.
//!
//! [`whatif::drill`](crate::whatif::drill) decides; this room gives it the readings, and gives its orders. The drain it orders
//! ends by itself soon after the drill should have ended, so that not even this task is needed for the region to come back.

use super::api::{App, body, in_time, reason};
use super::problem::Problem;
use super::wire::{DrillReport, DrillRequest, Status};
use crate::clock::{self, stamp};
use crate::config::value::Span;
use crate::fleet;
use crate::journal::{self, Filter};
use crate::ledger::count;
use crate::model::event::{Actor, DrillStage, EventKind};
use crate::model::id::{RegionIx, RegionSet, RouteIx};
use crate::model::signal::Order;
use crate::model::time::{Duration, Moment};
use crate::model::view::State as Stage;
use crate::whatif::drill::{Act, Around, Drill, Guard, Reading, Terms};
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(100);
/// Drills that are over and still known.
const KEPT: usize = 32;
/// After so long beyond its end the drain lifts itself.
const GRACE: Duration = Duration::from_secs(30);
/// Longer than this is no drill.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// All drills of this process, and when each region passed its last one.
#[derive(Default)]
pub struct Drills {
    all: Mutex<VecDeque<Arc<Mutex<Running>>>>,
    passed: Mutex<BTreeMap<String, i64>>,
}

struct Running {
    id: String,
    by: Actor,
    reason: String,
    region: RegionIx,
    drill: Drill,
    ended: Option<Moment>,
}

impl Running {
    fn report(&self, now: Moment) -> DrillReport {
        let terms = self.drill.terms();
        let at = |m: Moment| stamp(clock::wall(m));
        DrillReport {
            id: self.id.clone(),
            region: terms.region.clone(),
            by: self.by.to_string(),
            reason: self.reason.clone(),
            stage: self.drill.stage(),
            what: self.drill.what().into(),
            began: at(self.drill.began()),
            ended: self.ended.map(at),
            over: Span(terms.over),
            hold: Span(terms.hold),
            abort_if: terms.guards.iter().map(ToString::to_string).collect(),
            remaining_s: self.drill.remaining(now).as_secs_f64().round(),
            routes: self.drill.results(),
        }
    }
}

impl Drills {
    /// When each region last passed a drill, Unix time in seconds.
    pub fn passed(&self) -> Vec<(String, i64)> {
        self.passed.lock().iter().map(|(r, at)| (r.clone(), *at)).collect()
    }
    fn note_passed(&self, region: &str, at: i64) {
        let mut passed = self.passed.lock();
        let last = passed.entry(region.into()).or_default();
        *last = at.max(*last);
    }
    /// What the journal knows of earlier ones. Reads the disk.
    pub fn remember(&self, journal: &std::path::Path) {
        let filter = Filter { kinds: vec!["drill".into()], ..Filter::default() };
        for record in journal::read(journal, filter).into_iter().flatten() {
            if let EventKind::Drill { region, stage: DrillStage::Passed, .. } = &record.event.kind {
                self.note_passed(region, record.time.as_second());
            }
        }
    }
    fn find(&self, id: &str) -> Result<Arc<Mutex<Running>>, Problem> {
        let all = self.all.lock();
        let found = all.iter().find(|d| d.lock().id == id).cloned();
        found.ok_or_else(|| Problem::unknown(format!("there is no drill `{id}`; GET /v1/drills lists those that are known")))
    }
    fn running(&self) -> Option<Arc<Mutex<Running>>> {
        self.all.lock().iter().find(|d| !d.lock().drill.stage().over()).cloned()
    }
}

/// `GET /v1/drills`: the newest first.
pub async fn list(State(app): State<Arc<App>>) -> Json<Vec<DrillReport>> {
    let now = clock::now();
    Json(app.drills.all.lock().iter().rev().map(|d| d.lock().report(now)).collect())
}

/// `GET /v1/drills/{id}`.
pub async fn one(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<DrillReport>, Problem> {
    let found = app.drills.find(&id)?;
    let report = found.lock().report(clock::now());
    Ok(Json(report))
}

/// `PUT /v1/drills/{id}`: whoever runs it is there.
pub async fn renew(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<DrillReport>, Problem> {
    let (found, now) = (app.drills.find(&id)?, clock::now());
    let mut running = found.lock();
    running.drill.renew(now);
    Ok(Json(running.report(now)))
}

/// `DELETE /v1/drills/{id}`: put the region back now.
pub async fn stop(
    State(app): State<Arc<App>>,
    Extension(by): Extension<Actor>,
    Path(id): Path<String>,
) -> Result<Json<DrillReport>, Problem> {
    let found = app.drills.find(&id)?;
    let act = found.lock().drill.abort(&format!("stopped by {by}"));
    carry_out(&app, &found, act).await;
    let report = found.lock().report(clock::now());
    Ok(Json(report))
}

/// `POST /v1/drills`.
pub async fn start(State(app): State<Arc<App>>, Extension(by): Extension<Actor>, bytes: Bytes) -> Result<Json<DrillReport>, Problem> {
    let asked: DrillRequest = body(&bytes)?;
    let reason = reason(&asked.reason)?;
    let guards = asked.abort_if.iter().map(|g| g.parse::<Guard>()).collect::<Result<Vec<_>, _>>().map_err(Problem::bad)?;
    let config = app.topology();
    let names = || config.topology.regions.iter().map(|r| &*r.name).collect::<Vec<_>>().join(", ");
    let unknown = || Problem::unknown(format!("there is no region `{}`; there are {}", asked.region, names()));
    let region = config.topology.region(&asked.region).ok_or_else(unknown)?;
    for guard in &guards {
        if let Some(route) = guard.route().filter(|name| config.topology.routes.iter().all(|r| *r.name != **name)) {
            return Err(Problem::bad(format!("guard {guard}: there is no route `{route}`")));
        }
    }
    let (over, hold) = (asked.over.map_or(Duration::ZERO, |s| s.0), asked.hold.0);
    if over + hold > LONGEST {
        return Err(Problem::bad("a drill takes a day at most; for longer, drain the region"));
    }
    let status = in_time(app.context.inbox.status()).await?.ok_or_else(Problem::busy)?;
    fit_for_it(&status, &asked.region)?;
    if !asked.force {
        let wrong = super::plan::without(&app, RegionSet::EMPTY.with(region)).await?;
        if !wrong.is_empty() {
            let detail = format!("without {}: {}; say `force` to drill it all the same", asked.region, wrong.join("; "));
            return Err(Problem::conflict(detail).with(wrong));
        }
    }
    let now = clock::now();
    let id = format!("drill-{}", clock::wall(now).as_second());
    let terms = Terms { region: asked.region.clone(), over, hold, guards, lease: asked.lease.map(|s| s.0) };
    let what = format!("{reason}; {}", terms.guards.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    let running = Running { id: id.clone(), by: by.clone(), reason: reason.clone(), region, drill: Drill::begin(terms, now), ended: None };
    let running = {
        let mut all = app.drills.all.lock();
        if let Some(other) = all.iter().find(|d| !d.lock().drill.stage().over()) {
            let id = other.lock().id.clone();
            return Err(Problem::conflict(format!("{id} is under way: one drill at a time")));
        }
        let running = Arc::new(Mutex::new(running));
        all.push_back(running.clone());
        if all.len() > KEPT {
            all.pop_front();
        }
        running
    };
    let order = Order::Drain { region, reason: format!("drill: {reason}"), over, lasting: Some(over + hold + GRACE) };
    if let Err(problem) = app.order(&Actor::Drill(id.clone()), order, fleet::Terms { force: asked.force, revision: None }).await {
        running.lock().drill.abort(&problem.detail);
        return Err(problem);
    }
    let what = what.trim_end_matches("; ").to_owned();
    app.context.inbox.note(now, by, EventKind::Drill { id, region: asked.region, stage: DrillStage::Draining, what });
    tokio::spawn(watch(app.clone(), running.clone()));
    let report = running.lock().report(now);
    Ok(Json(report))
}

/// A drill teaches something only where all is well.
fn fit_for_it(status: &Status, region: &str) -> Result<(), Problem> {
    if status.edge_suspect {
        return Err(Problem::conflict("states are held (common mode): this is no time for a drill"));
    }
    for r in &status.regions {
        if r.name == region && r.drained.is_some() {
            return Err(Problem::conflict(format!("{region} is drained already: there is nothing to drill")));
        }
        if r.state == Stage::Tripped {
            return Err(Problem::conflict(format!("region {} is tripped: this is no time for a drill", r.name)));
        }
    }
    Ok(())
}

/// Watches a drill to its end.
async fn watch(app: Arc<App>, running: Arc<Mutex<Running>>) {
    let mut around = Around { ours: true, ..Around::default() };
    loop {
        let now = clock::now();
        match app.context.inbox.status().await {
            Some(status) => around = seen(&status, &running.lock()),
            None => around.leaving = true,
        }
        around.leaving |= app.context.leaving.load(Relaxed);
        let act = running.lock().drill.step(now, readings(&app), &around);
        carry_out(&app, &running, act).await;
        if running.lock().drill.stage().over() {
            return;
        }
        clock::sleep_until(now + EVERY).await;
    }
}

fn seen(status: &Status, running: &Running) -> Around {
    let tripped = status.regions.iter().filter(|r| r.state == Stage::Tripped).map(|r| r.name.clone()).collect();
    let ours = Actor::Drill(running.id.clone()).to_string();
    let region = &running.drill.terms().region;
    let drained = status.regions.iter().find(|r| r.name == *region).and_then(|r| r.drained.as_ref());
    Around { tripped, edge_suspect: status.edge_suspect, ours: drained.is_some_and(|d| d.by == ours), leaving: false }
}

fn readings(app: &App) -> Vec<Reading> {
    let picture = app.context.published.load_full();
    let counts = count::look(&picture, Moment::ZERO).counts.routes;
    let times = (0..counts.len()).map(|i| picture.cells.route(RouteIx::from(i)).times.hist());
    counts.into_iter().zip(times).map(|(count, times)| Reading { count, times }).collect()
}

/// Does what is to be done, and puts it on record.
async fn carry_out(app: &App, running: &Mutex<Running>, act: Act) {
    if act == Act::None {
        return;
    }
    let (id, region, name) = {
        let r = running.lock();
        (r.id.clone(), r.region, r.drill.terms().region.clone())
    };
    if let Act::Restore { at_once } = act {
        // By name: the config may be another one by now.
        let region = app.topology().topology.region(&name).unwrap_or(region);
        let order = if at_once { Order::Recall { region } } else { Order::Undrain { region } };
        let ours = |s: &Status| {
            let by = Actor::Drill(id.clone()).to_string();
            s.regions.iter().any(|r| r.name == name && r.drained.as_ref().is_some_and(|d| d.by == by))
        };
        // Somebody else's drain stays.
        if app.context.inbox.status().await.is_some_and(|s| ours(&s))
            && let Err(why) = app.order(&Actor::Drill(id.clone()), order, fleet::Terms { force: true, revision: None }).await
        {
            tracing::warn!("{id}: {name} could not be put back: {}", why.detail);
        }
        let now = clock::now();
        running.lock().ended = Some(now);
        running.lock().drill.undone(now);
        if running.lock().drill.stage() == DrillStage::Passed {
            app.drills.note_passed(&name, clock::wall(now).as_second());
        }
    }
    let (stage, what) = {
        let r = running.lock();
        (r.drill.stage(), r.drill.what().to_owned())
    };
    app.context.inbox.note(clock::now(), Actor::Drill(id.clone()), EventKind::Drill { id, region: name, stage, what });
}

/// Whether one is under way.
pub fn under_way(app: &App) -> bool {
    app.drills.running().is_some()
}
