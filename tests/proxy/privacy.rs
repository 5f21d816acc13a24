//! Two users never see each other's: the last good copy, what a guard compares with, the status page, what a repeat is answered,
//! the answer of a write under way. Each path by each thing that tells users apart: Authorization, cookies, the client
//! certificate, the address, and what the answer itself says.

use crate::origin::Origin;
use crate::world::{Answer, Client, World, until};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// Answers with who asked for what, and with what `X-Say` asks it to say; resets every connection while it is down.
struct Site {
    origin: Origin,
    down: Arc<AtomicBool>,
    /// Writes wait for this.
    gate: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
}

impl Site {
    fn new() -> Self {
        let (down, gate, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let (off, open, count) = (down.clone(), gate.clone(), written.clone());
        let origin = Origin::new(move |request, peer| {
            if off.load(Relaxed) {
                peer.reset();
                return false;
            }
            if request.line.starts_with("POST") {
                count.fetch_add(1, Relaxed);
                until("the gate opens", || open.load(Relaxed));
            }
            let who = format!("{}{}{}", request.field("authorization"), request.field("cookie"), request.field("x-user"));
            let body = format!("{{\"for\":\"{who}\",\"views\":{}}}", if who.is_empty() { 7 } else { 0 });
            let say = request.field("x-say").replace('|', "\r\n");
            let say = if say.is_empty() { say } else { format!("{say}\r\n") };
            peer.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nETag: \"{who}\"\r\n{say}Content-Length: {}\r\n\r\n{body}",
                body.len()
            ));
            true
        });
        Self { origin, down, gate, written }
    }
    fn outage(&self, on: bool) {
        self.down.store(on, Relaxed);
    }
}

fn world(site: &Site, route: &str) -> World {
    World::with(site.origin.address, &format!("deadline: 5s, attempt_timeout: 4s, {route}"))
}

fn request(line: &str, fields: &str) -> String {
    let length = if line.starts_with("POST") { "Content-Length: 4\r\n\r\nbody" } else { "\r\n" };
    format!("{line} HTTP/1.1\r\nHost: t.test\r\nConnection: close\r\n{fields}{length}")
}

/// Asks, and waits until the answer is kept if it is one that is.
fn warm(world: &World, line: &str, fields: &str, kept: bool) {
    let before = world.edge.copies().held().1;
    assert_eq!(world.ask(request(line, fields)).status / 100, 2, "{line} {fields}");
    if kept {
        until("it is kept", || world.edge.copies().held().1 > before);
    }
}

/// During an outage: the copy that this user is given, if any.
fn copy(world: &World, line: &str, fields: &str) -> Option<String> {
    let answer = world.ask(request(line, fields));
    match answer.field("evenkeel-degraded") {
        Some(mark) if mark.starts_with("stale") => Some(answer.text().to_owned()),
        _ => {
            assert_eq!(answer.status, 503, "{}", answer.head);
            None
        }
    }
}

const NOBODY: &str = "";
const ANNA: &str = "Authorization: Bearer anna\r\n";
const BEN: &str = "Authorization: Bearer ben\r\n";
const ANNAS_COOKIE: &str = "Cookie: session=anna\r\n";
const BENS_COOKIE: &str = "Cookie: session=ben\r\n";

#[test]
fn what_a_user_was_answered_is_kept_for_nobody() {
    let site = Site::new();
    let world = world(&site, "degrade: [{stale: {max_age: 1h}}]");
    let users = [ANNA, BEN, ANNAS_COOKIE, BENS_COOKIE];
    users.iter().for_each(|who| warm(&world, "GET /mine", who, false));
    // The public answer of another page is kept; by then those before it would be, too: answers of one edge are kept in order of their end.
    warm(&world, "GET /public", NOBODY, true);
    site.outage(true);
    for who in users.iter().chain([&NOBODY]) {
        assert_eq!(copy(&world, "GET /mine", who), None, "{who}");
    }
    assert!(copy(&world, "GET /public", NOBODY).is_some());
    for who in users {
        assert_eq!(copy(&world, "GET /public", who), None, "whose own page may look otherwise: {who}");
    }
}

