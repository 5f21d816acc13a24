//! Who may come in: tokens, and the checks that keep a browser from being somebody's burglar.
//!
//! | question | rule |
//! |---|---|
//! | Is a token needed? | where tokens are configured: for everything but `/livez` and `/readyz`. Where none are: no, but only peers on loopback are let in, as `local` |
//! | May the page be seen? | always: it holds nothing of its own, and asks for a token where one is needed |
//! | May it change things? | only a token with `write` may use another method than GET and HEAD |
//! | Is this DNS rebinding? | without a valid token, `Host` must be an address, `localhost`, or the name of this edge: a page of another site can make its own name resolve to us, but cannot make a browser send another `Host` |
//! | Is this cross-site? | `Origin`, where sent, must be this very host; `Sec-Fetch-Site`, where sent, must not be another site's, unless somebody merely follows a link |
//!
//! Token files are read at start and at every reload. One that cannot be read opens nothing.

use super::problem::Problem;
use crate::model::event::Actor;
use crate::model::topology::Topology;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use std::net::IpAddr;
use subtle::ConstantTimeEq;

/// What is needed to judge a request.
#[derive(Debug, Default)]
pub struct Gate {
    keys: Vec<Key>,
    /// Tokens are configured, readable or not.
    guarded: bool,
    edge: String,
}

struct Key {
    name: String,
    secret: Vec<u8>,
    write: bool,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (write: {})", self.name, self.write)
    }
}

impl Gate {
    /// Reads the token files of a config. Tells of those that cannot be used.
    pub fn read(t: &Topology) -> (Self, Vec<String>) {
        let tokens = t.admin.as_ref().map_or(&[][..], |a| &a.tokens);
        let mut problems = Vec::new();
        let mut keys = Vec::new();
        for token in tokens {
            match std::fs::read(&token.file) {
                Ok(text) if !text.trim_ascii().is_empty() => {
                    keys.push(Key { name: token.name.clone(), secret: text.trim_ascii().to_vec(), write: token.write });
                }
                Ok(_) => problems.push(format!(
                    "admin token {}: {} is empty; put the secret into it and reload",
                    token.name,
                    token.file.display()
                )),
                Err(e) => problems.push(format!(
                    "admin token {}: cannot read {}: {e}; make it readable and reload",
                    token.name,
                    token.file.display()
                )),
            }
        }
        (Self { keys, guarded: !tokens.is_empty(), edge: t.edge.name.to_ascii_lowercase() }, problems)
    }

    /// Lets a request in, and says on whose behalf it acts.
    pub fn check(&self, request: &Parts, peer: IpAddr) -> Result<Actor, Problem> {
        let path = request.uri.path();
        let local = || Actor::Operator("local".into());
        if path == "/livez" || path == "/readyz" {
            return Ok(local());
        }
        let gets = request.method == Method::GET || request.method == Method::HEAD;
        // These change nothing; they ask with a body.
        let reads = gets || matches!(path, "/v1/explain" | "/v1/plan");
        let key = self.key(&request.headers)?;
        if key.is_none() {
            self.host_is_ours(request)?;
        }
        same_site(request, gets)?;
        match key {
            Some(key) if reads || key.write => Ok(Actor::Operator(key.name.clone())),
            None if gets && super::dashboard::paths().any(|page| page == path) => Ok(local()),
            Some(key) => Err(Problem::forbidden(format!("token {} may only read; use one with `write: true` in admin.tokens", key.name))),
            None if self.guarded => Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "a token is needed: send `Authorization: Bearer …` (evenkeel --token-file FILE) with a token of admin.tokens",
            )),
            None if peer.to_canonical().is_loopback() => Ok(local()),
            None => Err(Problem::forbidden("without admin.tokens only this machine may use the admin API; configure a token")),
        }
    }

    /// The key whose secret was sent; none was sent: `None`. All are compared, in constant time.
    fn key(&self, headers: &HeaderMap) -> Result<Option<&Key>, Problem> {
        let Some(sent) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
        let wrong = || Problem::new(StatusCode::UNAUTHORIZED, "this token is not known here; tokens are read at start and at reload");
        let (scheme, secret) = sent.to_str().ok().and_then(|s| s.split_once(' ')).ok_or_else(wrong)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(wrong());
        }
        let secret = secret.trim().as_bytes();
        let mut found = None;
        for key in &self.keys {
            if bool::from(key.secret.ct_eq(secret)) {
                found = Some(key);
            }
        }
        match found {
            None if self.guarded => Err(wrong()),
            found => Ok(found),
        }
    }

    fn host_is_ours(&self, request: &Parts) -> Result<(), Problem> {
        let host = authority(request).unwrap_or_default();
        let name = host_of(&host);
        let fine = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() || name == "localhost" || name == self.edge;
        if fine {
            return Ok(());
        }
        Err(Problem::forbidden(format!(
            "Host `{name}` is not this edge's: use its address, localhost or {}, or send a token (this keeps web pages from reaching the admin API by DNS rebinding)",
            self.edge
        )))
    }
}

