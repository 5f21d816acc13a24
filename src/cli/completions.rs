//! `evenkeel completions SHELL`: what a shell needs to complete the commands.

use super::{Failure, Outcome, Verdict, say};
use clap::CommandFactory;

/// What `completions` takes.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  evenkeel completions bash > /etc/bash_completion.d/evenkeel\n  evenkeel completions zsh > \"${fpath[1]}/_evenkeel\"\n  \
                        evenkeel completions fish > ~/.config/fish/completions/evenkeel.fish"
)]
pub struct Args {
    /// Which shell.
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// Prints them.
pub fn run(args: &Args) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "evenkeel", &mut script);
    say(String::from_utf8(script).map_err(|e| Failure::new(e, ""))?.trim_end())?;
    Ok(Verdict::Good)
}
