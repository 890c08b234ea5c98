//! Both spellings, lists of end ids, and what an export writes reads back as the same model.

use std::path::{Path, PathBuf};

use arch::{
    Activation, Architecture, Dtype, Family, ModelConfig, ModelInfo, RopeScaling, TokenIds,
};
use serde_json::{Value, json};

use crate::{config, describe, json as parse, patched, read};

const GOLDEN: [(&str, Option<&str>); 5] = [
    (config!("llama.json"), Some(config!("llama.legacy.json"))),
    (config!("llama-tied-rope3.json"), Some(config!("llama-tied-rope3.legacy.json"))),
    (config!("llama-bias-headdim.json"), Some(config!("llama-bias-headdim.legacy.json"))),
    (config!("llama-mlp-bias.json"), Some(config!("llama-mlp-bias.legacy.json"))),
    (config!("gpt2.json"), None),
];

#[test]
fn both_spellings_say_the_same() {
    for (today, older) in GOLDEN {
        if let Some(older) = older {
            assert_eq!(describe(today), describe(older));
        }
    }
}

#[test]
fn every_key_arrives() {
    let ModelConfig::Llama(llama) = read(config!("llama-bias-headdim.json")) else {
        panic!("the family is llama")
    };
    assert_eq!(llama.head_dim, 24);
    assert_eq!(llama.num_key_value_heads, 2);
    assert_eq!(llama.rms_norm_eps, 1e-5);
    assert!(llama.attention_bias && !llama.mlp_bias && !llama.tie_word_embeddings);
    let ModelConfig::Llama(llama) = read(config!("llama-tied-rope3.json")) else {
        panic!("the family is llama")
    };
    assert!(llama.tie_word_embeddings);
    assert_eq!(llama.rope_parameters.rope_theta, 500_000.0);
    let expected = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 32,
    };
    assert_eq!(llama.rope_parameters.scaling, expected);
    let ModelConfig::Gpt2(gpt2) = read(config!("gpt2.json")) else { panic!("the family is gpt2") };
    assert_eq!((gpt2.n_inner, gpt2.activation_function), (256, Activation::GeluTanh));
    assert!(gpt2.bias && gpt2.tie_word_embeddings);
}

#[test]
fn a_written_config_reads_back_as_the_same_model() {
    let token_ids = TokenIds { bos: Some(1), eos: vec![2, 7], pad: None };
    let yarn = json!({ "rope_parameters": {
        "rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "beta_fast": 30.0,
        "original_max_position_embeddings": 32, "attention_factor": 1.5, "truncate": false,
    }});
    let linear = json!({ "rope_parameters": {
        "rope_type": "linear", "rope_theta": 1e4, "factor": 2.0,
    }});
    let mut values: Vec<Value> = GOLDEN.iter().map(|(text, _)| parse(text)).collect();
    values.push(patched(config!("llama.json"), &yarn));
    values.push(patched(config!("llama.json"), &linear));
    values.push(patched(config!("gpt2.json"), &json!({ "bias": false, "n_inner": 100 })));
    for value in values {
        let config = ModelConfig::from_json(&value, Path::new("config.json")).expect("readable");
        for architecture in [Architecture::CausalLm, Architecture::SequenceClassifier] {
            let written = config.to_json_as(architecture, Dtype::Bf16, &token_ids);
            let again = ModelInfo::from_json(&written, Path::new("out")).expect("readable");
            assert_eq!(again.config, config);
            assert_eq!(again.architecture, architecture);
            assert_eq!(again.token_ids, token_ids);
            assert_eq!(again.dtype, Some(Dtype::Bf16));
            assert!(again.notes.is_empty());
        }
    }
}

#[test]
fn what_is_written_is_what_transformers_writes() {
    for (text, _) in GOLDEN {
        let description = describe(text);
        let mut written = description.config.to_json(Dtype::F32, &description.token_ids);
        let mut expected = parse(text);
        let expected = expected.as_object_mut().expect("an object");
        // The size worked out instead of null, and who wrote the file.
        expected.remove("transformers_version");
        expected.retain(|key, _| !key.starts_with("summary_"));
        if let Some(inner) = expected.get_mut("n_inner") {
            *inner = json!(256);
        }
        written.as_object_mut().expect("an object").sort_keys();
        assert_eq!(&written, &Value::Object(expected.clone()));
    }
}

