//! Writing adapter_config.json with PEFT's keys; those that only newer versions know are left out where they are unset.
//! arch reads it.

use std::path::Path;

use arch::{
    AdapterError, AxisOrder, BiasTraining, LoraInit, ModelConfig, Peft, SCORE_HEADS,
    TrainableTokens,
};
use model::Adaptable;
use serde_json::{Map, Value, json};

use super::ADAPTER_CONFIG;
use crate::attach::layout_of;
use crate::{LoraConfig, Result, Targets};

/// Refuses a head that the model does not have.
pub(super) fn check_head<M: Adaptable>(peft: &Peft, model: &M, dir: &Path) -> Result<()> {
    if !peft.saves_head || model.own_head().is_some() {
        return Ok(());
    }
    Err(AdapterError::Unsupported {
        path: dir.join(ADAPTER_CONFIG),
        key: "modules_to_save".to_owned(),
        value: format!("{} on a language model", json!(SCORE_HEADS)),
    }
    .into())
}

/// The settings as PEFT writes them: keys sorted, two spaces, targets by their whole names.
pub(super) fn to_json<M: Adaptable>(
    model: &M,
    config: &LoraConfig,
    base: Option<&str>,
) -> Result<String> {
    let layout = layout_of(model, config)?;
    // PEFT writes the layers that it found, too.
    let found = layout.layers.iter().map(|layer| layer.name.as_str()).collect::<Vec<_>>();
    let all_linear = config.targets == Targets::AllLinear;
    let init = match config.init {
        LoraInit::Default => json!(true),
        LoraInit::Pissa => json!("pissa"),
        LoraInit::Olora => json!("olora"),
    };
    let bias = match config.bias {
        BiasTraining::None => "none",
        BiasTraining::All => "all",
        BiasTraining::LoraOnly => "lora_only",
    };
    let head = model.own_head().is_some();
    let heads = if head { SCORE_HEADS.as_slice() } else { &[] };
    let saved = config.modules_to_save.iter().map(String::as_str);
    let saved: Vec<&str> = saved.chain(heads.iter().copied()).collect();
    let alphas = config.alpha_pattern.iter().map(|(pattern, alpha)| (pattern, number(*alpha)));
    let ranks = config.rank_pattern.iter().map(|(pattern, rank)| (pattern, json!(rank)));
    let patterns = config.layers_pattern.as_slice();
    // Targets by their whole names are not filtered by block.
    let blocks = config.layers_to_transform.as_ref().filter(|_| !all_linear);
    let mut value = json!({
        "alpha_pattern": map(alphas),
        "base_model_name_or_path": base,
        "bias": bias,
        "exclude_modules": config.exclude_modules.as_ref().map(|excluded| names(excluded, &[])),
        "fan_in_fan_out": stores_in_out(model.config()),
        "inference_mode": true,
        "init_lora_weights": init,
        "layers_pattern": match patterns {
            _ if blocks.is_none() => Value::Null,
            [] => Value::Null,
            [pattern] => json!(pattern),
            patterns => json!(patterns),
        },
        "layers_to_transform": blocks,
        "lora_alpha": number(config.alpha),
        "lora_bias": config.lora_bias,
        "lora_dropout": config.dropout,
        "modules_to_save": Some(saved).filter(|saved| !saved.is_empty()),
        "peft_type": "LORA",
        "r": config.rank,
        "rank_pattern": map(ranks),
        "target_modules": names(&config.targets, &found),
        "task_type": if head { "SEQ_CLS" } else { "CAUSAL_LM" },
        "trainable_token_indices": tokens(&config.trainable_tokens),
        "use_dora": config.use_dora,
        "use_rslora": config.rslora,
    });
    if let Some(map) = value.as_object_mut() {
        // Older versions refuse keys that they do not know.
        map.retain(|key, value| !NEWER_KEYS.contains(&key.as_str()) || is_set(value));
    }
    Ok(format!("{value:#}"))
}

/// Keys that PEFT has learned since 0.10.
const NEWER_KEYS: [&str; 3] = ["exclude_modules", "lora_bias", "trainable_token_indices"];

fn is_set(value: &Value) -> bool {
    !matches!(value, Value::Null | Value::Bool(false))
}

fn names(targets: &Targets, found: &[&str]) -> Value {
    match targets {
        Targets::Names(names) => json!(names),
        Targets::Pattern(pattern) => json!(pattern),
        Targets::AllLinear | Targets::FamilyDefault => json!(found),
    }
}

fn map<'a>(entries: impl Iterator<Item = (&'a String, Value)>) -> Value {
    Value::Object(entries.map(|(pattern, value)| (pattern.clone(), value)).collect())
}

/// A whole number without a fraction, as Python writes it.
fn number(value: f64) -> Value {
    let whole = value.fract() == 0.0 && value.abs() < 1e15;
    if whole { json!(value as u64) } else { json!(value) }
}

fn tokens(tokens: &[TrainableTokens]) -> Value {
    match tokens {
        [] => Value::Null,
        [TrainableTokens { module: None, ids }] => json!(ids),
        tokens => {
            let entry = |tokens: &TrainableTokens| {
                let module = tokens.module.clone().unwrap_or_else(|| "embed_tokens".to_owned());
                (module, json!(tokens.ids))
            };
            Value::Object(tokens.iter().map(entry).collect::<Map<_, _>>())
        }
    }
}

/// Whether weights are stored as `[in, out]`, which PEFT calls `fan_in_fan_out`.
fn stores_in_out(config: &ModelConfig) -> bool {
    config.adaptable_layers().iter().any(|layer| layer.axis_order == AxisOrder::InOut)
}
