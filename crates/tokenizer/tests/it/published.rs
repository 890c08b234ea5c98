//! Ids of published tokenizers compared with test cases of other implementations.

use serde_json::Value;
use tokenizer::Tokenizer;

use crate::support;

/// A tokenizer of the shared data, by the name of its directory.
pub(crate) fn load(name: &str) -> Option<Tokenizer> {
    let path = support::data(&format!("tokenizers/{name}"))?;
    Some(Tokenizer::from_dir_or_file(path).unwrap_or_else(|e| panic!("{name}: {e}")))
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

/// llama.cpp's inputs and ids, without special tokens.
#[test]
fn ids_of_llama_cpp() {
    for (dir, file) in [
        ("gpt2", "gpt-2"),
        ("qwen2", "qwen2"),
        ("phi-3-mini", "phi-3"),
        ("bert-base-uncased", "bert-bge"),
    ] {
        let Some(tokenizer) = load(dir) else { return };
        let path = format!("tokenizers/cases/ggml-vocab-{file}.gguf");
        let inputs = support::text(&format!("{path}.inp")).expect("inputs");
        let outputs = support::text(&format!("{path}.out")).expect("outputs");
        let inputs: Vec<&str> = inputs.split("\n__ggml_vocab_test__\n").collect();
        let outputs: Vec<&str> = outputs.lines().collect();
        assert!(inputs.len() >= 46, "{}", inputs.len());
        for (input, output) in inputs.iter().zip(outputs) {
            let expected: Vec<u32> =
                output.split_whitespace().map(|id| id.parse().expect("an id")).collect();
            assert_eq!(tokenizer.encode_plain(input).expect("ids"), expected, "{dir} {input:?}");
        }
    }
}

/// transformers.js's cases, with special tokens.
#[test]
fn ids_of_transformers_js() {
    for (dir, decodes) in
        [("gpt2", true), ("qwen2", true), ("bert-base-uncased", false), ("t5-small", false)]
    {
        let Some(tokenizer) = load(dir) else { return };
        let path = format!("tokenizers/cases/transformersjs-{dir}.json");
        let cases: Value =
            serde_json::from_str(&support::text(&path).expect("cases")).expect("JSON");
        let cases = cases["cases"].as_array().expect("cases");
        assert!(cases.len() >= 25);
        // Pairs of texts are not supported.
        for case in cases.iter().filter(|case| case.get("text_pair").is_none()) {
            let text = case["text"].as_str().expect("a text");
            let expected = ids(&case["ids"]);
            assert_eq!(tokenizer.encode(text).expect("ids"), expected, "{dir} {text:?}");
            if decodes {
                // Byte-level decoding is lossless, so this is the text without clean-up.
                assert_eq!(tokenizer.decode(&expected, false), text);
            }
        }
    }
}

/// swift-transformers' cases for the tokenizers in the shared data.
#[test]
fn ids_of_swift_transformers() {
    let Some(text) = support::text("tokenizers/cases/swift-tokenizer_tests.json") else { return };
    let all: Value = serde_json::from_str(&text).expect("JSON");
    for (name, dir) in [
        ("google-bert/bert-base-uncased", "bert-base-uncased"),
        ("distilgpt2", "gpt2"),
        ("t5-base", "t5-small"),
    ] {
        let tokenizer = load(dir).expect("a tokenizer");
        let cases = all[name].as_array().expect("cases");
        assert!(cases.len() >= 18);
        for case in cases {
            let text = case["input"].as_str().expect("a text");
            let expected = ids(&case["encoded"]["input_ids"]);
            assert_eq!(tokenizer.encode(text).expect("ids"), expected, "{name} {text:?}");
        }
    }
    for (file, dir) in [("gpt2_encoded_tokens", "gpt2"), ("t5_base_encoded", "t5-small")] {
        let tokenizer = load(dir).expect("a tokenizer");
        let path = format!("tokenizers/cases/swift-{file}.json");
        let case: Value =
            serde_json::from_str(&support::text(&path).expect("a case")).expect("JSON");
        let text = case["text"].as_str().expect("a text");
        assert_eq!(tokenizer.encode(text).expect("ids"), ids(&case["token_ids"]), "{file}");
    }
}

/// Special ids, prefixes and templates from the files next to a tokenizer.json.
#[test]
fn files_next_to_a_tokenizer_json_are_read() {
    let Some(qwen2) = load("qwen2") else { return };
    assert_eq!(qwen2.eos(), Some(151_643));
    assert_eq!(qwen2.bos(), None);
    assert_eq!(qwen2.pad(), qwen2.eos());
    assert_eq!(qwen2.eos_ids(), [151_643, 151_645]);
    assert_eq!(qwen2.vocab_size(), 151_646);
    assert!(qwen2.prefix_ids().is_empty());
    assert!(qwen2.chat_template().is_some());

    let phi3 = load("phi-3-mini").expect("a tokenizer");
    assert_eq!((phi3.bos(), phi3.eos(), phi3.unk()), (Some(1), Some(32_000), Some(0)));
    // add_bos_token is false in its config, which overrides the post-processor.
    assert!(phi3.prefix_ids().is_empty());
    assert_eq!(phi3.vocab_size(), 32_011);

    // A bare tokenizer.json: the end-of-text token is found by its name.
    let gpt2 = load("gpt2").expect("a tokenizer");
    assert_eq!((gpt2.eos(), gpt2.bos()), (Some(50_256), None));
    let bert = load("bert-base-uncased").expect("a tokenizer");
    assert_eq!(bert.prefix_ids(), [101]);
    for name in ["gpt-neox-20b", "tiny-bpe", "torchtune-small", "oasst-collator"] {
        let tokenizer = load(name).expect("a tokenizer");
        // tiny-bpe has no tokens for most bytes beyond ASCII.
        let text =
            if name == "tiny-bpe" { "Hello, world!\n" } else { "Hello, world!\n  你好 🙂" };
        let ids = tokenizer.encode_plain(text).expect("ids");
        assert_eq!(tokenizer.decode(&ids, false), text, "{name}");
    }
}
