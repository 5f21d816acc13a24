//! The drawing: a picture onto a frame of any size.
//!
//! From top to bottom: who and how it stands; what is wrong with the whole; what users feel; regions; pools; events; keys.
//! What a narrow terminal has no room for goes in this order: the little charts, the times, then causes move to a line of their own.
//! What a short one has no room for: the charts, then healthy pools, then events down to one.

use super::keys::FAULTS;
use super::picture::{Asking, Note, Picture};
use crate::admin::wire::{PoolStatus, RegionStatus, Status};
use crate::cli::screen::feed::Order;
use crate::cli::status::{ago, bar};
use crate::model::view::State;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;
use std::collections::VecDeque;

/// From this width on there is room for causes beside, and little charts.
const WIDE: u16 = 100;
/// Below this, times are left out.
const NARROW: u16 = 72;
/// Columns of a little chart.
const CHART: usize = 24;
/// p99 that users feel as slow, ms: only the colour of the figure hangs on it.
const SLOW: f64 = 1000.0;

/// Draws everything; without `colour`, signs and words alone tell states apart, as they do anyway.
pub fn draw(frame: &mut Frame<'_>, picture: &Picture, colour: bool) {
    let area = frame.area();
    let pen = Pen { colour, width: area.width };
    let lines = page(picture, pen, area.height);
    frame.render_widget(Paragraph::new(lines), area);
    let question: Vec<Line<'_>> = foot(picture, pen);
    let height = (question.len() as u16).min(area.height);
    let below = Rect { y: area.y + area.height - height, height, ..area };
    frame.render_widget(ratatui::widgets::Clear, below);
    frame.render_widget(Paragraph::new(question), below);
}

/// How to write on this terminal.
#[derive(Clone, Copy)]
struct Pen {
    colour: bool,
    width: u16,
}

impl Pen {
    fn ink(self, color: Color) -> Style {
        if self.colour { Style::new().fg(color) } else { Style::new() }
    }
    fn bad(self) -> Style {
        self.ink(Color::Red).add_modifier(Modifier::BOLD)
    }
    fn warn(self) -> Style {
        self.ink(Color::Yellow).add_modifier(Modifier::BOLD)
    }
    fn good(self) -> Style {
        self.ink(Color::Green)
    }
    fn soft(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }
    fn wide(self) -> bool {
        self.width >= WIDE
    }
    fn narrow(self) -> bool {
        self.width < NARROW
    }
    /// A heading with a rule to the right edge.
    fn heading(self, text: String) -> Line<'static> {
        let rule = "─".repeat(usize::from(self.width).saturating_sub(text.chars().count() + 2));
        Line::from(vec![Span::styled(text, Style::new().add_modifier(Modifier::BOLD)), Span::styled(format!(" {rule}"), self.soft())])
    }
}

fn page(picture: &Picture, pen: Pen, height: u16) -> Vec<Line<'static>> {
    let Some(status) = &picture.status else {
        let why = picture.lost.as_ref().map_or("waiting for the first answer".into(), |(_, why)| why.clone());
        return wrap(&why, usize::from(pen.width)).into_iter().map(|l| Line::styled(l, pen.warn())).collect();
    };
    let height = usize::from(height).saturating_sub(foot(picture, pen).len());
    let mut out = head(picture, status, pen);
    out.extend(feel(picture, pen, height >= 24));
    out.push(pen.heading("Regions".into()));
    for (i, r) in status.regions.iter().enumerate() {
        out.extend(region(picture, r, i == picture.selected, pen));
    }
    let room = height.saturating_sub(out.len());
    // Two lines of events with their heading before healthy pools.
    out.extend(pools(status, pen, room.saturating_sub(3)));
    let room = height.saturating_sub(out.len());
    out.extend(events(picture, pen, room));
    out.truncate(height);
    out
}

