//! Store-and-forward: what is kept, for whom, in which order it goes on, and what a repeat is answered.

use crate::origin::Origin;
use crate::world::{Answer, Client, Wishes, World, until};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::{Duration, Instant};

const KEPT: &str = "deadline: 600ms, attempt_timeout: 200ms, retry: {attempts: 2, writes: idempotency_key}, degrade: [{spool: {}}]";

/// An origin that answers with a status, or (0) resets every connection, and tells bodies apart.
struct Site {
    origin: Origin,
    says: Arc<AtomicU16>,
}

impl Site {
    fn new(says: u16) -> Self {
        Self::slow(says, Duration::ZERO)
    }
    fn slow(says: u16, after: Duration) -> Self {
        let says = Arc::new(AtomicU16::new(says));
        let now = says.clone();
        let origin = Origin::new(move |request, peer| {
            let status = now.load(Relaxed);
            if status == 0 {
                peer.reset();
                return false;
            }
            std::thread::sleep(after);
            let body = format!("{} by {:?}", String::from_utf8_lossy(&request.body), request.field("authorization"));
            peer.send(format!("HTTP/1.1 {status} So\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
            true
        });
        Self { origin, says }
    }
    fn say(&self, status: u16) {
        self.says.store(status, Relaxed);
    }
    /// The bodies that were answered since it was last well, in order.
    fn bodies(&self) -> Vec<String> {
        self.origin.seen().iter().filter(|r| r.complete).map(|r| String::from_utf8_lossy(&r.body).into_owned()).collect()
    }
}

fn world(site: &Site, route: &str) -> World {
    World::with(site.origin.address, route)
}

fn post(path: &str, fields: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: t.test\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn keyed(key: &str, body: &str) -> String {
    post("/posts", &format!("Idempotency-Key: {key}\r\n"), body)
}

fn status(world: &World, kept: &Answer) -> serde_json::Value {
    let page = world.get(&kept.field("location").expect("a status page is named"));
    assert_eq!((page.status, page.field("cache-control").as_deref()), (200, Some("no-store")));
    serde_json::from_slice(&page.body).unwrap()
}

#[test]
fn a_write_that_nobody_takes_is_kept_and_goes_on_when_somebody_does() {
    let site = Site::new(0);
    let world = world(&site, KEPT);
    let kept = world.ask(post(
        "/posts?x=1",
        "Idempotency-Key: k1\r\nAuthorization: me\r\nX-Own: yes\r\nConnection: x-hop\r\nX-Hop: 1\r\n",
        "hello",
    ));
    assert_eq!(kept.status, 202, "{}", kept.head);
    let id = kept.field("location").unwrap().rsplit_once('/').unwrap().1.to_owned();
    assert_eq!(kept.field("evenkeel-degraded"), Some(format!("spooled; id={id}")));
    assert_eq!(status(&world, &kept)["state"], "pending");
    let before = site.origin.seen().len();
    site.say(201);
    until("it is applied", || status(&world, &kept)["state"] == "applied");
    assert_eq!(status(&world, &kept)["status"], 201);
    let seen = &site.origin.seen()[before..];
    let last = seen.last().unwrap();
    assert_eq!((last.line.as_str(), &last.body[..]), ("POST /posts?x=1", &b"hello"[..]));
    for (name, value) in
        [("idempotency-key", "k1"), ("authorization", "me"), ("x-own", "yes"), ("x-hop", ""), ("x-forwarded-for", "127.0.0.1")]
    {
        assert_eq!(last.field(name), value, "{name}");
    }
    assert!(!last.field("x-request-id").is_empty());
    let page = world.get(&kept.field("location").unwrap());
    for secret in ["hello", "k1", "me\"", "posts"] {
        assert!(!page.text().contains(secret), "{secret} on the status page: {}", page.text());
    }
    assert_eq!(world.get(&format!("/.well-known/evenkeel/writes/{}", "0".repeat(32))).status, 404);
    assert_eq!(world.ask(post(&kept.field("location").unwrap(), "", "")).status, 405);
    let stats = world.spool.as_ref().unwrap().stats();
    assert_eq!((stats.pending, stats.kept), (0, 1));
}

#[test]
fn what_has_no_key_is_not_kept_and_where_the_route_makes_one_every_attempt_has_it() {
    let site = Site::new(0);
    assert_eq!(world(&site, KEPT).ask(post("/posts", "", "x")).status, 503 + 1, "sent, and nobody knows what became of it");
    let making = KEPT.replace("spool: {}", "spool: {make_key: true}");
    let world = world(&site, &making);
    let kept = world.ask(post("/posts", "", "x"));
    assert_eq!(kept.status, 202);
    site.say(200);
    until("it is applied", || status(&world, &kept)["state"] == "applied");
    let keys: Vec<String> = site.origin.seen().iter().skip(1).map(|r| r.field("idempotency-key")).collect();
    assert!(keys.len() >= 2 && keys.iter().all(|k| k.len() == 32 && *k == keys[0]), "{keys:?}");
}

#[test]
fn a_failing_answer_of_the_backend_gives_way_to_the_spool_and_a_refusal_does_not() {
    let site = Site::new(503);
    let world = world(&site, KEPT);
    assert_eq!(world.ask(keyed("a", "x")).status, 202);
    let site = Site::new(403);
    let world = self::world(&site, KEPT);
    assert_eq!(world.ask(keyed("b", "x")).status, 403);
}

#[test]
fn a_body_that_is_still_coming_is_read_to_its_end_and_one_too_large_is_refused() {
    let site = Site::new(0);
    let world = World::new(Wishes { regions: &[("east", &[site.origin.address])], route: KEPT, limits: "replay_bytes: 64KiB", more: "" });
    let mut client = world.client();
    client.send("POST /posts HTTP/1.1\r\nHost: t.test\r\nIdempotency-Key: slow\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    std::thread::sleep(Duration::from_millis(100));
    client.send("6\r\n world\r\n0\r\n\r\n");
    let kept = client.answer();
    assert_eq!(kept.status, 202);
    let large = world.ask(keyed("large", &"x".repeat(200_000)));
    assert!(matches!(large.status, 503 | 504), "{}", large.head);
    site.say(200);
    until("it is applied", || status(&world, &kept)["state"] == "applied");
    assert!(site.bodies().contains(&"hello world".to_owned()));
}

#[test]
fn a_repeat_gets_the_same_answer_and_another_body_is_told_so() {
    let site = Site::new(0);
    let world = world(&site, KEPT);
    let first = world.ask(keyed("k", "one"));
    let again = world.ask(keyed("k", "one"));
    assert_eq!((again.status, again.field("location"), &again.body), (202, first.field("location"), &first.body));
    assert_eq!(world.ask(keyed("k", "two")).status, 422);
    site.say(201);
    until("it is applied", || status(&world, &first)["state"] == "applied");
    let later = world.ask(keyed("k", "one"));
    assert_eq!((later.status, later.field("location")), (202, first.field("location")), "also when it was applied");
    assert_eq!(world.ask(keyed("k", "two")).status, 422);
    assert_eq!(site.bodies().iter().filter(|b| *b == "two").count(), 0);
}

#[test]
fn nobody_gets_what_another_one_was_answered() {
    let site = Site::new(0);
    let world = world(&site, KEPT);
    let ask = |who: &str| world.ask(post("/posts", &format!("Idempotency-Key: same\r\n{who}"), "same body"));
    let users =
        ["Authorization: Bearer alice\r\n", "Authorization: Bearer bob\r\n", "Cookie: session=carol\r\n", "Cookie: session=dave\r\n", ""];
    let kept: Vec<Answer> = users.iter().map(|who| ask(who)).collect();
    let mut places: Vec<_> = kept.iter().map(|a| a.field("location").unwrap()).collect();
    places.sort();
    places.dedup();
    assert_eq!(places.len(), users.len(), "each has a write of its own");
    for (who, kept) in users.iter().zip(&kept) {
        assert_eq!(ask(who).field("location"), kept.field("location"), "and gets it again: {who}");
    }
    assert_eq!(world.ask(post("/posts", "Idempotency-Key: same\r\nAuthorization: Bearer bob\r\n", "other body")).status, 422);
    assert_eq!(
        world.ask(post("/posts", "Idempotency-Key: same\r\nAuthorization: Bearer eve\r\n", "other body")).status,
        202,
        "no oracle either"
    );
}

#[test]
fn the_same_write_twice_at_once_is_one_write_for_its_client_alone() {
    let site = Site::slow(200, Duration::from_millis(300));
    let world = world(&site, &KEPT.replace("deadline: 600ms, attempt_timeout: 200ms", "deadline: 5s, attempt_timeout: 4s"));
    let request = |who: &str, body: &str| post("/posts", &format!("Idempotency-Key: k\r\nAuthorization: {who}\r\n"), body);
    let mut clients: Vec<(Client, &str, &str)> = [("alice", "x"), ("alice", "x"), ("alice", "x"), ("bob", "x"), ("alice", "y")]
        .map(|(who, body)| {
            let mut client = world.client();
            client.send(request(who, body));
            // The first is to be the first.
            until("it has arrived", || !site.origin.seen().is_empty());
            (client, who, body)
        })
        .into();
    let answers: Vec<Answer> = clients.iter_mut().map(|(c, ..)| c.answer()).collect();
    let of_alice: Vec<&Answer> = answers[..3].iter().collect();
    assert!(of_alice.iter().all(|a| a.status == 200 && a.text() == "x by \"alice\""), "{:?}", of_alice[1].head);
    assert_eq!(answers[3].text(), "x by \"bob\"");
    assert_eq!(answers[4].status, 422);
    let by = |who: &str| site.origin.seen().iter().filter(|r| r.field("authorization") == who).count();
    assert_eq!((by("alice"), by("bob")), (1, 1));
}

#[test]
fn order_holds_within_a_key_also_for_writes_that_come_later() {
    let site = Site::new(0);
    let world = world(&site, &KEPT.replace("spool: {}", "spool: {order_key: X-Account}"));
    let write = |n: u32, account: &str| {
        post(&format!("/posts/{n}"), &format!("Idempotency-Key: {account}{n}\r\nX-Account: {account}\r\n"), &format!("{account}{n}"))
    };
    for n in 0..3 {
        assert_eq!(world.ask(write(n, "a")).status, 202);
    }
    site.say(503);
    std::thread::sleep(Duration::from_millis(700));
    site.say(200);
    let mut last = world.ask(write(3, "a"));
    for n in 4..40 {
        last = world.ask(write(n, "a"));
        std::thread::sleep(Duration::from_millis(20));
        if last.status == 200 {
            break;
        }
    }
    until("all are through", || world.spool.as_ref().unwrap().stats().pending == 0);
    drop(last);
    let mut applied: Vec<u32> = Vec::new();
    for request in site.origin.seen().iter().filter(|r| r.complete) {
        let n: u32 = String::from_utf8_lossy(&request.body).trim_start_matches('a').parse().unwrap();
        if applied.last() != Some(&n) {
            applied.push(n);
        }
    }
    // The head of the line is tried again and again; nothing that came later was before it.
    let mut sorted = applied.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(applied[applied.iter().rposition(|n| *n == 0).unwrap()..], sorted[..], "{applied:?}");
}

#[test]
fn what_a_backend_refuses_for_good_is_a_dead_letter_and_the_next_goes_on() {
    let site = Site::new(0);
    let world = world(&site, KEPT);
    let expired = world.ask(keyed("a", "one"));
    site.say(401);
    until("it is refused", || status(&world, &expired)["state"] == "refused");
    assert_eq!(status(&world, &expired)["status"], 401);
    site.say(0);
    let next = world.ask(keyed("b", "two"));
    site.say(200);
    until("the next is applied", || status(&world, &next)["state"] == "applied");
    assert_eq!(world.ask(keyed("a", "one")).status, 202, "a repeat of a refused one gets its first answer");
}

#[test]
fn what_nobody_takes_in_time_expires_for_all_to_see() {
    let site = Site::new(0);
    let world = world(&site, &KEPT.replace("spool: {}", "spool: {max_age: 1s}"));
    let kept = world.ask(keyed("a", "one"));
    until("it expires", || status(&world, &kept)["state"] == "expired");
    let before = site.bodies().len();
    site.say(200);
    assert_eq!(world.ask(keyed("a", "one")).status, 200, "it may be sent anew");
    assert_eq!(site.bodies().len(), before + 1);
}

#[test]
fn a_full_spool_refuses_honestly_and_reads_go_on() {
    let site = Site::new(0);
    let world =
        World::new(Wishes { regions: &[("east", &[site.origin.address])], route: KEPT, limits: "", more: "spool: {max_bytes: 10KiB}\n" });
    let mut statuses = Vec::new();
    for n in 0..12 {
        statuses.push(world.ask(post(&format!("/{n}"), &format!("Idempotency-Key: {n}\r\n"), &"x".repeat(1000))).status);
    }
    assert!(statuses.contains(&202), "{statuses:?}");
    assert!(statuses[8..].iter().all(|s| matches!(s, 503 | 504)), "{statuses:?}");
    site.say(200);
    assert_eq!(world.get("/read").status, 200);
}

#[test]
fn data_is_not_kept_where_it_may_not_lie() {
    let site = Site::new(0);
    let lawful = format!("residency: [eu], {KEPT}");
    let regions = "east: {jurisdiction: eu}";
    let refused = evenkeel::config::parse(
        &format!(
            "version: 1\nlisteners: [{{address: 127.0.0.1:0}}]\nadmin: null\nedge: {{jurisdiction: us}}\nregions: {{{regions}}}\n\
             services: {{app: {{pools: {{east: {{endpoints: [\"{}\"]}}}}}}}}\nroutes: [{{name: all, match: {{}}, service: app, {lawful}}}]\n",
            site.origin.address
        ),
        std::path::Path::new("test.yaml"),
    );
    let Err(problems) = refused else { panic!("check takes it") };
    let problems = problems.headlines().join("\n");
    assert!(problems.contains("residency allows [eu], this edge stands in us"), "{problems}");
}

#[test]
fn keyed_writes_are_not_held_up_by_the_spool_while_all_is_well() {
    let site = Site::new(200);
    let world = world(&site, KEPT);
    let start = Instant::now();
    for n in 0..50 {
        assert_eq!(world.ask(keyed(&n.to_string(), "x")).status, 200);
    }
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(world.spool.as_ref().unwrap().stats().kept, 0);
}
