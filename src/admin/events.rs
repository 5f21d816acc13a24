//! `GET /v1/events`: the journal as it happens, as server-sent events.
//!
//! A reader that falls behind is told how much it missed and let go; it connects again and asks for status.

use crate::clock::stamp;
use crate::journal::Record;
use crate::model::event::Event;
use crate::model::time::Duration;
use axum::response::sse;
use futures_util::{Stream, stream};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, broadcast};

/// Comments in between keep proxies from cutting a quiet stream, and show us who is gone.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Browsers wait this long before they connect again.
const RETRY: Duration = Duration::from_secs(1);

/// The stream of one reader; `permit` is given back when it ends.
pub fn follow(
    edge: String,
    events: broadcast::Receiver<Arc<Event>>,
    permit: OwnedSemaphorePermit,
) -> sse::Sse<sse::KeepAliveStream<impl Stream<Item = Result<sse::Event, Infallible>>>> {
    let hello = stream::once(async { Ok(sse::Event::default().retry(RETRY).comment("connected")) });
    let rest = stream::unfold(Some((events, permit)), move |state| {
        let edge = edge.clone();
        async move {
            let (mut events, permit) = state?;
            match events.recv().await {
                Ok(event) => Some((Ok(told(&edge, &event)), Some((events, permit)))),
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    let text = format!(r#"{{"missed":{missed}}}"#);
                    Some((Ok(sse::Event::default().event("lagged").data(text)), None))
                }
                Err(broadcast::error::RecvError::Closed) => None,
            }
        }
    });
    sse::Sse::new(stream::StreamExt::chain(hello, rest)).keep_alive(sse::KeepAlive::new().interval(HEARTBEAT).text("still here"))
}

fn told(edge: &str, event: &Event) -> sse::Event {
    let record = Record { time: crate::clock::wall(event.at), edge: edge.into(), lost: 0, event: event.clone() };
    let data = serde_json::to_string(&record).unwrap_or_else(|_| format!(r#"{{"time":"{}"}}"#, stamp(record.time)));
    sse::Event::default().event(event.kind.name()).id(event.seq.to_string()).data(data)
}