#[test]
fn a_keyed_credential_gives_each_user_a_copy_of_their_own() {
    let site = Site::new();
    let world = world(&site, "degrade: [{stale: {max_age: 1h, key_headers: [authorization, cookie]}}]");
    for who in [ANNA, BEN, ANNAS_COOKIE, NOBODY] {
        warm(&world, "GET /mine", who, true);
    }
    site.outage(true);
    for (who, name) in [(ANNA, "Bearer anna"), (BEN, "Bearer ben"), (ANNAS_COOKIE, "session=anna"), (NOBODY, "")] {
        let body = copy(&world, "GET /mine", who).expect(who);
        assert!(body.contains(&format!("\"for\":\"{name}\"")), "{who}: {body}");
    }
    for who in [BENS_COOKIE, "Authorization: Bearer carl\r\n", "Authorization: Bearer anna\r\nCookie: session=anna\r\n"] {
        assert_eq!(copy(&world, "GET /mine", who), None, "{who}");
    }
    // One user's entity tag tells nothing about another's page.
    let other = world.ask(request("GET /mine", "Authorization: Bearer ben\r\nIf-None-Match: \"Bearer anna\"\r\n"));
    assert_eq!((other.status, other.text().contains("Bearer ben")), (200, true));
}

#[test]
fn an_ignored_cookie_makes_nothing_else_public() {
    let site = Site::new();
    let world = world(&site, "degrade: [{stale: {max_age: 1h, ignore_cookies: [theme]}}]");
    warm(&world, "GET /a", "Cookie: theme=dark\r\n", true);
    warm(&world, "GET /b", "Cookie: theme=dark; session=anna\r\n", false);
    warm(&world, "GET /c", NOBODY, true);
    site.outage(true);
    assert!(copy(&world, "GET /a", NOBODY).is_some() && copy(&world, "GET /a", "Cookie: theme=light\r\n").is_some());
    for who in [BENS_COOKIE, "Cookie: theme=dark; session=ben\r\n", "Cookie: theme=dark\r\nCookie: session=ben\r\n", ANNA] {
        assert_eq!(copy(&world, "GET /a", who), None, "{who}");
    }
    assert_eq!(copy(&world, "GET /b", NOBODY), None);
}

#[test]
fn what_the_answer_calls_private_is_kept_for_nobody_and_ends_what_was_public() {
    let site = Site::new();
    let world = world(&site, "degrade: [{stale: {max_age: 1h}}]");
    let private = ["Set-Cookie: a=1", "Cache-Control: private", "Cache-Control: max-age=9, no-store", "Vary: *", "Vary: accept, *"];
    for (i, say) in private.iter().enumerate() {
        warm(&world, &format!("GET /never/{i}"), &format!("X-Say: {say}\r\n"), false);
        warm(&world, &format!("GET /before/{i}"), NOBODY, true);
        let before = world.edge.copies().held().1;
        assert_eq!(world.ask(request(&format!("GET /before/{i}"), &format!("X-Say: {say}\r\n"))).status, 200);
        until("it is dropped", || world.edge.copies().held().1 < before);
    }
    // Variants are for those who ask likewise; that one user's cookie selects an answer makes it nobody else's.
    warm(&world, "GET /varies", "X-Say: Vary: X-User\r\nX-User: anna\r\n", true);
    site.outage(true);
    for (i, say) in private.iter().enumerate() {
        assert_eq!(copy(&world, &format!("GET /never/{i}"), NOBODY), None, "{say}");
        assert_eq!(copy(&world, &format!("GET /before/{i}"), NOBODY), None, "{say}");
    }
    assert!(copy(&world, "GET /varies", "X-User: anna\r\n").is_some());
    assert_eq!((copy(&world, "GET /varies", "X-User: ben\r\n"), copy(&world, "GET /varies", NOBODY)), (None, None));
}

