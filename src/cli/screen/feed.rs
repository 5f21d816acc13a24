//! Where the screen's news come from, and where its orders go: threads, so that the screen never waits.

use crate::admin::wire::{Done, DrainRequest, FreezeRequest};
use crate::cli::client::{Admin, Reply, segment};
use crate::clock;
use crate::journal::Record;
use hyper::Method;
use jiff::Timestamp;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

/// How often status and metrics are asked for when nothing happens.
pub const EVERY: Duration = Duration::from_millis(800);
/// How long to wait before a lost event stream is asked for again.
const AGAIN: Duration = Duration::from_secs(1);

/// Something to show.
#[derive(Clone, Debug)]
pub enum News {
    /// How things stand.
    Status(Box<crate::admin::wire::Status>),
    /// The page of metrics, and when it came.
    Metrics(Timestamp, String),
    /// No answer, and why.
    Lost(String),
    /// Something happened.
    Event(Timestamp, String),
    /// An order was carried out: what changed.
    Done(Order, Vec<String>),
    /// It was not, and why.
    Refused(Order, String),
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Give a region nothing.
    Drain {
        /// Which.
        region: String,
        /// Why.
        reason: String,
        /// Whatever the plan says.
        force: bool,
    },
    /// Lift that.
    Undrain {
        /// Which.
        region: String,
    },
    /// Hold all states, or let them go.
    Freeze {
        /// Hold.
        on: bool,
    },
    /// Break or heal a simulated region.
    Fault {
        /// Which.
        region: String,
        /// How.
        word: &'static str,
    },
}

/// The controls of simulated regions.
#[derive(Clone, Debug)]
pub struct Faults {
    /// `POST URL/REGION/FAULT`.
    pub url: String,
    /// Where everything is, for whoever sees it for the first time.
    pub about: String,
}

/// The screen's end of the threads.
pub struct Feed {
    news: Receiver<News>,
    tell: Sender<News>,
    nudge: SyncSender<()>,
    admin: Admin,
    faults: Option<Faults>,
}

/// Starts the threads. They end with the process.
pub fn start(admin: Admin, faults: Option<Faults>) -> std::io::Result<Feed> {
    let (tell, news) = channel();
    let (nudge, nudged) = sync_channel(1);
    let thread = |name: &str| std::thread::Builder::new().name(name.into());
    thread("status").spawn({
        let (admin, tell) = (admin.clone(), tell.clone());
        move || watch(&admin, &tell, &nudged)
    })?;
    thread("events").spawn({
        let (admin, tell, nudge) = (admin.clone(), tell.clone(), nudge.clone());
        move || listen(&admin, &tell, &nudge)
    })?;
    Ok(Feed { news, tell, nudge, admin, faults })
}

impl Feed {
    /// The next piece, if one is there.
    pub fn next(&self) -> Option<News> {
        self.news.try_recv().ok()
    }

    /// Carries an order out; what came of it is news.
    pub fn order(&self, order: Order) {
        let (admin, faults, tell, nudge) = (self.admin.clone(), self.faults.clone(), self.tell.clone(), self.nudge.clone());
        let name = std::thread::Builder::new().name("order".into());
        let asked = order.clone();
        let started = name.spawn(move || {
            let _ = tell.send(carry_out(&admin, faults.as_ref(), asked));
            let _ = nudge.try_send(());
        });
        if let Err(e) = started {
            let _ = self.tell.send(News::Refused(order, e.to_string()));
        }
    }
}

fn watch(admin: &Admin, tell: &Sender<News>, nudged: &Receiver<()>) {
    loop {
        let heard = admin.status().map(|s| News::Status(Box::new(s))).unwrap_or_else(|f| News::Lost(f.what));
        let alive = matches!(heard, News::Status(_));
        if tell.send(heard).is_err() {
            return;
        }
        if alive && let Ok(page) = admin.text("/metrics") {
            let _ = tell.send(News::Metrics(clock::wall_now(), page));
        }
        if nudged.recv_timeout(EVERY) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

fn listen(admin: &Admin, tell: &Sender<News>, nudge: &SyncSender<()>) {
    let (_never, pause) = sync_channel::<()>(0);
    loop {
        let heard = admin.follow("/v1/events", |data| {
            let Ok(record) = serde_json::from_str::<Record>(data) else { return true };
            // Counts come every second while something is wrong, and are in the figures already.
            if record.event.kind.name() == "counts" {
                return true;
            }
            let _ = nudge.try_send(());
            tell.send(News::Event(record.time, told(&record))).is_ok()
        });
        if heard.is_ok_and(|goes_on| !goes_on) {
            return;
        }
        let _ = pause.recv_timeout(AGAIN);
    }
}

fn told(record: &Record) -> String {
    let by = record.event.by.to_string();
    let what = record.event.kind.to_string().replace('\n', "; ");
    if by == "evenkeel" { what } else { format!("{what} ({by})") }
}

fn carry_out(admin: &Admin, faults: Option<&Faults>, order: Order) -> News {
    let region = |name: &str, verb: &str| format!("/v1/regions/{}/{verb}", segment(name));
    let called = match &order {
        Order::Drain { region: name, reason, force } => {
            let body = DrainRequest { reason: reason.trim().into(), force: *force, ..DrainRequest::default() };
            admin.call::<Done>(Method::POST, &region(name, "drain"), &body)
        }
        Order::Undrain { region: name } => admin.call(Method::POST, &region(name, "undrain"), &serde_json::json!({})),
        Order::Freeze { on } => admin.call(Method::PUT, "/v1/freeze", &FreezeRequest { on: *on }),
        Order::Fault { region: name, word } => {
            let Some(faults) = faults else { return News::Refused(order, "these regions are real".into()) };
            let controls = Admin::at(faults.url.clone(), None);
            return match controls.post(&format!("/{}/{word}", segment(name))) {
                Ok(()) => News::Done(order.clone(), vec![format!("{name}: {word}")]),
                Err(f) => News::Refused(order, f.what),
            };
        }
    };
    match called {
        Ok(Reply::Good(done)) => News::Done(order, done.changes),
        Ok(Reply::Refused(problem)) => News::Refused(order, problem.detail),
        Err(f) => News::Refused(order, if f.next.is_empty() { f.what } else { format!("{}; {}", f.what, f.next) }),
    }
}
