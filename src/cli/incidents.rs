//! `evenkeel incidents`: what broke, how fast it was seen, when all was well again; from the journal.

use super::client::{Admin, segment};
use super::{Outcome, Verdict, say};

/// What `incidents` takes.
#[derive(clap::Args)]
pub struct Args {
    /// One of them, as a page. Default: all of them, one a line, the newest first.
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// Markdown can be pasted into a post-mortem.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    admin: Admin,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Markdown,
    Json,
}

/// Prints them.
pub fn run(args: Args) -> Outcome {
    let id = args.id.as_ref().map_or(String::new(), |id| format!("/{}", segment(id)));
    match args.format {
        Format::Json => {
            let document: serde_json::Value = args.admin.get(&format!("/v1/incidents{id}"))?;
            say(format_args!("{document:#}"))?;
        }
        form => {
            let name = if form == Format::Text { "text" } else { "markdown" };
            let page = args.admin.text(&format!("/v1/incidents{id}?format={name}"))?;
            say(if page.is_empty() { "no incident on record" } else { page.trim_end() })?;
        }
    }
    Ok(Verdict::Good)
}
