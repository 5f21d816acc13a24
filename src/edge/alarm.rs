//! One timer for everything a connection waits for.
//!
//! Arming a tokio timer takes the runtime's timer lock, and a busy connection would arm and disarm one several times per
//! request. So the alarm is lazy: it stays armed at some moment not later than the one wanted, and only when it
//! goes off is the real moment looked at. A connection that answers thousands of requests a second re-arms it a few dozen times.

use crate::clock;
use crate::model::time::Moment;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::time::Sleep;

/// A lazy timer; see the module.
#[derive(Debug)]
pub(crate) struct Alarm {
    sleep: Pin<Box<Sleep>>,
    armed: Moment,
}

impl Alarm {
    pub(crate) fn new() -> Self {
        let armed = clock::now() + std::time::Duration::from_secs(1);
        Self { sleep: Box::pin(clock::sleep_until(armed)), armed }
    }

    /// Ready once `at` has passed. [`Moment::FAR`] never does.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, at: Moment) -> Poll<()> {
        if at == Moment::FAR {
            return Poll::Pending;
        }
        if at < self.armed {
            self.arm(at);
        }
        while self.sleep.as_mut().poll(cx).is_ready() {
            let now = clock::now();
            if now >= at {
                // A sleep that is over must not be polled again before it is armed anew.
                self.arm(now + std::time::Duration::from_secs(1));
                return Poll::Ready(());
            }
            self.arm(at);
        }
        Poll::Pending
    }

    fn arm(&mut self, at: Moment) {
        self.armed = at;
        self.sleep.as_mut().reset(clock::instant(at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn goes_off_at_the_moment_wanted_whatever_was_wanted_before() {
        let mut alarm = Alarm::new();
        let start = clock::now();
        for (want, after) in [(5000, 5000), (5010, 5010), (5005, 5010), (9000, 9000)] {
            let at = start + Duration::from_millis(want);
            poll_fn(|cx| alarm.poll(cx, at)).await;
            let past = clock::now().since(start).as_millis();
            assert!((after..after + 3).contains(&past), "wanted {want}, went off at {past}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_moment_replaces_a_later_one() {
        let mut alarm = Alarm::new();
        let start = clock::now();
        let far = start + Duration::from_secs(60);
        poll_fn(|cx| {
            assert!(alarm.poll(cx, far).is_pending());
            assert!(alarm.poll(cx, Moment::FAR).is_pending());
            Poll::Ready(())
        })
        .await;
        poll_fn(|cx| alarm.poll(cx, start + Duration::from_millis(20))).await;
        assert!(clock::now().since(start) < Duration::from_millis(30));
    }
}
