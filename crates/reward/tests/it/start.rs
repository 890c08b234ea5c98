//! A saved and reloaded reward model gives the same scores (trl#1379).

use burn::tensor::Device;
use model::{Dtype, SavedModel, ScalarModel};
use testkit::ByteIds;
use tokenizer::{Tokenizer, default_special_tokens};

use crate::support::{scorer, scores};

#[test]
fn a_saved_scorer_is_a_sequence_classifier_with_one_label_and_the_same_scores() {
    let device = Device::flex();
    let model = scorer(&device);
    let text = std::iter::once("abc".to_owned());
    let tokenizer = Tokenizer::train_char(text, &default_special_tokens()).expect("a tokenizer");
    let place = tempfile::tempdir().expect("a folder");
    let out = place.path().join("model");
    export::hugging_face(&model, &tokenizer, Dtype::F32, &out).expect("exported");

    let text = std::fs::read_to_string(out.join("config.json")).expect("config.json");
    let config: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(config["architectures"][0], "LlamaForSequenceClassification");
    assert_eq!(config["id2label"], serde_json::json!({ "0": "LABEL_0" }));
    assert!(config["pad_token_id"].is_u64(), "transformers finds the last token by it");
    assert!(!out.join("generation_config.json").exists(), "it generates nothing");

    let again = ScalarModel::load(&out, &device).expect("the model");
    let texts: Vec<Vec<u32>> = ["one", "another"].map(ByteIds::encode).into();
    assert_eq!(scores(&again, &texts, 0), scores(&model, &texts, 0));
}
