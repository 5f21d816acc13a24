//! `evenkeel man [FOLDER]`: the manual pages, one for the program and one for every command.

use super::{Failure, Outcome, Verdict, say};
use clap::CommandFactory;
use std::path::PathBuf;

/// What `man` takes.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  evenkeel man | man -l -\n  evenkeel man /usr/local/share/man/man1")]
pub struct Args {
    /// Every page goes there. Default: the program's own page on standard output.
    #[arg(value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

/// Writes them.
pub fn run(args: &Args) -> Outcome {
    let program = super::Cli::command();
    let Some(folder) = &args.folder else {
        let mut page = Vec::new();
        clap_mangen::Man::new(program).render(&mut page)?;
        say(String::from_utf8_lossy(&page).trim_end())?;
        return Ok(Verdict::Good);
    };
    let wrong = |e| Failure::new(format!("{}: {e}", folder.display()), "name a folder that you may write to");
    std::fs::create_dir_all(folder).map_err(wrong)?;
    clap_mangen::generate_to(program, folder).map_err(wrong)?;
    Ok(Verdict::Good)
}
