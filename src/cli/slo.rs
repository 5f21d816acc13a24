//! `evenkeel slo`: how the objectives are kept, and how long every region and fate was out or slow.

use super::client::Admin;
use super::style::Style;
use super::{Outcome, Verdict, say};
use crate::config::value::Span;
use crate::report::tell::span;
use serde_json::Value;

/// What `slo` takes.
#[derive(clap::Args)]
#[command(after_help = "Exit 0: every objective is kept, 1: one is missed, 2: could not run.")]
pub struct Args {
    /// Over so long. The ledger is kept for 90 days.
    #[arg(long, value_name = "DURATION", default_value = "30d")]
    since: Span,
    /// Only these. Default: all of them.
    #[arg(long, value_enum)]
    by: Option<By>,
    /// For machines.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: Admin,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum By {
    Region,
    Fate,
    Route,
}

/// Prints it.
pub fn run(args: Args) -> Outcome {
    let report: Value = args.admin.get(&format!("/v1/slo?since={}", args.since))?;
    let (style, wants) = (Style::of(&std::io::stdout()), |by| args.by.is_none_or(|b| b == by));
    let mut missed = false;
    let mut page = String::new();
    let rows = |key: &str| report[key].as_array().cloned().unwrap_or_default();
    if wants(By::Route) {
        page += &format!("Routes over the last {}\n", args.since);
        for r in rows("routes") {
            let name = r["route"].as_str().unwrap_or_default();
            page += &format!("  {name}: {} requests, {} not good\n", r["requests"], r["bad"]);
            for what in ["success", "latency"] {
                let Some(kept) = r[what].as_object() else { continue };
                let f = |key: &str| kept[key].as_f64().unwrap_or(0.0);
                let burn = |window: &str| kept["burn"][window].as_f64().unwrap_or(0.0);
                let ok = f("budget") >= 0.0;
                missed |= !ok;
                let verdict = if ok { style.green("kept") } else { style.red("MISSED") };
                let limit =
                    r["latency_ms"].as_f64().filter(|_| what == "latency").map_or(String::new(), |ms| format!(" within {ms:.0} ms"));
                page += &format!(
                    "    {what}: {:.3}%{limit}, promised {:.3}%: {verdict}; {:.0}% of the budget left; burn rate {:.1} (5m) {:.1} (1h) {:.1} (6h) {:.1} (3d)\n",
                    f("is") * 100.0,
                    f("goal") * 100.0,
                    f("budget") * 100.0,
                    burn("5m"),
                    burn("1h"),
                    burn("6h"),
                    burn("3d")
                );
            }
        }
    }
    for (by, key, title) in [(By::Region, "regions", "Regions"), (By::Fate, "fates", "Fates")] {
        let places = rows(key);
        if !wants(by) || places.is_empty() {
            continue;
        }
        page += &format!("{title} over the last {}\n", args.since);
        for p in places {
            let s = |key: &str| span((p[key].as_f64().unwrap_or(0.0) * 1e3) as u64);
            let name = p["name"].as_str().unwrap_or_default();
            page += &format!(
                "  {name}: {:.3}% available; out {}, partly {}, slow {}, drained {}, watched {}",
                p["available"].as_f64().unwrap_or(0.0) * 100.0,
                s("out"),
                s("partly"),
                s("slow"),
                s("drained"),
                s("watched")
            );
            let causes: Vec<String> = p["causes"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(cause, n)| format!("{cause} {}", span((n.as_f64().unwrap_or(0.0) * 1e3) as u64)))
                .collect();
            page += &if causes.is_empty() { "\n".to_owned() } else { format!("; by {}\n", causes.join(", ")) };
        }
    }
    if args.json {
        for (by, key) in [(By::Region, "regions"), (By::Fate, "fates"), (By::Route, "routes")] {
            missed |= by == By::Route
                && wants(by)
                && rows(key).iter().any(|r| ["success", "latency"].iter().any(|w| r[w]["budget"].as_f64().is_some_and(|b| b < 0.0)));
        }
        say(format_args!("{report:#}"))?;
    } else {
        say(page.trim_end())?;
    }
    Ok(if missed { Verdict::Bad } else { Verdict::Good })
}
