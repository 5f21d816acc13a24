use super::*;

fn status(bytes: impl AsRef<[u8]>) -> u16 {
    match read(&bytes) {
        Err(r) => r.status,
        Ok(Some(_)) => 200,
        Ok(None) => 0,
    }
}

#[test]
fn request_lines() {
    for (line, want) in [
        ("GET / HTTP/1.1", 200),
        ("GET / HTTP/1.0", 200),
        ("FROB / HTTP/1.1", 200),
        ("get / HTTP/1.1", 200),
        ("GET  / HTTP/1.1", 400),
        ("GET\t/\tHTTP/1.1", 400),
        ("GET / HTTP/1.1 ", 400),
        ("GET / x HTTP/1.1", 400),
        (" GET / HTTP/1.1", 400),
        ("GET / http/1.1", 400),
        ("GET / HTTP/1.2", 505),
        ("GET / HTTP/2.0", 505),
        ("GET / HTTP/9.9", 505),
        ("GET / HTTP/1.10", 400),
        ("GET / HTTP/01.1", 400),
        ("GET / HTTP/1.", 400),
        ("GET /", 400),
        ("GET HTTP/1.1", 400),
        ("GE(T / HTTP/1.1", 400),
        ("GE\0T / HTTP/1.1", 400),
        ("GET: / HTTP/1.1", 400),
        ("CONNECT a:80 HTTP/1.1", 405),
        ("\u{16}\u{3}\u{1}\u{2}\0", 400),
    ] {
        assert_eq!(status(format!("{line}\r\nHost: a\r\n\r\n")), want, "{line:?}");
    }
    assert_eq!(status(format!("{} / HTTP/1.1\r\n", "G".repeat(65_000))), 400, "method");
    assert_eq!(status(format!("{} ", "G".repeat(32))), 0, "longest method");
    assert_eq!(status("G".repeat(33)), 400, "one letter more");
}