/// Who, how it stands, and what is wrong with the whole.
fn head(picture: &Picture, s: &Status, pen: Pen) -> Vec<Line<'static>> {
    let out = s.regions.iter().filter(|r| r.state == State::Tripped).count();
    let drained = s.regions.iter().filter(|r| r.drained.is_some()).count();
    let coming = s.regions.iter().filter(|r| matches!(r.state, State::Trial | State::Ramping)).count();
    let mut words = Vec::new();
    for (n, what) in [(out, "out"), (coming, "coming back"), (drained, "drained")] {
        if n > 0 {
            let of = if words.is_empty() { format!(" of {}", s.regions.len()) } else { String::new() };
            words.push(format!("{n}{of} {what}"));
        }
    }
    let (sign, style) = if out > 0 {
        ("✕", pen.bad())
    } else if words.is_empty() {
        ("●", pen.good())
    } else {
        ("◑", pen.warn())
    };
    let stands = if words.is_empty() { "all regions serving".to_owned() } else { words.join(", ") };
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let facts = if pen.narrow() { String::new() } else { format!("  config {}, mode {}", s.generation, s.mode) };
    let left = [format!(" {} ", s.edge), format!(" {sign} {stands}"), facts];
    let used: usize = left.iter().map(|t| t.chars().count()).sum();
    let clock = format!("{} UTC", time(picture.now));
    let gap = usize::from(pen.width).saturating_sub(used + clock.len() + 1);
    let [edge, stands, facts] = left;
    let mut first =
        vec![Span::styled(edge, bold.add_modifier(Modifier::REVERSED)), Span::styled(stands, style), Span::styled(facts, pen.soft())];
    if gap > 0 {
        first.push(Span::styled(format!("{}{clock}", " ".repeat(gap)), pen.soft()));
    }
    let mut lines = vec![Line::from(first)];
    let about = picture.about.iter().flat_map(|text| wrap(text, usize::from(pen.width).saturating_sub(1)));
    lines.extend(about.map(|l| Line::styled(format!(" {l}"), pen.soft())));
    let mut alarm = |text: String| {
        lines.extend(wrap(&text, usize::from(pen.width).saturating_sub(1)).into_iter().map(|l| Line::styled(format!(" {l}"), pen.warn())));
    };
    if let Some((since, why)) = &picture.lost {
        alarm(format!("! no answer for {} s, this is the last picture: {why}", picture.now.duration_since(*since).as_secs()));
    }
    if s.edge_suspect {
        alarm("! states are held: unrelated regions went bad together, or this process was stalled".into());
    }
    if s.mode != "active" {
        let what = if s.mode == "frozen" { "an operator froze every state" } else { "it judges and tells, but moves nothing" };
        alarm(format!("! mode {}: {what}", s.mode));
    }
    if let Some(error) = &s.config.last_error {
        alarm(format!("! the last reload was refused: {}", error.lines().next().unwrap_or_default()));
    }
    lines
}

