//! Writes that may be kept: repeats, order, and the way into the spool.
//!
//! ```text
//! the same is under way ─▶ wait for its answer      the same was kept ─▶ the same answer (another body: 422)
//! an older one of its order waits ─▶ behind it      otherwise ─▶ attempts ─▶ no good answer ─▶ kept, 202
//! ```

use super::super::answer::{self, Reply};
use super::super::keep;
use super::super::leaving::Leaving;
use super::super::leg::Early;
use super::super::once::{Asks, Fares, Follow, Place, Said, follow};
use super::super::relay::{self, Way};
use super::super::upload::{Fault, Part};
use super::{Exchange, Told};
use crate::clock;
use crate::model::outcome::RequestOutcome;
use crate::spool::{Mark, Refused, fingerprint};
use crate::steer::fallback::{self, Refusal};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, ready};
use tokio::sync::watch;

impl Exchange<'_> {
    /// What is known before anything is tried; `None`: try.
    pub(super) async fn known(&mut self) -> Option<Told> {
        let (scope, order, named, spool) = self.keeping.as_ref().map(|k| (k.scope, k.order, k.named, k.spool))?;
        if named {
            match self.in_line(scope).await {
                Line::First => {}
                Line::Alone => return None,
                Line::Told(told) => return Some(told),
            }
            if spool.knows(&scope)
                && let Some(told) = self.repeated(scope).await
            {
                return Some(told);
            }
        }
        if spool.waits(&order) {
            // It must not overtake: it is kept as well, or refused.
            return Some(match self.keep(Refusal::NoRegion).await {
                Some(told) => told,
                None => self.refuse(Refusal::NoRegion).await,
            });
        }
        self.tell_asks();
        None
    }

    /// Stand in line behind the same write, if it is under way.
    async fn in_line(&mut self, scope: Mark) -> Line {
        loop {
            let progress = match self.worker.once.enter(scope) {
                Place::Lead(lead) => {
                    if let Some(k) = &mut self.keeping {
                        k.lead = Some(lead);
                    }
                    return Line::First;
                }
                Place::Behind(progress) => progress,
            };
            let print = match self.print().await {
                Ok(Some(print)) => print,
                Ok(None) => return Line::Alone,
                Err(fault) => return Line::Told(self.blame(fault).await),
            };
            match self.behind(progress, print).await {
                Some(Follow::Same(said)) => return Line::Told(self.repeat(&said).await),
                Some(Follow::Another) => return Line::Told(self.say(&answer::key_reused()).await),
                Some(Follow::Alone) => return Line::Alone,
                Some(Follow::Again) => {}
                None => return Line::Told(self.say(&answer::in_progress()).await),
            }
        }
    }

    /// Wait for the first one; `None`: it takes longer than this request may.
    async fn behind(&mut self, mut progress: watch::Receiver<(Asks, Fares)>, print: Mark) -> Option<Follow> {
        let until = clock::now() + self.route.deadline;
        loop {
            if let Some(what) = follow(&progress.borrow_and_update(), print) {
                return Some(what);
            }
            let mut changed = std::pin::pin!(progress.changed());
            let woken = poll_fn(|cx| {
                if changed.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(true);
                }
                self.alarm.poll(cx, until).map(|()| false)
            })
            .await;
            if !woken {
                return None;
            }
        }
    }

    /// The answer to a write that was kept before; `None`: it may be tried anew.
    async fn repeated(&mut self, scope: Mark) -> Option<Told> {
        let print = match self.print().await {
            // What cannot be compared is not the one that was kept, which could.
            Ok(None) => return Some(self.say(&answer::key_reused()).await),
            Ok(Some(print)) => print,
            Err(fault) => return Some(self.blame(fault).await),
        };
        let spool = self.keeping.as_ref()?.spool;
        match spool.repeated(scope).await {
            Ok(Some(entry)) if entry.state.answers_repeats() => {
                let reply = if entry.fingerprint == print { keep::kept(&entry) } else { answer::key_reused() };
                Some(self.say(&reply).await)
            }
            Ok(_) => None,
            Err(_) => Some(self.refuse(Refusal::NoRegion).await),
        }
    }

    /// Into the spool; `None`: it cannot be kept.
    pub(super) async fn keep(&mut self, why: Refusal) -> Option<Told> {
        self.keeping.as_ref()?;
        let print = match self.print().await {
            Ok(Some(print)) if !self.upload.has_trailers() => print,
            Ok(_) => return None,
            Err(fault) => return Some(self.blame(fault).await),
        };
        let k = self.keeping.as_ref()?;
        let body: Vec<&[u8]> = self.upload.pieces().collect();
        let write = k.write(self.route, self.request, self.guest, self.ids.request(), print, &body);
        match k.spool.keep(write).await {
            Ok(entry) => Some(self.say(&keep::kept(&entry)).await),
            // It may be on disk, and then it will be replayed.
            Err(Refused::Unknown) => Some(self.refuse(Refusal::UnknownOutcome).await),
            Err(Refused::Full | Refused::Busy | Refused::Trouble(_)) => {
                tracing::debug!("a write was not kept ({})", why.reason());
                None
            }
        }
    }

    async fn refuse(&mut self, why: Refusal) -> Told {
        let plan = fallback::decide(self.route, why, self.machine.facts(), &mut self.worker.dice.borrow_mut());
        self.say(&Reply::from(plan.answer)).await
    }

    /// The body, to its end; `Ok(false)`: it is too large to be kept.
    async fn whole(&mut self) -> Result<bool, Fault> {
        let mut at = 0;
        loop {
            if !self.upload.is_kept() {
                return Ok(false);
            }
            let (upload, down, alarm) = (&mut self.upload, &mut self.down, &mut *self.alarm);
            let part = poll_fn(|cx| {
                loop {
                    if let Poll::Ready(part) = upload.poll(at, down, cx) {
                        return Poll::Ready(part);
                    }
                    if matches!(down.poll_flush(cx), Poll::Ready(Err(_))) {
                        return Poll::Ready(Err(Fault::Gone));
                    }
                    ready!(alarm.poll(cx, upload.due()));
                    upload.judge(clock::now());
                }
            });
            match part.await? {
                Part::Data(_) => at += 1,
                Part::End(_) => return Ok(self.upload.is_kept()),
            }
        }
    }

    /// What the request asks for; `Ok(None)`: its body is too large to say.
    async fn print(&mut self) -> Result<Option<Mark>, Fault> {
        let whole = self.whole().await?;
        self.tell_asks();
        Ok(whole.then(|| self.fingerprint()))
    }

    fn fingerprint(&self) -> Mark {
        fingerprint(self.request.method_text(), &keep::target(self.request), self.upload.pieces())
    }

    /// Tell those who stand behind what this request asks for, as soon as that is known.
    pub(super) fn tell_asks(&self) {
        let Some(lead) = self.keeping.as_ref().and_then(|k| k.lead.as_ref()) else { return };
        if !self.upload.is_kept() {
            lead.asks(Asks::TooMuch);
        } else if self.upload.complete() {
            lead.asks(Asks::For(self.fingerprint()));
        }
    }

    /// The answer that the same write was given.
    async fn repeat(&mut self, said: &Arc<Said>) -> Told {
        let first_byte = clock::now();
        self.upload.let_go();
        self.down.head(&said.head, &self.route.response_headers, None);
        let early = Box::new(Early { body: said.body.clone(), ended: true, trailers: None });
        let idle = self.route.idle_timeout;
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
            status: said.head.status,
            outcome: if said.head.status >= 400 { RequestOutcome::ClientError } else { RequestOutcome::Ok },
            answered_by: None,
            first_byte: Some(first_byte),
            sent: relayed.sent,
            why: Some("the same write was under way"),
        }
    }
}

/// Where a write stands among those of its scope.
enum Line {
    First,
    /// It cannot be compared.
    Alone,
    Told(Told),
}
