//! Which last good copies an operator means: the pattern of `evenkeel stale purge`.
//!
//! ```text
//! *                    every copy
//! stats                those of the route `stats`
//! a.test               those of this host, whatever its port
//! /video/              those of paths that begin so, on any host; with a `?`, of path and query
//! a.test/video/*       likewise on one host; a `*` at the end says what is so anyway
//! ```
//!
//! Prefixes, because what was published wrongly is mostly a folder or an item with all of its queries. A pattern that means
//! more than was thought costs copies that come back with the next good answers; one that means less leaves up what had to go.

use super::lastgood::Key;

/// What is to go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pattern {
    /// Everything.
    All,
    /// What this route keeps.
    Route(String),
    /// By where it was asked for.
    Place {
        /// Lower case, with or without a port; `None`: any.
        host: Option<String>,
        /// What path and query begin with.
        target: String,
    },
}

impl Pattern {
    /// What the text means, given the names of the routes. The error is for the operator.
    pub fn read<'a>(text: &str, routes: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("a `pattern` is needed: a route, a host, or what a path begins with; `*` for all copies".into());
        }
        if text == "*" {
            return Ok(Self::All);
        }
        let routes: Vec<&str> = routes.into_iter().collect();
        if routes.contains(&text) {
            return Ok(Self::Route(text.into()));
        }
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).unwrap_or(text);
        let prefix = rest.strip_suffix('*').unwrap_or(rest);
        if prefix.contains('*') {
            return Err(format!("`{text}`: a `*` may stand at the end alone; a path stands for all that begin with it"));
        }
        match prefix.find('/') {
            Some(at) => {
                let host = &prefix[..at];
                Ok(Self::Place { host: (!host.is_empty()).then(|| host.to_ascii_lowercase()), target: prefix[at..].into() })
            }
            None if rest != prefix || !prefix.contains(['.', ':']) => Err(format!(
                "there is no route `{text}`; there are {}. Paths begin with a slash, and a host stands alone or in front of one",
                routes.join(", ")
            )),
            None => Ok(Self::Place { host: Some(prefix.to_ascii_lowercase()), target: String::new() }),
        }
    }

    /// Whether the copy with this key is meant.
    pub fn names(&self, key: &Key) -> bool {
        match self {
            Self::All => true,
            Self::Route(name) => key.parts().next() == Some(name.as_bytes()),
            Self::Place { host, target } => {
                let mut parts = key.parts().skip(2);
                let (at, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                host.as_ref().is_none_or(|host| same_host(at, host.as_bytes())) && path.starts_with(target.as_bytes())
            }
        }
    }
}

/// Whether `at` is `host`, or `host` and a port.
fn same_host(at: &[u8], host: &[u8]) -> bool {
    at.strip_prefix(host).is_some_and(|rest| match rest {
        [] => true,
        [b':', port @ ..] => !port.is_empty() && port.iter().all(u8::is_ascii_digit),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::super::lastgood::{Asked, key};
    use super::*;
    use crate::model::policy::StaleRule;

    fn kept(route: &str, host: &str, target: &str) -> Key {
        let rule = StaleRule { max_age: std::time::Duration::ZERO, key_headers: vec!["accept".into()], ignore_cookies: vec![] };
        let mut fields = http::HeaderMap::new();
        fields.insert("accept", "/video/".parse().expect("a field value"));
        key(route, &rule, &Asked { method: "GET", scheme: "http", host, target, fields: &fields, certificate: false }).expect("public")
    }

    #[test]
    fn a_pattern_means_what_it_says_and_nothing_else() {
        let copies = [
            kept("stats", "a.test", "/video/1?x=1"),
            kept("stats", "a.test:8080", "/video/12"),
            kept("stats", "ba.test", "/pages/video/"),
            kept("video", "a.test.evil", "/"),
        ];
        for (text, meant) in [
            ("*", "1111"),
            ("stats", "1110"),
            ("video", "0001"),
            ("/video/", "1100"),
            ("/video/*", "1100"),
            ("/video/1?", "1000"),
            ("/video/12", "0100"),
            ("/Video/", "0000"),
            ("a.test", "1100"),
            ("A.test/video/1", "1100"),
            ("a.test:8080/", "0100"),
            ("a.test:80", "0000"),
            ("https://a.test/video/1?x=1", "1000"),
            ("/", "1111"),
        ] {
            let pattern = Pattern::read(text, ["stats", "video"]).expect(text);
            let found: String = copies.iter().map(|k| if pattern.names(k) { '1' } else { '0' }).collect();
            assert_eq!(found, meant, "{text}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_told_apart() {
        let error = |text| Pattern::read(text, ["stats"]).expect_err(text);
        assert!(error(" ").contains("a `pattern` is needed"));
        assert!(error("stat").contains("there is no route `stat`; there are stats"));
        assert!(error("stat*").contains("there is no route"));
        assert!(error("/a/*/b").contains("at the end alone"));
    }
}
