//! Attempts that lost: what a second attempt's answer made superfluous is listened to a little longer.
//!
//! ```text
//! lost ─┬─ answers within its time ──▶ counts like any answer; a short one is read, and the connection kept
//!       ├─ late, then timed out ─────▶ counts like any timeout: a region that leaves requests hanging is known by them
//!       └─ still dialling, broken, or too many linger already ──▶ dropped, and says nothing
//! ```
//!
//! A hedge starts after the time that nineteen of twenty requests need, so exactly those requests that a sick region leaves
//! hanging would be cut short and tell nobody; and the slow answers would be missing among the times that say what is normal, so that
//! hedges began ever sooner. Nothing is asked of the endpoint that it was not asked already, nobody waits for the answer, and
//! what comes is thrown away. A loser that answers in its normal time is not held against anybody.
//!
//! Not here: losers that were uploads (stopped, never hedged), and what is dropped because the client left.

use super::exchange::record::land;
use super::leg::{Leg, Link, Remains};
use super::worker::{Kept, Worker};
use crate::clock;
use crate::live::Flight;
use crate::model::id::{PoolIx, RouteIx};
use crate::model::outcome::Outcome;
use crate::model::policy::Route;
use crate::steer::classify;
use crate::upstream::{Conn, Event};
use std::rc::Rc;
use tokio::task::spawn_local;

/// Losers of one worker that linger at once, at most. Hedges are a twentieth of requests by default: 256 of them
/// waiting for half a second each are 10,000 requests a second.
const MOST: usize = 256;
/// So much of a loser's answer is read for the sake of its connection; opening another one costs about as much.
const WORTH: usize = 64 << 10;

/// A place among those that linger.
struct Place(Rc<Worker>);

impl Place {
    fn take(worker: &Rc<Worker>) -> Option<Self> {
        let n = worker.lingering.get();
        (n < MOST).then(|| {
            worker.lingering.set(n + 1);
            Self(worker.clone())
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.lingering.set(self.0.lingering.get() - 1);
    }
}

/// Listen to an attempt that lost; `winner`: the pool whose answer was taken.
pub(super) fn linger(worker: &Rc<Worker>, picture: &Kept, route: RouteIx, winner: PoolIx, lost: Box<Leg<'_>>) {
    let Some(place) = Place::take(worker) else { return };
    let Some(remains) = lost.remains() else { return };
    spawn_local(listen(place, picture.clone(), route, winner, remains));
}

async fn listen(place: Place, picture: Kept, index: RouteIx, winner: PoolIx, remains: Remains) {
    let worker = &place.0;
    let (topology, cells) = (picture.view.topology(), &picture.cells);
    let Remains { plan, mut link, flight, after } = remains;
    let mut flight = cells.attach(index, plan.endpoint, flight);
    let [overdue, late, timeout] = after.map(|d| flight.began() + d);
    let route = &topology.routes[index.at()];
    let outcome = loop {
        let now = clock::now();
        if now >= timeout {
            break Outcome::Timeout;
        }
        if now >= overdue {
            flight.overdue();
        }
        if now >= late {
            flight.late();
        }
        let due = [overdue, late, timeout].into_iter().filter(|at| *at > now).min().unwrap_or(timeout);
        tokio::select! {
            biased;
            outcome = answer(&mut link, &mut flight, route) => break outcome,
            () = clock::sleep_until(due) => {}
        }
    };
    if let (Link::Up(mut conn), Outcome::Ok | Outcome::Status(_) | Outcome::Cancelled) = (link, outcome) {
        tokio::select! {
            biased;
            () = rest(&mut conn) => worker.upstream.checkin(conn),
            () = clock::sleep_until(timeout) => {}
        }
    }
    land(worker, &picture, &plan, flight, outcome, clock::now());
    let region = |p: PoolIx| topology.pools[p.at()].region;
    if outcome.is_failure() && region(plan.pool) != region(winner) {
        cells.contradicted(plan.pool);
    }
}

/// How it would have ended. May be dropped and asked again.
async fn answer(link: &mut Link, flight: &mut Flight<'_>, route: &Route) -> Outcome {
    let conn = match link {
        Link::Up(conn) => conn,
        // Connected too late to be sent anything.
        Link::Dialling(dialling) => return dialling.await.map_or(Outcome::Connect, |_| Outcome::Cancelled),
    };
    loop {
        match conn.event().await {
            Ok(Event::Head(head)) => {
                flight.first_byte(clock::now());
                let said = classify::status(head.status, head.status == 503 && head.head.get("retry-after").is_some(), route);
                // Whether an answer is plausible is only looked at where somebody is to have it.
                return if said == Outcome::Ok && !route.guards.is_empty() { Outcome::Cancelled } else { said };
            }
            Ok(Event::Heard | Event::Interim(_)) => flight.heard(clock::now()),
            Ok(_) => {}
            // It may have been a kept connection that the endpoint closed meanwhile; the request is answered, so nobody asks again.
            Err(_) if conn.is_reused() && !conn.heard() => return Outcome::Cancelled,
            Err(_) => return Outcome::Reset,
        }
    }
}

/// Read the rest of an answer, if it is short.
async fn rest(conn: &mut Conn) {
    let mut read = 0;
    while read <= WORTH && !conn.is_complete() {
        match conn.event().await {
            Ok(Event::Data(data)) => read += data.len(),
            Ok(Event::End(_)) | Err(_) => return,
            Ok(_) => {}
        }
    }
}
