//! Tables: every class of malformed head that the conformance exam knows, and what is made of good ones.

mod bodies;
mod heads;
mod onward;
mod over_http2;
mod properties;

use super::*;
use crate::model::topology::Limits;
use bytes::BytesMut;

fn read(bytes: impl AsRef<[u8]>) -> Result<Option<RequestHead>, Reject> {
    RequestParser::default().parse(&mut BytesMut::from(bytes.as_ref()), &Limits::default())
}

/// A complete, good head.
fn good(bytes: impl AsRef<[u8]>) -> RequestHead {
    match read(&bytes) {
        Ok(Some(head)) => head,
        other => panic!("{:?}: {other:?}", String::from_utf8_lossy(bytes.as_ref())),
    }
}

/// GET with these lines behind the Host.
fn get(lines: &str) -> String {
    format!("GET /a?b=c HTTP/1.1\r\nHost: exam.test\r\n{lines}\r\n")
}

fn answer(bytes: impl AsRef<[u8]>) -> Result<Option<ResponseHead>, BadResponse> {
    ResponseParser::new(false, false).parse(&mut BytesMut::from(bytes.as_ref()))
}
