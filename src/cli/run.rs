//! `evenkeel run`: the proxy, in the foreground.

use super::{Failure, Outcome, Verdict};
use crate::run::{Options, run as serve};
use std::path::PathBuf;

/// Arguments of `run`.
#[derive(clap::Args)]
pub struct Args {
    /// The config file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Take the listening sockets over from the process that holds edge.state_dir.
    #[arg(long)]
    takeover: bool,
    /// Start from the copy of the last applied config, should the file be bad.
    #[arg(long)]
    last_good: bool,
}

/// Runs the proxy until a signal ends it.
pub fn run(args: Args) -> Outcome {
    match serve(&Options { config: args.config, last_good: args.last_good, takeover: args.takeover }) {
        Ok(()) => Ok(Verdict::Good),
        Err(e) => Err(Failure::new(e.what, e.next)),
    }
}
