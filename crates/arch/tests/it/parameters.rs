//! Parameter tables against the tensors of the reference vectors, and how parameters start.

use std::path::Path;

use arch::{AxisOrder, Init, ModelConfig, ParamKind, ParamSpec};
use serde_json::json;

use crate::{config, patched, read};

fn table(specs: &[ParamSpec]) -> String {
    let mut lines: Vec<String> =
        specs.iter().map(|spec| format!("{} {:?}\n", spec.name, spec.shape)).collect();
    lines.sort();
    lines.concat()
}

#[test]
fn names_and_shapes_are_those_of_the_files() {
    for (config, tensors) in [
        (config!("llama.json"), config!("llama.tensors")),
        (config!("llama-tied-rope3.json"), config!("llama-tied-rope3.tensors")),
        (config!("llama-bias-headdim.json"), config!("llama-bias-headdim.tensors")),
        (config!("llama-mlp-bias.json"), config!("llama-mlp-bias.tensors")),
        (config!("gpt2.json"), config!("gpt2.tensors")),
        (config!("qwen3.json"), config!("qwen3.tensors")),
        (config!("mistral-window.json"), config!("mistral-window.tensors")),
        (config!("qwen2.json"), config!("qwen2.tensors")),
        (config!("qwen2-window.json"), config!("qwen2-window.tensors")),
        (config!("gemma2.json"), config!("gemma2.tensors")),
        (config!("gemma3.json"), config!("gemma3.tensors")),
        (config!("gemma3-linear.json"), config!("gemma3-linear.tensors")),
        (config!("phi3.json"), config!("phi3.tensors")),
        (config!("phi3-longrope.json"), config!("phi3-longrope.tensors")),
        (config!("olmo2.json"), config!("olmo2.tensors")),
        (config!("olmo3.json"), config!("olmo3.tensors")),
        (config!("exaone4.json"), config!("exaone4.tensors")),
        (config!("smollm3.json"), config!("smollm3.tensors")),
        (config!("granite.json"), config!("granite.tensors")),
        (config!("mixtral.json"), config!("mixtral.tensors")),
        (config!("qwen2_moe.json"), config!("qwen2_moe.tensors")),
        (config!("qwen3_moe.json"), config!("qwen3_moe.tensors")),
        (config!("qwen3_moe-mixed.json"), config!("qwen3_moe-mixed.tensors")),
        (config!("llama-longrope.json"), config!("llama-longrope.tensors")),
        (config!("llama-dynamic.json"), config!("llama-dynamic.tensors")),
    ] {
        let config = read(config);
        assert_eq!(table(&config.parameters()), tensors);
        assert_eq!(config.file_parameters(), config.parameters());
        assert!(config.zero_parameters().is_empty());
    }
}

