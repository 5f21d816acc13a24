//! Objectives and the ledger: how good every route was, and how long every region and fate was out or slow.
//!
//! **Buckets.** What a second came to is added to the minute, the hour and the day that it lies in. Minutes are kept for six hours, hours
//! for three days, days for ninety: some five hundred buckets, whatever the traffic.
//!
//! **Good** is an answer of a backend that is no failure; a degraded answer is honest, and not what was promised. **Slow** is an
//! answer over the objective's latency, to a bucket of the histogram (at most 19 % off).
//!
//! **Burn rate** is the part that was bad over the part that may be: at 1 the budget lasts exactly as long as the objective's window.
//! The usual alerts ask for 14.4 over an hour and five minutes together, or 6 over six hours (SRE workbook, chapter 5).
//!
//! **Places** are regions and fates. A region is *out* while every pool of it is tripped or in trial, *partly out* while some are,
//! *slow* while it is neither and a pool of it is suspect or answers far slower than it used to. A fate is what the worst of its regions is.
//! Only time that was watched counts: while the proxy is down it accuses nobody.

use super::when::At;
use crate::model::time::Duration;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Length of a bucket and how many are kept, in microseconds.
const RINGS: [(i64, i64); 3] = [(60_000_000, 360), (3_600_000_000, 72), (86_400_000_000, 90)];
/// Names that a bucket may hold: configs may change a lot in ninety days.
const NAMES: usize = 2000;

/// Over which burn rates are told.
pub const WINDOWS: [(&str, Duration); 4] = [
    ("5m", Duration::from_secs(300)),
    ("1h", Duration::from_secs(3600)),
    ("6h", Duration::from_secs(6 * 3600)),
    ("3d", Duration::from_secs(3 * 86_400)),
];

/// What a route's requests came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Requests that ended.
    pub total: u64,
    /// Of them not answered well by a backend.
    pub bad: u64,
    /// Of them slower than the objective.
    pub slow: u64,
}

/// How a place was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stay {
    /// Seconds it was watched.
    pub watched: f64,
    /// Of them out.
    pub out: f64,
    /// Of them partly out.
    pub partly: f64,
    /// Of them slow.
    pub slow: f64,
    /// Of them drained by people.
    pub drained: f64,
    /// Seconds out or partly out by what it was detected from.
    pub causes: BTreeMap<String, f64>,
}

/// How a place is now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Now {
    /// Every pool is out.
    pub out: bool,
    /// Some are.
    pub partly: bool,
    /// Suspect, or far slower than it used to be.
    pub slow: bool,
    /// By people.
    pub drained: bool,
    /// What it was detected from, where it is out or partly out.
    pub cause: Option<String>,
}

impl Stay {
    fn add(&mut self, seconds: f64, now: &Now) {
        self.watched += seconds;
        let count = |is: bool, sum: &mut f64| *sum += if is { seconds } else { 0.0 };
        count(now.out, &mut self.out);
        count(now.partly && !now.out, &mut self.partly);
        count(now.slow && !now.out && !now.partly, &mut self.slow);
        count(now.drained, &mut self.drained);
        if let Some(cause) = now.cause.as_ref().filter(|_| now.out || now.partly) {
            *self.causes.entry(cause.clone()).or_default() += seconds;
        }
    }
    fn merge(&mut self, other: &Self) {
        self.watched += other.watched;
        self.out += other.out;
        self.partly += other.partly;
        self.slow += other.slow;
        self.drained += other.drained;
        for (cause, s) in &other.causes {
            *self.causes.entry(cause.clone()).or_default() += s;
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Bucket {
    routes: BTreeMap<String, Tally>,
    regions: BTreeMap<String, Stay>,
    fates: BTreeMap<String, Stay>,
}

/// Everything that is kept. Bounded, and plain data for the disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Book {
    minutes: BTreeMap<i64, Bucket>,
    hours: BTreeMap<i64, Bucket>,
    days: BTreeMap<i64, Bucket>,
}

/// What came since the last entry.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// Seconds it covers.
    pub seconds: f64,
    /// By route.
    pub routes: Vec<(String, Tally)>,
    /// By region.
    pub regions: Vec<(String, Now)>,
    /// By fate.
    pub fates: Vec<(String, Now)>,
}

impl Book {
    fn rings(&mut self) -> [&mut BTreeMap<i64, Bucket>; 3] {
        [&mut self.minutes, &mut self.hours, &mut self.days]
    }

