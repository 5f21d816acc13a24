//! What goes right: messages as they pass through, connections as they are kept and closed.

use crate::origin::Origin;
use crate::world::{Client, End, Wishes, World, until};
use std::time::{Duration, Instant};

#[test]
fn a_request_and_its_answer_pass_with_what_the_way_adds() {
    let origin = Origin::named("east");
    let world = World::one(origin.address);
    let answer = world.get("/a?b=c");
    assert_eq!((answer.status, answer.text(), answer.end), (200, "east", End::Complete));
    assert_eq!(answer.field("via").as_deref(), Some("1.1 evenkeel"));
    let seen = &origin.seen()[0];
    assert_eq!(seen.line, "GET /a?b=c");
    assert_eq!(
        (seen.field("host"), seen.field("x-forwarded-for"), seen.field("x-forwarded-proto")),
        ("t.test".into(), "127.0.0.1".into(), "http".into())
    );
    assert_eq!(seen.field("x-request-id").len(), 32);
    assert!(seen.field("traceparent").starts_with(&format!("00-{}", seen.field("x-request-id"))));
}

#[test]
fn connections_are_kept_on_both_sides() {
    let origin = Origin::named("east");
    let world = World::one(origin.address);
    let mut client = world.client();
    for i in 0..20 {
        client.send(format!("GET /{i} HTTP/1.1\r\nHost: t.test\r\n\r\n"));
        assert_eq!(client.answer().status, 200);
    }
    assert_eq!((origin.seen().len(), origin.connections()), (20, 1));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::new(|request, peer| {
        peer.ok(&request.line);
        true
    });
    let world = World::one(origin.address);
    let mut client = world.client();
    let all: String = (0..8).map(|i| format!("GET /{i} HTTP/1.1\r\nHost: t.test\r\n\r\n")).collect();
    client.send(all);
    for i in 0..8 {
        assert_eq!(client.answer().text(), format!("GET /{i}"));
    }
}

#[test]
fn large_bodies_pass_whole_both_ways_at_once() {
    let origin = Origin::raw(|request, peer| {
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let mut left: usize = request.field("content-length").parse().unwrap();
        while left > 0 && peer.fill() {
            let piece = peer.take();
            left -= piece.len();
            peer.send(format!("{:x}\r\n", piece.len()));
            peer.send(&piece);
            peer.send("\r\n");
        }
        peer.send("0\r\n\r\n");
        true
    });
    let world = World::one(origin.address);
    let body: Vec<u8> = (0..8 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut client = world.client();
    client.send(format!("POST /echo HTTP/1.1\r\nHost: t.test\r\nContent-Length: {}\r\n\r\n", body.len()));
    let (mut socket, sent) = (client.socket.try_clone().unwrap(), body.clone());
    let sender = std::thread::spawn(move || std::io::Write::write_all(&mut socket, &sent));
    let answer = client.answer();
    sender.join().unwrap().unwrap();
    assert_eq!(answer.end, End::Complete);
    assert!(answer.body == body, "{} of {} bytes", answer.body.len(), body.len());
}

#[test]
fn a_client_that_does_not_read_stops_the_origin() {
    let taken = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = taken.clone();
    let origin = Origin::new(move |_, peer| {
        peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 256 << 20));
        peer.socket.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        let block = vec![0; 1 << 20];
        while std::io::Write::write_all(&mut peer.socket, &block).is_ok() {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        false
    });
    let world = World::one(origin.address);
    let mut client = world.client();
    client.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
    let mut before = usize::MAX;
    until("the origin stops sending", || {
        std::thread::sleep(Duration::from_millis(600));
        let now = taken.load(std::sync::atomic::Ordering::Relaxed);
        std::mem::replace(&mut before, now) == now
    });
    assert!(before < 32, "{before} MiB were taken for a client that reads nothing");
}

#[test]
fn heads_do_not_wait_for_bodies() {
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let told = std::sync::Mutex::new(told);
    let origin = Origin::new(move |_, peer| {
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
        told.lock().unwrap().recv().unwrap();
        peer.send("ok");
        true
    });
    let world = World::one(origin.address);
    let mut client = world.client();
    client.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 200"));
    tell.send(()).unwrap();
    until("the body", || client.input == b"ok" || !client.fill());
}

