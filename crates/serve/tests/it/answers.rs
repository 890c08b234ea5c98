//! Answers: those of `generate`, whole and streamed, with everything that a request can ask for.

use generate::{Sampling, Settings, Stop, generate};
use serde_json::{Value, json};

use crate::support::{Server, bytes, golden_llama, options};

fn texts(answer: &Value) -> Vec<String> {
    let choices = answer["choices"].as_array().unwrap();
    let text = |choice: &Value| {
        let text = choice["text"].as_str().or(choice["message"]["content"].as_str());
        text.unwrap().to_owned()
    };
    choices.iter().map(text).collect()
}

/// Texts and finish reasons of a stream, by choice.
fn streamed(chunks: &[Value], n: usize) -> (Vec<String>, Vec<String>) {
    let (mut texts, mut reasons) = (vec![String::new(); n], vec![String::new(); n]);
    for choice in chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap()) {
        let idx = choice["index"].as_u64().unwrap() as usize;
        assert!(reasons[idx].is_empty(), "a part after the end");
        let text = choice["text"].as_str().or(choice["delta"]["content"].as_str());
        texts[idx] += text.unwrap_or_default();
        reasons[idx] += choice["finish_reason"].as_str().unwrap_or_default();
    }
    (texts, reasons)
}

#[test]
fn completions_are_those_of_generate() {
    let server = Server::start(options());
    let tokenizer = bytes();
    let prompts = ["Hello", "a", "what is this?"];
    let ids: Vec<Vec<u32>> = prompts.iter().map(|p| tokenizer.encode(p).unwrap()).collect();
    let sampling =
        Sampling { temperature: 0.8, top_p: Some(0.95), top_k: Some(200), ..Sampling::default() };
    let settings = Settings {
        sampling,
        n: 3,
        max_new_tokens: 30,
        eos_ids: tokenizer.eos_ids(),
        vocab_size: Some(tokenizer.vocab_size()),
        stop: Some(Stop::new(vec!["e".to_owned()], &tokenizer)),
        presence_penalty: 0.5,
        ..Settings::default()
    };
    let expected = generate(&golden_llama(), &ids, &settings, 42, |_| ()).unwrap();
    let n_tokens: usize = expected.iter().map(|completion| completion.tokens.len()).sum();
    let expected: Vec<String> = expected.iter().map(|c| c.text(&tokenizer)).collect();
    let body = json!({"prompt": prompts, "temperature": 0.8, "top_p": 0.95, "top_k": 200, "n": 3, "max_tokens": 30,
        "stop": "e", "presence_penalty": 0.5, "seed": 42});
    let answer = server.complete("", body.clone());
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = answer.json();
    assert_eq!(texts(&answer), expected);
    let n_prompt: usize = ids.iter().map(Vec::len).sum();
    let usage = json!({"prompt_tokens": n_prompt, "completion_tokens": n_tokens, "total_tokens": n_prompt + n_tokens,
        "prompt_tokens_details": {"cached_tokens": 0}});
    assert_eq!(answer["usage"], usage);
    assert_eq!(answer["object"], "text_completion");

    // The same prompts as ids, and streamed.
    let as_ids = json!({"prompt": ids});
    let mut body = body;
    body.as_object_mut().unwrap().extend(as_ids.as_object().unwrap().clone());
    assert_eq!(texts(&server.complete("", body.clone()).json()), expected);
    body["stream"] = true.into();
    body["stream_options"] = json!({"include_usage": true});
    let stream = server.complete("", body);
    assert!(stream.head.contains("text/event-stream"), "{}", stream.head);
    let chunks = stream.events();
    let (streamed, reasons) = streamed(&chunks, 9);
    assert_eq!(streamed, expected);
    assert!(reasons.iter().all(|reason| reason == "stop" || reason == "length"), "{reasons:?}");
    let (last, before) = chunks.split_last().unwrap();
    assert_eq!((&last["usage"], &last["choices"]), (&usage, &json!([])));
    assert!(before.iter().all(|chunk| chunk["usage"].is_null()));
}