/// What users feel: figures, and where there is room the last two minutes of them.
fn feel(picture: &Picture, pen: Pen, charts: bool) -> Vec<Line<'static>> {
    let Some(f) = &picture.figures else { return vec![Line::styled(" measuring", pen.soft())] };
    let plain = Style::new();
    let part = if f.rate > 0.0 { f.good / f.rate * 100.0 } else { 100.0 };
    let ms = |q: Option<f64>| q.map_or("–".to_owned(), |q| format!("{q:.0} ms"));
    let hurt = |n: f64| if n > 0.0 { pen.bad() } else { plain };
    let part_text = if part > 99.95 || part == 0.0 { format!("{part:.0} %") } else { format!("{part:.1} %") };
    let cells = [
        ("requests", per(f.rate), plain),
        ("good", part_text, if part < 99.0 { pen.bad() } else { plain }),
        ("median", ms(f.p50), plain),
        ("p99", ms(f.p99), if f.p99.unwrap_or(0.0) > SLOW { pen.warn() } else { plain }),
        ("degraded", per(f.degraded), if f.degraded > 0.0 { pen.warn() } else { plain }),
        ("refused", per(f.refused), hurt(f.refused)),
        ("failed", per(f.failed), hurt(f.failed)),
    ];
    let mut lines: Vec<Line<'static>> = vec![Line::default()];
    let mut used = 0;
    for (name, value, style) in cells {
        let wide = name.len() + value.chars().count() + 4;
        if used + wide > usize::from(pen.width) {
            lines.push(Line::default());
            used = 0;
        }
        used += wide;
        let line = lines.last_mut().expect("one was pushed");
        line.push_span(Span::styled(format!(" {name} "), pen.soft()));
        line.push_span(Span::styled(format!("{value}  "), style.add_modifier(Modifier::BOLD)));
    }
    if charts && !pen.narrow() {
        let columns = (usize::from(pen.width) - 40) / 3;
        lines.push(Line::from(vec![
            Span::styled(" good ", pen.soft()),
            Span::styled(chart(&picture.good, columns), pen.good()),
            Span::styled("  not good ", pen.soft()),
            Span::styled(chart(&picture.hurt, columns), pen.bad()),
            Span::styled("  p99 ", pen.soft()),
            Span::raw(chart(&picture.p99, columns)),
        ]));
    }
    lines
}

fn state(r: State, suspect: bool, pen: Pen) -> Span<'static> {
    let (text, style) = match r {
        State::Serving if suspect => ("? suspect", pen.warn()),
        State::Serving => ("● serving", pen.good()),
        State::Tripped => ("✕ tripped", pen.bad()),
        State::Trial => ("◔ trial", pen.warn()),
        State::Ramping => ("◑ ramping", pen.warn()),
    };
    Span::styled(format!("{text:<10}"), style)
}

fn region(picture: &Picture, r: &RegionStatus, selected: bool, pen: Pen) -> Vec<Line<'static>> {
    let part = picture.part(&r.name);
    let mark = if selected { "▸ " } else { "  " };
    let name = format!("{} {}", r.name, r.jurisdiction.as_deref().unwrap_or(""));
    let emphasis = if selected { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() };
    let mut line = vec![
        Span::styled(format!("{mark}{} ", fit(&name, 14)), emphasis),
        state(r.state, false, pen),
        Span::raw(format!(" {} {:>4.0} % {:>7}", bar(part), part * 100.0, per(picture.rate(&r.name)))),
    ];
    if pen.wide() {
        let rates = picture.rates.get(&r.name).map_or_else(String::new, |v| chart(v, CHART));
        line.push(Span::styled(format!("  {}", fit(&rates, CHART)), pen.ink(Color::Cyan)));
    }
    if !pen.narrow() {
        line.push(Span::styled(format!(" {:>8}", ago(&r.since, picture.now)), pen.soft()));
    }
    let mut causes: Vec<(String, Style)> = Vec::new();
    if let Some(d) = &r.drained {
        let until = d.until.as_ref().map_or(String::new(), |t| format!(", {} left", ago(t, picture.now)));
        causes.push((format!("❚❚ drained by {}: {}{until}", d.by, d.reason), pen.warn()));
    }
    causes.extend(r.cause.iter().map(|c| (c.clone(), pen.soft())));
    causes.extend(picture.faults.get(&r.name).map(|f| (format!("simulated fault: {f}"), pen.ink(Color::Magenta))));
    let mut lines = vec![Line::from(line)];
    for (text, style) in causes {
        lines.push(Line::styled(format!("      {}", cut(&text, usize::from(pen.width).saturating_sub(7))), style));
    }
    lines
}

