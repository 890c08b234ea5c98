//! Refused requests: status, field and message.

use serde_json::{Value, json};

use crate::support::{Server, options};

#[test]
fn wrong_fields_are_named() {
    let server = Server::start(options());
    let many: Vec<String> = (0..17).map(|n| n.to_string()).collect();
    for (field, value, part) in [
        ("temperature", json!(2.5), "between 0 and 2: `2.5`"),
        ("temperature", json!("hot"), "invalid type: string"),
        ("top_p", json!(-0.1), "between 0 and 1"),
        ("n", json!(0), "between 1 and 32: `0`"),
        ("n", json!(33), "between 1 and 32: `33`"),
        ("max_tokens", json!(0), "at least"),
        ("max_tokens", json!(101), "at most 100, the limit of this server: `101`"),
        ("presence_penalty", json!(3), "between -2 and 2"),
        ("stop", json!(""), "between 1 and 1024 bytes"),
        ("stop", json!(many), "17 texts; at most 16"),
        ("stop", json!([1]), "a text or a list of texts"),
        ("logit_bias", json!({"320": 1}), "below 320"),
        ("logit_bias", json!({"a": 1}), "below 320"),
        ("seed", json!(1.5), "invalid type"),
        ("stream", json!("yes"), "invalid type"),
        ("stream_options", json!({"include_usage": true}), "needs `stream`"),
        ("top_logprobs", json!(2), "needs `logprobs`"),
        ("messages", json!([]), "is empty"),
        (
            "messages",
            json!([{"role": "user", "content": "x".repeat(128)}]),
            "the model's context length is 128",
        ),
        (
            "response_format",
            json!({"type": "grammar"}),
            "text, json_object or json_schema: `grammar`",
        ),
        ("response_format", json!({"type": "json_schema"}), "is missing"),
        ("tool_choice", json!("required"), "`tools` is empty"),
        ("tools", json!([{"type": "function", "function": {"name": "f"}}]), "tools"),
        ("functions", json!([{"name": "f"}]), "not supported"),
        ("reasoning_effort", json!("high"), "not supported"),
        ("modalities", json!(["audio"]), "not supported"),
        ("mood", json!("good"), "the field `mood` is not known"),
    ] {
        let response = server.chat("Hi", json!({field: value}));
        let error = &response.json()["error"];
        assert_eq!(response.status, 400, "{field}: {}", response.body);
        assert_eq!(error["type"], "invalid_request_error");
        let message = error["message"].as_str().unwrap();
        if part != "at least" && field != "tools" {
            assert_eq!(error["param"], field, "{message}");
            assert!(message.contains(part), "{field}: {message}");
        }
    }
    // What changes nothing is accepted.
    let harmless = json!({"max_tokens": 1, "user": "me", "store": false, "tools": [], "tool_choice": "none", "top_p": 1,
        "response_format": {"type": "text"}, "modalities": ["text"], "temperature": null, "logit_bias": {}, "n": 1,
        "metadata": {"a": "b"}, "stop": [], "service_tier": "auto", "functions": []});
    assert_eq!(server.chat("Hi", harmless).status, 200);
}

#[test]
fn wrong_completions_are_named() {
    let server = Server::start(options());
    for (field, value, part) in [
        ("prompt", json!(7), "a text, a list of texts"),
        ("prompt", json!([]), "is empty"),
        ("prompt", json!([[]]), "no tokens"),
        ("prompt", json!([320]), "beyond the vocabulary of 320: `320`"),
        ("prompt", json!(vec![1; 128]), "has 128 tokens, and the model's context length is 128"),
        ("prompt", json!(vec!["a"; 33]), "33 texts; at most 32"),
        ("echo", json!(true), "not supported"),
        ("suffix", json!("end"), "not supported"),
        ("best_of", json!(4), "not supported"),
        ("logprobs", json!(true), "invalid type"),
        ("messages", json!([]), "not known"),
    ] {
        let response = server.complete("a", json!({field: value}));
        let error = &response.json()["error"];
        assert_eq!((response.status, &error["param"]), (400, &json!(field)), "{}", response.body);
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(part), "{field}: {message}");
    }
    let missing = server.post("/v1/completions", &json!({"model": "tiny"})).json();
    assert_eq!(missing["error"]["param"], "prompt");
}

