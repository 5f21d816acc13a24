//! One attempt at one endpoint: from the connection to the head of its answer.
//!
//! ```text
//! reuse or dial ─▶ head and body go out ─▶ [last byte held until the rest is acknowledged] ─▶ handed over ─▶ answer's head
//! ```
//!
//! | clock | from | then |
//! |---|---|---|
//! | `overdue_at`, `late_at` | the start, or the hand-over of a body that streams | the pool's gauges know |
//! | `timeout` | likewise, and whenever the endpoint takes nothing more of a body | `Timeout` |
//!
//! A client that is slow to send its body is not the endpoint's fault: while more of the body is waited for, no clock runs here.
//!
//! Where the answer is to be judged as a whole (`Message::whole`), its body is read here as well, within the same times.
//!
//! A kept connection that ends without a byte of an answer was most likely closed while our request was on its way. What is safe to
//! repeat is repeated at once on a fresh connection to the same endpoint; that is not held against anybody. The same goes for a stream
//! that the endpoint refused unseen; refused once more, it counts as an endpoint with too much to do.

use super::downstream::Downstream;
use super::truth;
use super::upload::{Fault, Part, Upload};
use super::worker::Worker;
use crate::clock;
use crate::http1::{BodyFraming, Head, ResponseHead};
use crate::live::{Detached, Flight};
use crate::model::outcome::{Outcome, Sent};
use crate::model::time::{Duration, Moment};
use crate::steer::attempt::Try;
use crate::upstream::{Begin, Conn, DialError, Event, Failure, Target};
use bytes::{Bytes, BytesMut};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// A body that takes longer than this to come in is the client's doing, and takes no room in the pool.
const SLOW: Duration = Duration::from_secs(1);
/// How often the kernel is asked whether the peer has acknowledged everything but the held byte.
const LOOK: Duration = Duration::from_millis(1);

/// What an attempt sends; encoded anew for each.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) head: Vec<u8>,
    pub(crate) framing: BodyFraming,
    pub(crate) is_head: bool,
    pub(crate) upgrade: bool,
    /// Keep the last byte back until the rest is acknowledged.
    pub(crate) hold: bool,
    /// What it is worth to repeat on a fresh connection after this much was sent on a dead one.
    pub(crate) again: [bool; 3],
    /// Read the body of an answer that can be judged, up to so many bytes, before telling of its head.
    pub(crate) whole: Option<u64>,
}

/// The body of an answer, as far as it was read before anybody decided about it.
#[derive(Debug, Default)]
pub(crate) struct Early {
    pub(crate) body: Bytes,
    /// It is all there.
    pub(crate) ended: bool,
    pub(crate) trailers: Option<Box<Head>>,
}

/// What happened to an attempt.
#[derive(Debug)]
pub(crate) enum Turn {
    /// The final answer's head, and what was read of its body.
    Head(Box<ResponseHead>, Option<Box<Early>>),
    /// An interim answer to pass on.
    Interim(Box<ResponseHead>),
    /// The kept connection was dead: [`Leg::again`] begins anew on a fresh one.
    Stale,
    /// It failed.
    Failed(Outcome),
    /// The client did not keep what its request promised.
    Client(Fault),
}

type Dialling = Pin<Box<dyn Future<Output = Result<Conn, DialError>>>>;

pub(crate) enum Link {
    Dialling(Dialling),
    Up(Conn),
}

/// What is left of an attempt whose request has been answered by another one.
pub(crate) struct Remains {
    pub(crate) plan: Try,
    pub(crate) link: Link,
    pub(crate) flight: Detached,
    /// It becomes overdue, late, and is given up so long after it was handed over.
    pub(crate) after: [Duration; 3],
}

/// One attempt.
pub(crate) struct Leg<'p> {
    pub(crate) plan: Try,
    pub(crate) flight: Flight<'p>,
    worker: &'p Rc<Worker>,
    target: Target,
    link: Link,
    message: Message,
    /// It may begin again on a fresh connection.
    again: bool,
    /// The part of the body to send next.
    next: usize,
    began: Moment,
    /// It was taken out of the pool's room, or need not be.
    parked: bool,
    /// Since when the endpoint alone is waited for.
    since: Option<Moment>,
    /// Since when it has taken nothing of the body, or has not acknowledged it.
    stuck: Option<Moment>,
    marked: (bool, bool),
    look: Moment,
    /// When everything but the held byte had left.
    left: Option<Moment>,
    /// When it said [`Turn::Head`].
    pub(crate) told: Moment,
    /// An answer that is read as a whole.
    reading: Option<(Box<ResponseHead>, BytesMut)>,
}

