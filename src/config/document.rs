//! Other files in the notation of the config (scenarios of a rehearsal): the same values, the same care with mistakes.

use super::problem::{Level, Path, Place, Problem, Problems, nearest};
use super::read::{self, any_of};
use super::tree::{self, Node};
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// A file that was read, and what is wrong with it so far.
#[derive(Debug)]
pub struct Document {
    file: Arc<str>,
    lines: Vec<String>,
    tree: Option<Node>,
    silent: Vec<Path>,
    problems: Vec<Problem>,
}

impl Document {
    /// Reads a text as if it stood in this file. What cannot be read has its default, and is noted.
    pub fn read<T: DeserializeOwned + Default>(text: &str, file: &str) -> (T, Self) {
        let mut d =
            Self { file: file.into(), lines: text.lines().map(String::from).collect(), tree: None, silent: vec![], problems: vec![] };
        let (tree, flaws) = match tree::parse(text) {
            Ok((tree, flaws)) => (tree, flaws),
            Err(flaws) => {
                flaws.into_iter().for_each(|f| d.add(Some(f.place), &f.path, &f.message));
                return (T::default(), d);
            }
        };
        if tree.is_null() {
            d.add(None, &Path::default(), "the file is empty");
            return (T::default(), d);
        }
        flaws.into_iter().for_each(|f| d.add(Some(f.place), &f.path, &f.message));
        let reading = read::read::<T>(&tree);
        for w in &reading.wrong {
            let place = if w.key { tree.key_place(&w.path) } else { tree.place(&w.path) };
            d.add(place, &w.path, &w.message);
        }
        d.silent = reading.wrong.into_iter().flat_map(|w| [Some(w.path), w.meant]).flatten().collect();
        d.tree = Some(tree);
        (reading.value, d)
    }

    /// A value is wrong. The first line of the message says what, the others what is allowed.
    pub fn error(&mut self, path: &Path, message: &str) {
        let known = |w: &Path| path.0.starts_with(&w.0) || w.0.starts_with(&path.0);
        if let Some(tree) = &self.tree
            && !self.silent.iter().any(known)
        {
            let place = tree.place(path);
            self.add(place, path, message);
        }
    }

    /// The place of a name among those that there are; where it is none of them, that is an error.
    pub fn one_of(&mut self, path: &Path, kind: &str, name: &str, known: &[&str]) -> Option<usize> {
        let found = known.iter().position(|k| *k == name);
        if found.is_none() {
            let meant = nearest(name, known.iter().copied()).map_or(String::new(), |n| format!("\ndid you mean `{n}`?"));
            self.error(path, &format!("there is no {kind} `{name}`\nallowed: {}{meant}", any_of(known)));
        }
        found
    }

    /// Everything that is wrong, in file order; `Ok`: nothing.
    pub fn end(mut self) -> Result<(), Problems> {
        self.problems.sort_by_key(|p| (p.place, p.path.clone()));
        self.problems.dedup();
        if self.problems.is_empty() { Ok(()) } else { Err(Problems(self.problems)) }
    }

    fn add(&mut self, place: Option<Place>, path: &Path, message: &str) {
        let mut parts = message.lines().map(String::from);
        let line = place.and_then(|p| self.lines.get(p.line - 1).cloned()).unwrap_or_default();
        let (message, file) = (parts.next().unwrap_or_default(), self.file.clone());
        self.problems.push(Problem { level: Level::Error, file, place, line, path: path.to_string(), message, notes: parts.collect() });
    }
}
