//! The dashboard at `/`: one page, embedded, without a build step, working offline.
//!
//! It reads the same `/v1/status`, `/v1/events` and `/metrics` as everybody else and has no way in of its own; so
//! what it shows can be checked with `evenkeel status` and curl. uPlot (MIT, `vendor/`) draws the charts.

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::get;

/// The page loads nothing but its own files, and talks to nobody but its own proxy.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const FILES: [(&str, &str, &str); 7] = [
    ("/", "text/html; charset=utf-8", include_str!("index.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("style.css")),
    ("/metrics.js", "text/javascript; charset=utf-8", include_str!("metrics.js")),
    ("/app.js", "text/javascript; charset=utf-8", include_str!("app.js")),
    ("/operate.js", "text/javascript; charset=utf-8", include_str!("operate.js")),
    ("/vendor/uPlot.iife.min.js", "text/javascript; charset=utf-8", include_str!("vendor/uPlot.iife.min.js")),
    ("/vendor/uPlot.min.css", "text/css; charset=utf-8", include_str!("vendor/uPlot.min.css")),
];

/// The paths of the page and what it loads; they hold no secrets and need no token.
pub fn paths() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(path, ..)| *path)
}

/// The routes of the page.
pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.iter().fold(Router::new(), |router, (path, kind, text)| {
        // Revalidated each time: a new binary must not be seen through the page of an old one.
        router.route(
            path,
            get(move || async move {
                ([(CONTENT_TYPE, *kind), (CACHE_CONTROL, "no-cache"), (CONTENT_SECURITY_POLICY, POLICY)], *text).into_response()
            }),
        )
    })
}
