//! The plan of an adapter: its shape, the layers that it stands beside, and what it goes on from. Opens no weights.

use arch::{LoraConfig, ModelConfig, Peft, Targets};
use recipe::{Loaded, LoraKeys};

use crate::base::is_adapter;
use crate::locate::MODEL_DIR;
use crate::stage::{LoraPlan, Start};
use crate::stage_plan::StagePlan;
use crate::{Error, Paths, Result};

/// Width of an adapter where the recipe names none.
const RANK: usize = 16;

/// Plans the adapter of `keys`, which stand at `path` in the recipe, beside a model of shape `config`.
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

/// The shape of an adapter that is there, or will be once an earlier stage has ended.
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
                format!("[{name}] trains all weights: there is no adapter to go on with"),
                "not trained with `lora`",
                Some("leave `adapter` out: a fresh one is made".to_owned()),
            ))),
        };
    }
    let given = paths.input(name);
    let dir = [given.join(MODEL_DIR), given.clone()].into_iter().find(|dir| is_adapter(dir));
    let dir = dir.unwrap_or(given);
    Ok((Peft::read(&dir)?.lora, Start::Directory(dir)))
}
