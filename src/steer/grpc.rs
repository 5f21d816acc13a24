//! gRPC over HTTP: how long the client waits, what a call's status means, and how refusals are said.
//!
//! A call's HTTP status is nearly always 200; what came of it stands in `grpc-status`, in the trailers or, where nothing else was to be
//! said, in the head ("trailers-only").
//!
//! | `grpc-status` | for the detector and for retries |
//! |---|---|
//! | UNAVAILABLE | a failure, like 503 |
//! | DEADLINE_EXCEEDED | a failure, like 504 |
//! | UNKNOWN, INTERNAL, DATA_LOSS | a failure, like 500 |
//! | RESOURCE_EXHAUSTED | busy, like 429: never held against the backend |
//! | everything else | a working backend: OK, or the caller's own doing |
//!
//! Calls are POSTs: what was sent in full is repeated only as `retry.writes` allows for any write.

use crate::model::outcome::{Outcome, RequestOutcome};
use crate::model::time::Duration;

/// `DEADLINE_EXCEEDED`: it may have been done nevertheless.
pub const DEADLINE_EXCEEDED: u8 = 4;
/// `UNAVAILABLE`: clients may try again.
pub const UNAVAILABLE: u8 = 14;
const UNKNOWN: u8 = 2;

/// Whether a `Content-Type` is gRPC's (and not gRPC-Web's, which needs no trailers).
pub fn is_grpc(content_type: &[u8]) -> bool {
    const NAME: &[u8] = b"application/grpc";
    let named = content_type.get(..NAME.len()).is_some_and(|start| start.eq_ignore_ascii_case(NAME));
    named && matches!(content_type.get(NAME.len()), None | Some(b'+' | b';' | b' '))
}

/// `grpc-timeout`: up to eight digits and a unit. `None`: not a timeout, as if there were none.
pub fn timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let n = digits.iter().fold(0u64, |n, d| n * 10 + u64::from(d - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(n * 3600),
        b'M' => Duration::from_secs(n * 60),
        b'S' => Duration::from_secs(n),
        b'm' => Duration::from_millis(n),
        b'u' => Duration::from_micros(n),
        b'n' => Duration::from_nanos(n),
        _ => return None,
    })
}

/// So much time as a `grpc-timeout`: never more, in the largest unit that keeps four digits.
pub fn timeout_text(left: Duration) -> String {
    let us = left.as_micros();
    match us {
        0..100_000_000 => format!("{us}u"),
        100_000_000..100_000_000_000 => format!("{}m", us / 1000),
        _ => format!("{}S", (us / 1_000_000).min(99_999_999)),
    }
}

/// `grpc-status`, whose absence or nonsense counts as UNKNOWN.
pub fn code(value: Option<&[u8]>) -> u8 {
    let digits = value.and_then(|v| std::str::from_utf8(v).ok());
    digits.and_then(|d| d.parse().ok()).filter(|c| *c <= 16).unwrap_or(UNKNOWN)
}

/// What a status says about the backend.
pub fn outcome(code: u8) -> Outcome {
    match code {
        UNKNOWN | 13 | 15 => Outcome::Status(500),
        DEADLINE_EXCEEDED => Outcome::Status(504),
        8 => Outcome::Overload(429),
        UNAVAILABLE => Outcome::Status(503),
        _ => Outcome::Ok,
    }
}

/// What a status makes of the whole call.
pub fn request_outcome(code: u8) -> RequestOutcome {
    match code {
        0 => RequestOutcome::Ok,
        UNKNOWN | DEADLINE_EXCEEDED | 8 | 13..=15 => RequestOutcome::Failed,
        _ => RequestOutcome::ClientError,
    }
}

/// What an HTTP status of our own is as a gRPC one (gRPC's http-grpc-status-mapping).
pub fn code_of(status: u16) -> u8 {
    match status {
        200..300 => 0,
        400 | 413 | 431 => 13,
        401 => 16,
        403 => 7,
        404 | 405 => 12,
        // Ours mean that a write was sent and nobody answered in time.
        408 | 504 => DEADLINE_EXCEEDED,
        429 | 500..=503 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

/// `grpc-message`: printable ASCII as it is, the rest in percent-encoding, on one line.
pub fn message(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.trim_end().bytes() {
        match b {
            b' '..=b'~' if b != b'%' => out.push(char::from(b)),
            _ => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_are_told_apart() {
        for yes in ["application/grpc", "application/grpc+proto", "Application/gRPC;x=y", "application/grpc ; a=b"] {
            assert!(is_grpc(yes.as_bytes()), "{yes}");
        }
        for no in ["application/grpc-web", "application/grpc-web+proto", "application/grp", "text/plain", ""] {
            assert!(!is_grpc(no.as_bytes()), "{no}");
        }
    }

    #[test]
    fn timeouts_are_read_and_written() {
        for (text, is) in [
            ("3S", Some(Duration::from_secs(3))),
            ("250m", Some(Duration::from_millis(250))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("2H", Some(Duration::from_secs(7200))),
            ("1M", Some(Duration::from_secs(60))),
            ("7u", Some(Duration::from_micros(7))),
            ("123456789S", None),
            ("S", None),
            ("", None),
            ("-1S", None),
            ("1s", None),
        ] {
            assert_eq!(timeout(text.as_bytes()), is, "{text}");
        }
        for left in
            [Duration::ZERO, Duration::from_micros(1), Duration::from_secs(99), Duration::from_secs(5000), Duration::from_secs(9 << 20)]
        {
            let text = timeout_text(left);
            let back = timeout(text.as_bytes()).unwrap();
            assert!(back <= left && left - back < left / 1000 + Duration::from_micros(1), "{left:?} {text}");
        }
    }

    #[test]
    fn statuses_mean_what_the_table_says() {
        assert_eq!(code(Some(b"14")), 14);
        assert_eq!([None, Some(&b"x"[..]), Some(b"17"), Some(b"")].map(code), [2; 4]);
        assert_eq!([0, 3, 5, 12, 16].map(outcome), [Outcome::Ok; 5]);
        assert_eq!([14, 8, 4, 13].map(outcome), [Outcome::Status(503), Outcome::Overload(429), Outcome::Status(504), Outcome::Status(500)]);
        assert_eq!([503, 504, 404, 429, 413].map(code_of), [14, 4, 12, 14, 13]);
        assert_eq!(message("100 % of\nit\n"), "100 %25 of%0Ait");
    }
}