    /// Enters what came, and lets go of what is too old.
    pub fn enter(&mut self, at: At, entry: &Entry) {
        for (ring, (length, kept)) in self.rings().into_iter().zip(RINGS) {
            let now = at.0.div_euclid(length);
            let bucket = ring.entry(now).or_default();
            for (name, tally) in &entry.routes {
                if let Some(sum) = slot(&mut bucket.routes, name) {
                    sum.total += tally.total;
                    sum.bad += tally.bad;
                    sum.slow += tally.slow;
                }
            }
            for (places, sums) in [(&entry.regions, &mut bucket.regions), (&entry.fates, &mut bucket.fates)] {
                for (name, now) in places {
                    if let Some(sum) = slot(sums, name) {
                        sum.add(entry.seconds, now);
                    }
                }
            }
            // A clock that was set back leaves buckets in the future: they go with time.
            *ring = ring.split_off(&(now - kept + 1));
        }
    }

    /// The finest buckets that reach back so far, without those before it.
    fn since(&self, now: At, span: Duration) -> impl Iterator<Item = &Bucket> {
        let span = i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        let rings = [&self.minutes, &self.hours, &self.days];
        let fits = RINGS.iter().position(|(length, kept)| length.saturating_mul(*kept) >= span).unwrap_or(2);
        let (length, _) = RINGS[fits];
        let first = now.0.saturating_sub(span).div_euclid(length);
        // The bucket in which the span begins is counted where it is whole; the current one always is.
        let first = if now.0.saturating_sub(span).rem_euclid(length) == 0 || span < length { first } else { first + 1 };
        rings[fits].range(first..).map(|(_, b)| b)
    }

    /// What a route came to over the last stretch of time.
    pub fn route(&self, name: &str, now: At, span: Duration) -> Tally {
        let mut sum = Tally::default();
        for t in self.since(now, span).filter_map(|b| b.routes.get(name)) {
            sum = Tally { total: sum.total + t.total, bad: sum.bad + t.bad, slow: sum.slow + t.slow };
        }
        sum
    }

    fn places(&self, now: At, span: Duration, of: impl Fn(&Bucket) -> &BTreeMap<String, Stay>) -> Vec<Place> {
        let mut sums: BTreeMap<String, Stay> = BTreeMap::new();
        for bucket in self.since(now, span) {
            of(bucket).iter().for_each(|(name, stay)| sums.entry(name.clone()).or_default().merge(stay));
        }
        sums.into_iter().map(|(name, stay)| Place { name, available: 1.0 - stay.out / stay.watched.max(1e-9), stay }).collect()
    }

    /// The whole report. `objectives`: by route, those that have one and those that have none.
    pub fn report(&self, objectives: &[(String, Objective)], now: At, span: Duration) -> Report {
        let routes = objectives.iter().map(|(name, objective)| {
            let t = self.route(name, now, span);
            let part = |n: u64, t: &Tally| n as f64 / t.total.max(1) as f64;
            let burn = |bad: fn(&Tally) -> u64, may: f64| -> BTreeMap<String, f64> {
                let rate = |span| {
                    let t = self.route(name, now, span);
                    part(bad(&t), &t) / may
                };
                WINDOWS.iter().map(|(label, span)| ((*label).to_owned(), rate(*span))).collect()
            };
            let kept = |goal: Option<f64>, bad: fn(&Tally) -> u64| {
                goal.map(|goal| {
                    let may = (1.0 - goal).max(1e-9);
                    Kept { goal, is: 1.0 - part(bad(&t), &t), budget: 1.0 - part(bad(&t), &t) / may, burn: burn(bad, may) }
                })
            };
            RouteReport {
                route: name.clone(),
                requests: t.total,
                bad: t.bad,
                slow: t.slow,
                success: kept(objective.success, |t| t.bad),
                latency: kept(objective.latency.map(|(_, part)| part), |t| t.slow),
                latency_ms: objective.latency.map(|(limit, _)| limit.as_secs_f64() * 1e3),
            }
        });
        Report {
            until: now,
            seconds: span.as_secs_f64(),
            routes: routes.collect(),
            regions: self.places(now, span, |b| &b.regions),
            fates: self.places(now, span, |b| &b.fates),
        }
    }
}

fn slot<'a, T: Default>(map: &'a mut BTreeMap<String, T>, name: &str) -> Option<&'a mut T> {
    if !map.contains_key(name) {
        if map.len() >= NAMES {
            return None;
        }
        map.insert(name.to_owned(), T::default());
    }
    map.get_mut(name)
}

/// What was promised for a route.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Objective {
    /// The part that must be good.
    pub success: Option<f64>,
    /// The latency that so large a part must keep.
    pub latency: Option<(Duration, f64)>,
}

/// The ledger over a stretch of time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Its end.
    pub until: At,
    /// Its length.
    pub seconds: f64,
    /// By route, in file order.
    pub routes: Vec<RouteReport>,
    /// By region.
    pub regions: Vec<Place>,
    /// By fate.
    pub fates: Vec<Place>,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RouteReport {
    /// Its name.
    pub route: String,
    /// Requests that ended.
    pub requests: u64,
    /// Of them not answered well by a backend.
    pub bad: u64,
    /// Of them slower than the objective.
    pub slow: u64,
    /// How its success stands to its objective; null: it has none.
    pub success: Option<Kept>,
    /// How its latency stands to its objective; null: it has none.
    pub latency: Option<Kept>,
    /// The latency that is promised, ms.
    pub latency_ms: Option<f64>,
}