#[test]
fn an_upgrade_becomes_a_tunnel() {
    let origin = Origin::new(|_, peer| {
        peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello ");
        while peer.fill() {
            let said = peer.take();
            peer.send(said);
        }
        false
    });
    let world = World::one(origin.address);
    let mut client = world.client();
    client.send("GET / HTTP/1.1\r\nHost: t.test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 101"));
    client.send("world");
    until("the echo", || client.input == b"hello world" || !client.fill());
    assert_eq!(client.input, b"hello world");
    client.socket.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(client.closed());
}

#[test]
fn draining_finishes_what_is_under_way_and_closes_the_rest() {
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let told = std::sync::Mutex::new(told);
    let origin = Origin::new(move |request, peer| {
        if request.line.ends_with("slow") {
            told.lock().unwrap().recv().unwrap();
        }
        peer.ok("done");
        true
    });
    let world = World::one(origin.address);
    let (mut idle, mut busy) = (world.client(), world.client());
    idle.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
    assert_eq!(idle.answer().status, 200);
    busy.send("GET /slow HTTP/1.1\r\nHost: t.test\r\n\r\n");
    until("the slow request is at the origin", || origin.seen().len() == 2);
    world.edge.drain();
    assert!(idle.closed());
    tell.send(()).unwrap();
    assert_eq!(busy.answer().text(), "done");
    assert!(busy.closed());
    until("nobody is connected", || world.edge.connections() == 0);
    assert!(std::net::TcpStream::connect(world.address).is_err(), "nothing is accepted any more");
}

#[test]
fn listeners_come_and_go_without_disturbing_the_others() {
    let origin = Origin::named("east");
    let world = World::one(origin.address);
    let mut topology = world.published.load().view.topology().clone();
    let mut kept = world.client();
    let mut second = topology.listeners[0].clone();
    second.address.set_ip("127.0.0.2".parse().unwrap());
    topology.listeners.push(second);
    world.edge.listeners().apply(&topology).unwrap();
    let added = world.edge.listeners().doors()[1].local;
    let mut client = Client::connect(added);
    client.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
    assert_eq!(client.answer().status, 200);
    topology.listeners.pop();
    world.edge.listeners().apply(&topology).unwrap();
    until("the second listener is closed", || std::net::TcpStream::connect(added).is_err());
    client.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
    assert_eq!(client.answer().status, 200, "connections in use are not cut");
    kept.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
    assert_eq!(kept.answer().status, 200);

    topology.listeners[0].address = format!("203.0.113.1:{}", added.port()).parse().unwrap();
    let problems = world.edge.listeners().apply(&topology).unwrap_err();
    assert!(problems[0].contains("203.0.113.1") && problems[0].contains("no such address"), "{problems:?}");
    assert_eq!(world.get("/").status, 200, "a listener that cannot be had changes nothing");
}

#[test]
fn slow_heads_and_idle_connections_are_closed() {
    let origin = Origin::named("east");
    let limits = "header_timeout: 200ms, idle_timeout: 300ms";
    let world = World::new(Wishes { regions: &[("east", &[origin.address])], route: "deadline: 5s", limits, more: "" });
    let start = Instant::now();
    let (mut silent, mut slow, mut idle) = (world.client(), world.client(), world.client());
    slow.send("GET / HTTP/1.1\r\nHo");
    idle.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
    assert_eq!(idle.answer().status, 200);
    let answer = slow.answer();
    assert_eq!((answer.status, answer.field("connection").as_deref()), (408, Some("close")));
    assert!(answer.field("proxy-status").is_some_and(|s| s.starts_with("evenkeel; error=http_request_error")));
    assert!(silent.closed() && idle.closed());
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn what_cannot_be_understood_is_refused_and_the_connection_closed() {
    let origin = Origin::named("east");
    let world = World::one(origin.address);
    let mut client = world.client();
    client.send("GET / HTTP/1.1\r\nHost: t.test\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc");
    let answer = client.answer();
    assert_eq!((answer.status, answer.field("connection").as_deref()), (400, Some("close")));
    assert!(client.closed() && origin.seen().is_empty());
}

#[test]
fn a_client_may_only_have_so_many_connections() {
    let origin = Origin::named("east");
    let world = World::new(Wishes {
        regions: &[("east", &[origin.address])],
        route: "deadline: 5s",
        limits: "connections_per_client: 2",
        more: "",
    });
    let _two = [world.client(), world.client()];
    until("both are known", || world.edge.connections() == 2);
    assert!(world.client().closed());
}
