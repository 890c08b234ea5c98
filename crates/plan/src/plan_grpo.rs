//! Plans GRPO's models besides the policy: the weights of a reward model, and the base models in memory. Opens no weights.

use recipe::{GrpoSection, Loaded};

use crate::plan_ppo::{BaseCopies, check_vocabularies, compiled};
use crate::stage::{GrpoPlan, LoraPlan, RewardModelPlan};
use crate::stage_plan::StagePlan;
use crate::starting_point::{StartingPoint, of_name};
use crate::{Paths, Result};

/// Plans the models of `[grpo]`. `policy` is the policy's starting point, `policy_lora` its adapter.
pub(crate) fn plan_grpo(
    loaded: &Loaded,
    paths: &Paths,
    section: &GrpoSection,
    policy: &StartingPoint,
    policy_lora: Option<&LoraPlan>,
    earlier: &[StagePlan],
) -> Result<GrpoPlan> {
    let rewards = compiled(loaded, "grpo", &section.rewards, section.max_new_tokens)?;
    let model = section.reward_model_key();
    let reward = match &model {
        Some((_, start, _)) => Some(of_name(paths, start, earlier)?),
        None => None,
    };
    let warnings = reward.iter().flat_map(|point| point.warnings.clone()).collect();
    let keys = model.iter().map(|(key, ..)| format!("grpo.{key}"));
    check_vocabularies(loaded, policy, keys.zip(&reward))?;
    let mut bases = BaseCopies::new(earlier);
    bases.add(policy, policy_lora, false)?;
    let has_reference = section.beta() != 0.0;
    if has_reference && policy_lora.is_none() {
        // The starting weights stay in memory as the reference model.
        bases.add_copy(policy);
    }
    if let Some(reward) = &reward {
        bases.add(reward, None, true)?;
    }
    let (n_bases, n_base_parameters) = bases.counts();
    Ok(GrpoPlan {
        section: section.clone(),
        reward: reward.zip(model).map(|(point, (key, _, weight))| RewardModelPlan {
            key,
            start: point.start,
            weight,
        }),
        rewards,
        has_reference,
        n_base_parameters,
        n_bases,
        warnings,
    })
}
