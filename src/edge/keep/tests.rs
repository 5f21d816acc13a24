use super::*;
use crate::edge::replay;
use crate::http1::RequestParser;
use crate::live::testing;
use bytes::BytesMut;

fn request(text: &str) -> RequestHead {
    let limits = testing::topology(&[("a", 1)]).limits;
    RequestParser::default().parse(&mut BytesMut::from(text), &limits).unwrap().unwrap()
}

#[test]
fn a_written_request_reads_as_it_came_without_what_was_its_connections() {
    let head = request(
        "POST /a?b=c HTTP/1.1\r\nHost: T.test:81\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\
         Cookie: a=1\r\nX-Twice: 1\r\nX-Twice: 2\r\nIdempotency-Key: k\r\n\r\n",
    );
    let written = String::from_utf8(written(&head, "the-id", &[b"hel", b"lo"])).unwrap();
    assert_eq!(
        written,
        "POST /a?b=c HTTP/1.1\r\nHost: T.test:81\r\nCookie: a=1\r\nX-Twice: 1\r\nX-Twice: 2\r\nIdempotency-Key: k\r\nX-Request-Id: the-id\r\n\
         Content-Length: 5\r\nConnection: close\r\n\r\nhello"
    );
    let again = request(&written);
    assert_eq!((again.authority(), again.path(), again.query()), ("T.test:81", "/a", Some("b=c")));
}

#[test]
fn a_client_is_who_shows_the_same_and_an_address_only_where_nothing_is_shown() {
    let t = testing::topology(&[("a", 1)]);
    let route = &t.routes[0];
    let guest = |address: &str| {
        let mut guest = Guest::new(address.parse().unwrap(), replay::door());
        guest.https = true;
        guest
    };
    let write = |fields: &str| request(&format!("POST / HTTP/1.1\r\nHost: t\r\nIdempotency-Key: k\r\n{fields}\r\n"));
    let (a, b) = (guest("192.0.2.1"), guest("192.0.2.2"));
    let of = |guest: &Guest, fields: &str| scope(route, &write(fields), guest);
    assert_ne!(of(&a, ""), of(&b, ""));
    assert_eq!(of(&a, "Authorization: x\r\n"), of(&b, "Authorization: x\r\n"), "whoever moves stays the same");
    assert_ne!(of(&a, "Authorization: x\r\n"), of(&a, "Authorization: y\r\n"));
    assert_ne!(of(&a, "Authorization: x\r\n"), of(&a, "Cookie: x\r\n"));
    assert_ne!(of(&a, "Cookie: x\r\n"), of(&a, "Cookie: x\r\nAuthorization: x\r\n"));
    let shown = |digest: &[u8]| Guest { certificate: digest.into(), ..guest("192.0.2.1") };
    assert_ne!(of(&shown(b"one"), ""), of(&shown(b"two"), ""));
    assert_ne!(of(&shown(b"one"), ""), of(&a, ""));
}