#[test]
fn end_ids_are_a_number_or_a_list_and_join_those_of_generation_config() {
    let many = patched(config!("llama.json"), &json!({ "eos_token_id": [5, 2, 5] }));
    let description = ModelInfo::from_json(&many, Path::new("x")).expect("readable");
    assert_eq!(description.token_ids.eos, [5, 2]);

    let mut token_ids = description.token_ids;
    let generation =
        json!({ "eos_token_id": [2, 9, 100_000], "bos_token_id": 3, "pad_token_id": 4 });
    token_ids.merge_generation_config(&generation, 320);
    assert_eq!(token_ids, TokenIds { bos: Some(1), eos: vec![5, 2, 9], pad: Some(0) });

    let mut none = TokenIds::default();
    none.merge_generation_config(&json!({ "eos_token_id": 7 }), 320);
    assert_eq!(none, TokenIds { bos: None, eos: vec![7], pad: None });

    let absent = json!({ "bos_token_id": null, "eos_token_id": null, "pad_token_id": null });
    let absent = patched(config!("llama.json"), &absent);
    let description = ModelInfo::from_json(&absent, Path::new("x")).expect("readable");
    assert_eq!(description.token_ids, TokenIds::default());
}

#[test]
fn what_is_not_acted_on_is_said() {
    let patch = json!({ "attention_dropout": 0.1, "pad_token_id": 320 });
    let value = patched(config!("llama.json"), &patch);
    let description = ModelInfo::from_json(&value, Path::new("x")).expect("readable");
    assert_eq!(
        description.notes,
        [
            "pad_token_id = 320 lies outside the vocabulary and is not used",
            "attention_dropout = 0.1 is a default for training and is not used; dropout is 0",
        ]
    );
    assert_eq!(description.token_ids.pad, None);
}

#[test]
fn a_score_head_is_known_by_its_architecture() {
    let description = describe(config!("llama-score.json"));
    assert_eq!(description.architecture, Architecture::SequenceClassifier);
    assert_eq!(describe(config!("llama.json")).architecture, Architecture::CausalLm);
}

#[test]
fn a_recipe_may_leave_out_what_a_file_may_not() {
    let Value::Object(keys) = json!({
        "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 96, "max_position_embeddings": 64,
    }) else {
        unreachable!("an object")
    };
    let origin = Path::new("recipe.toml");
    let config = ModelConfig::for_new_model(Family::Llama, &keys, 100, origin).expect("enough");
    assert_eq!((config.vocab_size(), config.head_dim(), config.n_kv_heads()), (100, 12, 4));

    let Value::Object(keys) =
        json!({ "n_embd": 128, "n_layer": 4, "n_head": 4, "n_positions": 64, "bias": false })
    else {
        unreachable!("an object")
    };
    let config = ModelConfig::for_new_model(Family::Gpt2, &keys, 65, origin).expect("enough");
    assert_eq!((config.vocab_size(), config.family().name()), (65, "gpt2"));
    assert!(config.tied());
}

#[test]
fn published_files_read_or_are_refused_by_name() {
    let data = std::env::var_os("TEMPER_DATA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")),
        PathBuf::from,
    );
    let configs = data.join("models/configs");
    if !configs.exists() {
        eprintln!("skipped: no {}", configs.display());
        return;
    }
    let read = |name: &str| {
        let text = std::fs::read_to_string(configs.join(name)).expect("a listed file");
        ModelInfo::from_json(&parse(&text), Path::new(name))
    };
    let gpt2 = read("gpt2.json").expect("readable");
    assert_eq!(gpt2.config.n_parameters(), 354_823_168);
    assert_eq!(gpt2.notes.len(), 3);
    let llama = read("open-instruct-tokenizer-config.json").expect("readable");
    assert_eq!(llama.config.n_parameters(), 8_030_326_784);
    assert_eq!(llama.token_ids.eos, [128_001]);
    let old = read("llama-fake.json").expect("readable");
    assert_eq!(old.config.max_positions(), 2048);
    assert_eq!(old.notes, ["rope_theta is absent; a file of this age means 10000"]);
    for name in ["Qwen2.5-0.5B-Instruct.json", "Qwen3-1.7B.json", "phi3.5-mini-instruct.json"] {
        let error = read(name).expect_err("another family").to_string();
        assert!(error.contains("unknown model family"), "{error}");
    }
}
