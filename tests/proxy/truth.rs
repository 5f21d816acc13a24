//! Last good copies and response guards: what is served when nothing good can be had, to whom, and what is not believed.

use crate::origin::{Origin, nobody};
use crate::world::{Answer, Wishes, World, until};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};

const STALE: &str = "deadline: 1s, attempt_timeout: 300ms, degrade: [{stale: {max_age: 1h}}]";
const GUARDED: &str =
    "deadline: 2s, attempt_timeout: 500ms, guards: [{json: /views, reject: zero_after_nonzero}], degrade: [{stale: {max_age: 1h}}]";

/// An origin that can be switched off: then it resets every connection.
struct Site {
    origin: Origin,
    down: Arc<AtomicBool>,
}

impl Site {
    fn new(fields: &'static str) -> Self {
        let down = Arc::new(AtomicBool::new(false));
        let off = down.clone();
        let origin = Origin::new(move |request, peer| {
            if off.load(Relaxed) {
                peer.reset();
                return false;
            }
            let body = format!("{} for {:?}", request.line, request.field("accept-language"));
            let status = if request.line.contains("gone") { "404 Not Found" } else { "200 OK" };
            peer.send(format!("HTTP/1.1 {status}\r\nConnection: x-hop\r\nX-Hop: 1\r\n{fields}Content-Length: {}\r\n\r\n", body.len()));
            if !request.line.starts_with("HEAD") {
                peer.send(body);
            }
            true
        });
        Self { origin, down }
    }
    fn switch_off(&self) {
        self.down.store(true, Relaxed);
    }
}

fn ask(world: &World, line: &str, host: &str, fields: &str) -> Answer {
    let mut client = world.client();
    client.send(format!("{line} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"));
    client.answer_to(line.split(' ').next().unwrap())
}

/// The client has an answer a moment before the store has its copy.
fn kept(world: &World, entries: usize) {
    until("it is kept", || world.edge.copies().held().1 >= entries);
}

fn mark(answer: &Answer) -> Option<String> {
    answer.field("evenkeel-degraded")
}

#[test]
fn the_last_good_copy_goes_out_when_all_regions_are_dead() {
    let site = Site::new("ETag: \"v1\"\r\nX-Own: yes\r\nAge: 3\r\n");
    let world = World::with(site.origin.address, STALE);
    assert_eq!(mark(&world.get("/a?x=1&y=2")), None);
    kept(&world, 1);
    site.switch_off();
    let stale = world.get("/a?x=1&y=2");
    assert_eq!((stale.status, stale.text()), (200, "GET /a?x=1&y=2 for \"\""));
    let age: u32 = stale.field("age").unwrap().parse().unwrap();
    assert!((3..10).contains(&age));
    assert_eq!(mark(&stale), Some(format!("stale; age={age}")));
    assert_eq!((stale.field("x-own"), stale.field("x-hop")), (Some("yes".into()), None));
    assert_eq!(stale.field("via").as_deref(), Some("1.1 evenkeel"));

    let head = ask(&world, "HEAD /a?x=1&y=2", "t.test", "");
    assert_eq!((head.status, head.field("content-length")), (200, Some(stale.body.len().to_string())));
    let same = ask(&world, "GET /a?x=1&y=2", "t.test", "If-None-Match: W/\"v1\"\r\n");
    assert_eq!((same.status, same.body.len()), (304, 0));
    assert!(mark(&same).is_some_and(|m| m.starts_with("stale")));
    assert_eq!(ask(&world, "GET /a?x=1&y=2", "t.test", "If-Match: \"v1\"\r\n").status, 503);
    assert_eq!(ask(&world, "POST /a?x=1&y=2", "t.test", "Content-Length: 0\r\n").status / 100, 5);
}

