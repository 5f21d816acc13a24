//! The config file: raw, checked, compiled, watched.
//!
//! ```text
//! text ─tree→ Node (where everything stands) ─read→ file::File (raw) ─validate→ Topology (checked) ─compile→ Compiled
//! ```
//!
//! - [`tree`]: YAML with positions; duplicate keys, anchors, tabs.
//! - [`read`]: tree to raw types through serde, going on past every mistake, so that one run tells all of them.
//! - [`mod@file`], [`value`]: the raw types and the notations; [`schema`]: the JSON Schema made of them.
//! - [`validate`]: what belongs together, and what is lawful but dangerous. Only it sees raw types.
//! - [`document`]: other files in the same notation.
//! - `later`: keys that this version does not act on yet.
//! - [`watch`]: the file's changes as they happen; [`crate::model::diff`] tells what they changed.

mod compile;
pub mod document;
pub mod file;
mod later;
pub mod problem;
pub mod read;
pub mod schema;
pub mod tree;
pub mod validate;
pub mod value;
pub mod watch;

pub use compile::compile;
pub use problem::{Problem, Problems};
pub use validate::{Checked, Surroundings};

use crate::model::view::{Compiled, Source};
use std::io::Read;
use std::path::Path;

/// A config that may be used, where it came from, and what to look at in it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The config, and warnings.
    pub checked: Checked,
    /// The file and its text.
    pub source: Source,
}

impl Loaded {
    /// Makes it ready to be applied, as the `generation`th config of this process.
    pub fn compile(self, generation: u64) -> Compiled {
        compile(self.checked.topology, self.source, generation)
    }
}

/// Reads and checks a file. Everything that is wrong comes at once.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    parse(&read_text(path)?, path)
}

/// The text of a file; larger than any config, or no text at all, is refused unread.
pub fn read_text(path: &Path) -> Result<String, Problems> {
    const MOST: u64 = 64 << 20;
    let refuse = |e| Problems::unreadable(path, &e);
    let mut text = String::new();
    std::fs::File::open(path).map_err(refuse)?.take(MOST + 1).read_to_string(&mut text).map_err(refuse)?;
    if text.len() as u64 > MOST {
        return Err(refuse(std::io::Error::other("larger than 64 MiB")));
    }
    Ok(text)
}

/// Checks a text as if it stood in this file.
pub fn parse(text: &str, path: &Path) -> Result<Loaded, Problems> {
    let checked = validate::check(text, &surroundings(path))?;
    Ok(Loaded { checked, source: Source { path: path.to_owned(), text: text.into() } })
}

fn surroundings(path: &Path) -> Surroundings {
    let folder = path.parent().map(Path::to_owned).unwrap_or_default();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Surroundings {
        file: path.display().to_string().into(),
        folder,
        host: if host.trim().is_empty() { "edge".into() } else { host.trim().into() },
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        readable: |file| std::fs::File::open(file).map(drop).map_err(|e| e.to_string()),
    }
}

#[cfg(test)]
mod tests;
