//! HTTP/2 towards clients.

use super::connection::Guest;
use super::worker::Worker;
use pingora_core::protocols::Stream;
use std::rc::Rc;

/// Serve an HTTP/2 connection.
pub(super) async fn serve(_worker: Rc<Worker>, _guest: Rc<Guest>, _stream: Stream) {}
