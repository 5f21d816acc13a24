//! `evenkeel drill`: a live failover exercise, watched by guards; it ends when this command ends, however that comes.

use super::client::{Admin, Reply, segment};
use super::style::Style;
use super::{Failure, Outcome, Verdict, say};
use crate::admin::wire::{DrillReport, DrillRequest};
use crate::config::value::Span;
use crate::model::event::DrillStage;
use crate::whatif::drill::Guard;
use hyper::Method;
use std::time::Duration;

/// What `drill` takes.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  evenkeel drill east --over 60s --hold 5m --abort-if 'success<99.5%' --abort-if 'p99>300ms' --reason 'quarterly drill'\n\n\
                        Exit 0: passed, 1: refused or aborted, 2: could not run. Ctrl-C puts the region back."
)]
pub struct Args {
    /// The region that is taken out as if it were lost.
    region: String,
    /// For so long, once it is drained.
    #[arg(long, value_name = "DURATION")]
    hold: Span,
    /// Gradually over this time. Default: at once.
    #[arg(long, value_name = "DURATION")]
    over: Option<Span>,
    /// Put it back when a route crosses this: success<99.5%, p99>300ms, shed>1%, degraded>2%, with ROUTE: in front for one
    /// route alone; may be given again and again.
    #[arg(long = "abort-if", value_name = "GUARD")]
    abort_if: Vec<Guard>,
    /// Why: goes into status and journal.
    #[arg(long, value_name = "TEXT", default_value = "drill")]
    reason: String,
    /// Even when the plan says that the regions that stay cannot carry it.
    #[arg(long)]
    force: bool,
    /// For machines: the report.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: Admin,
}

/// The proxy puts the region back when it has not heard of us for so long.
const LEASE: Duration = Duration::from_secs(2);
/// How often it hears of us.
const EVERY: Duration = Duration::from_millis(400);

/// Runs it to its end.
pub fn run(args: Args) -> Outcome {
    let asked = DrillRequest {
        region: args.region,
        over: args.over,
        hold: args.hold,
        abort_if: args.abort_if.iter().map(ToString::to_string).collect(),
        reason: args.reason,
        lease: Some(Span(LEASE)),
        force: args.force,
    };
    let style = Style::of(&std::io::stderr());
    let mut report: DrillReport = match args.admin.call(Method::POST, "/v1/drills", &asked)? {
        Reply::Good(report) => report,
        Reply::Refused(problem) => {
            eprintln!("{}: {}", style.red("refused"), problem.detail);
            return Ok(Verdict::Bad);
        }
    };
    let path = format!("/v1/drills/{}", segment(&report.id));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut told = None;
    while !report.stage.over() {
        if told != Some(report.stage) {
            told = Some(report.stage);
            eprintln!("{}: {} {}: {}", report.id, report.region, report.stage.label(), report.what);
        }
        let interrupted = runtime.block_on(async {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => true,
                () = tokio::time::sleep(EVERY) => false,
            }
        });
        let method = if interrupted { Method::DELETE } else { Method::PUT };
        report = match args.admin.call(method, &path, &())? {
            Reply::Good(report) => report,
            Reply::Refused(problem) => return Err(Failure::new(problem.detail, "")),
        };
    }
    if args.json {
        say(serde_json::to_string_pretty(&report).map_err(|e| Failure::new(e, ""))?)?;
    } else {
        say(page(&report, Style::of(&std::io::stdout())).trim_end())?;
    }
    Ok(if report.stage == DrillStage::Passed { Verdict::Good } else { Verdict::Bad })
}

fn page(r: &DrillReport, style: Style) -> String {
    let stage = if r.stage == DrillStage::Passed { style.green("passed") } else { style.red(r.stage.label()) };
    let mut out = format!("{} of {}: {stage}: {}\n", r.id, r.region, r.what);
    for route in &r.routes {
        out += &format!("  {}: {route}\n", route.route);
    }
    out
}
