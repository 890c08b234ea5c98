//! Conversion of `[grpo]` into the settings of an update.

use loss::{AdvantageKind, Aggregation, GroupLoss, GroupObjective, RatioLevel, RewardScale};
use plan::{GrpoPlan, StagePlan};
use recipe::{
    Advantage, GrpoLoss, GrpoSection, ImportanceSamplingLevel, MultiObjectiveAggregation,
    ScaleRewards,
};
use rl::{Conventions, GroupSettings};

/// The settings of an update.
pub fn settings(grpo: &GrpoPlan, stage: &StagePlan) -> GroupSettings {
    let section = &grpo.section;
    let is_rloo = section.advantage == Advantage::LeaveOneOut;
    let beta = section.beta();
    GroupSettings {
        conventions: match section.conventions {
            recipe::Conventions::RealTokens => Conventions::RealTokens,
            recipe::Conventions::Trl => Conventions::Trl,
        },
        objective: GroupObjective {
            loss: section.loss().map_or(GroupLoss::Rloo, |loss| policy_loss(loss, section)),
            level: match section.importance_sampling_level {
                ImportanceSamplingLevel::Token => RatioLevel::Token,
                ImportanceSamplingLevel::Sequence => RatioLevel::Sequence,
            },
            epsilon: section.epsilon,
            epsilon_high: section.epsilon_high.unwrap_or(section.epsilon),
            delta: section.delta,
            beta: if is_rloo { 0.0 } else { beta },
            corrects_kl: section.use_bias_correction_kl,
            off_policy_threshold: section.off_policy_mask_threshold,
            entropy_coef: section.entropy_coef,
        },
        advantages: advantages(section),
        reward_beta: if is_rloo { beta } else { 0.0 },
        num_generations: section.num_generations,
        num_iterations: section.num_iterations,
        n_minibatches: section.n_minibatches,
        mask_truncated_completions: section.mask_truncated_completions,
        top_entropy_quantile: section.top_entropy_quantile,
        micro_batch: stage.micro_batch,
        shares_prompts: grpo.prompt_layout.is_shared(),
    }
}

fn policy_loss(loss: GrpoLoss, section: &GrpoSection) -> GroupLoss {
    match loss {
        GrpoLoss::Grpo => GroupLoss::Grpo,
        GrpoLoss::Bnpo => GroupLoss::Bnpo,
        GrpoLoss::DrGrpo => GroupLoss::DrGrpo,
        GrpoLoss::Dapo => GroupLoss::Dapo,
        GrpoLoss::Cispo => GroupLoss::Cispo,
        GrpoLoss::Sapo => GroupLoss::Sapo {
            temperature_pos: section.sapo_temperature_pos,
            temperature_neg: section.sapo_temperature_neg,
        },
        GrpoLoss::Vespo => GroupLoss::Vespo {
            pos: (section.vespo_k_pos, section.vespo_lambda_pos),
            neg: (section.vespo_k_neg, section.vespo_lambda_neg),
        },
        GrpoLoss::Luspo => GroupLoss::Luspo,
    }
}

/// The estimator of advantages.
pub(crate) fn advantages(section: &GrpoSection) -> AdvantageKind {
    match section.advantage {
        Advantage::LeaveOneOut => AdvantageKind::LeaveOneOut {
            normalize: section.normalize_advantages,
            reward_clip_range: section.reward_clip_range.map(|[low, high]| (low, high)),
        },
        Advantage::Group => AdvantageKind::Group {
            scale: match section.scale_rewards {
                ScaleRewards::Group => RewardScale::Group,
                ScaleRewards::Batch => RewardScale::Batch,
                ScaleRewards::None => RewardScale::None,
            },
            aggregation: match section.multi_objective_aggregation {
                MultiObjectiveAggregation::SumThenNormalize => Aggregation::SumThenNormalize,
                MultiObjectiveAggregation::NormalizeThenSum => Aggregation::NormalizeThenSum,
            },
        },
    }
}
