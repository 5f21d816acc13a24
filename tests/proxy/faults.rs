//! Endpoints that fail: what the client sees, and what reaches whom how often.

use crate::origin::{Origin, nobody};
use crate::world::{End, Wishes, World};
use std::time::{Duration, Instant};

const TWO: &str = "deadline: 3s, attempt_timeout: 300ms";

/// Many requests at a failing and a good region: every one of them is answered by the good one.
fn all_answered_by_the_good_one(bad: std::net::SocketAddr, within: Duration) {
    let good = Origin::named("good");
    let world = World::new(Wishes { regions: &[("bad", &[bad]), ("good", &[good.address])], route: TWO, limits: "", more: "" });
    for i in 0..6 {
        let start = Instant::now();
        let answer = world.get(&format!("/{i}"));
        assert_eq!((answer.status, answer.text()), (200, "good"));
        assert!(start.elapsed() < within, "took {:?}", start.elapsed());
    }
}

#[test]
fn a_refused_connection_moves_the_request_on() {
    all_answered_by_the_good_one(nobody(), Duration::from_millis(200));
}

#[test]
fn a_reset_moves_a_read_on() {
    let bad = Origin::new(|_, peer| {
        peer.reset();
        false
    });
    all_answered_by_the_good_one(bad.address, Duration::from_millis(200));
}

#[test]
fn an_endpoint_that_hangs_costs_one_attempts_time() {
    let bad = Origin::new(|_, peer| {
        while peer.fill() {}
        false
    });
    all_answered_by_the_good_one(bad.address, Duration::from_millis(600));
}

#[test]
fn an_answer_that_cannot_be_understood_moves_a_read_on() {
    let bad = Origin::new(|_, peer| {
        peer.send("SSH-2.0-OpenSSH_9\r\n\r\n");
        false
    });
    all_answered_by_the_good_one(bad.address, Duration::from_millis(200));
}

#[test]
fn a_failing_status_moves_a_read_on() {
    let bad = Origin::new(|_, peer| {
        peer.send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\n\r\nbad");
        true
    });
    all_answered_by_the_good_one(bad.address, Duration::from_millis(200));
}

#[test]
fn a_failing_answer_goes_out_when_nothing_better_can_be_had() {
    let bad = Origin::new(|_, peer| {
        peer.send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\nX-Why: mine\r\n\r\nbad");
        true
    });
    let world = World::with(bad.address, TWO);
    let answer = world.get("/");
    assert_eq!((answer.status, answer.text(), answer.field("x-why").as_deref()), (503, "bad", Some("mine")));
}

#[test]
fn nothing_left_is_said_at_once_and_honestly() {
    let world = World::with(nobody(), "deadline: 3s");
    for _ in 0..3 {
        let start = Instant::now();
        let answer = world.get("/");
        assert_eq!(answer.status, 503);
        assert!(answer.field("evenkeel-degraded").is_some_and(|v| v.starts_with("unavailable; reason=")), "{}", answer.head);
        assert!(answer.field("retry-after").is_some() && answer.field("proxy-status").is_some());
        assert!(start.elapsed() < Duration::from_millis(500));
    }
}

#[test]
fn a_body_that_breaks_off_never_looks_whole() {
    for framing in ["Content-Length: 100\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"] {
        let origin = Origin::new(move |_, peer| {
            peer.send(format!("HTTP/1.1 200 OK\r\n{framing}"));
            false
        });
        let answer = World::one(origin.address).get("/");
        assert_eq!((answer.status, answer.text(), answer.end), (200, "hello", End::Truncated), "{framing}");
        assert_eq!(origin.seen().len(), 1, "never repeated after the first byte");
    }
}

#[test]
fn bytes_behind_an_answer_reach_nobody() {
    let origin = Origin::new(|_, peer| {
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
        true
    });
    let world = World::one(origin.address);
    let mut client = world.client();
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
        assert_eq!(client.answer().text(), "ok");
    }
    assert_eq!(origin.connections(), 3, "such a connection is not used again");
}

#[test]
fn an_answer_that_drips_is_passed_on_as_it_comes() {
    let origin = Origin::new(|_, peer| {
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..20 {
            peer.send("1\r\nx\r\n");
            std::thread::sleep(Duration::from_millis(10));
        }
        peer.send("0\r\n\r\n");
        true
    });
    // The attempt's time bounds the first byte alone.
    let answer = World::with(origin.address, "deadline: 150ms, attempt_timeout: 100ms").get("/");
    assert_eq!((answer.body.len(), answer.end), (20, End::Complete));
}

#[test]
fn an_answer_that_stalls_is_cut_after_the_idle_time() {
    let origin = Origin::new(|_, peer| {
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
        while peer.fill() {}
        false
    });
    let start = Instant::now();
    let answer = World::with(origin.address, "deadline: 2s, idle_timeout: 200ms").get("/");
    assert_eq!((answer.text(), answer.end), ("hello", End::Truncated));
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_deadline_is_kept_whatever_the_endpoints_do() {
    let silent = || {
        Origin::new(|_, peer| {
            while peer.fill() {}
            false
        })
    };
    let (a, b) = (silent(), silent());
    let regions: &[(&str, &[std::net::SocketAddr])] = &[("a", &[a.address]), ("b", &[b.address])];
    let world = World::new(Wishes { regions, route: "deadline: 400ms, attempt_timeout: 150ms", limits: "", more: "" });
    let start = Instant::now();
    let answer = world.get("/");
    assert!((503..=504).contains(&answer.status), "{}", answer.status);
    assert!(start.elapsed() < Duration::from_millis(600), "took {:?}", start.elapsed());
}

#[test]
fn a_write_that_was_handed_over_is_never_repeated() {
    for answer in [None, Some("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhal")] {
        let origin = || {
            Origin::new(move |_, peer| {
                answer.into_iter().for_each(|a| peer.send(a));
                peer.reset();
                false
            })
        };
        let (a, b) = (origin(), origin());
        let regions: &[(&str, &[std::net::SocketAddr])] = &[("a", &[a.address]), ("b", &[b.address])];
        let world = World::new(Wishes { regions, route: TWO, limits: "", more: "" });
        let mut client = world.client();
        client.send("POST / HTTP/1.1\r\nHost: t.test\r\nContent-Length: 3\r\n\r\npay");
        if answer.is_none() {
            let answer = client.answer();
            assert_eq!(answer.status, 504);
            assert_eq!(answer.field("evenkeel-degraded").as_deref(), Some("unavailable; reason=unknown_outcome"));
        } else {
            while client.fill() {}
        }
        assert_eq!(a.seen().len() + b.seen().len(), 1);
    }
}

#[test]
fn a_client_that_goes_away_frees_the_endpoint() {
    let (tell, told) = std::sync::mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let origin = Origin::new(move |_, peer| {
        while peer.fill() {}
        tell.lock().unwrap().send(()).unwrap();
        false
    });
    let world = World::with(origin.address, "deadline: 60s, attempt_timeout: 60s");
    let mut client = world.client();
    client.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
    crate::world::until("the request is at the origin", || origin.seen().len() == 1);
    drop(client);
    told.recv_timeout(Duration::from_secs(5)).expect("the endpoint's connection is closed");
}

#[test]
fn a_kept_connection_that_died_is_replaced_without_a_failure() {
    let origin = Origin::new(|_, peer| {
        peer.ok("once");
        false
    });
    let world = World::one(origin.address);
    let mut client = world.client();
    for _ in 0..30 {
        client.send("GET / HTTP/1.1\r\nHost: t.test\r\n\r\n");
        assert_eq!(client.answer().text(), "once");
    }
}
