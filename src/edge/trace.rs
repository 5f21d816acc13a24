//! Spans of sampled requests: one of the request, one of each attempt, for OpenTelemetry (W3C Trace Context).
//!
//! **Who decides.** Without `tracing` nobody: `traceparent` goes on as it came, or is made with the flag "not recorded". With it, a
//! trusted proxy's flag holds (`trusted_proxies`); what a stranger's flag says would let anybody fill the collector, so its
//! trace id is kept and the dice decide, by `tracing.sample`. The decision falls before the first attempt, since every
//! attempt carries it on: a recorded attempt names its own span as the parent of what the backend does.
//!
//! **What it costs.** Nothing for a request that is not sampled but a look at the config. A recorded request hands its trace to
//! a bounded channel when it is over; when nobody takes it, it is dropped and counted. No request ever waits.
//!
//! What it does not do: it keeps no trace because it turned out badly (that would mean recording all of them), and it puts
//! no query strings into spans, where tokens and names are wont to stand.

use super::access::Record;
use crate::http1::RequestHead;
use crate::model::dice::Dice;
use crate::model::outcome::Outcome;
use crate::model::time::Moment;
use smallvec::SmallVec;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::sync::mpsc;

/// Traces that may wait to be sent: a second of 2,000 sampled requests per second.
const BACKLOG: usize = 2048;

/// Sixteen bytes that name a trace.
pub type TraceId = [u8; 16];
/// Eight bytes that name a span in it.
pub type SpanId = [u8; 8];

/// One sampled request that is over.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Names the trace.
    pub id: TraceId,
    /// The request's span.
    pub span: SpanId,
    /// Of whoever asked us; `None`: the trace begins here.
    pub parent: Option<SpanId>,
    /// `tracestate` as received.
    pub state: String,
    /// The client came over TLS.
    pub https: bool,
    /// What the access log would say of it.
    pub record: Record,
    /// In the order they began.
    pub attempts: SmallVec<[Leg; 2]>,
}

/// One attempt of it.
#[derive(Clone, Debug)]
pub struct Leg {
    /// Its number among the attempts, from 0.
    pub number: u8,
    /// Its span, which the endpoint was told as its parent.
    pub span: SpanId,
    /// It began.
    pub began: Moment,
    /// It ended; `None`: when the request did.
    pub ended: Option<Moment>,
    /// Whose answer was asked for.
    pub service: Arc<str>,
    /// Where.
    pub region: Arc<str>,
    /// At which endpoint.
    pub endpoint: Arc<str>,
    /// What the endpoint answered, if it did.
    pub status: Option<u16>,
    /// What it came to; `None`: it was still under way when the request was answered.
    pub outcome: Option<Outcome>,
    /// It ran beside another one.
    pub hedge: bool,
}

/// What became of spans.
#[derive(Debug, Default)]
pub struct Stats {
    /// A collector has them.
    pub sent: AtomicU64,
    /// Nobody took them in time.
    pub dropped: AtomicU64,
    /// The collector did not take them.
    pub failed: AtomicU64,
}

impl Stats {
    /// All three, with the label values of `evenkeel_trace_spans_total{result}`.
    pub fn all(&self) -> [(&'static str, u64); 3] {
        [("sent", self.sent.load(Relaxed)), ("dropped", self.dropped.load(Relaxed)), ("failed", self.failed.load(Relaxed))]
    }
}

/// Where requests leave their traces.
#[derive(Clone, Debug)]
pub struct Outbox {
    sender: mpsc::Sender<Trace>,
    stats: Arc<Stats>,
}

/// An outbox, and the end that an exporter takes traces from.
pub fn channel() -> (Outbox, mpsc::Receiver<Trace>) {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    (Outbox { sender, stats: Arc::default() }, receiver)
}

impl Outbox {
    /// Leaves a trace, or counts its spans as dropped.
    pub(super) fn put(&self, trace: Trace) {
        let spans = 1 + trace.attempts.len() as u64;
        if self.sender.try_send(trace).is_err() {
            self.stats.dropped.fetch_add(spans, Relaxed);
        }
    }
    /// What became of them.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }
}

/// The trace of a request under way.
#[derive(Debug)]
pub(super) struct Tracer {
    id: TraceId,
    span: SpanId,
    parent: Option<SpanId>,
    attempts: SmallVec<[Leg; 2]>,
}

/// What `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parent {
    trace: TraceId,
    span: SpanId,
    sampled: bool,
}

impl Tracer {
    /// A tracer, if this request is to be recorded. `fresh` names the trace where the request names none.
    pub(super) fn of(request: &RequestHead, trusted: bool, sample: f64, fresh: &str, dice: &mut Dice) -> Option<Box<Self>> {
        let parent = request.head.get("traceparent").and_then(parse);
        let recorded = match parent {
            Some(parent) if trusted => parent.sampled,
            _ => sample >= 1.0 || dice.chance(sample),
        };
        if !recorded {
            return None;
        }
        let id = parent.map(|p| p.trace).or_else(|| unhex(fresh.as_bytes()))?;
        Some(Box::new(Self { id, span: span_id(dice), parent: parent.map(|p| p.span), attempts: SmallVec::new() }))
    }

