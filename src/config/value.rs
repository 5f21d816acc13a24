//! Values with a notation of their own: durations, ranges, rates, sizes, ratios. One type each, with its grammar, its
//! messages, its JSON Schema, and the way back to text.
//!
//! | type | notation |
//! |---|---|
//! | [`Span`] | `500ms`, `1.5s`, `1h30m`; units us, ms, s, m, h, d; `0s` |
//! | [`SpanRange`] | `2s..10s`; one duration alone stands for both ends |
//! | [`Rate`] | `800/s`, `30/m`, `100/h` |
//! | [`Size`] | `512B`, `64KiB`, `1.5GiB` (also KB, MB, GB as powers of ten) |
//! | [`Ratio`] | `50%` or `0.5` |
//! | [`Numbers`] | `0..1000` |
//! | [`Statuses`] | `204` or `200-299` |
//! | [`HedgeAfter`] | `p95` or a duration |
//! | [`LatencyGoal`] | `300ms at 99%` |

use crate::model::policy;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Span(pub Duration);

/// A range of durations, ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanRange(pub Duration, pub Duration);

/// Per second.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Rate(pub f64);

/// Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A part of a whole, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Ratio(pub f64);

/// A range of numbers, ends included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Numbers(pub f64, pub f64);

/// A status, or a range of them, ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statuses(pub u16, pub u16);

/// When a hedge starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HedgeAfter(pub policy::HedgeAfter);

/// A latency that a part of the requests must keep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LatencyGoal(pub Duration, pub f64);

const SPAN: &str = "allowed: a number and a unit (us, ms, s, m, h, d), for example 500ms, 2s, 1h30m";

/// A number at the front of a text, and the rest.
fn number(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim_start()))
}

impl FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (mut rest, mut sum, mut last) = (text.trim(), 0.0, f64::INFINITY);
        let wrong = || format!("`{text}` is not a duration\n{SPAN}");
        if rest.starts_with('-') {
            return Err(format!("`{text}`: a duration cannot be negative\n{SPAN}"));
        }
        while !rest.is_empty() || last.is_infinite() {
            let (n, tail) = number(rest).ok_or_else(wrong)?;
            let unit = &tail[..tail.find(|c: char| !c.is_alphabetic()).unwrap_or(tail.len())];
            let seconds = match unit {
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "d" => 86400.0,
                "" => return Err(format!("`{text}` has no unit\n{SPAN}\ndid you mean `{text}s` or `{text}ms`?")),
                "min" | "mins" | "minutes" | "M" => return Err(format!("`{unit}` is not a unit of time\n{SPAN}\nminutes are `m`: `{n}m`")),
                "sec" | "secs" | "seconds" | "S" => return Err(format!("`{unit}` is not a unit of time\n{SPAN}\nseconds are `s`: `{n}s`")),
                _ => return Err(format!("`{unit}` is not a unit of time\n{SPAN}")),
            };
            if seconds >= last {
                return Err(format!("`{text}`: units must go from large to small, each once\n{SPAN}"));
            }
            (rest, sum, last) = (tail[unit.len()..].trim_start(), sum + n * seconds, seconds);
        }
        if sum > 100.0 * 365.0 * 86400.0 {
            return Err(format!("`{text}` is longer than 100 years\n{SPAN}"));
        }
        Ok(Self(Duration::from_micros((sum * 1e6).round() as u64)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = self.0.as_micros();
        let (n, unit) = [(86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "m"), (1_000_000, "s"), (1_000, "ms"), (1, "us")]
            .into_iter()
            .find(|(n, _)| us >= *n && us.is_multiple_of(*n))
            .unwrap_or((1_000_000, "s"));
        write!(f, "{}{unit}", us / n)
    }
}

impl FromStr for SpanRange {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (low, high) = text.split_once("..").unwrap_or((text, text));
        let more = |e: String| e + "\na range has two dots: 2s..10s";
        let (low, high) = (low.parse::<Span>().map_err(more)?.0, high.parse::<Span>().map_err(more)?.0);
        if low > high {
            return Err(format!("`{text}`: the range runs backwards\nallowed: the smaller duration first, for example 2s..10s"));
        }
        Ok(Self(low, high))
    }
}

impl fmt::Display for SpanRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", Span(self.0), Span(self.1))
    }
}

