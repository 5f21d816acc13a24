//! The access log: one JSON line per request, when switched on.

use super::lossy::{Lossy, Target};
use crate::model::topology::AccessLog;
use arc_swap::ArcSwapOption;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Writes access records. Cheap to clone; every worker thread has one.
#[derive(Clone)]
pub struct Access {
    shared: Arc<Shared>,
}

struct Shared {
    /// The part of good requests that is logged, in 2⁻³²; failures always are. `OFF`: no access log.
    sample: AtomicU64,
    /// Steps through the requests: Weyl's sequence takes exactly the wanted part of them, evenly.
    step: AtomicU64,
    sink: ArcSwapOption<Lossy>,
}

const OFF: u64 = u64::MAX;
const ONE: u64 = 1 << 32;

impl Access {
    /// As the config says; `None`: nothing is logged until [`Access::apply`] says otherwise.
    pub fn start(settings: Option<&AccessLog>) -> Self {
        let access =
            Self { shared: Arc::new(Shared { sample: AtomicU64::new(OFF), step: AtomicU64::new(0), sink: ArcSwapOption::empty() }) };
        access.apply(settings);
        access
    }

    /// Takes a new config over. A file is opened again in any case: somebody may have moved it away (SIGHUP).
    pub fn apply(&self, settings: Option<&AccessLog>) {
        let Some(settings) = settings else {
            self.shared.sample.store(OFF, Relaxed);
            self.shared.sink.store(None);
            return;
        };
        let target = settings.file.clone().map_or(Target::Stdout, Target::File);
        match &*self.shared.sink.load() {
            Some(lossy) => lossy.redirect(target),
            None => self.shared.sink.store(Some(Arc::new(Lossy::start("access-log", target)))),
        }
        self.shared.sample.store((settings.sample.clamp(0.0, 1.0) * ONE as f64) as u64, Relaxed);
    }

    /// Whether a request is to be logged. Ask before making a record.
    #[inline]
    pub fn wants(&self, failed: bool) -> bool {
        match self.shared.sample.load(Relaxed) {
            OFF => false,
            ONE => true,
            _ if failed => true,
            sample => {
                // n × sample, and whether it passed a whole number with this request.
                let at = self.shared.step.fetch_add(sample, Relaxed) % ONE;
                at + sample >= ONE
            }
        }
    }

    /// Logs a record. Never blocks; a reader that stalls costs lines.
    pub fn write(&self, record: &impl Serialize) {
        let Ok(mut line) = serde_json::to_vec(record) else { return };
        line.push(b'\n');
        if let Some(lossy) = &*self.shared.sink.load() {
            lossy.send(line);
        }
    }

    /// Waits until what was taken is written, but not longer than `at_most`. For the end of the process.
    pub fn flush(&self, at_most: std::time::Duration) -> bool {
        self.shared.sink.load().as_ref().is_none_or(|lossy| lossy.flush(at_most))
    }
}
