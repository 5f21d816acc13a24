//! How a request is answered: with a backend's answer, with what the route wants said without one, or with what the client did wrong.

use super::super::answer::{self, Reply};
use super::super::downstream::Ending;
use super::super::grpc;
use super::super::leaving::Leaving;
use super::super::leg::Early;
use super::super::linger::linger;
use super::super::once::{SHARED, Said};
use super::super::relay::{self, Blame, Passing, Way};
use super::super::truth::Collect;
use super::super::upload::Fault;
use super::{Answer, Exchange, Told, flushed};
use crate::clock;
use crate::http1::ResponseHead;
use crate::live::Flight;
use crate::model::outcome::{Outcome, RequestOutcome};
use crate::model::time::Moment;
use crate::steer::attempt::Try;
use crate::steer::fallback::{self, Refusal};
use bytes::Bytes;
use std::future::poll_fn;

impl<'p> Exchange<'p> {
    /// An answer was taken: what still runs has lost.
    pub(super) fn won(&mut self, winner: &Try) {
        let cells = &*self.picture.cells;
        for lost in self.legs.iter_mut().filter_map(Option::take) {
            if lost.plan.hedge {
                cells.service(self.route.service).hedged(false);
            }
            linger(self.worker, self.picture, self.index, winner.pool, lost);
        }
        if winner.hedge {
            cells.service(self.route.service).hedged(true);
        }
    }

