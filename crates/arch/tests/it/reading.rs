//! config.json of transformers 4 and 5, lists of end ids, and round trips of written files.

use std::path::Path;

use arch::{
    Activation, Architecture, Dtype, ModelConfig, ModelInfo, RopeParameters, RopeScaling, TokenIds,
};
use serde_json::{Value, json};

use crate::{config, decoder, describe, json as parse, patched, read};

pub(crate) const GOLDEN: [(&str, Option<&str>); 25] = [
    (config!("llama.json"), Some(config!("llama.legacy.json"))),
    (config!("llama-tied-rope3.json"), Some(config!("llama-tied-rope3.legacy.json"))),
    (config!("llama-bias-headdim.json"), Some(config!("llama-bias-headdim.legacy.json"))),
    (config!("llama-mlp-bias.json"), Some(config!("llama-mlp-bias.legacy.json"))),
    (config!("gpt2.json"), None),
    (config!("qwen3.json"), Some(config!("qwen3.legacy.json"))),
    (config!("mistral-window.json"), Some(config!("mistral-window.legacy.json"))),
    (config!("qwen2.json"), Some(config!("qwen2.legacy.json"))),
    (config!("qwen2-window.json"), Some(config!("qwen2-window.legacy.json"))),
    (config!("gemma2.json"), Some(config!("gemma2.legacy.json"))),
    (config!("gemma3.json"), Some(config!("gemma3.legacy.json"))),
    (config!("gemma3-linear.json"), Some(config!("gemma3-linear.legacy.json"))),
    (config!("phi3.json"), Some(config!("phi3.legacy.json"))),
    (config!("phi3-longrope.json"), Some(config!("phi3-longrope.legacy.json"))),
    (config!("olmo2.json"), Some(config!("olmo2.legacy.json"))),
    (config!("olmo3.json"), Some(config!("olmo3.legacy.json"))),
    (config!("exaone4.json"), Some(config!("exaone4.legacy.json"))),
    (config!("smollm3.json"), Some(config!("smollm3.legacy.json"))),
    (config!("granite.json"), Some(config!("granite.legacy.json"))),
    (config!("mixtral.json"), Some(config!("mixtral.legacy.json"))),
    (config!("qwen2_moe.json"), Some(config!("qwen2_moe.legacy.json"))),
    (config!("qwen3_moe.json"), Some(config!("qwen3_moe.legacy.json"))),
    (config!("qwen3_moe-mixed.json"), Some(config!("qwen3_moe-mixed.legacy.json"))),
    (config!("llama-longrope.json"), Some(config!("llama-longrope.legacy.json"))),
    (config!("llama-dynamic.json"), Some(config!("llama-dynamic.legacy.json"))),
];

#[test]
fn both_versions_of_a_config_are_the_same_model() {
    for (today, older) in GOLDEN {
        if let Some(older) = older {
            assert_eq!(describe(today), describe(older));
        }
    }
}

#[test]
fn keys_are_read() {
    let llama = decoder(config!("llama-bias-headdim.json"));
    assert_eq!(llama.head_dim, 24);
    assert_eq!(llama.num_key_value_heads, 2);
    assert_eq!(llama.rms_norm_eps, 1e-5);
    assert!(llama.qkv_bias && llama.o_bias && !llama.mlp_bias && !llama.tie_word_embeddings);
    let llama = decoder(config!("llama-tied-rope3.json"));
    assert!(llama.tie_word_embeddings);
    assert_eq!(llama.rope_parameters().rope_theta, 500_000.0);
    let expected = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 32,
    };
    assert_eq!(llama.rope_parameters().scaling, expected);
    let ModelConfig::Gpt2(gpt2) = read(config!("gpt2.json")) else { panic!("the family is gpt2") };
    assert_eq!((gpt2.n_inner, gpt2.activation_function), (256, Activation::GeluTanh));
    assert!(gpt2.bias && gpt2.tie_word_embeddings);
}

