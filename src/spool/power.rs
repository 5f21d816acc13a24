//! What a power loss leaves: everything up to the last fsync, and of what was written after it any part.

use super::entry::{Entry, Write, mark};
use super::log::{Change, Log};
use crate::model::dice::Dice;
use parking_lot::Mutex;
use redb::StorageBackend;
use std::io;
use std::sync::Arc;

/// A disk that remembers what was not yet synced.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    safe: Vec<u8>,
    now: Vec<u8>,
    since: Vec<(usize, Vec<u8>)>,
}

impl Disk {
    /// The disk as it is found after the power came back: every sector written since the last sync is there, or not.
    fn after_loss(&self, dice: &mut Dice) -> Self {
        let state = self.0.lock();
        let mut found = state.safe.clone();
        found.resize(found.len().max(state.now.len()), 0);
        for (at, data) in &state.since {
            for (i, sector) in data.chunks(512).enumerate() {
                let from = at + i * 512;
                if dice.chance(0.5) && from + sector.len() <= found.len() {
                    found[from..from + sector.len()].copy_from_slice(sector);
                }
            }
        }
        let state = State { safe: found.clone(), now: found, since: Vec::new() };
        Self(Arc::new(Mutex::new(state)))
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().now.len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = offset as usize;
        out.copy_from_slice(&self.0.lock().now[at..at + out.len()]);
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().now.resize(len as usize, 0);
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.safe = state.now.clone();
        state.since.clear();
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock();
        let at = offset as usize;
        state.now[at..at + data.len()].copy_from_slice(data);
        state.since.push((at, data.to_vec()));
        Ok(())
    }
}

fn write(seq: u64) -> Write {
    Write {
        route: "r".into(),
        method: "POST".into(),
        target: "t.test/".into(),
        scope: mark([]),
        fingerprint: mark([]),
        order: mark([]),
        residency: None,
        status: 202,
        max_age_ms: 1000,
        client: "192.0.2.1".parse().unwrap(),
        trusted: false,
        https: false,
        request: vec![seq as u8; 1024],
    }
}

#[test]
fn nothing_acknowledged_is_lost_with_the_power() {
    for seed in 0..60 {
        let mut dice = Dice::new(seed);
        let mut disk = Disk::default();
        let (mut acknowledged, mut next) = (Vec::new(), 1u64);
        for _ in 0..6 {
            // Each time the log is copied, with all that is unsynced, at a point in the middle of its life.
            let (log, entries, damaged) = Log::on(disk.clone(), "simulated".into()).expect("it opens after every loss");
            assert!(damaged.is_empty(), "seed {seed}");
            let found: Vec<u64> = entries.iter().map(|e| e.seq).collect();
            assert!(acknowledged.iter().all(|seq| found.contains(seq)), "seed {seed}: {acknowledged:?} of {found:?}");
            for seq in &acknowledged {
                let request = log.request(*seq).unwrap().expect("its bytes are there");
                assert_eq!(request, vec![*seq as u8; 1024]);
            }
            let mut copy = None;
            let last = 1 + dice.below(8);
            for batch in 0..=last {
                let changes: Vec<Change> = (0..1 + dice.below(20))
                    .map(|_| {
                        next += 1;
                        let write = write(next);
                        Change::Add(Entry::of(&write, next, format!("{next:032x}"), 1), write.request)
                    })
                    .collect();
                if batch == last {
                    // The power goes while this one is on its way: what is on disk before its sync, and after a part of it.
                    let half = disk.clone();
                    let cut = Cut::new(half, dice.below(12) as usize);
                    if let Ok((cut_log, ..)) = Log::on(cut.clone(), "simulated".into()) {
                        let _ = cut_log.commit(&changes);
                    }
                    copy = Some(cut.disk.after_loss(&mut dice));
                } else {
                    log.commit(&changes).unwrap();
                    acknowledged.extend(changes.iter().map(|c| if let Change::Add(e, _) = c { e.seq } else { 0 }));
                }
            }
            disk = copy.unwrap();
        }
    }
}

/// A disk that stops taking writes, and syncs, after so many.
#[derive(Clone, Debug)]
struct Cut {
    disk: Disk,
    left: Arc<Mutex<usize>>,
}

impl Cut {
    fn new(disk: Disk, left: usize) -> Self {
        let state = disk.0.lock();
        let copy = State { safe: state.safe.clone(), now: state.now.clone(), since: state.since.clone() };
        drop(state);
        Self { disk: Disk(Arc::new(Mutex::new(copy))), left: Arc::new(Mutex::new(left)) }
    }
    fn goes_on(&self) -> bool {
        let mut left = self.left.lock();
        *left = left.saturating_sub(1);
        *left > 0
    }
}

impl StorageBackend for Cut {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        if self.goes_on() { self.disk.sync_data() } else { Err(io::Error::other("the power is gone")) }
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.goes_on() { self.disk.write(offset, data) } else { Err(io::Error::other("the power is gone")) }
    }
}
