//! The newest picture, swapped as one.

use super::Cells;
use crate::model::view::View;
use arc_swap::{ArcSwap, Guard};
use std::sync::Arc;

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
pub struct Published(ArcSwap<Picture>);

impl Published {
    /// Begins with this picture.
    pub fn new(first: Arc<Picture>) -> Self {
        Self(ArcSwap::new(first))
    }
    /// The newest picture for a moment: cheap, not to be held across an await.
    #[inline]
    pub fn load(&self) -> Guard<Arc<Picture>> {
        self.0.load()
    }
    /// The newest picture, to keep for the life of a request.
    #[inline]
    pub fn load_full(&self) -> Arc<Picture> {
        self.0.load_full()
    }
    /// Replaces it. Only the control task does.
    pub fn store(&self, next: Arc<Picture>) {
        self.0.store(next);
    }
}