/// Properties that the reference vectors of each family cover.
#[test]
fn keys_of_decoders_are_read() {
    let windows = |text| -> Vec<Option<usize>> {
        decoder(text).layers.iter().map(|layer| layer.window).collect()
    };
    assert_eq!(windows(config!("mistral-window.json")), [Some(5), Some(5)]);
    assert_eq!(windows(config!("qwen2-window.json")), [None, Some(5)]);
    assert_eq!(windows(config!("gemma2.legacy.json")), [Some(8), None]);
    let gemma2 = decoder(config!("gemma2.json"));
    assert_eq!(gemma2.score_scale(), 20f64.powf(-0.5));
    assert_eq!(gemma2.embedding_multiplier, 8.0);
    assert_eq!(
        (gemma2.attn_logit_softcapping, gemma2.final_logit_softcapping),
        (Some(50.0), Some(30.0))
    );
    let gemma3 = decoder(config!("gemma3-linear.legacy.json"));
    assert_eq!(gemma3.ropes[0].scaling, RopeScaling::Linear { factor: 8.0 });
    assert_eq!(gemma3.ropes[1], RopeParameters::plain(1e4));
    assert_eq!([gemma3.layers[0].rope, gemma3.layers[1].rope], [Some(1), Some(0)]);
    let phi3 = decoder(config!("phi3-longrope.json"));
    assert_eq!(phi3.rope_parameters().rotary_dim(phi3.head_dim), 12);
    assert_eq!(phi3.rereads_at(), Some(33));
    assert_eq!(decoder(config!("llama-longrope.json")).rereads_at(), None);
    let smollm3 = decoder(config!("smollm3.json"));
    assert_eq!([smollm3.layers[0].rope, smollm3.layers[1].rope], [Some(0), None]);
    let mixed = decoder(config!("qwen3_moe-mixed.json"));
    assert_eq!([mixed.layers[0].is_sparse, mixed.layers[1].is_sparse], [false, true]);
    assert!(!mixed.experts.expect("experts").norm_topk_prob);
    let dynamic = read(config!("llama-dynamic.json"));
    assert_eq!(dynamic.max_positions(), 4 * 64);
}

/// Blocks without positions where a file gives their distance alone.
#[test]
fn every_fourth_block_of_smollm3_has_no_positions() {
    let patch = json!({ "num_hidden_layers": 5, "no_rope_layers": null, "layer_types": null });
    let value = patched(config!("smollm3.json"), &patch);
    let config = ModelConfig::from_json(&value, Path::new("x")).expect("readable");
    let layers = &config.decoder().expect("a decoder").layers;
    let have: Vec<bool> = layers.iter().map(|layer| layer.rope.is_some()).collect();
    assert_eq!(have, [true, true, true, false, true]);
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
            assert!(again.notes.is_empty() && again.warnings.is_empty());
        }
    }
}

/// The keys of transformers 4 that are written besides those of transformers 5.
const OLDER: [&str; 6] = [
    "rope_theta",
    "rope_scaling",
    "partial_rotary_factor",
    "rope_local_base_freq",
    "sliding_window_pattern",
    "torch_dtype",
];

