//! The files other than weights, and failed exports.

use std::collections::BTreeSet;
use std::path::Path;

use arch::{Dtype, Family};
use export::{Error, hugging_face};
use model::load_state_dict;
use serde_json::{Value, json};
use tokenizer::Tokenizer;

use crate::{byte_tokenizer, chat_tokenizer, model, read_json};

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(dir).expect("a directory");
    entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn every_file_that_transformers_reads_is_written() {
    let tokenizer = chat_tokenizer();
    let model = model(Family::Llama, tokenizer.vocab_size(), json!({}));
    let place = tempfile::tempdir().expect("a temporary directory");
    let out = place.path().join("runs/out");
    hugging_face(&model, &tokenizer, Dtype::F32, &out).expect("exported");
    let expected = [
        "MANIFEST",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(names(&out).into_iter().collect::<Vec<_>>(), expected);
    fsio::verify_dir(&out).expect("as its MANIFEST says");

    let again = Tokenizer::from_dir_or_file(&out).expect("readable");
    assert_eq!(again.hash().expect("a hash"), tokenizer.hash().expect("a hash"));
    assert_eq!(again.eos_ids(), tokenizer.eos_ids());
}

#[test]
fn every_end_id_is_in_both_configs() {
    let tokenizer = chat_tokenizer();
    let id = |token: &str| tokenizer.token_id(token).expect("a special token");
    let (end_of_text, end_of_turn, pad) = (id("<|endoftext|>"), id("<|im_end|>"), id("<|pad|>"));
    let model = model(Family::Gpt2, tokenizer.vocab_size(), json!({}));
    let place = tempfile::tempdir().expect("a temporary directory");
    let out = place.path().join("out");
    hugging_face(&model, &tokenizer, Dtype::F16, &out).expect("exported");
    let generation = read_json(&out.join("generation_config.json"));
    let expected = json!({
        "bos_token_id": end_of_text, "eos_token_id": [end_of_text, end_of_turn], "pad_token_id": pad,
    });
    assert_eq!(generation, expected);
    let config = read_json(&out.join("config.json"));
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(&config[key], value);
    }
    assert_eq!(config["dtype"], json!("float16"));
    assert_eq!(config["architectures"], json!(["GPT2LMHeadModel"]));
}

#[test]
fn a_tokenizer_larger_than_the_models_vocabulary_is_refused() {
    let tokenizer = byte_tokenizer();
    let model = model(Family::Llama, tokenizer.vocab_size() - 1, json!({}));
    let place = tempfile::tempdir().expect("a temporary directory");
    let error = hugging_face(&model, &tokenizer, Dtype::F32, &place.path().join("out"));
    let error = error.expect_err("too few rows");
    assert!(matches!(error, Error::Vocabulary { .. }), "{error}");
    assert!(error.hint().is_some());
    assert!(names(place.path()).is_empty());
}

#[test]
fn a_failure_leaves_no_files_and_a_directory_is_never_overwritten() {
    /// All values are equal and too large for f16.
    struct Large;
    impl model::ParameterSource for Large {
        fn values(&mut self, _: &str, shape: &[usize]) -> model::Result<Vec<f32>> {
            Ok(vec![1e6; shape.iter().product()])
        }
    }
    let tokenizer = byte_tokenizer();
    let model = model(Family::Llama, tokenizer.vocab_size(), json!({}));
    let model = load_state_dict(model, &mut Large).expect("shapes fit");
    let place = tempfile::tempdir().expect("a temporary directory");
    let out = place.path().join("out");
    let error = hugging_face(&model, &tokenizer, Dtype::F16, &out).expect_err("f16 is too small");
    assert!(error.to_string().contains("f16"), "{error}");
    assert!(names(place.path()).is_empty());

    hugging_face(&model, &tokenizer, Dtype::F32, &out).expect("f32 is large enough");
    let before = names(&out);
    let error = hugging_face(&model, &tokenizer, Dtype::F32, &out).expect_err("it exists");
    assert!(matches!(error, Error::File(fsio::Error::Exists { .. })), "{error}");
    assert_eq!(names(&out), before);
}

#[test]
fn the_key_for_absent_biases_is_written_only_if_they_are_absent() {
    let tokenizer = byte_tokenizer();
    let place = tempfile::tempdir().expect("a temporary directory");
    for (more, key) in [(json!({}), Value::Null), (json!({ "bias": false }), json!(false))] {
        let model = model(Family::Gpt2, tokenizer.vocab_size(), more);
        let out = place.path().join(key.to_string());
        hugging_face(&model, &tokenizer, Dtype::F32, &out).expect("exported");
        assert_eq!(read_json(&out.join("config.json"))["bias"], key);
    }
}
