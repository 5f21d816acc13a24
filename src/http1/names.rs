//! Field names that the codec or the way through the proxy must know, told apart once, while parsing.

/// A field name with a meaning of its own here. `_` counts as `-`: backends behind CGI, WSGI and PHP
/// cannot tell the two apart, so a disguised name must meet the same fate as the plain one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub(super) enum Known {
    #[default]
    Other,
    Connection,
    ContentLength,
    Date,
    Expect,
    Forwarded,
    Host,
    Http2Settings,
    KeepAlive,
    MaxForwards,
    ProxyConnection,
    Te,
    Traceparent,
    Trailer,
    TransferEncoding,
    Upgrade,
    Via,
    XForwardedFor,
    XForwardedHost,
    XForwardedProto,
    XRealIp,
    XRequestId,
}

impl Known {
    /// Looks a name up.
    #[inline]
    pub fn of(name: &[u8]) -> Self {
        let (known, plain): (Self, &[u8]) = match (name.len(), name[0] | 0x20) {
            (2, b't') => (Self::Te, b"te"),
            (3, b'v') => (Self::Via, b"via"),
            (4, b'h') => (Self::Host, b"host"),
            (4, b'd') => (Self::Date, b"date"),
            (6, b'e') => (Self::Expect, b"expect"),
            (7, b't') => (Self::Trailer, b"trailer"),
            (7, b'u') => (Self::Upgrade, b"upgrade"),
            (9, b'f') => (Self::Forwarded, b"forwarded"),
            (9, b'x') => (Self::XRealIp, b"x-real-ip"),
            (10, b'c') => (Self::Connection, b"connection"),
            (10, b'k') => (Self::KeepAlive, b"keep-alive"),
            (11, b't') => (Self::Traceparent, b"traceparent"),
            (12, b'm') => (Self::MaxForwards, b"max-forwards"),
            (12, b'x') => (Self::XRequestId, b"x-request-id"),
            (14, b'c') => (Self::ContentLength, b"content-length"),
            (14, b'h') => (Self::Http2Settings, b"http2-settings"),
            (15, b'x') => (Self::XForwardedFor, b"x-forwarded-for"),
            (16, b'p') => (Self::ProxyConnection, b"proxy-connection"),
            (16, b'x') => (Self::XForwardedHost, b"x-forwarded-host"),
            (17, b't') => (Self::TransferEncoding, b"transfer-encoding"),
            (17, b'x') => (Self::XForwardedProto, b"x-forwarded-proto"),
            _ => return Self::Other,
        };
        if same(name, plain) { known } else { Self::Other }
    }
    /// Decides where a message ends or whom it is for: never disguised, never nominated away.
    pub fn frames(self) -> bool {
        matches!(self, Self::ContentLength | Self::TransferEncoding | Self::Host)
    }
}

/// Equal without regard to case and to the difference between `_` and `-`; `plain` is in lower case.
#[inline]
pub(super) fn same(name: &[u8], plain: &[u8]) -> bool {
    name.len() == plain.len() && name.iter().zip(plain).all(|(a, b)| a.to_ascii_lowercase() == *b || (*a == b'_' && *b == b'-'))
}
