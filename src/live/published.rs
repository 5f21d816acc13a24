//! The newest picture, swapped as one.

use super::Cells;
use crate::model::view::View;
use arc_swap::{ArcSwap, Guard};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};
use tokio::sync::watch;

/// What a request works with: what it may know, and where it counts. The indexes of both belong together.
#[derive(Debug)]
pub struct Picture {
    /// What it may know.
    pub view: Arc<View>,
    /// Where it counts.
    pub cells: Arc<Cells>,
}

/// Holds the newest picture. Readers never wait, nor do they make the writer wait.
#[derive(Debug)]
pub struct Published {
    newest: ArcSwap<Picture>,
    /// Counts the pictures there were: whoever keeps one sees with a plain read whether it is the newest.
    version: AtomicU64,
    changes: watch::Sender<()>,
}

impl Published {
    /// Begins with this picture.
    pub fn new(first: Arc<Picture>) -> Self {
        Self { newest: ArcSwap::new(first), version: AtomicU64::new(0), changes: watch::Sender::new(()) }
    }
    /// The newest picture for a moment: cheap, not to be held across an await.
    #[inline]
    pub fn load(&self) -> Guard<Arc<Picture>> {
        self.newest.load()
    }
    /// The newest picture, to keep for the life of a request.
    #[inline]
    pub fn load_full(&self) -> Arc<Picture> {
        self.newest.load_full()
    }
    /// Which picture is the newest. To be asked before the picture is loaded: a newer one than the version says does no harm.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version.load(Acquire)
    }
    /// Replaces it. Only the control task does.
    pub fn store(&self, next: Arc<Picture>) {
        self.newest.store(next);
        self.version.fetch_add(1, Release);
        self.changes.send_replace(());
    }
    /// Wakes whenever the picture changes: for few that live long (the prober), never for requests.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }
}
