//! A plan for people.

use super::{Plan, PoolPlan};
use std::fmt;

/// Requests per second.
pub(super) fn rate(n: f64) -> String {
    if n >= 10.0 || n == n.round() { format!("{n:.0}/s") } else { format!("{n:.1}/s") }
}

/// `east (or its fates grid-east, provider-a)`.
pub(super) fn named(lost: &[String]) -> String {
    match lost {
        [] => String::new(),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first} (or {})", rest.join(", ")),
    }
}

fn part(share: Option<f64>) -> String {
    share.map_or("none".into(), |s| format!("{:.1}%", s * 100.0))
}

fn load(p: &PoolPlan) -> String {
    match (p.load, p.capacity) {
        (Some(l), Some(c)) => format!("{} of {}", rate(l), rate(c)),
        (Some(l), None) => rate(l),
        (None, Some(c)) => format!("up to {}", rate(c)),
        (None, None) => "not known".into(),
    }
}

fn room(p: &PoolPlan) -> String {
    match p.headroom {
        Some(h) if h < -1e-6 => format!("{:.0}% over", -h * 100.0),
        Some(h) => format!("{:.0}%", h.max(0.0) * 100.0),
        None => String::new(),
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Changes")?;
        if self.changes.is_empty() {
            writeln!(f, "  none")?;
        }
        self.changes.iter().try_for_each(|line| writeln!(f, "  {line}"))?;

        let source = self.load.as_ref().map_or(String::new(), |l| format!(" (load: {l})"));
        writeln!(f, "\nTraffic{source}")?;
        let mut rows = vec![["pool", "now", "", "then", "load", "headroom", ""].map(String::from)];
        for p in self.services.iter().flat_map(|s| &s.pools) {
            let arrow = if p.now.is_some() { "->" } else { "" };
            let now = p.now.map_or(String::new(), |n| part(Some(n)));
            let (load, room) = if p.then.is_some() { (load(p), room(p)) } else { ("removed".into(), String::new()) };
            rows.push([p.pool.clone(), now, arrow.into(), part(p.then), load, room, p.why.clone().unwrap_or_default()]);
        }
        write!(f, "{}", grid(&rows, "  "))?;
        for s in self.services.iter().filter(|s| s.load.is_none()) {
            if let Some(c) = s.carries {
                writeln!(f, "  {} can carry {}", s.service, rate(c))?;
            }
        }

        writeln!(f, "\nIf it is lost")?;
        for loss in &self.losses {
            let gets = |p: &&PoolPlan| p.why.is_none() && p.then > p.now;
            let fine = match loss.pools.iter().filter(gets).all(|p| p.capacity.is_some()) {
                _ if !loss.dangers.is_empty() => "NOT BORNE",
                true => "borne",
                false => "borne, if they can carry it",
            };
            writeln!(f, "  {}: {fine}", named(&loss.lost))?;
            let rows: Vec<[String; 4]> = loss
                .pools
                .iter()
                .filter(gets)
                .map(|p| [p.pool.clone(), format!("{} -> {}", part(p.now), part(p.then)), load(p), room(p)])
                .collect();
            write!(f, "{}", grid(&rows, "      "))?;
            if self.load.is_none() {
                for (service, carries) in &loss.carries {
                    writeln!(f, "      {service} can carry {}", rate(*carries))?;
                }
            }
            for danger in &loss.dangers {
                writeln!(f, "      ! {}{}", danger.what, if danger.already { " (so already)" } else { "" })?;
            }
        }

        let notes: Vec<&String> = self.notes.iter().filter(|n| !n.starts_with("so already")).collect();
        if !notes.is_empty() {
            writeln!(f, "\nNotes")?;
            notes.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        }
        writeln!(f)?;
        match self.reasons.len() {
            0 => writeln!(f, "SAFE: nothing stands against it"),
            n => {
                writeln!(f, "UNSAFE: {n} reason{}", if n == 1 { "" } else { "s" })?;
                self.reasons.iter().try_for_each(|line| writeln!(f, "  {line}"))
            }
        }
    }
}

/// Columns as wide as their widest cell.
fn grid<const N: usize>(rows: &[[String; N]], indent: &str) -> String {
    let width = |i: usize| rows.iter().map(|r| r[i].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut out = String::new();
    for row in rows {
        let mut line = indent.to_owned();
        for (cell, width) in row.iter().zip(widths).filter(|(_, w)| *w > 0) {
            line += &format!("{cell:width$}  ");
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}
