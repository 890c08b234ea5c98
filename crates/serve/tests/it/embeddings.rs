//! Embeddings: the normalised state of the last token, whatever else the server computes.

use generate::{Prefixes, PromptReader};
use serde_json::{Value, json};
use testkit::{Tolerance, assert_close};

use crate::support::{Server, bytes, golden_llama, options};

fn vectors(answer: &Value) -> Vec<Vec<f32>> {
    let data = answer["data"].as_array().unwrap();
    let number = |x: &Value| x.as_f64().unwrap() as f32;
    data.iter()
        .map(|entry| entry["embedding"].as_array().unwrap().iter().map(number).collect())
        .collect()
}

#[test]
fn a_vector_is_the_state_of_the_last_token() {
    let server = Server::start(options());
    let embed = |more: Value| {
        let mut body = json!({"model": "tiny"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.post("/v1/embeddings", &body)
    };
    let texts = ["Hello", "a", "what is this, and what follows from it?"];
    let answer = embed(json!({"input": texts, "user": "me"})).json();
    let found = vectors(&answer);
    let (model, tokenizer) = (golden_llama(), bytes());
    let mut n_tokens = 0;
    for (text, found) in texts.iter().zip(&found) {
        let ids = tokenizer.encode(text).unwrap();
        n_tokens += ids.len();
        let mut none = Prefixes::new(0);
        let prompt = PromptReader::new(&model, None, ids, &mut none).read_piece(&mut none).unwrap();
        let last = prompt.last_hidden();
        assert_eq!(last.len(), model.config().hidden_size());
        let length = last.iter().map(|x| x * x).sum::<f32>().sqrt();
        let expected: Vec<f32> = last.iter().map(|x| x / length).collect();
        assert_close(text, found, &expected, Tolerance::absolute(1e-5));
    }
    assert_eq!(answer["usage"], json!({"prompt_tokens": n_tokens, "total_tokens": n_tokens}));
    assert_eq!((&answer["data"][2]["index"], &answer["object"]), (&json!(2), &json!("list")));

    // One text, ids, and base64, which has the same bits.
    assert_eq!(vectors(&embed(json!({"input": texts[0]})).json()), found[..1]);
    let ids = tokenizer.encode(texts[0]).unwrap();
    assert_eq!(vectors(&embed(json!({"input": ids})).json()), found[..1]);
    let base64 = embed(json!({"input": "a", "encoding_format": "base64"})).json();
    let text = base64["data"][0]["embedding"].as_str().unwrap();
    assert_eq!(text.len(), (found[1].len() * 4).div_ceil(3) * 4);

    // While completions are decoded, the same bits.
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let ask = json!({"seed": seed, "max_tokens": 60});
            let server = &server;
            scope.spawn(move || assert_eq!(server.complete("Hello", ask).status, 200));
        }
        for _ in 0..3 {
            assert_eq!(vectors(&embed(json!({"input": texts})).json()), found);
        }
    });

    let long = "a".repeat(200);
    for (body, param, part) in [
        (json!({}), "input", "missing"),
        (json!({"input": []}), "input", "is empty"),
        (json!({"input": [[1, 9999]]}), "input", "beyond the vocabulary"),
        (json!({"input": long}), "input", "context length is 128"),
        (json!({"input": "a", "dimensions": 3}), "dimensions", "not supported"),
        (json!({"input": "a", "encoding_format": "x"}), "encoding_format", "float or base64"),
        (json!({"input": "a", "mood": "x"}), "mood", "not known"),
    ] {
        let response = embed(body);
        assert_eq!(response.status, 400, "{}", response.body);
        let error = &response.json()["error"];
        assert_eq!(error["param"], param, "{error}");
        assert!(error["message"].as_str().unwrap().contains(part), "{error}");
    }
}
