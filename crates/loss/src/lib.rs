//! Losses as pure functions of tensors: each gives a sum and a count, and one place divides.
//!
//! The mean of a step is the sum over all its micro-batches divided by all their terms, so splitting
//! a step changes nothing. The crate deliberately touches no files, no clock, no state.
//!
//! Shape legend: d width, v vocabulary, n rows (positions of a batch), p pairs, t time.

mod advantages;
mod cross_entropy;
mod kl;
mod ppo;
mod preference;
mod reward;
mod sum;

pub use advantages::{Advantages, Whitening, gae, whiten};
pub use cross_entropy::cross_entropy;
pub use kl::{kl_k1, kl_k3};
pub use ppo::{PolicyLoss, ValueLoss, ppo_policy, ppo_value};
pub use preference::{
    DpoLoss, PairLogprobs, SequenceLogprobs, dpo, dpo_rewards, orpo_odds_ratio, simpo,
};
pub use reward::{pairwise_reward, reward_centering};
pub use sum::LossSum;
