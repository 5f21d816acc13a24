//! Connections to endpoints: dialled, pooled per worker thread, and driven through one HTTP/1.1 exchange at a time.
//!
//! ```text
//! Pool::checkout ─ idle one of the right epoch, quiet? ── yes ─> Conn (reused)
//!       │                                                        begin ─ push* ─ finish ─ event* ─> End
//!       └──── no ── Dial ─ TCP ─ TLS? ────────────────────────> Conn (fresh)      │
//!                                                                                 └─ Pool::checkin (reusable?) ─> idle
//! ```
//!
//! Everything here belongs to one thread: no locks, no tasks, no watchers. An idle connection is a socket
//! and a few words; its buffers exist only while an exchange runs. Whether an idle connection has died or,
//! worse, has something to say that nobody asked for is seen when it is taken out, and by [`Pool::sweep`].
//!
//! What it does not do: it does not choose endpoints, retry, or judge; it reports exactly how much of a
//! request was handed over ([`Sent`](crate::model::outcome::Sent)) so that others can.

pub mod dial;
pub mod h1;
mod outbox;
pub mod pool;
pub mod stream;
#[cfg(test)]
mod tests;
pub mod tls;

pub use dial::{Dial, DialError, Target, TcpDial};
pub use h1::{Begin, Conn, Event, Failure};
pub use pool::{Counts, Pool};
pub use stream::{Io, Stream};
