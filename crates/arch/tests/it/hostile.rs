//! Malformed configurations: every key misspelt, every value replaced. Nothing panics and nothing is dropped silently.

use std::path::Path;

use arch::{HeadOutput, ModelInfo, TrainingShape};
use serde_json::{Map, Value, json};

use crate::{config, json as parse};

const CONFIGS: [&str; 4] = [
    config!("llama-tied-rope3.json"),
    config!("llama-bias-headdim.legacy.json"),
    config!("llama-score.json"),
    config!("gpt2.json"),
];

fn object(text: &str) -> Map<String, Value> {
    let Value::Object(map) = parse(text) else { panic!("not an object: {text}") };
    map
}

#[test]
fn a_misspelt_key_is_never_silent() {
    for text in CONFIGS {
        let good = object(text);
        for key in good.keys().filter(|key| !good[*key].is_null()) {
            let renamed: Map<String, Value> = good
                .iter()
                .map(|(k, v)| (if k == key { format!("{k}x") } else { k.clone() }, v.clone()))
                .collect();
            // An error where the key is required, otherwise a warning that names it.
            if let Ok(info) = ModelInfo::from_json(&Value::Object(renamed), Path::new("x")) {
                let name = format!("`{key}x`");
                let is_named = info.warnings.iter().any(|warning| warning.contains(&name));
                assert!(is_named, "`{key}` misspelt: {:?}", info.warnings);
            }
        }
    }
}

#[test]
fn no_value_makes_it_panic() {
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(1),
        json!(-1),
        json!(3),
        json!(0.5),
        json!(1e300),
        json!(1e-300),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1_u64 << 20),
        json!(1_u64 << 24),
        json!(""),
        json!("\u{0}🦜"),
        json!([]),
        json!([[1]]),
        json!([-1, 7, "a"]),
        json!({}),
        json!({ "rope_type": "yarn", "factor": 1e6, "rope_theta": 1.000_001, "beta_slow": 1e-6,
                "beta_fast": 1e6, "mscale": 0.0, "mscale_all_dim": 1e-6, "truncate": false }),
        json!({ "type": "llama3", "factor": 1.0, "low_freq_factor": 1e-6, "high_freq_factor": 1e6,
                "rope_theta": 1e15, "original_max_position_embeddings": 1 }),
    ];
    let mut n_accepted = 0;
    for text in CONFIGS {
        let good = object(text);
        for key in good.keys() {
            for value in &values {
                let mut map = good.clone();
                map.insert(key.clone(), value.clone());
                match ModelInfo::from_json(&Value::Object(map), Path::new("x")) {
                    Ok(info) => {
                        use_all(&info);
                        n_accepted += 1;
                    }
                    Err(error) => assert!(error.to_string().len() < 500, "{error}"),
                }
            }
        }
    }
    assert!(n_accepted > 100, "ignored keys take any value: {n_accepted}");
}

/// Calls every formula on an accepted configuration.
fn use_all(info: &ModelInfo) {
    let config = &info.config;
    let shape = TrainingShape { rows: 1 << 20, sequence_length: config.max_positions() };
    assert!(config.training_memory(shape, crate::costs::FUSED).peak(2) > 0);
    assert!(config.training_flops(1 << 40, 1 << 50, HeadOutput::Scores).is_finite());
    assert!(config.n_parameters() > 0);
    if let arch::ModelConfig::Llama(llama) = config {
        let table = llama.rope_table(3);
        assert!(table.cos.iter().chain(&table.sin).all(|value| value.is_finite()));
    }
}
