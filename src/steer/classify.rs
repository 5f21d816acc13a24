//! What an answer's status means: for the detectors, and for the request.

use crate::model::outcome::Outcome;
use crate::model::policy::Route;

/// What a response head says about the backend. `retry_after`: the answer carries a `Retry-After`.
///
/// 429, and 503 with `Retry-After`, are a backend that is alive and busy ([`Outcome::Overload`], never held against it);
/// the statuses of `retry.statuses` and every other 5xx are failures; everything else is a working backend.
/// 501 and 505 tell of the request, not of the backend's health.
pub fn status(status: u16, retry_after: bool, route: &Route) -> Outcome {
    match status {
        429 => Outcome::Overload(status),
        503 if retry_after => Outcome::Overload(status),
        501 | 505 if !route.retry.statuses.contains(&status) => Outcome::Ok,
        500..=599 => Outcome::Status(status),
        _ if route.retry.statuses.contains(&status) => Outcome::Status(status),
        _ => Outcome::Ok,
    }
}