/// `host[:port]`, lower case, as the client names us.
fn authority(request: &Parts) -> Option<String> {
    let host = request.headers.get(header::HOST).and_then(|h| h.to_str().ok());
    host.or_else(|| request.uri.authority().map(|a| a.as_str())).map(str::to_ascii_lowercase)
}

fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => authority,
    }
}

fn same_site(request: &Parts, reads: bool) -> Result<(), Problem> {
    let text = |name: &str| request.headers.get(name).map(|v| v.to_str().unwrap_or("?"));
    let cross = || Problem::forbidden("this request comes from a page of another site; open the dashboard at this address itself");
    if let Some(origin) = text("origin") {
        let from = origin.split_once("://").map(|(_, host)| host.to_ascii_lowercase());
        if from.is_none() || from != authority(request) {
            return Err(cross());
        }
    }
    match text("sec-fetch-site") {
        None | Some("same-origin" | "none") => Ok(()),
        Some(_) if reads && text("sec-fetch-mode") == Some("navigate") => Ok(()),
        Some(_) => Err(cross()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    fn gate(guarded: bool) -> Gate {
        let key = |name: &str, secret: &str, write| Key { name: name.into(), secret: secret.into(), write };
        let keys = if guarded { vec![key("dash", "read-secret", false), key("ann", "write-secret", true)] } else { Vec::new() };
        Gate { keys, guarded, edge: "edge-1".into() }
    }

    fn judge(gate: &Gate, line: &str, headers: &[(&str, &str)], peer: &str) -> Result<String, u16> {
        let (method, uri) = line.split_once(' ').unwrap();
        let mut r = Request::builder().method(method).uri(uri);
        for (n, v) in headers {
            r = r.header(*n, *v);
        }
        let parts = r.body(()).unwrap().into_parts().0;
        gate.check(&parts, peer.parse().unwrap()).map(|a| a.to_string()).map_err(|p| p.status)
    }

    #[test]
    fn tokens_read_and_write() {
        let g = gate(true);
        let with = |line, token: &str| judge(&g, line, &[("host", "127.0.0.1:9900"), ("authorization", token)], "192.0.2.1");
        assert_eq!(with("GET /v1/status", "Bearer read-secret"), Ok("operator dash".into()));
        assert_eq!(with("POST /v1/reload", "Bearer read-secret"), Err(403));
        assert_eq!(with("POST /v1/reload", "bearer write-secret"), Ok("operator ann".into()));
        for wrong in ["Bearer ", "Bearer write-secre", "Bearer write-secret2", "Basic write-secret", "write-secret"] {
            assert_eq!(with("GET /v1/status", wrong), Err(401), "{wrong}");
        }
        assert_eq!(judge(&g, "GET /v1/status", &[("host", "127.0.0.1")], "127.0.0.1"), Err(401));
        assert_eq!(judge(&g, "GET /metrics", &[("host", "127.0.0.1")], "127.0.0.1"), Err(401));
        assert_eq!(judge(&g, "GET /livez", &[], "192.0.2.1"), Ok("operator local".into()));
    }

    #[test]
    fn tokens_that_cannot_be_read_open_nothing() {
        let g = Gate { keys: Vec::new(), ..gate(true) };
        assert_eq!(judge(&g, "GET /v1/status", &[("host", "localhost"), ("authorization", "Bearer ")], "127.0.0.1"), Err(401));
        assert_eq!(judge(&g, "GET /v1/status", &[("host", "localhost")], "127.0.0.1"), Err(401));
    }

    #[test]
    fn without_tokens_only_loopback_and_only_our_own_names() {
        let g = gate(false);
        let from = |peer, host| judge(&g, "POST /v1/reload", &[("host", host)], peer);
        for host in ["127.0.0.1:9900", "localhost:9900", "LOCALHOST", "[::1]:9900", "[::1]", "edge-1:9900", "10.0.0.7"] {
            assert_eq!(from("127.0.0.1", host), Ok("operator local".into()), "{host}");
        }
        assert_eq!(from("::ffff:127.0.0.1", "localhost"), Ok("operator local".into()));
        assert_eq!(from("192.0.2.1", "127.0.0.1"), Err(403));
        for host in ["evil.example:9900", "localhost.evil.example", "127.0.0.1.evil.example", ""] {
            assert_eq!(from("127.0.0.1", host), Err(403), "{host}");
        }
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let g = gate(false);
        let with = |line, extra: &[(&str, &str)]| judge(&g, line, &[&[("host", "localhost:9900")], extra].concat(), "127.0.0.1");
        assert!(with("POST /v1/reload", &[("origin", "http://localhost:9900"), ("sec-fetch-site", "same-origin")]).is_ok());
        for origin in ["http://evil.example", "null", "http://localhost:8080", "http://localhost"] {
            assert_eq!(with("POST /v1/reload", &[("origin", origin)]), Err(403), "{origin}");
            assert_eq!(with("GET /v1/status", &[("origin", origin)]), Err(403), "{origin}");
        }
        assert_eq!(with("POST /v1/reload", &[("sec-fetch-site", "cross-site")]), Err(403));
        assert_eq!(with("GET /v1/events", &[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "no-cors")]), Err(403));
        assert!(with("GET /", &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]).is_ok());
        assert_eq!(with("POST /v1/reload", &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]), Err(403));
    }
}
