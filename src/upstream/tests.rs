//! Exchanges with sound and unsound endpoints: over pipes in virtual time, and over loopback where the kernel's part matters.

mod exchange;
mod h2;
mod pool;
mod tcp;

use super::*;
use crate::http1::BodyFraming;
use crate::model::outcome::Sent;
use crate::model::topology::IdleConnections;
use bytes::{Bytes, BytesMut};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// Pipes instead of sockets: the far ends wait in `ends`.
#[derive(Clone, Default)]
struct Pipes {
    ends: Rc<RefCell<Vec<DuplexStream>>>,
    refuse: Rc<RefCell<bool>>,
}

impl Pipes {
    fn end(&self) -> DuplexStream {
        self.ends.borrow_mut().remove(0)
    }
}

impl Dial for Pipes {
    fn dial<'a>(&'a self, to: &'a Target) -> dial::Dialling<'a> {
        Box::pin(async move {
            if *self.refuse.borrow() {
                return Err(DialError { address: to.address, step: "connect", source: std::io::ErrorKind::ConnectionRefused.into() });
            }
            let (near, far) = tokio::io::duplex(4096);
            self.ends.borrow_mut().push(far);
            Ok(Stream::Other(Box::new(near)))
        })
    }
}

fn target(address: SocketAddr) -> Target {
    Target {
        id: 7,
        address,
        epoch: 1,
        connect_timeout: Duration::from_millis(250),
        idle: IdleConnections { max: 3, timeout: Duration::from_secs(30), warm: 2 },
        protocol: crate::model::topology::Protocol::Http1,
        tls: None,
    }
}

fn nowhere() -> Target {
    target("127.0.0.1:1".parse().unwrap())
}

fn get() -> Begin {
    begin("GET / HTTP/1.1\r\nHost: a\r\n\r\n", BodyFraming::None)
}

fn begin(head: &str, framing: BodyFraming) -> Begin {
    Begin { head: head.into(), framing, is_head: head.starts_with("HEAD"), upgrade: head.contains("pgrade"), hold: false }
}

/// Everything that happens until the end or a failure, in short.
async fn story(conn: &mut Conn) -> Vec<String> {
    let mut told = Vec::new();
    loop {
        let (line, last) = match conn.event().await {
            Ok(Event::Flushed) => ("flushed".into(), false),
            Ok(Event::Heard) => ("heard".into(), false),
            Ok(Event::Interim(h)) => (format!("interim {}", h.status), false),
            Ok(Event::Head(h)) => (format!("head {}", h.status), h.status == 101),
            Ok(Event::Data(b)) => (format!("data {}", String::from_utf8_lossy(&b)), false),
            Ok(Event::End(t)) => (format!("end{}", t.map_or(String::new(), |t| format!(" {}", t.len()))), true),
            Err(e) => (e.to_string(), true),
        };
        told.push(line);
        if last {
            return told;
        }
    }
}

/// What the far end has got so far, without waiting for more.
async fn got(end: &mut DuplexStream) -> String {
    let mut buf = BytesMut::new();
    while let Ok(Ok(1..)) = tokio::time::timeout(Duration::from_millis(1), end.read_buf(&mut buf)).await {}
    String::from_utf8_lossy(&buf).into_owned()
}
