//! An answer on its way to the client, the rest of the request's body on its way to the endpoint, and tunnels.
//!
//! Neither side is ever read faster than the other one takes it: at most [`Downstream::full`] and one read lie between them.
//! A head waits for the beginning of its body only if that was read together with it. What breaks off is never made to look whole:
//! the client's connection is cut before the answer's end.
//!
//! One clock: when nothing has moved for the route's `idle_timeout`, whoever was waited for has had its time.

use super::alarm::Alarm;
use super::downstream::{Downstream, Ending};
use super::grpc;
use super::leaving::Leaving;
use super::leg::{Early, feed};
use super::truth::Collect;
use super::upload::Upload;
use crate::clock;
use crate::http1::Head;
use crate::live::Flight;
use crate::model::outcome::Outcome;
use crate::model::time::{Duration, Moment};
use crate::upstream::{Conn, Event, Pool, Stream};
use bytes::{Buf, Bytes, BytesMut};
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncReadExt, AsyncWrite};

/// An answer that goes on for longer is a stream: its length says nothing of how busy the endpoint is, and it must not take
/// room from requests whose does.
const STREAM: Duration = Duration::from_secs(2);
/// Bytes a tunnel holds in each direction.
const TUNNEL: usize = 16 << 10;

/// Whose fault it was that an answer did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    Nobody,
    Backend,
    Client,
}

/// How passing an answer on ended.
pub(super) struct Relayed<'p> {
    /// The attempt, where it has not ended well yet.
    pub(super) flight: Option<Flight<'p>>,
    /// What was kept of it.
    pub(super) keep: Option<Box<Collect>>,
    pub(super) ending: Ending,
    pub(super) blame: Blame,
    /// Body bytes handed to the client's side.
    pub(super) sent: u64,
    pub(super) why: Option<&'static str>,
    /// What the trailers of a gRPC call said.
    pub(super) said: Option<u8>,
}

/// What an answer passes through.
pub(super) struct Way<'a, 'c, 'p> {
    pub(super) down: &'a mut Downstream<'c>,
    pub(super) upload: &'a mut Upload,
    pub(super) alarm: &'a mut Alarm,
    pub(super) idle: Duration,
    pub(super) flight: Option<Flight<'p>>,
    /// An answer that is read to its end is a success.
    pub(super) good: bool,
    /// Where the answer is to be kept as well.
    pub(super) keep: Option<Box<Collect>>,
    /// It answers a gRPC call, whose trailers have the last word.
    pub(super) grpc: Option<grpc::Call>,
    /// What they said.
    pub(super) said: Option<u8>,
    /// Long ones end when their region is drained.
    pub(super) leaving: Leaving<'a>,
}

impl Way<'_, '_, '_> {
    /// The endpoint has done its part; how soon the client reads it is not its affair.
    fn done(&mut self) {
        let now = clock::now();
        if let Some(mut flight) = self.flight.take() {
            flight.heard(now);
            if self.good && self.said.is_none_or(|code| crate::steer::grpc::outcome(code) == Outcome::Ok) {
                flight.end(now, Outcome::Ok);
            } else {
                self.flight = Some(flight);
            }
        }
    }

    fn heard(&mut self) {
        if let Some(flight) = &mut self.flight {
            flight.heard(clock::now());
        }
    }

    /// Queue a piece of the body.
    fn data(&mut self, data: Bytes) -> Result<(), ()> {
        if let Some(keep) = &mut self.keep {
            keep.data(&data);
        }
        self.down.push(data)
    }

    /// Queue its end.
    fn end(&mut self, trailers: Option<&Head>) -> Result<(), ()> {
        if let Some(keep) = &mut self.keep {
            keep.end();
        }
        if self.grpc.is_some() && self.said.is_none() {
            self.said = Some(grpc::ended(trailers));
        }
        self.down.end(trailers)
    }

    /// Queue what was read before.
    fn early(&mut self, early: Early) -> Result<(), ()> {
        if !early.body.is_empty() {
            self.data(early.body)?;
        }
        if early.ended {
            self.end(early.trailers.as_deref())?;
            self.done();
        }
        Ok(())
    }
}

/// An answer whose head is queued already, on its way: what of its body was read `early`, then what the connection gives, which goes
/// back to its pool as soon as it is free. Without a connection there is nothing more to come.
///
/// Polled by hand, and not a future of its own: what waits for it would keep room for it twice.
pub(super) struct Passing<'a, 'c, 'p> {
    way: Way<'a, 'c, 'p>,
    conn: Option<Conn>,
    pool: &'a Pool,
    /// The part of the request's body that is to be sent next.
    next: usize,
    sent: u64,
    /// Of the request's body, as of the last look.
    received: u64,
    moved: bool,
    until: Moment,
    stream_at: Option<Moment>,
    /// What was read early is not as long as its head said.
    wrong: bool,
}

