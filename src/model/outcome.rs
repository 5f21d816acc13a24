//! What came of one attempt at one endpoint.

use serde::{Deserialize, Serialize};

/// The result of an attempt, as the detectors and the metric `evenkeel_attempts_total{result}` see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// An answer that says the backend works: any status that is not a failure (4xx included).
    Ok,
    /// A failing status (500, 502, 503, 504 …). Soft evidence.
    Status(u16),
    /// The backend is alive but says it has too much to do: 429, or 503 with Retry-After. Never held against it.
    Overload(u16),
    /// No connection could be had: refused, unreachable, or the connect timeout passed. Hard evidence.
    Connect,
    /// No first byte within the attempt's time. Hard evidence together with others of its kind.
    Timeout,
    /// The connection broke before the answer was complete, or the answer could not be parsed. Hard evidence.
    Reset,
    /// A response guard rejected the answer.
    Guard,
    /// We or the client gave up for reasons that say nothing about the backend: client gone, hedge lost.
    Cancelled,
}

impl Outcome {
    /// The label value of `evenkeel_attempts_total{result}`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Status(_) | Self::Overload(_) => "status",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Guard => "guard",
            Self::Cancelled => "cancelled",
        }
    }
    /// Whether this speaks against the backend.
    pub fn is_failure(self) -> bool {
        !matches!(self, Self::Ok | Self::Overload(_) | Self::Cancelled)
    }
    /// Whether the evidence is hard: the endpoint did not answer at all, or broke off.
    pub fn is_hard(self) -> bool {
        matches!(self, Self::Connect | Self::Timeout | Self::Reset)
    }
}

/// How much of a request an endpoint may have seen when the attempt ended (DESIGN.md section 5, retries).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Sent {
    /// No byte of the request was handed to a connection (or the peer said it did not process it).
    Nothing,
    /// Bytes were handed over, but the final byte, chunk or END_STREAM of the body was not.
    Incomplete,
    /// Everything was handed over: a write may have been applied.
    Complete,
}

/// What became of a whole request: the label of `evenkeel_requests_total{outcome}`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestOutcome {
    /// Answered by a backend, below 400.
    Ok,
    /// Answered 4xx, by a backend or by us.
    ClientError,
    /// Answered 5xx by a backend, or broken off after the answer had begun, or unknown outcome of a write.
    Failed,
    /// A marked last good copy.
    Stale,
    /// A marked static answer.
    Static,
    /// A write taken into the spool.
    Spooled,
    /// Refused because of overload.
    Shed,
    /// Refused because no region could serve it in time.
    Unavailable,
    /// Answered by a backend, with implausible fields replaced by null, and marked.
    Masked,
}

impl RequestOutcome {
    /// All of them, in label order.
    pub const ALL: [Self; 9] =
        [Self::Ok, Self::ClientError, Self::Failed, Self::Stale, Self::Static, Self::Spooled, Self::Shed, Self::Unavailable, Self::Masked];
    /// The label value.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ClientError => "client_error",
            Self::Failed => "failed",
            Self::Stale => "stale",
            Self::Static => "static",
            Self::Spooled => "spooled",
            Self::Shed => "shed",
            Self::Unavailable => "unavailable",
            Self::Masked => "masked",
        }
    }
}
