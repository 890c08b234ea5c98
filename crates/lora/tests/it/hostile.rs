//! Adapter directories that must be refused, by the name of what is wrong.

use std::path::Path;

use arch::Dtype;
use fsio::DirWriter;
use lora::{ADAPTER_CONFIG, ADAPTER_WEIGHTS, Peft, Targets, attach, export, load};
use serde_json::{Value, json};
use tensor_file::SafetensorsWriter;

use super::support::{device, names, settings, tiny_gpt2, tiny_llama};

/// A directory that loads, without the MANIFEST that would reveal each change of a file before it is looked at.
fn good(dir: &Path) {
    let config = settings(names(&["q_proj"]));
    let model = attach(tiny_llama(&device()), &config, 7).expect("attached").model;
    let mut writer = DirWriter::begin(dir).expect("a directory");
    export(&model, &config, None, Dtype::F32, &mut writer).expect("exported");
    writer.commit(Value::Null).expect("committed");
    fsio::remove_file(dir.join(fsio::MANIFEST)).expect("removed");
}

fn read_config(dir: &Path) -> Value {
    let text = std::fs::read(dir.join(ADAPTER_CONFIG)).expect("a file");
    serde_json::from_slice(&text).expect("JSON")
}

fn write_config(dir: &Path, config: &Value) {
    fsio::write_atomic(dir.join(ADAPTER_CONFIG), config.to_string()).expect("written");
}

fn refusal(dir: &Path) -> String {
    let error = load(tiny_llama(&device()), dir).expect_err("refused");
    assert!(error.hint().is_some(), "{error}");
    error.to_string()
}

#[test]
fn settings_that_change_the_mathematics_are_refused_by_name() {
    let out = tempfile::tempdir().expect("a directory");
    let dir = out.path().join("a");
    good(&dir);
    let config = read_config(&dir);
    for (key, value) in [
        ("use_qalora", json!(true)),
        ("use_bdlora", json!(true)),
        ("modules_to_save", json!(["score"])),
        ("layer_replication", json!([[0, 1]])),
        ("target_parameters", json!(["mlp.experts"])),
        ("ensure_weight_tying", json!(true)),
        ("init_lora_weights", json!("pissa_niter_4")),
        ("init_lora_weights", json!("loftq")),
        ("bias", json!("some")),
        ("alora_invocation_tokens", json!([1, 2])),
        ("megatron_config", json!({"x": 1})),
        ("peft_type", json!("LOHA")),
        ("peft_type", json!("IA3")),
        ("peft_type", json!("PROMPT_TUNING")),
        ("a_key_of_tomorrow", json!(1)),
    ] {
        let mut changed = config.clone();
        changed[key] = value.clone();
        write_config(&dir, &changed);
        let message = refusal(&dir);
        assert!(message.contains(&format!("not supported: `{key}` = ")), "{key}: {message}");
    }
}

#[test]
fn settings_whose_tensors_the_file_lacks() {
    let out = tempfile::tempdir().expect("a directory");
    let dir = out.path().join("a");
    good(&dir);
    let config = read_config(&dir);
    let prefix = "base_model.model.model.";
    for (key, value, missing) in [
        ("use_dora", json!(true), "layers.0.self_attn.q_proj.lora_magnitude_vector"),
        ("lora_bias", json!(true), "layers.0.self_attn.q_proj.lora_B.bias"),
        ("modules_to_save", json!(["embed_tokens"]), "embed_tokens.weight"),
        (
            "trainable_token_indices",
            json!([3, 4]),
            "embed_tokens.token_adapter.trainable_tokens_delta",
        ),
        ("target_modules", json!(["q_proj", "v_proj"]), "layers.0.self_attn.v_proj.lora_A.weight"),
    ] {
        let mut changed = config.clone();
        changed[key] = value;
        write_config(&dir, &changed);
        let message = refusal(&dir);
        assert!(message.contains(&format!("tensor missing: `{prefix}{missing}`")), "{message}");
    }
    for (key, value, expected) in [
        ("rank_pattern", json!({"q_proj": 2}), "has shape [3, 32], not [2, 32]"),
        ("layers_to_transform", json!([0]), "absent from model or settings"),
        ("layers_to_transform", json!(1), "absent from model or settings"),
        ("exclude_modules", json!(["q_proj"]), "matches no layer of the model: `q_proj`"),
        ("exclude_modules", json!(".*0.*q_proj"), "absent from model or settings"),
        ("layers_pattern", json!("layers"), "lora `layers_pattern` cannot be combined with"),
        ("modules_to_save", json!(["x_proj"]), "modules_to_save matches nothing: `x_proj`"),
        ("trainable_token_indices", json!([96]), "must be ids of the vocabulary: `96`"),
        ("trainable_token_indices", json!([1, 1]), "must be ids that are listed once: `1`"),
        ("trainable_token_indices", json!({"norm": [1]}), "matches nothing: `norm`"),
        ("trainable_token_indices", json!("all"), "is not a list of token ids"),
        ("rank_pattern", json!({"q_proj": -1}), "does not map patterns to numbers"),
        ("alpha_pattern", json!([1]), "does not map patterns to numbers"),
        ("rank_pattern", json!({"(": 2}), "rank_pattern is not a supported regular expression"),
        ("lora_dropout", json!(2.0), "lora `dropout` must be 0 or more, and below 1"),
        ("r", json!(0), "lora `rank` must be"),
    ] {
        let mut changed = config.clone();
        changed[key] = value;
        write_config(&dir, &changed);
        let message = refusal(&dir);
        assert!(message.contains(expected), "{key}: {message}");
        // Whatever is wrong, its file is named, once.
        assert!(message.starts_with(&dir.display().to_string()), "{message}");
        assert_eq!(
            message.matches("adapter_config.json").count()
                + message.matches(ADAPTER_WEIGHTS).count(),
            1
        );
    }
    // PEFT ignores names and patterns without effect.
    for (key, value) in [
        ("target_modules", json!(["q_proj", "c_attn"])),
        ("rank_pattern", json!({"c_attn": 2})),
        ("layers_to_transform", json!([0, 1, 2])),
    ] {
        let mut changed = config.clone();
        changed[key] = value;
        write_config(&dir, &changed);
        load(tiny_llama(&device()), &dir).expect("loaded");
    }
}