#[test]
fn chats_are_rendered_by_the_template() {
    let server = Server::start(options());
    let tokenizer = bytes();
    let prompt = "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";
    let completed = server.complete(prompt, json!({"temperature": 0, "max_tokens": 20})).json();
    let messages = json!([{"role": "developer", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]}]);
    let body = json!({"messages": messages, "temperature": 0, "max_completion_tokens": 20});
    let chat = server.chat("", body.clone()).json();
    assert_eq!(texts(&chat), texts(&completed));
    assert_eq!(chat["usage"], completed["usage"]);
    assert_eq!(chat["usage"]["prompt_tokens"], tokenizer.encode(prompt).unwrap().len());
    assert_eq!((&chat["object"], &chat["model"]), (&json!("chat.completion"), &json!("tiny")));
    assert_eq!(chat["choices"][0]["message"]["role"], "assistant");

    let mut body = body;
    body["stream"] = true.into();
    let chunks = server.chat("", body).events();
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(streamed(&chunks, 1).0, texts(&chat));
    assert!(chunks.iter().all(|chunk| chunk.get("usage").is_none() && chunk["object"] == "chat.completion.chunk"));
    // A special token in a message is text, not an end of the turn.
    let injected = server.chat("<|im_end|>", json!({"max_tokens": 1})).json();
    let plain = server.chat("", json!({"max_tokens": 1})).json();
    let tokens = |answer: &Value| answer["usage"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(tokens(&injected), tokens(&plain) + 10);
}

#[test]
fn seeds_repeat_and_their_absence_does_not() {
    let server = Server::start(options());
    let text = |more: Value| {
        let mut body = json!({"max_tokens": 25});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        texts(&server.chat("Hi", body).json())
    };
    assert_eq!(text(json!({"seed": 7})), text(json!({"seed": 7})));
    assert_ne!(text(json!({"seed": 7})), text(json!({"seed": 8})));
    assert_ne!(text(json!({})), text(json!({"seed": null})));
    let of_n = text(json!({"seed": 7, "n": 3}));
    assert_eq!(of_n[..1], text(json!({"seed": 7})));
    assert!(of_n[0] != of_n[1] && of_n[1] != of_n[2]);
    // Negative seeds are seeds, too.
    assert_eq!(text(json!({"seed": -3})), text(json!({"seed": -3})));
}

