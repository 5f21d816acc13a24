//! `evenkeel trip`: take a pool out, whatever the detector thinks.

use super::Outcome;
use super::client::{Admin, each_pool};
use crate::admin::wire::TripRequest;

/// What `trip` takes.
#[derive(clap::Args)]
pub struct Args {
    /// A pool as service/region, or a region: then every pool of it.
    #[arg(value_name = "POOL|REGION")]
    name: String,
    /// Why: goes into status and journal.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    admin: Admin,
}

/// Trips.
pub fn run(args: Args) -> Outcome {
    each_pool(&args.admin, &args.name, "trip", &TripRequest { reason: args.reason, ..Default::default() })
}
