//! Reinforcement learning on rewards. PPO (Schulman et al. 2017; Ouyang et al. 2022 for language models): [`score`] computes
//! rewards and advantages of rollouts, [`update`] trains policy and value model on them. GRPO and its relatives, without a value
//! model: [`score_groups`] and [`update_groups`].
//!
//! Sampling and the loop over updates are in the stage. The crate is below `evaluate`, so that `temper verify` replays the
//! same functions.
//!
//! # Two conventions of PPO
//!
//! [`Conventions::Trl`] follows TRL 1.12 exactly. [`Conventions::RealTokens`], the default, differs where TRL's numbers
//! depend on positions without a sampled token:
//!
//! | | real tokens (default) | TRL |
//! | --- | --- | --- |
//! | position of the score | the last token: the sampled end token, if there is one | the position after the end token, if there is one: its reward is discounted once more, although no token was sampled there |
//! | values | one per token | one more after the end token, which is trained on and whitened with the others |
//! | temperature | that of sampling | plus 1e-7 |
//! | approximate KL, entropy, ratio | means over tokens | means over all positions up to the longest allowed; those after the end pull them towards 0 or 1 |
//! | `val/num_eos_tokens` | episodes with an end token | end tokens, including those sampled after the first one |
//!
//! Both average losses over the tokens of a whole minibatch, counted before its first forward pass, so micro-batches bound
//! memory and change nothing else.
//!
//! Shape legend: b episodes, t time, n positions selected from a batch, d model width.

mod actor_critic;
mod batch;
mod checks;
mod error;
mod group;
mod judge;
mod kl_control;
mod metrics;
mod prompts;
mod reference_sync;
mod reward_sources;
mod reward_terms;
mod rollout;
mod score;
mod scored;
mod settings;
mod shared_prompts;
mod stated;
mod update;

pub use actor_critic::ActorCritic;
pub use batch::scores_of;
pub use checks::weights_hash;
pub use error::{Error, Result};
pub use group::{
    GroupEpisode, GroupMetrics, GroupSettings, GroupUpdated, RewardTable, ScoredGroups,
    completion_metrics, forward_backward, has_signal, score_groups, update_groups,
};
pub use kl_control::adapted_kl_coef;
pub use prompts::{Prompts, question, sample_together, shown_text};
pub use reference_sync::moved_towards;
pub use reward_sources::RewardSources;
pub use reward_terms::RewardTerms;
pub use rollout::{EndReason, Rollout, Rollouts, Sampling, Span};
pub use score::{score, score_together};
pub use scored::{Scored, ScoredEpisode};
pub use settings::{Conventions, KlEstimator, Settings};
pub use stated::{StatedRewards, model_names, reward_metrics};
pub use update::{Updated, update};

/// Minimum number of completions of a validation; prompts get several where there are fewer prompts.
pub const VALIDATION_ANSWERS: usize = 256;