impl<'p> Leg<'p> {
    pub(crate) fn start(
        plan: Try,
        mut flight: Flight<'p>,
        worker: &'p Rc<Worker>,
        target: Target,
        message: Message,
        body: bool,
    ) -> Box<Self> {
        let began = flight.began();
        if body {
            flight.uploads();
        }
        // On the heap, so that what comes of it moves a pointer.
        let mut leg = Box::new(Self {
            plan,
            flight,
            worker,
            link: Link::Dialling(Box::pin(std::future::pending())),
            target,
            message,
            again: plan.id == 0,
            next: 0,
            began,
            since: (!body).then_some(began),
            parked: !body,
            stuck: None,
            marked: (false, false),
            look: Moment::FAR,
            left: None,
            told: began,
            reading: None,
        });
        match worker.upstream.reuse(&leg.target) {
            Some(conn) => leg.up(conn),
            None => leg.link = leg.dial(),
        }
        leg
    }

    fn dial(&self) -> Link {
        let (worker, target) = (self.worker.clone(), self.target.clone());
        Link::Dialling(Box::pin(async move { worker.upstream.dial(&target).await }))
    }

    fn up(&mut self, mut conn: Conn) {
        let m = &mut self.message;
        let head = std::mem::take(&mut m.head);
        conn.begin(Begin { head, framing: m.framing, is_head: m.is_head, upgrade: m.upgrade, hold: m.hold });
        self.link = Link::Up(conn);
    }

    /// Whether the last byte of a request is held back here, so that a complete one need not have been sent.
    pub(crate) fn holds(&self) -> bool {
        self.message.hold
    }

    /// How much of the request the endpoint may have seen.
    pub(crate) fn sent(&self) -> Sent {
        match &self.link {
            Link::Dialling(_) => Sent::Nothing,
            Link::Up(conn) => conn.sent(),
        }
    }

    /// Take it apart: the attempt in the gauges, and the connection with the number of the body's part that is sent next.
    pub(crate) fn into_parts(self: Box<Self>) -> (Flight<'p>, Option<(Conn, usize)>) {
        match self.link {
            Link::Up(conn) => (self.flight, Some((conn, self.next))),
            Link::Dialling(_) => (self.flight, None),
        }
    }

    /// What can be listened to after the request was answered by another attempt; `None`: nothing of the answer is waited for.
    pub(crate) fn remains(self: Box<Self>) -> Option<Remains> {
        if self.since.is_none() || self.reading.is_some() {
            return None;
        }
        let after = [self.overdue_after(), self.late_after(), self.plan.timeout];
        Some(Remains { plan: self.plan, link: self.link, flight: self.flight.detach(), after })
    }

    /// Go on until something happened that somebody must know.
    pub(crate) fn poll(&mut self, upload: &mut Upload, down: &mut Downstream<'_>, cx: &mut Context<'_>) -> Poll<Turn> {
        loop {
            if let Link::Dialling(dialling) = &mut self.link {
                match ready!(dialling.as_mut().poll(cx)) {
                    Ok(conn) => self.up(conn),
                    Err(_) => return Poll::Ready(Turn::Failed(Outcome::Connect)),
                }
            }
            let Link::Up(conn) = &mut self.link else { continue };
            if let Err(fault) = feed(conn, &mut self.next, upload, down, cx) {
                return Poll::Ready(Turn::Client(fault));
            }
            match conn.poll_event(cx) {
                Poll::Pending => {
                    self.watch(upload);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(Event::Flushed)) => self.acknowledged(),
                Poll::Ready(Ok(Event::Heard)) => self.flight.heard(clock::now()),
                Poll::Ready(Ok(Event::Interim(head))) => {
                    self.flight.heard(clock::now());
                    // 100 is between neighbours: we told the client ourselves when we began to read its body.
                    if head.status != 100 {
                        return Poll::Ready(Turn::Interim(head));
                    }
                }
                Poll::Ready(Ok(Event::Head(head))) => {
                    self.told = clock::now();
                    self.flight.first_byte(self.told);
                    if self.message.whole.is_none_or(|most| !truth::readable(&head, most)) {
                        return Poll::Ready(Turn::Head(head, None));
                    }
                    self.reading = Some((head, BytesMut::new()));
                }
                Poll::Ready(Ok(Event::Data(data))) => {
                    self.flight.heard(clock::now());
                    let Some((_, body)) = &mut self.reading else { return Poll::Ready(Turn::Failed(Outcome::Reset)) };
                    body.extend_from_slice(&data);
                    if body.len() as u64 > self.message.whole.unwrap_or(0) {
                        return Poll::Ready(self.read(false, None));
                    }
                }
                Poll::Ready(Ok(Event::End(trailers))) => return Poll::Ready(self.read(true, trailers)),
                Poll::Ready(Err(why)) => {
                    return Poll::Ready(match why {
                        _ if self.stale(&why, upload) => Turn::Stale,
                        Failure::Refused => Turn::Failed(Outcome::Overload(503)),
                        _ => Turn::Failed(Outcome::Reset),
                    });
                }
            }
        }
    }

