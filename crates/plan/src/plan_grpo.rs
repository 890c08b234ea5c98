//! Plans GRPO's models besides the policy: those of rewards, and the base models in memory. Opens no weights.

use recipe::{GrpoSection, Loaded};

use crate::plan_ppo::BaseCopies;
use crate::plan_rewards::plan_rewards;
use crate::prompt_layout::PromptLayout;
use crate::stage::{GrpoPlan, LoraPlan};
use crate::stage_plan::StagePlan;
use crate::starting_point::StartingPoint;
use crate::vocabularies::check_vocabularies;
use crate::{Paths, Request, Result};

/// Plans the models of `[grpo]`. `policy` is the policy's starting point, `policy_lora` its adapter.
pub(crate) fn plan_grpo(
    loaded: &Loaded,
    request: &Request,
    paths: &Paths,
    section: &GrpoSection,
    policy: &StartingPoint,
    policy_lora: Option<&LoraPlan>,
    earlier: &[StagePlan],
) -> Result<GrpoPlan> {
    let (rewards, points) = plan_rewards(
        loaded,
        request,
        paths,
        "grpo",
        &section.rewards,
        section.reward_models(),
        section.max_new_tokens,
        earlier,
    )?;
    let of_rewards = points.models.iter().chain(&points.judges);
    let warnings = of_rewards.flat_map(|point| point.warnings.clone()).collect();
    let keys = rewards.models.iter().map(|model| format!("grpo.{}", model.key));
    check_vocabularies(loaded, policy, keys.zip(&points.models), earlier)?;
    let mut bases = BaseCopies::new(earlier);
    bases.add(policy, policy_lora, false)?;
    let has_reference = section.beta() != 0.0;
    if has_reference && policy_lora.is_none() {
        // The starting weights stay in memory as the reference model.
        bases.add_copy(policy);
    }
    bases.add_frozen(&points)?;
    let (n_bases, n_base_parameters) = bases.counts();
    Ok(GrpoPlan {
        section: section.clone(),
        rewards,
        has_reference,
        n_base_parameters,
        n_bases,
        prompt_layout: PromptLayout::of(section, policy.config.as_ref(), request.kernel_path),
        warnings,
    })
}
