//! What must hold for whatever bytes come: one function per kind of input that strangers, disks or people hand us. cargo-fuzz
//! searches with them (`tests/fuzz/README.md`); `cargo test --test fuzz` replays what was found and mutates it a little.

use bytes::BytesMut;
use evenkeel::http1::body::{Decoder, Encoder, Piece};
use evenkeel::http1::forward::{self, Homeward, Onward};
use evenkeel::http1::over_http2::to_http2;
use evenkeel::http1::{BodyFraming, RequestHead, RequestParser, ResponseHead, ResponseParser, Version};
use evenkeel::model::policy::{Guard, HeaderOps, Reject};
use evenkeel::model::topology::Limits;
use std::path::Path;

/// One kind of input.
pub type Property = fn(&[u8]);

/// All of them, by the name of their corpus.
pub const ALL: &[(&str, Property)] = &[
    ("body", body),
    ("config", config),
    ("grpc", grpc),
    ("guard", guard),
    ("journal", journal),
    ("proxy", proxy),
    ("request", request),
    ("response", response),
    ("spool", spool),
];

fn forwarded(r: &RequestHead) -> BytesMut {
    let o = Onward {
        client: "192.0.2.7".parse().unwrap(),
        trusted: r.head.len().is_multiple_of(2),
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

/// Where a head is cut does not matter; what is sent on is one request and read the same; HTTP/2 can carry it.
pub fn request(data: &[u8]) {
    let limits = Limits::default();
    let mut whole = BytesMut::from(data);
    let all = RequestParser::default().parse(&mut whole, &limits);
    let (mut parser, mut buf, mut drip) = (RequestParser::default(), BytesMut::new(), Ok(None));
    for byte in data {
        buf.extend_from_slice(&[*byte]);
        drip = parser.parse(&mut buf, &limits);
        if !matches!(drip, Ok(None)) {
            break;
        }
    }
    match (&all, &drip) {
        (Ok(Some(a)), Ok(Some(b))) => assert_eq!(format!("{a:?}"), format!("{b:?}")),
        (Err(a), Err(b)) => assert_eq!(a.status, b.status),
        // A head that drips in is read again only when a line may be complete: until then the fault is not seen, nor anything else.
        (Ok(None) | Err(_), Ok(None)) => {}
        (a, b) => panic!("at once {a:?}, byte by byte {b:?}"),
    }
    let Ok(Some(head)) = all else { return };
    let mut sent = forwarded(&head);
    let bytes = sent.clone();
    let roomy = Limits { header_bytes: 1 << 20, uri_bytes: 1 << 20, header_count: 1000, ..limits };
    let again = RequestParser::default().parse(&mut sent, &roomy).unwrap_or_else(|e| panic!("we sent {bytes:?}: {e}"));
    let again = again.unwrap_or_else(|| panic!("we sent half a head: {bytes:?}"));
    assert!(sent.is_empty(), "two requests out of one: {bytes:?}");
    assert_eq!((again.method, again.framing), (head.method, head.framing));
    assert_eq!((again.path(), again.query()), (head.path(), head.query()));
    if !head.host().is_empty() {
        assert_eq!(again.host(), head.host());
    }
    let _ = to_http2(&bytes, true);
}

fn understood(data: &[u8], cut: usize) -> Result<Option<ResponseHead>, &'static str> {
    let (mut parser, mut buf) = (ResponseParser::new(false, true), BytesMut::new());
    let mut last = Ok(None);
    for piece in [&data[..cut], &data[cut..]] {
        buf.extend_from_slice(piece);
        last = parser.parse(&mut buf).map_err(|e| e.0);
        if !matches!(last, Ok(None)) {
            break;
        }
    }
    last
}

/// Likewise for an endpoint's answer; what the client gets is one answer with one end.
pub fn response(data: &[u8]) {
    let cut = data.first().map_or(0, |b| usize::from(*b) % data.len());
    let (whole, cut) = (understood(data, data.len()), understood(data, cut));
    assert!(whole.is_err() == cut.is_err() || matches!((&whole, &cut), (Err(_), Ok(None))), "{whole:?} {cut:?}");
    let (Ok(Some(head)), Ok(Some(again))) = (whole, cut) else { return };
    assert_eq!(format!("{head:?}"), format!("{again:?}"));
    if head.is_interim() {
        return;
    }
    let mut out = BytesMut::new();
    let ops = HeaderOps::default();
    forward::response(&head, &Homeward { version: Version::Http11, keep_alive: true, headers: &ops, region: Some("east") }, &mut out);
    let bytes = out.clone();
    let client = ResponseParser::new(false, head.status == 101).parse(&mut out);
    assert!(matches!(client, Ok(Some(_))) && out.is_empty(), "we sent {bytes:?}: {client:?}");
}

/// The chunked coding: the same data however it is cut, and what is put together again reads the same.
pub fn body(data: &[u8]) {
    let step = data.first().map_or(1, |b| usize::from(*b % 17) + 1);
    let read = |pieces: &[&[u8]]| {
        let (mut decoder, mut buf, mut out) = (Decoder::new(BodyFraming::Chunked), BytesMut::new(), Vec::new());
        for piece in pieces {
            buf.extend_from_slice(piece);
            loop {
                match decoder.next(&mut buf) {
                    Ok(Some(Piece::Data(d))) => out.extend_from_slice(&d),
                    Ok(Some(Piece::End(_))) => return (Ok(true), out),
                    Ok(None) => break,
                    Err(e) => return (Err(e), out),
                }
            }
        }
        (Ok(false), out)
    };
    let pieces: Vec<&[u8]> = data.chunks(step).collect();
    let (whole, cut) = (read(&[data]), read(&pieces));
    assert_eq!((whole.0.is_ok(), &whole.1), (cut.0.is_ok(), &cut.1));
    let mut wire = BytesMut::new();
    let mut encoder = Encoder::new(BodyFraming::Chunked);
    for piece in whole.1.chunks(step) {
        encoder.data(piece, &mut wire).unwrap();
    }
    encoder.end(None, &mut wire).unwrap();
    assert_eq!(read(&[&wire]), (Ok(true), whole.1));
}

/// A config is either good, or every problem says where; nothing makes the reader fall.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let lines = text.split('\n').count();
    if let Err(problems) = evenkeel::config::parse(text, Path::new("/nonexistent/fuzz.yaml")) {
        let told = problems.to_string();
        assert!(told.contains("/nonexistent/fuzz.yaml"), "no file named: {told}");
        assert!(!told.trim().is_empty() && lines > 0);
    }
}

