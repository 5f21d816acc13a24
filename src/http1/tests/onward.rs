use super::*;
use crate::model::policy::{HeaderOps, Rewrite};
use http::{HeaderName, HeaderValue};

fn ops(set: &[(&str, &str)], remove: &[&str]) -> HeaderOps {
    let name = |n: &str| HeaderName::from_bytes(n.as_bytes()).unwrap();
    HeaderOps {
        set: set.iter().map(|(n, v)| (name(n), HeaderValue::from_str(v).unwrap())).collect(),
        remove: remove.iter().map(|n| name(n)).collect(),
    }
}

#[derive(Default)]
struct Way {
    trusted: bool,
    https: bool,
    headers: HeaderOps,
    rewrite: Option<Rewrite>,
}

/// The head that goes on, without the parts every request gets.
fn sent(request: &str, way: &Way) -> String {
    let r = good(request);
    let o = Onward {
        client: "192.0.2.7".parse().unwrap(),
        trusted: way.trusted,
        https: way.https,
        http2: false,
        request_id: b"id-1",
        traceparent: b"00-1-2-01",
        traced: false,
        expect: true,
        framing: r.framing,
        default_host: "10.0.0.1:80",
        headers: &way.headers,
        rewrite: way.rewrite.as_ref(),
    };
    let mut out = BytesMut::new();
    forward::request(&r, &o, &mut out);
    String::from_utf8(out.to_vec()).unwrap()
}

fn plain(request: &str) -> String {
    sent(request, &Way::default())
}

#[test]
fn a_plain_request() {
    assert_eq!(
        plain("GET http://b.test:81/x?y HTTP/1.0\r\nHost: a.test\r\nAccept: */*\r\nX-Empty:\r\nx-dup: a\r\nX-Dup:  b\r\n\r\n"),
        "GET /x?y HTTP/1.1\r\nHost: b.test:81\r\nAccept: */*\r\nX-Empty: \r\nx-dup: a\r\nX-Dup: b\r\nVia: 1.0 evenkeel\r\n\
         X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: b.test:81\r\n\
         X-Request-Id: id-1\r\ntraceparent: 00-1-2-01\r\n\r\n"
    );
    assert!(plain("GET / HTTP/1.0\r\n\r\n").contains("\r\nHost: 10.0.0.1:80\r\n"));
}

#[test]
fn what_concerns_this_hop_alone_stays_here() {
    let out = plain(&get(
        "Connection: close, X-Foo\r\nConnection: X-Bar\r\nX-Foo: 1\r\nx-bar: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\n\
         TE: gzip\r\nUpgrade: websocket\r\nHTTP2-Settings: AA\r\nX-Kept: 1\r\n",
    ));
    for gone in ["X-Foo", "x-bar", "Keep-Alive", "Proxy-", "TE:", "Upgrade", "HTTP2", "Connection", "close"] {
        assert!(!out.contains(gone), "{gone} in {out}");
    }
    assert!(out.contains("X-Kept: 1"));
}

#[test]
fn connection_takes_nothing_that_the_endpoint_needs() {
    let out = plain(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nAuthorization: x\r\nCookie: y\r\n\
         Connection: Host, Content-Length, Authorization, Cookie, X-Forwarded-For, Via\r\n\r\n",
    );
    for kept in ["\r\nHost: a\r\n", "Content-Length: 3\r\n", "Authorization: x\r\n", "Cookie: y\r\n", "X-Forwarded-For: 192", "Via: "] {
        assert_eq!(out.matches(kept).count(), 1, "{kept} in {out}");
    }
}

#[test]
fn upgrades_and_trailers_are_asked_for_anew() {
    let out = plain(&get("Connection: Upgrade, X\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n"));
    assert!(out.contains("Connection: upgrade\r\nUpgrade: websocket\r\n") && out.contains("Sec-WebSocket-Key"));
    assert!(plain(&get("TE: gzip, Trailers\r\n")).contains("Connection: te\r\nTE: trailers\r\n"));
}

#[test]
fn strangers_are_not_believed() {
    let said = get(
        "X-Forwarded-For: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n",
    );
    let out = plain(&said);
    assert!(!out.contains("6.6.6") && !out.contains("evil\r\n") && !out.contains("Forwarded: for"), "{out}");
    let out = sent(&said, &Way { trusted: true, ..Way::default() });
    for kept in [
        "X-Forwarded-For: 6.6.6.6, 6.6.6.7, 192.0.2.7\r\n",
        "X-Forwarded-Proto: https\r\n",
        "X-Forwarded-Host: evil\r\n",
        "Forwarded: for=6.6.6.6, for=192.0.2.7;proto=http\r\n",
        "X-Real-IP: 6.6.6.6\r\n",
    ] {
        assert!(out.contains(kept), "{kept} not in {out}");
    }
}

#[test]
fn ids_are_kept() {
    let out = plain(&get("X-Request-ID: mine\r\nTraceparent: 00-9\r\n"));
    assert!(out.contains("X-Request-ID: mine") && out.contains("Traceparent: 00-9"));
    assert!(!out.contains("id-1") && !out.contains("00-1-2"));
}

