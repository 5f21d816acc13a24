//! The writes on disk: one redb file, `spool.redb`, mode 0600 in a directory of mode 0700.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | `format` | [`FORMAT`] |
//! | `entries` | seq | the record ([`super::entry::encode`]) |
//! | `requests` | seq | the request, as HTTP/1.1; gone once the write is applied |
//!
//! redb keeps checksums of its pages and swaps one root per commit: a commit is whole or it is not there, whatever part of it reached the
//! disk when the power went. One commit is one fsync, however many writes it holds. What redb cannot see (a bit that
//! flipped in a page read later) our own digests see: such an entry becomes [`State::Damaged`] and is told, never skipped.
//!
//! After a failed write to the file (a full disk) redb takes no more: the file is closed and opened again, which goes back to the
//! last commit. That is the writer's business ([`super::writer`]).
//!
//! What it does not do: decide. Bounds, order and times are [`super::queue`]'s.

use super::entry::{self, Entry, State};
use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, TableError};
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The format this version writes. A file of another one is refused: what it holds was acknowledged and must not be guessed at.
pub const FORMAT: u64 = 1;
/// Pages kept in memory, bytes. Writes are mostly appended, and read once.
const CACHE: usize = 16 << 20;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const ENTRIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("entries");
const REQUESTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("requests");

/// Why the file cannot be used: what, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Another process has it open; it is tried again until that one leaves.
    Taken(String),
    /// The disk is full, or gone, or broken; tried again.
    Disk(String),
    /// What is there cannot be read by this version, or at all; left as it is.
    Unreadable(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Taken(what) | Self::Disk(what) | Self::Unreadable(what)) = self;
        f.write_str(what)
    }
}

/// One change to the file.
#[derive(Clone, Debug)]
pub enum Change {
    /// A new write.
    Add(Entry, Vec<u8>),
    /// An entry stands elsewhere now.
    Settle(Entry),
    /// An entry is forgotten.
    Forget(u64),
}

/// The open file.
#[derive(Debug)]
pub struct Log {
    db: Database,
    path: PathBuf,
}

/// The numbers of records that cannot be read, and what is wrong with them.
pub type Damaged = Vec<(u64, String)>;

/// Where the file lies in the spool's directory.
pub fn file(dir: &Path) -> PathBuf {
    dir.join("spool.redb")
}

impl Log {
    /// Opens the file, makes it where there is none, and reads every record: what is there, and the numbers whose record is damaged.
    pub fn open(dir: &Path) -> Result<(Self, Vec<Entry>, Damaged), Trouble> {
        let path = file(dir);
        let handle = make(dir, &path).map_err(|e| Trouble::Disk(format!("{}: {e}; check the directory and its owner", path.display())))?;
        let backend = FileBackend::new(handle).map_err(|e| refused(&path, e))?;
        Self::on(backend, path)
    }

    /// [`Log::open`] on any storage.
    pub(super) fn on(storage: impl StorageBackend, path: PathBuf) -> Result<(Self, Vec<Entry>, Damaged), Trouble> {
        let db = Builder::new().set_cache_size(CACHE).create_with_backend(storage).map_err(|e| refused(&path, e))?;
        let log = Self { db, path };
        log.found()?;
        let (mut entries, mut damaged) = (Vec::new(), Vec::new());
        let read = log.db.begin_read().map_err(|e| log.trouble(e))?;
        let table = read.open_table(ENTRIES).map_err(|e| log.trouble(e))?;
        for row in table.iter().map_err(|e| log.trouble(e))? {
            let (seq, record) = row.map_err(|e| log.trouble(e))?;
            match entry::decode(record.value()) {
                Ok(entry) if entry.seq == seq.value() => entries.push(entry),
                Ok(_) => damaged.push((seq.value(), "the record stands in another's place".into())),
                Err(why) => damaged.push((seq.value(), why)),
            }
        }
        Ok((log, entries, damaged))
    }

