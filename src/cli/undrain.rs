//! `evenkeel undrain`: lift a drain.

use super::Outcome;
use super::client::{Admin, segment};
use hyper::Method;

/// What `undrain` takes.
#[derive(clap::Args)]
pub struct Args {
    /// A region, or a fate: then every region that has it.
    #[arg(value_name = "REGION|FATE")]
    name: String,
    #[command(flatten)]
    admin: Admin,
}

/// Undrains.
pub fn run(args: Args) -> Outcome {
    args.admin.change(Method::POST, &format!("/v1/regions/{}/undrain", segment(&args.name)), &())
}
