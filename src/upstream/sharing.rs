//! The HTTP/2 connections of one worker thread, by endpoint.
//!
//! A request goes to the open connection with the fewest streams; where none has room, it waits for a dial. Dials are shared as well:
//! a burst towards a fresh endpoint opens as many connections as it needs, not one for each request. A dial goes on although
//! whoever began it gave up.
//!
//! Where the endpoint chooses (`auto`) and chose HTTP/1.1, nothing is shared, and dials are everybody's own again until it chooses otherwise.

use super::dial::{Dial, DialError, Target};
use super::h2::Call;
use super::pool::{ById, Counts};
use super::session::{STREAMS, Session, speaks_h2};
use super::stream::Stream;
use crate::model::time::{Duration, Moment};
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use tokio::sync::watch;
use tokio::task::spawn_local;

/// What a dial came to.
pub(super) enum Found {
    /// A connection of one's own.
    H1(Stream),
    /// A stream on a shared one.
    H2(Box<Call>),
}

/// The connections to one endpoint.
#[derive(Default)]
struct Group {
    sessions: Vec<Kept>,
    dials: Vec<Rc<Dialling>>,
    /// It chose HTTP/1.1 the last time.
    chose_http1: bool,
}

struct Kept {
    session: Rc<Session>,
    timeout: Duration,
    /// It is to be kept although nobody uses it.
    warm: bool,
}

/// A dial under way.
struct Dialling {
    epoch: u32,
    name: Option<rustls::pki_types::ServerName<'static>>,
    /// Requests that wait for it.
    waiting: Cell<usize>,
    /// It came to HTTP/1.1: for the first who asks.
    stream: RefCell<Option<Stream>>,
    end: watch::Sender<Option<Result<(), Failed>>>,
}

/// A [`DialError`] for each of those who waited.
#[derive(Clone)]
struct Failed {
    step: &'static str,
    kind: io::ErrorKind,
    text: String,
}

/// All of them.
#[derive(Default)]
pub(super) struct Sharing(RefCell<ById<Group>>);

impl Sharing {
    /// A stream on an open connection that has room. `fresh`: the connection was opened for it.
    pub(super) fn pick(&self, to: &Target, fresh: bool) -> Option<Box<Call>> {
        let mut groups = self.0.borrow_mut();
        let group = groups.get_mut(&to.id)?;
        let fits = |k: &&Kept| fits(k, to) && k.session.has_room();
        let kept = group.sessions.iter().filter(fits).min_by_key(|k| k.session.active())?;
        Some(Box::new(Call::new(&kept.session, to.id, fresh)))
    }

    /// Whether there is an open connection for this target, with room or not.
    pub(super) fn any(&self, to: &Target) -> bool {
        self.0.borrow().get(&to.id).is_some_and(|g| g.sessions.iter().any(|k| fits(k, to)))
    }

    /// Open connections to an endpoint.
    pub(super) fn open(&self, id: u64) -> usize {
        self.0.borrow().get(&id).map_or(0, |g| g.sessions.iter().filter(|k| k.session.is_open()).count())
    }

    /// A stream on a connection with room, opened if there is none.
    pub(super) async fn dial(self: &Rc<Self>, dialler: &Rc<dyn Dial>, counts: &Rc<Cell<Counts>>, to: &Target) -> Result<Found, DialError> {
        if self.0.borrow().get(&to.id).is_some_and(|g| g.chose_http1) {
            return match open(&**dialler, counts, to).await? {
                Opened::H1(stream) => Ok(Found::H1(stream)),
                Opened::H2(session) => {
                    let call = Box::new(Call::new(&session, to.id, true));
                    self.keep(to, session);
                    Ok(Found::H2(call))
                }
            };
        }
        let mut fresh = false;
        loop {
            if let Some(call) = self.pick(to, fresh) {
                return Ok(Found::H2(call));
            }
            let dial = self.join(dialler, counts, to);
            let mut end = dial.end.subscribe();
            let seat = Seat::take(&dial);
            // Never closed before it is told: the task that tells lives as long as this thread's runtime.
            let told = end.wait_for(Option::is_some).await.ok().and_then(|t| t.clone());
            drop(seat);
            match told {
                Some(Ok(())) => {}
                Some(Err(e)) => return Err(DialError { address: to.address, step: e.step, source: io::Error::new(e.kind, e.text) }),
                None => return Err(DialError { address: to.address, step: "connect", source: io::ErrorKind::ConnectionAborted.into() }),
            }
            if let Some(stream) = dial.stream.take() {
                return Ok(Found::H1(stream));
            }
            if self.0.borrow().get(&to.id).is_some_and(|g| g.chose_http1) {
                return Box::pin(self.dial(dialler, counts, to)).await;
            }
            fresh = true;
        }
    }

