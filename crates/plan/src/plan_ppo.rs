//! The plan of PPO's roles besides the policy: where reward and value model start, and how many whole copies of weights
//! stand in memory. Opens no weights.

use std::collections::BTreeSet;

use recipe::{Loaded, PpoSection};

use crate::base::base_of;
use crate::plan_lora::plan_lora;
use crate::stage::{LoraPlan, PpoPlan, Start};
use crate::stage_plan::StagePlan;
use crate::starting_point::{StartingPoint, of_name};
use crate::{Error, Paths, Result};

/// Plans the roles of `[ppo]`; `policy` is where the policy starts, `policy_lora` what it trains.
pub(crate) fn plan_ppo(
    loaded: &Loaded,
    paths: &Paths,
    section: &PpoSection,
    policy: &StartingPoint,
    policy_lora: Option<&LoraPlan>,
    earlier: &[StagePlan],
    warnings: &mut Vec<String>,
) -> Result<PpoPlan> {
    let reward = of_name(paths, &section.reward, earlier)?;
    let value = of_name(paths, section.value_start(), earlier)?;
    warnings.extend([&reward, &value].into_iter().flat_map(|begin| begin.warnings.clone()));
    check_vocabularies(loaded, policy, &reward, &value)?;
    let value_lora = value_lora(loaded, paths, section, &value, earlier)?;
    let mut bases = BaseCopies { earlier, seen: BTreeSet::new(), n_parameters: 0 };
    bases.add(policy, policy_lora, false)?;
    if policy_lora.is_none() {
        // What stands there now stays the reference; the policy moves away from it.
        bases.add_copy(policy);
    }
    bases.add(&reward, None, true)?;
    match &value_lora {
        Some(lora) => bases.add(&value, Some(lora), false)?,
        // Trained as a whole, it parts from whatever it started from.
        None => bases.add_copy(&value),
    }
    let (n_bases, n_base_parameters) = (bases.seen.len(), bases.n_parameters);
    Ok(PpoPlan {
        section: section.clone(),
        reward: reward.start,
        value: value.start,
        value_config: value.config,
        value_lora,
        n_base_parameters,
        n_bases,
    })
}

/// What the recipe says of the value model's adapter, or what stands for it: where the policy trains an adapter it does so
/// too, the one that it starts from if that is one.
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
            let adapter = Some(section.value_start().to_owned());
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
    for names in [&mut keys.target_modules, &mut keys.modules_to_save] {
        if let Some(names) = names {
            names.retain(|name| name != "lm_head");
        }
    }
    keys.modules_to_save = keys.modules_to_save.filter(|names| !names.is_empty());
    keys
}

/// Policy, reward and value model read the same ids.
fn check_vocabularies(
    loaded: &Loaded,
    policy: &StartingPoint,
    reward: &StartingPoint,
    value: &StartingPoint,
) -> Result<()> {
    let size = |begin: &StartingPoint| begin.config.as_ref().map(arch::ModelConfig::vocab_size);
    for (key, other) in [("ppo.reward", reward), ("ppo.value.start", value)] {
        if let (Some(wanted), Some(found)) = (size(policy), size(other))
            && wanted != found
        {
            return Err(Error::Recipe(loaded.spans.error(
                key,
                format!("its vocabulary has {found} ids, the policy's has {wanted}"),
                "reads other ids than the policy writes",
                Some("train it on the policy's tokenizer: start it from the same model".to_owned()),
            )));
        }
    }
    Ok(())
}

/// The whole copies of weights that roles stand on, each counted once.
struct BaseCopies<'a> {
    earlier: &'a [StagePlan],
    seen: BTreeSet<String>,
    n_parameters: u64,
}

impl BaseCopies<'_> {
    /// A role: on a base that others may share, or on weights of its own. A frozen one keeps its adapter beside its base.
    fn add(
        &mut self,
        begin: &StartingPoint,
        lora: Option<&LoraPlan>,
        is_frozen: bool,
    ) -> Result<()> {
        let goes_on = lora.and_then(|lora| lora.adapter.as_ref()) == Some(&begin.start);
        let key = if begin.is_adapter && (goes_on || is_frozen) {
            self.base_key(&begin.start)?
        } else if begin.is_adapter {
            // Merged into weights of its own.
            format!("merged {:?} {}", begin.start, lora.is_some())
        } else {
            format!("{:?}", begin.start)
        };
        self.insert(key, begin);
        Ok(())
    }

    /// A copy that nobody shares.
    fn add_copy(&mut self, begin: &StartingPoint) {
        let key = format!("copy {} {:?}", self.seen.len(), begin.start);
        self.insert(key, begin);
    }

    fn insert(&mut self, key: String, begin: &StartingPoint) {
        if self.seen.insert(key) {
            self.n_parameters += begin.config.as_ref().map_or(0, arch::ModelConfig::n_parameters);
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
