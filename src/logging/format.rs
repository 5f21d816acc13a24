//! The form of a line.

use jiff::Timestamp;
use serde_json::{Map, Value};
use std::fmt::{Debug, Write};
use std::io::IsTerminal;
use std::sync::LazyLock;
use tracing::Level;
use tracing::field::{Field, Visit};

/// For whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Human,
    Json,
}

/// Colours: only on a terminal, and not where <https://no-color.org> is asked for.
static COLOURS: LazyLock<bool> =
    LazyLock::new(|| std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()));

/// Longer text is cut: a log is not the place for bodies.
const LONGEST: usize = 8 << 10;

/// One line in the making.
pub struct Line {
    time: Timestamp,
    level: Level,
    target: String,
    message: String,
    fields: Map<String, Value>,
}

impl Line {
    pub fn new(time: Timestamp, level: Level, target: &str) -> Self {
        Self { time, level, target: target.into(), message: String::new(), fields: Map::new() }
    }
    pub fn message(&mut self, text: &str) {
        self.message = cut(text);
    }
    pub fn number(&mut self, name: &str, n: u64) {
        self.fields.insert(name.into(), n.into());
    }

    pub fn finish(self, format: Format) -> Vec<u8> {
        match format {
            Format::Human => self.human(*COLOURS).into_bytes(),
            Format::Json => self.json(),
        }
    }

    /// Fields whose names the line itself needs are told apart by an underscore.
    fn json(self) -> Vec<u8> {
        let mut all = Map::new();
        all.insert("time".into(), crate::clock::stamp(self.time).into());
        all.insert("level".into(), self.level.as_str().to_ascii_lowercase().into());
        all.insert("target".into(), self.target.into());
        all.insert("message".into(), self.message.into());
        for (name, value) in self.fields {
            let name = if all.contains_key(&name) { format!("{name}_") } else { name };
            all.insert(name, value);
        }
        let mut line = serde_json::to_vec(&all).unwrap_or_default();
        line.push(b'\n');
        line
    }

    pub(super) fn human(self, colours: bool) -> String {
        let colour = match self.level {
            Level::ERROR => "31",
            Level::WARN => "33",
            Level::INFO => "32",
            _ => "2",
        };
        let paint = |code: &str, text: &str| if colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.into() };
        let mut line = paint("2", &format!("{:.3}", self.time));
        let _ = write!(line, " {} ", paint(colour, &format!("{:5}", self.level.as_str())));
        if !self.target.starts_with("evenkeel") {
            let _ = write!(line, "{}: ", self.target);
        }
        line.push_str(&visible(&self.message));
        for (name, value) in &self.fields {
            let value = match value {
                Value::String(s) if !s.is_empty() && !s.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"') => s.clone(),
                other => other.to_string(),
            };
            let _ = write!(line, " {}{value}", paint("2", &format!("{name}=")));
        }
        line.push('\n');
        line
    }
}

/// Control characters are shown, not obeyed: what a client sent must not draw on a terminal or fake a line.
/// A line break stays one, indented.
fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\n    "),
            '\t' => out.push(' '),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

fn cut(text: &str) -> String {
    match text.len() {
        0..=LONGEST => text.into(),
        _ => format!("{}…", &text[..text.floor_char_boundary(LONGEST)]),
    }
}

impl Line {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        // `log.*` are the bridge's notes on where a library's line came from.
        if !field.name().starts_with("log.") {
            self.fields.insert(field.name().into(), value.into());
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = cut(&format!("{value:?}"));
        if field.name() == "message" { self.message = text } else { self.put(field, text) }
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" { self.message = cut(value) } else { self.put(field, cut(value)) }
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        // The customary field of a `Throttle`; nothing to tell where nothing was suppressed.
        if !(field.name() == "suppressed" && value == 0) {
            self.put(field, value);
        }
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, cut(&value.to_string()));
    }
}
