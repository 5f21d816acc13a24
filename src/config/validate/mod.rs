//! From the raw file to the checked [`Topology`]: what belongs together, what refers to what, what is out of bounds.
//!
//! Raw and checked are two types so that nobody behind this door can meet a value that was never looked at. Every check
//! reports and goes on with a default; only at the end does one problem or more mean that there is no topology.
//! A check keeps silent about what reading has already complained of, so that one slip is one message.

mod covered;
mod edge;
mod fleet;
mod route;
mod service;
mod warn;

use super::file::File;
use super::later;
use super::problem::{Level, Path, Problem, Problems, nearest};
use super::read::{self, any_of};
use super::schema;
use super::tree::{self, Node};
use crate::model::topology::Topology;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

/// What a config means depends on these facts about the machine, too.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The file, for messages.
    pub file: Arc<str>,
    /// Relative paths in the file are relative to its folder, so that it means the same wherever it is read from.
    pub folder: PathBuf,
    /// Default of `edge.name`.
    pub host: String,
    /// Default of `edge.threads`.
    pub cores: usize,
    /// Whether a file that the config names can be read: `Err` says why not.
    pub readable: fn(&std::path::Path) -> Result<(), String>,
}

/// A checked config, and what is lawful but dangerous in it.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The config.
    pub topology: Topology,
    /// In file order.
    pub warnings: Problems,
}

/// Reads and checks a text.
pub fn check(text: &str, around: &Surroundings) -> Result<Checked, Problems> {
    let mut found = Found { file: around.file.clone(), lines: text.lines().map(String::from).collect(), problems: vec![] };
    let (tree, flaws) = match tree::parse(text) {
        Ok(parsed) => parsed,
        Err(flaws) => {
            flaws.into_iter().for_each(|f| found.add(Level::Error, Some(f.place), &f.path, &f.message));
            return Err(found.sorted());
        }
    };
    if tree.is_null() {
        found.add(Level::Error, None, &Path::default(), "the file is empty\nthe shortest working config: config/minimal.yaml");
        return Err(found.sorted());
    }
    for flaw in flaws {
        found.add(Level::Error, Some(flaw.place), &flaw.path, &flaw.message);
    }
    let reading = read::read::<File>(&tree);
    let mut checker = Checker {
        silent: reading.wrong.iter().flat_map(|w| [Some(w.path.clone()), w.meant.clone()]).flatten().collect(),
        cut: reading.cut,
        tree: &tree,
        around,
        found,
    };
    for wrong in &reading.wrong {
        let place = if wrong.key { tree.key_place(&wrong.path) } else { tree.place(&wrong.path) };
        let home = schema::home(&wrong.path).filter(|_| wrong.key && wrong.meant.is_none());
        let home = home.map_or(String::new(), |home| format!("\nsuch a key belongs to {home}"));
        checker.found.add(Level::Error, place, &wrong.path, &(wrong.message.clone() + &home));
    }
    later::check(&mut checker);
    let topology = checker.topology(&reading.value);
    if checker.found.problems.iter().any(|p| p.level == Level::Error) {
        return Err(checker.found.sorted());
    }
    warn::all(&mut checker, &topology);
    Ok(Checked { topology, warnings: checker.found.sorted() })
}

struct Found {
    file: Arc<str>,
    lines: Vec<String>,
    problems: Vec<Problem>,
}

impl Found {
    fn add(&mut self, level: Level, place: Option<super::problem::Place>, path: &Path, message: &str) {
        let mut parts = message.lines().map(String::from);
        self.problems.push(Problem {
            level,
            file: self.file.clone(),
            place,
            line: place.and_then(|p| self.lines.get(p.line - 1).cloned()).unwrap_or_default(),
            path: path.to_string(),
            message: parts.next().unwrap_or_default(),
            notes: parts.collect(),
        });
    }
    fn sorted(mut self) -> Problems {
        self.problems.sort_by_key(|p| (p.place, p.path.clone()));
        self.problems.dedup();
        Problems(self.problems)
    }
}

/// The tree at hand, and what was found wrong so far.
pub(super) struct Checker<'a> {
    pub(super) tree: &'a Node,
    around: &'a Surroundings,
    /// Paths that reading has complained of, or that were misspelt.
    silent: BTreeSet<Path>,
    /// Values that are missing from the raw file because of that.
    cut: BTreeSet<Path>,
    found: Found,
}

