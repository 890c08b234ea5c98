//! The files other than weights, and failed exports.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use arch::{Architecture, Dtype, Family};
use export::{
    Error, Options, description_files, hugging_face, hugging_face_with, sampling_defaults,
};
use model::load_state_dict;
use serde_json::{Value, json};
use tokenizer::Tokenizer;

use crate::{byte_tokenizer, chat_tokenizer, config, model, read_json};

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
        "transformers_version": arch::TRANSFORMERS_VERSION,
    });
    assert_eq!(generation, expected);
    let config = read_json(&out.join("config.json"));
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(&config[key], value);
    }
    assert_eq!([&config["dtype"], &config["torch_dtype"]], [&json!("float16"); 2]);
    assert_eq!(config["architectures"], json!(["GPT2LMHeadModel"]));
}

#[test]
fn sampling_defaults_are_kept_and_ids_are_those_of_the_tokenizer() {
    let tokenizer = chat_tokenizer();
    let model = model(Family::Llama, tokenizer.vocab_size(), json!({}));
    let place = tempfile::tempdir().expect("a temporary directory");
    let source = json!({
        "_from_model_config": true, "bos_token_id": 7, "do_sample": true, "eos_token_id": [8, 9],
        "temperature": 0.6, "top_p": 0.9, "transformers_version": "4.40.0", "top_k": null,
    });
    let path = place.path().join("generation_config.json");
    fsio::write_atomic(&path, source.to_string()).expect("written");
    let generation = sampling_defaults(place.path()).expect("readable");
    let out = place.path().join("out");
    let options = Options { generation, ..Options::new(Dtype::F32) };
    hugging_face_with(&model, &tokenizer, options, &out).expect("exported");
    let written = read_json(&out.join("generation_config.json"));
    assert_eq!(written["do_sample"], json!(true));
    assert_eq!([&written["temperature"], &written["top_p"]], [&json!(0.6), &json!(0.9)]);
    assert_eq!(written["eos_token_id"], json!(tokenizer.eos_ids()));
    assert_eq!(written["transformers_version"], json!(arch::TRANSFORMERS_VERSION));
    let keys = written.as_object().expect("an object");
    assert!(!keys.contains_key("_from_model_config") && !keys.contains_key("top_k"));

    fsio::write_atomic(&path, "[1]").expect("written");
    let error = sampling_defaults(place.path()).expect_err("not an object");
    assert!(error.to_string().contains("generation_config.json"), "{error}");
    assert!(sampling_defaults(&out.join("none")).expect("no file").is_empty());
}

#[test]
fn the_chat_template_is_in_both_places() {
    let tokenizer = chat_tokenizer();
    let model = model(Family::Llama, tokenizer.vocab_size(), json!({}));
    let place = tempfile::tempdir().expect("a temporary directory");
    let out = place.path().join("out");
    hugging_face(&model, &tokenizer, Dtype::F32, &out).expect("exported");
    let template = std::fs::read_to_string(out.join("chat_template.jinja")).expect("a template");
    let config = read_json(&out.join("tokenizer_config.json"));
    assert_eq!(config["chat_template"], json!(template));
    // Either is enough. MANIFEST lists both.
    fsio::remove_file(out.join(fsio::MANIFEST)).expect("removed");
    fsio::remove_file(out.join("chat_template.jinja")).expect("removed");
    let again = Tokenizer::from_dir_or_file(&out).expect("readable");
    assert_eq!(again.hash().expect("a hash"), tokenizer.hash().expect("a hash"));
}

#[test]
fn padding_of_a_classifier_ends_no_text() {
    // Many published chat models pad with the token that ends a turn.
    let place = tempfile::tempdir().expect("a temporary directory");
    for (name, bytes) in chat_tokenizer().files().expect("files") {
        fsio::write_atomic(place.path().join(name), bytes).expect("written");
    }
    let path = place.path().join("tokenizer_config.json");
    let mut tokenizer_config = read_json(&path);
    tokenizer_config["pad_token"] = json!("<|im_end|>");
    fsio::write_atomic(&path, tokenizer_config.to_string()).expect("written");
    let tokenizer = Tokenizer::from_dir_or_file(place.path()).expect("readable");
    let end = tokenizer.pad().expect("a padding token");
    assert!(tokenizer.eos_ids().contains(&end));

    let config = config(Family::Llama, tokenizer.vocab_size(), json!({}));
    let written = |architecture| {
        let files = description_files(&config, architecture, &tokenizer, &Options::new(Dtype::F32));
        let files: BTreeMap<String, Vec<u8>> = files.expect("described").into_iter().collect();
        let read = |name: &str| serde_json::from_slice::<Value>(&files[name]).expect("JSON");
        let pad = read("config.json")["pad_token_id"].clone();
        (pad, read("tokenizer_config.json")["pad_token"].clone())
    };
    assert_eq!(written(Architecture::CausalLm), (json!(end), json!("<|im_end|>")));
    let (id, text) = written(Architecture::SequenceClassifier);
    let id = u32::try_from(id.as_u64().expect("an id")).expect("small");
    assert!(!tokenizer.eos_ids().contains(&id) && tokenizer.bos() != Some(id), "{id}");
    assert_eq!(tokenizer.decode(&[id], false), text.as_str().expect("a token"));
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
