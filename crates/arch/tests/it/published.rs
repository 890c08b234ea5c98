//! Configurations written by transformers and published on the Hub open, or are refused by a key that changes the forward
//! pass.

use std::path::{Path, PathBuf};

use arch::{Error, Family, ModelInfo};
use serde_json::{Map, Value, json};

use crate::{config, json as parse, patched};

/// `to_dict()` of transformers' configuration classes, by version and class. "llama read from GGUF" has the keys that
/// transformers adds when it reads a GGUF file. Made with
/// `json.dumps({transformers.__version__: {"llama": LlamaConfig().to_dict(), …}})`.
fn transformers_configs() -> Vec<(String, Map<String, Value>)> {
    let all = parse(include_str!("configs/transformers.json"));
    let versions = all.as_object().expect("versions");
    let of_version = |(version, classes): (&String, &Value)| {
        let classes = classes.as_object().expect("classes").clone();
        let name = |class: &str| format!("{class} of transformers {version}");
        classes
            .into_iter()
            .map(|(class, config)| (name(&class), config.as_object().expect("keys").clone()))
            .collect::<Vec<_>>()
    };
    versions.iter().flat_map(of_version).collect()
}

fn read(config: Map<String, Value>, name: &str) -> arch::Result<ModelInfo> {
    ModelInfo::from_json(&Value::Object(config), Path::new(name))
}

#[test]
fn configs_of_transformers_open_without_a_warning() {
    let mut n_families = vec![0; Family::ALL.len()];
    for (name, mut config) in transformers_configs() {
        let model_type = config["model_type"].as_str().expect("a string").to_owned();
        if model_type.is_empty() {
            continue;
        }
        // The base of RoPE is a required key; 4.x writes it at the top level.
        let info = read(config.clone(), &name).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(info.warnings, [""; 0], "{name}");
        assert_eq!(info.config.family().name(), model_type);
        let family = Family::ALL.iter().position(|family| family.name() == model_type);
        n_families[family.expect("a family")] += 1;
        config.insert("surprise".to_owned(), json!(1));
        assert_eq!(read(config, &name).expect("readable").warnings.len(), 1, "{name}");
    }
    assert!(n_families.iter().all(|&n| n >= 2), "{n_families:?}");
}

#[test]
fn keys_of_gguf_files_are_known() {
    let from_gguf = |(name, _): &(String, Map<String, Value>)| name.contains("GGUF");
    let mut n_configs = 0;
    for (name, config) in transformers_configs().into_iter().filter(from_gguf) {
        assert_eq!(config["_model_name_or_path"], json!("stories"));
        assert_eq!(config["unk_token_id"], json!(0));
        let info = read(config, &name).expect("readable");
        assert!(info.warnings.is_empty() && info.notes.is_empty(), "{info:?}");
        n_configs += 1;
    }
    assert_eq!(n_configs, 2);
}

/// Every attribute of the base class, with any value: ignored, or refused by its name.
#[test]
fn attributes_of_the_base_class_are_known() {
    let values =
        [json!(null), json!(false), json!(true), json!(2), json!("x"), json!([1]), json!({"a": 1})];
    let mut n_keys = 0;
    for (name, base) in transformers_configs() {
        if !name.starts_with("PretrainedConfig") {
            continue;
        }
        for text in [config!("llama.json"), config!("gpt2.json")] {
            for (key, default) in &base {
                for value in values.iter().chain([default]) {
                    // The family itself is another test's subject.
                    if key == "model_type" {
                        continue;
                    }
                    let config = patched(text, &json!({ (key.clone()): value }));
                    match ModelInfo::from_json(&config, Path::new("x")) {
                        Ok(info) => assert_eq!(info.warnings, [""; 0], "{key}: {value}"),
                        Err(error) => {
                            let text = error.to_string();
                            assert!(text.contains(&format!("`{key}`")), "{key}: {text}");
                            assert_ne!(value, default, "{name}: {text}");
                        }
                    }
                    n_keys += 1;
                }
            }
        }
    }
    assert!(n_keys > 500, "{n_keys}");
}

#[test]
fn private_keys_are_ignored_everywhere() {
    let rope = json!({ "rope_type": "default", "rope_theta": 1e4, "_note": 1 });
    let patch = json!({ "_anything": { "a": 1 }, "rope_parameters": rope });
    let value = patched(config!("llama.json"), &patch);
    let info = ModelInfo::from_json(&value, Path::new("x")).expect("readable");
    assert!(info.warnings.is_empty(), "{:?}", info.warnings);
}

#[test]
fn unknown_keys_are_warnings() {
    let rope = json!({ "rope_type": "default", "rope_theta": 1e4, "factor": 2.0 });
    let patch = json!({ "tokenizer": "qwen2", "rope_parameters": rope, "absent": null });
    let value = patched(config!("llama.json"), &patch);
    let info = ModelInfo::from_json(&value, Path::new("m/config.json")).expect("readable");
    assert_eq!(
        info.warnings,
        [
            "m/config.json: unknown key `rope_parameters.factor` is ignored: `2.0`",
            "m/config.json: unknown key `tokenizer` is ignored: `qwen2`",
        ]
    );
    assert!(info.notes.is_empty());
}