#[test]
fn another_method_or_a_part_is_not_the_answer() {
    let site = Site::new();
    let world = world(&site, "degrade: [{stale: {max_age: 1h}}]");
    assert_eq!(world.ask(request("POST /posted", NOBODY)).status, 200);
    assert_eq!(world.ask(request("OPTIONS /options", NOBODY)).status, 200);
    warm(&world, "GET /part", "X-Say: Content-Range: bytes 0-1/9\r\nRange: bytes=0-1\r\n", false);
    warm(&world, "GET /whole", NOBODY, true);
    site.outage(true);
    for line in ["GET /posted", "GET /options", "GET /part"] {
        assert_eq!(copy(&world, line, NOBODY), None, "{line}");
    }
    assert_eq!(world.ask(request("OPTIONS /whole", NOBODY)).status, 503);
    let whole = world.ask(request("GET /whole", "Range: bytes=0-1\r\n"));
    assert_eq!((whole.status, whole.field("content-range")), (200, None), "a range is ignored, not made up");
    let other = world.ask(request("GET /whole", "If-Match: \"x\"\r\n"));
    assert_eq!(other.status, 503, "only the origin can judge that");
}

#[test]
fn a_guard_compares_nobodys_answer_with_anothers() {
    let site = Site::new();
    let world = world(&site, "guards: [{json: /views, reject: zero_after_nonzero, mask: true}], degrade: [{stale: {max_age: 1h}}]");
    warm(&world, "GET /stats", NOBODY, true);
    for who in [ANNA, ANNAS_COOKIE] {
        let own = world.ask(request("GET /stats", who));
        assert_eq!((own.status, own.field("evenkeel-degraded")), (200, None));
        assert!(own.text().contains("\"views\":0"), "not held against the public 7: {}", own.text());
    }
}

const KEPT: &str = "retry: {attempts: 2, writes: idempotency_key}, degrade: [{spool: {}}]";

/// A user, and how they come.
type Ask<'a> = Box<dyn Fn(&str) -> Coming + 'a>;

/// An answer that is coming.
struct Coming(Box<dyn FnOnce() -> (u16, String)>);

/// From this address, with these fields.
fn from<'a>(to: SocketAddr, address: &'a str, fields: &'a str) -> Ask<'a> {
    Box::new(move |text| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(address.parse::<IpAddr>().unwrap(), 0).into()).unwrap();
        socket.connect(&to.into()).unwrap();
        said(TcpStream::from(socket), &text.replace("WHO", fields))
    })
}

/// With a certificate.
fn with(to: SocketAddr, pki: &Pki, name: &'static str) -> Ask<'static> {
    let config = pki.clients[name].clone();
    Box::new(move |text| {
        let session = rustls::ClientConnection::new(config.clone(), ServerName::try_from("t.test").unwrap()).unwrap();
        said(rustls::StreamOwned::new(session, TcpStream::connect(to).unwrap()), &text.replace("WHO", ""))
    })
}

fn said(mut stream: impl Read + Write + 'static, text: &str) -> Coming {
    stream.write_all(text.as_bytes()).unwrap();
    stream.flush().unwrap();
    Coming(Box::new(move || {
        let mut answer = Vec::new();
        // TLS peers may leave without a word; the framing has told the end by then.
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        (answer.get(9..12).and_then(|s| s.parse().ok()).unwrap_or(0), answer)
    }))
}

fn field(answer: &str, name: &str) -> Option<String> {
    let of = |line: &str| line.split_once(':').filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim().to_owned());
    answer.lines().find_map(of)
}

/// A listener without TLS and one that wants client certificates, on one route.
struct Both {
    world: World,
    tls: SocketAddr,
    pki: Pki,
}

/// An authority, and users that it knows.
struct Pki {
    clients: BTreeMap<&'static str, Arc<rustls::ClientConfig>>,
    dir: tempfile::TempDir,
}

