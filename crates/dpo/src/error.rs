//! Errors of preference training.

use std::path::PathBuf;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the stage stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A non-finite reference log-probability.
    #[error("{place}: the reference log-probability of an answer is not finite: `{logprob}`")]
    ReferenceNotFinite {
        /// File and line of the pair.
        place: String,
        /// The log-probability.
        logprob: f32,
    },
    /// A pair without a precomputed reference log-probability.
    #[error("{place}: no reference log-probability was precomputed for this pair")]
    NotInReference {
        /// File and line of the pair.
        place: String,
    },
    /// The directory of the initial weights cannot be listed.
    #[error("{path}: cannot read: {source}")]
    Read {
        /// The directory.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// Training.
    #[error(transparent)]
    Train(#[from] train::Error),
    /// Evaluation.
    #[error(transparent)]
    Evaluate(#[from] evaluate::Error),
    /// Reading or writing the reference log-probabilities.
    #[error(transparent)]
    File(#[from] fsio::Error),
}

impl Error {
    /// Whether the files or the recipe are at fault, not the run.
    pub fn is_wrong_input(&self) -> bool {
        matches!(self, Self::Train(error) if error.is_wrong_input())
    }

    /// A remedy, if there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::ReferenceNotFinite { .. } => {
                Some("evaluate the model that the stage starts from: `temper eval`".to_owned())
            }
            Self::NotInReference { .. } => Some(
                "remove the directory `reference` of the stage; it is computed again".to_owned(),
            ),
            Self::Read { .. } => Some("check `start` in [dpo]".to_owned()),
            Self::Train(error) => error.hint(),
            Self::Evaluate(error) => error.hint(),
            Self::File(error) => error.hint(),
        }
    }
}