#[test]
fn written_files_equal_those_of_transformers() {
    for (text, older) in GOLDEN {
        let info = describe(text);
        let mut written = info.config.to_json(Dtype::F32, &info.token_ids);
        let mut expected = parse(text);
        let expected = expected.as_object_mut().expect("an object");
        // Temper writes the size in place of null.
        expected.retain(|key, _| !key.starts_with("summary_"));
        if let Some(inner) = expected.get_mut("n_inner") {
            *inner = json!(256);
            expected.insert("n_ctx".to_owned(), json!(128));
        }
        // Without a window, all blocks are below the first one that has one.
        if expected.get("use_sliding_window") == Some(&json!(false))
            && let Some(n_full) = expected.get_mut("max_window_layers")
        {
            *n_full = json!(2);
        }
        // The context before scaling, which counts with LongRoPE alone.
        let has_longrope = text.contains("longrope");
        if let Some(original) = expected.get_mut("original_max_position_embeddings")
            && !has_longrope
        {
            *original = json!(128);
        }
        expected.remove("_sliding_window_pattern");
        if let Some(older) = older {
            let older = parse(older);
            for key in OLDER {
                if let Some(value) = older.get(key).filter(|value| !value.is_null()) {
                    expected.insert(key.to_owned(), value.clone());
                }
            }
        }
        expected.insert("torch_dtype".to_owned(), json!("float32"));
        match info.config.family().name() {
            // LongRoPE of transformers 4 computes with a context length at the top level.
            "llama" if has_longrope => {
                expected.insert("original_max_position_embeddings".to_owned(), json!(32));
                let factor = info.config.decoder().expect("a decoder").rope_parameters();
                expected["rope_scaling"]["attention_factor"] = json!(factor.attention_factor());
            }
            "qwen3_moe" => {
                expected.insert("num_experts".to_owned(), expected["num_local_experts"].clone());
            }
            _ => {}
        }
        expected.sort_keys();
        written.as_object_mut().expect("an object").sort_keys();
        assert_eq!(&written, &Value::Object(expected.clone()));
    }
}

/// Files with one spelling of RoPE alone, and with both, are the same model.
#[test]
fn either_spelling_of_rope_is_enough() {
    for (text, _) in GOLDEN {
        let config = read(text);
        let written = config.to_json(Dtype::F32, &TokenIds::default());
        for other in [&["rope_parameters"][..], &OLDER] {
            let mut one = written.clone();
            let keys = one.as_object_mut().expect("an object");
            // Phi-3 has the rotated share in both spellings.
            keys.retain(|key, _| !other.contains(&key.as_str()));
            let again = ModelConfig::from_json(&one, Path::new("x")).expect("readable");
            match (again.decoder(), config.decoder()) {
                (Some(again), Some(config)) => {
                    for (again, rope) in again.ropes.iter().zip(&config.ropes) {
                        assert_eq!(again.rope_theta, rope.rope_theta);
                        let [again, rope] = [again, rope].map(|rope| rope.table(16, 48));
                        assert_eq!(again.half_width, rope.half_width);
                        let differ = |(a, b): (&f32, &f32)| (a - b).abs() > 1e-6;
                        let pairs = || again.cos.iter().zip(&rope.cos);
                        assert!(!pairs().any(differ), "{text}");
                    }
                }
                (again, config) => assert!(again.is_none() && config.is_none()),
            }
        }
    }
}

#[test]
fn blocks_below_windows_and_regular_patterns_are_written() {
    let written = |text: &str, changes: Value| {
        let value = patched(text, &changes);
        let config = ModelConfig::from_json(&value, Path::new("x")).expect("readable");
        config.to_json(Dtype::F32, &TokenIds::default())
    };
    let types = |names: &[&str]| -> Value {
        let of = |name: &&str| json!(format!("{name}_attention"));
        let n = names.len();
        json!({ "layer_types": names.iter().map(of).collect::<Vec<_>>(), "num_hidden_layers": n })
    };
    let windowed = |names| {
        let mut changes = types(names);
        changes["use_sliding_window"] = json!(true);
        changes["sliding_window"] = json!(5);
        written(config!("qwen2.json"), changes)["max_window_layers"].clone()
    };
    assert_eq!(windowed(&["full", "sliding", "sliding"]), json!(1));
    assert_eq!(windowed(&["full", "sliding", "full"]), json!(3));
    let pattern =
        |names| written(config!("gemma3.json"), types(names))["sliding_window_pattern"].clone();
    assert_eq!(pattern(&["sliding", "sliding", "full", "sliding"]), json!(3));
    assert_eq!(pattern(&["sliding", "sliding"]), json!(3));
    assert_eq!(pattern(&["sliding", "full", "full"]), Value::Null);
}

