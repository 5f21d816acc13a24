//! `evenkeel status`: regions, pools, shares, and why each is in its state.

mod fleet;

use super::client::Admin;
use super::style::Style;
use super::{Failure, Outcome, Verdict, say};
use crate::admin::wire::{EndpointStatus, PoolStatus, RegionStatus, Status, When};
use crate::model::event::Actor;
use crate::model::view::State;
use jiff::Timestamp;
use std::fmt::Write;
use std::time::Duration;

/// What `status` takes.
#[derive(clap::Args)]
pub struct Args {
    /// The answer of GET /v1/status as it is.
    #[arg(long)]
    json: bool,
    /// A live screen, with keys to drain and undrain; where there is no terminal, the table again every second.
    #[arg(long, conflicts_with = "json")]
    watch: bool,
    /// The fleet: which edges there are, who thinks what of which pool, and the orders that stand.
    #[arg(long, conflicts_with = "json")]
    fleet: bool,
    #[command(flatten)]
    admin: Admin,
}

/// Prints it.
pub fn run(args: Args) -> Outcome {
    if args.json {
        let document: serde_json::Value = args.admin.get("/v1/status")?;
        say(format_args!("{document:#}"))?;
    } else if args.watch && !args.fleet && super::screen::possible() {
        return super::screen::run(args.admin, None);
    } else if args.watch {
        watch(&args.admin, args.fleet)?;
    } else {
        say(page(&args.admin, args.fleet)?)?;
    }
    Ok(Verdict::Good)
}

fn page(admin: &Admin, fleet: bool) -> Result<String, Failure> {
    let (status, now, style) = (admin.status()?, crate::clock::wall_now(), Style::of(&std::io::stdout()));
    let page = if fleet { fleet::page(&status, now, style) } else { table(&status, now, style) };
    Ok(page.trim_end().into())
}

/// Until interrupted, or until whoever reads has gone. A proxy that does not answer may come back.
fn watch(admin: &Admin, fleet: bool) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    loop {
        let page = page(admin, fleet).unwrap_or_else(|failure| failure.what);
        say(format_args!("{page}\n"))?;
        runtime.block_on(async { tokio::time::sleep(EVERY).await });
    }
}

/// How often `--watch` looks.
const EVERY: Duration = Duration::from_secs(1);
/// Cells of the bar that shows a share.
const BAR: usize = 10;

/// The whole status for people.
fn table(s: &Status, now: Timestamp, style: Style) -> String {
    let mut out = String::new();
    let loaded = s.config.loaded_at.as_ref().map_or(String::new(), |t| format!(", applied {} ago", ago(t, now)));
    let _ = writeln!(out, "{}  config {} of {}{loaded}, mode {}", style.bold(&s.edge), s.generation, s.config.path, s.mode);
    if s.edge_suspect {
        let text = "states are held: unrelated regions went bad together, or this process was stalled";
        let _ = writeln!(out, "{}", style.yellow(text));
    }
    if let Some(f) = &s.fleet {
        let _ = writeln!(out, "{}", fleet::line(f, style));
    }
    if let Some(error) = &s.config.last_error {
        let _ = writeln!(out, "{}", style.yellow(format!("the last reload was refused: {error}")));
    }
    out.push('\n');
    let rows = s.regions.iter().map(|r| region(r, now));
    out += &grid(&["REGION", "STATE", "SINCE", "DRAINED", "CAUSE"], rows.collect(), |row, cell| colour(style, row, cell));
    out.push('\n');
    let mut rows = Vec::new();
    for p in &s.pools {
        rows.push(pool(p, now));
        rows.extend(p.endpoints.iter().filter(|e| !e.up).map(|e| endpoint(e, now)));
    }
    out += &grid(&["POOL", "STATE", "SHARE", "INFLIGHT", "RATE", "UP", "SINCE", "CAUSE"], rows, |row, cell| colour(style, row, cell));
    out
}

fn region(r: &RegionStatus, now: Timestamp) -> Vec<String> {
    let drained = r.drained.as_ref().map_or("no".into(), |d| {
        let until = d.until.as_ref().map_or(String::new(), |t| format!(", {} left", ago(t, now)));
        let both = if d.by_file && d.by != Actor::File.to_string() { ", and by the config file" } else { "" };
        format!("by {}: {}{until}{both}", d.by, d.reason)
    });
    vec![r.name.clone(), r.state.to_string(), ago(&r.since, now), drained, r.cause.clone().unwrap_or_default()]
}

fn pool(p: &PoolStatus, now: Timestamp) -> Vec<String> {
    let up = p.endpoints.iter().filter(|e| e.up).count();
    let state = if p.suspect { format!("{}, suspect", p.state) } else { p.state.to_string() };
    vec![
        format!("{}/{}", p.service, p.region),
        state,
        format!("{} {:>5.1}%", bar(p.share), p.share * 100.0),
        format!("{}/{}", p.inflight, p.limit),
        format!("{:.1}/s", p.rate),
        format!("{up}/{}", p.endpoints.len()),
        ago(&p.since, now),
        p.cause.clone().unwrap_or_default(),
    ]
}

