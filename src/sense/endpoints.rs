//! Probes and ejections of single endpoints.

use crate::model::id::EndpointIx;

/// What the control side must write into an endpoint's cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointOrder {
    /// Probes took it out (`true`), or no longer do (`false`).
    ProbeDown(EndpointIx, bool),
    /// End its ejection now: it is proved well.
    Restore(EndpointIx),
}
