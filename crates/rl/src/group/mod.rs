//! Group-relative policy optimization: several completions of each prompt, compared with each other (Shao et al. 2024), and its
//! relatives, among them leave-one-out REINFORCE (Ahmadian et al. 2024). No value model.
//!
//! [`score_groups`] computes advantages, [`update_groups`] trains the policy on them. The formulas are in `loss`.
//!
//! [`Conventions::Trl`](crate::Conventions::Trl) follows TRL 1.12. The default differs where TRL's result depends on the split
//! into micro-batches:
//!
//! | | real tokens (default) | TRL |
//! | --- | --- | --- |
//! | means of `grpo`, `bnpo`, `sapo` and of the entropy bonus; metrics | over the minibatch of an optimizer step | over each micro-batch, then over micro-batches |
//! | `top_entropy_quantile` | among all tokens of the update, by the entropy at sampling time | among the tokens of a micro-batch, by the current entropy |

mod batch;
mod metrics;
mod probe;
mod score;
mod settings;
mod update;

pub use metrics::{GroupMetrics, completion_metrics};
pub use probe::forward_backward;
pub use score::{GroupEpisode, RewardTable, ScoredGroups, has_signal, score_groups};
pub use settings::GroupSettings;
pub use update::{GroupUpdated, update_groups};
