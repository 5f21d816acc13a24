//! The strict HTTP/1.1 codec that both sides of the proxy use. Pure: bytes in, heads and body pieces out.
