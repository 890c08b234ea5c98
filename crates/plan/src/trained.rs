//! Names and shapes of the parameters that a stage trains. Reads no weights.

use arch::{HeadOutput, ModelConfig, ParamKind, ParamSpec};
use recipe::{Loaded, Optimizer};

use crate::optimizer::unmatched_group;
use crate::stage::{LoraPlan, Stage, Work};
use crate::{Error, Result};

/// Checkpoint name and shape of a parameter.
pub(crate) type NamedShape = (String, Vec<usize>);

/// Trained parameters of a stage: all weights, or an adapter's factors and a head that the base model lacks. In PPO,
/// names have the prefix `policy.` or `value.`.
pub(crate) fn trained_parameters(
    config: &ModelConfig,
    stage: &Stage,
    lora: Option<&LoraPlan>,
) -> Vec<NamedShape> {
    let ppo = match stage.work() {
        Work::Rows { output, .. } => {
            return of_model(config, lora, output == HeadOutput::Scores);
        }
        Work::Groups(_) => return of_model(config, lora, false),
        Work::Rollouts(ppo) => ppo,
    };
    let policy = of_model(config, lora, false);
    let value_config = ppo.value_config.as_ref().unwrap_or(config);
    let value = of_model(value_config, ppo.value_lora.as_ref(), true);
    let models = [("policy", policy), ("value", value)];
    models
        .into_iter()
        .flat_map(|(prefix, parameters)| {
            parameters.into_iter().map(move |(name, shape)| (format!("{prefix}.{name}"), shape))
        })
        .collect()
}

/// Refuses a group of the optimizer at `path` that matches no trained parameter.
pub(crate) fn check_groups(
    loaded: &Loaded,
    path: &str,
    optimizer: &Optimizer,
    trained: &[NamedShape],
) -> Result<()> {
    let names = trained.iter().map(|(name, _)| name.as_str());
    let Some(idx) = unmatched_group(optimizer, names.clone()) else { return Ok(()) };
    let pattern = optimizer.groups.get(idx).map(|group| group.pattern.as_str());
    let examples: Vec<String> = names.take(3).map(|name| format!("`{name}`")).collect();
    Err(Error::Recipe(loaded.spans.error(
        &format!("{path}.groups[{idx}].match"),
        format!("no trained parameter matches: `{}`", pattern.unwrap_or_default()),
        "matches no name",
        Some(format!("trained parameters have names such as {}", examples.join(", "))),
    )))
}

fn of_model(config: &ModelConfig, lora: Option<&LoraPlan>, is_scalar: bool) -> Vec<NamedShape> {
    let parameters =
        if is_scalar { config.sequence_classifier_parameters() } else { config.parameters() };
    let named = |spec: ParamSpec| (spec.name, spec.shape);
    let Some(lora) = lora else { return parameters.into_iter().map(named).collect() };
    let mut trained = lora.layout.trained();
    if is_scalar {
        let head = parameters.into_iter().filter(|spec| spec.kind == ParamKind::Head);
        trained.extend(head.map(named));
    }
    trained
}