impl Checker<'_> {
    /// A value is wrong. The first line of the message says what, the others what is allowed.
    pub(super) fn error(&mut self, path: &Path, message: impl AsRef<str>) {
        let known = |w: &Path| path.0.starts_with(&w.0) || w.0.starts_with(&path.0);
        if !self.silent.iter().any(known) {
            self.found.add(Level::Error, self.tree.place(path), path, message.as_ref());
        }
    }
    /// A key is wrong.
    pub(super) fn error_at_key(&mut self, path: &Path, message: impl AsRef<str>) {
        self.found.add(Level::Error, self.tree.key_place(path), path, message.as_ref());
    }
    /// Lawful, but look at it.
    pub(super) fn warn(&mut self, path: &Path, message: impl AsRef<str>) {
        self.found.add(Level::Warning, self.tree.place(path), path, message.as_ref());
    }
    /// Checks a condition.
    fn require(&mut self, condition: bool, path: &Path, message: impl AsRef<str>) {
        if !condition {
            self.error(path, message);
        }
    }
    /// The items of a raw list with their paths in the file (which may hold more items than could be read).
    fn items<'i, T>(&self, path: &Path, items: &'i [T]) -> Vec<(Path, &'i T)> {
        (0..).map(|i| path.at(i)).filter(|p| !self.cut.contains(p)).zip(items).collect()
    }
    /// A name that metrics, paths and commands can carry.
    fn name(&mut self, path: &Path, kind: &str, name: &str) {
        let fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || name.len() > 64 || !name.chars().all(fine) {
            self.error_at_key(path, format!("`{name}` is no name for a {kind}\nallowed: 1 to 64 letters, digits, `.`, `_` and `-`"));
        }
    }
    /// A reference by name to one of `known`.
    fn refers(&mut self, path: &Path, at_key: bool, kind: &str, name: &str, known: &[&str]) -> bool {
        if known.contains(&name) {
            return true;
        }
        let meant = nearest(name, known.iter().copied()).map_or(String::new(), |n| format!("\ndid you mean `{n}`?"));
        let message = format!("there is no {kind} `{name}`\nallowed: {}{meant}", any_of(known));
        if at_key {
            self.error_at_key(path, message);
        } else {
            self.error(path, message);
        }
        false
    }
    /// A path in the file: relative ones are below the file's folder.
    fn path(&self, path: &str) -> PathBuf {
        // Without the `.` components, so that messages read well.
        self.around.folder.join(path).components().collect()
    }

    /// A file that must be there when the config is applied. Only a warning: a config may be checked elsewhere than it runs.
    fn file(&mut self, at: &Path, path: &str) -> PathBuf {
        let full = self.path(path);
        if !path.is_empty()
            && let Err(why) = (self.around.readable)(&full)
        {
            self.warn(at, format!("{} cannot be read: {why}", full.display()));
        }
        full
    }

    fn topology(&mut self, file: &File) -> Topology {
        match file.version {
            Some(1) => {}
            Some(n) => self.error(&Path::of("version"), format!("version {n} is not known here\nallowed: 1")),
            None => self.error(&Path::of("version"), "`version` is missing\nput `version: 1` at the top of the file"),
        }
        let residencies = file.edge.residency_default.clone();
        let edge = self.edge(&file.edge);
        let listeners = self.listeners(&file.listeners);
        let admin = self.admin(file.admin.as_ref(), &listeners);
        let regions = self.regions(&file.regions);
        let services = self.services(file, &regions);
        let (routes, tables) = self.routes(file, residencies.as_deref(), &regions, &services);
        self.spooled(file, residencies.as_deref());
        Topology {
            listeners,
            limits: self.limits(&file.limits),
            admin,
            logging: self.logging(&file.logging),
            tracing: file.tracing.as_ref().map(|t| self.tracing(t)),
            stale: self.stale(&file.stale),
            spool: self.spool(&file.spool, &edge),
            journal: self.journal(&file.journal, &edge),
            fleet: file.fleet.as_ref().map(|f| self.fleet(f, &edge)),
            edge,
            regions,
            services: services.services,
            pools: services.pools,
            endpoints: services.endpoints,
            routes,
            tables,
        }
    }
}
