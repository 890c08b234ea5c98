//! Reference models written as GGUF and read again: config.json and every weight come back.

use std::path::{Path, PathBuf};

use gguf::{FileType, ModelExport, ModelFile, TokenizerSource};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Vectors, file, golden};

/// The key whose value is 1 in files that leave it out.
const ONE: &str = "partial_rotary_factor";
/// Keys of config.json that decide the numbers, with their values where a file leaves them out.
const KEYS: &[(&str, Value)] = &[
    ("model_type", Value::Null),
    ("vocab_size", Value::Null),
    ("tie_word_embeddings", Value::Bool(false)),
    ("hidden_size", Value::Null),
    ("intermediate_size", Value::Null),
    ("num_hidden_layers", Value::Null),
    ("num_attention_heads", Value::Null),
    ("num_key_value_heads", Value::Null),
    ("max_position_embeddings", Value::Null),
    ("rms_norm_eps", Value::Null),
    ("rope_theta", Value::Null),
    ("attention_bias", Value::Bool(false)),
    ("mlp_bias", Value::Bool(false)),
    ("n_embd", Value::Null),
    ("n_layer", Value::Null),
    ("n_head", Value::Null),
    ("n_positions", Value::Null),
    ("layer_norm_epsilon", Value::Null),
    ("sliding_window", Value::Null),
    ("attn_logit_softcapping", Value::Null),
    ("final_logit_softcapping", Value::Null),
    ("rope_local_base_freq", Value::Null),
    ("num_experts_per_tok", Value::Null),
    ("num_local_experts", Value::Null),
    ("num_experts", Value::Null),
    ("moe_intermediate_size", Value::Null),
    ("attention_multiplier", Value::Null),
    ("embedding_multiplier", Value::Null),
    ("residual_multiplier", Value::Null),
    ("logits_scaling", Value::Null),
    ("original_max_position_embeddings", Value::Null),
    (ONE, Value::Null),
];

fn read_json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// A byte-level tokenizer of 256 tokens and two special ones.
pub(crate) fn byte_tokenizer() -> Value {
    tokenizer_of(256)
}

/// A byte-level tokenizer of `n` tokens and two special ones.
fn tokenizer_of(n: u32) -> Value {
    let vocab: serde_json::Map<String, Value> =
        (0..n).map(|id| (char::from_u32(0x100 + id).unwrap().to_string(), json!(id))).collect();
    json!({
        "added_tokens": [
            { "id": n, "content": "<|endoftext|>", "special": true },
            { "id": n + 1, "content": "<|im_end|>", "special": true },
        ],
        "normalizer": null,
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false },
        "model": { "type": "BPE", "vocab": vocab, "merges": [] },
    })
}

pub(crate) fn source(json: &Value) -> TokenizerSource<'_> {
    let id = |idx: usize| json["added_tokens"][idx]["id"].as_u64().map(|id| id as u32);
    TokenizerSource {
        json,
        bos: id(0),
        eos: id(0),
        end_of_turn: id(1),
        pad: None,
        adds_bos: false,
        adds_eos: false,
        template: Some("{{ messages }}"),
    }
}

/// Weights and shapes of a directory with one weight file.
pub(crate) struct Model {
    dir: PathBuf,
    pub(crate) config: Value,
    pub(crate) vectors: Vectors,
    pub(crate) shapes: Vec<(String, Vec<usize>)>,
}

impl Model {
    pub(crate) fn open(dir: &Path) -> Self {
        let (vectors, shapes) = Vectors::read(&dir.join("model.safetensors"));
        Self { dir: dir.to_owned(), config: read_json(&dir.join("config.json")), vectors, shapes }
    }

    /// The experts of a tensor one after the other, as models visit them.
    fn ordered(&self) -> Vec<(String, Vec<usize>)> {
        let mut shapes = self.shapes.clone();
        let key = |name: &str| {
            let Some((before, rest)) = name.split_once(".experts.") else {
                return (name.to_owned(), 0);
            };
            let (expert, part) = rest.split_once('.').unwrap();
            (format!("{before}.experts.{part}"), expert.parse::<usize>().unwrap())
        };
        shapes.sort_by_key(|(name, _)| key(name));
        shapes
    }

    /// A tokenizer for which the model has room.
    pub(crate) fn tokenizer(&self) -> Value {
        let vocab_size = self.config["vocab_size"].as_u64().unwrap() as u32;
        tokenizer_of(vocab_size.saturating_sub(2).min(256))
    }

    pub(crate) fn write(&self, file_type: FileType) -> (TempDir, PathBuf) {
        let tokenizer = self.tokenizer();
        let shapes = self.ordered();
        let export =
            ModelExport::new(&self.config, &source(&tokenizer), &shapes, file_type, "test")
                .unwrap_or_else(|e| panic!("{}: {e}", self.dir.display()));
        let mut bytes = Vec::new();
        let mut writer = export.begin(&mut bytes).unwrap();
        for (name, _) in &shapes {
            writer.tensor(name, &self.vectors.floats(name)).unwrap();
        }
        writer.finish().unwrap();
        file(&bytes)
    }
}

