//! Connections of one worker thread: idle ones, and the way to new ones.
//!
//! The one used last is used next: it is the likeliest to be alive and warm, and what is not needed
//! grows old at the other end. Connections of another epoch are dropped, not used: the control side
//! bumps the epoch when a pool trips, because a host that lost power leaves sockets that look healthy.
//!
//! HTTP/2 connections are never idle in this sense: they stay here while requests run on them ([`Sharing`]).

use super::conn::Conn;
use super::dial::{Dial, DialError, Target};
use super::h1;
use super::sharing::{Found, Sharing};
use crate::clock;
use crate::model::time::Moment;
use crate::model::topology::Protocol;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

struct Idle {
    /// On the heap: a checkout moves a pointer.
    conn: Box<h1::Conn>,
    since: Moment,
}

impl Idle {
    fn epoch(&self) -> u32 {
        self.conn.home().epoch
    }
    fn usable(&mut self, epoch: u32, now: Moment) -> bool {
        self.epoch() == epoch && now.since(self.since) <= self.conn.home().idle.timeout && self.conn.is_quiet()
    }
}

/// How often connections were opened, reused and found dead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Opened.
    pub dialled: u64,
    /// Could not be opened.
    pub failed: u64,
    /// Taken from the idle ones.
    pub reused: u64,
    /// Idle ones dropped: closed by the peer, with stray bytes, expired, of another epoch, or too many.
    pub dropped: u64,
}

/// Idle connections of one worker thread, and the way to new ones.
pub struct Pool {
    dialler: Rc<dyn Dial>,
    idle: RefCell<ById<Vec<Idle>>>,
    shared: Rc<Sharing>,
    counts: Rc<Cell<Counts>>,
    /// As of the last [`Pool::sweep`]: idle times are counted in seconds, and the clock is not read twice a request for that.
    now: Cell<Moment>,
}

impl Pool {
    /// An empty pool.
    pub fn new(dialler: impl Dial + 'static) -> Self {
        Self {
            dialler: Rc::new(dialler),
            idle: RefCell::default(),
            shared: Rc::default(),
            counts: Rc::default(),
            now: Cell::new(clock::now()),
        }
    }

    /// An idle connection, or a new one.
    pub async fn checkout(&self, to: &Target) -> Result<Conn, DialError> {
        match self.reuse(to) {
            Some(conn) => Ok(conn),
            None => self.dial(to).await,
        }
    }

    /// An idle connection of the target's epoch that is still open and silent, or a stream on one that is shared.
    pub fn reuse(&self, to: &Target) -> Option<Conn> {
        if to.may_be_h2() {
            if let Some(call) = self.shared.pick(to, false) {
                self.count(|c| c.reused += 1);
                return Some(Conn::H2(call));
            }
            if to.protocol == Protocol::H2 {
                return None;
            }
        }
        let mut idle = self.idle.borrow_mut();
        let list = idle.get_mut(&to.id)?;
        let now = self.now.get();
        let mut at = list.len();
        while at > 0 {
            at -= 1;
            if list[at].epoch() == to.epoch && !list[at].conn.suits(to) {
                continue;
            }
            let mut found = list.remove(at);
            if found.usable(to.epoch, now) {
                self.count(|c| c.reused += 1);
                found.conn.reuse(to);
                return Some(Conn::H1(found.conn));
            }
            self.count(|c| c.dropped += 1);
        }
        None
    }

    /// A new connection, even where idle ones wait: for the second try after a reused one was dead.
    pub async fn dial(&self, to: &Target) -> Result<Conn, DialError> {
        if to.may_be_h2() {
            return match self.shared.dial(&self.dialler, &self.counts, to).await? {
                Found::H1(stream) => Ok(Conn::H1(Box::new(h1::Conn::new(stream, to)))),
                Found::H2(call) => Ok(Conn::H2(call)),
            };
        }
        match self.dialler.dial(to).await {
            Ok(stream) => {
                self.count(|c| c.dialled += 1);
                Ok(Conn::H1(Box::new(h1::Conn::new(stream, to))))
            }
            Err(e) => {
                self.count(|c| c.failed += 1);
                Err(e)
            }
        }
    }

