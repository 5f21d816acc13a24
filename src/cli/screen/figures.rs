//! What users feel: two readings of `/metrics` make rates and quantiles of the time between them.

use std::collections::BTreeMap;

/// One reading of the counters that matter here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Requests by outcome.
    outcomes: BTreeMap<String, f64>,
    /// Requests by how long they took at most: upper bound in seconds, cumulative count.
    times: Vec<(f64, f64)>,
}

/// What one stretch of time came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Requests per second.
    pub rate: f64,
    /// Good answers per second: `ok` and `client_error`.
    pub good: f64,
    /// Degraded and marked, per second.
    pub degraded: f64,
    /// Refused honestly, per second.
    pub refused: f64,
    /// Failed, per second.
    pub failed: f64,
    /// Half took at most this, ms.
    pub p50: Option<f64>,
    /// 99 of 100 took at most this, ms.
    pub p99: Option<f64>,
}

impl Reading {
    /// Reads the text format of Prometheus.
    pub fn of(page: &str) -> Self {
        let mut reading = Self::default();
        let mut times: BTreeMap<u64, f64> = BTreeMap::new();
        for line in page.lines() {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            if let Some(labels) = series.strip_prefix("evenkeel_requests_total") {
                if let Some(outcome) = label(labels, "outcome") {
                    *reading.outcomes.entry(outcome.into()).or_default() += value;
                }
            } else if let Some(labels) = series.strip_prefix("evenkeel_request_duration_seconds_bucket") {
                let bound = label(labels, "le").map(|l| if l == "+Inf" { f64::INFINITY } else { l.parse().unwrap_or(f64::INFINITY) });
                if let Some(bound) = bound {
                    // Positive floats are ordered as their bits are.
                    *times.entry(bound.to_bits()).or_default() += value;
                }
            }
        }
        reading.times = times.into_iter().map(|(bound, count)| (f64::from_bits(bound), count)).collect();
        reading
    }

    /// What came since an earlier one, `seconds` ago. Counters that fell began anew.
    pub fn since(&self, before: &Self, seconds: f64) -> Figures {
        let gained = |names: &[&str]| {
            let one = |n: &&str| self.outcomes.get(*n).copied().unwrap_or(0.0) - before.outcomes.get(*n).copied().unwrap_or(0.0);
            names.iter().map(|n| one(n).max(0.0)).sum::<f64>() / seconds.max(0.1)
        };
        let (good, failed) = (gained(&["ok", "client_error"]), gained(&["failed"]));
        let (degraded, refused) = (gained(&["stale", "static", "spooled", "masked"]), gained(&["shed", "unavailable"]));
        let earlier: BTreeMap<u64, f64> = before.times.iter().map(|(b, c)| (b.to_bits(), *c)).collect();
        let times: Vec<(f64, f64)> =
            self.times.iter().map(|(b, c)| (*b, (c - earlier.get(&b.to_bits()).copied().unwrap_or(0.0)).max(0.0))).collect();
        let quantile = |q| quantile(&times, q).map(|s| s * 1e3);
        Figures { rate: good + degraded + refused + failed, good, degraded, refused, failed, p50: quantile(0.5), p99: quantile(0.99) }
    }
}

/// The value of a label as it stands there; names that are looked for here need no unescaping.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let start = ["{", ","].iter().find_map(|before| {
        let at = format!("{before}{name}=\"");
        labels.find(&at).map(|i| i + at.len())
    })?;
    labels[start..].split_once('"').map(|(value, _)| value)
}

/// Linear between the bounds, as everybody's histogram is read; what lies beyond the last bound counts as the last bound.
fn quantile(times: &[(f64, f64)], q: f64) -> Option<f64> {
    let total = times.last()?.1;
    let (mut low, mut seen) = (0.0, 0.0);
    for (bound, count) in times {
        if total > 0.0 && *count >= q * total {
            let part = if *count > seen { (q * total - seen) / (count - seen) } else { 1.0 };
            return Some(if bound.is_infinite() { low } else { low + (bound - low) * part });
        }
        (low, seen) = (*bound, *count);
    }
    None
}
