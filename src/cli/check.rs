//! `evenkeel check`: every problem and every warning of a config.

use super::style::Style;
use super::{Failure, Outcome, Verdict, say};
use crate::config::problem::{Level, Problem, Problems};
use crate::config::{self, Loaded};
use crate::model::topology::Topology;
use std::path::PathBuf;

/// What `check` takes.
#[derive(clap::Args)]
pub struct Args {
    /// The config file.
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// Warnings are problems, too: exit 1.
    #[arg(long)]
    strict: bool,
    /// For machines: {"valid", "problems", "warnings"} on standard output.
    #[arg(long)]
    json: bool,
}

/// Checks the file.
pub fn run(args: Args) -> Outcome {
    let text = config::read_text(&args.config).map_err(|p| unreadable(&p))?;
    let checked = config::parse(&text, &args.config);
    let (problems, warnings) = match &checked {
        Ok(loaded) => (vec![], loaded.checked.warnings.0.iter().collect()),
        Err(all) => all.0.iter().partition::<Vec<&Problem>, _>(|p| p.level == Level::Error),
    };
    if args.json {
        let document = serde_json::json!({
            "valid": problems.is_empty(),
            "problems": problems.iter().map(|p| p.json()).collect::<Vec<_>>(),
            "warnings": warnings.iter().map(|p| p.json()).collect::<Vec<_>>(),
        });
        say(format_args!("{document:#}"))?;
    } else {
        let style = Style::of(&std::io::stderr());
        for problem in problems.iter().chain(&warnings) {
            eprintln!("{}", paint(problem, style));
        }
        say(summary(&args.config.display().to_string(), checked.as_ref().ok(), problems.len(), warnings.len()))?;
    }
    let good = problems.is_empty() && (warnings.is_empty() || !args.strict);
    Ok(if good { Verdict::Good } else { Verdict::Bad })
}

/// A file that cannot be read.
pub fn unreadable(problems: &Problems) -> Failure {
    let first = problems.0.first();
    Failure::new(first.map_or(String::new(), Problem::headline), first.map_or(String::new(), |p| p.notes.join("; ")))
}

fn summary(file: &str, loaded: Option<&Loaded>, problems: usize, warnings: usize) -> String {
    let noted = match warnings {
        0 => String::new(),
        n => format!(", {}", count(n, "warning")),
    };
    match loaded {
        None => format!("{file}: {}{noted}", count(problems, "problem")),
        Some(loaded) => format!("{file}: valid{noted}. {}", content(&loaded.checked.topology)),
    }
}

fn content(t: &Topology) -> String {
    let parts = [
        (t.listeners.len(), "listener"),
        (t.regions.len(), "region"),
        (t.services.len(), "service"),
        (t.pools.len(), "pool"),
        (t.endpoints.len(), "endpoint"),
        (t.routes.len(), "route"),
    ];
    parts.iter().map(|(n, what)| count(*n, what)).collect::<Vec<_>>().join(", ")
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// A problem with its level and its caret in colour.
pub fn paint(problem: &Problem, style: Style) -> String {
    let colour = |text: &str| if problem.level == Level::Error { style.red(text) } else { style.yellow(text) };
    let text = problem.to_string();
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let (level, rest) = first.split_once(':').unwrap_or((first, ""));
    let mut out = format!("{}:{}\n", colour(level), style.bold(rest));
    for line in lines {
        match line.trim_start_matches([' ', '|']) {
            carets if !carets.is_empty() && carets.bytes().all(|b| b == b'^') => {
                out += &format!("{}{}\n", &line[..line.len() - carets.len()], colour(carets));
            }
            _ => out += &format!("{line}\n"),
        }
    }
    out
}
