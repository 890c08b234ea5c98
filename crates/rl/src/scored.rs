//! Scored rollouts: the numbers on which an update trains.

use crate::rollout::Rollouts;

/// The numbers of one episode; index 0 is the first token of the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoredEpisode {
    /// log π of each token under the policy that sampled it.
    pub logprobs: Vec<f32>,
    /// log π_ref of each token under the reference.
    pub ref_logprobs: Vec<f32>,
    /// KL estimate of each token.
    pub kl: Vec<f32>,
    /// Sum of the weighted rewards minus the penalty for a missing end token; NaN for an episode without any reward, which is
    /// in no loss.
    pub score: f32,
    /// The score of each reward model before its weight.
    pub model_scores: Vec<f32>,
    /// Expected return at each position; [`crate::Conventions`] defines the positions.
    pub values: Vec<f32>,
    /// −β·KL at each position plus the score at one; optionally whitened.
    pub rewards: Vec<f32>,
    /// Generalized advantage estimates of the tokens, whitened over the whole update.
    pub advantages: Vec<f32>,
    /// Targets of the values.
    pub returns: Vec<f32>,
}

impl ScoredEpisode {
    /// Whether some reward has a value.
    pub fn has_reward(&self) -> bool {
        !self.score.is_nan()
    }
}

/// The scored episodes of an update.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// The rollouts.
    pub rollouts: Rollouts,
    /// One for each rollout.
    pub episodes: Vec<ScoredEpisode>,
}