#[test]
fn end_ids_of_both_files_are_merged() {
    let many = patched(config!("llama.json"), &json!({ "eos_token_id": [5, 2, 5] }));
    let info = ModelInfo::from_json(&many, Path::new("x")).expect("readable");
    assert_eq!(info.token_ids.eos, [5, 2]);

    let mut token_ids = info.token_ids;
    let generation =
        json!({ "eos_token_id": [2, 9, 100_000], "bos_token_id": 3, "pad_token_id": 4 });
    token_ids.merge_generation_config(&generation, 320);
    assert_eq!(token_ids, TokenIds { bos: Some(1), eos: vec![5, 2, 9], pad: Some(0) });

    let mut none = TokenIds::default();
    none.merge_generation_config(&json!({ "eos_token_id": 7 }), 320);
    assert_eq!(none, TokenIds { bos: None, eos: vec![7], pad: None });

    let absent = json!({ "bos_token_id": null, "eos_token_id": null, "pad_token_id": null });
    let absent = patched(config!("llama.json"), &absent);
    let info = ModelInfo::from_json(&absent, Path::new("x")).expect("readable");
    assert_eq!(info.token_ids, TokenIds::default());
}

#[test]
fn keys_without_effect_are_noted() {
    let patch = json!({ "attention_dropout": 0.1, "pad_token_id": 320 });
    let value = patched(config!("llama.json"), &patch);
    let info = ModelInfo::from_json(&value, Path::new("x")).expect("readable");
    assert_eq!(
        info.notes,
        [
            "pad_token_id = 320 is outside the vocabulary and is not used",
            "attention_dropout = 0.1 is a training setting and is not used: dropout is 0",
        ]
    );
    assert_eq!(info.token_ids.pad, None);
}

#[test]
fn the_architecture_is_read() {
    let info = describe(config!("llama-score.json"));
    assert_eq!(info.architecture, Architecture::SequenceClassifier);
    assert_eq!(describe(config!("llama.json")).architecture, Architecture::CausalLm);
}

#[test]
fn gpt2_accepts_the_names_of_other_families() {
    let names = json!({
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": 128, "n_embd": null, "n_layer": null, "n_head": null,
        "n_positions": null,
    });
    let value = patched(config!("gpt2.json"), &names);
    let info = ModelInfo::from_json(&value, Path::new("x")).expect("readable");
    assert_eq!(info, describe(config!("gpt2.json")));
}

/// Windowed layers of qwen3, in both spellings of config.json.
#[test]
fn windows_of_qwen3() {
    let windows = |changes: serde_json::Value| {
        let value = patched(config!("qwen3.json"), &changes);
        let config = ModelConfig::from_json(&value, Path::new("x"))?;
        let written = config.to_json(Dtype::F32, &TokenIds::default());
        let again = ModelInfo::from_json(&written, Path::new("y"))?;
        assert_eq!(again.config, config, "written and read again");
        let layers = &config.decoder().expect("a decoder").layers;
        Ok::<_, arch::Error>(layers.iter().map(|layer| layer.window).collect::<Vec<_>>())
    };
    let on = json!({ "use_sliding_window": true, "sliding_window": 16, "layer_types": null });
    let with = |changes: serde_json::Value| {
        let mut all = on.clone();
        let (Some(all_keys), Some(changes)) = (all.as_object_mut(), changes.as_object()) else {
            panic!("objects")
        };
        all_keys.extend(changes.clone());
        windows(all)
    };
    assert_eq!(windows(json!({})).expect("full"), [None, None]);
    assert_eq!(with(json!({ "max_window_layers": 1 })).expect("one"), [None, Some(16)]);
    assert_eq!(with(json!({ "use_sliding_window": false })).expect("off"), [None, None]);
    let types = json!({ "layer_types": ["sliding_attention", "full_attention"] });
    assert_eq!(with(types).expect("by type"), [Some(16), None]);
    // A window that no key gives, and layers that nothing describes.
    let types = json!({ "layer_types": ["sliding_attention", "full_attention"] });
    assert!(windows(types).expect_err("no window").to_string().contains("there is no window"));
    let types = json!({ "layer_types": ["full_attention"] });
    assert!(windows(types).expect_err("one of two").to_string().contains("layer_types"));
}
