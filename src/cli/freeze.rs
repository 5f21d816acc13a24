//! `evenkeel freeze`: hold all states as they are.

use super::Outcome;
use super::client::Admin;
use crate::admin::wire::FreezeRequest;
use hyper::Method;

/// What `freeze` takes.
#[derive(clap::Args)]
pub struct Args {
    /// Hold all states as they are, or let them go.
    state: Switch,
    #[command(flatten)]
    admin: Admin,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Switch {
    On,
    Off,
}

/// Freezes.
pub fn run(args: Args) -> Outcome {
    args.admin.change(Method::PUT, "/v1/freeze", &FreezeRequest { on: args.state == Switch::On })
}