    /// The format is the one we write; a fresh file gets it, and its tables.
    fn found(&self) -> Result<(), Trouble> {
        let format = {
            let read = self.db.begin_read().map_err(|e| self.trouble(e))?;
            match read.open_table(META) {
                Ok(table) => table.get("format").map_err(|e| self.trouble(e))?.map(|v| v.value()),
                Err(TableError::TableDoesNotExist(_)) => None,
                Err(e) => return Err(self.trouble(e)),
            }
        };
        match format {
            Some(FORMAT) => return Ok(()),
            Some(other) => {
                let than = if other < FORMAT { "an older" } else { "a newer" };
                return Err(self.unreadable(format!(
                    "it was written by {than} version of evenkeel (format {other}, this one reads {FORMAT}): \
                     let that version replay it, or move the file away to begin a new one"
                )));
            }
            None if self.has_tables()? => {
                return Err(self.unreadable("it is no spool of evenkeel: name another spool.path".into()));
            }
            None => {}
        }
        let write = self.db.begin_write().map_err(|e| self.trouble(e))?;
        write.open_table(META).and_then(|mut t| Ok(t.insert("format", FORMAT).map(drop)?)).map_err(|e| self.trouble(e))?;
        write.open_table(ENTRIES).map_err(|e| self.trouble(e))?;
        write.open_table(REQUESTS).map_err(|e| self.trouble(e))?;
        write.commit().map_err(|e| self.trouble(e))
    }

    fn has_tables(&self) -> Result<bool, Trouble> {
        let read = self.db.begin_read().map_err(|e| self.trouble(e))?;
        Ok(read.list_tables().map_err(|e| self.trouble(e))?.next().is_some())
    }

    /// Applies all changes as one, or none. On disk when it returns.
    pub fn commit(&self, changes: &[Change]) -> Result<(), Trouble> {
        let mut write = self.db.begin_write().map_err(|e| self.trouble(e))?;
        write.set_durability(Durability::Immediate).map_err(|e| Trouble::Disk(format!("{}: {e}", self.path.display())))?;
        {
            let mut entries = write.open_table(ENTRIES).map_err(|e| self.trouble(e))?;
            let mut requests = write.open_table(REQUESTS).map_err(|e| self.trouble(e))?;
            for change in changes {
                let done = match change {
                    Change::Add(entry, request) => entries
                        .insert(entry.seq, &entry::encode(entry)[..])
                        .map(drop)
                        .and_then(|()| requests.insert(entry.seq, &request[..]).map(drop)),
                    Change::Settle(entry) => entries
                        .insert(entry.seq, &entry::encode(entry)[..])
                        .map(drop)
                        .and_then(|()| if entry.state.keeps_request() { Ok(()) } else { requests.remove(entry.seq).map(drop) }),
                    Change::Forget(seq) => entries.remove(seq).map(drop).and_then(|()| requests.remove(seq).map(drop)),
                };
                done.map_err(|e| self.trouble(e))?;
            }
        }
        write.commit().map_err(|e| self.trouble(e))
    }

    /// An entry's record; `Err` in the inner result: it is damaged.
    pub fn entry(&self, seq: u64) -> Result<Option<Result<Entry, String>>, Trouble> {
        let read = self.db.begin_read().map_err(|e| self.trouble(e))?;
        let table = read.open_table(ENTRIES).map_err(|e| self.trouble(e))?;
        Ok(table.get(seq).map_err(|e| self.trouble(e))?.map(|record| entry::decode(record.value())))
    }

    /// The bytes of a request; `Ok(None)`: they are gone.
    pub fn request(&self, seq: u64) -> Result<Option<Vec<u8>>, Trouble> {
        let read = self.db.begin_read().map_err(|e| self.trouble(e))?;
        let table = read.open_table(REQUESTS).map_err(|e| self.trouble(e))?;
        Ok(table.get(seq).map_err(|e| self.trouble(e))?.map(|request| request.value().to_vec()))
    }