impl<'a, 'c, 'p> Passing<'a, 'c, 'p> {
    pub(super) fn new(mut way: Way<'a, 'c, 'p>, conn: Option<Conn>, early: Option<Box<Early>>, next: usize, pool: &'a Pool) -> Self {
        let (sent, received) = (early.as_ref().map_or(0, |e| e.body.len() as u64), way.upload.received);
        let wrong = early.is_some_and(|early| way.early(*early).is_err());
        Self { way, conn, pool, next, sent, received, moved: true, until: Moment::FAR, stream_at: None, wrong }
    }

    /// Ready, once, when nothing more is to be done for it.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Relayed<'p>> {
        let (ending, blame, why) = if self.wrong {
            (Ending::Truncated, Blame::Backend, Some("the answer is not as long as it said"))
        } else {
            ready!(self.turn(cx))
        };
        let way = &mut self.way;
        Poll::Ready(Relayed { flight: way.flight.take(), keep: way.keep.take(), ending, blame, sent: self.sent, why, said: way.said })
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<(Ending, Blame, Option<&'static str>)> {
        let end = |ending, blame, why| Poll::Ready((ending, blame, why));
        let Self { way, conn, pool, next, sent, received, moved, until, stream_at, .. } = self;
        // Of the client itself: it ends a call in the middle of its stream.
        let patience = way.grpc.map_or(Moment::FAR, |call| call.until);
        loop {
            if let Some(up) = conn {
                // Its upload is the client's part of the exchange; what is wrong with it ends both directions.
                if feed(up, next, way.upload, way.down, cx).is_err() {
                    return end(Ending::Truncated, Blame::Client, Some("the request body broke off"));
                }
                *moved |= std::mem::replace(received, way.upload.received) != way.upload.received;
                let turn = if way.down.full() { up.poll_send(cx).map(|()| Ok(Event::Flushed)) } else { up.poll_event(cx) };
                match turn {
                    Poll::Pending => {}
                    Poll::Ready(Ok(Event::Data(data))) => {
                        *sent += data.len() as u64;
                        *moved = true;
                        if way.data(data).is_err() {
                            return end(Ending::Truncated, Blame::Backend, Some("the answer is longer than it said"));
                        }
                        continue;
                    }
                    Poll::Ready(Ok(Event::End(trailers))) => {
                        *moved = true;
                        if way.end(trailers.as_deref()).is_err() {
                            return end(Ending::Truncated, Blame::Backend, Some("the answer is shorter than it said"));
                        }
                        if let Some(up) = conn.take() {
                            pool.checkin(up);
                        }
                        way.done();
                    }
                    Poll::Ready(Ok(_)) if way.down.full() => {}
                    Poll::Ready(Ok(_)) => continue,
                    Poll::Ready(Err(_)) => {
                        // What came before the break is worth having.
                        let _ = way.down.poll_flush(cx);
                        return end(Ending::Truncated, Blame::Backend, Some("the answer broke off"));
                    }
                }
            }
            let was_full = way.down.full();
            match way.down.poll_flush(cx) {
                Poll::Ready(Err(_)) => return end(Ending::Broken, Blame::Client, Some("the client went away")),
                Poll::Ready(Ok(())) if conn.is_none() => return end(Ending::Told, Blame::Nobody, None),
                Poll::Ready(Ok(())) if was_full => {
                    *moved = true;
                    continue;
                }
                Poll::Ready(Ok(())) => {}
                // Room for more is enough to go on reading; the rest is flushed beside it.
                Poll::Pending if was_full && !way.down.full() => {
                    *moved = true;
                    continue;
                }
                Poll::Pending if was_full => way.flight.iter_mut().for_each(Flight::park),
                Poll::Pending => {}
            }
            if way.upload.complete() && way.down.poll_gone(cx).is_ready() {
                return end(Ending::Broken, Blame::Client, Some("the client went away"));
            }
            if std::mem::take(moved) {
                way.heard();
                let now = clock::now();
                *until = now + way.idle;
                stream_at.get_or_insert(now + STREAM);
            }
            let patience = if conn.is_some() { patience } else { Moment::FAR };
            let leaving = if conn.is_some() { way.leaving.due() } else { Moment::FAR };
            let due = stream_at.map_or(*until, |at| at.min(*until)).min(patience);
            ready!(way.alarm.poll(cx, due.min(leaving)));
            if leaving < due {
                if way.leaving.over(clock::now()) {
                    return end(Ending::Truncated, Blame::Nobody, Some("moved: its region is drained"));
                }
                continue;
            }
            if clock::now() >= patience {
                // Dropped, so that the endpoint hears of it as well. It is not its fault: the answer had begun.
                (*conn, way.flight) = (None, None);
                if way.end(Some(&grpc::too_late())).is_err() {
                    return end(Ending::Truncated, Blame::Client, Some("the client's deadline passed"));
                }
                continue;
            }
            if due < *until {
                *stream_at = Some(Moment::FAR);
                way.flight.iter_mut().for_each(Flight::park);
                continue;
            }
            return if way.down.idle() {
                end(Ending::Truncated, Blame::Backend, Some("the answer stalled"))
            } else {
                end(Ending::Broken, Blame::Client, Some("the client stopped reading"))
            };
        }
    }
}

