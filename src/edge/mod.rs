//! Requests: from the listener to the answer.
