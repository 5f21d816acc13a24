//! `evenkeel schema`: the JSON Schema of the config file.

use super::{Outcome, Verdict, say};

/// What `schema` takes.
#[derive(clap::Args)]
#[command(
    after_help = "In an editor with a YAML language server, put this at the top of the config:\n  # yaml-language-server: $schema=evenkeel.schema.json"
)]
pub struct Args {}

/// Prints it.
pub fn run(_: Args) -> Outcome {
    say(crate::config::schema::text())?;
    Ok(Verdict::Good)
}
