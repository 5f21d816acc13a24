//! Where the input is cut must not matter, and what is sent on must be read the same way again.

use super::*;
use crate::model::policy::HeaderOps;
use proptest::prelude::*;

/// Mostly heads, with a fault now and then.
fn heads() -> impl Strategy<Value = Vec<u8>> {
    let name = "[A-Za-z][A-Za-z0-9-]{0,12}";
    let value = "[ -~]{0,20}";
    let special = prop_oneof![
        Just("Connection: close, X-Y".to_owned()),
        Just("Transfer-Encoding: chunked".to_owned()),
        Just("Content-Length: 7".to_owned()),
        Just("TE: trailers".to_owned()),
        Just("X-Forwarded-For: 1.2.3.4".to_owned()),
        Just("Upgrade: websocket".to_owned()),
        Just("Connection: Upgrade".to_owned()),
    ];
    let line = prop_oneof![6 => (name, value).prop_map(|(n, v)| format!("{n}: {v}")), 1 => special];
    let parts = ("(GET|POST|OPTIONS|PUT)", "/[a-z0-9/]{0,12}(\\?[a-z=&]{0,8})?", prop::collection::vec(line, 0..8));
    let fault = prop::option::weighted(0.4, (any::<prop::sample::Index>(), any::<u8>()));
    (parts, fault).prop_map(|((method, target, lines), fault)| {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: a.test\r\n");
        lines.iter().for_each(|l| head.push_str(&format!("{l}\r\n")));
        head.push_str("\r\n");
        let mut head = head.into_bytes();
        if let Some((at, byte)) = fault {
            let at = at.index(head.len());
            head[at] = byte;
        }
        head
    })
}

/// A verdict that can be compared.
fn verdict(r: Result<Option<RequestHead>, Reject>) -> Result<Option<String>, u16> {
    r.map(|h| h.map(|h| format!("{h:?}"))).map_err(|r| r.status)
}

fn fed_in(pieces: &[&[u8]]) -> Result<Option<String>, u16> {
    let (mut parser, mut buf, mut last) = (RequestParser::default(), BytesMut::new(), Ok(None));
    for piece in pieces {
        buf.extend_from_slice(piece);
        last = verdict(parser.parse(&mut buf, &Limits::default()));
        if last != Ok(None) {
            break;
        }
    }
    last
}

fn forwarded(r: &RequestHead) -> BytesMut {
    let o = Onward {
        client: "192.0.2.7".parse().unwrap(),
        trusted: true,
        https: false,
        http2: false,
        request_id: b"id",
        traceparent: b"tp",
        traced: false,
        expect: true,
        framing: r.framing,
        default_host: "h",
        headers: &HeaderOps::default(),
        rewrite: None,
    };
    let mut out = BytesMut::new();
    forward::request(r, &o, &mut out);
    out
}

proptest! {
    #[test]
    fn a_head_is_judged_alike_however_it_arrives(head in heads(), cut in any::<prop::sample::Index>()) {
        let whole = fed_in(&[&head]);
        let cut = cut.index(head.len());
        let bytes: Vec<&[u8]> = head.chunks(1).collect();
        // A fault may hide the end of the head; then the parser waits, and the deadline for heads decides.
        prop_assert_eq!(fed_in(&[&head[..cut], &head[cut..]]), whole.clone());
        prop_assert_eq!(fed_in(&bytes), whole);
    }

    #[test]
    fn what_goes_on_is_one_request_and_read_the_same(head in heads()) {
        let Ok(Some(r)) = read(&head) else { return Ok(()) };
        let first = forwarded(&r);
        let mut rest = first.clone();
        let again = RequestParser::default().parse(&mut rest, &Limits::default());
        let again = again.unwrap().unwrap();
        prop_assert!(rest.is_empty());
        prop_assert_eq!((again.method, again.framing, again.path(), again.query(), again.host()), (r.method, r.framing, r.path(), r.query(), r.host()));
        prop_assert_eq!(again.upgrade(), r.upgrade());
        prop_assert!(again.nominated.is_empty());
        // Nothing but what accumulates changes on the next hop.
        let drop = |b: &[u8]| {
            let text = String::from_utf8_lossy(b).into_owned();
            let mut lines: Vec<_> = text.split("\r\n").filter(|l| !l.starts_with("Via") && !l.starts_with("X-Forwarded-For")).map(str::to_owned).collect();
            lines.sort();
            lines
        };
        prop_assert_eq!(drop(&forwarded(&again)), drop(&first));
    }

    #[test]
    fn a_body_survives_any_cutting(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
        trailer in any::<bool>(),
        step in 1usize..20,
    ) {
        let mut wire = BytesMut::new();
        let mut encoder = Encoder::new(BodyFraming::Chunked);
        for p in &pieces {
            encoder.data(p, &mut wire).unwrap();
        }
        let mut trailers = Head::default();
        trailers.append("X-T", "1");
        encoder.end(trailer.then_some(&trailers), &mut wire).unwrap();
        wire.extend_from_slice(b"next");

        let (mut decoder, mut buf, mut data, mut end) = (Decoder::new(BodyFraming::Chunked), BytesMut::new(), Vec::new(), None);
        for part in wire.chunks(step) {
            buf.extend_from_slice(part);
            while let Some(piece) = decoder.next(&mut buf).unwrap() {
                match piece {
                    Piece::Data(b) => data.extend_from_slice(&b),
                    Piece::End(t) => end = Some(t.is_some()),
                }
            }
        }
        prop_assert_eq!(data, pieces.concat());
        prop_assert_eq!(end, Some(trailer));
        prop_assert_eq!(&buf[..], b"next");
    }

    #[test]
    fn no_input_upsets_a_parser(junk in prop::collection::vec(any::<u8>(), 0..200)) {
        _ = read(&junk);
        _ = answer(&junk);
        let with_line = [b"HTTP/1.1 200 OK\r\n", &junk[..]].concat();
        _ = answer(&with_line);
        let (mut d, mut buf) = (Decoder::new(BodyFraming::Chunked), BytesMut::from(&junk[..]));
        while let Ok(Some(_)) = d.next(&mut buf) {}
    }
}
