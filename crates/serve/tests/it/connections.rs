//! Clients that disconnect, send nothing or read nothing, and a server that stops.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Server, endless, options, read_response};

fn begin(server: &Server, body: &Value) -> std::net::TcpStream {
    let body = body.to_string();
    let mut stream = server.connect();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    stream
}

/// A request that takes long.
fn long(stream: bool) -> Value {
    json!({"model": "tiny", "prompt": "x", "max_tokens": 15_000, "n": 4, "stream": stream, "seed": 1,
        "logit_bias": endless()})
}

#[test]
fn a_disconnect_frees_the_places_at_once() {
    let server = Server::start_long(options());
    for streams in [true, false] {
        let mut stream = begin(&server, &long(streams));
        server.wait_for("running_sequences", 4.0);
        if streams {
            stream.read_exact(&mut [0; 64]).unwrap();
        }
        let before = server.metric("generated_tokens_total");
        drop(stream);
        server.wait_for("running_sequences", 0.0);
        let after = server.metric("generated_tokens_total");
        assert!(after - before < 4.0 * 14_000.0, "all of it was generated: {before} to {after}");
    }
    assert_eq!(server.complete("x", json!({"max_tokens": 2})).status, 200);
}

#[test]
fn silent_and_slow_clients_keep_nobody_waiting() {
    let server = Server::start(options());
    let silent: Vec<_> = (0..40).map(|_| server.connect()).collect();
    let mut half = server.connect();
    half.write_all(
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
        Content-Length: 100\r\n\r\n{\"model\"",
    )
    .unwrap();
    // This one reads nothing of its answer.
    let unread = begin(&server, &json!({"model": "tiny", "prompt": "x", "n": 32, "stream": true}));
    assert_eq!(server.complete("x", json!({"max_tokens": 5})).status, 200);
    // Its sequences are generated whether it reads or not.
    server.wait_for("running_sequences", 0.0);
    let late = read_response(unread);
    assert!(late.body.ends_with("data: [DONE]\n\n"));
    drop((silent, half));
}

#[test]
fn a_server_that_stops_finishes_its_answers() {
    let mut server = Server::start_long(options());
    let stream = begin(
        &server,
        &json!({"model": "tiny", "prompt": "x", "max_tokens": 600, "logit_bias": endless(), "n": 4, "stream": true}),
    );
    server.wait_for("running_sequences", 4.0);
    server.request_stop();
    let start = Instant::now();
    let whole = read_response(stream);
    assert!(whole.body.ends_with("data: [DONE]\n\n"), "{}", whole.body);
    server.wait();
    assert!(start.elapsed() < Duration::from_secs(30));
    assert!(std::net::TcpStream::connect(&server.address).is_err(), "it still listens");
}

#[test]
fn a_server_that_stops_waits_some_seconds() {
    let mut server = Server::start_long(options());
    let stream = begin(&server, &long(true));
    server.wait_for("running_sequences", 4.0);
    server.request_stop();
    let start = Instant::now();
    server.wait();
    assert!(start.elapsed() < Duration::from_secs(25), "{:?}", start.elapsed());
    let cut = read_response(stream);
    assert!(!cut.body.contains("[DONE]"));
}