/// As many as there is room for; those that are not well come first where not all have room.
fn pools(s: &Status, pen: Pen, room: usize) -> Vec<Line<'static>> {
    let well = |p: &PoolStatus| p.state == State::Serving && !p.suspect && p.endpoints.iter().all(|e| e.up);
    let mut all: Vec<&PoolStatus> = s.pools.iter().collect();
    let lines = |p: &PoolStatus| 1 + usize::from(p.cause.is_some() && !pen.wide());
    let needed: usize = all.iter().map(|p| lines(p)).sum();
    if room == 0 || all.is_empty() {
        return Vec::new();
    }
    if needed + 1 > room {
        all.sort_by_key(|p| well(p));
    }
    let mut out = vec![pen.heading("Pools".into())];
    let mut left = 0;
    for p in all {
        if out.len() + lines(p) + usize::from(needed + 1 > room) > room {
            left += 1;
            continue;
        }
        let up = p.endpoints.iter().filter(|e| e.up).count();
        let part_up = format!("{up}/{} up", p.endpoints.len());
        let mut line = vec![
            Span::raw(format!("  {} ", fit(&format!("{}/{}", p.service, p.region), 14))),
            state(p.state, p.suspect, pen),
            Span::raw(format!(" {} {:>4.0} % {:>7}  ", bar(p.share), p.share * 100.0, per(p.rate))),
        ];
        if !pen.narrow() {
            line.push(Span::raw(format!("{:>9} ", format!("{}/{}", p.inflight, p.limit))));
        }
        line.push(Span::styled(part_up, if up < p.endpoints.len() { pen.bad() } else { Style::new() }));
        let used: usize = line.iter().map(Span::width).sum();
        let mut own = None;
        if let Some(cause) = &p.cause {
            if pen.wide() {
                line.push(Span::styled(format!("  {}", cut(cause, usize::from(pen.width).saturating_sub(used + 3))), pen.soft()));
            } else {
                own = Some(Line::styled(format!("      {}", cut(cause, usize::from(pen.width).saturating_sub(7))), pen.soft()));
            }
        }
        out.push(Line::from(line));
        out.extend(own);
    }
    if left > 0 {
        out.push(Line::styled(format!("  and {left} more: evenkeel status"), pen.soft()));
    }
    out
}

fn events(picture: &Picture, pen: Pen, room: usize) -> Vec<Line<'static>> {
    if room < 2 {
        return Vec::new();
    }
    let mut out = vec![pen.heading("Events".into())];
    if picture.events.is_empty() {
        out.push(Line::styled("  nothing since this screen was opened", pen.soft()));
    }
    for (at, what) in &picture.events {
        for (i, text) in wrap(what, usize::from(pen.width).saturating_sub(12)).into_iter().enumerate() {
            let when = if i == 0 { time(*at) } else { String::new() };
            out.push(Line::from(vec![Span::styled(format!("  {when:<8} "), pen.soft()), Span::raw(text)]));
        }
        if out.len() >= room {
            break;
        }
    }
    out
}

