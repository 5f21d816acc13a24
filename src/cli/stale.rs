//! `evenkeel stale`: the store of last good copies.

use super::Outcome;
use super::client::Admin;
use crate::admin::wire::PurgeRequest;
use hyper::Method;

/// What `stale` takes.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Drop copies that must not be served any more.
    Purge {
        /// A route, a host, what a path begins with (/video/ or example.com/video/), or * for all of them.
        #[arg(value_name = "PATTERN")]
        pattern: String,
        #[command(flatten)]
        admin: Admin,
    },
}

/// Purges.
pub fn run(args: Args) -> Outcome {
    let What::Purge { pattern, admin } = args.what;
    admin.change(Method::POST, "/v1/stale/purge", &PurgeRequest { pattern })
}
