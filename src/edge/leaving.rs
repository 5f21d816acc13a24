//! Moving long answers and tunnels out of a region that operators drain.
//!
//! A drained region gets nothing new, but a WebSocket or an event stream may live for hours. So whoever is on one looks
//! round every [`LOOK`], and once its region is found drained, ends within `edge.drain_timeout`: each at a moment of its own in the
//! second half of that time, so that their clients, who come back to another region, do not come as one wave. Undrained
//! before that, it stays.
//!
//! A tripped region is another matter: what still moves there is left alone.

use super::worker::Worker;
use crate::clock;
use crate::model::time::{Duration, Moment};

/// How often a long answer looks whether its region is drained. It costs a timer and a look at the picture.
const LOOK: Duration = Duration::from_secs(2);

/// One answer's, or tunnel's, part in it.
pub(super) struct Leaving<'w> {
    worker: &'w Worker,
    /// Of the pool that answers, across configs. `None`: nobody's answer, e.g. a copy.
    pool: Option<&'w str>,
    /// `ZERO`: it has not come to waiting yet.
    look: Moment,
    until: Option<Moment>,
}

impl<'w> Leaving<'w> {
    pub(super) fn new(worker: &'w Worker, pool: Option<&'w str>) -> Self {
        Self { worker, pool, look: if pool.is_some() { Moment::ZERO } else { Moment::FAR }, until: None }
    }

    /// When [`Leaving::over`] is to be asked.
    pub(super) fn due(&mut self) -> Moment {
        if self.look == Moment::ZERO {
            self.look = clock::now() + LOOK;
        }
        self.look
    }

    /// Whether its time is over.
    pub(super) fn over(&mut self, now: Moment) -> bool {
        if now < self.look {
            return false;
        }
        self.look = now + LOOK;
        match (self.drained(), self.until) {
            (None, _) => self.until = None,
            (Some(time), None) => {
                let spread = self.worker.dice.borrow_mut().between(time / 2, time);
                let until = now + spread;
                self.until = Some(until);
                self.look = self.look.min(until);
            }
            (Some(_), Some(until)) if now >= until => return true,
            (Some(_), Some(until)) => self.look = self.look.min(until),
        }
        false
    }

    /// `Some`: its pool is drained, or no longer in the config, and has so much time.
    fn drained(&self) -> Option<Duration> {
        let name = self.pool?;
        let picture = self.worker.published.load();
        let t = picture.view.topology();
        let drained = t.pools.iter().position(|p| *p.name == *name).is_none_or(|i| picture.view.pools[i].drained);
        drained.then_some(t.edge.drain_timeout)
    }
}