/// [`Passing`] for those who await.
pub(super) async fn answer<'p>(
    way: Way<'_, '_, 'p>,
    conn: Option<Conn>,
    early: Option<Box<Early>>,
    next: usize,
    pool: &Pool,
) -> Relayed<'p> {
    let mut passing = Passing::new(way, conn, early, next, pool);
    poll_fn(|cx| passing.poll(cx)).await
}

/// Carry bytes both ways after 101, until both sides have ended, one broke, or nothing moved for the idle time.
pub(super) async fn tunnel<'p>(mut way: Way<'_, '_, 'p>, conn: Conn) -> Relayed<'p> {
    // What follows is no answer any more, and takes no room among those that are.
    way.done();
    let Some((mut up, first)) = conn.into_upgraded() else {
        return Relayed {
            flight: way.flight,
            keep: None,
            ending: Ending::Broken,
            blame: Blame::Backend,
            sent: 0,
            why: Some("no tunnel over HTTP/2"),
            said: None,
        };
    };
    let mut sent = first.len() as u64;
    way.down.push_raw(first);
    let (mut out, mut in_ended, mut out_ended) = (BytesMut::new(), false, false);
    let (mut moved, mut until, mut why) = (true, Moment::FAR, None);
    poll_fn(|cx| {
        loop {
            let mut turned = false;
            // Endpoint to client.
            match way.down.poll_flush(cx) {
                Poll::Ready(Ok(())) if !in_ended => {
                    let mut buf = BytesMut::with_capacity(TUNNEL);
                    match pin!(up.read_buf(&mut buf)).poll(cx) {
                        Poll::Ready(Ok(0)) => {
                            in_ended = true;
                            let _ = way.down.poll_end_raw(cx);
                            turned = true;
                        }
                        Poll::Ready(Ok(n)) => {
                            sent += n as u64;
                            way.down.push_raw(buf.freeze());
                            turned = true;
                        }
                        Poll::Ready(Err(_)) => return Poll::Ready(()),
                        Poll::Pending => {}
                    }
                }
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                _ => {}
            }
            // Client to endpoint.
            match write_out(&mut up, &mut out, cx) {
                Poll::Ready(Ok(())) if !out_ended => match way.down.poll_raw(cx) {
                    Poll::Ready(Ok(data)) if data.is_empty() => {
                        out_ended = true;
                        let _ = Pin::new(&mut up).poll_shutdown(cx);
                        turned = true;
                    }
                    Poll::Ready(Ok(data)) => {
                        out = data;
                        turned = true;
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => {}
                },
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                _ => {}
            }
            if in_ended && out_ended {
                return Poll::Ready(());
            }
            moved |= turned;
            if !turned {
                break;
            }
        }
        if std::mem::take(&mut moved) {
            way.heard();
            until = clock::now() + way.idle;
        }
        loop {
            ready!(way.alarm.poll(cx, until.min(way.leaving.due())));
            if clock::now() >= until {
                return Poll::Ready(());
            }
            if way.leaving.over(clock::now()) {
                why = Some("moved: its region is drained");
                return Poll::Ready(());
            }
        }
    })
    .await;
    Relayed { flight: way.flight, keep: None, ending: Ending::Broken, blame: Blame::Nobody, sent, why, said: None }
}

fn write_out(up: &mut Stream, out: &mut BytesMut, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    while !out.is_empty() {
        match ready!(Pin::new(&mut *up).poll_write(cx, out))? {
            0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            n => out.advance(n),
        }
    }
    Pin::new(up).poll_flush(cx)
}
