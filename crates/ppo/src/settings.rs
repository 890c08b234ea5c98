//! Conversion of `[ppo]` into the settings of an update.

use plan::StagePlan;
use recipe::PpoSection;
use rl::{Conventions, KlEstimator, Settings};

/// The settings of an update, with the initial KL coefficient.
pub fn settings(section: &PpoSection, stage: &StagePlan) -> Settings {
    let penalty = section.missing_eos_penalty;
    Settings {
        conventions: match section.conventions {
            recipe::Conventions::RealTokens => Conventions::RealTokens,
            recipe::Conventions::Trl => Conventions::Trl,
        },
        kl_estimator: match section.kl.estimator {
            recipe::KlEstimator::K1 => KlEstimator::K1,
            recipe::KlEstimator::K3 => KlEstimator::K3,
        },
        kl_coef: section.kl.coef,
        missing_eos_penalty: (penalty > 0.0).then_some(penalty),
        whiten_rewards: section.whiten_rewards,
        gamma: section.gamma,
        lambda: section.lambda,
        clip_range: section.clip_range,
        clip_range_value: section.clip_range_value,
        vf_coef: section.vf_coef,
        n_minibatches: section.n_minibatches,
        target_kl: section.target_kl,
        micro_batch: stage.micro_batch,
    }
}
