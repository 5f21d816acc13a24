//! What we will remember. Only the controller makes events; log, metric, journal and event stream derive from them.

use super::count::Counts;
use super::time::Moment;
use super::view::State;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Something that changed, when, and by whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Counts events of this process from 1.
    pub seq: u64,
    /// Monotonic; the journal adds the wall clock.
    pub at: Moment,
    /// Who did it.
    pub by: Actor,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// Who did it.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "actor", content = "name")]
pub enum Actor {
    /// The program itself.
    #[default]
    Evenkeel,
    /// The config file.
    File,
    /// Somebody with this token's name (or `local`, where no tokens are set).
    Operator(String),
    /// A drill, by its id.
    Drill(String),
    /// Another edge, or an operator through it.
    Fleet(String),
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Evenkeel => f.write_str("evenkeel"),
            Self::File => f.write_str("config file"),
            Self::Operator(n) => write!(f, "operator {n}"),
            Self::Drill(n) => write!(f, "drill {n}"),
            Self::Fleet(n) => write!(f, "fleet ({n})"),
        }
    }
}

/// What happened. `kind` in JSON; names are those of the event stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum EventKind {
    /// The process began.
    Started {
        /// Its version.
        version: String,
    },
    /// The process is leaving.
    Stopping,
    /// A pool changed its state.
    Pool {
        /// Service.
        service: String,
        /// Region.
        region: String,
        /// Before.
        from: State,
        /// After.
        to: State,
        /// Why.
        cause: Cause,
    },
    /// A region changed its state.
    Region {
        /// Region.
        region: String,
        /// Before.
        from: State,
        /// After.
        to: State,
        /// Why.
        cause: Cause,
    },
    /// A pool became suspect, or is no longer.
    Suspect {
        /// Service.
        service: String,
        /// Region.
        region: String,
        /// Now.
        on: bool,
        /// Why.
        cause: Cause,
    },
    /// An endpoint went out or came back.
    Endpoint {
        /// Service.
        service: String,
        /// Region.
        region: String,
        /// Its address.
        endpoint: String,
        /// Now.
        up: bool,
        /// Why.
        cause: Cause,
    },
    /// A region was drained, or is no longer.
    Drain {
        /// Region.
        region: String,
        /// Now.
        on: bool,
        /// Why.
        reason: String,
        /// Ends by itself then.
        until: Option<Moment>,
    },
    /// States are held by an operator, or no longer.
    Freeze {
        /// Now.
        on: bool,
    },
    /// Common mode: states are held because the fault may be ours or everybody's; or that ended.
    EdgeSuspect {
        /// Now.
        on: bool,
        /// Why.
        cause: Cause,
    },
    /// A config was applied.
    ConfigApplied {
        /// Its number.
        generation: u64,
        /// What changed, in words, one a line.
        changes: Vec<String>,
    },
    /// A config was refused; the old one stays.
    ConfigRejected {
        /// Every problem.
        problems: Vec<String>,
    },
    /// What requests have come to so far: told while something is wrong, from shortly before it on. What has not changed since
    /// the last of these is left out.
    Counts(Counts),
    /// A drill went on to its next stage.
    Drill {
        /// Names the drill.
        id: String,
        /// The region that is away, as if it were lost.
        region: String,
        /// What it came to.
        stage: DrillStage,
        /// In words.
        what: String,
    },
    /// Writes wait in the spool, or none do any more.
    Spooling {
        /// Now.
        on: bool,
        /// How many.
        entries: u64,
    },
    /// This edge and the others of its fleet hear each other again, or no longer do.
    Fleet {
        /// Now.
        connected: bool,
        /// Where to, or why not.
        what: String,
    },
    /// This edge alone sees these regions down: its own way to them is suspect; or that ended.
    Uplink {
        /// Now.
        on: bool,
        /// Which.
        regions: Vec<String>,
        /// What the others say.
        what: String,
    },
    /// The spool can take writes again, or cannot.
    Spool {
        /// Now.
        up: bool,
        /// Why not.
        why: Option<String>,
    },
    /// An operator dropped last good copies.
    StalePurged {
        /// Which were meant.
        pattern: String,
        /// How many there were.
        copies: u64,
    },
    /// Writes of the spool came to an end that somebody should know of, or were sent on their way again.
    SpoolWrites {
        /// Their route.
        route: String,
        /// Where they stand: pending, refused, expired, dropped, damaged.
        state: String,
        /// How many.
        count: u64,
        /// One of them.
        id: String,
    },
}

/// Where a drill is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrillStage {
    /// The region is being drained.
    Draining,
    /// It is drained, and stays so for a while.
    Holding,
    /// Ended as planned.
    Passed,
    /// Ended early: a guard was crossed, or whoever ran it is gone.
    Aborted,
}

