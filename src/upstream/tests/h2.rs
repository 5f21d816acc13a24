//! Shared connections, in virtual time: the far ends are the protocol library's own server, or hands that write what it never would.

use super::*;
use crate::http1::Head;
use crate::model::topology::Protocol;
use ::h2::server::{self, Connection, SendResponse};
use ::h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use std::future::poll_fn;
use std::task::Poll;
use tokio::task::{LocalSet, spawn_local};

type Asked = (Request<RecvStream>, SendResponse<Bytes>);
type Far = Connection<DuplexStream, Bytes>;

fn h2_target() -> Target {
    Target { protocol: Protocol::H2, ..nowhere() }
}

/// A far end that takes so many streams at once.
async fn far(pipes: &Pipes, streams: u32) -> Far {
    server::Builder::new().max_concurrent_streams(streams).initial_window_size(10).handshake(pipes.end()).await.unwrap()
}

/// The next request; the connection is driven until it comes.
async fn next(far: &mut Far) -> Asked {
    far.accept().await.unwrap().unwrap()
}

/// Drives a far end in the background, from now on for good. It answers nothing more.
fn drive(mut far: Far) {
    spawn_local(async move {
        let mut kept = Vec::new();
        while let Some(asked) = far.accept().await {
            kept.push(asked);
        }
    });
}

async fn call(pool: &Pool, to: &Target, begin: Begin) -> Conn {
    let mut conn = pool.checkout(to).await.unwrap();
    conn.begin(begin);
    poll_fn(|cx| {
        let _ = conn.poll_event(cx);
        Poll::Ready(())
    })
    .await;
    conn
}

fn answer(respond: &mut SendResponse<Bytes>, status: u16) {
    respond.send_response(Response::builder().status(status).body(()).unwrap(), true).unwrap();
}

async fn world<T>(test: impl Future<Output = T>) -> T {
    LocalSet::new().run_until(test).await
}

