//! Keys, hosts, and addresses that need a key.

use serde_json::json;
use serve::{Listener, Options};

use crate::support::{Server, options};

#[test]
fn a_key_opens_everything_and_without_it_only_page_and_health_are_open() {
    let server = Server::start(Options { key: Some("s3cret".to_owned()), ..options() });
    let body = json!({"model": "tiny", "prompt": "x", "max_tokens": 1}).to_string();
    for headers in [
        "",
        "Authorization: Bearer wrong\r\n",
        "Authorization: s3cret\r\n",
        "Authorization: Bearer s3cret2\r\n",
    ] {
        let headers = format!("{headers}Content-Type: application/json\r\n");
        let response = server.send("POST", "/v1/completions", &headers, body.as_bytes());
        assert_eq!(
            (response.status, &response.json()["error"]["code"]),
            (401, &json!("invalid_api_key"))
        );
        assert_eq!(server.send("GET", "/v1/models", &headers, b"").status, 401);
        assert_eq!(server.send("GET", "/metrics", &headers, b"").status, 401);
    }
    assert_eq!((server.get("/").status, server.get("/health").status), (200, 200));
    let headers = "Authorization: Bearer s3cret\r\nContent-Type: application/json\r\n";
    assert_eq!(server.send("POST", "/v1/completions", headers, body.as_bytes()).status, 200);
    assert_eq!(server.send("GET", "/v1/models", headers, b"").status, 200);
}

#[test]
fn pages_of_other_sites_are_refused() {
    let server = Server::start(options());
    let foreign = server.send("GET", "/v1/models", "Host: example.com\r\n", b"");
    assert_eq!(foreign.status, 403);
    assert_eq!(server.send("GET", "/v1/models", "Host: localhost:1\r\n", b"").status, 200);
    // What a form can send is not read.
    let body = json!({"model": "tiny", "prompt": "x"}).to_string();
    let form =
        server.send("POST", "/v1/completions", "Content-Type: text/plain\r\n", body.as_bytes());
    assert_eq!(form.status, 415);
}

#[test]
fn a_host_that_others_reach_needs_a_key() {
    let error = Listener::bind("0.0.0.0", 0, false).unwrap_err();
    assert!(
        matches!(error, serve::Error::NoKey { .. }) && error.hint().unwrap().contains("--key-file")
    );
    assert!(Listener::bind("0.0.0.0", 0, true).is_ok());
    let taken = Listener::bind("127.0.0.1", 0, false).unwrap();
    let port = taken.address().unwrap().port();
    let error = Listener::bind("127.0.0.1", port, false).unwrap_err();
    assert!(error.hint().unwrap().contains("--port"), "{error}");
}
