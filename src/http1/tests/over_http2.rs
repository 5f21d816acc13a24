//! Heads to and from HTTP/2: whatever the strict parser lets through arrives, and nothing else does.

use crate::http1::over_http2::{answer_from_http2, to_http2, trailers_from_http2, trailers_to_http2};
use crate::http1::{BodyFraming, Version};
use http::Response;
use proptest::prelude::*;

#[test]
fn a_request_head_is_translated() {
    let text = b"POST /a?b=c HTTP/1.1\r\nHost: shop.test:8080\r\nVia: 1.1 evenkeel\r\nX-A: 1\r\nX-A: 2\r\nConnection: te\r\n\
                 TE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n";
    let r = to_http2(text, true);
    assert_eq!((r.method().as_str(), r.uri().to_string()), ("POST", "https://shop.test:8080/a?b=c".into()));
    let names: Vec<_> = r.headers().iter().map(|(n, v)| format!("{n}={}", v.to_str().unwrap())).collect();
    assert_eq!(names, ["via=1.1 evenkeel", "x-a=1", "x-a=2", "te=trailers"]);
    assert_eq!(to_http2(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", false).uri().path(), "*");
    assert_eq!(to_http2(b"GET /<x>`y HTTP/1.1\r\nHost: a\r\n\r\n", false).uri().path(), "/%3Cx%3E%60y");
}

#[test]
fn an_answer_without_a_length_ends_with_its_stream() {
    let answer = |response: Response<()>, ended, is_head| answer_from_http2(&response.into_parts().0, ended, is_head).unwrap();
    let head = answer(Response::new(()), false, false);
    assert_eq!((head.framing, head.version, head.keep_alive), (BodyFraming::Chunked, Version::Http2, true));
    assert_eq!(answer(Response::new(()), true, false).length, Some(0));
    assert_eq!(answer(Response::new(()), true, true).framing, BodyFraming::None);
    let sized = Response::builder().header("content-length", 7).body(()).unwrap();
    assert_eq!(answer(sized, false, false).framing, BodyFraming::Length(7));
    let trailers_only = Response::builder().header("grpc-status", 5).body(()).unwrap();
    assert_eq!(answer(trailers_only, true, false).length, None);
    let two = Response::builder().header("content-length", 7).header("content-length", 8).body(()).unwrap();
    assert!(answer_from_http2(&two.into_parts().0, false, false).is_err());
}

proptest! {
    #[test]
    fn no_target_and_no_field_is_lost_or_torn(
        target in "/[!-~]{0,40}",
        fields in prop::collection::vec(("[a-z][a-z0-9-]{0,12}", "[!-~]([ -~]{0,20}[!-~])?"), 0..8),
    ) {
        let hop = ["connection", "upgrade", "transfer-encoding", "keep-alive", "proxy-connection", "host"];
        let mut text = format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n");
        fields.iter().for_each(|(n, v)| text.push_str(&format!("{n}: {v}\r\n")));
        text.push_str("\r\n");
        let r = to_http2(text.as_bytes(), false);
        prop_assert_eq!(r.uri().authority().map(|a| a.as_str()), Some("a.test"));
        prop_assert!(r.uri().path().starts_with('/'));
        let mut wanted: Vec<_> = fields.iter().filter(|(n, _)| !hop.contains(&n.as_str())).cloned().collect();
        let mut got: Vec<_> = r.headers().iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect();
        wanted.sort();
        got.sort();
        prop_assert_eq!(got, wanted);
    }

    #[test]
    fn trailers_come_back_as_they_went(fields in prop::collection::vec(("x-[a-z]{1,8}", "[!-~]{1,20}"), 0..6)) {
        let map = fields.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect();
        let head = trailers_from_http2(&map);
        prop_assert_eq!(trailers_to_http2(&head), map);
    }

    #[test]
    fn heads_from_anywhere_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        // Never a panic, whatever it is.
        let _ = to_http2(&bytes, true);
    }
}
