//! `evenkeel spool`: what waits, and the last word over it.

use super::client::{Admin, segment};
use super::style::Style;
use super::{Failure, Outcome, Verdict, say};
use crate::admin::wire::{SpoolReplayRequest, SpoolStatus};
use hyper::Method;

/// What `spool` takes.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    list: List,
    #[command(flatten)]
    admin: Admin,
}

#[derive(clap::Subcommand)]
enum What {
    /// What waits, and what was refused or expired (the default).
    List {
        #[command(flatten)]
        list: List,
        #[command(flatten)]
        admin: Admin,
    },
    /// Replay now: everything that waits, or one write, also one that was refused or has expired.
    Replay {
        /// One of them. Default: everything that waits.
        #[arg(value_name = "ID")]
        id: Option<String>,
        #[command(flatten)]
        admin: Admin,
    },
    /// Let a write go: it will not be replayed, and its client was told that it would be.
    Drop {
        /// Which.
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        admin: Admin,
    },
}

#[derive(clap::Args, Clone)]
#[group(skip)]
struct List {
    /// Only these: pending, applied, refused, expired, dropped, damaged (comma-separated). Default: all but applied.
    #[arg(long, value_name = "STATES")]
    state: Option<String>,
    /// How many, 1000 at most.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// Behind this number.
    #[arg(long, default_value_t = 0)]
    after: u64,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// Lists, replays or drops.
pub fn run(args: Args) -> Outcome {
    match args.what {
        None => list(&args.list, &args.admin),
        Some(What::List { list: asked, admin }) => list(&asked, &admin),
        Some(What::Replay { id, admin }) => admin.change(Method::POST, "/v1/spool/replay", &SpoolReplayRequest { id }),
        Some(What::Drop { id, admin }) => admin.change(Method::DELETE, &format!("/v1/spool/{}", segment(&id)), &()),
    }
}

fn list(asked: &List, admin: &Admin) -> Outcome {
    let state = asked.state.as_ref().map_or(String::new(), |s| format!("&state={}", segment(s)));
    let path = format!("/v1/spool?limit={}&after={}{state}", asked.limit, asked.after);
    if asked.json {
        let document: serde_json::Value = admin.get(&path)?;
        say(format_args!("{document:#}"))?;
        return Ok(Verdict::Good);
    }
    let status: SpoolStatus = admin.get(&path)?;
    for line in page(&status) {
        say(line)?;
    }
    if let Some(why) = &status.trouble {
        let style = Style::of(&std::io::stderr());
        eprintln!("{}: {why}", style.red("the spool takes no writes"));
        return Ok(Verdict::Bad);
    }
    Ok::<_, Failure>(Verdict::Good)
}

fn page(status: &SpoolStatus) -> Vec<String> {
    let counts: Vec<String> = status.states.iter().filter(|(_, n)| **n > 0).map(|(name, n)| format!("{n} {name}")).collect();
    let counts = if counts.is_empty() { "empty".to_owned() } else { counts.join(", ") };
    let mut lines = vec![format!("{counts}; {} KiB on disk", status.bytes.div_ceil(1024))];
    for e in &status.entries {
        let result = e.result.map_or(String::new(), |r| format!(" {r}"));
        let why = e.why.as_ref().map_or(String::new(), |w| format!("  ({w})"));
        lines.push(format!("{}  {:8}{result}  {}  {} {}  {} B{why}", e.id, e.state, e.accepted_at, e.method, e.target, e.bytes));
    }
    if status.entries.len() >= 100 {
        lines.push(format!("more: --after {}", status.entries.last().map_or(0, |e| e.seq)));
    }
    lines
}
