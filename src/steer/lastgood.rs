//! Rules of the last good copy: whose answer may be kept, under which key, and who may be given it.
//!
//! The copy is served only when no good answer can be had in time, and it is always marked; so freshness
//! (RFC 9111 `max-age`, `no-cache`) is the operator's call, made by writing `degrade: [stale: …]` on the route.
//! What is not anybody's call is privacy: no user ever receives another user's copy. Hence nothing is kept
//!
//! - for a request with `Authorization`, a client certificate, or a `Cookie` other than the route's
//!   `ignore_cookies`, unless `key_headers` makes that field part of the key (never for certificates);
//! - for an answer with `Set-Cookie`, `Vary: *`, `Cache-Control: no-store` or `private`, or for a request
//!   that says `no-store`.
//!
//! The key is exact: route, method class, Host, path and query as sent (order included), the rule's `key_headers` and `ignore_cookies`
//! (a reload that changes them starts afresh: `X-User: 7` is not `X-Tenant: 7`), the values of those headers and, of the fields the kept answer names in `Vary` (RFC 9111 section 4.1), the values of this request.
//! A `404` or `410` evicts: what was deleted must not come back in an outage.

use crate::model::policy::StaleRule;
use crate::model::view::Fields;
use std::sync::Arc;

/// The key of a copy. Length-prefixed parts, so that no two requests share one by concatenation.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Key(pub Arc<[u8]>);

impl Key {
    /// What it was made of: route, scheme, host, path with query, terms; then counts and values of fields, which only equality is for.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first_chunk::<4>()?;
            let (part, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
            rest = after;
            Some(part)
        })
    }
}

/// What of a request goes into its key.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// Upper case.
    pub method: &'a str,
    /// `http` or `https`: one host may answer differently on the two.
    pub scheme: &'a str,
    /// Lower case, with the port where one was given.
    pub host: &'a str,
    /// Path and query, byte for byte.
    pub target: &'a str,
    /// All fields.
    pub fields: &'a dyn Fields,
    /// Whether the client showed a certificate.
    pub certificate: bool,
}

/// The key under which this request's answer may be kept and looked up; `None`: it is personal, or not a read.
pub fn key(route: &str, rule: &StaleRule, asked: &Asked<'_>) -> Option<Key> {
    if !matches!(asked.method, "GET" | "HEAD") || asked.certificate {
        return None;
    }
    let keyed = |name: &str| rule.key_headers.iter().any(|k| k == name);
    if asked.fields.get("authorization").is_some() && !keyed("authorization") {
        return None;
    }
    if !keyed("cookie") && has_personal_cookie(asked.fields, &rule.ignore_cookies) {
        return None;
    }
    let mut bytes = Vec::with_capacity(route.len() + asked.host.len() + asked.target.len() + 32);
    for part in [route, asked.scheme, asked.host, asked.target] {
        push(&mut bytes, part.as_bytes());
    }
    push(&mut bytes, &terms(rule));
    for name in &rule.key_headers {
        push_field(&mut bytes, asked.fields, name);
    }
    Some(Key(bytes.into()))
}

/// What decides whose a copy is. Part of the key: under other terms than those it was kept under, a copy is nobody's.
fn terms(rule: &StaleRule) -> Vec<u8> {
    if rule.key_headers.is_empty() && rule.ignore_cookies.is_empty() {
        return Vec::new();
    }
    [rule.key_headers.join(","), rule.ignore_cookies.join(",")].join(";").into_bytes()
}

/// Whether a copy with this key was kept under these terms.
pub fn made_by(key: &Key, rule: &StaleRule) -> bool {
    key.parts().nth(4) == Some(&terms(rule)[..])
}

/// The key of the variant that this request selects, given the fields that the answer varies on.
pub fn variant(primary: &Key, names: &[String], fields: &dyn Fields) -> Key {
    let mut bytes = Vec::from(&*primary.0);
    for name in names {
        push(&mut bytes, name.as_bytes());
        push_field(&mut bytes, fields, name);
    }
    Key(bytes.into())
}

