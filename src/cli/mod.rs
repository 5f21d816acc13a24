//! The command line: one file per command.
//!
//! A command is a file with `Args` (clap) and `run(Args) -> Outcome`, and a line in [`Command`]. What every command keeps to:
//!
//! | exit | means |
//! |---|---|
//! | 0 | done; valid; safe |
//! | 1 | the answer is no: problems found, unsafe, an objective missed |
//! | 2 | could not run: wrong arguments, no such file, no answer |
//!
//! What was asked for goes to standard output, everything else to standard error. An error says what to do next.
//! Colours appear only on a terminal, and not under `NO_COLOR`.

mod check;
pub mod client;
mod completions;
mod demo;
mod drain;
mod drill;
mod explain;
mod freeze;
mod incidents;
mod man;
mod plan;
mod rehearse;
mod reset;
mod run;
mod schema;
pub mod screen;
mod slo;
mod spool;
mod stale;
mod status;
pub mod style;
mod trip;
mod undrain;

use clap::{Parser, Subcommand};
use std::fmt;
use std::io::Write;
use std::process::ExitCode;

/// An edge reverse proxy that keeps a service answering when a whole region goes dark.
#[derive(Parser)]
#[command(name = "evenkeel", version, arg_required_else_help = true, max_term_width = 110, disable_help_subcommand = true)]
#[command(after_help = "First steps: write a config (config/minimal.yaml is the shortest), then `evenkeel check --config FILE`.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The proxy, in the foreground.
    Run(run::Args),
    /// Three simulated regions, a load and the proxy in one process, and the dashboard's address.
    Demo(demo::Args),
    /// Every problem of a config and every warning. Exit 0: valid, 1: problems, 2: could not run.
    Check(check::Args),
    /// What a config would do to the traffic: what changes, where it goes, what a loss would do. Exit 0: safe, 1: unsafe.
    Plan(plan::Args),
    /// Which route a request takes, which regions in which order, and why.
    Explain(explain::Args),
    /// What an outage would do under this config, played on virtual time. Exit 1: an objective was missed.
    Rehearse(rehearse::Args),
    /// Regions, pools, shares, and why each is in its state.
    Status(status::Args),
    /// Give a region nothing: gradually, for a time, with a reason.
    Drain(drain::Args),
    /// Lift a drain.
    Undrain(undrain::Args),
    /// A live failover exercise: take a region out, watch, put it back. Exit 0: passed, 1: refused or aborted.
    Drill(drill::Args),
    /// Take a pool out, whatever the detector thinks.
    Trip(trip::Args),
    /// Put a pool back to serving, whatever the detector thinks.
    Reset(reset::Args),
    /// Hold all states as they are, or let them go.
    Freeze(freeze::Args),
    /// What broke, how fast it was seen, when all was well again; from the journal.
    Incidents(incidents::Args),
    /// How the objectives are kept, and how long regions and fates were out. Exit 0: kept, 1: missed.
    Slo(slo::Args),
    /// Writes that wait to be replayed: list them, replay them now, let one go.
    Spool(spool::Args),
    /// The store of last good copies: drop some of them.
    Stale(stale::Args),
    /// The JSON Schema (2020-12) of the config file, for editors.
    Schema(schema::Args),
    /// What a shell needs to complete these commands.
    Completions(completions::Args),
    /// The manual pages.
    Man(man::Args),
}

impl Command {
    fn run(self) -> Outcome {
        match self {
            Self::Run(args) => run::run(args),
            Self::Demo(args) => demo::run_demo(&args),
            Self::Check(args) => check::run(args),
            Self::Plan(args) => plan::run(args),
            Self::Explain(args) => explain::run(args),
            Self::Rehearse(args) => rehearse::run(args),
            Self::Status(args) => status::run(args),
            Self::Drain(args) => drain::run(args),
            Self::Undrain(args) => undrain::run(args),
            Self::Drill(args) => drill::run(args),
            Self::Trip(args) => trip::run(args),
            Self::Reset(args) => reset::run(args),
            Self::Freeze(args) => freeze::run(args),
            Self::Incidents(args) => incidents::run(args),
            Self::Slo(args) => slo::run(args),
            Self::Spool(args) => spool::run(args),
            Self::Stale(args) => stale::run(args),
            Self::Schema(args) => schema::run(args),
            Self::Completions(args) => completions::run(&args),
            Self::Man(args) => man::run(&args),
        }
    }
}

/// How a command ended.
pub type Outcome = Result<Verdict, Failure>;

/// The answer of a command that could run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Exit 0.
    Good,
    /// Exit 1: the answer is no.
    Bad,
}

/// A command that could not run: exit 2.
#[derive(Debug)]
pub struct Failure {
    /// What went wrong.
    pub what: String,
    /// What to do next; empty: nothing better than to read `what`.
    pub next: String,
}

impl Failure {
    /// What went wrong, and what to do next.
    pub fn new(what: impl fmt::Display, next: impl fmt::Display) -> Self {
        Self { what: what.to_string(), next: next.to_string() }
    }
}

impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Self {
        Self::new(e, "")
    }
}

/// Runs what the arguments ask for.
pub fn main() -> ExitCode {
    // clap itself ends the process with 2 on wrong arguments, with 0 after --help.
    match Cli::parse().command.run() {
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Bad) => ExitCode::from(1),
        // Whoever read our output has gone (`| head`): nobody is left to be told.
        Err(failure) if failure.what.contains("Broken pipe") => ExitCode::SUCCESS,
        Err(failure) => {
            let style = style::Style::of(&std::io::stderr());
            eprintln!("{}: {}", style.red("error"), failure.what);
            if !failure.next.is_empty() {
                eprintln!(" {} {}", style.bold("next:"), failure.next);
            }
            ExitCode::from(2)
        }
    }
}

/// Writes to standard output; unlike `println!` it does not panic when the reader has gone.
pub fn say(text: impl fmt::Display) -> Result<(), Failure> {
    Ok(writeln!(std::io::stdout().lock(), "{text}")?)
}