    /// An attempt begins.
    pub(super) fn began(&mut self, number: u8, at: Moment, hedge: bool, [service, region, endpoint]: [&Arc<str>; 3], dice: &mut Dice) {
        self.attempts.push(Leg {
            number,
            span: span_id(dice),
            began: at,
            ended: None,
            service: service.clone(),
            region: region.clone(),
            endpoint: endpoint.clone(),
            status: None,
            outcome: None,
            hedge,
        });
    }

    fn leg(&mut self, number: u8) -> Option<&mut Leg> {
        self.attempts.iter_mut().find(|l| l.number == number)
    }

    /// The endpoint answered with this status.
    pub(super) fn answered(&mut self, number: u8, status: u16) {
        if let Some(leg) = self.leg(number) {
            leg.status = Some(status);
        }
    }

    /// An attempt ended.
    pub(super) fn ended(&mut self, number: u8, outcome: Outcome, at: Moment) {
        if let Some(leg) = self.leg(number).filter(|l| l.outcome.is_none()) {
            (leg.ended, leg.outcome) = (Some(at), Some(outcome));
        }
    }

    /// `traceparent` for an attempt's endpoint.
    pub(super) fn parent_of(&self, number: u8) -> String {
        let span = self.attempts.iter().find(|l| l.number == number).map_or(self.span, |l| l.span);
        format!("00-{:032x}-{:016x}-01", u128::from_be_bytes(self.id), u64::from_be_bytes(span))
    }

    /// The request is over. `answered_by`: the attempt whose answer went out.
    pub(super) fn finish(mut self, request: &RequestHead, https: bool, answered_by: Option<u8>, record: Record, now: Moment) -> Trace {
        if let Some(number) = answered_by {
            self.ended(number, Outcome::Ok, now);
        }
        let state = request.head.get("tracestate").and_then(|v| std::str::from_utf8(v).ok()).unwrap_or_default().to_owned();
        Trace { id: self.id, span: self.span, parent: self.parent, state, https, record, attempts: self.attempts }
    }
}

/// Never all zeros, which W3C trace context forbids.
fn span_id(dice: &mut Dice) -> SpanId {
    dice.next().max(1).to_be_bytes()
}

/// `version-trace-span-flags` in lower-case hex. Of later versions, which may have more behind that, what is known is read.
fn parse(text: &[u8]) -> Option<Parent> {
    let dashes = [2, 35, 52].iter().all(|i| text.get(*i) == Some(&b'-'));
    let ends = match text.get(..2)? {
        b"00" => text.len() == 55,
        b"ff" => false,
        version => unhex::<1>(version).is_some() && (text.len() == 55 || text.get(55) == Some(&b'-')),
    };
    if !dashes || !ends {
        return None;
    }
    let (trace, span) = (unhex::<16>(&text[3..35])?, unhex::<8>(&text[36..52])?);
    let [flags] = unhex::<1>(&text[53..55])?;
    (trace != [0; 16] && span != [0; 8]).then_some(Parent { trace, span, sampled: flags & 1 == 1 })
}

fn unhex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut out = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(text.chunks(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traceparent_is_read_as_the_recommendation_says() {
        let good = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let parent = parse(good).unwrap();
        assert!(parent.sampled && parent.trace[0] == 0x0a && parent.span[7] == 0x31);
        assert!(!parse(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-02").unwrap().sampled);
        assert_eq!(parse(b"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more"), Some(parent));
        for bad in [
            &b""[..],
            b"00",
            b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            b"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.more",
            b"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            b"00-00000000000000000000000000000000-b7ad6b7169203331-01",
            b"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            b"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            b"00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(parse(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn an_attempt_is_told_its_own_span_and_ends_once() {
        let name = |text: &str| Arc::<str>::from(text);
        let mut dice = Dice::new(7);
        let mut tracer = Tracer { id: [1; 16], span: [2; 8], parent: None, attempts: SmallVec::new() };
        assert_eq!(tracer.parent_of(0), "00-01010101010101010101010101010101-0202020202020202-01");
        let to = [&name("api"), &name("east"), &name("10.0.0.1:80")];
        tracer.began(0, Moment(5), false, to, &mut dice);
        tracer.began(1, Moment(6), true, to, &mut dice);
        assert!(tracer.parent_of(1) != tracer.parent_of(0) && parse(tracer.parent_of(1).as_bytes()).is_some_and(|p| p.sampled));
        tracer.answered(1, 200);
        tracer.ended(1, Outcome::Timeout, Moment(9));
        tracer.ended(1, Outcome::Ok, Moment(10));
        assert_eq!((tracer.attempts[1].outcome, tracer.attempts[1].ended), (Some(Outcome::Timeout), Some(Moment(9))));
        assert_eq!((tracer.attempts[0].outcome, tracer.attempts[1].status), (None, Some(200)));
    }
}