fn push(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend_from_slice(&(part.len() as u32).to_be_bytes());
    bytes.extend_from_slice(part);
}

/// Every value of a field; absent and empty differ.
fn push_field(bytes: &mut Vec<u8>, fields: &dyn Fields, name: &str) {
    let mut values = 0u32;
    fields.each(name, &mut |_| values += 1);
    bytes.extend_from_slice(&values.to_be_bytes());
    fields.each(name, &mut |value| push(bytes, value));
}

fn has_personal_cookie(fields: &dyn Fields, ignored: &[String]) -> bool {
    let mut personal = false;
    fields.each("cookie", &mut |value| {
        for pair in value.split(|b| *b == b';') {
            let name = pair.split(|b| *b == b'=').next().unwrap_or_default().trim_ascii();
            personal |= !pair.trim_ascii().is_empty() && !ignored.iter().any(|i| i.as_bytes() == name);
        }
    });
    personal
}

/// What to do with an answer that has come in full.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Keep {
    /// Keep it; it varies on these fields (lower case, sorted).
    Yes(Vec<String>),
    /// Leave what is there.
    No,
    /// Drop what is there.
    Evict,
}

/// Whether an answer to `request` may be kept.
pub fn keep(method: &str, request: &dyn Fields, status: u16, answer: &dyn Fields) -> Keep {
    if matches!(status, 404 | 410) {
        return Keep::Evict;
    }
    if method != "GET" || !matches!(status, 200 | 203 | 301 | 308) || answer.get("content-range").is_some() {
        return Keep::No;
    }
    if answer.get("set-cookie").is_some() || has_directive(answer, &["no-store", "private"]) {
        // What was public before may not be now: an older copy must not outlive that.
        return Keep::Evict;
    }
    if has_directive(request, &["no-store"]) {
        return Keep::No;
    }
    let mut names: Vec<String> = Vec::new();
    let mut star = false;
    answer.each("vary", &mut |value| {
        for name in value.split(|b| *b == b',') {
            let name = String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase();
            star |= name == "*";
            if !name.is_empty() {
                names.push(name);
            }
        }
    });
    if star {
        return Keep::Evict;
    }
    // A coded body that forgets to say Vary would be given to clients that cannot decode it.
    if answer.get("content-encoding").is_some() {
        names.push("accept-encoding".to_owned());
    }
    names.sort();
    names.dedup();
    Keep::Yes(names)
}

fn has_directive(fields: &dyn Fields, wanted: &[&str]) -> bool {
    let mut found = false;
    fields.each("cache-control", &mut |value| {
        for directive in value.split(|b| *b == b',') {
            let name = directive.split(|b| *b == b'=').next().unwrap_or_default().trim_ascii();
            found |= wanted.iter().any(|w| name.eq_ignore_ascii_case(w.as_bytes()));
        }
    });
    found
}

/// How a copy answers a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply {
    /// Whole, with 200 (a range is ignored, as RFC 9110 section 14.2 allows).
    Whole,
    /// 304: the client has this very copy.
    NotModified,
    /// Not at all: the request has a precondition only the origin can judge.
    Never,
}

/// How a copy with this entity tag and modification date (as sent by the origin) answers a request.
pub fn reply(request: &dyn Fields, etag: Option<&[u8]>, modified: Option<&[u8]>) -> Reply {
    if request.get("if-match").is_some() || request.get("if-unmodified-since").is_some() {
        return Reply::Never;
    }
    if request.get("if-none-match").is_some() {
        let mut same = false;
        request.each("if-none-match", &mut |value| {
            same |= value.trim_ascii() == b"*" || etag.is_some_and(|etag| lists(value, weak(etag)));
        });
        return if same { Reply::NotModified } else { Reply::Whole };
    }
    // An exact match of the date is the safe subset of RFC 9110 section 13.1.3: clients echo what they were given.
    match (request.get("if-modified-since"), modified) {
        (Some(since), Some(modified)) if since.trim_ascii() == modified.trim_ascii() => Reply::NotModified,
        _ => Reply::Whole,
    }
}

