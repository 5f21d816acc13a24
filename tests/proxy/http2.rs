//! Backends that speak HTTP/2, and gRPC.

use crate::world::{World, until};
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What an origin does with a request: its path says.
async fn serve(name: &'static str, request: Request<RecvStream>, mut respond: SendResponse<Bytes>, asked: Arc<AtomicUsize>) {
    let path = request.uri().path().to_owned();
    let nth = asked.fetch_add(1, Relaxed);
    let grpc = |code: &str| {
        let mut map = HeaderMap::new();
        map.insert("grpc-status", HeaderValue::from_str(code).unwrap());
        map
    };
    let mut body = request.into_body();
    let mut got = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        got.extend_from_slice(&data);
    }
    let mut head = Response::new(());
    match path.as_str() {
        "/hang" => std::future::pending().await,
        "/refuse" if nth == 0 => respond.send_reset(Reason::REFUSED_STREAM),
        "/unavailable" if name == "east" => {
            head.headers_mut().extend(grpc("14"));
            respond.send_response(head, true).unwrap();
        }
        "/break" => {
            let mut out = respond.send_response(head, false).unwrap();
            out.send_data("half".into(), false).unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            out.send_reset(Reason::INTERNAL_ERROR);
        }
        "/empty" => drop(respond.send_response(head, true).unwrap()),
        _ => {
            let mut out = respond.send_response(head, false).unwrap();
            out.send_data(format!("{name} got {}", String::from_utf8_lossy(&got)).into(), false).unwrap();
            out.send_trailers(grpc("0")).unwrap();
        }
    }
}

struct Origin {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

fn origin(name: &'static str) -> Origin {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let told = Origin { address: listener.local_addr().unwrap(), asked: Arc::default(), connections: Arc::default() };
    let (asked, connections) = (told.asked.clone(), told.connections.clone());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((socket, _)) = listener.accept().await {
                connections.fetch_add(1, Relaxed);
                let asked = asked.clone();
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(socket).await.unwrap();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(serve(name, request, respond, asked.clone()));
                    }
                });
            }
        });
    });
    told
}

fn world(east: SocketAddr, west: SocketAddr, route: &str) -> World {
    World::of(&format!(
        "version: 1\nlisteners: [{{address: 127.0.0.1:0}}]\nadmin: null\nregions: {{east: {{weight: 100}}, west: {{tier: 2}}}}\n\
         services: {{app: {{protocol: h2, health: null, idle_connections: {{warm: 0}}, \
         pools: {{east: {{endpoints: [\"{east}\"]}}, west: {{endpoints: [\"{west}\"]}}}}}}}}\n\
         routes: [{{name: all, match: {{path_prefix: /}}, service: app, {route}}}]\n"
    ))
}

/// A call over HTTP/1.1, and everything that came back, trailers included.
fn call(world: &World, path: &str, more: &str) -> String {
    let mut client = world.client();
    client.send(format!(
        "POST {path} HTTP/1.1\r\nHost: t.test\r\nConnection: close, te\r\nTE: trailers\r\nContent-Type: application/grpc\r\n{more}Content-Length: 3\r\n\r\nabc"
    ));
    let mut text = String::new();
    client.socket.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn requests_share_connections_and_trailers_come_home() {
    let (east, west) = (origin("east"), origin("west"));
    let world = world(east.address, west.address, "deadline: 5s");
    let answer = call(&world, "/x", "");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("east got abc") && answer.ends_with("0\r\ngrpc-status: 0\r\n\r\n"), "{answer}");
    assert!(answer.contains("Via: 2 evenkeel"), "{answer}");
    for _ in 0..20 {
        assert_eq!(world.get("/x").text(), "east got ");
    }
    assert_eq!(world.get("/empty").field("content-length").as_deref(), Some("0"));
    assert!(east.connections.load(Relaxed) <= 2, "one for each worker at most");
    assert_eq!(world.get("/break").end, crate::world::End::Truncated);
}

#[test]
fn what_was_refused_unseen_is_sent_once_more_even_a_write() {
    let (east, west) = (origin("east"), origin("west"));
    let world = world(east.address, west.address, "deadline: 5s");
    let answer = call(&world, "/refuse", "");
    assert!(answer.contains("got abc"), "{answer}");
    assert_eq!(east.asked.load(Relaxed) + west.asked.load(Relaxed), 2);
}

#[test]
fn a_status_in_the_head_is_an_outcome() {
    let (east, west) = (origin("east"), origin("west"));
    let world = world(east.address, west.address, "deadline: 5s, retry: {writes: idempotency_key}");
    let answer = call(&world, "/unavailable", "Idempotency-Key: k\r\n");
    assert!(answer.contains("west got abc"), "a call that may be repeated is: {answer}");
    let answer = call(&world, "/unavailable", "");
    assert!(answer.contains("grpc-status: 14"), "one that may not tells the truth: {answer}");
    // Failures all the same: the endpoint is left alone after a few.
    until("east is out", || call(&world, "/unavailable", "").contains("west got abc"));
}

#[test]
fn deadlines_of_clients_hold_and_refusals_are_said_in_terms_of_grpc() {
    let (east, west) = (origin("east"), origin("west"));
    let world = world(east.address, west.address, "deadline: 5s, attempt_timeout: 5s");
    let began = Instant::now();
    let answer = call(&world, "/hang", "grpc-timeout: 200m\r\n");
    let took = began.elapsed();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("grpc-status: 4\r\n"), "{answer}");
    assert!(took > Duration::from_millis(190) && took < Duration::from_secs(3), "{took:?}");
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = self::world(gone, gone, "deadline: 1s");
    let answer = call(&nobody, "/x", "");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("grpc-status: 14\r\n"), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("evenkeel-degraded: unavailable"), "{answer}");
}