/// RoPE's section in one spelling.
fn scaling(config: &Value) -> Value {
    let mut section = config["rope_scaling"].clone();
    if !section.is_object() {
        return Value::Null;
    }
    let map = section.as_object_mut().unwrap();
    let kind = map.remove("type").or(map.remove("rope_type")).unwrap_or(json!("default"));
    map.insert("rope_type".to_owned(), kind.clone());
    let original = &config["original_max_position_embeddings"];
    if !original.is_null() {
        map.insert("original_max_position_embeddings".to_owned(), original.clone());
    }
    if kind == "yarn" {
        map.entry("beta_fast").or_insert(json!(32.0));
        map.entry("beta_slow").or_insert(json!(1.0));
    }
    // The same as the context length divided by the original one.
    if kind == "longrope" {
        map.remove("factor");
    }
    if kind == "default" { Value::Null } else { section }
}

/// Numbers, whether they are spelled 1 or 1.0.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

fn check(dir: &Path) {
    let model = Model::open(dir);
    let (_dir, path) = model.write(FileType::F32);
    let opened = ModelFile::open(&path).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let (found, mut expected) = (opened.config(), read_json(&dir.join("config.legacy.json")));
    // llama.cpp has no windows in these architectures: the context ends where the window does.
    if ["mistral-window", "qwen2-window", "phi3"].iter().any(|name| dir.ends_with(name)) {
        expected["max_position_embeddings"] = expected["sliding_window"].clone();
    }
    let has_windows = gemma(&expected) || expected["model_type"] == "olmo3";
    if expected["model_type"] != "phi3" && !has_windows {
        expected["sliding_window"] = Value::Null;
    }
    if has_windows && !expected["layer_types"].is_null() {
        assert_eq!(found["layer_types"], expected["layer_types"], "{}", dir.display());
    }
    // transformers 5 has one key for the number of experts of all families.
    if expected["model_type"] == "qwen3_moe" {
        expected["num_experts"] = expected["num_local_experts"].take();
    }
    if expected["model_type"] == "mistral" {
        expected["model_type"] = json!("llama");
    }
    for (key, default) in KEYS {
        let default = if *key == ONE { json!(1.0) } else { default.clone() };
        let or_default =
            |value: &Value| if value.is_null() { default.clone() } else { value.clone() };
        let (found, expected) = (or_default(&found[*key]), or_default(&expected[*key]));
        assert!(same(&found, &expected), "{}: {key}: {found} for {expected}", dir.display());
    }
    let (found_scaling, expected_scaling) = (scaling(found), scaling(&expected));
    assert!(
        same(&found_scaling, &expected_scaling),
        "{}: {found_scaling} for {expected_scaling}",
        dir.display()
    );
    let special = &model.tokenizer()["added_tokens"];
    assert_eq!(found["eos_token_id"], json!([special[0]["id"], special[1]["id"]]));

    let names: Vec<(String, Vec<usize>)> =
        opened.tensors().map(|(name, shape)| (name.to_owned(), shape.to_vec())).collect();
    assert_eq!(names, model.shapes, "{}", dir.display());
    let gemma = gemma(&expected);
    for (name, _) in &model.shapes {
        let (found, expected) = (opened.read(name).unwrap(), model.vectors.floats(name));
        // Queries of gemma take up the difference between the scales of scores.
        if gemma && (name.ends_with(".q_norm.weight") || name.ends_with(".q_proj.weight")) {
            continue;
        }
        // 1 was added to norms and taken away.
        let tolerance = if gemma { 2e-7 } else { 0.0 };
        let differs = |(a, b): (&f32, &f32)| (a - b).abs() > tolerance;
        assert!(!found.iter().zip(&expected).any(differs), "{} {name}", dir.display());
    }
}

fn gemma(config: &Value) -> bool {
    config["model_type"].as_str().unwrap().starts_with("gemma")
}

/// Models whose weights are one file.
fn models_in(root: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root).unwrap_or_else(|e| panic!("{}: {e}", root.display()));
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|dir| dir.join("model.safetensors").exists())
        .filter(|dir| dir.join("config.legacy.json").exists())
        .collect();
    found.sort();
    found
}

#[test]
fn committed_models_come_back() {
    let names = [
        "llama",
        "llama-bias-headdim",
        "llama-mlp-bias",
        "llama-tied-rope3",
        "qwen3",
        "qwen2_moe",
        "olmo2",
        "olmo3",
    ];
    let models = names.map(|name| golden().join("models").join(name));
    for dir in &models {
        check(dir);
    }
}