#[test]
fn unknown_models_paths_and_bodies() {
    let server = Server::start(options());
    let unknown = server.chat("Hi", json!({"model": "gpt-4"}));
    assert_eq!(
        (unknown.status, unknown.json()["error"]["code"].clone()),
        (404, json!("model_not_found"))
    );
    assert!(unknown.body.contains("`tiny`"), "{}", unknown.body);
    assert_eq!(server.get("/v1/models/gpt-4").status, 404);
    assert_eq!(server.get("/v1/images").status, 404);
    assert_eq!(server.get("/v1/chat/completions").status, 405);
    assert!(server.get("/v1/chat/completions").json()["error"]["message"].is_string());
    let json = "Content-Type: application/json\r\n";
    let post = |body: &[u8]| server.send("POST", "/v1/chat/completions", json, body);
    let nested = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    for body in
        [&b""[..], b"{", b"[]", b"\"a\"", b"{\"model\": \"tiny\xff\"}", b"{\"model\": 7}", &nested]
    {
        let response = post(body);
        assert_eq!(response.status, 400, "{}", response.body);
        assert!(response.json()["error"]["message"].is_string());
    }
    let large = format!("{{\"model\": \"{}\"}}", "a".repeat(5 << 20));
    assert_eq!(post(large.as_bytes()).status, 413);
    let long =
        json!({"model": "tiny", "messages": [{"role": "user", "content": "a ".repeat(1 << 20)}]})
            .to_string();
    let response = post(long.as_bytes());
    assert_eq!(
        response.json()["error"]["code"],
        Value::from("context_length_exceeded"),
        "{}",
        response.body
    );
    // A head without end is refused, too.
    let head = format!("A: {}\r\n", "b".repeat(200_000));
    let response = server.send("GET", "/health", &head, b"");
    assert!([0, 431].contains(&response.status), "{response:?}");
}

/// Compiling these recurses once for each link or name, and once without end.
#[test]
fn schemas_without_bounds_are_refused() {
    let server = Server::start(options());
    let links = |n: usize| {
        let link = |idx: usize| {
            let next = format!("#/$defs/d{}", idx + 1);
            (format!("d{idx}"), json!({"type": "object", "properties": {"a": {"$ref": next}}}))
        };
        let mut links: serde_json::Map<String, Value> = (0..n).map(link).collect();
        links.insert(format!("d{n}"), json!({"type": "string"}));
        json!({"$defs": links, "$ref": "#/$defs/d0"})
    };
    let names = |n: usize| {
        let names: Vec<String> = (0..n).map(|idx| format!("p{idx}")).collect();
        json!({"type": "object", "required": names})
    };
    let properties = |n: usize| {
        let text = |idx: usize| (format!("p{idx}"), json!({"type": "string"}));
        let properties: serde_json::Map<String, Value> = (0..n).map(text).collect();
        json!({"type": "object", "properties": properties})
    };
    let cases = [
        (links(2000), "more than 400 fields"),
        (properties(1500), "more than 400 fields"),
        (names(10_000), "more than 4096 values"),
        (json!({"$ref": "#"}), "no text follows it"),
        (json!({"anyOf": [{"$ref": "#"}]}), "no text follows it"),
        (json!({"type": "string", "pattern": "("}), "unclosed group"),
        (
            json!({"type": "object", "properties": {"a": {"type": "string", "maxlength": 3}}}),
            "the keyword `maxlength` at `/properties/a` is not supported; `maxLength` is meant?",
        ),
        (json!({"not": {"type": "string"}}), "the keyword `not` is not supported"),
    ];
    let ask = |schema: Value| {
        let format = json!({"type": "json_schema", "json_schema": {"schema": schema}});
        server.chat("Hi", json!({"response_format": format, "max_tokens": 2}))
    };
    for (schema, part) in cases {
        let response = ask(schema);
        let error = response.json()["error"].clone();
        assert_eq!((response.status, &error["param"]), (400, &json!("response_format")), "{error}");
        assert!(error["message"].as_str().unwrap().contains(part), "{part}: {error}");
    }
    // The largest ones within the limit are answered or refused, and the server goes on.
    for schema in [links(390), names(4000), properties(400)] {
        let status = ask(schema).status;
        assert!(matches!(status, 200 | 400), "{status}");
    }
    assert_eq!(ask(json!({"type": "boolean"})).status, 200);
    // Notes are no rules.
    let noted = json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "t", "description": "d",
        "deprecated": true, "x-order": 1, "type": "object", "required": ["maxlength"],
        "properties": {"maxlength": {"type": "string", "format": "date", "default": 1, "examples": []}}});
    assert_eq!(ask(noted).status, 200);
}

/// Turning text into tokens takes hundreds of bytes for each of its bytes: what cannot fit is refused before, and large requests
/// are read one at a time.
#[test]
fn texts_that_cannot_fit_are_refused_before_they_are_read() {
    let server = Server::start(options());
    let text = "a".repeat(3_900_000);
    let start = std::time::Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let response = server.chat(&text, json!({}));
                assert_eq!(response.status, 400, "{}", response.body);
                let message = response.json()["error"]["message"].as_str().unwrap().to_owned();
                assert!(message.contains("3900000 bytes, more than"), "{message}");
            });
        }
    });
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    let many = json!({"model": "tiny", "prompt": vec!["a"; 100_000]});
    let response = server.post("/v1/completions", &many);
    let message = response.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("100000 texts; at most 32"), "{message}");
}
