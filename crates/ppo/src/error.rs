//! What can stop PPO; each part says so itself.

/// The result of the stage.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the stage stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Training, its files or its checks.
    #[error(transparent)]
    Train(#[from] train::Error),
    /// Scoring answers, or learning from them.
    #[error(transparent)]
    Policy(#[from] rl::Error),
    /// Sampling answers.
    #[error(transparent)]
    Generate(#[from] generate::Error),
    /// The policy writes what it finds unlikely.
    #[error(
        "step {step}: the KL divergence from the reference is far below 0: `{kl:.2}` nats an answer"
    )]
    NegativeKl {
        /// The update.
        step: u64,
        /// The mean over its answers.
        kl: f64,
    },
    /// A frozen model changed.
    #[error("the reference's weights are not those of the beginning")]
    ReferenceMoved,
    /// A plan whose reward model is to be new.
    #[error("the reward model has no weights to start from")]
    NoRewardModel,
}

impl Error {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Train(error) => error.hint(),
            Self::Policy(error) => error.hint(),
            Self::Generate(error) => error.hint(),
            Self::NegativeKl { .. } => Some(
                "sample with temperature 1, and lower `optimizer.lr`; go on from an earlier checkpoint"
                    .to_owned(),
            ),
            Self::ReferenceMoved => Some("this is a fault in temper: please report it".to_owned()),
            Self::NoRewardModel => Some("name one with `reward` in [ppo]".to_owned()),
        }
    }
}