#[test]
fn a_copy_never_goes_to_anybody_else() {
    let site = Site::new("Vary: Accept-Language\r\n");
    let world = World::with(site.origin.address, STALE);
    ask(&world, "GET /a?x=1&y=2", "t.test", "Accept-Language: de\r\n");
    kept(&world, 2);
    ask(&world, "GET /mine", "t.test", "Cookie: session=1\r\n");
    ask(&world, "GET /mine2", "t.test", "Authorization: Bearer x\r\n");
    site.switch_off();
    assert_eq!(ask(&world, "GET /a?x=1&y=2", "t.test", "Accept-Language: de\r\n").status, 200);
    assert_eq!(ask(&world, "GET /a?x=1&y=2", "T.TEST", "Accept-Language: de\r\n").status, 200, "host names have no case");
    for (line, host, fields) in [
        ("GET /a?x=1&y=2", "t.test", "Accept-Language: fr\r\n"),
        ("GET /a?x=1&y=2", "t.test", ""),
        ("GET /a?y=2&x=1", "t.test", "Accept-Language: de\r\n"),
        ("GET /a?x=1&y=2", "u.test", "Accept-Language: de\r\n"),
        ("GET /a?x=1&y=2", "t.test:81", "Accept-Language: de\r\n"),
        ("GET /a?x=1&y=2", "t.test", "Accept-Language: de\r\nCookie: session=2\r\n"),
        ("GET /a?x=1&y=2", "t.test", "Accept-Language: de\r\nAuthorization: Bearer y\r\n"),
        ("GET /mine", "t.test", ""),
        ("GET /mine", "t.test", "Cookie: session=1\r\n"),
        ("GET /mine2", "t.test", ""),
    ] {
        let answer = ask(&world, line, host, fields);
        assert_eq!(answer.status, 503, "{line} {host} {fields}: {}", answer.text());
    }
}

#[test]
fn what_may_not_be_kept_is_not() {
    for fields in ["Set-Cookie: a=1\r\n", "Cache-Control: private\r\n", "Vary: *\r\n", "Cache-Control: no-store\r\n"] {
        let site = Site::new(fields);
        let world = World::with(site.origin.address, STALE);
        assert_eq!(world.get("/a").status, 200);
        site.switch_off();
        assert_eq!(world.get("/a").status, 503, "{fields}");
    }
}

#[test]
fn what_was_deleted_does_not_come_back() {
    let (deleted, down) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (is_deleted, is_down) = (deleted.clone(), down.clone());
    let origin = Origin::new(move |_, peer| {
        match (is_down.load(Relaxed), is_deleted.load(Relaxed)) {
            (true, _) => peer.send("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"),
            (_, true) => peer.send("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
            _ => peer.ok("here"),
        }
        true
    });
    // Nothing here is about time: a busy machine may take its own.
    let world = World::with(origin.address, "deadline: 9s, attempt_timeout: 8s, degrade: [{stale: {max_age: 1h}}]");
    world.get("/a");
    kept(&world, 1);
    down.store(true, Relaxed);
    let before_the_error = world.get("/a");
    assert_eq!((before_the_error.status, before_the_error.text()), (200, "here"), "a copy goes before a backend's 500");
    assert!(mark(&before_the_error).is_some());
    down.store(false, Relaxed);
    deleted.store(true, Relaxed);
    assert_eq!(world.get("/a").status, 404);
    assert_eq!(world.edge.copies().held().1, 0, "dropped before the answer goes out");
    down.store(true, Relaxed);
    assert_eq!(world.get("/a").status, 500);
}

/// Two regions with counters of their own; the request goes to the one that `pick` says first.
struct Counters {
    world: World,
    _origins: [Origin; 2],
    views: [Arc<AtomicI64>; 2],
}

impl Counters {
    fn new(chunked: bool) -> Self {
        let views = [Arc::new(AtomicI64::new(7)), Arc::new(AtomicI64::new(7))];
        let origins = [0, 1].map(|i: usize| {
            let views = views[i].clone();
            Origin::new(move |_, peer| {
                let body = format!("{{\"views\":{}}}", views.load(Relaxed));
                let framing = if chunked { "Transfer-Encoding: chunked".into() } else { format!("Content-Length: {}", body.len()) };
                peer.send(format!("HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n{framing}\r\n\r\n"));
                peer.send(if chunked { format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()) } else { body });
                true
            })
        });
        let ends: [[SocketAddr; 1]; 2] = [[origins[0].address], [origins[1].address]];
        let world = World::new(Wishes { regions: &[("east", &ends[0]), ("west", &ends[1])], route: GUARDED, limits: "", more: "" });
        Self { world, _origins: origins, views }
    }
    fn say(&self, east: i64, west: i64) {
        self.views[0].store(east, Relaxed);
        self.views[1].store(west, Relaxed);
    }
    fn views(&self, path: &str) -> (String, Option<String>) {
        let answer = self.world.get(path);
        assert_eq!(answer.status, 200);
        (answer.text().to_owned(), mark(&answer))
    }
}

