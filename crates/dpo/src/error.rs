//! What can stop the learning of preferences; most parts say so themselves.

use std::path::PathBuf;

/// The result of the stage.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the stage stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The starting weights give an answer no probability.
    #[error(
        "{place}: the starting weights give an answer of this pair a log-probability of `{logprob}`"
    )]
    ReferenceNotFinite {
        /// Where the pair stands.
        place: String,
        /// What they gave.
        logprob: f32,
    },
    /// A pair is trained on that the reference was not asked about.
    #[error("{place}: the reference was not asked about this pair")]
    NotInReference {
        /// Where the pair stands.
        place: String,
    },
    /// The folder of the starting weights cannot be listed.
    #[error("{path}: cannot read: {source}")]
    Read {
        /// The folder.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// Training, its files or its checks.
    #[error(transparent)]
    Train(#[from] train::Error),
    /// Measuring on what is held out.
    #[error(transparent)]
    Evaluate(#[from] evaluate::Error),
    /// Writing `model/`.
    #[error(transparent)]
    Export(#[from] export::Error),
    /// The files of the reference.
    #[error(transparent)]
    File(#[from] fsio::Error),
}

impl Error {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::ReferenceNotFinite { .. } => {
                Some("measure the model that the stage starts from: temper eval".to_owned())
            }
            Self::NotInReference { .. } => {
                Some("remove the folder `reference` of the stage; it is computed anew".to_owned())
            }
            Self::Read { .. } => Some("check `start` in [dpo]".to_owned()),
            Self::Train(error) => error.hint(),
            Self::Evaluate(error) => error.hint(),
            Self::Export(error) => error.hint(),
            Self::File(error) => error.hint(),
        }
    }
}