impl DrillStage {
    /// The name in API and journal.
    pub fn label(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Holding => "holding",
            Self::Passed => "passed",
            Self::Aborted => "aborted",
        }
    }
    /// Whether it is over.
    pub fn over(self) -> bool {
        matches!(self, Self::Passed | Self::Aborted)
    }
}

impl EventKind {
    /// The name in the event stream and in the log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::Stopping => "stopping",
            Self::Pool { .. } => "pool",
            Self::Region { .. } => "region",
            Self::Suspect { .. } => "suspect",
            Self::Endpoint { .. } => "endpoint",
            Self::Drain { .. } => "drain",
            Self::Freeze { .. } => "freeze",
            Self::EdgeSuspect { .. } => "edge_suspect",
            Self::ConfigApplied { .. } => "config_applied",
            Self::ConfigRejected { .. } => "config_rejected",
            Self::Counts(_) => "counts",
            Self::Drill { .. } => "drill",
            Self::Spooling { .. } => "spooling",
            Self::Fleet { .. } => "fleet",
            Self::Uplink { .. } => "uplink",
            Self::Spool { .. } => "spool",
            Self::SpoolWrites { .. } => "spool_writes",
            Self::StalePurged { .. } => "stale_purged",
        }
    }
}

impl fmt::Display for EventKind {
    /// As a line of a log or a timeline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { version } => write!(f, "started, version {version}"),
            Self::Stopping => f.write_str("stopping"),
            Self::Pool { service, region, from, to, cause } => write!(f, "pool {service}/{region} {to}, was {from}: {cause}"),
            Self::Region { region, from, to, cause } => write!(f, "region {region} {to}, was {from}: {cause}"),
            Self::Suspect { service, region, on, cause } => {
                write!(f, "pool {service}/{region} {}: {cause}", if *on { "suspect" } else { "no longer suspect" })
            }
            Self::Endpoint { service, region, endpoint, up, cause } => {
                write!(f, "endpoint {endpoint} of {service}/{region} {}: {cause}", if *up { "back" } else { "out" })
            }
            Self::Drain { region, on: true, reason, .. } => write!(f, "region {region} drained: {reason}"),
            Self::Drain { region, on: false, .. } => write!(f, "region {region} no longer drained"),
            Self::Freeze { on } => f.write_str(if *on { "states frozen" } else { "states no longer frozen" }),
            Self::EdgeSuspect { on: true, cause } => write!(f, "states are held: {cause}"),
            Self::EdgeSuspect { on: false, .. } => f.write_str("states are no longer held"),
            Self::ConfigApplied { generation, changes } if changes.is_empty() => write!(f, "config {generation} applied"),
            Self::ConfigApplied { generation, changes } => write!(f, "config {generation} applied: {}", changes.join("; ")),
            Self::ConfigRejected { problems } => write!(f, "config refused, the old one stays: {}", problems.join("; ")),
            Self::Counts(c) => c.fmt(f),
            Self::Drill { region, stage, what, .. } => write!(f, "drill of {region} {}: {what}", stage.label()),
            Self::Spooling { on: true, entries } => write!(f, "writes wait in the spool ({entries})"),
            Self::Spooling { on: false, .. } => f.write_str("no write waits in the spool any more"),
            Self::Fleet { connected: true, what } => write!(f, "fleet: connected to {what}"),
            Self::Fleet { connected: false, what } => {
                write!(f, "fleet: NATS is away ({what}): this edge goes on with the last known orders and its own eyes")
            }
            Self::Uplink { on: true, regions, what } => {
                write!(f, "this edge alone sees {} down, its own uplink is suspect: {what}", regions.join(", "))
            }
            Self::Uplink { on: false, .. } => f.write_str("this edge's uplink is no longer suspect"),
            Self::Spool { up: true, .. } => f.write_str("the spool takes writes again"),
            Self::Spool { up: false, why } => write!(f, "the spool takes no writes: {}", why.as_deref().unwrap_or("it is closed")),
            Self::StalePurged { pattern, copies: 1 } => write!(f, "1 last good copy purged: {pattern}"),
            Self::StalePurged { pattern, copies } => write!(f, "{copies} last good copies purged: {pattern}"),
            Self::SpoolWrites { route, state, count, id } => {
                let verb = if state == "pending" { "sent on their way again" } else { state };
                write!(f, "spool: {count} writes of route {route} {verb}, for example {id}")
            }
        }
    }
}