/// How an objective is kept.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Kept {
    /// The part that was promised.
    pub goal: f64,
    /// The part that was.
    pub is: f64,
    /// What is left of what may be bad, 1 to 0; below: missed.
    pub budget: f64,
    /// Burn rates by window.
    pub burn: BTreeMap<String, f64>,
}

/// One region or fate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Place {
    /// Its name.
    pub name: String,
    /// The part of the time watched that it was not out.
    pub available: f64,
    /// How it was, in seconds.
    #[serde(flatten)]
    pub stay: Stay,
}

impl Report {
    /// Whether every objective is kept.
    pub fn kept(&self) -> bool {
        self.routes.iter().flat_map(|r| [&r.success, &r.latency]).flatten().all(|k| k.budget >= 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000_000;
    const T0: i64 = 20_000 * DAY;

    fn entry(total: u64, bad: u64, out: bool) -> Entry {
        let now = Now { out, cause: out.then(|| "silence".to_owned()), ..Now::default() };
        Entry {
            seconds: 1.0,
            routes: vec![("home".into(), Tally { total, bad, slow: bad * 2 })],
            regions: vec![("east".into(), now.clone())],
            fates: vec![("grid".into(), now)],
        }
    }

    fn objective() -> [(String, Objective); 1] {
        [("home".into(), Objective { success: Some(0.999), latency: Some((Duration::from_millis(300), 0.99)) })]
    }

    #[test]
    fn budgets_and_burn_rates() {
        let mut book = Book::default();
        let start = T0 + 12 * 3_600_000_000;
        for s in 0..7200 {
            // Five minutes of one in a hundred, at the end.
            book.enter(At(start + s * 1_000_000), &entry(100, u64::from(s >= 6900), s >= 7140));
        }
        let now = At(start + 7199 * 1_000_000);
        let r = book.report(&objective(), now, Duration::from_secs(30 * 86_400));
        let home = &r.routes[0];
        assert_eq!((home.requests, home.bad, home.slow), (720_000, 300, 600));
        let k = home.success.as_ref().unwrap();
        assert!((k.burn["5m"] - 10.0).abs() < 2.1, "one in a hundred where one in a thousand may be: {:?}", k.burn);
        assert!((k.burn["1h"] - 300.0 / 360_000.0 / 0.001).abs() < 0.1, "{:?}", k.burn);
        assert!((k.budget - (1.0 - 300.0 / 720.0)).abs() < 1e-6 && r.kept(), "{k:?}");
        let east = &r.regions[0];
        assert_eq!((east.stay.out, east.stay.causes["silence"], r.fates[0].stay.out), (60.0, 60.0, 60.0));
        assert!((east.available - (1.0 - 60.0 / 7200.0)).abs() < 1e-9);
        book.enter(At(now.0 + 1_000_000), &entry(1_000, 1_000, false));
        assert!(!book.report(&objective(), now, Duration::from_secs(86_400)).kept());
    }

    #[test]
    fn ninety_days_are_kept_in_bounded_space() {
        let mut book = Book::default();
        for minute in 0..200 * 24 * 60 {
            book.enter(At(T0 + minute * 60_000_000), &entry(1, 0, false));
        }
        assert_eq!((book.minutes.len(), book.hours.len(), book.days.len()), (360, 72, 90));
        let text = serde_json::to_string(&book).unwrap();
        assert!(text.len() < 200_000, "{}", text.len());
        let back: Book = serde_json::from_str(&text).unwrap();
        assert_eq!(back, book);
        let now = At(T0 + 200 * DAY - 60_000_000);
        assert_eq!(book.route("home", now, Duration::from_secs(90 * 86_400)).total, 90 * 1440);
    }

    #[test]
    fn names_are_bounded_and_what_is_worse_hides_what_is_milder() {
        let mut book = Book::default();
        for i in 0..3000 {
            let routes = vec![(format!("r{i}"), Tally { total: 1, bad: 0, slow: 0 })];
            book.enter(At(T0), &Entry { routes, ..Entry::default() });
        }
        assert_eq!(book.days.values().next().unwrap().routes.len(), NAMES);
        let mut stay = Stay::default();
        stay.add(2.0, &Now { out: true, partly: true, slow: true, drained: true, cause: None });
        stay.add(3.0, &Now { partly: true, slow: true, ..Now::default() });
        stay.add(5.0, &Now { slow: true, ..Now::default() });
        assert_eq!((stay.out, stay.partly, stay.slow, stay.drained, stay.watched), (2.0, 3.0, 5.0, 2.0, 10.0));
    }
}