impl FromStr for Rate {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        const ALLOWED: &str = "allowed: a number per second, minute or hour, for example 800/s, 30/m";
        let (n, rest) = number(text.trim()).ok_or_else(|| format!("`{text}` is not a rate\n{ALLOWED}"))?;
        match rest.strip_prefix('/').map(str::trim) {
            Some("s") => Ok(Self(n)),
            Some("m") => Ok(Self(n / 60.0)),
            Some("h") => Ok(Self(n / 3600.0)),
            None if rest.is_empty() => Err(format!("`{text}` has no unit\n{ALLOWED}\ndid you mean `{text}/s`?")),
            _ => Err(format!("`{text}` is not a rate\n{ALLOWED}")),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}

const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

impl FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        const ALLOWED: &str = "allowed: a number and a unit (B, KiB, MiB, GiB, TiB), for example 64KiB, 1GiB";
        let (n, unit) = number(text.trim()).ok_or_else(|| format!("`{text}` is not a size\n{ALLOWED}"))?;
        if unit.is_empty() {
            return Err(format!("`{text}` has no unit\n{ALLOWED}\ndid you mean `{text}B`?"));
        }
        match SIZES.iter().find(|(u, _)| u.eq_ignore_ascii_case(unit)) {
            Some((_, factor)) => Ok(Self((n * *factor as f64).round() as u64)),
            None => {
                let letter = unit.chars().next().unwrap_or('K').to_ascii_uppercase();
                let meant = if "KMGT".contains(letter) { format!("\ndid you mean `{n}{letter}iB`?") } else { String::new() };
                Err(format!("`{unit}` is not a unit of size\n{ALLOWED}{meant}"))
            }
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, n) = SIZES[..4].iter().copied().find(|(_, n)| self.0 >= *n && self.0.is_multiple_of(*n)).unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / n)
    }
}

impl FromStr for Ratio {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        const ALLOWED: &str = "allowed: 0% to 100%, or 0 to 1, for example 50% or 0.5";
        let (n, rest) = number(text.trim()).ok_or_else(|| format!("`{text}` is not a ratio\n{ALLOWED}"))?;
        let ratio = match rest {
            "%" => n / 100.0,
            "" if n > 1.0 => return Err(format!("`{text}` is more than 1\n{ALLOWED}\ndid you mean `{text}%`?")),
            "" => n,
            _ => return Err(format!("`{text}` is not a ratio\n{ALLOWED}")),
        };
        if ratio > 1.0 {
            return Err(format!("`{text}` is more than 100%\n{ALLOWED}"));
        }
        Ok(Self(ratio))
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Twelve digits hide what binary fractions add: 0.07 × 100 is 7.000000000000001.
        write!(f, "{}%", (self.0 * 1e12).round() / 1e10)
    }
}

impl FromStr for Numbers {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a range of numbers\nallowed: two numbers, the smaller first, for example 0..1000");
        let (low, high) = text.split_once("..").ok_or_else(wrong)?;
        let (low, high): (f64, f64) = (low.trim().parse().map_err(|_| wrong())?, high.trim().parse().map_err(|_| wrong())?);
        if low <= high { Ok(Self(low, high)) } else { Err(wrong()) }
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.0, self.1)
    }
}

impl FromStr for Statuses {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a status or a range of them\nallowed: 100 to 599, for example 204 or 200-299");
        let (low, high) = text.split_once('-').unwrap_or((text, text));
        let (low, high): (u16, u16) = (low.trim().parse().map_err(|_| wrong())?, high.trim().parse().map_err(|_| wrong())?);
        if (100..=599).contains(&low) && low <= high && high <= 599 { Ok(Self(low, high)) } else { Err(wrong()) }
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == self.1 { write!(f, "{}", self.0) } else { write!(f, "{}-{}", self.0, self.1) }
    }
}

impl FromStr for HedgeAfter {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        const ALLOWED: &str = "allowed: a percentile (p50 to p99.9) or a duration, for example p95 or 40ms";
        if let Some(percent) = text.strip_prefix('p') {
            return match percent.parse::<f64>() {
                Ok(p) if (50.0..=99.9).contains(&p) => Ok(Self(policy::HedgeAfter::Percentile(p / 100.0))),
                _ => Err(format!("`{text}` is not a percentile that a hedge can wait for\n{ALLOWED}")),
            };
        }
        text.parse::<Span>().map(|d| Self(policy::HedgeAfter::Fixed(d.0))).map_err(|_| format!("`{text}` is no time to wait\n{ALLOWED}"))
    }
}

impl fmt::Display for HedgeAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            policy::HedgeAfter::Percentile(p) => write!(f, "p{}", (p * 1e12).round() / 1e10),
            policy::HedgeAfter::Fixed(d) => write!(f, "{}", Span(d)),
        }
    }
}

impl FromStr for LatencyGoal {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let more = |e: String| format!("`{text}` is not a latency goal: {e}\nallowed: a duration, `at`, and a ratio: 300ms at 99%");
        let (time, part) = text.split_once(" at ").ok_or_else(|| more("` at ` is missing".into()))?;
        Ok(Self(time.parse::<Span>().map_err(more)?.0, part.trim().parse::<Ratio>().map_err(more)?.0))
    }
}