#[test]
fn shared_models_come_back() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../../shared/golden/models"));
    if !root.exists() {
        println!("skipped: no {}", root.display());
        return;
    }
    // Its layers without RoPE are others than llama.cpp's.
    let (refused, others): (Vec<PathBuf>, Vec<PathBuf>) =
        models_in(root).into_iter().partition(|dir| dir.ends_with("smollm3"));
    for dir in &others {
        check(dir);
    }
    for dir in refused {
        let (model, tokenizer) = (Model::open(&dir), byte_tokenizer());
        let export =
            ModelExport::new(&model.config, &source(&tokenizer), &model.shapes, FileType::F32, "");
        assert!(export.unwrap_err().to_string().contains("`no_rope_layers` = [1,0]"));
    }
}

/// The file was made by the `gguf` package (tests/interop/make_reference_gguf.py).
#[test]
fn a_file_of_the_gguf_package_is_the_model_it_was_made_of() {
    let model = Model::open(&golden().join("models/llama-tied-rope3"));
    let path = golden().join("gguf/llama.gguf");
    let opened = ModelFile::open(&path).unwrap();
    let expected = read_json(&model.dir.join("config.legacy.json"));
    for key in ["vocab_size", "hidden_size", "num_key_value_heads", "rms_norm_eps", "rope_theta"] {
        assert!(same(&opened.config()[key], &expected[key]), "{key}");
    }
    assert!(same(&scaling(opened.config()), &scaling(&expected)), "{}", scaling(opened.config()));
    let shapes: Vec<(String, Vec<usize>)> =
        opened.tensors().map(|(name, shape)| (name.to_owned(), shape.to_vec())).collect();
    assert_eq!(shapes, model.shapes);
    for (name, _) in &shapes {
        assert_eq!(opened.read(name).unwrap(), model.vectors.floats(name), "{name}");
    }
    let tokenizer = gguf::TokenizerFile::open(&path).unwrap();
    let json: Value = serde_json::from_str(&tokenizer.tokenizer_json().unwrap().unwrap()).unwrap();
    assert_eq!(json["model"]["vocab"].as_object().unwrap().len(), 259);
    assert_eq!(json["model"]["merges"], json!([["Ġ", "t"]]));
    assert_eq!(json["pre_tokenizer"]["pretokenizers"][0]["type"], "Digits");
    assert_eq!(json["post_processor"]["single"][0]["SpecialToken"]["id"], "<|endoftext|>");
    assert_eq!(tokenizer.token_ids().unwrap()["eos_token_id"], json!([257, 256]));
}

#[test]
fn formats_follow_the_kind_of_file() {
    let model = Model::open(&golden().join("models/llama"));
    for (file_type, expected) in [
        (FileType::F32, "F32"),
        (FileType::F16, "F16"),
        (FileType::Bf16, "BF16"),
        (FileType::Q8_0, "Q8_0"),
        (FileType::Q4_0, "Q4_0"),
        // 64 columns are no whole super-block.
        (FileType::Q4KM, "Q5_0"),
    ] {
        let (_dir, path) = model.write(file_type);
        let opened = ModelFile::open(&path).unwrap();
        let stored = |name: &str| opened.stored_as(name).unwrap().name();
        assert_eq!(stored("model.layers.0.self_attn.q_proj.weight"), expected);
        assert_eq!(stored("model.norm.weight"), "F32");
        let largest = model.vectors.floats("lm_head.weight");
        let found = opened.read("lm_head.weight").unwrap();
        for (a, b) in found.iter().zip(&largest) {
            assert!((a - b).abs() < 0.1, "{file_type}: {a} for {b}");
        }
    }
}

#[test]
fn models_without_a_counterpart_are_refused() {
    let model = Model::open(&golden().join("models/llama"));
    let tokenizer = byte_tokenizer();
    let refused = |key: &str, value: Value| {
        let mut config = model.config.clone();
        config[key] = value;
        let export =
            ModelExport::new(&config, &source(&tokenizer), &model.shapes, FileType::F32, "test");
        export.unwrap_err().to_string()
    };
    let prefix = "cannot be written as GGUF: ";
    assert!(refused("model_type", json!("t5")).starts_with(&format!("{prefix}family `t5`")));
    assert_eq!(
        refused("rope_parameters", json!({ "rope_type": "dynamic", "factor": 2.0 })),
        format!("{prefix}RoPE scaling `dynamic` with `llama` has no counterpart in llama.cpp")
    );
    assert_eq!(
        refused("partial_rotary_factor", json!(0.5)),
        format!("{prefix}`partial_rotary_factor` = 0.5: `llama` rotates whole heads")
    );
    let activation = refused("hidden_act", json!("gelu"));
    assert!(activation.starts_with(&format!("{prefix}`hidden_act`")), "{activation}");
    assert_eq!(
        refused("vocab_size", json!(200)),
        format!("{prefix}token `\u{1c8}` has no row among 200 embeddings")
    );
}