#[test]
fn routes_change_fields() {
    let way = Way {
        headers: ops(&[("x-exam-proxy", "seen"), ("x-forwarded-proto", "https"), ("host", "h")], &["accept", "via"]),
        ..Way::default()
    };
    let out = sent(&get("X-Exam-Proxy: forged\r\nX_Exam_Proxy: forged\r\nAccept: x\r\nVia: 1.1 other\r\n"), &way);
    assert!(!out.contains("forged") && !out.contains("Accept") && !out.contains("Via"), "{out}");
    assert_eq!(out.matches("x-exam-proxy: seen\r\n").count(), 1);
    assert!(out.contains("\r\nHost: h\r\n") && !out.contains("host: h\r\n"));
    assert_eq!(out.to_ascii_lowercase().matches("x-forwarded-proto").count(), 1);
    let framing = Way { headers: ops(&[("content-length", "9"), ("connection", "close")], &[]), ..Way::default() };
    assert!(!sent(&get(""), &framing).contains("ontent-"));
}

#[test]
fn routes_rewrite_targets() {
    let path = |strip: Option<&str>, add: Option<&str>, target: &str| {
        let rewrite = Rewrite { host: Some("new.host".into()), strip_prefix: strip.map(Into::into), add_prefix: add.map(Into::into) };
        let out = sent(&format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\n\r\n"), &Way { rewrite: Some(rewrite), ..Way::default() });
        assert!(out.contains("\r\nHost: new.host\r\n") && out.contains("X-Forwarded-Host: a\r\n"));
        out.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(path(Some("/v1"), Some("/api"), "/v1/x?y"), "/api/x?y");
    assert_eq!(path(Some("/v1"), None, "/v1"), "/");
    assert_eq!(path(Some("/v1/"), Some("/api/"), "/v1/x"), "/api/x");
    assert_eq!(path(Some("/v1"), None, "/v12/x"), "/v12/x", "whole segments only");
    assert_eq!(path(Some("/v1"), Some("/api"), "/v2"), "/api/v2");
    assert_eq!(path(None, Some("/api"), "*"), "*");
}

#[test]
fn max_forwards_counts_down() {
    let r = good("TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n");
    assert_eq!(r.max_forwards, Some(0));
    let out = plain("OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 3\r\n\r\n");
    assert_eq!(out.matches("Max-Forwards").count(), 1);
    assert!(out.contains("Max-Forwards: 2\r\n"));
    assert!(plain(&get("Max-Forwards: 3\r\n")).contains("Max-Forwards: 3\r\n"), "means nothing for GET");
}

fn delivered(answer_head: &str, head_request: bool, version: Version, keep_alive: bool) -> (String, Delivery) {
    let r = ResponseParser::new(head_request, true).parse(&mut BytesMut::from(answer_head)).unwrap().unwrap();
    let mut out = BytesMut::new();
    let headers = ops(&[], &["x-secret"]);
    let d = forward::response(&r, &Homeward { version, keep_alive, headers: &headers, region: Some("east") }, &mut out);
    (String::from_utf8(out.to_vec()).unwrap(), d)
}

#[test]
fn answers_go_home() {
    use BodyFraming::*;
    use Version::*;
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (out, d) = delivered(
        "HTTP/1.1 200 OK\r\nConnection: X-Foo\r\nX-Foo: 1\r\nKeep-Alive: x\r\nContent-Length: 2\r\nContent-Length: 2\r\nX-Secret: s\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n",
        false,
        Http11,
        true,
    );
    assert_eq!(
        out,
        "HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nVia: 1.1 evenkeel\r\nEvenkeel-Region: east\r\nContent-Length: 2\r\n\r\n"
    );
    assert_eq!(d, Delivery { framing: Length(2), keep_alive: true });
    let (out, d) = delivered(chunked, false, Http11, false);
    assert!(out.contains("Transfer-Encoding: chunked\r\nConnection: close\r\n"));
    assert_eq!(d, Delivery { framing: Chunked, keep_alive: false });
    let (out, d) = delivered(chunked, false, Http10, true);
    assert!(!out.contains("chunked") && out.contains("Connection: close"));
    assert_eq!(d, Delivery { framing: UntilClose, keep_alive: false });
    let (out, d) = delivered("HTTP/1.0 200\r\n\r\n", false, Http11, true);
    assert!(out.starts_with("HTTP/1.1 200 \r\n") && out.contains("chunked") && out.contains("Via: 1.0"));
    assert_eq!(d, Delivery { framing: Chunked, keep_alive: true });
    let (out, _) = delivered("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", false, Http10, true);
    assert!(out.contains("Connection: keep-alive\r\n"));
    let (out, d) = delivered("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n", true, Http11, true);
    assert!(out.contains("Content-Length: 1234") && d.framing == None && d.keep_alive);
    assert!(delivered("HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n", false, Http11, true).0.contains("Content-Length: 5"));
    assert!(!delivered("HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", false, Http11, true).0.contains("Length"));
    let (out, _) = delivered("HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", false, Http11, true);
    assert!(out.ends_with("Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"));
}

#[test]
fn interim_answers_go_home() {
    let r = answer("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x\r\n\r\n").unwrap().unwrap();
    let mut out = BytesMut::new();
    forward::interim(&r, &mut out);
    assert_eq!(&out[..], b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
}