    /// Pass an answer on to the client, and the rest of the request's body to the endpoint. `ran`: the attempt that it came of, and what is
    /// thought of it; a good one counts as a success as soon as the answer was read to its end.
    pub(super) async fn pass(&mut self, answer: Answer, ran: Option<(Flight<'p>, Outcome)>, first_byte: Moment) -> Told {
        let (mut flight, outcome) = ran.map_or((None, None), |(flight, outcome)| (Some(flight), Some(outcome)));
        let good = outcome == Some(Outcome::Ok);
        if let Some(flight) = flight.as_mut().filter(|_| good) {
            flight.accepted();
        }
        let Answer { plan, conn, next, head, early } = answer;
        let judged = early.as_ref().is_some_and(|e| e.ended);
        let mut keep = self.truth.as_ref().filter(|_| good).and_then(|t| t.keep(&head, judged));
        let leads = self.keeping.as_ref().is_some_and(|k| k.lead.is_some()) && (200..500).contains(&head.status);
        if leads {
            keep = Some(Box::new(Collect::plain(SHARED)));
        }
        // Nothing is repeated once an answer has begun.
        self.upload.let_go();
        let region = self.shown_region(plan);
        self.down.head(&head, &self.route.response_headers, region.as_deref());
        let idle = self.route.idle_timeout;
        let said = self.grpc.and_then(|_| grpc::said(&head));
        let way = Way {
            down: &mut self.down,
            upload: &mut self.upload,
            alarm: self.alarm,
            idle,
            flight,
            good,
            keep,
            // What is no answer of gRPC's has a status of its own.
            grpc: self.grpc.filter(|_| head.status == 200),
            said,
            leaving: Leaving::new(self.worker, Some(&self.picture.view.topology().pools[plan.pool.at()].name)),
        };
        let relayed = match conn {
            // On the heap: the request's future would otherwise keep room for it.
            Some(conn) if head.status == 101 => Box::pin(relay::tunnel(way, conn)).await,
            conn => {
                let mut passing = Passing::new(way, conn, early, next, &self.worker.upstream);
                poll_fn(|cx| passing.poll(cx)).await
            }
        };
        match (&self.truth, relayed.keep) {
            (_, Some(copy)) if leads => {
                if let (Some(lead), Some(body)) = (self.keeping.as_ref().and_then(|k| k.lead.as_ref()), copy.into_body()) {
                    lead.answered(Said { head: (*head).clone(), body });
                }
            }
            (Some(truth), Some(copy)) => truth.put(*copy, plan.pool),
            _ => {}
        }
        let came_to = match (relayed.blame, head.status, relayed.said) {
            (Blame::Backend, ..) | (_, 500.., _) => RequestOutcome::Failed,
            (_, 400..500, _) => RequestOutcome::ClientError,
            (_, _, Some(code)) => crate::steer::grpc::request_outcome(code),
            _ => RequestOutcome::Ok,
        };
        let (ending, sent, why) = (relayed.ending, relayed.sent, relayed.why);
        // A hedge that won was counted as that.
        let ran = Try { hedge: false, ..plan };
        match (relayed.blame, relayed.flight, outcome) {
            (Blame::Nobody, Some(flight), Some(outcome)) => {
                let outcome = relayed.said.filter(|_| good).map_or(outcome, crate::steer::grpc::outcome);
                self.landed(ran, flight, outcome, clock::now());
            }
            (Blame::Backend, Some(flight), _) => self.landed(ran, flight, Outcome::Reset, clock::now()),
            // The client's doing says nothing about the endpoint; or the attempt has ended well.
            _ => {}
        }
        Told { ending, status: head.status, outcome: came_to, answered_by: Some(plan), first_byte: Some(first_byte), sent, why }
    }

    /// No region could answer: say so as the route wants it said.
    pub(super) async fn degrade(&mut self, why: Refusal) -> Told {
        let plan = fallback::decide(self.route, why, self.machine.facts(), &mut self.worker.dice.borrow_mut());
        if self.maskable
            && let Some(told) = self.masked().await
        {
            return told;
        }
        if let Some(copy) = self.truth.as_ref().and_then(|t| t.copy(&plan)) {
            return self.stale(copy, why).await;
        }
        // A gRPC client cannot be told "taken, but not done yet".
        if self.grpc.is_none()
            && plan.ways.iter().any(|w| matches!(w, fallback::Way::Spool(_)))
            && let Some(told) = self.keep(why).await
        {
            return told;
        }
        if why == Refusal::Shed {
            let facts = self.machine.facts();
            self.picture.cells.route(self.index).shed();
            self.picture.cells.refusals(facts.priority).add(clock::now().since(facts.started));
        }
        let ours_says_less = matches!(plan.answer.outcome, RequestOutcome::Shed | RequestOutcome::Unavailable);
        match self.held.take().filter(|held| self.upload.has(held.next)) {
            Some(held) if ours_says_less => self.pass(held, None, clock::now()).await,
            _ => self.say(&plan.answer.into()).await,
        }
    }

    /// Answer with what was not believed, without the fields that it was not believed for.
    async fn masked(&mut self) -> Option<Told> {
        let (truth, held) = (self.truth.as_ref()?, self.held.as_mut()?);
        let early = held.early.as_mut().filter(|e| e.ended)?;
        early.body = truth.mask(&mut held.head, &early.body)?;
        let held = self.held.take()?;
        let told = self.pass(held, None, clock::now()).await;
        let outcome = if told.outcome == RequestOutcome::Ok { RequestOutcome::Masked } else { told.outcome };
        Some(Told { outcome, why: told.why.or(Some("masked")), ..told })
    }

    /// Answer with the last good copy.
    async fn stale(&mut self, (head, body): (Box<ResponseHead>, Bytes), why: Refusal) -> Told {
        let first_byte = clock::now();
        self.upload.let_go();
        self.down.head(&head, &self.route.response_headers, None);
        let (idle, early) = (self.route.idle_timeout, Box::new(Early { body, ended: true, trailers: None }));
        let way = Way {
            down: &mut self.down,
            upload: &mut self.upload,
            alarm: self.alarm,
            idle,
            flight: None,
            good: false,
            keep: None,
            grpc: None,
            said: None,
            leaving: Leaving::new(self.worker, None),
        };
        let relayed = relay::answer(way, None, Some(early), 0, &self.worker.upstream).await;
        Told {
            ending: relayed.ending,
            status: head.status,
            outcome: RequestOutcome::Stale,
            answered_by: None,
            first_byte: Some(first_byte),
            sent: relayed.sent,
            why: Some(relayed.why.unwrap_or_else(|| why.reason())),
        }
    }

    /// The client did not keep what its request promised, or is gone.
    pub(super) async fn blame(&mut self, fault: Fault) -> Told {
        self.legs = [None, None];
        match answer::fault(fault) {
            Some(reply) => self.say(&reply).await,
            None => Told {
                ending: Ending::Broken,
                status: 0,
                outcome: RequestOutcome::ClientError,
                answered_by: None,
                first_byte: None,
                sent: 0,
                why: Some("the client went away"),
            },
        }
    }

    pub(super) async fn say(&mut self, reply: &Reply) -> Told {
        let own = self.grpc.map(|_| grpc::reply(reply));
        let reply = own.as_ref().unwrap_or(reply);
        self.down.say(reply);
        let first_byte = clock::now();
        Told {
            ending: flushed(&mut self.down, self.alarm, self.route.idle_timeout).await,
            status: reply.status,
            outcome: reply.outcome,
            answered_by: None,
            first_byte: Some(first_byte),
            sent: reply.body.len() as u64,
            why: reply.why,
        }
    }
}