    /// What was read of an answer.
    fn read(&mut self, ended: bool, trailers: Option<Box<Head>>) -> Turn {
        self.told = clock::now();
        match self.reading.take() {
            Some((head, body)) => Turn::Head(head, Some(Box::new(Early { body: body.freeze(), ended, trailers }))),
            None => Turn::Failed(Outcome::Reset),
        }
    }

    /// Let the held byte go once the peer's kernel has everything before it, or the endpoint was heard (by anybody) after
    /// everything before it had left: then the way there is open, and a delayed acknowledgement (40 ms in Linux) is not worth waiting for.
    fn acknowledged(&mut self) {
        let Link::Up(conn) = &mut self.link else { return };
        if !conn.is_held() {
            return;
        }
        let now = clock::now();
        let left = *self.left.get_or_insert(now);
        // No TCP below, or a broken connection: nothing to be learnt by waiting.
        if self.flight.endpoint_heard() > left || conn.delivery().is_none_or(|d| d.complete()) {
            (self.look, self.stuck) = (Moment::FAR, None);
            conn.release();
        } else {
            self.look = now + LOOK;
        }
    }

    /// Nothing moves just now: whom is it that we wait for?
    fn watch(&mut self, upload: &mut Upload) {
        let Link::Up(conn) = &mut self.link else { return };
        if self.since.is_some() {
            return;
        }
        if conn.sent() == Sent::Complete {
            let now = clock::now();
            (self.since, self.stuck, self.parked) = (Some(now), None, true);
            self.flight.handed_over(now);
        } else if conn.backlog() > 0 || conn.is_held() {
            upload.pause();
            self.stuck.get_or_insert_with(clock::now);
        } else {
            self.stuck = None;
        }
    }

    fn stale(&mut self, why: &Failure, upload: &Upload) -> bool {
        let Link::Up(conn) = &self.link else { return false };
        let dead = match why {
            Failure::Closed | Failure::Broken(_) => conn.is_reused() && !conn.heard(),
            Failure::Refused | Failure::Leaving => true,
            Failure::Malformed(_) | Failure::Truncated => false,
        };
        dead && upload.whole() && self.message.again[conn.sent() as usize] && std::mem::take(&mut self.again)
    }

    /// Begin again on a fresh connection.
    pub(crate) fn again(&mut self, head: Vec<u8>) {
        self.message.head = head;
        (self.next, self.left) = (0, None);
        self.link = self.dial();
    }

    /// When [`Leg::on_time`] wants to be asked.
    pub(crate) fn due(&self) -> Moment {
        let stuck = self.stuck.map_or(Moment::FAR, |s| s + self.plan.timeout);
        let stuck = stuck.min(self.look);
        let Some(since) = self.since else { return if self.parked { stuck } else { stuck.min(self.began + SLOW) } };
        let mark = match self.marked {
            (false, _) => since + self.overdue_after(),
            (true, false) => since + self.late_after(),
            _ => Moment::FAR,
        };
        mark.min(since + self.plan.timeout).min(stuck)
    }

    fn overdue_after(&self) -> Duration {
        self.plan.overdue_at.since(self.began)
    }
    fn late_after(&self) -> Duration {
        self.plan.late_at.since(self.began)
    }

    /// Time has passed: set the marks. `Some`: it took too long.
    pub(crate) fn on_time(&mut self, now: Moment) -> Option<Outcome> {
        if now >= self.look {
            self.look = Moment::FAR;
            self.acknowledged();
        }
        if let Some(since) = self.since {
            let waited = now.since(since);
            if !self.marked.0 && waited >= self.overdue_after() {
                self.marked.0 = true;
                self.flight.overdue();
            }
            if !self.marked.1 && waited >= self.late_after() {
                self.marked.1 = true;
                self.flight.late();
            }
            return (waited >= self.plan.timeout).then_some(Outcome::Timeout);
        }
        if !self.parked && now >= self.began + SLOW {
            self.parked = true;
            self.flight.park();
        }
        self.stuck.is_some_and(|s| now.since(s) >= self.plan.timeout).then_some(Outcome::Timeout)
    }

    /// Whether it has waited longer than is normal.
    pub(crate) fn is_overdue(&self) -> bool {
        self.marked.0 || self.stuck.is_some()
    }
}

/// Hand a connection as much of the request's body as it wants; `next`: the part to send next.
pub(crate) fn feed(
    conn: &mut Conn,
    next: &mut usize,
    upload: &mut Upload,
    down: &mut Downstream<'_>,
    cx: &mut Context<'_>,
) -> Result<(), Fault> {
    while conn.wants_body() {
        match upload.poll(*next, down, cx) {
            Poll::Pending => return Ok(()),
            Poll::Ready(Err(fault)) => return Err(fault),
            Poll::Ready(Ok(Part::Data(data))) => {
                *next += 1;
                conn.push(data).map_err(Fault::Malformed)?;
                upload.sent(*next);
            }
            Poll::Ready(Ok(Part::End(trailers))) => conn.finish(trailers.as_deref()).map_err(Fault::Malformed)?,
        }
    }
    Ok(())
}
