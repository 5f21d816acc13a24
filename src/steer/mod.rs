//! A request in, a decision out. Pure: time and dice are arguments.
//!
//! | room | question | answer |
//! |---|---|---|
//! | [`route`] | which route is it? | the first in file order that matches, found without scanning |
//! | [`attempt`] | what now? | try there, wait until then, stop that attempt, or give up and why |
//! | [`choose`] | which pool, which endpoint? | by share, then by load; never outside the route's residency |
//! | [`patience`] | how long may it take? | the times of hedge, overdue, late, attempt and queue |
//! | [`classify`] | what came of it? | an [`Outcome`](crate::model::outcome::Outcome) |
//! | [`grpc`] | how long does a gRPC client wait, and what does a call's status mean? | a duration, an outcome |
//! | [`guard`] | is a well-formed 200 plausible? | or which rule it breaks, and where |
//! | [`eject`] | is this endpoint to be left alone? | for how long |
//! | [`fallback`] | what do we say when we cannot? | the ways to try in order, and the answer that is always left |
//! | [`lastgood`] | may it be kept, and who may be given it? | a key, or no |
//!
//! Nothing here counts or remembers beyond one request: gauges and allowances come through
//! [`Live`](crate::model::view::Live), states and shares through [`View`](crate::model::view::View).

pub mod attempt;
pub mod choose;
pub mod classify;
pub mod eject;
#[cfg(test)]
#[allow(missing_docs)]
pub mod fake;
pub mod fallback;
pub mod grpc;
pub mod guard;
pub mod lastgood;
pub mod patience;
pub mod purge;
pub mod route;