/// Why: a name that machines can count, and figures that people can check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "cause")]
pub enum Cause {
    /// Nothing heard while requests waited.
    Silence {
        /// For how long, ms.
        quiet_ms: u64,
        /// How many waited.
        waiting: u32,
    },
    /// Connections fail on every endpoint.
    Unreachable {
        /// Endpoints that cannot be reached.
        endpoints: u32,
    },
    /// Too many answers failed.
    FailureRate {
        /// Failed.
        failed: u32,
        /// Of.
        judged: u32,
    },
    /// Too many requests got no answer in time.
    Timeouts {
        /// Timed out.
        timeouts: u32,
        /// Of.
        judged: u32,
    },
    /// Answers were implausible.
    Implausible {
        /// Rejected.
        rejected: u32,
        /// Distinct keys contradicted.
        keys: u32,
    },
    /// Probes failed, and live traffic had nothing better to say.
    Probes {
        /// Endpoints down.
        down: u32,
        /// Of.
        endpoints: u32,
        /// The last verdict, in words.
        last: String,
    },
    /// An endpoint's own streak of failures.
    Streak {
        /// In a row.
        failures: u32,
        /// Hard evidence.
        hard: bool,
    },
    /// At least half of the region's pools tripped.
    Pools {
        /// Tripped.
        tripped: u32,
        /// With recent traffic.
        of: u32,
    },
    /// Slower than its own past: its ramp went a step back.
    Slow {
        /// p99 now, ms.
        p99_ms: u64,
        /// Before, ms.
        usual_ms: u64,
    },
    /// The open time is over.
    OpenTimeOver {
        /// It was, s.
        open_s: u64,
    },
    /// Trials succeeded.
    Proven {
        /// Successes.
        successes: u32,
    },
    /// A trial or a ramp step failed.
    Relapse {
        /// In words.
        what: String,
    },
    /// The ramp moved.
    Step {
        /// Share of its normal share now, percent.
        percent: f64,
    },
    /// The ramp is complete.
    Recovered,
    /// Something was heard again.
    Heard,
    /// An operator said so.
    Operator {
        /// The reason given.
        reason: String,
    },
    /// Unrelated regions went bad together.
    CommonMode {
        /// Which.
        regions: Vec<String>,
    },
    /// This process was stalled.
    Stalled {
        /// For how long, ms.
        late_ms: u64,
    },
    /// The fleet's view.
    Fleet {
        /// In words.
        what: String,
    },
}

impl Cause {
    /// The name that status and metrics show.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Silence { .. } => "silence",
            Self::Unreachable { .. } => "unreachable",
            Self::FailureRate { .. } => "failure_rate",
            Self::Timeouts { .. } => "timeouts",
            Self::Implausible { .. } => "implausible",
            Self::Probes { .. } => "probes",
            Self::Streak { .. } => "streak",
            Self::Pools { .. } => "pools",
            Self::Slow { .. } => "slow",
            Self::OpenTimeOver { .. } => "open_time_over",
            Self::Proven { .. } => "proven",
            Self::Relapse { .. } => "relapse",
            Self::Step { .. } => "step",
            Self::Recovered => "recovered",
            Self::Heard => "heard",
            Self::Operator { .. } => "operator",
            Self::CommonMode { .. } => "common_mode",
            Self::Stalled { .. } => "stalled",
            Self::Fleet { .. } => "fleet",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silence { quiet_ms, waiting } => write!(f, "silence: nothing heard for {quiet_ms} ms while {waiting} requests waited"),
            Self::Unreachable { endpoints } => write!(f, "unreachable: connections fail on all {endpoints} endpoints"),
            Self::FailureRate { failed, judged } => write!(f, "failure rate: {failed} of {judged} requests failed"),
            Self::Timeouts { timeouts, judged } => write!(f, "timeouts: {timeouts} of {judged} requests got no answer in time"),
            Self::Implausible { rejected, keys } => {
                write!(f, "implausible: {rejected} answers rejected, {keys} distinct keys contradicted")
            }
            Self::Probes { down, endpoints, last } => write!(f, "probes: {down} of {endpoints} endpoints fail them ({last})"),
            Self::Streak { failures, hard } => {
                write!(f, "streak: {failures} failures in a row{}", if *hard { ", no answer at all" } else { "" })
            }
            Self::Pools { tripped, of } => write!(f, "pools: {tripped} of {of} pools with traffic tripped"),
            Self::Slow { p99_ms, usual_ms } => write!(f, "slow: p99 is {p99_ms} ms, usually {usual_ms} ms; one step of the ramp back"),
            Self::OpenTimeOver { open_s } => write!(f, "the open time of {open_s} s is over"),
            Self::Proven { successes } => write!(f, "{successes} trials succeeded"),
            Self::Relapse { what } => write!(f, "relapse: {what}"),
            Self::Step { percent } => write!(f, "ramp at {percent} % of its share"),
            Self::Recovered => f.write_str("ramp complete"),
            Self::Heard => f.write_str("heard from it again"),
            Self::Operator { reason } => write!(f, "operator: {reason}"),
            Self::CommonMode { regions } => write!(f, "common mode: {} went bad together", regions.join(", ")),
            Self::Stalled { late_ms } => write!(f, "this process was stalled for {late_ms} ms"),
            Self::Fleet { what } => write!(f, "fleet: {what}"),
        }
    }
}