/// Weak comparison (RFC 9110 section 8.8.3.2): `W/` does not matter.
fn weak(etag: &[u8]) -> &[u8] {
    let etag = etag.trim_ascii();
    etag.strip_prefix(b"W/").unwrap_or(etag)
}

fn lists(value: &[u8], wanted: &[u8]) -> bool {
    // A comma may stand inside the quotes of an entity tag.
    let mut quoted = false;
    value
        .split(move |b| {
            quoted ^= *b == b'"';
            *b == b',' && !quoted
        })
        .any(|tag| weak(tag) == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    fn fields(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().expect("a field value"));
        }
        map
    }
    fn rule(key_headers: &[&str], ignore_cookies: &[&str]) -> StaleRule {
        let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        StaleRule { max_age: std::time::Duration::from_secs(60), key_headers: own(key_headers), ignore_cookies: own(ignore_cookies) }
    }
    fn asked<'a>(target: &'a str, fields: &'a HeaderMap) -> Asked<'a> {
        Asked { method: "GET", scheme: "http", host: "a.test", target, fields, certificate: false }
    }

    #[test]
    fn personal_requests_have_no_key() {
        let plain = rule(&[], &["theme"]);
        for (pairs, has_key) in [
            (&[("authorization", "Bearer x")][..], false),
            (&[("cookie", "session=1")][..], false),
            (&[("cookie", "theme=dark; session=1")][..], false),
            (&[("cookie", "theme=dark"), ("cookie", "session=1")][..], false),
            (&[("cookie", "theme=dark")][..], true),
            (&[("cookie", "themes=dark")][..], false),
            (&[("accept", "*/*")][..], true),
        ] {
            let map = fields(pairs);
            assert_eq!(key("r", &plain, &asked("/", &map)).is_some(), has_key, "{pairs:?}");
        }
        let none = fields(&[]);
        assert_eq!(key("r", &plain, &Asked { certificate: true, ..asked("/", &none) }), None);
        assert_eq!(key("r", &plain, &Asked { method: "POST", ..asked("/", &none) }), None);
    }

    #[test]
    fn a_keyed_credential_separates_users() {
        let by_user = rule(&["authorization"], &[]);
        let (anna, ben, nobody) = (fields(&[("authorization", "anna")]), fields(&[("authorization", "ben")]), fields(&[]));
        let keys: Vec<_> = [&anna, &ben, &nobody].map(|f| key("r", &by_user, &asked("/", f))).into();
        assert!(keys.iter().all(Option::is_some));
        assert!(keys[0] != keys[1] && keys[0] != keys[2] && keys[1] != keys[2]);
    }

    #[test]
    fn under_other_terms_a_copy_is_nobodys() {
        let map = fields(&[("x-user", "7"), ("x-tenant", "7")]);
        let of = |headers: &[&str], cookies: &[&str]| key("r", &rule(headers, cookies), &asked("/", &map)).expect("not personal");
        let all = [of(&["x-user"], &[]), of(&["x-tenant"], &[]), of(&[], &[]), of(&[], &["x-user"]), of(&["x-user"], &["session"])];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b), "{i}");
        }
        assert!(made_by(&all[0], &rule(&["x-user"], &[])) && !made_by(&all[0], &rule(&["x-tenant"], &[])));
        assert!(made_by(&variant(&all[2], &["accept".into()], &map), &rule(&[], &[])), "variants likewise");
    }

    #[test]
    fn everything_that_selects_an_answer_is_in_the_key() {
        let (plain, none) = (rule(&[], &[]), fields(&[]));
        let of = |a: Asked<'_>| key("r", &plain, &a).expect("not personal");
        let base = of(asked("/a?x=1&y=2", &none));
        assert_eq!(base, of(asked("/a?x=1&y=2", &none)));
        assert_eq!(base, of(Asked { method: "HEAD", ..asked("/a?x=1&y=2", &none) }), "HEAD is answered from GET's copy");
        assert_ne!(base, of(asked("/a?y=2&x=1", &none)), "query order");
        assert_ne!(base, of(Asked { host: "b.test", ..asked("/a?x=1&y=2", &none) }));
        assert_ne!(base, of(Asked { scheme: "https", ..asked("/a?x=1&y=2", &none) }));
        assert_ne!(base, key("s", &plain, &asked("/a?x=1&y=2", &none)).expect("not personal"));
        // No two different part lists may meet by concatenation.
        assert_ne!(of(Asked { host: "ab", ..asked("c", &none) }), of(Asked { host: "a", ..asked("bc", &none) }));
    }

    #[test]
    fn variants_differ_by_what_the_answer_varies_on() {
        let primary = key("r", &rule(&[], &[]), &asked("/", &fields(&[]))).expect("not personal");
        let by = |pairs: &[(&'static str, &str)]| variant(&primary, &["accept-language".to_owned()], &fields(pairs));
        assert_eq!(by(&[("accept-language", "de")]), by(&[("accept-language", "de"), ("accept", "x")]));
        assert_ne!(by(&[("accept-language", "de")]), by(&[("accept-language", "fr")]));
        assert_ne!(by(&[("accept-language", "")]), by(&[]), "absent is not empty");
    }

    #[test]
    fn only_public_good_answers_are_kept() {
        let none = fields(&[]);
        let verdict = |status, pairs: &[(&'static str, &str)]| keep("GET", &none, status, &fields(pairs));
        assert_eq!(verdict(200, &[]), Keep::Yes(vec![]));
        assert_eq!(
            verdict(200, &[("vary", "Accept, accept-encoding"), ("vary", "accept")]),
            Keep::Yes(vec!["accept".into(), "accept-encoding".into()])
        );
        assert_eq!(verdict(200, &[("content-encoding", "gzip")]), Keep::Yes(vec!["accept-encoding".into()]));
        assert_eq!(verdict(200, &[("cache-control", "max-age=1, stale-if-error=300")]), Keep::Yes(vec![]));
        for refused in [("set-cookie", "a=1"), ("vary", "*"), ("cache-control", "max-age=1, Private"), ("cache-control", "no-store")] {
            assert_eq!(verdict(200, &[refused]), Keep::Evict, "{refused:?}");
        }
        assert_eq!(verdict(206, &[("content-range", "bytes 0-1/2")]), Keep::No);
        assert_eq!(verdict(200, &[("content-range", "bytes 0-1/2")]), Keep::No);
        assert_eq!((verdict(404, &[]), verdict(410, &[]), verdict(500, &[])), (Keep::Evict, Keep::Evict, Keep::No));
        assert_eq!(keep("HEAD", &none, 200, &none), Keep::No);
        assert_eq!(keep("GET", &fields(&[("cache-control", "no-store")]), 200, &none), Keep::No);
    }

    #[test]
    fn conditions_are_answered_or_left_to_the_origin() {
        let reply = |pairs: &[(&'static str, &str)]| reply(&fields(pairs), Some(b"\"a,b\""), Some(b"Sat, 21 Nov 2026 10:00:00 GMT"));
        assert_eq!(reply(&[]), Reply::Whole);
        assert_eq!(reply(&[("range", "bytes=0-1")]), Reply::Whole);
        assert_eq!(reply(&[("if-none-match", "\"x\", W/\"a,b\"")]), Reply::NotModified);
        assert_eq!(reply(&[("if-none-match", "\"a\", \"b\"")]), Reply::Whole);
        assert_eq!(reply(&[("if-none-match", "*")]), Reply::NotModified);
        assert_eq!(reply(&[("if-modified-since", "Sat, 21 Nov 2026 10:00:00 GMT")]), Reply::NotModified);
        assert_eq!(reply(&[("if-modified-since", "Sat, 21 Nov 2026 11:00:00 GMT")]), Reply::Whole);
        assert_eq!(reply(&[("if-match", "\"a,b\"")]), Reply::Never);
    }
}