#[test]
fn older_spellings_and_what_changes_nothing_are_read() {
    let out = tempfile::tempdir().expect("a directory");
    let dir = out.path().join("a");
    good(&dir);
    // As PEFT 0.3 wrote it.
    let old = json!({
        "base_model_name_or_path": "some/base", "bias": "none", "fan_in_fan_out": false,
        "inference_mode": true, "init_lora_weights": true, "lora_alpha": 6, "lora_dropout": 0.05,
        "modules_to_save": null, "peft_type": "LORA", "r": 3, "target_modules": ["q_proj"],
        "task_type": "CAUSAL_LM", "enable_lora": null, "merge_weights": false,
    });
    write_config(&dir, &old);
    let (adapted, peft) = load(tiny_llama(&device()), &dir).expect("loaded");
    assert_eq!((peft.lora.scale(), peft.lora.rslora, adapted.layers.len()), (2.0, false, 2));
    let mut config = read_config(&dir);
    config["init_lora_weights"] = json!("gaussian");
    config["fan_in_fan_out"] = json!(true);
    config["target_modules"] = json!(".*q_proj");
    config["lora_alpha"] = json!(1.5);
    config["use_dora"] = json!(false);
    config["loftq_config"] = json!({});
    config["peft_version"] = json!("9.9");
    write_config(&dir, &config);
    let peft = Peft::read(&dir).expect("read");
    assert_eq!(peft.lora.targets, Targets::Pattern(".*q_proj".to_owned()));
    assert_eq!(peft.lora.scale(), 0.5);
    load(tiny_llama(&device()), &dir).expect("loaded");
}

#[test]
fn settings_that_make_no_sense() {
    let out = tempfile::tempdir().expect("a directory");
    let dir = out.path().join("a");
    good(&dir);
    let config = read_config(&dir);
    for (key, value, expected) in [
        ("r", json!(0), "lora `rank` must be"),
        ("r", json!(-4), "`r` is not a whole number"),
        ("r", json!(1_u64 << 60), "lora `rank` must be"),
        ("r", json!(4.5), "`r` is not a whole number"),
        ("lora_alpha", json!("16"), "`lora_alpha` is not a number"),
        ("lora_alpha", json!(-1), "lora `alpha` must be"),
        ("lora_dropout", json!(1.0), "lora `dropout` must be"),
        ("use_rslora", json!("yes"), "`use_rslora` is neither"),
        ("target_modules", json!([1]), "`target_modules` is not a list of names"),
        ("target_modules", json!([]), "lora `target_modules` must be"),
        ("target_modules", json!("("), "not a supported regular expression"),
        ("target_modules", json!(["x_proj"]), "matches no layer of the model: `x_proj`"),
        ("peft_type", json!(null), "missing key `peft_type`"),
    ] {
        let mut changed = config.clone();
        changed[key] = value;
        write_config(&dir, &changed);
        let message = refusal(&dir);
        assert!(message.contains(expected), "{message}");
        let is_of_model = expected.contains("no layer of the model");
        assert!(is_of_model || message.contains(ADAPTER_CONFIG), "{message}");
    }
    for text in ["", "[]", "{", "\"x\"", &format!("{}1{}", "[".repeat(4000), "]".repeat(4000))] {
        fsio::write_atomic(dir.join(ADAPTER_CONFIG), text).expect("written");
        assert!(refusal(&dir).contains(ADAPTER_CONFIG));
    }
}

