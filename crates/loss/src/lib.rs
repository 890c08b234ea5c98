//! Losses as pure functions of tensors: each returns a sum and a count, which are divided in one place.
//!
//! The mean of a step is the sum over all its micro-batches divided by the number of all their terms, so it does not
//! depend on how the step is split.
//!
//! Shape legend: d width, v vocabulary, n rows (positions of a batch), b answers, p pairs, t time.

mod advantages;
mod cross_entropy;
mod distillation;
mod group_advantages;
mod group_policy;
mod kl;
mod pair_objective;
mod ppo;
mod preference;
mod reward;
mod sum;
mod top_tokens;
mod unpaired;

pub use advantages::{Advantages, Whitening, gae, whiten};
pub use cross_entropy::{NextTokenLoss, cross_entropy, next_token};
pub use distillation::Distillation;
pub use group_advantages::{
    AdvantageKind, Aggregation, GroupAdvantages, GroupRewards, RewardScale, group_advantages,
    mean as known_mean, std as known_std,
};
pub use group_policy::{
    CompletionBatch, GroupCounts, GroupLoss, GroupObjective, GroupTerms, RatioLevel,
    entropy_threshold,
};
pub use kl::{kl_k1, kl_k3};
pub use pair_objective::{FDivergence, PairContext, PairLoss, PairObjective};
pub use ppo::{PolicyLoss, ValueLoss, ppo_policy, ppo_value};
pub use preference::{
    PairLogprobs, SequenceLogprobs, answer_weights, dpo_rewards, orpo_odds_ratio, pair_weights,
    simpo,
};
pub use reward::{pairwise_reward, reward_centering};
pub use sum::LossSum;
pub use top_tokens::{HostTopTokens, TopTokens};
pub use unpaired::{UnpairedLoss, UnpairedObjective, mismatched_kl};
