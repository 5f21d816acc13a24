//! Logs: what a person or a collector follows while the program runs.
//!
//! One line per event of `tracing`: readable on a terminal, JSON otherwise (`logging.format`). Level and
//! format are live: a reload changes them. What libraries say through `log` comes the same way, from
//! `warn` on.
//!
//! **Never in the way.** Lines go through [`lossy::Lossy`]: a bounded queue and a thread that writes.
//! A reader that stalls costs lines, which are counted and told once it reads again; it never costs a request.
//!
//! **Never a flood.** A callsite may write [`BURST`] lines in [`WINDOW`] (libraries together
//! [`FOREIGN_BURST`]); what comes above that is counted and told in its next line as `suppressed`. Places
//! that a failing request can reach say less than that by a [`Throttle`] of their own.
//!
//! What the levels mean: `error`, somebody has to do something now; `warn`, something is wrong and is being
//! dealt with; `info`, what an operator wants to find the next morning; `debug`, `trace`: for us.

pub mod access;
mod format;
pub mod lossy;
mod throttle;

pub use throttle::Throttle;

use crate::model::time::Duration;
use crate::model::topology::{LogFormat, Logging};
use format::{Format, Line};
use lossy::{Lossy, Target};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tracing::callsite::Identifier;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_log::NormalizeEvent;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;

/// Lines of one callsite in a [`WINDOW`]: a hundred pools may trip at once, each of them told.
const BURST: u32 = 200;
/// Lines of all libraries together in a [`WINDOW`]: some of them complain once per broken connection.
const FOREIGN_BURST: u32 = 10;
const WINDOW: Duration = Duration::from_secs(10);

/// The running log.
pub struct Log {
    sink: Lossy,
    levels: reload::Handle<Targets, Registry>,
    human: Arc<AtomicBool>,
}

/// Starts logging to standard error, for the whole process. Only the first call of a process has an effect
/// on where lines go; a later one (a second proxy in the same process) gets a log of its own that nobody feeds.
pub fn start(settings: &Logging) -> Log {
    let (log, subscriber) = build(settings, Target::Stderr);
    let _ = tracing::subscriber::set_global_default(subscriber);
    let _ = tracing_log::LogTracer::init();
    log.apply(settings);
    log
}

fn build(settings: &Logging, target: Target) -> (Log, impl Subscriber + Send + Sync + use<>) {
    let sink = Lossy::start("log", target);
    let human = Arc::new(AtomicBool::new(is_human(settings.format)));
    let (levels, handle) = reload::Layer::new(targets(&settings.level));
    let writer =
        Writer { sink: sink.clone(), human: human.clone(), callsites: Mutex::default(), foreign: Throttle::new(WINDOW, FOREIGN_BURST) };
    let subscriber = tracing_subscriber::registry().with(levels).with(writer);
    (Log { sink, levels: handle, human }, subscriber)
}

fn is_human(format: LogFormat) -> bool {
    match format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    }
}

/// Our own lines from `level` on; those of libraries from `warn` on (`error`, where that is the level).
fn targets(level: &str) -> Targets {
    let level: LevelFilter = level.parse().unwrap_or(LevelFilter::INFO);
    Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("evenkeel", level)
}

impl Log {
    /// Takes level and format over from a new config.
    pub fn apply(&self, settings: &Logging) {
        self.human.store(is_human(settings.format), Relaxed);
        let _ = self.levels.reload(targets(&settings.level));
        tracing_log::log::set_max_level(match settings.level.as_str() {
            "error" => tracing_log::log::LevelFilter::Error,
            _ => tracing_log::log::LevelFilter::Warn,
        });
    }

    /// Waits until what was said so far is written, but not longer than `at_most`. For the end of the process.
    pub fn flush(&self, at_most: Duration) -> bool {
        self.sink.flush(at_most)
    }
}

/// The layer that makes lines.
struct Writer {
    sink: Lossy,
    human: Arc<AtomicBool>,
    callsites: Mutex<HashMap<Identifier, Throttle>>,
    foreign: Throttle,
}

impl Writer {
    /// How many lines were suppressed before this one; `None`: this one is, too.
    fn admit(&self, event: &Event<'_>, target: &str) -> Option<u64> {
        if !target.starts_with("evenkeel") {
            return self.foreign.pass();
        }
        let callsite = event.metadata().callsite();
        self.callsites.lock().entry(callsite).or_insert_with(|| Throttle::new(WINDOW, BURST)).pass()
    }
}

impl<S: Subscriber> Layer<S> for Writer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let normal = event.normalized_metadata();
        let meta = normal.as_ref().unwrap_or_else(|| event.metadata());
        let Some(suppressed) = self.admit(event, meta.target()) else { return };
        let format = if self.human.load(Relaxed) { Format::Human } else { Format::Json };
        let lost = self.sink.take_lost();
        if lost > 0 {
            let mut line = Line::new(crate::clock::wall_now(), tracing::Level::WARN, "evenkeel::logging");
            line.message(&format!("{lost} log lines were lost: whoever reads them is too slow"));
            self.sink.send(line.finish(format));
        }
        let mut line = Line::new(crate::clock::wall_now(), *meta.level(), meta.target());
        event.record(&mut line);
        if suppressed > 0 {
            line.number("suppressed", suppressed);
        }
        self.sink.send(line.finish(format));
    }
}

#[cfg(test)]
mod tests;
