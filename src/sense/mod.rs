//! Signals in, a picture out: what we believe about pools and regions, and the shares, limits and
//! allowances that follow from it. Pure: `now` and the dice are arguments; nothing here waits or writes.
//!
//! | decider | question | module |
//! |---|---|---|
//! | detector | do too many requests fail, or hang? | [`detector`], fed from a [`window`] |
//! | silence | has the pool gone quiet while requests wait? | [`silence`] |
//! | endpoints | which addresses do probes and streaks take out? | [`endpoints`] |
//! | common mode | is it this pool, or everybody, or ourselves? | [`common_mode`] |
//! | breaker | which state follows? | [`region`] (the table), [`ramp`] (the way back) |
//! | share | who gets which part of the requests? | [`share`] |
//! | limit | how many may be in flight? | [`limit`] |
//! | grants | how many retries, hedges and trials are allowed? | [`grants`] |
//! | book | which other edges are there, and how much of a capacity is ours? | [`book`] |
//! | verdict | what does the fleet's view mean here? | [`verdict`] |
//!
//! [`Controller`] asks them in this order at every tick and publishes the
//! [`View`](crate::model::view::View). Only it makes [`Event`](crate::model::event::Event)s.

pub mod book;
pub mod common_mode;
pub mod controller;
pub mod detector;
pub mod endpoints;
pub mod grants;
pub mod limit;
pub mod pool;
pub mod ramp;
pub mod region;
pub mod reserve;
pub mod share;
pub mod silence;
pub mod verdict;
pub mod window;

pub use controller::{Controller, Refused};
pub use endpoints::EndpointOrder;
pub use grants::{Allowance, Grants};

#[cfg(test)]
#[allow(missing_docs)]
mod test_world;
