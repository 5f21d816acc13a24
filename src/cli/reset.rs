//! `evenkeel reset`: put a pool back to serving, whatever the detector thinks.

use super::Outcome;
use super::client::{Admin, each_pool};

/// What `reset` takes.
#[derive(clap::Args)]
pub struct Args {
    /// A pool as service/region, or a region: then every pool of it.
    #[arg(value_name = "POOL|REGION")]
    name: String,
    #[command(flatten)]
    admin: Admin,
}

/// Resets.
pub fn run(args: Args) -> Outcome {
    each_pool(&args.admin, &args.name, "reset", &())
}
