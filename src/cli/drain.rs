//! `evenkeel drain`: give a region nothing.

use super::Outcome;
use super::client::{Admin, segment};
use crate::admin::wire::DrainRequest;
use crate::config::value::Span;
use hyper::Method;

/// What `drain` takes.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  evenkeel drain east --over 60s --for 2h --reason 'power works in hall 3'")]
pub struct Args {
    /// A region, or a fate: then every region that has it.
    #[arg(value_name = "REGION|FATE")]
    name: String,
    /// Gradually over this time. Default: at once.
    #[arg(long, value_name = "DURATION")]
    over: Option<Span>,
    /// Comes back by itself after this time.
    #[arg(long = "for", value_name = "DURATION")]
    lasting: Option<Span>,
    /// Even when the regions that stay cannot carry it, or some route is left without one.
    #[arg(long)]
    force: bool,
    /// Why: goes into status and journal.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    admin: Admin,
}

/// Drains.
pub fn run(args: Args) -> Outcome {
    let body = DrainRequest { reason: args.reason, over: args.over, lasting: args.lasting, force: args.force, revision: None };
    args.admin.change(Method::POST, &format!("/v1/regions/{}/drain", segment(&args.name)), &body)
}