fn endpoint(e: &EndpointStatus, now: Timestamp) -> Vec<String> {
    let back = e.ejected_until.as_ref().map_or(String::new(), |t| format!("{} left", ago(t, now)));
    let mut row = vec![format!("  {}", e.address), "out".into()];
    row.resize(6, String::new());
    row.extend([back, e.cause.clone().unwrap_or_default()]);
    row
}

pub(super) fn bar(share: f64) -> String {
    let full = ((share * BAR as f64).round() as usize).min(BAR);
    // The least share still shows.
    let full = if share > 0.0 { full.max(1) } else { full };
    "█".repeat(full) + &"░".repeat(BAR - full)
}

/// The distance of a time from now, either way, in its two largest units.
pub(super) fn ago(at: &When, now: Timestamp) -> String {
    let When::Wall(text) = at else { return "?".into() };
    let Ok(at) = text.parse::<Timestamp>() else { return text.clone() };
    let s = now.duration_since(at).unsigned_abs().as_secs();
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m {}s", s / 60, s % 60),
        3600..86_400 => format!("{}h {}m", s / 3600, s / 60 % 60),
        _ => format!("{}d {}h", s / 86_400, s / 3600 % 24),
    }
}

/// Columns as wide as their widest cell; the last one is free.
fn grid(head: &[&str], rows: Vec<Vec<String>>, paint: impl Fn(&[String], usize) -> String) -> String {
    let width = |i: usize| rows.iter().map(|r| r[i].chars().count()).chain([head[i].len()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut out = String::new();
    let mut line = |cells: Vec<(usize, String)>| {
        let mut text = String::new();
        for (i, (length, cell)) in cells.into_iter().enumerate() {
            text += &cell;
            text += &" ".repeat(widths[i] + 2 - length);
        }
        out += text.trim_end();
        out.push('\n');
    };
    line(head.iter().map(|h| (h.len(), (*h).into())).collect());
    for row in &rows {
        line((0..row.len()).map(|i| (row[i].chars().count(), paint(row, i))).collect());
    }
    out
}

/// The second column is a state and has its colour.
fn colour(style: Style, row: &[String], cell: usize) -> String {
    let text = &row[cell];
    match (cell, text.as_str()) {
        (1, t) if t == State::Serving.label() => style.green(t),
        (1, t) if t == State::Tripped.label() || t == "out" => style.red(t),
        (1, t) => style.yellow(t),
        _ => text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::wire::{ConfigStatus, Drained};

    #[test]
    fn the_table_for_people() {
        let wall = |t: &str| When::Wall(format!("2026-11-21T{t}Z"));
        let region = |name: &str, state, drained, cause: Option<&str>| RegionStatus {
            name: name.into(),
            jurisdiction: None,
            state,
            drained,
            cause: cause.map(Into::into),
            since: wall("11:58:30"),
        };
        let endpoint = |address: &str, up: bool| EndpointStatus {
            address: address.into(),
            up,
            ejected_until: (!up).then(|| wall("12:00:20")),
            cause: (!up).then(|| "streak: 5 failures in a row".into()),
        };
        let pool = |region: &str, state, suspect, share, up| PoolStatus {
            service: "api".into(),
            region: region.into(),
            state,
            suspect,
            share,
            inflight: 3,
            limit: 20,
            rate: 812.3,
            cause: None,
            since: wall("09:30:00"),
            endpoints: vec![endpoint("10.0.0.1:8080", true), endpoint("10.0.0.2:8080", up)],
        };
        let drained = Drained { by: "operator ann".into(), reason: "power works".into(), until: Some(wall("13:30:00")), by_file: false };
        let status = Status {
            edge: "edge-1".into(),
            generation: 3,
            mode: "active".into(),
            edge_suspect: true,
            regions: vec![
                region("east", State::Tripped, Some(drained), Some("pools: 1 of 1 pools with traffic tripped")),
                region("west", State::Serving, None, None),
            ],
            pools: vec![
                pool("east", State::Tripped, false, 0.0, true),
                pool("west", State::Serving, true, 0.996, false),
                pool("eu", State::Ramping, false, 0.004, true),
            ],
            config: ConfigStatus { path: "/etc/evenkeel.yaml".into(), loaded_at: Some(wall("11:00:00")), last_error: None },
            fleet: None,
        };
        let is = table(&status, "2026-11-21T12:00:00Z".parse().unwrap(), Style::none());
        let should = "\
edge-1  config 3 of /etc/evenkeel.yaml, applied 1h 0m ago, mode active
states are held: unrelated regions went bad together, or this process was stalled

REGION  STATE    SINCE   DRAINED                                    CAUSE
east    tripped  1m 30s  by operator ann: power works, 1h 30m left  pools: 1 of 1 pools with traffic tripped
west    serving  1m 30s  no

POOL             STATE             SHARE              INFLIGHT  RATE     UP   SINCE     CAUSE
api/east         tripped           ░░░░░░░░░░   0.0%  3/20      812.3/s  2/2  2h 30m
api/west         serving, suspect  ██████████  99.6%  3/20      812.3/s  1/2  2h 30m
  10.0.0.2:8080  out                                                          20s left  streak: 5 failures in a row
api/eu           ramping           █░░░░░░░░░   0.4%  3/20      812.3/s  2/2  2h 30m
";
        assert!(is == should, "{is}");
    }
}