const A: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";

/// The good file's tensors, changed.
fn rewrite(dir: &Path, change: impl Fn(&mut Vec<(String, Vec<usize>, Vec<f32>)>)) {
    let mut tensors = Vec::new();
    for layer in 0..2 {
        for (factor, shape) in [("A", vec![3, 32]), ("B", vec![40, 3])] {
            let name = format!(
                "base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{factor}.weight"
            );
            let n = shape.iter().product();
            tensors.push((name, shape, vec![0.25; n]));
        }
    }
    change(&mut tensors);
    let weights = tensors.iter().map(|(name, shape, _)| (name.clone(), shape.clone()));
    let mut bytes = Vec::new();
    let mut writer =
        SafetensorsWriter::begin_weights(&mut bytes, weights, Dtype::F32).expect("a header");
    for (name, _, values) in &tensors {
        writer.weights(name, values).expect("a tensor");
    }
    writer.finish().expect("a file");
    fsio::write_atomic(dir.join(ADAPTER_WEIGHTS), bytes).expect("written");
}

#[test]
fn weights_without_a_gap_or_a_left_over() {
    let out = tempfile::tempdir().expect("a directory");
    let dir = out.path().join("a");
    good(&dir);
    rewrite(&dir, |_| ());
    load(tiny_llama(&device()), &dir).expect("loaded");
    rewrite(&dir, |tensors| drop(tensors.remove(0)));
    assert!(refusal(&dir).contains(&format!("tensor missing: `{A}`")));
    rewrite(&dir, |tensors| {
        tensors.push(("base_model.model.lm_head.weight".to_owned(), vec![1], vec![0.0]));
    });
    assert!(refusal(&dir).contains("absent from model or settings: `base_model.model.lm_head"));
    // An adapter called by another name matches nothing.
    rewrite(&dir, |tensors| {
        for tensor in tensors {
            tensor.0 = tensor.0.replace(".weight", ".default.weight");
        }
    });
    assert!(refusal(&dir).contains(&format!("tensor missing: `{A}` and 3 more")));
    rewrite(&dir, |tensors| tensors[0].1 = vec![32, 3]);
    assert!(refusal(&dir).contains("has shape [32, 3], not [3, 32]"));
}

#[test]
fn weights_that_are_damaged() {
    let out = tempfile::tempdir().expect("a directory");
    let dir = out.path().join("a");
    good(&dir);
    let path = dir.join(ADAPTER_WEIGHTS);
    let good_bytes = std::fs::read(&path).expect("a file");
    let write = |bytes: &[u8]| fsio::write_atomic(&path, bytes).expect("written");
    for end in [0, 7, 8, 100, good_bytes.len() - 1] {
        write(&good_bytes[..end]);
        assert!(refusal(&dir).contains(ADAPTER_WEIGHTS));
    }
    let mut nan = good_bytes.clone();
    let last = nan.len() - 4;
    nan[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    write(&nan);
    assert!(refusal(&dir).contains("holds NaN"));
    let header = String::from_utf8_lossy(&good_bytes).replacen("\"F32\"", "\"I32\"", 1);
    assert!(header.contains("I32"));
    let at = good_bytes.windows(5).position(|w| w == b"\"F32\"").expect("a format");
    let mut other = good_bytes.clone();
    other[at..at + 5].copy_from_slice(b"\"I32\"");
    write(&other);
    assert!(refusal(&dir).contains("is stored as `I32`"));
}

#[test]
fn directories_without_an_adapter() {
    let out = tempfile::tempdir().expect("a directory");
    let dir = out.path().join("a");
    assert!(refusal(&dir).ends_with("no adapter_config.json"));
    good(&dir);
    fsio::remove_file(dir.join(ADAPTER_WEIGHTS)).expect("removed");
    assert!(refusal(&dir).ends_with("no adapter_model.safetensors"));
    fsio::write_atomic(dir.join("adapter_model.bin"), "x").expect("written");
    let error = load(tiny_llama(&device()), &dir).expect_err("refused");
    assert!(error.hint().is_some_and(|hint| hint.contains("can run code")));
    // The base of another family.
    let other = out.path().join("b");
    good(&other);
    let error = load(tiny_gpt2(&device()), &other).expect_err("refused");
    assert!(error.hint().is_some_and(|hint| hint.contains("`c_attn`")), "{error}");
}
