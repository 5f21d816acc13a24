//! Where access lines go: standard output or a file, when switched on. The request side decides which requests are
//! logged (`logging.access.sample`, failures always) and what is in a line.

use super::lossy::{Lossy, Target};
use crate::model::topology::AccessLog;
use arc_swap::ArcSwapOption;
use serde::Serialize;
use std::sync::Arc;

/// Writes access lines. Cheap to clone.
#[derive(Clone, Default)]
pub struct Access {
    sink: Arc<ArcSwapOption<Lossy>>,
}

impl Access {
    /// As the config says; `None`: nothing is logged until [`Access::apply`] says otherwise.
    pub fn start(settings: Option<&AccessLog>) -> Self {
        let access = Self::default();
        access.apply(settings);
        access
    }

    /// Takes a new config over.
    pub fn apply(&self, settings: Option<&AccessLog>) {
        let Some(settings) = settings else { return self.sink.store(None) };
        let target = settings.file.clone().map_or(Target::Stdout, Target::File);
        match &*self.sink.load() {
            Some(lossy) => lossy.redirect(target),
            None => self.sink.store(Some(Arc::new(Lossy::start("access-log", target)))),
        }
    }

    /// Opens a file again: somebody moved it away (SIGHUP).
    pub fn reopen(&self) {
        if let Some(lossy) = &*self.sink.load() {
            lossy.reopen();
        }
    }

    /// Logs a record as a line of JSON. Never blocks; a reader that stalls costs lines.
    pub fn write(&self, record: &impl Serialize) {
        if let Some(lossy) = &*self.sink.load()
            && let Ok(mut line) = serde_json::to_vec(record)
        {
            line.push(b'\n');
            lossy.send(line);
        }
    }

    /// Waits until what was taken is written, but not longer than `at_most`. For the end of the process.
    pub fn flush(&self, at_most: std::time::Duration) -> bool {
        self.sink.load().as_ref().is_none_or(|lossy| lossy.flush(at_most))
    }
}
