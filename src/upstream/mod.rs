//! Connections to endpoints: dialled, pooled per worker thread, and driven through one exchange at a time.
//!
//! ```text
//! Pool::checkout ─ idle one of the right epoch, quiet? ── yes ─> Conn (reused)
//!       │                                                        begin ─ push* ─ finish ─ event* ─> End
//!       └──── no ── Dial ─ TCP ─ TLS? ────────────────────────> Conn (fresh)      │
//!                                                                                 └─ Pool::checkin (reusable?) ─> idle
//! ```
//!
//! HTTP/2 connections are shared: a `Conn` is then one stream of a [`session`], and the pool keeps the session.
//!
//! Everything here belongs to one thread: no locks, no watchers, and no tasks but one for each HTTP/2 connection. An idle connection is a
//! socket and a few words; its buffers exist only while an exchange runs. Whether an idle connection has died or,
//! worse, has something to say that nobody asked for is seen when it is taken out, and by [`Pool::sweep`].
//!
//! What it does not do: it does not choose endpoints, retry, or judge; it reports exactly how much of a
//! request was handed over ([`Sent`](crate::model::outcome::Sent)) so that others can.

pub mod conn;
pub mod dial;
pub mod h1;
pub mod h2;
mod outbox;
pub mod pool;
mod session;
mod sharing;
pub mod spare;
pub mod stream;
pub mod tail;
#[cfg(test)]
mod tests;
pub mod tls;

pub use conn::{Begin, Conn, Event, Failure};
pub use dial::{Dial, DialError, Target, TcpDial};
pub use pool::{Counts, Pool};
pub use stream::{Io, Stream};
