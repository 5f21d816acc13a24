//! Request bodies: streamed, replayed while that is lawful, bounded.

use crate::origin::Origin;
use crate::world::{End, Wishes, World, until};
use std::time::{Duration, Instant};

#[test]
fn a_body_streams_without_waiting_for_its_end() {
    let origin = Origin::raw(|request, peer| {
        peer.begun();
        peer.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
        peer.body(request);
        peer.ok(std::str::from_utf8(&request.body).unwrap());
        true
    });
    let world = World::one(origin.address);
    let mut client = world.client();
    client.send("POST / HTTP/1.1\r\nHost: t.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    assert!(client.head().starts_with("HTTP/1.1 103"), "the origin has the first chunk before the last one was sent");
    client.send("6\r\n world\r\n0\r\n\r\n");
    assert_eq!(client.answer().text(), "hello world");
}

#[test]
fn an_upload_is_replayed_while_it_is_incomplete() {
    // The first endpoint to be asked breaks off in the middle of the upload.
    let broken = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let origin = |broken: std::sync::Arc<std::sync::atomic::AtomicBool>| {
        Origin::raw(move |request, peer| {
            if !broken.swap(true, std::sync::atomic::Ordering::SeqCst) {
                peer.some();
                peer.reset();
                return false;
            }
            peer.body(request);
            peer.ok(std::str::from_utf8(&request.body).unwrap());
            true
        })
    };
    let (a, b) = (origin(broken.clone()), origin(broken.clone()));
    let regions: &[(&str, &[std::net::SocketAddr])] = &[("a", &[a.address]), ("b", &[b.address])];
    let world = World::new(Wishes { regions, route: "deadline: 5s, retry: {writes: incomplete}", limits: "", more: "" });
    let mut client = world.client();
    client.send("POST / HTTP/1.1\r\nHost: t.test\r\nContent-Length: 30\r\n\r\n0123456789");
    until("the first endpoint broke off", || broken.load(std::sync::atomic::Ordering::SeqCst));
    client.send("abcdefghij");
    until("the second endpoint was asked", || a.seen().len() + b.seen().len() == 2);
    client.send("0123456789");
    let answer = client.answer();
    assert_eq!((answer.status, answer.text()), (200, "0123456789abcdefghij0123456789"));
}

#[test]
fn without_leave_a_write_in_progress_is_not_replayed() {
    let origin = || {
        Origin::raw(|_, peer| {
            peer.some();
            peer.reset();
            false
        })
    };
    let (a, b) = (origin(), origin());
    let regions: &[(&str, &[std::net::SocketAddr])] = &[("a", &[a.address]), ("b", &[b.address])];
    let world = World::new(Wishes { regions, route: "deadline: 5s", limits: "", more: "" });
    let mut client = world.client();
    client.send("POST / HTTP/1.1\r\nHost: t.test\r\nContent-Length: 30\r\n\r\n0123456789");
    assert_eq!(client.answer().status, 504);
    assert_eq!(a.seen().len() + b.seen().len(), 1);
}

#[test]
fn a_body_beyond_the_replay_bound_still_passes() {
    let origin = Origin::new(|request, peer| {
        peer.ok(&request.body.len().to_string());
        true
    });
    let route = "deadline: 5s, retry: {writes: incomplete}";
    let world = World::new(Wishes { regions: &[("east", &[origin.address])], route, limits: "replay_bytes: 16KiB", more: "" });
    let mut client = world.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: t.test\r\nContent-Length: {}\r\n\r\n", 1 << 20));
    client.send(vec![b'x'; 1 << 20]);
    assert_eq!(client.answer().text(), (1 << 20).to_string());
}

#[test]
fn held_writes_arrive_whole_and_soon() {
    let origin = Origin::new(|request, peer| {
        peer.ok(std::str::from_utf8(&request.body).unwrap());
        true
    });
    let world = World::with(origin.address, "deadline: 5s, retry: {writes: incomplete}");
    let mut client = world.client();
    let start = Instant::now();
    for body in ["x", "hello", ""].into_iter().cycle().take(30) {
        client.send(format!("POST / HTTP/1.1\r\nHost: t.test\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        assert_eq!(client.answer().text(), body);
        client.send("POST / HTTP/1.1\r\nHost: t.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
        assert_eq!(client.answer().text(), "abc");
    }
    println!("60 held writes took {:?}", start.elapsed());
}

#[test]
fn a_client_that_asks_first_is_told_to_go_on_when_there_is_somebody_to_take_it() {
    let origin = Origin::named("east");
    let world = World::one(origin.address);
    let mut client = world.client();
    client.send("POST / HTTP/1.1\r\nHost: t.test\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("abc");
    assert_eq!(client.answer().text(), "east");

    let nobody = World::with(crate::origin::nobody(), "deadline: 1s");
    let mut client = nobody.client();
    client.send("POST / HTTP/1.1\r\nHost: t.test\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 503"), "nobody is asked to send what nobody can take");
}

#[test]
fn bodies_are_bounded_in_size_and_time() {
    let origin = Origin::named("east");
    let limits = "body_bytes: 1KiB, body_timeout: 200ms";
    let world = World::new(Wishes { regions: &[("east", &[origin.address])], route: "deadline: 5s", limits, more: "" });
    assert_eq!(world.ask("POST / HTTP/1.1\r\nHost: t.test\r\nContent-Length: 2000\r\n\r\n").status, 413);
    let long =
        format!("POST / HTTP/1.1\r\nHost: t.test\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{}\r\n0\r\n\r\n", 2000, "x".repeat(2000));
    assert_eq!(world.ask(long).status, 413);
    let start = Instant::now();
    assert_eq!(world.ask("POST / HTTP/1.1\r\nHost: t.test\r\nContent-Length: 10\r\n\r\nhello").status, 408);
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn an_early_answer_is_heard_although_the_client_still_sends() {
    let origin = Origin::raw(|_, peer| {
        peer.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\nConnection: close\r\n\r\nnever");
        false
    });
    let world = World::one(origin.address);
    let mut client = world.client();
    client.send("POST / HTTP/1.1\r\nHost: t.test\r\nContent-Length: 100000\r\n\r\n");
    let (mut socket, body) = (client.socket.try_clone().unwrap(), vec![b'x'; 100_000]);
    let sender = std::thread::spawn(move || drop(std::io::Write::write_all(&mut socket, &body)));
    let answer = client.answer();
    assert_eq!((answer.status, answer.text(), answer.end), (403, "never", End::Complete));
    sender.join().unwrap();
}
