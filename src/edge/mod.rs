//! The way of a request: accept, read the head (the picture is loaded once), route, then
//! loop { step, attempt, classify, record }, and relay the answer or say why there is none.
//!
//! ```text
//! listener ─▶ worker ─▶ connection ─┬─ h1 ─┐                ┌─ leg ─▶ upstream
//!                       (tls, proxy) └─ h2 ─┴─ downstream ◀─▶ exchange ─┴─ leg ─▶ upstream
//!                                              upload ─────▲   │
//!                                              relay ◀─────────┴──▶ answer
//! ```
//!
//! | room | what it does |
//! |---|---|
//! | [`listener`], [`tls`] | sockets bound once, certificates, live changes |
//! | [`worker`] | the threads, what they accept, how they leave |
//! | `connection`, `clients`, `proxy` | one client: its places, its heads and their time, closing without a reset |
//! | `h1`, `h2`, `downstream` | what a client speaks |
//! | `exchange`, `leg` | one request from its head to the end of its answer, and its attempts |
//! | `linger` | attempts that lost, until they have told how they would have ended |
//! | `upload`, `relay` | bodies both ways, trailers, tunnels |
//! | `message`, `answer` | heads towards endpoints; what the proxy says itself |
//! | [`access`], [`trace`] | what is written down about a request; spans of those that are sampled |
//! | [`stale`] | last good copies |
//! | `keep`, `once`, `replay` | writes into the spool, the same write twice at once, writes out of the spool |
//!
//! Both directions of a request, its attempts and its timer are polled by one task: nothing is sent or locked per request,
//! nothing is spawned but for a loser that lingers, and whatever is dropped is over.

pub mod access;
mod alarm;
mod answer;
mod clients;
mod connection;
mod downstream;
mod exchange;
mod frames;
mod grpc;
mod h1;
mod h2;
mod keep;
mod leaving;
mod leg;
mod linger;
pub mod listener;
mod message;
mod once;
pub mod proxy;
mod relay;
mod replay;
mod socket;
pub mod stale;
#[cfg(test)]
mod tests;
pub mod tls;
pub mod trace;
mod truth;
mod upload;
pub mod worker;

pub use listener::Listeners;
pub use worker::{Edge, Setup};
