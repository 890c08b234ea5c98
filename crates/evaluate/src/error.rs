//! Errors of evaluations and replays, with hints. A difference above its tolerance is not an error but a result, which the
//! report has.

use std::path::PathBuf;

/// Result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed evaluation or replay.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The batches have no targets, so there is no mean.
    #[error("nothing to measure: the batches have no targets")]
    NoTargets,
    /// The batches have no pairs, so there is no mean.
    #[error("nothing to measure: there are no pairs")]
    NoPairs,
    /// The loss is NaN or infinite.
    #[error("the evaluation loss is not finite: `{0}`")]
    NotFinite(f64),
    /// A file of reference vectors has unexpected contents.
    #[error("{path}: {reason}", path = path.display())]
    BadVectors {
        /// The file.
        path: PathBuf,
        /// The problem, with the name of the tensor.
        reason: String,
    },
    /// A proof has unexpected contents.
    #[error("{}: {reason}", .path.display())]
    BadProof {
        /// The file.
        path: PathBuf,
        /// The problem.
        reason: String,
    },
    /// An adapter's proof cannot be replayed without its base model, or with another one.
    #[error("{}: {reason}", .path.display())]
    ProofBase {
        /// The adapter's directory.
        path: PathBuf,
        /// The problem.
        reason: &'static str,
    },
    /// The files of an export do not compute what the model computes.
    #[error("the written files do not compute what the model computes: {reason}")]
    NoProof {
        /// The first difference.
        reason: String,
    },
    /// A directory or file has no reference vectors of any kind.
    #[error("{}: not a directory or file of reference vectors", .path.display())]
    NoReference {
        /// The directory or file.
        path: PathBuf,
    },
    /// A reward model whose tokenizer has no chat template.
    #[error("the reward model has no chat template")]
    NoChatTemplate,
    /// A task whose completions a reward model ranks, and no reward model.
    #[error("task `{task}` needs a reward model, which ranks its completions")]
    NoRewardModel {
        /// The task.
        task: String,
    },
    /// A prompt of a task that does not fit the model.
    #[error("{place}: {reason}")]
    Prompt {
        /// Location of the row.
        place: String,
        /// The problem.
        reason: String,
    },
    /// A task or its data cannot be used.
    #[error(transparent)]
    Task(#[from] tasks::Error),
    /// A file of reference vectors cannot be read, or lacks a tensor.
    #[error(transparent)]
    Tensors(#[from] tensor_file::Error),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] fsio::Error),
    /// A config.json is wrong.
    #[error(transparent)]
    Config(#[from] arch::Error),
    /// A tokenizer cannot be read, or cannot encode a prompt.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::Error),
    /// A model cannot be found.
    #[error(transparent)]
    Plan(#[from] plan::Error),
    /// A model directory cannot be read.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// An adapter cannot be read.
    #[error(transparent)]
    Lora(#[from] lora::Error),
    /// Generation failed.
    #[error(transparent)]
    Generate(#[from] generate::Error),
    /// A PPO update failed.
    #[error(transparent)]
    Rl(#[from] rl::Error),
    /// A training step failed.
    #[error(transparent)]
    Train(#[from] train::Error),
}

impl Error {
    /// A hint for the user.
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
            Self::NoChatTemplate => Some("use a model trained on pairs or chats".to_owned()),
            Self::NoRewardModel { .. } => Some("name one with --reward MODEL".to_owned()),
            Self::Prompt { .. } => Some(
                "change the task's prompt or its lengths, or use a model with a longer context".to_owned(),
            ),
            Self::Task(error) => error.hint(),
            Self::BadProof { .. } => Some("export the model again".to_owned()),
            Self::ProofBase { .. } => {
                Some("name the base model that the adapter was trained on: --base DIR".to_owned())
            }
            Self::NoProof { .. } => {
                Some("nothing was exported; please report this with the model's config.json".to_owned())
            }
            Self::NoReference { .. } => Some(
                "an export has temper_proof.json, a GGUF file NAME.proof.json beside it, a reference model \
                 io.safetensors, a reference run batches.safetensors"
                    .to_owned(),
            ),
            Self::File(error) => error.hint(),
            Self::Config(error) => error.hint(),
            Self::Tokenizer(error) => error.hint(),
            Self::Plan(error) => error.hint(),
            Self::Model(error) => error.hint(),
            Self::Lora(error) => error.hint(),
            Self::Generate(error) => error.hint(),
            Self::Rl(error) => error.hint(),
            Self::Train(error) => error.hint(),
        }
    }
}