#[test]
fn targets() {
    for (target, want) in [
        ("/", 200),
        ("/a%2Fb%20c//d;x=1?q=%zz&y=%E2%82%AC&&=:@!$'()*,", 200),
        ("/a.b/c..d/...", 200),
        ("/[x]|^?[y]{z}`\\", 200),
        ("http://exam.test/x", 200),
        ("HTTPS://exam.test", 200),
        ("http://exam.test?x", 200),
        ("*", 400),
        ("a", 400),
        ("a:80", 400),
        ("ftp://a/", 400),
        ("http:///x", 400),
        ("http://u@a/", 400),
        ("http://a b/", 400),
        ("/#f", 400),
        ("/?#f", 400),
        ("http://a#f", 400),
        ("/\0", 400),
        ("/\u{1}", 400),
        ("/\u{7f}", 400),
        ("/é", 400),
        ("/\r", 400),
        ("/\\..\\x", 400),
        ("/%zz", 400),
        ("/%0", 400),
        ("/%", 400),
        ("/%00", 400),
        ("/%0d%0aX:y", 400),
        ("/%7F", 400),
        ("/?%00", 200),
        ("/..", 400),
        ("/../etc", 400),
        ("/a/./b", 400),
        ("/a/%2e%2E/b", 400),
        ("/a/.%2e", 400),
        ("/%2e%2e%2e", 200),
        ("/<script>", 400),
    ] {
        assert_eq!(status(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")), want, "{target:?}");
    }
    assert_eq!(status("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
    assert_eq!(good("OPTIONS http://b HTTP/1.1\r\nHost: a\r\n\r\n").path(), "*");
}

#[test]
fn an_absolute_form_decides_the_host() {
    let r = good("GET http://Right.test:81?q=1 HTTP/1.1\r\nHost: wrong.test\r\n\r\n");
    assert_eq!((r.host(), r.port(), r.authority()), ("right.test", Some(81), "Right.test:81"));
    assert_eq!((r.path(), r.query()), ("/", Some("q=1")));
}

#[test]
fn hosts() {
    for (host, want) in [
        ("exam.test", 200),
        ("exam.test:8080", 200),
        ("exam.test:", 200),
        ("my_app.svc", 200),
        ("[::1]:80", 200),
        ("10.0.0.1", 200),
        ("", 400),
        ("a b", 400),
        ("exam.test/x", 400),
        ("evil@exam.test", 400),
        ("exam.test,evil.test", 400),
        ("exam.test?x", 400),
        ("exam.test#x", 400),
        ("exam.test\\x", 400),
        ("exam.test:abc", 400),
        ("exam.test:99999", 400),
        ("exam.test:80:81", 400),
        ("[::1", 400),
        ("[::1]x", 400),
        ("[zz]", 400),
        (":80", 400),
        ("<script>", 400),
        ("exam\u{1}.test", 400),
    ] {
        assert_eq!(status(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")), want, "{host:?}");
    }
    assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), 400, "none");
    assert_eq!(status("GET / HTTP/1.0\r\n\r\n"), 200, "none in 1.0");
    assert_eq!(status(get("Host: exam.test\r\n")), 400, "twice");
    assert_eq!(status("GET / HTTP/1.1\r\nHost : a\r\n\r\n"), 400);
    assert_eq!(status("GET / HTTP/1.1\r\nHost:\r\n a\r\n\r\n"), 400);
    assert_eq!(good("GET / HTTP/1.1\r\nHost: Exam.TEST.:80\r\n\r\n").host(), "exam.test");
    assert_eq!(good("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n").host(), "[::1]");
}

#[test]
fn lines_and_fields() {
    for (lines, want) in [
        ("X-A: 1\r\n", 200),
        ("X-A:\r\n", 200),
        ("X-A: a\tb \t\r\n", 200),
        ("X-A: caf\u{e9}\r\n", 200),
        ("X-A: 1\nX-B: 2\r\n", 400),
        ("X-A: 1\n", 400),
        ("\n", 400),
        ("X-A: a\rb\r\n", 400),
        ("X\r-A: a\r\n", 400),
        ("X-A: a\0b\r\n", 400),
        ("X-A: a\u{1}b\r\n", 400),
        ("X-A: a\u{7f}b\r\n", 400),
        ("X-A: a\u{b}b\r\n", 400),
        ("X-A : 1\r\n", 400),
        (" X-A: 1\r\n", 400),
        ("X-A: 1\r\n folded\r\n", 400),
        ("X-A: 1\r\n\tfolded\r\n", 400),
        (": v\r\n", 400),
        ("garbage\r\n", 400),
        ("X A: 1\r\n", 400),
        ("X(A): 1\r\n", 400),
        ("X\"A: 1\r\n", 400),
        ("X\u{e9}A: 1\r\n", 400),
        ("Expect: 100-Continue\r\n", 200),
        ("Expect: frobnicate\r\n", 417),
    ] {
        assert_eq!(status(get(lines)), want, "{lines:?}");
    }
    assert_eq!(status("GET / HTTP/1.1\nHost: a\n\n"), 400, "bare LF all over");
    assert_eq!(status("GET / HTTP/1.1\rHost: a\r\r"), 400, "bare CR all over");
    assert_eq!(status("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 200, "one empty line");
    assert_eq!(status("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "two");
}

#[test]
fn framings() {
    let post = |lines: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    for (lines, want) in [
        ("", Ok(BodyFraming::None)),
        ("Content-Length: 5\r\n", Ok(BodyFraming::Length(5))),
        ("Content-Length: \t5 \t\r\n", Ok(BodyFraming::Length(5))),
        ("Content-Length: 0005\r\n", Ok(BodyFraming::Length(5))),
        ("Content-Length: 9999999999999999999\r\n", Ok(BodyFraming::Length(9_999_999_999_999_999_999))),
        ("Transfer-Encoding: chunked\r\n", Ok(BodyFraming::Chunked)),
        ("tRaNsFeR-eNcOdInG:\tcHuNkEd\r\n", Ok(BodyFraming::Chunked)),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Err(400)),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Err(400)),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", Err(400)),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", Err(400)),
        ("Content-Length: 5, 5\r\n", Err(400)),
        ("Content-Length: +5\r\n", Err(400)),
        ("Content-Length: -5\r\n", Err(400)),
        ("Content-Length: 0x5\r\n", Err(400)),
        ("Content-Length: 0 5\r\n", Err(400)),
        ("Content-Length: 5;\r\n", Err(400)),
        ("Content-Length: 5.0\r\n", Err(400)),
        ("Content-Length: 5,\r\n", Err(400)),
        ("Content-Length:\r\n", Err(400)),
        ("Content-Length: 18446744073709551621\r\n", Err(400)),
        ("Content-Length : 5\r\n", Err(400)),
        ("Content_Length: 5\r\n", Err(400)),
        ("Transfer_Encoding: chunked\r\n", Err(400)),
        ("Transfer-Encoding : chunked\r\n", Err(400)),
        ("Transfer-Encoding: \u{b}chunked\r\n", Err(400)),
        ("Transfer-Encoding:\r\n chunked\r\n", Err(400)),
        ("Transfer-Encoding: xchunked\r\n", Err(501)),
        ("Transfer-Encoding: \"chunked\"\r\n", Err(501)),
        ("Transfer-Encoding: chunked;q=1\r\n", Err(501)),
        ("Transfer-Encoding: chunked, chunked\r\n", Err(501)),
        ("Transfer-Encoding: gzip, chunked\r\n", Err(501)),
        ("Transfer-Encoding: ,chunked\r\n", Err(501)),
        ("Transfer-Encoding: \r\n", Err(501)),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Err(501)),
        ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", Err(501)),
    ] {
        let got = read(post(lines)).map(|h| h.map(|h| h.framing)).map_err(|e| e.status);
        assert_eq!(got, want.map(Some), "{lines:?}");
    }
    assert_eq!(status("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
    assert_eq!(status("TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n"), 400);
}

#[test]
fn bounds() {
    let limits = Limits { header_bytes: 200, header_count: 4, uri_bytes: 20, ..Limits::default() };
    let read =
        |b: String| RequestParser::default().parse(&mut BytesMut::from(b.as_bytes()), &limits).map(|h| h.is_some()).map_err(|r| r.status);
    let sized = |n: usize| {
        let head = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n";
        head.replace("X: ", &format!("X: {}", "v".repeat(n - head.len())))
    };
    assert_eq!(read(sized(200)), Ok(true));
    assert_eq!(read(sized(201)), Err(431));
    assert_eq!(read(sized(300)[..200].into()), Ok(false), "may still end in time");
    assert_eq!(read(sized(300)[..201].into()), Err(431));
    let fields = |n: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(n - 1));
    assert_eq!(read(fields(4)), Ok(true));
    assert_eq!(read(fields(5)), Err(431));
    let target = |n: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(n - 1));
    assert_eq!(read(target(20)), Ok(true));
    assert_eq!(read(target(21)), Err(414));
    assert_eq!(read(target(100)[..30].into()), Err(414));
}

#[test]
fn connections() {
    let keeps = |s: &str| good(s).keep_alive;
    assert!(keeps(&get("")));
    assert!(!keeps(&get("Connection: foo, Close\r\n")));
    assert!(!keeps("GET / HTTP/1.0\r\n\r\n"));
    assert!(keeps("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
    let up = "Upgrade: websocket\r\n";
    assert_eq!(good(get(&format!("Connection: Upgrade\r\n{up}"))).upgrade(), Some("websocket"));
    assert_eq!(good(get(up)).upgrade(), None, "not listed");
    assert_eq!(good(get(&format!("Connection: upgrade\r\nContent-Length: 3\r\n{up}"))).upgrade(), None, "with a body");
    assert_eq!(good(get("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n")).upgrade(), None);
    assert!(good("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n").expect_continue);
    assert!(!good(get("Expect: 100-continue\r\n")).expect_continue, "no body to wait with");
}

#[test]
fn edits() {
    let mut h = good(get("X-A: 1\r\nx-a: 2\r\nX-B: 3\r\n")).head;
    assert_eq!(h.all("X-a").collect::<Vec<_>>(), [b"1", b"2"]);
    h.remove("X-A");
    h.set("x-b", "4");
    h.append("X-C", "5");
    assert_eq!(h.get("x-a"), None);
    assert_eq!(h.iter().skip(1).collect::<Vec<_>>(), [(&b"x-b"[..], &b"4"[..]), (b"X-C", b"5")]);
    assert_eq!(h.len(), 3);
}

#[test]
fn answers() {
    use BodyFraming::*;
    let ok = |s: &str| answer(format!("HTTP/1.1 200 OK\r\n{s}\r\n")).map(|h| h.map(|h| h.framing)).is_ok_and(|f| f.is_some());
    for (head, framing, keep) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", Length(2), true),
        ("HTTP/1.1 200 \r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n", Length(2), true),
        ("HTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\nConnection: close\r\n\r\n", Chunked, false),
        ("HTTP/1.1 200 OK\r\n\r\n", UntilClose, false),
        ("HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", None, true),
        ("HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n", None, true),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", Length(5), false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n", Length(5), true),
    ] {
        let h = answer(head).unwrap().unwrap();
        assert_eq!((h.framing, h.keep_alive), (framing, keep), "{head:?}");
    }
    let mut head = ResponseParser::new(true, false);
    assert_eq!(head.parse(&mut BytesMut::from("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")).unwrap().unwrap().framing, None);
    for bad in [
        "SSH-2.0-OpenSSH_9\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 2xx OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\n\n",
        "HTTP/1.1 200 O\0K\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        assert!(answer(bad).is_err(), "{bad:?}");
    }
    for bad in [
        "Content-Length: 2\r\nContent-Length: 5\r\n",
        "Content-Length: 2x\r\n",
        "Content-Length: -2\r\n",
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "X-A : 1\r\n",
        "X-A: 1\r\n folded\r\n",
        "X-A: 1\u{0}2\r\n",
        "X-A: 1\rX-B: 2\r\n",
        ": 1\r\n",
    ] {
        assert!(!ok(bad), "{bad:?}");
    }
    assert!(answer("HTTP/1.1 200 OK\r\nContent-Le").unwrap().is_none());
    assert!(answer(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(70_000))).is_err());
    assert!(answer(format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: a\r\n".repeat(200))).is_ok());
    assert!(answer(format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: a\r\n".repeat(201))).is_err());
}

#[test]
fn interim_answers_are_bounded() {
    let mut parser = ResponseParser::new(false, true);
    let mut buf = BytesMut::from("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(33).as_bytes());
    for _ in 0..32 {
        assert!(parser.parse(&mut buf).unwrap().unwrap().is_interim());
    }
    assert!(parser.parse(&mut buf).is_err());
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    assert!(!ResponseParser::new(false, true).parse(&mut BytesMut::from(switch)).unwrap().unwrap().is_interim());
}

#[test]
fn http2_requests_meet_the_same_parser() {
    let make = |uri: &str, fields: &[(&str, &str)]| {
        let mut b = http::Request::builder().uri(uri).version(http::Version::HTTP_2);
        for (n, v) in fields {
            b = b.header(*n, *v);
        }
        b.body(()).unwrap().into_parts().0
    };
    let read = |uri, fields: &[_], ended| from_http2(&make(uri, fields), ended, &Limits::default());
    let r = read("https://A.test/x?y", &[("cookie", "a=1"), ("x-b", "2"), ("cookie", "c=3")], false).unwrap();
    assert_eq!((r.host(), r.path(), r.query(), r.framing), ("a.test", "/x", Some("y"), BodyFraming::Chunked));
    assert_eq!(r.head.all("cookie").collect::<Vec<_>>(), [b"a=1; c=3"]);
    assert_eq!(read("https://a/", &[], true).unwrap().framing, BodyFraming::None);
    assert_eq!(read("https://a/", &[("content-length", "4")], false).unwrap().framing, BodyFraming::Length(4));
    assert!(read("https://a/", &[("content-length", "4")], true).is_err());
    assert!(read("https://a/", &[("transfer-encoding", "chunked")], true).is_err());
    assert!(read("https://a/", &[("host", "b")], true).is_err());
    assert!(read("https://a/..", &[], true).is_err());
    assert!(read("/x", &[], true).is_err(), "nobody is asked for");
}