#[test]
fn a_region_that_shows_zeros_is_passed_by() {
    for chunked in [false, true] {
        let c = Counters::new(chunked);
        assert_eq!(c.views("/v/1"), ("{\"views\":7}".into(), None));
        kept(&c.world, 1);
        c.say(0, 8);
        for _ in 0..10 {
            let (body, mark) = c.views("/v/1");
            assert!(body != "{\"views\":0}" && mark.is_none(), "{body} {mark:?}");
        }
    }
}

#[test]
fn a_zero_that_two_regions_agree_on_is_true_and_replaces_the_copy() {
    let c = Counters::new(false);
    c.views("/v/1");
    kept(&c.world, 1);
    c.say(0, 0);
    for _ in 0..10 {
        assert_eq!(c.views("/v/1"), ("{\"views\":0}".into(), None));
    }
    c.say(5, 5);
    assert_eq!(c.views("/v/1"), ("{\"views\":5}".into(), None));
}

#[test]
fn likes_taken_back_and_new_items_pass() {
    let c = Counters::new(false);
    c.say(17, 17);
    c.views("/v/1");
    c.say(7, 7);
    assert_eq!(c.views("/v/1"), ("{\"views\":7}".into(), None));
    c.say(0, 0);
    assert_eq!(c.views("/v/new"), ("{\"views\":0}".into(), None));
}

#[test]
fn when_nobody_is_believed_the_copy_goes_out_marked() {
    let views = Arc::new(AtomicI64::new(7));
    let said = views.clone();
    let origin = Origin::new(move |_, peer| {
        let body = format!("{{\"views\":{}}}", said.load(Relaxed));
        peer.send(format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        true
    });
    let (here, nowhere) = ([origin.address], [nobody()]);
    let world = World::new(Wishes { regions: &[("east", &here), ("west", &nowhere)], route: GUARDED, limits: "", more: "" });
    assert_eq!(world.get("/v/1").text(), "{\"views\":7}");
    kept(&world, 1);
    views.store(0, Relaxed);
    let answer = world.get("/v/1");
    assert_eq!((answer.status, answer.text()), (200, "{\"views\":7}"));
    assert!(mark(&answer).is_some_and(|m| m.starts_with("stale; age=")));
    assert!(origin.seen().iter().all(|r| r.field("accept-encoding") == "identity"));
}

#[test]
fn a_field_that_nobody_is_believed_about_is_masked_where_the_route_wants_that() {
    let views = Arc::new(AtomicI64::new(7));
    let said = views.clone();
    let origin = Origin::new(move |_, peer| {
        let body = format!("{{\"title\":\"a\",\"views\":{}}}", said.load(Relaxed));
        let fields = "Content-Type: application/json\r\nETag: \"v1\"";
        peer.send(format!("HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        true
    });
    let (here, nowhere) = ([origin.address], [nobody()]);
    let route = GUARDED.replace("zero_after_nonzero}", "zero_after_nonzero, mask: true}");
    let world = World::new(Wishes { regions: &[("east", &here), ("west", &nowhere)], route: &route, limits: "", more: "" });
    assert_eq!(mark(&world.get("/v/1")), None);
    kept(&world, 1);
    views.store(0, Relaxed);
    for _ in 0..3 {
        let masked = world.get("/v/1");
        assert_eq!((masked.status, masked.text()), (200, "{\"title\":\"a\",\"views\":null}"));
        assert_eq!(mark(&masked).as_deref(), Some("masked; fields=\"/views\""));
        assert_eq!(masked.field("etag"), None, "it is another body");
    }
    assert_eq!(world.get("/v/new").text(), "{\"title\":\"a\",\"views\":0}", "a new item may have none");
    views.store(9, Relaxed);
    assert_eq!((world.get("/v/1").text(), mark(&world.get("/v/1"))), ("{\"title\":\"a\",\"views\":9}", None));
}