#[tokio::test(start_paused = true)]
async fn a_burst_shares_one_connection_and_what_has_no_room_opens_another() {
    world(async {
        let pipes = Pipes::default();
        let pool = Rc::new(Pool::new(pipes.clone()));
        let to = h2_target();
        let burst: Vec<_> = (0..20)
            .map(|_| {
                let (pool, to) = (pool.clone(), to.clone());
                spawn_local(async move { call(&pool, &to, get()).await })
            })
            .collect();
        let mut calls = Vec::new();
        for one in burst {
            calls.push(one.await.unwrap());
        }
        assert_eq!((pool.counts().dialled, pool.shared(7)), (1, 1));
        let mut first = far(&pipes, 20).await;
        for _ in 0..20 {
            let (request, mut respond) = next(&mut first).await;
            assert_eq!((request.uri().to_string(), request.method().as_str()), ("http://a/".into(), "GET"));
            answer(&mut respond, 204);
        }
        drive(first);
        for mut conn in calls.drain(..10) {
            assert_eq!(story(&mut conn).await, ["head 204", "end"]);
        }
        assert!(calls[0].event().await.is_ok());
        // Ten places are free again, the eleventh finds none.
        for _ in 0..10 {
            calls.push(call(&pool, &to, get()).await);
        }
        assert_eq!(pool.counts().dialled, 1);
        calls.push(call(&pool, &to, get()).await);
        assert_eq!((pool.counts().dialled, pool.shared(7)), (2, 2));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn both_directions_run_interleaved_with_trailers_at_their_ends() {
    world(async {
        let pipes = Pipes::default();
        let pool = Pool::new(pipes.clone());
        let mut conn =
            call(&pool, &h2_target(), begin("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", BodyFraming::Chunked))
                .await;
        let mut there = far(&pipes, 10).await;
        let (request, mut respond) = next(&mut there).await;
        assert!(!request.headers().contains_key("transfer-encoding"));
        drive(there);
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        let mut up = request.into_body();
        assert!(matches!(conn.event().await, Ok(Event::Head(h)) if h.status == 200));
        for round in ["one", "two", "three"] {
            conn.push(Bytes::from(round)).unwrap();
            assert!(matches!(conn.event().await, Ok(Event::Flushed)));
            let got = up.data().await.unwrap().unwrap();
            up.flow_control().release_capacity(got.len()).unwrap();
            assert_eq!(got, round);
            body.send_data(got, false).unwrap();
            assert!(matches!(conn.event().await, Ok(Event::Data(d)) if d == round));
        }
        assert_eq!(conn.sent(), Sent::Incomplete);
        let mut trailers = Head::default();
        trailers.append("x-sum", "42");
        conn.finish(Some(&trailers)).unwrap();
        let mut home = HeaderMap::new();
        home.insert("grpc-status", "0".parse().unwrap());
        body.send_trailers(home).unwrap();
        let Ok(Event::End(Some(got))) = conn.event().await else { panic!() };
        assert_eq!(got.get("grpc-status"), Some(&b"0"[..]));
        assert!(up.data().await.is_none());
        assert_eq!(up.trailers().await.unwrap().unwrap()["x-sum"], "42");
        assert_eq!(conn.sent(), Sent::Complete);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_the_peer_has_not_looked_at_counts_as_not_sent() {
    world(async {
        let pipes = Pipes::default();
        let pool = Pool::new(pipes.clone());
        let to = h2_target();
        let mut refused = call(&pool, &to, get()).await;
        let mut there = far(&pipes, 10).await;
        let (_, mut respond) = next(&mut there).await;
        respond.send_reset(Reason::REFUSED_STREAM);
        let mut slow = call(&pool, &to, get()).await;
        assert_eq!((slow.sent(), pool.counts().dialled), (Sent::Complete, 1));
        let (_, mut slowly) = next(&mut there).await;
        assert_eq!(story(&mut refused).await, ["the stream was refused"]);
        assert_eq!(refused.sent(), Sent::Nothing);
        // GOAWAY: what was accepted is finished, what comes later goes to a fresh connection.
        there.graceful_shutdown();
        drive(there);
        tokio::time::sleep(Duration::from_millis(1)).await;
        let after = call(&pool, &to, get()).await;
        assert_eq!((after.sent(), pool.counts().dialled), (Sent::Complete, 2));
        answer(&mut slowly, 200);
        assert_eq!(story(&mut slow).await, ["head 200", "end"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_above_the_last_one_of_goaway_was_not_seen() {
    world(async {
        let pipes = Pipes::default();
        let pool = Pool::new(pipes.clone());
        let to = h2_target();
        let mut seen = call(&pool, &to, get()).await;
        let mut unseen = call(&pool, &to, get()).await;
        let mut end = pipes.end();
        // SETTINGS; GOAWAY with last stream 1 and NO_ERROR; then the connection breaks.
        end.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        end.write_all(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]).await.unwrap();
        assert_eq!(story(&mut unseen).await, ["the peer takes no more requests on this connection"]);
        assert_eq!(unseen.sent(), Sent::Nothing);
        assert!(pool.reuse(&to).is_none());
        drop(end);
        assert!(story(&mut seen).await[0].starts_with("connection broke"));
        assert_eq!(seen.sent(), Sent::Complete);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_broken_answer_is_not_taken_for_a_whole_one() {
    world(async {
        let pipes = Pipes::default();
        let pool = Pool::new(pipes.clone());
        let to = h2_target();
        let mut there = None;
        for how in ["reset", "short", "gone"] {
            let mut conn = call(&pool, &to, get()).await;
            if there.is_none() {
                there = Some(far(&pipes, 10).await);
            }
            let (_, mut respond) = next(there.as_mut().unwrap()).await;
            let head = Response::builder().header("content-length", 9).body(()).unwrap();
            let mut body = respond.send_response(head, false).unwrap();
            body.send_data("four".into(), how == "short").unwrap();
            let mut connection = there.take();
            if how != "gone" {
                let mut held = connection.take().unwrap();
                poll_fn(|cx| {
                    let _ = held.poll_accept(cx);
                    Poll::Ready(())
                })
                .await;
                there = Some(held);
            } else {
                poll_fn(|cx| {
                    let _ = connection.as_mut().unwrap().poll_accept(cx);
                    Poll::Ready(())
                })
                .await;
            }
            assert!(matches!(conn.event().await, Ok(Event::Head(_))), "{how}");
            if how == "reset" {
                body.send_reset(Reason::INTERNAL_ERROR);
                let held = there.as_mut().unwrap();
                poll_fn(|cx| {
                    let _ = held.poll_accept(cx);
                    Poll::Ready(())
                })
                .await;
            }
            drop(connection);
            let told = story(&mut conn).await;
            assert_eq!(told.last().unwrap(), "answer broke off", "{how}: {told:?}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_all_there_follows_its_head() {
    world(async {
        let pipes = Pipes::default();
        let pool = Pool::new(pipes.clone());
        let mut conn = pool.checkout(&h2_target()).await.unwrap();
        conn.begin(begin("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", BodyFraming::Chunked));
        conn.push("hi".into()).unwrap();
        conn.finish(None).unwrap();
        tokio::select! { _ = conn.event() => panic!(), () = tokio::time::sleep(Duration::from_millis(1)) => {} }
        let mut there = far(&pipes, 10).await;
        let (request, _respond) = next(&mut there).await;
        drive(there);
        let mut up = request.into_body();
        assert_eq!(up.data().await.unwrap().unwrap(), "hi");
        assert!(up.data().await.is_none());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_end_is_held_until_it_is_released() {
    world(async {
        let pipes = Pipes::default();
        let pool = Pool::new(pipes.clone());
        let to = h2_target();
        for (text, framing, body) in [
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n", BodyFraming::Length(3), "abc"),
            ("DELETE / HTTP/1.1\r\nHost: a\r\n\r\n", BodyFraming::None, ""),
        ] {
            let mut conn = call(&pool, &to, Begin { hold: true, ..begin(text, framing) }).await;
            conn.push(body.into()).unwrap();
            let mut there = far(&pipes, 10).await;
            let (request, _respond) = next(&mut there).await;
            drive(there);
            assert!(matches!(conn.event().await, Ok(Event::Flushed)));
            assert!(conn.is_held());
            assert_eq!(conn.sent(), Sent::Incomplete);
            let mut up = request.into_body();
            if !body.is_empty() {
                assert_eq!(up.data().await.unwrap().unwrap(), body);
            }
            assert!(!up.is_end_stream());
            conn.release();
            tokio::select! { _ = conn.event() => {}, () = tokio::time::sleep(Duration::from_millis(1)) => {} }
            assert_eq!(conn.sent(), Sent::Complete);
            assert!(up.data().await.is_none_or(|d| d.unwrap().is_empty()));
            pool.drop_endpoint(7);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_says_nothing_is_left_and_then_given_up() {
    world(async {
        let pipes = Pipes::default();
        let pool = Pool::new(pipes.clone());
        let to = h2_target();
        let mut stuck = call(&pool, &to, get()).await;
        let _black_hole = pipes.end();
        let asked = crate::clock::now();
        tokio::time::sleep(Duration::from_millis(400)).await;
        let also = call(&pool, &to, get()).await;
        assert_eq!(pool.counts().dialled, 1, "a pause is no death");
        tokio::time::sleep(Duration::from_millis(150)).await;
        let fresh = call(&pool, &to, get()).await;
        assert_eq!(pool.counts().dialled, 2);
        let told = story(&mut stuck).await;
        assert!(told[0].starts_with("connection broke"), "{told:?}");
        let took = crate::clock::now().since(asked).as_millis();
        assert!((5200..5400).contains(&took), "{took}");
        drop((also, fresh));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_granted_as_it_is_taken_and_a_body_goes_out_as_it_is_granted() {
    world(async {
        let pipes = Pipes::default();
        let pool = Pool::new(pipes.clone());
        let to = h2_target();
        let head = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n";
        let mut conn = call(&pool, &to, begin(head, BodyFraming::Length(100_000))).await;
        let mut there = far(&pipes, 10).await;
        let (request, mut respond) = next(&mut there).await;
        drive(there);
        conn.push(Bytes::from(vec![1; 70_000])).unwrap();
        tokio::select! { e = conn.event() => panic!("{e:?}"), () = tokio::time::sleep(Duration::from_millis(5)) => {} }
        assert!(!conn.wants_body() && conn.backlog() == 70_000 - 10, "the peer's window is ten bytes: {}", conn.backlog());
        drop(request);
        // Two answers at once; nobody reads the first, and the second comes through nevertheless.
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        body.reserve_capacity(10 << 20);
        tokio::time::sleep(Duration::from_millis(5)).await;
        body.send_data(Bytes::from(vec![2; 1 << 20]), false).unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        let mut second = call(&pool, &to, get()).await;
        assert_eq!(pool.counts().dialled, 1);
        tokio::select! { e = second.event() => panic!("{e:?}"), () = tokio::time::sleep(Duration::from_millis(5)) => {} }
        let mut taken = 0;
        loop {
            match conn.event().await {
                Ok(Event::Data(data)) => taken += data.len(),
                Ok(_) => {}
                Err(e) => panic!("{e}"),
            }
            if taken == 1 << 20 {
                break;
            }
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn another_epoch_gets_a_fresh_connection_and_streams_run_on() {
    world(async {
        let pipes = Pipes::default();
        let pool = Pool::new(pipes.clone());
        let old = h2_target();
        let mut running = call(&pool, &old, get()).await;
        let mut there = far(&pipes, 10).await;
        let (_, mut respond) = next(&mut there).await;
        drive(there);
        let new = Target { epoch: 2, ..old.clone() };
        assert!(pool.reuse(&new).is_none());
        pool.retain(|_, epoch| epoch == 2);
        assert_eq!(pool.shared(7), 0);
        let _fresh = call(&pool, &new, get()).await;
        assert_eq!(pool.counts().dialled, 2);
        answer(&mut respond, 200);
        assert_eq!(story(&mut running).await, ["head 200", "end"]);
    })
    .await;
}
