//! `evenkeel status --fleet`: which edges there are, who thinks what, and the orders that stand.

use super::{ago, grid};
use crate::admin::wire::{EdgeStatus, FleetStatus, PoolReport, Status, When};
use crate::cli::style::Style;
use jiff::Timestamp;
use std::fmt::Write;

/// The fleet in a line, for the top of the status.
pub fn line(f: &FleetStatus, style: Style) -> String {
    let known = f.edges.len();
    let mut text = if f.connected {
        format!("fleet: {} of {known} edges heard, verdicts {}", f.live, f.verdicts)
    } else {
        format!("fleet: NATS is away, this edge goes on with the last known orders and its own eyes: {}", f.link)
    };
    if f.connected && !f.quorum {
        text += "; too few to speak of a majority";
    }
    if !f.alone.is_empty() {
        let _ = write!(text, "; this edge alone sees {} down: its own uplink is suspect", f.alone.join(", "));
    }
    if f.connected && f.quorum && f.alone.is_empty() { text } else { style.yellow(text) }
}

/// The whole page.
pub fn page(s: &Status, now: Timestamp, style: Style) -> String {
    let Some(f) = &s.fleet else {
        return format!("{} is alone: its config has no fleet\n", s.edge);
    };
    let mut out = format!("{}\n{}\n", style.bold(&s.edge), line(f, style));
    if f.connected {
        let _ = writeln!(out, "connected to {}; capacities and trials are divided among {}", f.link, f.sharing);
    }
    for note in &f.notes {
        let _ = writeln!(out, "{}", style.yellow(note));
    }
    out.push('\n');
    let mut head = vec!["EDGE", "HEARD", "DEMAND"];
    let pools: Vec<String> = s.pools.iter().map(|p| format!("{}/{}", p.service, p.region)).collect();
    head.extend(pools.iter().map(String::as_str));
    let rows = f.edges.iter().enumerate().map(|(i, e)| edge(i == 0, e, &pools)).collect();
    out += &grid(&head, rows, |row, cell| paint(style, row, cell));
    if !f.orders.is_empty() {
        out.push('\n');
        let rows = f.orders.iter().map(|o| {
            let at = ago(&When::Wall(o.at.clone()), now);
            let until = o.until.as_ref().map_or(String::new(), |u| format!("{} left", ago(&When::Wall(u.clone()), now)));
            let over = o.until.as_ref().and_then(|u| u.parse::<Timestamp>().ok()).is_some_and(|u| u <= now);
            let state = match (o.on, over) {
                (true, false) => "in force",
                (true, true) => "over",
                (false, _) => "lifted",
            };
            let revision = if o.revision == 0 { "not told yet".into() } else { o.revision.to_string() };
            let until = if state == "in force" { until } else { String::new() };
            let who = format!("{} through {}", o.by, o.edge);
            vec![o.about.clone(), state.into(), revision, format!("{at} ago"), until, who, o.reason.clone()]
        });
        out += &grid(&["ORDER", "STATE", "REVISION", "GIVEN", "UNTIL", "BY", "REASON"], rows.collect(), |row, cell| row[cell].clone());
    }
    out
}

fn edge(me: bool, e: &EdgeStatus, pools: &[String]) -> Vec<String> {
    let heard = match (me, e.live) {
        (true, _) => "here".into(),
        (_, true) => format!("{:.1}s ago", e.heard_s),
        (_, false) => format!("silent {:.0}s", e.heard_s),
    };
    let thinks = |p: &PoolReport| {
        if p.opinion.label() == p.state.label() || p.state == crate::model::view::State::Serving {
            p.opinion.to_string()
        } else {
            format!("{}, {}", p.opinion, p.state)
        }
    };
    let mut row = vec![e.name.clone(), heard, format!("{:.1}/s", e.demand)];
    row.extend(pools.iter().map(|p| e.pools.get(p).map_or("-".into(), thinks)));
    row
}

fn paint(style: Style, row: &[String], cell: usize) -> String {
    let text = &row[cell];
    match text {
        t if cell > 2 && t.starts_with("well") => style.green(t),
        t if cell > 2 && t.starts_with("down") => style.red(t),
        t if cell > 2 && t.starts_with("suspect") || cell == 1 && t.starts_with("silent") => style.yellow(t),
        t => t.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::wire::OrderStatus;
    use crate::model::fleet::Opinion;
    use crate::model::status::{ConfigStatus, PoolStatus};
    use crate::model::view::State;

    #[test]
    fn who_thinks_what() {
        let report = |opinion, state| PoolReport { opinion, state, cause: None, rung: None };
        let edge = |name: &str, live, opinion, state| EdgeStatus {
            name: name.into(),
            live,
            heard_s: if live { 0.4 } else { 61.0 },
            demand: 80.0,
            pools: [("api/east".to_string(), report(opinion, state))].into(),
        };
        let pool = PoolStatus {
            service: "api".into(),
            region: "east".into(),
            state: State::Tripped,
            suspect: false,
            share: 0.0,
            inflight: 0,
            limit: 20,
            rate: 0.0,
            cause: None,
            since: When::Wall("2026-11-21T11:00:00Z".into()),
            endpoints: vec![],
        };
        let order = OrderStatus {
            about: "drain/west".into(),
            on: true,
            by: "operator ann".into(),
            edge: "edge-2".into(),
            reason: "power works".into(),
            at: "2026-11-21T11:59:30Z".into(),
            until: Some("2026-11-21T13:00:00Z".into()),
            revision: 7,
        };
        let fleet = FleetStatus {
            connected: true,
            link: "nats://10.0.0.5:4222".into(),
            verdicts: "advise".into(),
            quorum: true,
            live: 2,
            sharing: 2,
            portions: [("api".to_string(), 0.5)].into(),
            notes: vec![],
            alone: vec!["east".into()],
            edges: vec![
                edge("edge-1", true, Opinion::Down, State::Tripped),
                edge("edge-2", true, Opinion::Well, State::Serving),
                edge("edge-3", false, Opinion::Suspect, State::Trial),
            ],
            orders: vec![order],
        };
        let status = Status {
            edge: "edge-1".into(),
            generation: 1,
            mode: "active".into(),
            edge_suspect: false,
            regions: vec![],
            pools: vec![pool],
            config: ConfigStatus::default(),
            fleet: Some(fleet),
        };
        let is = page(&status, "2026-11-21T12:00:00Z".parse().unwrap(), Style::none());
        let should = "\
edge-1
fleet: 2 of 3 edges heard, verdicts advise; this edge alone sees east down: its own uplink is suspect
connected to nats://10.0.0.5:4222; capacities and trials are divided among 2

EDGE    HEARD       DEMAND  api/east
edge-1  here        80.0/s  down, tripped
edge-2  0.4s ago    80.0/s  well
edge-3  silent 61s  80.0/s  suspect, trial

ORDER       STATE     REVISION  GIVEN    UNTIL       BY                           REASON
drain/west  in force  7         30s ago  1h 0m left  operator ann through edge-2  power works
";
        assert!(is == should, "{is}");
    }
}
