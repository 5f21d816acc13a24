//! `slo.json` in the state directory: the book, whole, once a minute, and read again at the start.
//!
//! Written to a temporary name and renamed, so that a crash leaves the one before; what cannot be read is put aside, told, and begun anew.

use crate::report::slo::Book;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

fn path(dir: &Path) -> PathBuf {
    dir.join("slo.json")
}

/// What was kept last; nothing was: an empty book.
pub fn read(dir: &Path) -> Book {
    let path = path(dir);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Book::default(),
        Err(e) => {
            tracing::error!("cannot read {}: {e}; the ledger of objectives begins anew", path.display());
            return Book::default();
        }
    };
    serde_json::from_str(&text).unwrap_or_else(|e| {
        let aside = path.with_extension("json.bad");
        let _ = std::fs::rename(&path, &aside);
        tracing::error!(
            "{} cannot be understood: {e}; it is {} now, and the ledger of objectives begins anew",
            path.display(),
            aside.display()
        );
        Book::default()
    })
}

/// Keeps it.
pub fn write(dir: &Path, book: &Book) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let next = dir.join(".slo.json.new");
    let mut file = std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&next)?;
    file.write_all(&serde_json::to_vec(book)?)?;
    file.sync_all()?;
    std::fs::rename(&next, path(dir))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::slo::{Entry, Tally};
    use crate::report::when::At;

    #[test]
    fn it_survives_and_what_is_torn_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), Book::default());
        let mut book = Book::default();
        let routes = vec![("home".to_owned(), Tally { total: 3, bad: 1, slow: 0 })];
        book.enter(At(1_795_262_400_000_000), &Entry { seconds: 1.0, routes, ..Entry::default() });
        write(dir.path(), &book).unwrap();
        assert_eq!(read(dir.path()), book);
        std::fs::write(path(dir.path()), "{ torn").unwrap();
        assert_eq!(read(dir.path()), Book::default());
        assert!(dir.path().join("slo.json.bad").exists());
    }
}
