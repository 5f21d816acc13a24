//! The same write twice at once: the second waits for the answer of the first instead of being a second write.
//!
//! Impatient people and clients with short timeouts send a write again while the first is still under way, and in an outage everything is
//! still under way. Where a route keeps writes (`degrade: [spool: …]`), writes of the same scope (route, client, key) are
//! one: the first leads, the others read their bodies and stand behind it. Another body under the same key is told so (422) by whoever
//! has both bodies. When the leader's answer can be shared (any backend's answer below 500 that fits), all get it; otherwise they look
//! again: one of them leads, or finds that the write was kept meanwhile.
//!
//! The client is part of the scope, so nobody is ever given what another one was answered.
//! One lock a write on such routes, held for a table look-up.

use crate::http1::ResponseHead;
use crate::spool::Mark;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::watch;

/// The largest body that is shared.
pub(super) const SHARED: u64 = 1 << 20;

/// What the leader asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    /// Its body is still coming in.
    Unknown,
    /// This.
    For(Mark),
    /// Its body was too large to be compared.
    TooMuch,
}

/// How the leader fares.
#[derive(Clone, Debug)]
pub(super) enum Fares {
    UnderWay,
    Answered(Arc<Said>),
    /// It ended without an answer that can be shared.
    Over,
}

/// An answer to share.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) head: ResponseHead,
    pub(super) body: Bytes,
}

type Progress = (Asks, Fares);

/// The writes under way, by scope.
#[derive(Debug, Default)]
pub(crate) struct Once(Mutex<HashMap<Mark, watch::Receiver<Progress>>>);

/// A place in the table.
pub(super) enum Place {
    /// Go ahead.
    Lead(Lead),
    /// Somebody is there already.
    Behind(watch::Receiver<Progress>),
}

impl Once {
    pub(super) fn enter(self: &Arc<Self>, scope: Mark) -> Place {
        let mut table = self.0.lock();
        if let Some(leader) = table.get(&scope) {
            return Place::Behind(leader.clone());
        }
        let (progress, seen) = watch::channel((Asks::Unknown, Fares::UnderWay));
        table.insert(scope, seen);
        Place::Lead(Lead { table: self.clone(), scope, progress })
    }
}

/// The first of its scope. Leaves the table when dropped.
#[derive(Debug)]
pub(super) struct Lead {
    table: Arc<Once>,
    scope: Mark,
    progress: watch::Sender<Progress>,
}

impl Lead {
    pub(super) fn asks(&self, asks: Asks) {
        self.progress.send_if_modified(|p| std::mem::replace(&mut p.0, asks) != asks);
    }
    pub(super) fn answered(&self, said: Said) {
        self.progress.send_modify(|p| p.1 = Fares::Answered(Arc::new(said)));
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.table.0.lock().remove(&self.scope);
        self.progress.send_modify(|p| {
            if matches!(p.1, Fares::UnderWay) {
                p.1 = Fares::Over;
            }
        });
    }
}

/// What is to be done by one who stands behind, and asks for `mine`; `None`: wait.
pub(super) fn follow((asks, fares): &Progress, mine: Mark) -> Option<Follow> {
    match (asks, fares) {
        (Asks::For(theirs), _) if *theirs != mine => Some(Follow::Another),
        (Asks::For(_), Fares::Answered(said)) => Some(Follow::Same(said.clone())),
        (Asks::TooMuch, Fares::UnderWay) => Some(Follow::Alone),
        (Asks::Unknown | Asks::For(_), Fares::UnderWay) => None,
        (_, Fares::Over | Fares::Answered(_)) => Some(Follow::Again),
    }
}

/// What one who stands behind does.
#[derive(Clone, Debug)]
pub(super) enum Follow {
    /// Give this answer.
    Same(Arc<Said>),
    /// Say that the key stands for another write.
    Another,
    /// Look again.
    Again,
    /// Go on alone: the two cannot be compared, and the backend knows the key.
    Alone,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said() -> Said {
        let mut raw = bytes::BytesMut::from("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
        let head = crate::http1::ResponseParser::new(false, false).parse(&mut raw).unwrap().unwrap();
        Said { head, body: Bytes::new() }
    }

    #[test]
    fn one_leads_and_its_answer_goes_to_those_who_ask_the_same() {
        let once = Arc::<Once>::default();
        let Place::Lead(lead) = once.enter([1; 16]) else { panic!("the first leads") };
        let Place::Behind(behind) = once.enter([1; 16]) else { panic!("the second does not") };
        assert!(matches!(once.enter([2; 16]), Place::Lead(_)), "another scope is another matter");
        assert!(follow(&behind.borrow(), [7; 16]).is_none(), "nothing is known yet");
        lead.asks(Asks::For([7; 16]));
        assert!(follow(&behind.borrow(), [7; 16]).is_none());
        assert!(matches!(follow(&behind.borrow(), [8; 16]), Some(Follow::Another)));
        lead.answered(said());
        drop(lead);
        assert!(matches!(follow(&behind.borrow(), [7; 16]), Some(Follow::Same(s)) if s.head.status == 201));
        assert!(matches!(follow(&behind.borrow(), [8; 16]), Some(Follow::Another)));
        assert!(matches!(once.enter([1; 16]), Place::Lead(_)), "it is over");
    }

    #[test]
    fn an_end_without_an_answer_lets_another_one_try() {
        let once = Arc::<Once>::default();
        let Place::Lead(lead) = once.enter([1; 16]) else { panic!("the first leads") };
        let Place::Behind(behind) = once.enter([1; 16]) else { panic!("the second does not") };
        lead.asks(Asks::TooMuch);
        assert!(matches!(follow(&behind.borrow(), [7; 16]), Some(Follow::Alone)));
        drop(lead);
        assert!(matches!(follow(&behind.borrow(), [7; 16]), Some(Follow::Again)));
    }
}