impl Pki {
    fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let issue = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let cert = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
            (cert.pem(), key.serialize_pem())
        };
        let (cert, key) = issue("t.test");
        for (file, text) in [("ca.pem", ca.pem()), ("site.pem", cert), ("site.key", key)] {
            std::fs::write(dir.path().join(file), text).unwrap();
        }
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap()).unwrap();
        let client = |name| {
            let (cert, key) = issue(name);
            let (cert, key) =
                (CertificateDer::from_pem_slice(cert.as_bytes()).unwrap(), PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap());
            let config =
                rustls::ClientConfig::builder().with_root_certificates(roots.clone()).with_client_auth_cert(vec![cert], key).unwrap();
            (name, Arc::new(config))
        };
        let clients = ["anna", "ben"].map(client).into();
        Self { clients, dir }
    }
}

fn both(site: &Site, route: &str) -> Both {
    let pki = Pki::new();
    let at = |file: &str| pki.dir.path().join(file).display().to_string();
    let world = World::of(&format!(
        "version: 1\nadmin: null\nlisteners:\n  - {{address: 127.0.0.1:0}}\n  - {{address: \"127.0.0.2:0\", tls: {{certificates: [{{cert: {}, key: {}}}], \
         client_ca: {}}}}}\nregions: {{east: {{}}}}\nservices: {{app: {{health: null, pools: {{east: {{endpoints: [\"{}\"]}}}}}}}}\n\
         routes: [{{name: all, match: {{}}, service: app, deadline: 5s, attempt_timeout: 4s, {route}}}]\n",
        at("site.pem"),
        at("site.key"),
        at("ca.pem"),
        site.origin.address
    ));
    let tls = world.edge.listeners().doors().iter().map(|d| d.local).find(|a| a.ip().to_string() == "127.0.0.2").unwrap();
    Both { world, tls, pki }
}

impl Both {
    /// Everybody who is somebody else.
    fn users(&self) -> Vec<(&'static str, Ask<'_>)> {
        let plain = self.world.edge.listeners().doors().iter().map(|d| d.local).find(|a| a.ip().to_string() == "127.0.0.1").unwrap();
        vec![
            ("anna by her token", from(plain, "127.0.0.1", ANNA)),
            ("ben by his token", from(plain, "127.0.0.1", BEN)),
            ("anna by her cookie", from(plain, "127.0.0.1", ANNAS_COOKIE)),
            ("ben by his cookie", from(plain, "127.0.0.1", BENS_COOKIE)),
            ("somebody at one address", from(plain, "127.0.0.1", NOBODY)),
            ("somebody at another address", from(plain, "127.0.0.9", NOBODY)),
            ("anna by her certificate", with(self.tls, &self.pki, "anna")),
            ("ben by his certificate", with(self.tls, &self.pki, "ben")),
        ]
    }
}

#[test]
fn what_came_with_a_certificate_is_kept_for_nobody() {
    let site = Site::new();
    let both = both(&site, "degrade: [{stale: {max_age: 1h, key_headers: [authorization, cookie]}}]");
    let get = |path: &str| request(&format!("GET {path}"), "WHO");
    let users = both.users();
    for (_, ask) in users.iter().filter(|(who, _)| who.contains("certificate")) {
        assert_eq!((ask(&get("/mine")).0)().0, 200);
    }
    warm(&both.world, "GET /public", NOBODY, true);
    site.outage(true);
    for (who, ask) in &users {
        assert_eq!((ask(&get("/mine")).0)().0, 503, "{who}");
        let (status, answer) = (ask(&get("/public")).0)();
        assert_eq!(status, if who.starts_with("somebody") { 200 } else { 503 }, "{who}: {answer}");
    }
}

