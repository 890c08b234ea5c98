//! Many requests at once: each gets what it gets alone.

use serde_json::{Value, json};

use crate::support::{Server, endless, options};

fn request(idx: usize) -> Value {
    let mut body = json!({"max_tokens": 20 + (idx * 7) % 40, "seed": idx, "n": 1 + idx % 2});
    match idx % 4 {
        0 => body["temperature"] = 0.into(),
        1 => body["top_p"] = 0.9.into(),
        2 => body["frequency_penalty"] = 1.into(),
        _ => body["stop"] = json!(["e", "\n"]),
    }
    body
}

#[test]
fn the_same_request_gets_the_same_answer_in_any_company() {
    let server = Server::start(options());
    let ask = |idx: usize| {
        let text = "What is it? ".repeat(1 + idx % 5);
        let response = server.chat(&text, request(idx));
        assert_eq!(response.status, 200, "{}", response.body);
        let mut answer = response.json();
        let fields = answer.as_object_mut().unwrap();
        fields.retain(|name, _| name == "choices" || name == "usage");
        answer
    };
    let alone: Vec<Value> = (0..16).map(ask).collect();
    for round in 0..2 {
        let together: Vec<Value> = std::thread::scope(|scope| {
            let ask = &ask;
            let threads: Vec<_> =
                (0..16).map(|idx| scope.spawn(move || ask((idx + round * 5) % 16))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for (idx, answer) in together.into_iter().enumerate() {
            assert_eq!(answer, alone[(idx + round * 5) % 16], "request {idx} of round {round}");
        }
    }
    server.wait_for("running_sequences", 0.0);
}

#[test]
fn requests_beyond_the_limit_are_told_to_come_back() {
    let server = Server::start_long(serve::Options { max_clients: 1, ..options() });
    let mut first = server.connect();
    let body = json!({"model": "tiny", "prompt": "x", "stream": true, "max_tokens": 15_000, "n": 8,
            "logit_bias": endless()})
    .to_string();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    std::io::Write::write_all(&mut first, format!("{head}{body}").as_bytes()).unwrap();
    server.wait_for("running_sequences", 8.0);
    let refused = server.chat("Hi", json!({}));
    assert_eq!(refused.status, 429);
    assert_eq!(refused.json()["error"]["type"], "rate_limit_error");
    assert!(refused.head.contains("retry-after: 1"), "{}", refused.head);
    // Pages and metrics are still answered. The place is free once the client is gone.
    assert_eq!(server.get("/health").status, 200);
    drop(first);
    server.wait_for("running_sequences", 0.0);
    assert_eq!(server.chat("Hi", json!({"max_tokens": 2})).status, 200);
}
