//! Incidents in words.

use super::incident::{Incident, Line};
use std::fmt::Write;

/// A time span for people.
pub fn span(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{ms} ms"),
        10_000..120_000 => format!("{:.1} s", ms as f64 / 1e3),
        120_000..7_200_000 => format!("{} min {} s", ms / 60_000, ms / 1000 % 60),
        _ => format!("{} h {} min", ms / 3_600_000, ms / 60_000 % 60),
    }
}

/// One incident in one line.
pub fn summary(i: &Incident) -> String {
    let end = i.restore_ms.map_or("goes on".into(), |ms| format!("restored after {}", span(ms)));
    let place = if i.regions.is_empty() { "every region".into() } else { i.regions.join(", ") };
    format!("{}  {}  {place}: {}; shifted after {}, {end}", i.id, i.onset, i.cause_text, span(i.shift_ms))
}

/// A page for a post-mortem.
pub fn markdown(i: &Incident) -> String {
    let mut out = String::new();
    let place = if i.regions.is_empty() { "states held".into() } else { i.regions.join(", ") };
    let _ = writeln!(out, "# Incident {}: {place}\n\nDetected cause: {}\n", i.id, i.cause_text);
    let _ = writeln!(out, "| | when (UTC) | after |\n|---|---|---|");
    let _ = writeln!(out, "| onset, as far as the edge could see | {} | |", i.onset);
    let _ = writeln!(out, "| detected | {} | {} |", i.detected, span(i.detect_ms));
    let _ = writeln!(out, "| traffic shifted | {} | {} |", i.shifted, span(i.shift_ms));
    let restored = i.restored.map_or("not yet".into(), |t| t.to_string());
    let after = i.restore_ms.map_or(String::new(), |ms| format!("{} after the shift", span(ms)));
    let _ = writeln!(out, "| restored | {restored} | {after} |\n");
    if !i.pools.is_empty() {
        let _ = writeln!(out, "## Pools\n\n| pool | trips | out | first cause |\n|---|---|---|---|");
        for p in &i.pools {
            let _ = writeln!(out, "| {} | {} | {} | {} |", cell(&p.pool), p.trips, span(p.out_ms), cell(&p.cause));
        }
        out.push('\n');
    }
    requests(&mut out, i);
    list(&mut out, "Config changes and operator actions", &i.actions);
    list(&mut out, "Timeline", &i.timeline);
    if !i.questions.is_empty() {
        let _ = writeln!(out, "## Open questions\n");
        for q in &i.questions {
            let _ = writeln!(out, "- {q}");
        }
    }
    out
}

/// What it cost, where counts are on record.
fn requests(out: &mut String, i: &Incident) {
    if i.routes.is_empty() {
        return;
    }
    // A column that nobody needs is left out.
    let names: Vec<&str> = i.routes[0].each().iter().map(|(n, _)| *n).collect();
    let used: Vec<usize> = (0..names.len()).filter(|c| i.routes.iter().any(|r| r.each()[*c].1 > 0)).collect();
    let heads: Vec<String> = used.iter().map(|c| names[*c].replace('_', " ")).collect();
    let _ = writeln!(out, "## Requests\n\n| route | requests | {} |\n|---|---|{}", heads.join(" | "), "---|".repeat(used.len()));
    for r in &i.routes {
        let cells: Vec<String> = used.iter().map(|c| r.each()[*c].1.to_string()).collect();
        let _ = writeln!(out, "| {} | {} | {} |", cell(&r.route), r.requests(), cells.join(" | "));
    }
    let _ = writeln!(out, "\n| region | answered | part | failed attempts |\n|---|---|---|---|");
    for c in &i.carried {
        let _ = writeln!(out, "| {} | {} | {:.1}% | {} |", cell(&c.region), c.answered, c.share * 100.0, c.failed);
    }
    out.push('\n');
}

fn list(out: &mut String, title: &str, lines: &[Line]) {
    let _ = writeln!(out, "## {title}\n");
    if lines.is_empty() {
        let _ = writeln!(out, "None on record.");
    }
    for l in lines {
        let by = if l.by == "evenkeel" { String::new() } else { format!(" ({})", l.by) };
        let _ = writeln!(out, "- {} {}{by}", l.at.clock(), l.what.replace('\n', " "));
    }
    out.push('\n');
}

/// Text that cannot break a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
