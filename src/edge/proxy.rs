//! The PROXY protocol, versions 1 and 2 (HAProxy's specification of 2020): who the client is, said by a load balancer before anything else.
//!
//! Where a listener has it, it is required, and believed from `trusted_proxies` alone: anybody else could claim to be anyone.

use super::socket::Socket;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tokio::io::AsyncReadExt;

const V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1.
const V1_BYTES: usize = 107;
/// The most that version 2 may add behind its addresses (TLVs); nobody in earnest needs half of it.
const V2_BYTES: usize = 2048;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// The connection is on behalf of this client.
    Client(IpAddr),
    /// It is the balancer's own (a health check), or of a kind that has no address.
    Itself,
}

/// A header that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Read the header off a connection. `None`: there is none, and the connection must be closed.
/// Otherwise who the client is, `peer` where the header does not say.
pub(super) async fn read(socket: &mut Socket, peer: IpAddr) -> Option<IpAddr> {
    let mut input = Vec::with_capacity(V1_BYTES);
    loop {
        match parse(&input) {
            Ok(Some((said, len))) => {
                socket.unread(&input[len..]);
                return Some(match said {
                    Said::Client(address) => address,
                    Said::Itself => peer,
                });
            }
            Ok(None) => {}
            Err(Malformed) => return None,
        }
        if socket.read_buf(&mut input).await.ok()? == 0 {
            return None;
        }
    }
}

/// A header and its length; `Ok(None)`: more is needed.
pub fn parse(b: &[u8]) -> Result<Option<(Said, usize)>, Malformed> {
    let begins = |with: &[u8]| b.iter().zip(with).all(|(a, b)| a == b);
    if begins(V2) {
        return if b.len() < 16 { Ok(None) } else { v2(b) };
    }
    if !begins(b"PROXY ") {
        return Err(Malformed);
    }
    match b.iter().take(V1_BYTES).position(|c| *c == b'\n') {
        Some(end) => v1(b[..end].strip_suffix(b"\r").ok_or(Malformed)?).map(|said| Some((said, end + 1))),
        None if b.len() >= V1_BYTES => Err(Malformed),
        None => Ok(None),
    }
}

fn v1(line: &[u8]) -> Result<Said, Malformed> {
    let line = std::str::from_utf8(line).map_err(|_| Malformed)?;
    let parts: Vec<&str> = line.split(' ').collect();
    match parts[..] {
        ["PROXY", "UNKNOWN", ..] => Ok(Said::Itself),
        ["PROXY", family, source, target, from, to] => {
            let (source, target): (IpAddr, IpAddr) = (source.parse().map_err(|_| Malformed)?, target.parse().map_err(|_| Malformed)?);
            let right = matches!((family, source, target), ("TCP4", IpAddr::V4(_), IpAddr::V4(_)) | ("TCP6", IpAddr::V6(_), IpAddr::V6(_)));
            let ports = from.parse::<u16>().is_ok() && to.parse::<u16>().is_ok();
            if right && ports { Ok(Said::Client(source)) } else { Err(Malformed) }
        }
        _ => Err(Malformed),
    }
}

fn v2(b: &[u8]) -> Result<Option<(Said, usize)>, Malformed> {
    let (command, family, len) = (b[12], b[13], usize::from(u16::from_be_bytes([b[14], b[15]])));
    if command >> 4 != 2 || len > V2_BYTES {
        return Err(Malformed);
    }
    let Some(rest) = b.get(16..16 + len) else { return Ok(None) };
    let said = match (command & 15, family) {
        (0, _) => Said::Itself,
        (1, 0x11) => Said::Client(Ipv4Addr::from(first::<4>(rest, 12)?).into()),
        (1, 0x21) => Said::Client(Ipv6Addr::from(first::<16>(rest, 36)?).into()),
        (1, _) => Said::Itself,
        _ => return Err(Malformed),
    };
    Ok(Some((said, 16 + len)))
}

/// The first address of a block that must be at least so long.
fn first<const N: usize>(block: &[u8], least: usize) -> Result<[u8; N], Malformed> {
    if block.len() < least {
        return Err(Malformed);
    }
    block[..N].try_into().map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        [V2.as_slice(), &[command, family], &(block.len() as u16).to_be_bytes(), block].concat()
    }

    #[test]
    fn both_versions_name_the_client() {
        let client = |a: &str| Said::Client(a.parse().unwrap());
        let v4 = [192, 0, 2, 7, 10, 0, 0, 1, 1, 2, 3, 4];
        let mut v6 = [0; 36];
        v6[..16].copy_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
        let with_tlv = [&v4[..], b"\x04\0\x02hi"].concat();
        for (bytes, said) in [
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 5000 80\r\n".to_vec(), client("192.0.2.7")),
            (b"PROXY TCP6 2001:db8::7 ::1 5000 80\r\n".to_vec(), client("2001:db8::7")),
            (b"PROXY UNKNOWN\r\n".to_vec(), Said::Itself),
            (header(0x21, 0x11, &v4), client("192.0.2.7")),
            (header(0x21, 0x11, &with_tlv), client("192.0.2.7")),
            (header(0x21, 0x21, &v6), client("2001:db8::7")),
            (header(0x20, 0, &[]), Said::Itself),
        ] {
            let len = bytes.len();
            let more = [&bytes[..], b"GET"].concat();
            assert_eq!(parse(&more), Ok(Some((said, len))), "{bytes:?}");
            for cut in 0..len {
                assert_eq!(parse(&bytes[..cut]), Ok(None), "{cut} of {bytes:?}");
            }
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bytes in [
            b"GET / HTTP/1.1\r\n".to_vec(),
            b"PROXY TCP4 ::1 ::1 1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 5000 99999\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7\n".to_vec(),
            [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat(),
            header(0x31, 0x11, &[0; 12]),
            header(0x21, 0x11, &[0; 4]),
            header(0x2f, 0x11, &[0; 12]),
        ] {
            assert_eq!(parse(&bytes), Err(Malformed), "{bytes:?}");
        }
    }
}