/// What is asked, what came of it, or what the keys do.
fn foot(picture: &Picture, pen: Pen) -> Vec<Line<'static>> {
    let width = usize::from(pen.width).saturating_sub(2);
    let boxed = |lines: Vec<(String, Style)>| -> Vec<Line<'static>> {
        let rule = std::iter::once(Line::styled("─".repeat(usize::from(pen.width)), pen.soft()));
        rule.chain(lines.into_iter().map(|(text, style)| Line::styled(format!(" {text}"), style))).collect()
    };
    let bold = Style::new().add_modifier(Modifier::BOLD);
    if let Some(Asking { order, refused }) = &picture.asking {
        let mut lines = Vec::new();
        if let Some(why) = refused {
            lines.extend(wrap(&format!("Refused: {why}"), width).into_iter().map(|l| (l, pen.bad())));
            lines.push(("F drains it nevertheless, Esc leaves it as it is".into(), bold));
            return boxed(lines);
        }
        let (question, hint) = match order {
            Order::Drain { region, reason, .. } => {
                lines.push((format!("Drain {region}? It gets no new requests until it is undrained. Why?"), bold));
                (format!("> {reason}▏"), "Enter drains it, Esc leaves it; the reason goes into status and journal")
            }
            Order::Undrain { region } => (format!("Undrain {region}? It gets its share again."), "Enter: yes, Esc: no"),
            Order::Freeze { on: true } => ("Freeze every state as it is? Failing regions stay in.".into(), "Enter: yes, Esc: no"),
            Order::Freeze { on: false } => ("Let states move again?".into(), "Enter: yes, Esc: no"),
            Order::Fault { .. } => (String::new(), ""),
        };
        lines.extend(wrap(&question, width).into_iter().map(|l| (l, bold)));
        lines.push((hint.into(), pen.soft()));
        return boxed(lines);
    }
    let mut lines = Vec::new();
    if let Some(note) = picture.noted() {
        let (text, style) = match note {
            Note::Done(text) => (format!("✓ {text}"), pen.good()),
            Note::Failed(text) => (format!("✕ {text}"), pen.bad()),
        };
        lines.extend(wrap(&text, width).into_iter().map(|l| Line::styled(format!(" {l}"), style)));
    }
    let region = picture.chosen().map_or("region", |r| r.name.as_str());
    let drained = picture.chosen().is_some_and(|r| r.drained.is_some());
    let frozen = picture.status.as_ref().is_some_and(|s| s.mode == "frozen");
    let mut keys: Vec<(&str, String)> = vec![("↑↓", "region".into())];
    keys.push(if drained { ("u", format!("undrain {region}")) } else { ("d", format!("drain {region}")) });
    keys.push(("f", if frozen { "unfreeze" } else { "freeze" }.into()));
    let faults: Vec<(String, &str)> = FAULTS.iter().map(|(key, word)| (key.to_string(), *word)).collect();
    if picture.demo {
        keys.extend(faults.iter().map(|(key, word)| (key.as_str(), (*word).to_owned())));
    }
    keys.push(("q", "leave".into()));
    let mut line = Line::default();
    for (key, does) in keys {
        let more = key.chars().count() + does.chars().count() + 4;
        if line.width() + more > usize::from(pen.width) {
            lines.push(std::mem::take(&mut line));
        }
        line.push_span(Span::styled(format!(" {key} "), Style::new().add_modifier(Modifier::REVERSED)));
        line.push_span(Span::raw(format!(" {does} ")));
    }
    lines.push(line);
    lines
}

fn per(n: f64) -> String {
    if n > 0.0 && n < 9.95 { format!("{n:.1}/s") } else { format!("{n:.0}/s") }
}

fn time(at: jiff::Timestamp) -> String {
    at.strftime("%H:%M:%S").to_string()
}

/// The newest values as a row of bars, scaled to the highest of them; nothing at all is a space.
fn chart(values: &VecDeque<f64>, columns: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let shown: Vec<f64> = values.iter().rev().take(columns).rev().copied().collect();
    let high = shown.iter().copied().fold(0.0, f64::max);
    let one = |v: &f64| if *v <= 0.0 { ' ' } else { BARS[((v / high * 8.0).ceil() as usize).clamp(1, 8) - 1] };
    format!("{:>columns$}", shown.iter().map(one).collect::<String>())
}

/// Exactly so many columns.
fn fit(text: &str, columns: usize) -> String {
    let short = cut(text, columns);
    let width = Span::raw(short.as_str()).width();
    short + &" ".repeat(columns.saturating_sub(width))
}

/// At most so many columns, with a sign that something is missing.
fn cut(text: &str, columns: usize) -> String {
    if Span::raw(text).width() <= columns {
        return text.into();
    }
    let mut out = String::new();
    for c in text.chars() {
        if Span::raw(out.as_str()).width() + Span::raw(c.to_string()).width() + 1 > columns {
            break;
        }
        out.push(c);
    }
    out + "…"
}

/// Lines of at most so many columns, broken at spaces.
fn wrap(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(8);
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("never empty");
        if last.is_empty() {
            *last = cut(word, columns);
        } else if Span::raw(last.as_str()).width() + 1 + Span::raw(word).width() <= columns {
            *last += " ";
            *last += word;
        } else {
            lines.push(cut(word, columns));
        }
    }
    lines
}
