//! What the screen shows: a value, made of news.

use super::feed::{News, Order};
use super::figures::{Figures, Reading};
use crate::admin::wire::{RegionStatus, Status};
use jiff::Timestamp;
use std::collections::{BTreeMap, VecDeque};

/// Readings kept for the little charts, and events for the list.
const KEEP: usize = 120;
/// Readings that make a rate are so far apart at least.
const APART: jiff::SignedDuration = jiff::SignedDuration::from_millis(500);
/// A result of an order is news for so long, seconds.
const NOTE: i64 = 12;

/// Everything on the screen.
#[derive(Clone, Debug)]
pub struct Picture {
    /// The wall clock.
    pub now: Timestamp,
    /// The last that was heard.
    pub status: Option<Status>,
    /// Why nothing is heard now, and since when.
    pub lost: Option<(Timestamp, String)>,
    /// What users feel.
    pub figures: Option<Figures>,
    /// Good answers per second, newest last.
    pub good: VecDeque<f64>,
    /// Failed, refused and degraded answers per second.
    pub hurt: VecDeque<f64>,
    /// p99, ms.
    pub p99: VecDeque<f64>,
    /// Attempts per second by region.
    pub rates: BTreeMap<String, VecDeque<f64>>,
    /// When and what, newest first.
    pub events: VecDeque<(Timestamp, String)>,
    /// Which region the keys mean.
    pub selected: usize,
    /// What is being asked.
    pub asking: Option<Asking>,
    /// What came of the last order.
    pub note: Option<(Timestamp, Note)>,
    /// The regions are simulated: keys that break them.
    pub demo: bool,
    /// Where everything of the demo is.
    pub about: Option<String>,
    /// What ails simulated regions, as far as this screen did it.
    pub faults: BTreeMap<String, &'static str>,
    reading: Option<(Timestamp, Reading)>,
}

/// What came of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// It was done.
    Done(String),
    /// It was not.
    Failed(String),
}

/// An order that waits for its reason, or for a yes.
#[derive(Clone, Debug, PartialEq)]
pub struct Asking {
    /// The order.
    pub order: Order,
    /// The proxy refused it for this reason: it can be forced.
    pub refused: Option<String>,
}

impl Picture {
    /// Nothing heard yet.
    pub fn new(now: Timestamp, about: Option<String>) -> Self {
        Self {
            now,
            status: None,
            lost: None,
            figures: None,
            good: VecDeque::new(),
            hurt: VecDeque::new(),
            p99: VecDeque::new(),
            rates: BTreeMap::new(),
            events: VecDeque::new(),
            selected: 0,
            asking: None,
            note: None,
            demo: about.is_some(),
            about,
            faults: BTreeMap::new(),
            reading: None,
        }
    }

    /// Takes news in.
    pub fn hear(&mut self, news: News) {
        match news {
            News::Status(status) => {
                self.lost = None;
                self.selected = self.selected.min(status.regions.len().saturating_sub(1));
                self.status = Some(*status);
            }
            News::Metrics(at, page) => self.measure(at, Reading::of(&page)),
            News::Lost(why) => {
                let since = self.lost.as_ref().map_or(self.now, |(since, _)| *since);
                self.lost = Some((since, why));
            }
            News::Event(at, what) => {
                self.events.push_front((at, what));
                self.events.truncate(KEEP);
            }
            News::Done(order, changes) => {
                if let Order::Fault { region, word } = &order {
                    if *word == "heal" {
                        self.faults.remove(region)
                    } else {
                        self.faults.insert(region.clone(), word)
                    };
                }
                let text = if changes.is_empty() { "nothing to change: it was so already".into() } else { changes.join("; ") };
                self.note = Some((self.now, Note::Done(text)));
            }
            News::Refused(order, why) if matches!(order, Order::Drain { .. }) => self.asking = Some(Asking { order, refused: Some(why) }),
            News::Refused(_, why) => self.note = Some((self.now, Note::Failed(why))),
        }
    }

    fn measure(&mut self, at: Timestamp, reading: Reading) {
        // An event makes the feed look at once: what came in a few milliseconds is no rate.
        if self.reading.as_ref().is_some_and(|(before, _)| at.duration_since(*before) < APART) {
            return;
        }
        if let Some((before, earlier)) = &self.reading {
            let f = reading.since(earlier, at.duration_since(*before).as_secs_f64());
            keep(&mut self.good, f.good);
            keep(&mut self.hurt, f.failed + f.refused + f.degraded);
            keep(&mut self.p99, f.p99.unwrap_or(0.0));
            self.figures = Some(f);
            let regions = self.status.iter().flat_map(|s| &s.regions);
            let now: Vec<(String, f64)> = regions.map(|r| (r.name.clone(), self.rate(&r.name))).collect();
            for (region, rate) in now {
                keep(self.rates.entry(region).or_default(), rate);
            }
        }
        self.reading = Some((at, reading));
    }

    /// Attempts per second in a region, over all its pools.
    pub fn rate(&self, region: &str) -> f64 {
        let pools = self.status.iter().flat_map(|s| &s.pools);
        pools.filter(|p| p.region == region).map(|p| p.rate).sum()
    }

    /// The part of all attempts that a region gets, 0 to 1.
    pub fn part(&self, region: &str) -> f64 {
        let all: f64 = self.status.iter().flat_map(|s| &s.pools).map(|p| p.rate).sum();
        if all > 0.0 { self.rate(region) / all } else { 0.0 }
    }

    /// The region that the keys mean.
    pub fn chosen(&self) -> Option<&RegionStatus> {
        self.status.as_ref()?.regions.get(self.selected)
    }

    /// What is still news of the last order.
    pub fn noted(&self) -> Option<&Note> {
        let (at, note) = self.note.as_ref()?;
        (self.now.duration_since(*at).as_secs() < NOTE).then_some(note)
    }
}

fn keep(values: &mut VecDeque<f64>, value: f64) {
    values.push_back(value);
    while values.len() > KEEP {
        values.pop_front();
    }
}
