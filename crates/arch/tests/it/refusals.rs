//! Refusals: keys that change the forward pass in an unsupported way, and invalid values, by name.

use std::fmt::Write as _;
use std::path::Path;

use arch::ModelInfo;
use serde_json::{Value, json};

use crate::{config, patched};

/// The message and hint for a good config with `patch` applied.
fn refused(text: &str, patch: &Value) -> String {
    let value = patched(text, patch);
    match ModelInfo::from_json(&value, Path::new("m/config.json")) {
        Ok(_) => format!("accepted: {patch}\n"),
        Err(error) => {
            let mut line = format!("{error}\n");
            if let Some(hint) = error.hint() {
                _ = writeln!(line, "  hint: {hint}");
            }
            line
        }
    }
}

fn llama(patches: &[Value]) -> String {
    patches.iter().map(|patch| refused(config!("llama.json"), patch)).collect()
}

fn gpt2(patches: &[Value]) -> String {
    patches.iter().map(|patch| refused(config!("gpt2.json"), patch)).collect()
}

#[test]
fn unsupported_forward_passes() {
    insta::assert_snapshot!(llama(&[
        json!({ "hidden_act": "quick_gelu" }),
        json!({ "partial_rotary_factor": 0.5 }),
        json!({ "sliding_window": 4096 }),
        json!({ "layer_types": ["full_attention", "sliding_attention"] }),
        json!({ "quantization_config": { "bits": 4 } }),
        json!({ "auto_map": { "AutoModelForCausalLM": "modeling.Model" } }),
        json!({ "per_layer_config": { "0": {} } }),
        json!({ "pruned_heads": { "0": [1] } }),
        json!({ "is_encoder_decoder": true }),
    ]), @r#"
    m/config.json: unsupported value of key `hidden_act`: `quick_gelu`
      hint: supported: gelu_new, gelu_pytorch_tanh, gelu_fast, gelu, relu, silu
    m/config.json: unsupported value of key `partial_rotary_factor`: `0.5`
      hint: only rotation of the whole head is supported (1.0)
    m/config.json: unsupported value of key `sliding_window`: `4096`
      hint: only full attention (null) is supported
    m/config.json: unsupported value of key `layer_types`: `["full_attention","sliding_attention"]`
      hint: supported: full_attention in all layers
    m/config.json: unsupported value of key `quantization_config`: `{"bits":4}`
      hint: supported: bitsandbytes in 4 or 8 bits; save the model without quantization
    m/config.json: unsupported value of key `auto_map`: `{"AutoModelForCausalLM":"modeling.Model"}`
      hint: only models without it are supported
    m/config.json: unsupported value of key `per_layer_config`: `{"0":{}}`
      hint: only models without it are supported
    m/config.json: unsupported value of key `pruned_heads`: `{"0":[1]}`
      hint: only models without it are supported
    m/config.json: unsupported value of key `is_encoder_decoder`: `true`
      hint: only models without it are supported
    "#);
    insta::assert_snapshot!(gpt2(&[
        json!({ "add_cross_attention": true }),
        json!({ "activation_function": "quick_gelu" }),
        json!({ "hidden_size": 32 }),
    ]), @r"
    m/config.json: unsupported value of key `add_cross_attention`: `true`
      hint: only models without it are supported
    m/config.json: unsupported value of key `activation_function`: `quick_gelu`
      hint: supported: gelu_new, gelu_pytorch_tanh, gelu_fast, gelu, relu, silu
    m/config.json: `n_embd` is `64` but `hidden_size`, its alias, is `32`
      hint: keep `n_embd` only
    ");
}

/// The code that a directory brings is not run; classes of the family's own names are built in.
#[test]
fn code_beside_a_model() {
    let map = |class: &str| json!({ "auto_map": { "AutoConfig": "configuration.Any", "AutoModelForCausalLM": class } });
    let accepted = refused(config!("llama.json"), &map("modeling_llama.LlamaForCausalLM"));
    assert!(accepted.starts_with("accepted"), "{accepted}");
    let other = refused(config!("llama.json"), &map("modeling_llama.MyLlamaForCausalLM"));
    assert!(other.contains("`auto_map`"), "{other}");
}

/// Keys of decoders whose values cannot be honoured.
#[test]
fn unsupported_values_of_decoders() {
    let refused = |text, patches: &[Value]| -> String {
        patches.iter().map(|patch| refused(text, patch)).collect()
    };
    // A patch of null removes the key, which leaves the default.
    let mut without = crate::json(config!("gemma2.json"));
    without["sliding_window"] = Value::Null;
    let error = ModelInfo::from_json(&without, Path::new("m/config.json")).expect_err("no window");
    let message = "`layer_types` has sliding_attention, but there is no window";
    assert_eq!(error.to_string(), format!("m/config.json: {message}"));
    insta::assert_snapshot!(refused(config!("gemma2.json"), &[
        json!({ "hidden_activation": "mish" }),
        json!({ "use_bidirectional_attention": true }),
        json!({ "layer_types": ["full_attention", "chunked_attention"] }),
    ]), @r#"
    m/config.json: unsupported value of key `hidden_activation`: `mish`
      hint: supported: gelu_new, gelu_pytorch_tanh, gelu_fast, gelu, relu, silu
    m/config.json: unsupported value of key `use_bidirectional_attention`: `true`
      hint: only causal attention is supported
    m/config.json: unsupported value of key `layer_types`: `["full_attention","chunked_attention"]`
      hint: supported: full_attention and sliding_attention, one entry for each layer
    "#);
    insta::assert_snapshot!(refused(config!("phi3.json"), &[
        json!({ "partial_rotary_factor": 0.001 }),
        json!({ "rope_parameters": { "rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.2 } }),
    ]), @r"
    m/config.json: key `partial_rotary_factor` must be from 0.01 to 1: `0.001`
      hint: compare it with the config.json that was published with the model
    m/config.json: `partial_rotary_factor` rotates `3` elements of a head
      hint: an even number of them must be rotated
    ");
    insta::assert_snapshot!(refused(config!("smollm3.json"), &[
        json!({ "no_rope_layers": [1] }),
        json!({ "no_rope_layers": [1, 2] }),
    ]), @r"
    m/config.json: unsupported value of key `no_rope_layers`: `[1]`
      hint: one 0 or 1 for each layer; 1 means that the layer has positions
    m/config.json: unsupported value of key `no_rope_layers`: `[1,2]`
      hint: one 0 or 1 for each layer; 1 means that the layer has positions
    ");
    insta::assert_snapshot!(refused(config!("qwen3_moe.json"), &[
        json!({ "num_experts_per_tok": 7 }),
        json!({ "num_experts": 8 }),
        json!({ "mlp_only_layers": "none" }),
    ]), @r"
    m/config.json: key `num_experts_per_tok` must be a whole number from 1 to 6: `7`
      hint: compare it with the config.json that was published with the model
    m/config.json: `num_experts` is `8` but `num_local_experts`, its alias, is `6`
      hint: keep `num_experts` only
    m/config.json: unsupported value of key `mlp_only_layers`: `none`
      hint: a list of layer numbers, from 0
    ");
}

#[test]
fn rope_types() {
    let rope = |value: Value| json!({ "rope_parameters": value });
    insta::assert_snapshot!(llama(&[
        rope(json!({ "rope_type": "ntk", "factor": 2.0, "rope_theta": 1e4 })),
        rope(json!({ "rope_type": "longrope", "rope_theta": 1e4 })),
        rope(json!({ "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0, 2.0], "long_factor": [0.0] })),
        rope(json!({ "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0, 2.0], "long_factor": [1.0] })),
        rope(json!({ "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0], "long_factor": [1.0] })),
        rope(json!({ "rope_type": "linear", "rope_theta": 1e4 })),
        rope(json!({ "rope_type": "linear", "factor": 0.5, "rope_theta": 1e4 })),
        rope(json!({ "rope_type": "linear", "type": "yarn", "factor": 2.0, "rope_theta": 1e4 })),
        rope(json!({ "rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.25 })),
        rope(json!({ "rope_type": "llama3", "rope_theta": 1e4, "factor": 2.0,
                     "low_freq_factor": 4.0, "high_freq_factor": 1.0 })),
        rope(json!({ "full_attention": { "rope_type": "default", "rope_theta": 1e4 } })),
        rope(json!("yarn")),
        json!({ "rope_theta": 5e5 }),
        json!({ "rope_scaling": { "rope_type": "linear", "factor": 2.0 } }),
        json!({ "rope_parameters": null }),
        json!({ "rope_parameters": null, "rope_theta": 0.0 }),
    ]), @r#"
    m/config.json: unsupported value of key `rope_parameters.rope_type`: `ntk`
      hint: supported rope types: default, linear, llama3, yarn, longrope, dynamic
    m/config.json: missing key `rope_parameters.short_factor`
      hint: config.json must describe the whole model
    m/config.json: key `rope_parameters.long_factor` must be a list of numbers above 0: `[0.0]`
      hint: compare it with the config.json that was published with the model
    m/config.json: `short_factor` and `long_factor` must have the same length: `2` and `1`
      hint: one divisor for each rotated pair
    m/config.json: `short_factor` and `long_factor` must have one number for each of `8` rotated pairs: `1`
    m/config.json: missing key `rope_parameters.factor`
      hint: config.json must describe the whole model
    m/config.json: key `rope_parameters.factor` must be from 1 to 1e6: `0.5`
      hint: compare it with the config.json that was published with the model
    m/config.json: `rope_parameters.rope_type` is `linear` and `rope_parameters.type` is `yarn`
      hint: keep `rope_type` only
    m/config.json: unsupported value of key `rope_parameters.partial_rotary_factor`: `0.25`
      hint: only rotation of the whole head is supported (1.0)
    m/config.json: `high_freq_factor` must be above `low_freq_factor`: `1` and `4`
      hint: Llama 3.1 uses 4.0 and 1.0
    m/config.json: missing key `rope_parameters.rope_type`
      hint: supported rope types: default, linear, llama3, yarn, longrope, dynamic
    m/config.json: key `rope_parameters` must be an object: `yarn`
      hint: compare it with the config.json that was published with the model
    m/config.json: `rope_theta` is given twice: `500000` and `10000`
      hint: keep the one in `rope_parameters`
    m/config.json: `rope_parameters` and `rope_scaling` contradict each other
      hint: keep `rope_parameters` only
    m/config.json: missing key `rope_theta`
      hint: the base of RoPE has no default; the first Llama models use `"rope_theta": 10000.0`
    m/config.json: key `rope_theta` must be from 1.000001 to 1e15: `0.0`
      hint: compare it with the config.json that was published with the model
    "#);
}

#[test]
fn sizes_and_types() {
    insta::assert_snapshot!(llama(&[
        json!({ "hidden_size": null }),
        json!({ "hidden_size": 0 }),
        json!({ "hidden_size": -64 }),
        json!({ "hidden_size": 64.5 }),
        json!({ "hidden_size": "64" }),
        json!({ "hidden_size": 1_u64 << 40 }),
        json!({ "hidden_size": 66 }),
        json!({ "num_key_value_heads": 3 }),
        json!({ "head_dim": 15 }),
        json!({ "rms_norm_eps": null }),
        json!({ "rms_norm_eps": -1.0 }),
        json!({ "tie_word_embeddings": "yes" }),
        json!({ "eos_token_id": "</s>" }),
        json!({ "eos_token_id": [2, 2.5] }),
        json!({ "max_sequence_length": 4096 }),
        json!({ "vocab_size": 4_194_304, "hidden_size": 1 << 20, "num_attention_heads": 256, "head_dim": 128 }),
        json!({ "intermediate_size": 1 << 20, "hidden_size": 1 << 19, "num_hidden_layers": 1024,
                "num_attention_heads": 256, "head_dim": 128, "vocab_size": 2 }),
    ]), @r"
    m/config.json: missing key `hidden_size`
      hint: config.json must describe the whole model
    m/config.json: key `hidden_size` must be a whole number from 1 to 1048576: `0`
      hint: compare it with the config.json that was published with the model
    m/config.json: key `hidden_size` must be a whole number from 1 to 1048576: `-64`
      hint: compare it with the config.json that was published with the model
    m/config.json: key `hidden_size` must be a whole number from 1 to 1048576: `64.5`
      hint: compare it with the config.json that was published with the model
    m/config.json: key `hidden_size` must be a whole number: `64`
      hint: compare it with the config.json that was published with the model
    m/config.json: key `hidden_size` must be a whole number from 1 to 1048576: `1099511627776`
      hint: compare it with the config.json that was published with the model
    m/config.json: `hidden_size` must be a multiple of `num_attention_heads`: `66` and `4`
    m/config.json: `num_attention_heads` must be a multiple of `num_key_value_heads`: `4` and `3`
    m/config.json: `head_dim` must be even and at most 4096: `15`
      hint: RoPE rotates pairs of elements: make `head_dim`, or `hidden_size` / `num_attention_heads`, even
    m/config.json: missing key `rms_norm_eps`
      hint: config.json must describe the whole model
    m/config.json: key `rms_norm_eps` must be from 0 to 1: `-1.0`
      hint: compare it with the config.json that was published with the model
    m/config.json: key `tie_word_embeddings` must be true or false: `yes`
      hint: compare it with the config.json that was published with the model
    m/config.json: unsupported value of key `eos_token_id`: `</s>`
      hint: a token id is a whole number, or a list of them
    m/config.json: unsupported value of key `eos_token_id`: `[2,2.5]`
      hint: a token id is a whole number, or a list of them
    m/config.json: `max_position_embeddings` is `128` but `max_sequence_length`, its alias, is `4096`
      hint: keep `max_position_embeddings` only
    m/config.json: the model is too large: `model.embed_tokens.weight` has 4398046511104 elements, the limit is 274877906944
      hint: check the sizes for a wrong digit
    m/config.json: the model is too large: `model.layers.0.mlp.gate_proj.weight` has 549755813888 elements, the limit is 274877906944
      hint: check the sizes for a wrong digit
    ");
}

#[test]
fn families_and_architectures() {
    insta::assert_snapshot!(llama(&[
        json!({ "model_type": "bert" }),
        json!({ "model_type": null }),
        json!({ "model_type": 7 }),
        json!({ "architectures": ["MistralForCausalLM"] }),
        json!({ "architectures": ["LlamaForCausalLM", "LlamaForSequenceClassification"] }),
        json!({ "architectures": "LlamaForCausalLM" }),
    ]), @r#"
    m/config.json: unsupported model family, key `model_type`: `bert`
      hint: supported families: llama, gpt2, qwen3, mistral, qwen2, gemma2, gemma3_text, phi3, olmo2, olmo3, exaone4, smollm3, granite, mixtral, qwen2_moe, qwen3_moe
    m/config.json: missing key `model_type`
      hint: supported families: llama, gpt2, qwen3, mistral, qwen2, gemma2, gemma3_text, phi3, olmo2, olmo3, exaone4, smollm3, granite, mixtral, qwen2_moe, qwen3_moe
    m/config.json: key `model_type` must be a string: `7`
      hint: compare it with the config.json that was published with the model
    m/config.json: unsupported value of key `architectures`: `["MistralForCausalLM"]`
      hint: supported with model_type `llama`: LlamaForCausalLM, LLaMAForCausalLM, LlamaForSequenceClassification, LLaMAForSequenceClassification
    m/config.json: unsupported value of key `architectures`: `["LlamaForCausalLM","LlamaForSequenceClassification"]`
      hint: supported with model_type `llama`: LlamaForCausalLM, LLaMAForCausalLM, LlamaForSequenceClassification, LLaMAForSequenceClassification
    m/config.json: unsupported value of key `architectures`: `LlamaForCausalLM`
      hint: supported with model_type `llama`: LlamaForCausalLM, LLaMAForCausalLM, LlamaForSequenceClassification, LLaMAForSequenceClassification
    "#);
    let error = ModelInfo::from_json(&json!([1]), Path::new("m/config.json"));
    insta::assert_snapshot!(error.expect_err("a list is no config"), @"m/config.json: expected a JSON object");
}

/// Keys of transformers 4 beside those of transformers 5 must agree.
#[test]
fn spellings_of_rope_that_contradict() {
    let refused = |text, patches: &[Value]| -> String {
        patches.iter().map(|patch| refused(text, patch)).collect()
    };
    let llama3 = |factor: f64| {
        json!({ "rope_scaling": { "rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 32 } })
    };
    insta::assert_snapshot!(refused(config!("llama-tied-rope3.json"), &[
        llama3(8.0),
        llama3(4.0),
        json!({ "rope_theta": 500_000.0 }),
        json!({ "rope_theta": 10_000.0 }),
        json!({ "rope_parameters": null, "rope_theta": 1e4, "rope_scaling": { "rope_type": "default", "rope_theta": 1e5 } }),
    ]), @r#"
    accepted: {"rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":32}}
    m/config.json: `rope_parameters` and `rope_scaling` contradict each other
      hint: keep `rope_parameters` only
    accepted: {"rope_theta":500000.0}
    m/config.json: `rope_theta` is given twice: `10000` and `500000`
      hint: keep the one in `rope_parameters`
    m/config.json: `rope_theta` is given twice: `10000` and `100000`
      hint: keep the one in `rope_scaling`
    "#);
    insta::assert_snapshot!(refused(config!("gemma3-linear.json"), &[
        json!({ "rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": { "rope_type": "linear", "factor": 8.0 } }),
        json!({ "rope_theta": 1e4 }),
        json!({ "rope_local_base_freq": 1e6 }),
        json!({ "rope_scaling": { "rope_type": "linear", "factor": 2.0 } }),
    ]), @r#"
    accepted: {"rope_theta":1000000.0,"rope_local_base_freq":10000.0,"rope_scaling":{"rope_type":"linear","factor":8.0}}
    m/config.json: `rope_theta` is given twice: `10000` and `1000000`
      hint: keep the one in `rope_parameters.full_attention`
    m/config.json: `rope_local_base_freq` is `1000000` and `rope_parameters.sliding_attention.rope_theta` is `10000`
      hint: keep the one in `rope_parameters`
    m/config.json: `rope_parameters.full_attention` and `rope_scaling` contradict each other
      hint: keep `rope_parameters` only
    "#);
    let lists = |last: f64| {
        json!({ "rope_scaling": { "type": "longrope", "short_factor": [1.0, 1.1, 1.3, 1.6, 2.0, 2.5],
            "long_factor": [1.0, 1.5, 2.5, 4.0, 6.0, last] } })
    };
    insta::assert_snapshot!(refused(config!("phi3-longrope.json"), &[
        lists(8.0),
        lists(9.0),
        json!({ "partial_rotary_factor": 0.75 }),
        json!({ "partial_rotary_factor": 0.5 }),
        json!({ "original_max_position_embeddings": 64 }),
    ]), @r#"
    accepted: {"rope_scaling":{"type":"longrope","short_factor":[1.0,1.1,1.3,1.6,2.0,2.5],"long_factor":[1.0,1.5,2.5,4.0,6.0,8.0]}}
    m/config.json: `rope_parameters` and `rope_scaling` contradict each other
      hint: keep `rope_parameters` only
    accepted: {"partial_rotary_factor":0.75}
    m/config.json: `partial_rotary_factor` is given twice: `0.5` and `0.75`
      hint: keep the one in `rope_parameters`
    m/config.json: `original_max_position_embeddings` is given twice: `64` and `32`
      hint: keep the one next to `rope_type`
    "#);
    insta::assert_snapshot!(refused(config!("mistral-window.json"), &[
        json!({ "layer_types": ["sliding_attention", "sliding_attention"] }),
        json!({ "layer_types": ["sliding_attention", "full_attention"] }),
    ]), @r#"
    accepted: {"layer_types":["sliding_attention","sliding_attention"]}
    m/config.json: unsupported value of key `layer_types`: `["sliding_attention","full_attention"]`
      hint: supported: sliding_attention in all layers
    "#);
}
