//! The request side on real sockets: a whole proxy, and origins and clients that misbehave.

mod faults;
mod origin;
mod traffic;
mod uploads;
mod world;
