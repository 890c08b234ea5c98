//! What can go wrong in an evaluation or a replay, with the remedy. Differences beyond a tolerance are
//! no errors: they are what a report says.

use std::path::PathBuf;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something could not be measured or replayed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Batches without a single target: a mean over nothing.
    #[error("nothing to measure: the batches hold no targets")]
    NoTargets,
    /// Batches without a single pair: a mean over nothing.
    #[error("nothing to measure: there are no pairs")]
    NoPairs,
    /// A model whose loss is NaN or infinite.
    #[error("the evaluation loss is not finite: `{0}`")]
    NotFinite(f64),
    /// A file of reference vectors that lacks something or holds something else.
    #[error("{path}: {reason}", path = path.display())]
    BadVectors {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the name of the tensor.
        reason: String,
    },
    /// A folder or file that holds no reference vectors of any kind.
    #[error("{}: not a folder or file of reference vectors", .path.display())]
    NoReference {
        /// The folder or file.
        path: PathBuf,
    },
    /// A file of reference vectors that cannot be read, or lacks a tensor.
    #[error(transparent)]
    Tensors(#[from] tensor_file::Error),
    /// A file.
    #[error(transparent)]
    File(#[from] fsio::Error),
    /// A config.json.
    #[error(transparent)]
    Config(#[from] arch::Error),
    /// A model directory.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// An adapter.
    #[error(transparent)]
    Lora(#[from] lora::Error),
    /// A continuation.
    #[error(transparent)]
    Generate(#[from] generate::Error),
    /// A PPO update.
    #[error(transparent)]
    Policy(#[from] rl::Error),
    /// A training step.
    #[error(transparent)]
    Train(#[from] train::Error),
}

impl Error {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoTargets => {
                Some("the text must be longer than one token; check the file".to_owned())
            }
            Self::NoPairs => {
                Some("rows need `chosen` and `rejected` that differ; check the file".to_owned())
            }
            Self::NotFinite(_) => {
                Some("the model has diverged: evaluate an earlier checkpoint".to_owned())
            }
            Self::BadVectors { .. } | Self::Tensors(_) => {
                Some("create the vectors again with make_golden.py of the reference".to_owned())
            }
            Self::NoReference { .. } => Some(
                "a model folder needs io.safetensors, a training folder batches.safetensors"
                    .to_owned(),
            ),
            Self::File(error) => error.hint(),
            Self::Config(error) => error.hint(),
            Self::Model(error) => error.hint(),
            Self::Lora(error) => error.hint(),
            Self::Generate(error) => error.hint(),
            Self::Policy(error) => error.hint(),
            Self::Train(error) => error.hint(),
        }
    }
}
