//! The only memory that the request side and the control side share.
//!
//! ```text
//!   control ── Picture (View + Cells) ──▶ Published ──▶ every request loads it once
//!   control ── tokens, ejections lifted ─▶ Cells   ◀── requests count, mark, take tokens
//!   control ◀── Tallies (Sampler) ─────── Cells
//!   control ◀── Inbox ─── probes, operators, reloads
//! ```
//!
//! [`Cells`] are counters. They only ever grow (a scrape of `/metrics` and the control task read the same
//! ones, each forming its own differences), or are gauges that a RAII [`Flight`] moves and moves back.
//! All accesses are `Relaxed`: nothing is ever published through a cell, each is a number of its own, and
//! the control side looks again within 10 ms. A cell belongs to a *name*: a reload builds new `Cells`
//! around the same cells, so counts, streaks and requests in flight carry over.
//!
//! What it does not do: judge. Verdicts are `sense`'s, choices are `steer`'s.

mod admission;
mod beat;
mod cell;
mod cells;
mod flight;
mod inbox;
mod pace;
mod published;
mod sampler;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;

pub use admission::Tokens;
pub use beat::Beats;
pub use cell::{EndpointCell, PoolCell, RouteCell, ServiceCell, TableCell, Times};
pub use cells::Cells;
pub use flight::{Detached, Flight, Streak};
pub use inbox::{Inbox, Message, ReloadReply, inbox};
pub use pace::Estimator;
pub use published::{Picture, Published};
pub use sampler::Sampler;
