//! The text format: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::{self, Display, Write};

/// The type of a family.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A page in the making.
pub struct Text {
    page: String,
    family: &'static str,
}

impl Text {
    pub fn with_capacity(bytes: usize) -> Self {
        Self { page: String::with_capacity(bytes), family: "" }
    }
    /// Begins a family; its lines follow.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.family = name;
        let _ = writeln!(self.page, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }
    /// One sample of the family, with a suffix for histograms.
    pub fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.page, "{}{suffix}", self.family);
        self.labels(labels.iter().map(|(n, v)| (*n, Escaped(v))));
        let _ = writeln!(self.page, " {value}");
    }
    /// One cumulative bucket.
    pub fn bucket(&mut self, labels: &[(&str, &str)], le: f64, count: u64) {
        let bound = if le.is_finite() { le.to_string() } else { "+Inf".into() };
        let _ = write!(self.page, "{}_bucket", self.family);
        self.labels(labels.iter().map(|(n, v)| (*n, Escaped(v))).chain([("le", Escaped(&bound))]));
        let _ = writeln!(self.page, " {count}");
    }
    fn labels<'a>(&mut self, labels: impl Iterator<Item = (&'a str, Escaped<'a>)>) {
        let mut open = '{';
        for (name, value) in labels {
            let _ = write!(self.page, "{open}{name}=\"{value}\"");
            open = ',';
        }
        if open == ',' {
            self.page.push('}');
        }
    }
    pub fn finish(self) -> String {
        self.page
    }
}

struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(['\\', '"', '\n']) {
            f.write_str(&rest[..at])?;
            f.write_str(match rest.as_bytes()[at] {
                b'\n' => "\\n",
                b'"' => "\\\"",
                _ => "\\\\",
            })?;
            rest = &rest[at + 1..];
        }
        f.write_str(rest)
    }
}
