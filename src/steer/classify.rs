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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steer::fake;

    #[test]
    fn statuses_mean_what_the_table_says() {
        let mut route = fake::route("r");
        for (code, retry_after, outcome) in [
            (200, false, Outcome::Ok),
            (404, false, Outcome::Ok),
            (429, false, Outcome::Overload(429)),
            (500, false, Outcome::Status(500)),
            (500, true, Outcome::Status(500)),
            (501, false, Outcome::Ok),
            (502, true, Outcome::Status(502)),
            (503, false, Outcome::Status(503)),
            (503, true, Outcome::Overload(503)),
            (599, false, Outcome::Status(599)),
        ] {
            assert_eq!(status(code, retry_after, &route), outcome, "{code}");
        }
        route.retry.statuses = vec![404, 501];
        assert_eq!(status(404, false, &route), Outcome::Status(404));
        assert_eq!(status(501, false, &route), Outcome::Status(501));
    }
}