#[test]
fn a_repeat_is_answered_to_whom_it_was_answered_first() {
    let site = Site::new();
    site.outage(true);
    let both = both(&site, KEPT);
    let users = both.users();
    let post = request("POST /posts", "Idempotency-Key: same\r\nWHO");
    let other = post.replace("\r\n\r\nbody", "\r\n\r\nelse");
    let place = |(who, ask): &(&str, Ask<'_>)| {
        let (status, answer) = (ask(&post).0)();
        assert_eq!(status, 202, "{who}: {answer}");
        field(&answer, "location").unwrap()
    };
    let places: Vec<String> = users.iter().map(place).collect();
    assert_eq!(places.iter().collect::<BTreeSet<_>>().len(), users.len(), "each has a write of their own");
    assert_eq!(users.iter().map(place).collect::<Vec<_>>(), places, "and is told of it again");
    for (who, ask) in &users {
        assert_eq!((ask(&other).0)().0, 422, "{who} used the key for something else");
    }
    // Whoever never used the key is not told that others did.
    let stranger = from(both.world.address, "127.0.0.1", "Authorization: Bearer eve\r\n");
    assert_eq!((stranger(&other).0)().0, 202);
}

#[test]
fn the_answer_of_a_write_under_way_goes_to_its_own_client_alone() {
    let site = Site::new();
    site.gate.store(false, Relaxed);
    let both = both(&site, KEPT);
    let users = both.users();
    let post = request("POST /posts", "Idempotency-Key: same\r\nWHO");
    let mut coming = Vec::new();
    for (n, (who, ask)) in users.iter().enumerate() {
        coming.push((who, ask(&post)));
        until("their own write is under way", || site.written.load(Relaxed) == n + 1);
    }
    // The same once more: these wait for the answer of their own first one.
    let again: Vec<_> = users.iter().map(|(who, ask)| (who, ask(&post))).collect();
    // They have been read when one that comes after them, and needs no waiting, is answered; each worker has its own queue.
    for _ in 0..4 {
        assert_eq!(both.world.get("/read").status, 200);
    }
    site.gate.store(true, Relaxed);
    let name = |who: &str| match who {
        "anna by her token" => "Bearer anna",
        "ben by his token" => "Bearer ben",
        "anna by her cookie" => "session=anna",
        "ben by his cookie" => "session=ben",
        _ => "",
    };
    for (who, coming) in coming.into_iter().chain(again) {
        let (status, answer) = (coming.0)();
        assert_eq!(status, 200, "{who}: {answer}");
        assert!(answer.contains(&format!("\"for\":\"{}\"", name(who))), "{who}: {answer}");
    }
}

#[test]
fn a_status_page_is_found_by_its_address_alone_and_that_cannot_be_guessed() {
    let site = Site::new();
    site.outage(true);
    let world = world(&site, KEPT);
    let post = |n: usize| -> Answer {
        let mut client: Client = world.client();
        client.send(request("POST /posts", &format!("Idempotency-Key: {n}\r\nAuthorization: Bearer anna\r\n")));
        client.answer()
    };
    let ids: Vec<String> = (0..64).map(|n| post(n).field("location").unwrap().rsplit_once('/').unwrap().1.to_owned()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
    for at in 0..32 {
        let digits: BTreeSet<u8> = ids.iter().map(|id| id.as_bytes()[at]).collect();
        assert!(digits.len() >= 8 && ids.iter().all(|id| id.len() == 32), "128 bits, and digit {at} is chance: {digits:?}");
    }
    let page = |path: &str| world.get(&format!("/.well-known/evenkeel/writes/{path}"));
    for path in ["", "/", "*", "..", "%2e%2e", &ids[0][..31], &format!("{}0", ids[0]), &ids[0].replace(char::is_alphabetic, "0")] {
        let answer = page(path);
        assert!(matches!(answer.status, 400 | 404 | 503), "{path}: {}", answer.head);
        assert!(ids.iter().all(|id| !answer.text().contains(&id[..])), "{path} lists ids");
    }
    let shown = page(&ids[0]);
    assert_eq!((shown.status, shown.field("cache-control").as_deref()), (200, Some("no-store")));
    for secret in ["anna", "body", "posts", "Bearer"] {
        assert!(!shown.text().contains(secret), "{secret}: {}", shown.text());
    }
    assert!(ids[1..].iter().all(|id| !shown.text().contains(&id[..])), "and of nothing but this one");
}
