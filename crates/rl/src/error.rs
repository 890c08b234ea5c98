//! Errors of rollouts, scoring and updates.

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why rollouts could not be scored or trained on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting out of range.
    #[error("`{name}` must be {range}: `{value}`")]
    Range {
        /// The setting.
        name: &'static str,
        /// The allowed range.
        range: &'static str,
        /// The value.
        value: f64,
    },
    /// A sampling setting that log-probabilities do not model.
    #[error("rollouts for training cannot be sampled with `{name}`")]
    NotScorable {
        /// The setting.
        name: &'static str,
    },
    /// An episode with an empty prompt or answer.
    #[error("an episode has an empty {what}")]
    EmptyEpisode {
        /// The empty part.
        what: &'static str,
    },
    /// An answer longer than `max_new_tokens`.
    #[error("an answer of `{n}` tokens is longer than max_new_tokens: `{max_new_tokens}`")]
    TooLong {
        /// Its number of tokens.
        n: usize,
        /// The maximum.
        max_new_tokens: usize,
    },
    /// An update without episodes.
    #[error("no episodes to train on")]
    NoEpisodes,
    /// Episodes that cannot be split evenly.
    #[error("`{n_episodes}` episodes cannot be split into `{n_minibatches}` equal minibatches")]
    Minibatches {
        /// Episodes of an update.
        n_episodes: usize,
        /// Minibatches of an epoch.
        n_minibatches: usize,
    },
    /// An order that is not a permutation.
    #[error("epoch {epoch}: the order is not a permutation of the `{n_episodes}` episodes")]
    Order {
        /// 0-based epoch.
        epoch: usize,
        /// Number of episodes.
        n_episodes: usize,
    },
    /// Completions that do not form whole groups.
    #[error("`{n_episodes}` completions do not form whole groups of `{num_generations}`")]
    Groups {
        /// Number of completions.
        n_episodes: usize,
        /// Completions of a prompt.
        num_generations: usize,
    },
    /// A KL divergence without a reference model.
    #[error("the KL divergence needs a reference model")]
    NoReference,
    /// A log-probability or reward that is not finite.
    #[error("completion {episode}: a log-probability or its advantage is not finite")]
    NotFinite {
        /// 0-based completion.
        episode: usize,
    },
    /// Rewards of another number of episodes.
    #[error("`{n}` rewards for `{n_episodes}` episodes")]
    Rewards {
        /// Number of rewards.
        n: usize,
        /// Number of episodes.
        n_episodes: usize,
    },
    /// Rewards with a wrong or non-finite sum.
    #[error(
        "episode {episode}: rewards sum to `{rewards}`, but score − kl_coef × KL is `{expected}`"
    )]
    RewardSum {
        /// 0-based episode.
        episode: usize,
        /// Sum of the rewards.
        rewards: f64,
        /// Expected sum.
        expected: f64,
    },
    /// A policy ratio other than 1 before the first optimizer step.
    #[error("the policy ratio is not 1 before the first optimizer step: `{ratio}`")]
    FirstRatio {
        /// The ratio furthest from 1.
        ratio: f32,
    },
    /// Sampling.
    #[error(transparent)]
    Generate(#[from] generate::Error),
    /// Optimizer steps.
    #[error(transparent)]
    Train(#[from] train::Error),
    /// A program that computes rewards.
    #[error(transparent)]
    Program(#[from] rewards::Error),
    /// A judge's tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::Error),
    /// A judge that can be asked about no text.
    #[error("the judge cannot be asked about a completion of one letter: {reason}")]
    JudgeTemplate {
        /// What is wrong with the question.
        reason: String,
    },
    /// A plan without weights for a model of the rewards.
    #[error("a model of the rewards has no weights to start from")]
    NoRewardModel,
}

impl Error {
    /// A remedy, if there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Range { .. } => Some("set it to a value in that range".into()),
            Self::NotScorable { .. } => Some(
                "remove it: rollouts need the full distribution; `temperature` is allowed".into(),
            ),
            Self::EmptyEpisode { .. } => {
                Some("a prompt needs at least one token; max_new_tokens must be at least 1".into())
            }
            Self::TooLong { .. } => Some("raise max_new_tokens".into()),
            Self::NoEpisodes => Some("an update needs at least one prompt".into()),
            Self::Order { .. }
            | Self::Rewards { .. }
            | Self::Groups { .. }
            | Self::NoReference => None,
            Self::NotFinite { .. } => {
                Some("the policy has diverged: lower `optimizer.lr`, and resume from an earlier checkpoint".into())
            }
            Self::Minibatches { .. } => {
                Some("choose a number of minibatches that divides the number of episodes".into())
            }
            Self::RewardSum { .. } => Some(
                "a non-finite score or log-probability means that the reward model or the policy has \
                 diverged; start from an earlier checkpoint"
                    .into(),
            ),
            Self::FirstRatio { .. } => {
                Some("dropout must be 0, and the scored policy must be the one that is trained".into())
            }
            Self::Generate(error) => error.hint(),
            Self::Train(error) => error.hint(),
            Self::Program(error) => Some(error.hint().to_owned()),
            Self::Tokenizer(error) => error.hint(),
            Self::JudgeTemplate { .. } => {
                Some("shorten the reward's `template`, or name a judge with a longer context".to_owned())
            }
            Self::NoRewardModel => Some("name them with `start` in the reward".to_owned()),
        }
    }
}
