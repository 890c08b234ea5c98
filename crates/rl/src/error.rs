//! What stops an update, with the remedy. It prints nothing.

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong between sampling and new weights.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting outside its range.
    #[error("`{name}` must be {range}: `{value}`")]
    Range {
        /// The setting.
        name: &'static str,
        /// What is allowed.
        range: &'static str,
        /// What was given.
        value: f64,
    },
    /// A way of sampling that log-probabilities would not see.
    #[error("rollouts for training cannot be sampled with `{name}`")]
    NotScorable {
        /// The setting.
        name: &'static str,
    },
    /// An episode that lacks a part.
    #[error("an episode has an empty {what}")]
    EmptyEpisode {
        /// Which.
        what: &'static str,
    },
    /// More tokens than the sampling allows.
    #[error("an answer of `{n}` tokens is longer than the sampling allows: `{max_new_tokens}`")]
    TooLong {
        /// Its tokens.
        n: usize,
        /// The limit.
        max_new_tokens: usize,
    },
    /// Nothing to learn from.
    #[error("no episodes to learn from")]
    NoEpisodes,
    /// Episodes that cannot be split evenly.
    #[error("`{n_episodes}` episodes do not make `{n_minibatches}` equal mini-batches")]
    Minibatches {
        /// The episodes of an update.
        n_episodes: usize,
        /// The mini-batches of an epoch.
        n_minibatches: usize,
    },
    /// An order that is no permutation.
    #[error("epoch {epoch}: the order does not name each of the `{n_episodes}` episodes once")]
    Order {
        /// Which epoch, from 0.
        epoch: usize,
        /// How many there are.
        n_episodes: usize,
    },
    /// Rewards that are not what they are made of, or not finite.
    #[error(
        "episode {episode}: rewards add up to `{rewards}`, but score − kl_coef × KL is `{expected}`"
    )]
    RewardSum {
        /// Which, from 0.
        episode: usize,
        /// Their sum.
        rewards: f64,
        /// What it should be.
        expected: f64,
    },
    /// A ratio other than 1 before anything was learned.
    #[error("the policy's ratio is not 1 before the first step: `{ratio}`")]
    FirstRatio {
        /// The one that is furthest off.
        ratio: f32,
    },
    /// Gradients and steps.
    #[error(transparent)]
    Train(#[from] train::Error),
}

impl Error {
    /// What to do next, where something helps.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Range { .. } => Some("set it to a number in that range".into()),
            Self::NotScorable { .. } => Some(
                "sample from the whole distribution: leave it out, a temperature is fine".into(),
            ),
            Self::EmptyEpisode { .. } => {
                Some("a prompt needs at least one token, as does max_new_tokens".into())
            }
            Self::TooLong { .. } => Some("raise max_new_tokens".into()),
            Self::NoEpisodes => Some("an update needs at least one prompt".into()),
            Self::Order { .. } => None,
            Self::Minibatches { .. } => {
                Some("choose a number of mini-batches that divides the episodes".into())
            }
            Self::RewardSum { .. } => Some(
                "a score or log-probability is not finite: the reward model or the policy has \
                 diverged; start from an earlier checkpoint"
                    .into(),
            ),
            Self::FirstRatio { .. } => {
                Some("dropout must be 0, and the policy must be the one that was scored".into())
            }
            Self::Train(error) => error.hint(),
        }
    }
}
