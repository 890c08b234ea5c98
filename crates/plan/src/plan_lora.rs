//! Plans an adapter: its configuration, its layers, and the adapter that it continues. Opens no weights.

use arch::{LoraConfig, ModelConfig, Peft, Targets};
use recipe::{Loaded, LoraKeys};

use crate::base::is_adapter;
use crate::locate::MODEL_DIR;
use crate::stage::{LoraPlan, Start};
use crate::stage_plan::StagePlan;
use crate::{Error, Paths, Result};

/// Default rank.
const RANK: usize = 16;

/// Plans the adapter of `keys`, at `path` in the recipe, for a model with configuration `config`.
pub(crate) fn plan_lora(
    loaded: &Loaded,
    paths: &Paths,
    path: &str,
    keys: &LoraKeys,
    config: &ModelConfig,
    earlier: &[StagePlan],
) -> Result<LoraPlan> {
    let (lora, adapter) = match &keys.adapter {
        None => (fresh(keys), None),
        Some(name) => {
            let (lora, start) = existing(loaded, paths, path, name, earlier)?;
            (lora, Some(start))
        }
    };
    let refused = |error: arch::AdapterError| {
        let key = if keys.target_pattern.is_some() { "target_pattern" } else { "target_modules" };
        let (text, hint) = (error.to_string(), error.hint());
        Error::Recipe(loaded.spans.error(&format!("{path}.{key}"), text, "", hint))
    };
    lora.check().map_err(refused)?;
    let layers = lora.layers(config).map_err(refused)?;
    let n_parameters = lora.n_parameters(&layers);
    let base_dtype = keys.base_dtype.unwrap_or_default();
    Ok(LoraPlan { config: lora, n_layers: layers.len(), n_parameters, adapter, base_dtype })
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
    LoraConfig {
        rank,
        alpha: keys.alpha.unwrap_or(2.0 * rank as f64),
        dropout: keys.dropout.unwrap_or(0.0),
        rslora: keys.rslora.unwrap_or(false),
        targets,
    }
}

/// Configuration of an existing adapter, or of one that an earlier stage will train.
fn existing(
    loaded: &Loaded,
    paths: &Paths,
    path: &str,
    name: &str,
    earlier: &[StagePlan],
) -> Result<(LoraConfig, Start)> {
    if let Some(stage) = earlier.iter().find(|stage| stage.name == name) {
        return match &stage.lora {
            Some(lora) => Ok((lora.config.clone(), Start::Stage(name.to_owned()))),
            None => Err(Error::Recipe(loaded.spans.error(
                &format!("{path}.adapter"),
                format!("[{name}] trains all weights and has no adapter to continue"),
                "not trained with `lora`",
                Some("remove `adapter` to train a new one".to_owned()),
            ))),
        };
    }
    let given = paths.input(name);
    let dir = [given.join(MODEL_DIR), given.clone()].into_iter().find(|dir| is_adapter(dir));
    let dir = dir.unwrap_or(given);
    Ok((Peft::read(&dir)?.lora, Start::Directory(dir)))
}
