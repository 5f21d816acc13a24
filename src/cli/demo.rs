//! `evenkeel demo`: three regions, a load and a proxy in one process.

use super::{Failure, Outcome, Verdict};
use crate::demo::{Options, run};

/// Three simulated regions, a load and the proxy in one process, and the dashboard's address.
#[derive(clap::Args)]
pub struct Args {
    /// Play a scripted outage, print what it came to, and leave (about half a minute).
    #[arg(long)]
    once: bool,
    /// Requests per second.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=2000))]
    rate: u32,
    /// Leave after so many seconds.
    #[arg(long, value_name = "SECONDS", conflicts_with = "once")]
    seconds: Option<u64>,
    /// Lines instead of a live screen, as where there is no terminal.
    #[arg(long)]
    plain: bool,
}

/// Runs the demo; the answer is no where `--once` found users hurt more than it promises.
pub fn run_demo(args: &Args) -> Outcome {
    let screen = !args.once && !args.plain && args.seconds.is_none() && super::screen::possible();
    let options = Options { once: args.once, rate: args.rate, seconds: args.seconds, screen };
    match run(&options) {
        Ok(true) => Ok(Verdict::Good),
        Ok(false) => Ok(Verdict::Bad),
        Err(why) => Err(Failure::new(why, "see that ports of 127.0.0.0/8 can be bound, and try again")),
    }
}
