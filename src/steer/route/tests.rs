use super::*;
use http::HeaderMap;
use proptest::prelude::*;

/// The definition: every part of a match, read literally.
fn matches(m: &Match, r: &RequestFacts<'_>) -> bool {
    let host = m.host.as_deref().is_none_or(|h| match h.strip_prefix('*') {
        Some(suffix) => r.host.len() > suffix.len() && r.host.ends_with(suffix),
        None => r.host == h,
    });
    let path = match &m.path {
        PathMatch::Any => true,
        PathMatch::Exact(p) => r.path == p,
        PathMatch::Prefix(p) => r.path.starts_with(p.as_str()),
        PathMatch::Regex(e) => e.is_match(r.path),
    };
    host && path
        && (m.methods.is_empty() || m.methods.iter().any(|x| x == r.method))
        && m.headers.iter().all(|(n, v)| {
            let mut any = false;
            r.headers.each(n, &mut |x| any |= x == v.as_bytes());
            any
        })
}

fn path_match() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        1 => Just(PathMatch::Any),
        3 => "/[ab/]{0,4}".prop_map(PathMatch::Exact),
        6 => "/[ab/]{0,4}".prop_map(PathMatch::Prefix),
        1 => Just(PathMatch::Prefix(String::new())),
        3 => "\\^?/[ab]{0,2}\\$?".prop_map(|e| PathMatch::Regex(regex::Regex::new(&e).unwrap())),
    ]
}

fn host() -> impl Strategy<Value = String> {
    "[xy](\\.[xy]){0,3}"
}

fn a_match() -> impl Strategy<Value = Match> {
    let host = prop_oneof![2 => Just(None), 3 => host().prop_map(Some), 3 => host().prop_map(|h| Some(format!("*.{h}")))];
    let methods = prop::collection::vec(prop_oneof![Just("GET".to_string()), Just("POST".to_string())], 0..2);
    let headers = prop::collection::vec((Just("x-a".to_string()), "[12]"), 0..2);
    (host, path_match(), methods, headers).prop_map(|(host, path, methods, headers)| Match { host, path, methods, headers })
}

proptest! {
    #[test]
    fn finds_what_a_scan_in_file_order_finds(
        routes in prop::collection::vec(a_match(), 0..60),
        requests in prop::collection::vec((prop_oneof![host(), "\\.[xy]", Just(String::new())], "/[ab/]{0,6}", prop::sample::select(vec!["GET", "POST", "PUT"]), prop::collection::vec("[12]", 0..3)), 20),
    ) {
        let router = Router::over(routes.iter());
        for (host, path, method, values) in &requests {
            let mut headers = HeaderMap::new();
            values.iter().for_each(|v| { headers.append("x-a", v.parse().unwrap()); });
            let facts = RequestFacts { method, host, path, headers: &headers };
            let scan = routes.iter().position(|m| matches(m, &facts)).map(RouteIx::from);
            prop_assert_eq!(router.find(&facts), scan, "{} {}{}", method, host, path);
        }
    }
}

fn find(router: &Router, host: &str, path: &str) -> Option<u32> {
    let headers = HeaderMap::new();
    router.find(&RequestFacts { method: "GET", host, path, headers: &headers }).map(|r| r.0)
}

fn on(host: Option<&str>, path: PathMatch) -> Match {
    Match { host: host.map(Into::into), path, ..Match::default() }
}

#[test]
fn file_order_goes_before_precision() {
    let prefix = |p: &str| PathMatch::Prefix(p.into());
    let routes = [on(None, prefix("/a")), on(Some("x.y"), PathMatch::Exact("/a/b".into())), on(Some("*.y"), PathMatch::Any)];
    let router = Router::over(routes.iter());
    assert_eq!(find(&router, "x.y", "/a/b"), Some(0), "the first in the file, though another is more precise");
    assert_eq!(find(&router, "x.y", "/b"), Some(2));
    assert_eq!(find(&router, "y", "/b"), None, "a wildcard needs a subdomain");
    assert_eq!(find(&router, "y", "/ab"), Some(0), "prefixes are compared byte for byte");
}

#[test]
fn many_expressions_are_tested_as_a_set_with_the_same_result() {
    let routes: Vec<_> = (0..500).map(|i| on(None, PathMatch::Regex(regex::Regex::new(&format!("^/v{i}(/|$)")).unwrap()))).collect();
    let router = Router::over(routes.iter());
    assert!(router.any.set.is_some());
    assert_eq!(find(&router, "h", "/v499/x"), Some(499));
    assert_eq!(find(&router, "h", "/v500/x"), None);
}

/// Work done is counted, not timed: a request looks at the lists of its own host and prefixes only.
#[test]
fn five_thousand_routes_are_not_gone_through() {
    let routes: Vec<_> =
        (0..5000).map(|i| on(Some(&format!("h{}.example.com", i % 500)), PathMatch::Prefix(format!("/api/v{}/", i / 500)))).collect();
    let router = Router::over(routes.iter());
    assert_eq!(router.hosts.len(), 500);
    assert!(router.hosts.values().all(|b| b.prefixes.len() == 10 && b.prefixes.iter().all(|p| p.parent.is_none() && p.routes.len() == 1)));
    assert_eq!(find(&router, "h499.example.com", "/api/v9/x"), Some(4999));
}
