//! What PPO (Schulman et al. 2017; Ouyang et al. 2022 for language) does between sampling and new
//! weights: [`score`] says what each sampled token was worth, [`update`] learns from it.
//!
//! The crate deliberately samples nothing, reads no file and has no loop over updates: a stage has.
//! It stands below evaluate, so that `temper verify` replays the very functions that train.
//!
//! # Two conventions
//!
//! [`Conventions::Trl`] follows TRL 1.12 to the letter. [`Conventions::RealTokens`], the default,
//! differs where TRL's numbers depend on positions that hold no sampled token:
//!
//! | | real tokens (default) | TRL |
//! | --- | --- | --- |
//! | the score lands on | the last token, the sampled end token if there is one | the position after the end token, where there is one: its reward is discounted once more, and no token was chosen there |
//! | values | one a token | one more, after the end token; it is trained and whitened with |
//! | temperature | as sampled with | plus 1e-7 |
//! | approximate KL, entropy, ratio | means over tokens | means over all positions up to the longest that was allowed; what stands behind the end pulls them towards 0 or 1 |
//! | `val/num_eos_tokens` | episodes that ended | end tokens, also those sampled behind the first |
//!
//! Both average losses over the tokens of a whole mini-batch, counted before its first forward, so
//! micro-batches bound memory and change nothing else.
//!
//! Shape legend: b episodes, t time, n positions picked from a batch, d model width.

mod batch;
mod checks;
mod error;
mod kl_control;
mod metrics;
mod rollout;
mod score;
mod settings;
mod update;

pub use batch::scores_of;
pub use checks::weights_hash;
pub use error::{Error, Result};
pub use kl_control::adapted_kl_coef;
pub use rollout::{EndReason, Rollout, Rollouts, Sampling, Span};
pub use score::{Scored, ScoredEpisode, score, score_together};
pub use settings::{Conventions, KlEstimator, Settings};
pub use update::{ActorCritic, Learner, Updated, update};