    /// Up to `limit` records in `states`, newest last, beginning behind number `after`.
    pub fn list(&self, states: &[State], after: u64, limit: usize) -> Result<Vec<Entry>, Trouble> {
        let read = self.db.begin_read().map_err(|e| self.trouble(e))?;
        let table = read.open_table(ENTRIES).map_err(|e| self.trouble(e))?;
        let mut found = Vec::new();
        for row in table.range(after + 1..).map_err(|e| self.trouble(e))? {
            let (_, record) = row.map_err(|e| self.trouble(e))?;
            found.extend(entry::decode(record.value()).ok().filter(|e| states.contains(&e.state)));
            if found.len() >= limit {
                break;
            }
        }
        Ok(found)
    }

    /// Gives room back to the disk. Nobody else may use the file meanwhile.
    pub fn compact(&mut self) -> Result<(), Trouble> {
        self.db.compact().map(drop).map_err(|e| Trouble::Disk(format!("{}: {e}", self.path.display())))
    }

    fn trouble(&self, e: impl Into<redb::Error>) -> Trouble {
        trouble(&self.path, e.into())
    }
    fn unreadable(&self, what: String) -> Trouble {
        Trouble::Unreadable(format!("{}: {what}", self.path.display()))
    }
}

fn make(dir: &Path, path: &Path) -> std::io::Result<File> {
    if !dir.exists() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    // A file from elsewhere may be open to others: it holds what users sent.
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    }
    // So that the file's name survives a power loss as well.
    File::open(dir)?.sync_all()?;
    Ok(file)
}

fn refused(path: &Path, e: DatabaseError) -> Trouble {
    let at = path.display();
    match e {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch | DatabaseError::TransactionInProgress => {
            Trouble::Taken(format!("{at}: another process has it open; only one edge may use a spool.path"))
        }
        DatabaseError::UpgradeRequired(version) => Trouble::Unreadable(format!(
            "{at}: its file format ({version}) is older than this version reads: let the version that wrote it replay it, or move the file away"
        )),
        other => trouble(path, other.into()),
    }
}

fn trouble(path: &Path, e: redb::Error) -> Trouble {
    let at = path.display();
    match e {
        redb::Error::Corrupted(what) => Trouble::Unreadable(format!(
            "{at}: it is damaged ({what}); writes acknowledged there are in it: keep the file, move it away to begin a new one"
        )),
        redb::Error::Io(e) if e.kind() == std::io::ErrorKind::InvalidData => Trouble::Unreadable(format!(
            "{at}: it is no spool of evenkeel, or its head is damaged ({e}): keep it, or name another spool.path"
        )),
        redb::Error::Io(e) if e.kind() == std::io::ErrorKind::StorageFull => {
            Trouble::Disk(format!("{at}: the disk is full; make room, it is tried again"))
        }
        redb::Error::PreviousIo => Trouble::Disk(format!("{at}: an earlier write to it failed")),
        other => Trouble::Disk(format!("{at}: {other}")),
    }
}

/// What redb says when it must not go on, for the tests of this room.
#[cfg(test)]
pub(super) fn set_format(dir: &Path, format: u64) {
    let db = Database::open(file(dir)).unwrap();
    let write = db.begin_write().unwrap();
    write.open_table(META).unwrap().insert("format", format).unwrap();
    write.commit().unwrap();
}

/// Writes over a record, as a broken disk might.
#[cfg(test)]
pub(super) fn overwrite(dir: &Path, seq: u64, record: Option<&[u8]>, request: Option<&[u8]>) {
    let db = Database::open(file(dir)).unwrap();
    let write = db.begin_write().unwrap();
    if let Some(record) = record {
        write.open_table(ENTRIES).unwrap().insert(seq, record).unwrap();
    }
    if let Some(request) = request {
        write.open_table(REQUESTS).unwrap().insert(seq, request).unwrap();
    }
    write.commit().unwrap();
}
