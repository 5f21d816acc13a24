//! Reading back: all segments, oldest first, without what cannot be read.

use super::{Record, segments};
use jiff::Timestamp;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// What to read.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Not earlier.
    pub since: Option<Timestamp>,
    /// Earlier than this.
    pub until: Option<Timestamp>,
    /// Only these kinds ([`crate::model::event::EventKind::name`]); empty: all.
    pub kinds: Vec<String>,
}

impl Filter {
    fn wants(&self, r: &Record) -> bool {
        self.since.is_none_or(|t| r.time >= t)
            && self.until.is_none_or(|t| r.time < t)
            && (self.kinds.is_empty() || self.kinds.iter().any(|k| k == r.event.kind.name()))
    }
}

/// Reads a journal directory. A directory that is not there is an empty journal.
pub fn read(dir: &Path, filter: Filter) -> std::io::Result<Reader> {
    let mut paths: Vec<PathBuf> = segments(dir)?.into_iter().map(|(_, path)| path).collect();
    paths.reverse();
    Ok(Reader { paths, current: None, line: Vec::new(), filter, skipped: 0 })
}

/// Records, oldest first.
pub struct Reader {
    paths: Vec<PathBuf>, // the next one is the last
    current: Option<BufReader<File>>,
    line: Vec<u8>,
    filter: Filter,
    skipped: u64,
}

impl Reader {
    /// Lines (or whole segments) that could not be read so far.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }
    /// The next segment that may hold what is wanted. A segment that was last written before `since` does not.
    fn open_next(&mut self) -> Option<()> {
        while let Some(path) = self.paths.pop() {
            let Ok(file) = File::open(&path) else {
                self.skipped += 1;
                continue;
            };
            let last_write = file.metadata().and_then(|m| m.modified()).ok().and_then(|t| Timestamp::try_from(t).ok());
            let too_old = matches!((last_write, self.filter.since), (Some(last), Some(since)) if last < since);
            if !too_old {
                self.current = Some(BufReader::new(file));
                return Some(());
            }
        }
        None
    }
}

impl Iterator for Reader {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        loop {
            let Some(file) = &mut self.current else {
                self.open_next()?;
                continue;
            };
            self.line.clear();
            match file.read_until(b'\n', &mut self.line) {
                Ok(0) => self.current = None,
                Err(_) => {
                    self.skipped += 1;
                    self.current = None;
                }
                Ok(_) => match serde_json::from_slice::<Record>(&self.line) {
                    Ok(record) if self.filter.wants(&record) => return Some(record),
                    Ok(_) => {}
                    Err(_) => self.skipped += u64::from(!self.line.trim_ascii().is_empty()),
                },
            }
        }
    }
}

/// Reads a journal again and again, each time only what came since.
#[derive(Debug, Default)]
pub struct Tail {
    /// The oldest segment there was, the one read last, and how far.
    oldest: u64,
    at: u64,
    offset: u64,
}

impl Tail {
    /// Tells `each` what came since the last time. `anew` comes before it where that is the journal from its beginning (the first
    /// time, and whenever its oldest segment has gone): what was made of it so far is to be forgotten.
    pub fn read(&mut self, dir: &Path, mut anew: impl FnMut(), mut each: impl FnMut(Record)) -> std::io::Result<()> {
        let found = segments(dir)?;
        let oldest = found.first().map_or(0, |(number, _)| *number);
        if oldest != self.oldest || self.at == 0 {
            *self = Self { oldest, at: oldest, offset: 0 };
            anew();
        }
        let last = self.at;
        for (number, path) in found.into_iter().filter(|(number, _)| *number >= last) {
            if number > self.at {
                (self.at, self.offset) = (number, 0);
            }
            let Ok(mut file) = File::open(&path) else { continue };
            file.seek(SeekFrom::Start(self.offset))?;
            let (mut lines, mut line) = (BufReader::new(file), Vec::new());
            loop {
                line.clear();
                let n = lines.read_until(b'\n', &mut line)?;
                // A line without an end is being written, or torn: whoever writes next ends it.
                if n == 0 || line.last() != Some(&b'\n') {
                    break;
                }
                self.offset += n as u64;
                if let Ok(record) = serde_json::from_slice::<Record>(&line) {
                    each(record);
                }
            }
        }
        Ok(())
    }
}

/// When the first readable record of a segment was written.
pub(super) fn first_time(path: &Path) -> Option<Timestamp> {
    let segment = Reader { paths: vec![path.to_owned()], current: None, line: Vec::new(), filter: Filter::default(), skipped: 0 };
    segment.into_iter().next().map(|r| r.time)
}
