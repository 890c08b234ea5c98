//! Writing adapter_config.json with the keys that every PEFT since 0.8 reads. arch reads it.

use std::path::Path;

use arch::{AdapterError, AxisOrder, ModelConfig, Peft, SCORE_HEADS};
use model::Adaptable;
use serde_json::json;

use super::ADAPTER_CONFIG;
use crate::method::is_adapter_tensor;
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
    config.check()?;
    let names = model::parameter_names(model);
    let layers = names.iter().filter(|name| is_adapter_tensor(name));
    let layers = layers.filter_map(|name| name.strip_suffix(".lora_A.weight"));
    let targets = match &config.targets {
        Targets::Names(names) => json!(names),
        Targets::Pattern(pattern) => json!(pattern),
        // PEFT writes the layers that it found, too.
        Targets::AllLinear => json!(layers.collect::<Vec<_>>()),
    };
    let whole = config.alpha.fract() == 0.0 && config.alpha < 1e15;
    let alpha = if whole { json!(config.alpha as u64) } else { json!(config.alpha) };
    let head = model.own_head().is_some();
    let value = json!({
        "alpha_pattern": {},
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": stores_in_out(model.config()),
        "inference_mode": true,
        "init_lora_weights": true,
        "lora_alpha": alpha,
        "lora_dropout": config.dropout,
        "modules_to_save": head.then_some(SCORE_HEADS),
        "peft_type": "LORA",
        "r": config.rank,
        "rank_pattern": {},
        "target_modules": targets,
        "task_type": if head { "SEQ_CLS" } else { "CAUSAL_LM" },
        "use_dora": false,
        "use_rslora": config.rslora,
    });
    Ok(format!("{value:#}"))
}

/// Whether weights are stored as `[in, out]`, which PEFT calls `fan_in_fan_out`.
fn stores_in_out(config: &ModelConfig) -> bool {
    config.adaptable_layers().iter().any(|layer| layer.axis_order == AxisOrder::InOut)
}
