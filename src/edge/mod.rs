//! The way of a request: accept, read the head (the picture is loaded once), route, then
//! loop { step, attempt, classify, record }, and relay the answer or say why there is none.
//!
//! | room | what it does |
//! |---|---|
//! | [`listener`] | sockets bound once, accepted by every worker, permits, live changes |
//! | [`connection`] | one HTTP/1.1 connection: heads, deadlines, pipelining, keep-alive, closing without a reset |
//! | [`exchange`] | one request from its head to the end of its answer |
//! | [`relay`] | bodies, trailers and tunnels once the answer has begun |
//! | [`answer`] | what the proxy says itself |
//! | [`access`] | what is written down about a request |
//!
//! Both directions of a request run in one task, polled by hand: what the exchange needs of
//! an upstream connection is therefore `poll_*` methods on `&mut self` (write, read head, read body), each of
//! which may be called while the other direction is pending. Nothing is boxed or spawned per request.

pub mod access;
mod alarm;
mod answer;
mod clients;
mod connection;
mod downstream;
mod exchange;
mod h1;
mod h2;
mod leg;
pub mod listener;
mod message;
mod proxy;
mod relay;
mod socket;
pub mod stale;
#[cfg(test)]
mod tests;
pub mod tls;
mod upload;
pub mod worker;

pub use listener::Listeners;
pub use worker::{Edge, Setup};
