//! Logs with `tracing`: for people on a terminal, JSON otherwise.
