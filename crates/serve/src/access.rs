//! Who may use the server: the key, and the name under which a request addresses this machine.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::api::ApiError;
use crate::app::App;

/// Paths that need no key: they show nothing of a model.
const OPEN: [&str; 2] = ["/", "/health"];
/// Paths that metrics name; others count as one, so that requests cannot make new ones.
const COUNTED: [&str; 7] = [
    "/",
    "/health",
    "/metrics",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/models",
];

/// Refuses requests that may not use the server, and counts all.
pub(crate) async fn check(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let path = COUNTED.into_iter().find(|known| *known == path).unwrap_or("other");
    let mut response = match refusal(&app, path, request.headers()) {
        Some(error) => error.into_response(),
        None => next.run(request).await,
    };
    app.metrics.count_request(path, response.status().as_u16());
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

fn refusal(app: &App, path: &str, headers: &HeaderMap) -> Option<ApiError> {
    // A page of another site can make its own name point to this machine and then read answers.
    let mut hosts = headers.get_all(header::HOST).iter();
    let is_ours = |host: &HeaderValue| host.to_str().is_ok_and(is_loopback);
    if app.is_local && !hosts.all(is_ours) {
        return Some(ApiError::host());
    }
    let key = app.options.key.as_deref().filter(|_| !OPEN.contains(&path))?;
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.split_once(' '));
    let is_right = given.is_some_and(|(scheme, given)| {
        let is_bearer = scheme.eq_ignore_ascii_case("bearer");
        is_bearer && is_equal(given.trim().as_bytes(), key.as_bytes())
    });
    (!is_right).then(ApiError::key)
}

/// Whether a `Host` header names this machine as such.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => host.split(':').next(),
    };
    let name = name.unwrap_or_default();
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Compares all bytes, so that the time does not depend on where a guess is wrong.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::{is_equal, is_loopback};

    #[test]
    fn names_of_this_machine() {
        for host in ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "127.1.2.3", "[::1]:8080"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in
            ["", "example.com", "127.0.0.1.example.com", "10.0.0.1:80", "[::2]", "localhost.a"]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn keys_are_equal_as_a_whole() {
        assert!(is_equal(b"abc", b"abc"));
        assert!(!is_equal(b"abc", b"abx") && !is_equal(b"abc", b"ab") && !is_equal(b"", b"a"));
    }
}
