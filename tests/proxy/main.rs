//! The request side on real sockets: a whole proxy, and origins and clients that misbehave.

#![allow(clippy::disallowed_methods)] // real sockets and processes live on real time

mod faults;
mod http2;
mod origin;
mod privacy;
mod spool;
mod traffic;
mod truth;
mod uploads;
mod world;
