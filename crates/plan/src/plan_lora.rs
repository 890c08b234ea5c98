//! Plans an adapter: its configuration, its layers, and the adapter that it continues. Opens no weights.

use arch::{
    AdapterError, BiasTraining, LoraConfig, LoraInit, ModelConfig, Peft, Targets, TrainableTokens,
};
use hub_local::Need;
use recipe::{BaseDtype, Loaded, LoraBias, LoraKeys};

use crate::base::{is_adapter, packed_base_dtype};
use crate::locate::MODEL_DIR;
use crate::stage::{LoraPlan, Start};
use crate::stage_plan::StagePlan;
use crate::{Error, Paths, Result};

/// Default rank.
const RANK: usize = 16;

/// Plans the adapter of `keys`, at `path` in the recipe, for a model with configuration `config`; `is_scalar` if the model
/// has a score in place of the logits.
pub(crate) fn plan_lora(
    loaded: &Loaded,
    paths: &Paths,
    path: &str,
    keys: &LoraKeys,
    config: &ModelConfig,
    is_scalar: bool,
    earlier: &[StagePlan],
) -> Result<LoraPlan> {
    let (lora, adapter, packed) = match &keys.adapter {
        None => (fresh(keys), None, None),
        Some(name) => {
            let (lora, start, dtype) = existing(loaded, paths, path, name, earlier)?;
            (lora, Some(start), dtype)
        }
    };
    let refused = |error: AdapterError| {
        let key = if adapter.is_some() { "adapter" } else { key_of(&error, keys) };
        let (text, hint) = (error.to_string(), error.hint());
        Error::Recipe(loaded.spans.error(&format!("{path}.{key}"), text, "", hint))
    };
    let layout = if is_scalar { lora.scalar_layout(config) } else { lora.layout(config) };
    let layout = layout.map_err(|error| {
        refused(match &adapter {
            Some(Start::Directory(dir)) => error.in_config_of(dir),
            Some(Start::Stage(_) | Start::Fresh) | None => error,
        })
    })?;
    if adapter.is_none() {
        lora.check_use(&layout, config).map_err(refused)?;
    }
    // An adapter is trained on as it was before, unless the recipe has another type.
    let base_dtype = keys.base_dtype.or(packed).unwrap_or_default();
    Ok(LoraPlan { config: lora, layout, adapter, base_dtype })
}

/// The key of a recipe that an error is about.
fn key_of(error: &AdapterError, keys: &LoraKeys) -> &'static str {
    let targets = if keys.target_pattern.is_some() { "target_pattern" } else { "target_modules" };
    match error {
        AdapterError::InFile { source, .. } => key_of(source, keys),
        AdapterError::OutOfRange { key, .. }
        | AdapterError::Conflict { key, .. }
        | AdapterError::Unused { key, .. }
        | AdapterError::NotForLayer { key, .. } => key,
        AdapterError::Pattern { key: "exclude_modules", .. } => "exclude_pattern",
        AdapterError::Pattern { key, .. } if *key != "target_modules" => key,
        AdapterError::Tied { .. } | AdapterError::Twice { .. } => "trainable_token_indices",
        AdapterError::File(_)
        | AdapterError::Unsupported { .. }
        | AdapterError::Malformed { .. }
        | AdapterError::NotAnAdapter { .. }
        | AdapterError::NoSuchTarget { .. }
        | AdapterError::NoDefaultTargets { .. }
        | AdapterError::NotALayer { .. }
        | AdapterError::Pattern { .. } => targets,
    }
}

fn fresh(keys: &LoraKeys) -> LoraConfig {
    let rank = keys.rank.unwrap_or(RANK);
    let targets = match (&keys.target_pattern, &keys.target_modules) {
        (Some(pattern), _) => Targets::Pattern(pattern.clone()),
        (None, Some(names)) if names.as_slice() != [LoraKeys::ALL_LINEAR] => {
            Targets::Names(names.clone())
        }
        (None, _) => Targets::AllLinear,
    };
    let excluded = keys.exclude_modules.clone().map(Targets::Names);
    let tokens = keys.trainable_token_indices.clone();
    LoraConfig {
        rank,
        alpha: keys.alpha.unwrap_or(2.0 * rank as f64),
        dropout: keys.dropout.unwrap_or(0.0),
        rslora: keys.rslora.unwrap_or(false),
        targets,
        use_dora: keys.use_dora.unwrap_or(false),
        lora_bias: keys.lora_bias.unwrap_or(false),
        init: match keys.init.unwrap_or_default() {
            recipe::LoraInit::Default => LoraInit::Default,
            recipe::LoraInit::Pissa => LoraInit::Pissa,
            recipe::LoraInit::Olora => LoraInit::Olora,
        },
        bias: match keys.bias.unwrap_or_default() {
            LoraBias::None => BiasTraining::None,
            LoraBias::All => BiasTraining::All,
            LoraBias::LoraOnly => BiasTraining::LoraOnly,
        },
        rank_pattern: keys.rank_pattern.clone().unwrap_or_default().into_iter().collect(),
        alpha_pattern: keys.alpha_pattern.clone().unwrap_or_default().into_iter().collect(),
        layers_to_transform: keys.layers_to_transform.clone(),
        layers_pattern: Vec::new(),
        exclude_modules: excluded.or(keys.exclude_pattern.clone().map(Targets::Pattern)),
        modules_to_save: keys.modules_to_save.clone().unwrap_or_default(),
        trainable_tokens: tokens
            .map(|ids| TrainableTokens { module: None, ids })
            .into_iter()
            .collect(),
    }
}

/// Configuration of an existing adapter, or of one that an earlier stage will train.
fn existing(
    loaded: &Loaded,
    paths: &Paths,
    path: &str,
    name: &str,
    earlier: &[StagePlan],
) -> Result<(LoraConfig, Start, Option<BaseDtype>)> {
    if let Some(stage) = earlier.iter().find(|stage| stage.name == name) {
        return match &stage.lora {
            Some(lora) => {
                Ok((lora.config.clone(), Start::Stage(name.to_owned()), Some(lora.base_dtype)))
            }
            None => Err(Error::Recipe(loaded.spans.error(
                &format!("{path}.adapter"),
                format!("[{name}] trains all weights and has no adapter to continue"),
                "not trained with `lora`",
                Some("remove `adapter` to train a new one".to_owned()),
            ))),
        };
    }
    let given = paths.input(name, Need::Model)?;
    let dir = [given.join(MODEL_DIR), given.clone()].into_iter().find(|dir| is_adapter(dir));
    let dir = dir.unwrap_or(given);
    let dtype = packed_base_dtype(&dir)?;
    Ok((Peft::read(&dir)?.lora, Start::Directory(dir), dtype))
}