#[test]
fn logprobs_of_tokens() {
    let server = Server::start(options());
    let body = json!({"temperature": 0, "max_tokens": 8, "logprobs": true, "top_logprobs": 3});
    let chat = server.chat("Hi", body).json();
    let content = chat["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(content.len(), 8);
    for entry in content {
        let top = entry["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 3);
        // Greedy: the token is the most likely one.
        assert_eq!((&top[0]["token"], &top[0]["logprob"]), (&entry["token"], &entry["logprob"]));
        assert!(entry["logprob"].as_f64().unwrap() <= 0.0);
        // One token is one byte here.
        assert_eq!(entry["bytes"].as_array().unwrap().len(), 1);
    }
    let only = server.chat("Hi", json!({"max_tokens": 2, "logprobs": true})).json();
    assert_eq!(only["choices"][0]["logprobs"]["content"][0]["top_logprobs"], json!([]));

    let prompt = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";
    let body = json!({"temperature": 0, "max_tokens": 8, "logprobs": 3});
    let text = server.complete(prompt, body.clone()).json();
    let logprobs = &text["choices"][0]["logprobs"];
    let of_chat: Vec<f64> =
        content.iter().map(|entry| entry["logprob"].as_f64().unwrap()).collect();
    let of_text: Vec<f64> = serde_json::from_value(logprobs["token_logprobs"].clone()).unwrap();
    assert!(
        of_chat.iter().zip(&of_text).all(|(a, b)| (a - b).abs() < 1e-4),
        "{of_chat:?} {of_text:?}"
    );
    let tokens: Vec<String> = serde_json::from_value(logprobs["tokens"].clone()).unwrap();
    let offsets: Vec<usize> = serde_json::from_value(logprobs["text_offset"].clone()).unwrap();
    let ends = tokens.iter().scan(0, |end, token| {
        *end += token.len();
        Some(*end)
    });
    assert!(offsets.iter().skip(1).copied().eq(ends.take(7)));
    let mut body = body;
    body["stream"] = true.into();
    let chunks = server.complete(prompt, body).events();
    let streamed = chunks.iter().flat_map(|chunk| {
        let logprobs = &chunk["choices"][0]["logprobs"]["token_logprobs"];
        serde_json::from_value::<Vec<f64>>(logprobs.clone()).unwrap()
    });
    assert!(streamed.eq(of_text));
}

#[test]
fn lengths_and_ends() {
    let server = Server::start(options());
    // The context of 128 ends an answer that may be longer.
    let long =
        server.complete(&"x".repeat(100), json!({"max_tokens": 100, "temperature": 0})).json();
    assert_eq!(long["choices"][0]["finish_reason"], "length");
    assert_eq!(long["usage"]["total_tokens"], 128);
    // Without a number, the server's.
    let default = server.complete("x", json!({"temperature": 0})).json();
    assert_eq!(default["usage"]["completion_tokens"], 100);
    // The end token ends the answer and is no part of its text.
    let id = bytes().eos().unwrap();
    let bias = json!({"logit_bias": {id.to_string(): 100}, "logprobs": true});
    let ended = server.chat("Hi", bias).json();
    assert_eq!(ended["choices"][0]["message"]["content"], "");
    assert_eq!(ended["choices"][0]["finish_reason"], "stop");
    assert_eq!(ended["choices"][0]["logprobs"]["content"], json!([]));
    assert_eq!(ended["usage"]["completion_tokens"], 1);
}

#[test]
fn models_page_and_metrics() {
    let server = Server::start(options());
    let models = server.get("/v1/models").json();
    assert_eq!(models["data"][0]["id"], "tiny");
    assert_eq!(server.get("/v1/models/tiny").json()["context_length"], 128);
    assert_eq!(server.get("/health").json()["status"], "ok");
    let page = server.get("/");
    assert!(page.body.contains("<!DOCTYPE html>") && page.head.contains("content-security-policy"));
    assert!(!page.body.contains("http://") && !page.body.contains("https://"), "an external asset");
    let answer = server.chat("Hi", json!({"max_tokens": 5, "n": 2})).json();
    let metrics = server.get("/metrics").body;
    assert_eq!(
        server.metric("generated_tokens_total"),
        answer["usage"]["completion_tokens"].as_f64().unwrap()
    );
    assert_eq!(
        server.metric("prompt_tokens_total"),
        answer["usage"]["prompt_tokens"].as_f64().unwrap()
    );
    assert!(
        metrics.contains("temper_requests_total{path=\"/v1/chat/completions\",status=\"200\"} 1"),
        "{metrics}"
    );
    assert_eq!(metrics.matches("# TYPE temper_generated_tokens counter").count(), 1);
}

#[test]
fn answers_follow_a_schema() {
    let server = Server::start(options());
    let schema = json!({"type": "object", "additionalProperties": false, "required": ["a", "b", "c"],
        "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}, "b": {"enum": ["x", "yé"]},
            "c": {"$ref": "#/$defs/c"}}, "$defs": {"c": {"type": "boolean"}}});
    let format = json!({"type": "json_schema", "json_schema": {"name": "s", "schema": schema, "strict": true}});
    let body = json!({"n": 8, "seed": 1, "response_format": format, "max_tokens": 60});
    let answer = server.chat("Hi", body.clone()).json();
    for (choice, text) in answer["choices"].as_array().unwrap().iter().zip(texts(&answer)) {
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(choice["finish_reason"], "stop");
        assert!(value["a"].as_u64().unwrap() < 100 && value["c"].is_boolean(), "{text}");
        assert!(value["b"] == "x" || value["b"] == "yé", "{text}");
    }
    let mut body = body;
    body["stream"] = true.into();
    assert_eq!(streamed(&server.chat("Hi", body).events(), 8).0, texts(&answer));
    let object = server.chat(
        "Hi",
        json!({"response_format": {"type": "json_object"}, "max_tokens": 20, "seed": 1}),
    );
    assert!(texts(&object.json())[0].starts_with('{'));
    for (schema, part) in [
        (json!({"type": "strange"}), "cannot be followed"),
        (json!({"type": "object", "propertyNames": {"pattern": "a"}}), "cannot be followed"),
        (json!([]), "not an object"),
    ] {
        let format = json!({"type": "json_schema", "json_schema": {"schema": schema}});
        let response = server.chat("Hi", json!({"response_format": format}));
        assert!(response.status == 400 && response.body.contains(part), "{}", response.body);
    }
}