/// A header of the PROXY protocol: decided by its own bytes alone, and never longer than what came.
pub fn proxy(data: &[u8]) {
    let whole = evenkeel::edge::proxy::parse(data);
    if let Ok(Some((said, len))) = whole {
        assert!(len <= data.len());
        assert_eq!(evenkeel::edge::proxy::parse(&data[..len]), Ok(Some((said, len))), "what follows must not matter");
        assert!((0..len).all(|n| evenkeel::edge::proxy::parse(&data[..n]) == Ok(None)), "a part of a good header is no fault");
    }
}

/// Any JSON may be judged and masked, and what was masked is believed.
pub fn guard(data: &[u8]) {
    let (answer, last) = match data.iter().position(|b| *b == b'\n') {
        Some(at) => (&data[..at], serde_json::from_slice(&data[at + 1..]).ok()),
        None => (data, None),
    };
    let Ok(mut answer) = serde_json::from_slice::<serde_json::Value>(answer) else { return };
    let rules = [
        Reject::Missing,
        Reject::Null,
        Reject::NotA("number".into()),
        Reject::ZeroAfterNonzero,
        Reject::DropsBy(0.9),
        Reject::OutOf(0.0, 1e9),
    ];
    let guards: Vec<Guard> = ["/views", "/items/*/views", "/*/*", ""]
        .into_iter()
        .map(|json| Guard { json: json.into(), reject: rules.to_vec(), mask: false })
        .collect();
    let by_itself = evenkeel::steer::guard::judge(&guards, &answer, None);
    let compared = evenkeel::steer::guard::judge(&guards, &answer, last.as_ref());
    assert!(by_itself.is_ok() || compared.is_err(), "what is wrong by itself is wrong in comparison");
    let lost = [Guard { json: "/items/*/views".into(), reject: vec![Reject::ZeroAfterNonzero, Reject::DropsBy(0.9)], mask: true }];
    evenkeel::steer::guard::mask(&lost, &mut answer, last.as_ref());
    assert_eq!(evenkeel::steer::guard::judge(&lost, &answer, last.as_ref()), Ok(()), "{answer}");
}

/// A `grpc-timeout` is positive and below the longest that the format allows.
pub fn grpc(data: &[u8]) {
    if let Some(timeout) = evenkeel::steer::grpc::timeout(data) {
        assert!(data.len() <= 9 && timeout.as_secs() <= 99_999_999 * 3600);
    }
    let _ = evenkeel::steer::grpc::code(Some(data));
}

/// A journal of any bytes is read to its end, and an event that was read can be written again.
pub fn journal(data: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("journal-000001.jsonl"), data).unwrap();
    let lines = data.split(|b| *b == b'\n').count();
    let mut read = 0;
    for record in evenkeel::journal::read(dir.path(), evenkeel::journal::Filter::default()).unwrap() {
        read += 1;
        let line = serde_json::to_vec(&record).unwrap();
        assert!(serde_json::from_slice::<evenkeel::journal::Record>(&line).is_ok());
    }
    assert!(read <= lines);
}

/// A record of the spool is what was written, or is refused; one with a right sum and any content is read or refused.
pub fn spool(data: &[u8]) {
    let whole = |record: &[u8]| {
        if let Ok(entry) = evenkeel::spool::entry::decode(record) {
            let again = evenkeel::spool::entry::decode(&evenkeel::spool::entry::encode(&entry)).expect("what was written is read");
            assert_eq!(format!("{entry:?}"), format!("{again:?}"));
        }
    };
    whole(data);
    let sum = evenkeel::spool::entry::mark([data]);
    whole(&[&sum[..8], data].concat());
}