impl fmt::Display for LatencyGoal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", Span(self.0), Ratio(self.1))
    }
}

macro_rules! textual {
    ($($name:ident, $title:literal, $pattern:literal $(, or $other:literal)?;)+) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool { false }
            fn schema_name() -> std::borrow::Cow<'static, str> { stringify!($name).into() }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let kinds = ["string", $($other)?];
                let kinds = if kinds.len() == 1 { serde_json::json!("string") } else { serde_json::json!(kinds) };
                schemars::json_schema!({"description": $title, "type": kinds, "pattern": $pattern})
            }
        }
    )+};
}

textual! {
    Span, "A duration: 500ms, 2s, 5m, 24h, 90d, 1h30m.", r"^\s*(\d+(\.\d+)?\s*(us|µs|ms|s|m|h|d)\s*)+$";
    SpanRange, "A range of durations: 2s..10s.", r"^.*\d(us|ms|s|m|h|d)(\.\..*\d(us|ms|s|m|h|d))?$";
    Rate, "A rate: 800/s, 30/m, 100/h.", r"^\d+(\.\d+)?\s*/\s*[smh]$";
    Size, "A size: 64KiB, 1GiB.", r"^\d+(\.\d+)?\s*([KkMmGgTt][Ii]?)?[Bb]$";
    Ratio, "A part of a whole: 50% or 0.5.", r"^\d+(\.\d+)?\s*%?$", or "number";
    Numbers, "A range of numbers: 0..1000.", r"^-?\d.*\.\.-?\d.*$";
    Statuses, "A status or a range of them: 204, 200-299.", r"^[1-5]\d\d(-[1-5]\d\d)?$", or "integer";
    HedgeAfter, "A percentile (p95) or a duration (40ms).", r"^(p\d+(\.\d+)?|.*\d(us|ms|s|m|h|d))$";
    LatencyGoal, "A latency that a part of the requests must keep: 300ms at 99%.", r"^.+ at .+$";
}

impl From<Duration> for Span {
    fn from(d: Duration) -> Self {
        Self(d)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(text: &str) -> Option<u128> {
        text.parse::<Span>().ok().map(|s| s.0.as_micros())
    }

    #[test]
    fn durations() {
        assert_eq!(span("500ms"), Some(500_000));
        assert_eq!(span("1h30m"), Some(5_400_000_000));
        assert_eq!(span("1.5s"), Some(1_500_000));
        assert_eq!(span("0s"), Some(0));
        for wrong in ["", "5", "5 minutes", "-1s", "1m1h", "1s1s", "s", "1e3s", "5s x"] {
            assert_eq!(span(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_notation_survives_the_way_to_text_and_back() {
        for text in ["500ms", "2s", "90m", "24h", "90d", "0s"] {
            let parsed: Span = text.parse().unwrap();
            assert_eq!(parsed.to_string().parse::<Span>().unwrap(), parsed);
        }
        assert_eq!("64KiB".parse::<Size>().unwrap(), Size(65536));
        assert_eq!(Size(256 << 20).to_string(), "256MiB");
        assert_eq!("10MB".parse::<Size>().unwrap(), Size(10_000_000));
        assert_eq!("7%".parse::<Ratio>().unwrap().to_string(), "7%");
        assert_eq!("0.5".parse::<Ratio>().unwrap().to_string(), "50%");
        assert_eq!("99.95%".parse::<Ratio>().unwrap().to_string(), "99.95%");
        assert_eq!("5s..5m".parse::<SpanRange>().unwrap().to_string(), "5s..5m");
        assert_eq!("300ms at 99%".parse::<LatencyGoal>().unwrap().to_string(), "300ms at 99%");
        assert_eq!("p95".parse::<HedgeAfter>().unwrap().to_string(), "p95");
        assert_eq!("200-299".parse::<Statuses>().unwrap().to_string(), "200-299");
        assert_eq!("60/m".parse::<Rate>().unwrap(), Rate(1.0));
    }

    #[test]
    fn what_is_almost_right_is_told_what_is_right() {
        assert!("5".parse::<Span>().unwrap_err().contains("did you mean `5s` or `5ms`"));
        assert!("50".parse::<Ratio>().unwrap_err().contains("did you mean `50%`"));
        assert!("800".parse::<Rate>().unwrap_err().contains("did you mean `800/s`"));
        assert!("64K".parse::<Size>().unwrap_err().contains("did you mean `64KiB`"));
        assert!("10s..2s".parse::<SpanRange>().unwrap_err().contains("backwards"));
    }
}
