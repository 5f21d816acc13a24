//! What is wrong with a config file, told so that somebody woken at night can act on it: where, what, and what is allowed.

use std::fmt;
use std::sync::Arc;

/// One step of the way to a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seg {
    /// Into a block, by key.
    Key(String),
    /// Into a list, from 0.
    At(usize),
}

/// The way to a value: `services.api.pools.east.endpoints[0]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Path(pub Vec<Seg>);

impl Path {
    /// A top-level key.
    pub fn of(key: &str) -> Self {
        Self::default().key(key)
    }
    /// One key deeper.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        let mut p = self.clone();
        p.0.push(Seg::Key(key.into()));
        p
    }
    /// One list item deeper.
    #[must_use]
    pub fn at(&self, index: usize) -> Self {
        let mut p = self.clone();
        p.0.push(Seg::At(index));
        p
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, seg) in self.0.iter().enumerate() {
            match seg {
                Seg::At(n) => write!(f, "[{n}]")?,
                Seg::Key(k) if k.is_empty() || k.contains(|c: char| !(c.is_alphanumeric() || "_-*/:".contains(c))) => {
                    write!(f, "[{k:?}]")?;
                }
                Seg::Key(k) => write!(f, "{}{k}", if i == 0 { "" } else { "." })?,
            }
        }
        Ok(())
    }
}

/// A stretch of a line of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// In characters, at least 1.
    pub width: usize,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The file cannot be used.
    Error,
    /// Lawful, but look at it.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Error or warning.
    pub level: Level,
    /// The file.
    pub file: Arc<str>,
    /// Where in it; `None`: the file as a whole.
    pub place: Option<Place>,
    /// The line itself.
    pub line: String,
    /// The key path; empty: none.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What is allowed, what may have been meant.
    pub notes: Vec<String>,
}

impl Problem {
    /// File, position, path and message in one line, for logs and the journal.
    pub fn headline(&self) -> String {
        let mut s = self.file.to_string();
        if let Some(p) = self.place {
            s += &format!(":{}:{}", p.line, p.column);
        }
        if !self.path.is_empty() {
            s += &format!(": {}", self.path);
        }
        s + ": " + &self.message
    }
}

impl Problem {
    /// For machines.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "file": *self.file,
            "line": self.place.map(|p| p.line),
            "column": self.place.map(|p| p.column),
            "path": self.path,
            "message": self.message,
            "notes": self.notes,
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = if self.level == Level::Error { "error" } else { "warning" };
        writeln!(f, "{level}: {}", self.headline())?;
        let gutter = self.place.map_or(0, |p| p.line.to_string().len());
        if let Some(p) = self.place {
            // A tab is shown as one blank, so that the caret stands where it should.
            writeln!(f, "{:gutter$} | {}", p.line, self.line.replace('\t', " ").trim_end())?;
            writeln!(f, "{:gutter$} | {:skip$}{}", "", "", "^".repeat(p.width.max(1)), skip = p.column - 1)?;
        }
        for note in &self.notes {
            writeln!(f, "{:gutter$} = {note}", "")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with a file, in file order. Never empty where it stands for a refusal.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// A file that could not be read at all.
    pub fn unreadable(path: &std::path::Path, why: &std::io::Error) -> Self {
        Self(vec![Problem {
            level: Level::Error,
            file: path.display().to_string().into(),
            place: None,
            line: String::new(),
            path: String::new(),
            message: format!("cannot be read: {why}"),
            notes: vec!["check the path and who may read it".into()],
        }])
    }
    /// One line for each.
    pub fn headlines(&self) -> Vec<String> {
        self.0.iter().map(Problem::headline).collect()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, p) in self.0.iter().enumerate() {
            write!(f, "{}{p}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The option that `word` is most likely a slip of: edit distance of at most a third of its length.
pub fn nearest<'a>(word: &str, options: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |s: &str| s.to_lowercase().replace(['-', '_'], "");
    let wanted = plain(word);
    options
        .into_iter()
        .map(|o| (distance(&wanted, &plain(o)), o))
        .filter(|(d, o)| *d <= (wanted.chars().count().max(o.len()) / 3).max(1))
        .min_by_key(|(d, _)| *d)
        .map(|(_, o)| o)
}

/// Optimal string alignment: insert, delete, replace, or swap two neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}
