use super::*;

/// Everything a decoder makes of the input: the data, the trailers' names, and whether it ended.
fn decode(framing: BodyFraming, input: &str) -> Result<(String, Vec<String>, bool), BodyError> {
    let (mut d, mut buf) = (Decoder::new(framing), BytesMut::from(input));
    let (mut data, mut names) = (Vec::new(), Vec::new());
    while let Some(piece) = d.next(&mut buf)? {
        match piece {
            Piece::Data(b) => data.extend_from_slice(&b),
            Piece::End(t) => names.extend(t.iter().flat_map(|t| t.iter()).map(|(n, _)| String::from_utf8_lossy(n).into_owned())),
        }
    }
    Ok((String::from_utf8(data).unwrap(), names, d.is_done()))
}

fn chunked(input: &str) -> Result<(String, Vec<String>, bool), BodyError> {
    decode(BodyFraming::Chunked, input)
}

#[test]
fn chunks() {
    let done = |s: &str| Ok((s.to_owned(), vec![], true));
    assert_eq!(chunked("5\r\nhello\r\n0\r\n\r\n"), done("hello"));
    assert_eq!(chunked("5;a=b;c=\"d\"\r\nhello\r\n0;x\r\n\r\n"), done("hello"));
    assert_eq!(chunked("5 \r\nhello\r\n00\r\n\r\n"), done("hello"));
    assert_eq!(chunked("A\r\nhellohello\r\n0\r\n\r\n"), done("hellohello"));
    assert_eq!(chunked("0000005\r\nhello\r\n0\r\n\r\n"), done("hello"));
    for bad in [
        "xyz\r\n",
        "0x5\r\nhello",
        "-5\r\nhello",
        "+5\r\nhello",
        "\r\nhello",
        " 5\r\nhello",
        "0_5\r\nhello",
        "10000000000000005\r\nhello",
        "ffffffffffffffff\r\nhello",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5\rhello",
        "5\0\r\nhello",
        "5\nhello\n0\n\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\n",
        "5\r\nhello\r\n0\r\n\n",
        "5;\0\r\nhello",
        "5;a\rb\r\nhello",
        "2;\nxx\r\n0\r\n\r\n",
        "5;a=\"\r\nhello\"\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\0garbage no colon\r\n\r\n",
        "5\r\nhello\r\n0\r\nX : y\r\n\r\n",
    ] {
        assert!(matches!(chunked(bad), Err(BodyError::Malformed(_))), "{bad:?}: {:?}", chunked(bad));
    }
    assert!(chunked(&format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(5_000))).is_err(), "extension");
    assert!(chunked(&format!("5;{}", "a".repeat(5_000))).is_err(), "endless extension");
    assert!(chunked(&format!("0\r\n{}\r\n", "X: y\r\n".repeat(65))).is_err(), "trailers");
    assert!(chunked(&format!("0\r\nX: {}", "y".repeat(17_000))).is_err(), "endless trailers");
    assert!(chunked(&"1;aaaaaaaaaaaaaaaa\r\nx\r\n".repeat(2_000)).is_ok());
    assert!(chunked(&format!("1;{}\r\nx\r\n", "a".repeat(1_000)).repeat(200)).is_err(), "next to no data");
}

#[test]
fn trailers_may_not_frame() {
    let (_, names, done) = chunked("0\r\nX-T: 1\r\nContent-Length: 50\r\nHost: evil\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    assert_eq!((names, done), (vec!["X-T".to_owned()], true));
    assert_eq!(chunked("0\r\nHost: evil\r\n\r\n").unwrap(), (String::new(), vec![], true));
}

#[test]
fn ends() {
    let eof = |framing, input: &str| {
        let (mut d, mut buf) = (Decoder::new(framing), BytesMut::from(input));
        while let Ok(Some(_)) = d.next(&mut buf) {}
        d.eof()
    };
    assert_eq!(eof(BodyFraming::Length(5), "hell"), Err(BodyError::Truncated));
    assert_eq!(eof(BodyFraming::Length(5), "hello"), Ok(()));
    assert_eq!(eof(BodyFraming::Chunked, "5\r\nhello\r\n"), Err(BodyError::Truncated));
    assert_eq!(eof(BodyFraming::Chunked, "5\r\nhello\r\n0\r\n"), Err(BodyError::Truncated));
    assert_eq!(eof(BodyFraming::UntilClose, "hello"), Ok(()));
    assert_eq!(eof(BodyFraming::None, ""), Ok(()));
}

#[test]
fn what_follows_a_body_stays() {
    let mut buf = BytesMut::from("okHTTP/1.1 200 OK\r\n");
    let mut d = Decoder::new(BodyFraming::Length(2));
    assert!(matches!(d.next(&mut buf), Ok(Some(Piece::Data(b))) if b == "ok"));
    assert!(d.is_done());
    assert!(matches!(d.next(&mut buf), Ok(Some(Piece::End(None)))));
    assert!(matches!(d.next(&mut buf), Ok(None)));
    assert_eq!(&buf[..4], b"HTTP");
}

#[test]
fn encoders_keep_promises() {
    let mut out = BytesMut::new();
    let mut e = Encoder::new(BodyFraming::Length(5));
    assert!(e.data(b"hell", &mut out).is_ok());
    assert_eq!(e.end(None, &mut out), Err(BodyError::Length), "too little");
    assert_eq!(e.frame(2).err(), Some(BodyError::Length), "too much");
    assert!(e.data(b"o", &mut out).is_ok() && e.is_done() && e.end(None, &mut out).is_ok());
    assert_eq!(&out[..], b"hello");
    assert!(Encoder::new(BodyFraming::None).data(b"x", &mut out).is_err());

    let mut out = BytesMut::new();
    let mut e = Encoder::new(BodyFraming::Chunked);
    let mut trailers = Head::default();
    trailers.append("X-T", "1");
    e.data(b"", &mut out).unwrap();
    e.data(&[b'x'; 18], &mut out).unwrap();
    e.end(Some(&trailers), &mut out).unwrap();
    e.end(Some(&trailers), &mut out).unwrap();
    assert_eq!(&out[..], b"12\r\nxxxxxxxxxxxxxxxxxx\r\n0\r\nX-T: 1\r\n\r\n");
}

#[test]
fn chunk_sizes_are_written_right() {
    for n in [1usize, 15, 16, 255, 256, 65_535, 65_536, usize::MAX] {
        let frame = Encoder::new(BodyFraming::Chunked).frame(n).unwrap();
        assert_eq!(frame.before(), format!("{n:x}\r\n").as_bytes());
    }
}