/// The directory of published configurations, if it is on this machine.
fn published() -> Option<PathBuf> {
    let data = std::env::var_os("TEMPER_DATA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")),
        PathBuf::from,
    );
    let configs = data.join("models/configs");
    if !configs.exists() {
        eprintln!("skipped: no {}; set TEMPER_DATA to the data directory", configs.display());
        return None;
    }
    Some(configs)
}

#[test]
fn published_configs_open_or_are_refused_by_name() {
    let Some(configs) = published() else { return };
    let mut n_opened = 0;
    for entry in std::fs::read_dir(&configs).expect("a directory").flatten() {
        let path = entry.path();
        let value = parse(&std::fs::read_to_string(&path).expect("a listed file"));
        let supported = Family::ALL.iter().any(|family| value["model_type"] == family.name());
        match ModelInfo::from_json(&value, &path) {
            Ok(_) => n_opened += 1,
            Err(Error::Unsupported { key, .. }) if supported => {
                assert!(!value[&key].is_null(), "{}: {key}", path.display());
            }
            Err(Error::UnknownFamily { found, .. }) => {
                assert!(!supported && value["model_type"] == found.as_str(), "{}", path.display());
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(n_opened >= 3, "{n_opened}");
}

#[test]
fn sizes_of_published_models() {
    let Some(configs) = published() else { return };
    let read = |name: &str| {
        let text = std::fs::read_to_string(configs.join(name)).expect("a listed file");
        ModelInfo::from_json(&parse(&text), Path::new(name)).expect("readable")
    };
    let gpt2 = read("gpt2.json");
    assert_eq!(gpt2.config.n_parameters(), 354_823_168);
    assert_eq!((gpt2.notes.len(), gpt2.warnings.len()), (3, 0));
    let llama = read("open-instruct-tokenizer-config.json");
    assert_eq!(llama.config.n_parameters(), 8_030_326_784);
    assert_eq!(llama.token_ids.eos, [128_001]);
    let old = read("llama-fake.json");
    assert_eq!(old.config.max_positions(), 2048);
    let note = "rope_theta is absent and set to 10000, the constant of transformers before 4.33";
    assert_eq!(old.notes, [note]);
}

/// PEFT configurations of its method comparison: every type but LoRA is refused by its name. Those of LoRA leave the choice
/// of target modules to PEFT.
#[test]
fn published_adapters_are_refused_by_name() {
    let Some(configs) = published() else { return };
    let models = configs.with_file_name("peft-configs");
    let work = tempfile::tempdir().expect("a directory");
    let read = |text: &str| {
        fsio::write_atomic(work.path().join(arch::ADAPTER_CONFIG), text).expect("a file");
        arch::Peft::read(work.path()).map(|_| ()).map_err(|error| error.to_string())
    };
    let (mut n_lora, mut n_others) = (0, 0);
    for entry in std::fs::read_dir(&models).expect("a directory").flatten() {
        let path = entry.path();
        let text = std::fs::read_to_string(&path).expect("a listed file");
        let found = read(&text);
        let config = parse(&text);
        if config["peft_type"] != "LORA" {
            let error = found.expect_err("refused");
            let named = format!("not supported: `peft_type` = {}", config["peft_type"]);
            assert!(error.contains(&named), "{}: {error}", path.display());
            n_others += 1;
            continue;
        }
        assert!(config["target_modules"].is_null(), "{}", path.display());
        match found {
            Ok(()) => n_lora += 1,
            // Variants of LoRA that are not supported.
            Err(error) => assert!(
                ["`init_lora_weights`", "`kasa_config`"].iter().any(|key| error.contains(key)),
                "{error}"
            ),
        }
    }
    assert!(n_lora >= 3 && n_others >= 14, "{n_lora} of LoRA, {n_others} others");
    // A trained adapter of another project.
    arch::Peft::read(&models.with_file_name("peft-adapter-sift")).expect("an adapter");
}

/// Configurations that were refused once for a key that changes nothing; they are outside of the repository.
#[test]
fn configurations_with_harmless_keys_open() {
    let Some(configs) = published() else { return };
    let keys = configs.join("../../../field/turn2-interop/config-keys");
    let Ok(entries) = std::fs::read_dir(&keys) else {
        eprintln!("skipped: no {}", keys.display());
        return;
    };
    let mut n_opened = 0;
    for dir in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
        let info = ModelInfo::read(&dir).unwrap_or_else(|error| panic!("{error}"));
        assert!(info.warnings.is_empty(), "{:?}", info.warnings);
        n_opened += 1;
    }
    assert!(n_opened >= 4, "{n_opened}");
}