    /// A dial under way that has room for one more, or a new one.
    fn join(self: &Rc<Self>, dialler: &Rc<dyn Dial>, counts: &Rc<Cell<Counts>>, to: &Target) -> Rc<Dialling> {
        let mut groups = self.0.borrow_mut();
        let group = groups.entry(to.id).or_default();
        let name = to.tls.as_ref().map(|(_, n)| n);
        let fits = |d: &&Rc<Dialling>| d.epoch == to.epoch && d.name.as_ref() == name && d.waiting.get() < STREAMS;
        if let Some(found) = group.dials.iter().find(fits) {
            return found.clone();
        }
        let new = Rc::new(Dialling {
            epoch: to.epoch,
            name: name.cloned(),
            waiting: Cell::new(0),
            stream: RefCell::default(),
            end: watch::channel(None).0,
        });
        group.dials.push(new.clone());
        let (this, dialler, counts, to, mine) = (self.clone(), dialler.clone(), counts.clone(), to.clone(), new.clone());
        spawn_local(async move {
            let opened = open(&*dialler, &counts, &to).await;
            if let Some(group) = this.0.borrow_mut().get_mut(&to.id) {
                group.dials.retain(|d| !Rc::ptr_eq(d, &mine));
                group.chose_http1 = matches!(opened, Ok(Opened::H1(_)));
            }
            let told = match opened {
                Ok(Opened::H2(session)) => {
                    this.keep(&to, session);
                    Ok(())
                }
                Ok(Opened::H1(stream)) => {
                    mine.stream.replace(Some(stream));
                    Ok(())
                }
                Err(e) => Err(Failed { step: e.step, kind: e.source.kind(), text: e.source.to_string() }),
            };
            mine.end.send_replace(Some(told));
        });
        new
    }

    fn keep(&self, to: &Target, session: Rc<Session>) {
        let mut groups = self.0.borrow_mut();
        let group = groups.entry(to.id).or_default();
        group.chose_http1 = false;
        let warm = group.sessions.iter().filter(|k| k.warm).count() < to.idle.warm.min(1);
        group.sessions.push(Kept { session, timeout: to.idle.timeout, warm });
    }

    /// Let go of those that take no more streams, and of those that nobody has used for long. Tells how many.
    pub(super) fn sweep(&self, now: Moment) -> u64 {
        self.only(|_, k| k.session.is_open() && (k.warm || k.session.idle_for(now).is_none_or(|idle| idle <= k.timeout)))
    }

    /// Keep only those for which `keep(endpoint id, epoch)` holds. Streams on the others run on.
    pub(super) fn retain(&self, keep: impl Fn(u64, u32) -> bool) -> u64 {
        self.only(|id, k| keep(id, k.session.epoch))
    }

    fn only(&self, keep: impl Fn(u64, &Kept) -> bool) -> u64 {
        let mut dropped = 0;
        self.0.borrow_mut().retain(|id, group| {
            let before = group.sessions.len();
            group.sessions.retain(|k| keep(*id, k));
            dropped += (before - group.sessions.len()) as u64;
            !(group.sessions.is_empty() && group.dials.is_empty() && !group.chose_http1)
        });
        dropped
    }
}

fn fits(kept: &Kept, to: &Target) -> bool {
    let session = &kept.session;
    session.epoch == to.epoch && session.name.as_ref() == to.tls.as_ref().map(|(_, n)| n) && session.is_open()
}

/// One who waits for a dial.
struct Seat<'d>(&'d Dialling);

impl<'d> Seat<'d> {
    fn take(dial: &'d Dialling) -> Self {
        dial.waiting.set(dial.waiting.get() + 1);
        Self(dial)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

enum Opened {
    H1(Stream),
    H2(Rc<Session>),
}

async fn open(dialler: &dyn Dial, counts: &Cell<Counts>, to: &Target) -> Result<Opened, DialError> {
    let opened = async {
        let stream = dialler.dial(to).await?;
        if !speaks_h2(&stream, to)? {
            return Ok(Opened::H1(stream));
        }
        Session::begin(stream, to).await.map(Opened::H2)
    }
    .await;
    let mut c = counts.get();
    match &opened {
        Ok(_) => c.dialled += 1,
        Err(_) => c.failed += 1,
    }
    counts.set(c);
    opened
}
