//! Errors of PPO.

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the stage stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Training.
    #[error(transparent)]
    Train(#[from] train::Error),
    /// Scoring rollouts or updating on them.
    #[error(transparent)]
    Rl(#[from] rl::Error),
    /// An estimated KL divergence far below 0.
    #[error(
        "step {step}: the KL divergence from the reference is far below 0: `{kl:.2}` nats per answer"
    )]
    NegativeKl {
        /// 1-based number of the update.
        step: u64,
        /// Mean over its answers, in nats.
        kl: f64,
    },
    /// An evaluation on tasks.
    #[error(transparent)]
    Evaluate(#[from] evaluate::Error),
    /// The frozen reference model changed.
    #[error("the weights of the reference model have changed during the run")]
    ReferenceChanged,
}

impl Error {
    /// Whether the files or the recipe are at fault, not the run.
    pub fn is_wrong_input(&self) -> bool {
        matches!(self, Self::Train(error) if error.is_wrong_input())
    }

    /// A remedy, if there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Train(error) => error.hint(),
            Self::Rl(error) => error.hint(),
            Self::Evaluate(error) => error.hint(),
            Self::NegativeKl { .. } => Some(
                "sample with temperature 1, lower `optimizer.lr`, and resume from an earlier checkpoint"
                    .to_owned(),
            ),
            Self::ReferenceChanged => Some("this is a bug in Temper: please report it".to_owned()),
        }
    }
}
