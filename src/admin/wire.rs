//! JSON shapes of the admin API, shared with the command line.

use crate::clock::stamp;
use crate::config::value::{Rate, Span};
pub use crate::model::event::DrillStage;
pub use crate::model::fleet::{EdgeStatus, FleetStatus, OrderStatus, PoolReport};
pub use crate::model::status::{ConfigStatus, Drained, EndpointStatus, PoolStatus, RegionStatus, Status, When};
pub use crate::whatif::drill::Came as DrillResult;
use serde::{Deserialize, Serialize};

pub use super::problem::Problem;

/// `POST /v1/regions/{name}/drain`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// Why: goes into status and journal.
    #[serde(default)]
    pub reason: String,
    /// Gradually over this time; none: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<Span>,
    /// Comes back by itself after this time.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub lasting: Option<Span>,
    /// Even when the regions that stay cannot carry it, or some route is left without one.
    #[serde(default)]
    pub force: bool,
    /// In a fleet: the revision of the order that this one is to replace; refused if another one stands by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

/// `POST /v1/pools/{service}/{region}/trip`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TripRequest {
    /// Why: goes into status and journal.
    #[serde(default)]
    pub reason: String,
    /// In a fleet: even where somebody else's order stands.
    #[serde(default)]
    pub force: bool,
    /// In a fleet: the revision of the order that this one is to replace; refused if another one stands by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

/// `POST /v1/plan`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlanRequest {
    /// The new config's text; none: the config file as it is on disk now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// Regions and fates whose loss is looked at; none: every one.
    pub lose: Vec<String>,
    /// Load by service instead of what live traffic is.
    pub rates: std::collections::BTreeMap<String, Rate>,
}

/// `POST /v1/drills`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrillRequest {
    /// The region that is taken out as if it were lost.
    pub region: String,
    /// Gradually over this time; none: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<Span>,
    /// Then for so long.
    pub hold: Span,
    /// What ends it early: `success<99.5%`, `p99>300ms`, `shed>1%`, `degraded>2%`; `ROUTE:` in front for one route alone.
    #[serde(default)]
    pub abort_if: Vec<String>,
    /// Why: goes into status and journal.
    #[serde(default)]
    pub reason: String,
    /// `PUT /v1/drills/{id}` must come within this time again and again; none: the proxy sees it through by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Span>,
    /// Even when the regions that stay cannot carry it.
    #[serde(default)]
    pub force: bool,
}

/// A drill, under way or over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DrillReport {
    /// Names it.
    pub id: String,
    /// The region.
    pub region: String,
    /// Who asked for it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Where it is.
    pub stage: DrillStage,
    /// In words: what it waits for, what it came to, or why it was aborted.
    pub what: String,
    /// RFC 3339.
    pub began: String,
    /// RFC 3339; null: it goes on.
    pub ended: Option<String>,
    /// Drained over this time.
    pub over: Span,
    /// Then held.
    pub hold: Span,
    /// Its guards.
    pub abort_if: Vec<String>,
    /// Until it is over, s.
    pub remaining_s: f64,
    /// What requests came to since it began, by route.
    pub routes: Vec<DrillResult>,
}

/// `PUT /v1/freeze`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreezeRequest {
    /// Hold all states, or let them go.
    pub on: bool,
}

/// `POST /v1/stale/purge`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurgeRequest {
    /// A route, a host, what a path (with or without a host in front) begins with, or `*` for all.
    pub pattern: String,
}

/// `POST /v1/explain`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// Default GET.
    #[serde(default)]
    pub method: String,
    /// `http://host/path?query`, or a path with a `Host` among the headers.
    pub url: String,
    /// Header fields.
    #[serde(default)]
    pub headers: std::collections::BTreeMap<String, String>,
}

/// `POST /v1/spool/replay`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpoolReplayRequest {
    /// One write, also one that was refused or has expired; none: everything that waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// `GET /v1/spool`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SpoolStatus {
    /// Writes that wait.
    pub pending: usize,
    /// Room taken on disk, bytes.
    pub bytes: u64,
    /// Writes by where they stand.
    pub states: std::collections::BTreeMap<String, usize>,
    /// Records that cannot be read.
    pub damaged: usize,
    /// Why the spool takes no writes now.
    pub trouble: Option<String>,
    /// Some of them, oldest first.
    pub entries: Vec<SpoolEntry>,
}

/// One write of [`SpoolStatus`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpoolEntry {
    /// The order of acceptance.
    pub seq: u64,
    /// As in the address of its status page.
    pub id: String,
    /// pending, applied, refused, expired, dropped or damaged.
    pub state: String,
    /// Its route.
    pub route: String,
    /// Its method.
    pub method: String,
    /// Host, path and query.
    pub target: String,
    /// Of the request.
    pub bytes: u64,
    /// When it was acknowledged.
    pub accepted_at: String,
    /// When it is given up.
    pub expires_at: String,
    /// When it came to where it stands.
    pub settled_at: Option<String>,
    /// What the backend answered.
    pub result: Option<u16>,
    /// Why it stands there.
    pub why: Option<String>,
}

/// The answer of everything that changes something.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// What changed, one a line; empty: it was so already.
    pub changes: Vec<String>,
    /// The config in force.
    pub generation: u64,
}

/// `GET /v1/config`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfigDocument {
    /// Counts applied configs from 1.
    pub generation: u64,
    /// The file it was read from.
    pub path: String,
    /// Its text.
    pub text: String,
    /// Regions with what they share.
    pub regions: Vec<RegionConfig>,
    /// Routes with where they may go.
    pub routes: Vec<RouteConfig>,
}

/// A region in [`ConfigDocument`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegionConfig {
    /// Its name.
    pub name: String,
    /// Under which law.
    pub jurisdiction: Option<String>,
    /// Its weight.
    pub weight: u32,
    /// Its tier.
    pub tier: u32,
    /// What it shares with others.
    pub fates: Vec<String>,
}

/// A route in [`ConfigDocument`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteConfig {
    /// Its name.
    pub name: String,
    /// Its service.
    pub service: String,
    /// Its priority.
    pub priority: String,
    /// The jurisdictions that may serve it; null: any.
    pub residency: Option<Vec<String>>,
    /// The regions that leaves it.
    pub regions: Vec<String>,
    /// Until the first byte of the answer.
    pub deadline: Span,
}

/// Makes the moments of a status into wall-clock times.
pub fn fill_times(status: &mut Status) {
    let wall = |w: &mut When| {
        if let When::Moment(m) = w {
            *w = When::Wall(stamp(crate::clock::wall(*m)));
        }
    };
    for r in &mut status.regions {
        wall(&mut r.since);
        r.drained.iter_mut().filter_map(|d| d.until.as_mut()).for_each(wall);
    }
    for p in &mut status.pools {
        wall(&mut p.since);
        p.endpoints.iter_mut().filter_map(|e| e.ejected_until.as_mut()).for_each(wall);
    }
    status.config.loaded_at.iter_mut().for_each(wall);
}
