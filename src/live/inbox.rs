//! The way to the control task: everything that speaks to the controller goes through here.

use crate::model::event::{Actor, Event, EventKind};
use crate::model::fleet::{News, Report};
use crate::model::signal::{Command, Probe, Refused};
use crate::model::status::Status;
use crate::model::time::Moment;
use crate::model::view::Compiled;
use std::sync::Arc;
use tokio::sync::{broadcast, mpsc, oneshot};

/// What a reload answers: what changed, one line each; or every problem.
pub type ReloadReply = Result<Vec<String>, Refused>;

/// One message to the control task.
#[derive(Debug)]
pub enum Message {
    /// A probe came back.
    Probe(Probe),
    /// An operator, a drill or the fleet said something.
    Command(Command, oneshot::Sender<Result<Vec<String>, Refused>>),
    /// A config to apply, and who wants it.
    Reload(Arc<Compiled>, Actor, oneshot::Sender<ReloadReply>),
    /// A config file that cannot be applied: who wanted it, and every problem, one each. The old config stays.
    Rejected(Actor, Vec<String>),
    /// Something for the record that others than the controller know of, and when it was so.
    Note(Moment, Actor, EventKind),
    /// Other edges said something, or the way to them changed.
    Fleet(News),
    /// What does this edge tell the others? With the number of its life. `None`: it is alone.
    Report(u64, oneshot::Sender<Option<Report>>),
    /// How do things stand?
    Status(oneshot::Sender<Status>),
    /// The process is leaving; answered when that is on record and overrides are on disk.
    Leaving(oneshot::Sender<()>),
}

/// How many events a slow reader of the event stream may be behind before it misses some.
const EVENTS: usize = 4096;

/// A handle to the control task. Cheap to clone; never blocks.
#[derive(Clone, Debug)]
pub struct Inbox {
    to: mpsc::UnboundedSender<Message>,
    events: broadcast::Sender<Arc<Event>>,
}

/// A handle, and the control task's end of it.
pub fn inbox() -> (Inbox, mpsc::UnboundedReceiver<Message>) {
    let (to, from) = mpsc::unbounded_channel();
    (Inbox { to, events: broadcast::channel(EVENTS).0 }, from)
}

impl Inbox {
    /// A probe came back.
    pub fn probe(&self, p: Probe) {
        let _ = self.to.send(Message::Probe(p));
    }
    /// Give an order. Answers with what changed, one line each, or why not.
    pub async fn command(&self, c: Command) -> Result<Vec<String>, Refused> {
        self.ask(|reply| Message::Command(c, reply)).await.ok_or(Refused::Leaving)?
    }
    /// Apply a config. Answers with what changed, one line each.
    pub async fn reload(&self, c: Arc<Compiled>, by: Actor) -> ReloadReply {
        self.ask(|reply| Message::Reload(c, by, reply)).await.ok_or(Refused::Leaving)?
    }
    /// A new config file cannot be applied: for status, journal and metrics.
    pub fn rejected(&self, by: Actor, problems: Vec<String>) {
        let _ = self.to.send(Message::Rejected(by, problems));
    }
    /// Puts something on record that was so then.
    pub fn note(&self, at: Moment, by: Actor, kind: EventKind) {
        let _ = self.to.send(Message::Note(at, by, kind));
    }
    /// Other edges said something, or the way to them changed.
    pub fn news(&self, news: News) {
        let _ = self.to.send(Message::Fleet(news));
    }
    /// What this edge tells the others in this life of it; `None`: it is alone, or the control task has left.
    pub async fn report(&self, incarnation: u64) -> Option<Report> {
        self.ask(|reply| Message::Report(incarnation, reply)).await?
    }
    /// How things stand; `None`: the control task has left.
    pub async fn status(&self) -> Option<Status> {
        self.ask(Message::Status).await
    }
    /// The process is leaving. Ready when that is on record and overrides are on disk.
    pub async fn leaving(&self) {
        let _ = self.ask(Message::Leaving).await;
    }
    /// Every event from now on. A reader that falls behind misses events ([`broadcast::error::RecvError::Lagged`]
    /// tells how many); it never holds up the control task.
    pub fn events(&self) -> broadcast::Receiver<Arc<Event>> {
        self.events.subscribe()
    }
    /// Tells an event to whoever listens. Only the control task does.
    pub fn tell(&self, e: Arc<Event>) {
        let _ = self.events.send(e);
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.to.send(message(reply)).ok()?;
        answer.await.ok()
    }
}
