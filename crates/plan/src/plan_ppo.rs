//! Plans PPO's models besides the policy: the weights of reward and value model, and the number of base models in memory.
//! Opens no weights.

use std::collections::BTreeSet;

use recipe::{Loaded, PpoSection};

use crate::base::base_of;
use crate::error::AtKey;
use crate::plan_lora::plan_lora;
use crate::plan_rewards::{RewardPoints, plan_rewards};
use crate::stage::{LoraPlan, PpoPlan, Start};
use crate::stage_plan::StagePlan;
use crate::starting_point::{StartingPoint, of_name};
use crate::vocabularies::check_vocabularies;
use crate::{Error, Paths, Request, Result};

/// Plans the models of `[ppo]`. `policy` is the policy's starting point, `policy_lora` its adapter.
#[expect(clippy::too_many_arguments, reason = "the recipe and what was planned before")]
pub(crate) fn plan_ppo(
    loaded: &Loaded,
    request: &Request,
    paths: &Paths,
    section: &PpoSection,
    policy: &StartingPoint,
    policy_lora: Option<&LoraPlan>,
    earlier: &[StagePlan],
    warnings: &mut Vec<String>,
) -> Result<PpoPlan> {
    let (rewards, points) = plan_rewards(
        loaded,
        request,
        paths,
        "ppo",
        &section.rewards,
        section.reward_models(),
        section.max_new_tokens,
        earlier,
    )?;
    let value_start = section.value_start().ok_or_else(|| {
        let message = "the value model has no weights to start from".to_owned();
        Error::Recipe(loaded.spans.error("ppo", message, "needs `value`", None))
    })?;
    let value = of_name(paths, value_start, earlier).at_key(loaded, "ppo.value.start")?;
    let of_rewards = points.models.iter().chain(&points.judges);
    warnings.extend(of_rewards.chain([&value]).flat_map(|point| point.warnings.clone()));
    let models = rewards.models.iter().map(|model| format!("ppo.{}", model.key));
    let models = models.zip(&points.models).chain([("ppo.value.start".to_owned(), &value)]);
    check_vocabularies(loaded, policy, models, earlier)?;
    let value_lora = value_lora(loaded, paths, section, &value, earlier)?;
    let mut bases = BaseCopies::new(earlier);
    bases.add(policy, policy_lora, false)?;
    if policy_lora.is_none() {
        // The starting weights stay in memory as the reference model.
        bases.add_copy(policy);
    }
    bases.add_frozen(&points)?;
    match &value_lora {
        Some(lora) => bases.add(&value, Some(lora), false)?,
        // All its weights are trained, so it shares them with no other model.
        None => bases.add_copy(&value),
    }
    let (n_bases, n_base_parameters) = bases.counts();
    Ok(PpoPlan {
        section: section.clone(),
        rewards,
        value: value.start,
        value_config: value.config,
        value_lora,
        n_base_parameters,
        n_bases,
    })
}

/// The value model's adapter. Default: if the policy trains an adapter, so does the value model, and it continues the
/// adapter that it starts from, if there is one.
fn value_lora(
    loaded: &Loaded,
    paths: &Paths,
    section: &PpoSection,
    value: &StartingPoint,
    earlier: &[StagePlan],
) -> Result<Option<LoraPlan>> {
    let (keys, path) = match (&section.value, &section.policy.lora) {
        (Some(role), _) => (role.lora.clone(), "ppo.value.lora"),
        (None, None) => (None, ""),
        (None, Some(of_policy)) if value.is_adapter => {
            let adapter = section.value_start().map(str::to_owned);
            let base_dtype = of_policy.base_dtype;
            let keys = recipe::LoraKeys { adapter, base_dtype, ..Default::default() };
            (Some(keys), "ppo.policy.lora")
        }
        (None, Some(of_policy)) => {
            let keys = recipe::LoraKeys { adapter: None, ..of_policy.clone() };
            (Some(without_output_layer(keys)), "ppo.policy.lora")
        }
    };
    let (Some(keys), Some(config)) = (keys, value.config.as_ref()) else { return Ok(None) };
    plan_lora(loaded, paths, path, &keys, config, true, earlier).map(Some)
}

/// The keys of the policy for a model that has a score in place of the output layer.
fn without_output_layer(mut keys: recipe::LoraKeys) -> recipe::LoraKeys {
    for names in [&mut keys.target_modules, &mut keys.modules_to_save].into_iter().flatten() {
        names.retain(|name| name != "lm_head");
    }
    keys.modules_to_save = keys.modules_to_save.filter(|names| !names.is_empty());
    keys
}

/// Base models in memory, each counted once.
pub(crate) struct BaseCopies<'a> {
    earlier: &'a [StagePlan],
    seen: BTreeSet<String>,
    n_parameters: u64,
}

impl<'a> BaseCopies<'a> {
    pub(crate) fn new(earlier: &'a [StagePlan]) -> Self {
        Self { earlier, seen: BTreeSet::new(), n_parameters: 0 }
    }

    /// Number of base models, and of all their parameters.
    pub(crate) fn counts(&self) -> (usize, u64) {
        (self.seen.len(), self.n_parameters)
    }

    /// Adds the base of a model: shared with others, or its own. A frozen model keeps its adapter separate.
    pub(crate) fn add(
        &mut self,
        point: &StartingPoint,
        lora: Option<&LoraPlan>,
        is_frozen: bool,
    ) -> Result<()> {
        let continues = lora.and_then(|lora| lora.adapter.as_ref()) == Some(&point.start);
        let key = if point.is_adapter && (continues || is_frozen) {
            self.base_key(&point.start)?
        } else if point.is_adapter {
            // Merged into weights of its own.
            format!("merged {:?} {}", point.start, lora.is_some())
        } else {
            format!("{:?}", point.start)
        };
        self.insert(key, point);
        Ok(())
    }

    /// Adds the models of rewards.
    pub(crate) fn add_frozen(&mut self, points: &RewardPoints) -> Result<()> {
        points.models.iter().chain(&points.judges).try_for_each(|point| self.add(point, None, true))
    }

    /// Adds weights that no other model shares.
    pub(crate) fn add_copy(&mut self, point: &StartingPoint) {
        let key = format!("copy {} {:?}", self.seen.len(), point.start);
        self.insert(key, point);
    }

    fn insert(&mut self, key: String, point: &StartingPoint) {
        if self.seen.insert(key) {
            self.n_parameters += point.config.as_ref().map_or(0, arch::ModelConfig::n_parameters);
        }
    }

    fn base_key(&self, start: &Start) -> Result<String> {
        match start {
            Start::Fresh => Ok(String::new()),
            Start::Directory(dir) => {
                let base = base_of(dir)?.unwrap_or_else(|| dir.clone());
                Ok(format!("{:?}", Start::Directory(base)))
            }
            Start::Stage(name) => {
                let Some(stage) = self.earlier.iter().find(|stage| stage.name == *name) else {
                    return Ok(format!("{start:?}"));
                };
                match &stage.lora {
                    None => Ok(format!("{start:?}")),
                    Some(_) if stage.merges_start => Ok(format!("base of {name}")),
                    Some(_) => self.base_key(&stage.start),
                }
            }
        }
    }
}
