//! A report as text: tables, and a chart of blocks.

use super::super::script::{Fault, Target, What};
use super::report::{Report, Step};
use crate::model::topology::Topology;
use std::fmt::Write;

/// Columns of a chart.
const WIDE: usize = 60;
/// More pools than this: only those whose share moved are drawn.
const MANY: usize = 8;
/// Lines of the story that are printed.
const LINES: usize = 60;

/// A fault in words.
pub fn fault(f: &Fault, t: &Topology) -> String {
    let at = match f.target {
        Target::Region(r) => format!("region {}", t.regions[r.at()].name),
        Target::Pool(p) => format!("pool {}", t.pools[p.at()].name),
        Target::Endpoint(e) => format!("endpoint {}", t.endpoints[e.at()].address),
        Target::Everywhere => "everywhere".into(),
    };
    let percent = |p: f64| format!("{:.0} %", p * 100.0);
    let what = match f.what {
        What::Kill => "processes die, connections are refused".into(),
        What::Blackhole => "nothing comes back, not even a reset".into(),
        What::AnswersLost => "requests arrive, answers vanish".into(),
        What::HalfOpen => "connections are accepted, nothing is answered".into(),
        What::Slow(x) => format!("requests take {x} times as long"),
        What::Errors(p, status) => format!("{} of requests are answered {status}", percent(p)),
        What::Hang(p) => format!("{} of requests hang for ever", percent(p)),
        What::Pause => "processes stand still".into(),
        What::Workers(p) => format!("{} of the workers are left", percent(p)),
        What::Cold(x) => format!("caches are empty, requests take {x} times as long at first"),
        What::Zeros(p) => format!("{} of answers are zeros, with status 200", percent(p)),
        What::ProbesSay(yes) => format!("probes {}", if yes { "pass, whatever is true" } else { "fail, whatever is true" }),
        What::EdgeStalls => return "the proxy itself stands still".into(),
        What::Burst(x) => return format!("{x} times the load"),
        What::Poison(p) => return format!("{} of all requests fail at every server", percent(p)),
    };
    format!("{at}: {what}")
}

/// Whole numbers with the thousands set apart.
pub fn count(n: f64) -> String {
    let digits = format!("{n:.0}");
    let mut s = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            s.push(',');
        }
        s.push(c);
    }
    s
}

fn percent(x: f64) -> String {
    if x >= 1.0 { "100 %".into() } else { format!("{:.2} %", (x * 1e4).floor() / 1e2) }
}

fn ms(x: f64) -> String {
    if x == 0.0 { "-".into() } else { format!("{x:.0} ms") }
}

fn seconds(x: Option<f64>) -> String {
    x.map_or("not by then".into(), |s| format!("{s:.1} s"))
}