    /// Takes a connection back. It is kept if it can carry another request and there is room; else closed.
    /// A shared one was never given away.
    pub fn checkin(&self, conn: Conn) {
        let Conn::H1(conn) = conn else { return };
        if conn.is_reusable() {
            self.keep(conn);
        }
    }

    fn keep(&self, mut conn: Box<h1::Conn>) {
        conn.rest();
        let (id, max) = (conn.home().id, conn.home().idle.max);
        let mut idle = self.idle.borrow_mut();
        let list = idle.entry(id).or_default();
        if list.len() >= max {
            if max == 0 {
                return;
            }
            list.remove(0);
            self.count(|c| c.dropped += 1);
        }
        list.push(Idle { conn, since: self.now.get() });
    }

    /// Opens connections until `idle.warm` of them wait for the endpoint, or one that is shared. Returns how many it opened.
    pub async fn warm(&self, to: &Target) -> Result<usize, DialError> {
        let mut opened = 0;
        while !self.shared.any(to) && self.fresh(to) < to.idle.warm.min(to.idle.max) {
            let Conn::H1(conn) = self.dial(to).await? else { return Ok(opened + 1) };
            self.keep(conn);
            opened += 1;
        }
        Ok(opened)
    }

    /// Closes what has expired, was closed by the peer, or speaks unasked. To be called about once a second: idle times
    /// are counted from sweep to sweep.
    pub fn sweep(&self) {
        let now = clock::now();
        self.now.set(now);
        self.retain_idle(|_, i| {
            let epoch = i.epoch();
            i.usable(epoch, now)
        });
        let dropped = self.shared.sweep(now);
        self.count(|c| c.dropped += dropped);
    }

    /// Closes every idle connection of an endpoint.
    pub fn drop_endpoint(&self, id: u64) {
        self.retain(|other, _| other != id);
    }

    /// Keeps only idle connections for which `keep(endpoint id, epoch)` holds: after a new picture, those of
    /// endpoints that still exist, under the epoch their pool has now.
    pub fn retain(&self, keep: impl Fn(u64, u32) -> bool) {
        self.retain_idle(|id, i| keep(id, i.epoch()));
        let dropped = self.shared.retain(keep);
        self.count(|c| c.dropped += dropped);
    }

    /// Idle connections to an endpoint. A shared one counts as many as one could want, for it has room for as many requests.
    pub fn idle(&self, id: u64) -> usize {
        if self.shared.open(id) > 0 {
            return usize::MAX;
        }
        self.idle.borrow().get(&id).map_or(0, Vec::len)
    }

    /// HTTP/2 connections to an endpoint.
    pub fn shared(&self, id: u64) -> usize {
        self.shared.open(id)
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.counts.get()
    }

    fn fresh(&self, to: &Target) -> usize {
        self.idle.borrow().get(&to.id).map_or(0, |l| l.iter().filter(|i| i.epoch() == to.epoch).count())
    }

    fn retain_idle(&self, mut keep: impl FnMut(u64, &mut Idle) -> bool) {
        let mut dropped = 0;
        self.idle.borrow_mut().retain(|id, list| {
            let before = list.len();
            list.retain_mut(|i| keep(*id, i));
            dropped += (before - list.len()) as u64;
            !list.is_empty()
        });
        self.count(|c| c.dropped += dropped);
    }

    fn count(&self, f: impl FnOnce(&mut Counts)) {
        let mut c = self.counts.get();
        f(&mut c);
        self.counts.set(c);
    }
}

/// Something by endpoint.
pub(super) type ById<T> = HashMap<u64, T, BuildHasherDefault<IdHasher>>;

/// Endpoint ids are made by us, so a keyed hash buys nothing.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.write_u64(self.0 ^ u64::from(*b)));
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = n.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32);
    }
}