#[test]
fn module_order_is_that_of_transformers() {
    let names = |text| -> Vec<String> {
        read(text).parameters().into_iter().map(|spec| spec.name).collect()
    };
    let llama = names(config!("llama-mlp-bias.json"));
    insta::assert_snapshot!(llama[..18].join("\n"), @r"
    model.embed_tokens.weight
    model.layers.0.self_attn.q_proj.weight
    model.layers.0.self_attn.q_proj.bias
    model.layers.0.self_attn.k_proj.weight
    model.layers.0.self_attn.k_proj.bias
    model.layers.0.self_attn.v_proj.weight
    model.layers.0.self_attn.v_proj.bias
    model.layers.0.self_attn.o_proj.weight
    model.layers.0.self_attn.o_proj.bias
    model.layers.0.mlp.gate_proj.weight
    model.layers.0.mlp.gate_proj.bias
    model.layers.0.mlp.up_proj.weight
    model.layers.0.mlp.up_proj.bias
    model.layers.0.mlp.down_proj.weight
    model.layers.0.mlp.down_proj.bias
    model.layers.0.input_layernorm.weight
    model.layers.0.post_attention_layernorm.weight
    model.layers.1.self_attn.q_proj.weight
    ");
    assert_eq!(llama[llama.len() - 2..], ["model.norm.weight", "lm_head.weight"]);
    let gpt2 = names(config!("gpt2.json"));
    insta::assert_snapshot!(gpt2[..15].join("\n"), @r"
    transformer.wte.weight
    transformer.wpe.weight
    transformer.h.0.ln_1.weight
    transformer.h.0.ln_1.bias
    transformer.h.0.attn.c_attn.weight
    transformer.h.0.attn.c_attn.bias
    transformer.h.0.attn.c_proj.weight
    transformer.h.0.attn.c_proj.bias
    transformer.h.0.ln_2.weight
    transformer.h.0.ln_2.bias
    transformer.h.0.mlp.c_fc.weight
    transformer.h.0.mlp.c_fc.bias
    transformer.h.0.mlp.c_proj.weight
    transformer.h.0.mlp.c_proj.bias
    transformer.h.1.ln_1.weight
    ");
}

#[test]
fn a_score_stands_in_place_of_the_logits() {
    for text in [config!("llama.json"), config!("gpt2.json")] {
        let config = read(text);
        let specs = config.sequence_classifier_parameters();
        let last = specs.last().expect("a table is never empty");
        assert_eq!(
            (last.name.as_str(), last.shape.as_slice()),
            ("score.weight", [1, 64].as_slice())
        );
        assert!(specs.iter().all(|spec| spec.name != "lm_head.weight"));
    }
}

#[test]
fn a_model_without_biases_has_zeros_in_its_file() {
    let value = patched(config!("gpt2.json"), &json!({ "bias": false }));
    let config = ModelConfig::from_json(&value, Path::new("x")).expect("readable");
    assert_eq!(table(&config.file_parameters()), config!("gpt2.tensors"));
    assert!(config.parameters().iter().all(|spec| spec.kind != ParamKind::Bias));
    let zeros = config.zero_parameters();
    assert_eq!(zeros.len(), 2 * 6 + 1);
    assert!(zeros.iter().all(|spec| spec.kind == ParamKind::Bias && spec.init == Init::Zeros));
}

#[test]
fn weights_start_as_the_papers_have_them() {
    let gpt2 = read(config!("gpt2.json"));
    for spec in gpt2.parameters() {
        let residual = spec.name.ends_with("c_proj.weight");
        match spec.kind {
            ParamKind::Bias => assert_eq!(spec.init, Init::Zeros),
            ParamKind::Norm => assert_eq!(spec.init, Init::Ones),
            ParamKind::Embedding | ParamKind::Matrix | ParamKind::Head => {
                let std = if residual { 0.02 / 4f64.sqrt() } else { 0.02 };
                assert_eq!(spec.init, Init::Normal { std });
            }
        }
        let in_out =
            if spec.kind == ParamKind::Matrix { AxisOrder::InOut } else { AxisOrder::OutIn };
        assert_eq!(spec.axis_order, in_out);
    }
    let value = patched(config!("llama.json"), &json!({ "initializer_range": 0.01 }));
    let llama = ModelConfig::from_json(&value, Path::new("x")).expect("readable");
    for spec in llama.parameters() {
        match spec.kind {
            ParamKind::Bias => assert_eq!(spec.init, Init::Zeros),
            ParamKind::Norm => assert_eq!(spec.init, Init::Ones),
            ParamKind::Embedding | ParamKind::Matrix | ParamKind::Head => {
                assert_eq!(spec.init, Init::Normal { std: 0.01 });
            }
        }
    }
}

#[test]
fn tensors_that_follow_from_the_config_are_known() {
    let llama = read(config!("llama.json"));
    assert!(llama.is_derived_tensor("model.layers.0.self_attn.rotary_emb.inv_freq"));
    assert!(!llama.is_derived_tensor("model.layers.0.self_attn.q_proj.bias"));
    let gpt2 = read(config!("gpt2.json"));
    assert!(gpt2.is_derived_tensor("h.0.attn.bias"));
    assert!(gpt2.is_derived_tensor("transformer.h.0.attn.masked_bias"));
    assert!(!gpt2.is_derived_tensor("transformer.h.0.attn.c_attn.bias"));
    assert_eq!((llama.base_prefix(), gpt2.base_prefix()), ("model.", "transformer."));
}

#[test]
fn scores_of_gpt2_are_scaled_as_its_keys_say() {
    let scale = |patch: serde_json::Value, layer| {
        let value = patched(config!("gpt2.json"), &patch);
        match ModelConfig::from_json(&value, Path::new("x")) {
            Ok(ModelConfig::Gpt2(config)) => config.attention_scale(layer),
            other => panic!("expected gpt2, found {other:?}"),
        }
    };
    assert_eq!(scale(json!({}), 1), 0.25);
    assert_eq!(scale(json!({ "scale_attn_by_inverse_layer_idx": true }), 1), 0.125);
    assert_eq!(scale(json!({ "scale_attn_weights": false }), 1), 1.0);
}