/// A table: the first column to the left, the others to the right.
fn table(out: &mut String, rows: &[Vec<String>]) {
    let columns = rows.first().map_or(0, Vec::len);
    let wide: Vec<usize> = (0..columns).map(|c| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0)).collect();
    for row in rows {
        let mut line = String::new();
        for (c, cell) in row.iter().enumerate() {
            let pad = " ".repeat(wide[c] - cell.chars().count());
            line += &if c == 0 { format!("  {cell}{pad}") } else { format!("  {pad}{cell}") };
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

impl Report {
    /// All of it.
    pub fn text(&self) -> String {
        let mut s = format!("{}: {}\n", self.scenario, self.what);
        let fleet = if self.edges > 1 { format!(" over {} edges", count(f64::from(self.edges))) } else { String::new() };
        let _ = writeln!(s, "{} · {}/s{fleet} · {} · seed {}", self.config, count(self.rate), long(self.length_s), self.seed);
        if self.weight > 1.0 {
            let _ = writeln!(s, "{} requests played, each for {:.1}", count(self.played as f64), self.weight);
        }
        self.felt(&mut s);
        self.chart(&mut s);
        let _ = writeln!(s, "\nwhat happened");
        for line in self.story.iter().take(LINES) {
            let _ = writeln!(s, "  {:>9}  {}", clock(line.at), line.what);
        }
        let more = self.story.len().saturating_sub(LINES) + self.untold;
        if more > 0 {
            let _ = writeln!(s, "  … and {more} more lines (--json)");
        }
        let _ = writeln!(s, "\nwhere capacity ran out");
        if self.full.is_empty() {
            let _ = writeln!(s, "  nowhere");
        }
        for f in self.full.iter().take(20) {
            let wait = if f.wait_ms > 0.0 { format!("requests waited up to {:.0} ms at its servers", f.wait_ms) } else { String::new() };
            let limit = if f.limited { "its concurrency limit was reached" } else { "" };
            let both = if wait.is_empty() || limit.is_empty() { "" } else { "; " };
            let _ = writeln!(s, "  {} to {}  {}: {wait}{both}{limit}", clock(f.from), clock(f.to), f.pool);
        }
        if !self.objectives.is_empty() {
            let _ = writeln!(s, "\nobjectives");
            for o in &self.objectives {
                let _ = writeln!(s, "  {}  {}: {}", if o.met { "met   " } else { "MISSED" }, o.what, o.is);
            }
        }
        if !self.assumed.is_empty() {
            let _ = writeln!(s, "\nassumed, because neither the config nor the scenario says so");
            for a in &self.assumed {
                let _ = writeln!(s, "  {a}");
            }
        }
        let _ = writeln!(s, "\nthe model leaves out");
        for a in &self.left_out {
            let _ = writeln!(s, "  {a}");
        }
        s
    }

    fn felt(&self, s: &mut String) {
        let since = if self.fault_s.is_some() { ", from the first fault on" } else { "" };
        let _ = writeln!(s, "\nwhat users felt{since}");
        let head = [
            "route",
            "asked",
            "served",
            "p50",
            "p99",
            "p99 before",
            "stale",
            "static",
            "spooled",
            "wrong",
            "shed",
            "refused",
            "failed",
            "unknown",
        ];
        let mut rows = vec![head.map(String::from).to_vec()];
        for r in &self.routes {
            let mut row = vec![r.route.clone(), count(r.asked), percent(r.success), ms(r.p50_ms), ms(r.p99_ms), ms(r.p99_before_ms)];
            row.extend([r.stale, r.fixed, r.spooled, r.wrong, r.shed, r.refused, r.failed, r.unknown].map(count));
            rows.push(row);
        }
        // Columns in which nothing stands say nothing.
        let keep: Vec<usize> = (0..head.len()).filter(|c| *c < 6 || rows[1..].iter().any(|r| r[*c] != "0")).collect();
        let rows: Vec<Vec<String>> = rows.iter().map(|r| keep.iter().map(|c| r[*c].clone()).collect()).collect();
        table(s, &rows);
        if self.fault_s.is_some() {
            let _ = writeln!(
                s,
                "  every later second 99.9 % served: while broken, after {}; once whole again, after {}; in all, after {}",
                seconds(self.failed_over_s),
                seconds(self.settled_s),
                seconds(self.recovered_s),
            );
        }
        let _ = writeln!(s, "  {} attempts and {} hedges a request", self.attempts_per_request, self.hedges_per_request);
    }

    fn chart(&self, s: &mut String) {
        let n = self.timeline.len();
        let per = n.div_ceil(WIDE).max(1);
        let _ = writeln!(s, "\nover time: one column is {}", long(self.step_s * per as f64));
        let names = self.route_names.iter().chain(&self.pool_names).map(|n| n.chars().count() + 7).max().unwrap_or(12);
        let columns: Vec<&[Step]> = self.timeline.chunks(per).collect();
        let row = |label: String, cell: &dyn Fn(&[Step]) -> char, out: &mut String| {
            let line: String = columns.iter().map(|c| cell(c)).collect();
            let _ = writeln!(out, "  {label:names$}  {line}");
        };
        if let (Some(a), Some(b)) = (self.fault_s, self.healed_s) {
            let within = |c: &[Step]| c.iter().any(|s| s.at + self.step_s > a && s.at < b);
            row("broken".into(), &|c| if within(c) { '×' } else { ' ' }, s);
        }
        for (i, name) in self.route_names.iter().enumerate() {
            let sum = |c: &[Step], f: &dyn Fn(&Step) -> f64| c.iter().map(f).sum::<f64>();
            if sum(&self.timeline, &|s| s.asked[i]) == 0.0 {
                continue;
            }
            row(format!("{name} served"), &|c| part(sum(c, &|s| s.served[i]), sum(c, &|s| s.asked[i])), s);
        }
        for (i, name) in self.pool_names.iter().enumerate() {
            let of = |c: &[Step]| c.iter().filter_map(|s| s.share.get(i)).copied().fold(f64::NAN, f64::min);
            let (least, most) = columns.iter().map(|c| of(c)).fold((1.0f64, 0.0f64), |(a, b), x| (a.min(x), b.max(x)));
            // Of many pools those whose share did not move are left out.
            if self.pool_names.len() <= MANY || most - least > 0.5 * most {
                row(format!("{name} share"), &|c| level(of(c)), s);
            }
        }
        let _ = writeln!(
            s,
            "  served: █ 99.95 % and more, then ▇ to ▁ by eighths, · none; share: the least in the column, ▁ to █ of the service, · none"
        );
    }
}

/// How much of it, as a block.
fn part(served: f64, asked: f64) -> char {
    match served / asked.max(1e-9) {
        _ if asked == 0.0 => ' ',
        x if x >= 0.9995 => '█',
        x if x <= 0.0 => '·',
        x => ['▁', '▂', '▃', '▄', '▅', '▆', '▇'][((x * 8.0) as usize).min(6)],
    }
}

fn level(x: f64) -> char {
    if x.is_nan() {
        return ' ';
    }
    if x <= 0.0 { '·' } else { ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'][((x * 8.0) as usize).min(7)] }
}

/// Seconds as people say them.
pub fn long(s: f64) -> String {
    match s {
        s if s >= 3600.0 => format!("{:.3}", s / 3600.0).trim_end_matches('0').trim_end_matches('.').to_owned() + " h",
        s if s >= 120.0 && s % 60.0 == 0.0 => format!("{:.0} min", s / 60.0),
        s => format!("{s} s"),
    }
}

fn clock(s: f64) -> String {
    if s < 3600.0 {
        format!("{s:.2} s")
    } else {
        format!("{:.0}:{:02.0}:{:04.1}", (s / 3600.0).floor(), (s % 3600.0 / 60.0).floor(), s % 60.0)
    }
}
