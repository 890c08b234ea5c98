//! What can be wrong with a recipe once its files have been looked at.

use std::path::PathBuf;

/// The result of planning.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a recipe cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The recipe itself.
    #[error(transparent)]
    Recipe(#[from] recipe::Error),
    /// A data file.
    #[error(transparent)]
    Data(#[from] data::Error),
    /// A tokenizer or a template.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::Error),
    /// A config.json or a `[model]` section.
    #[error(transparent)]
    Arch(#[from] arch::Error),
    /// An adapter's settings.
    #[error(transparent)]
    Adapter(#[from] arch::AdapterError),
    /// A file of our own.
    #[error(transparent)]
    Files(#[from] fsio::Error),
    /// `--stage` names none of the recipe's.
    #[error("no such stage: `{name}`")]
    NoSuchStage {
        /// What was named.
        name: String,
        /// The recipe's stages.
        stages: String,
    },
    /// A stage on chats whose tokenizer has no chat template.
    #[error("the tokenizer of [{stage}] has no chat template")]
    NoChatTemplate {
        /// Name of the stage.
        stage: String,
    },
    /// The thread that reads texts died.
    #[error("reading the text to train a tokenizer on failed")]
    ReaderFailed,
    /// A MODEL that is not there.
    #[error("no model at `{}`", path.display())]
    NoSuchModel {
        /// What was named.
        path: PathBuf,
    },
    /// A folder without a model.
    #[error("not a model: `{}` has no config.json and no checkpoints", path.display())]
    NotAModel {
        /// What was named.
        path: PathBuf,
    },
    /// A model directory without weights.
    #[error("no weights: `{}` has neither model.safetensors nor model.safetensors.index.json", path.display())]
    NoWeights {
        /// The directory.
        path: PathBuf,
    },
    /// An adapter of which nobody knows what it stands beside.
    #[error("an adapter without its base: `{}`", dir.display())]
    NoBase {
        /// The adapter's folder.
        dir: PathBuf,
    },
    /// The record of an adapter's base is damaged.
    #[error("{}: not what temper writes: {reason}", path.display())]
    BaseFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The base of an adapter is not where it was.
    #[error("the base of the adapter `{}` is not there: `{}`", dir.display(), base.display())]
    BaseGone {
        /// The adapter's folder.
        dir: PathBuf,
        /// Where its base was.
        base: PathBuf,
    },
    /// The base of an adapter holds other weights than it was trained beside.
    #[error("the adapter `{}` was trained beside other weights than those of `{}`", dir.display(), base.display())]
    BaseChanged {
        /// The adapter's folder.
        dir: PathBuf,
        /// Its base.
        base: PathBuf,
    },
    /// A run where a stage was wanted.
    #[error("a run, not a model: `{}`", path.display())]
    RunNotStage {
        /// What was named.
        path: PathBuf,
        /// The stages it has.
        stages: Vec<String>,
    },
}

impl Error {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Recipe(error) => error.hint(),
            Self::Data(error) => error.hint(),
            Self::Tokenizer(error) => error.hint(),
            Self::Arch(error) => error.hint(),
            Self::Adapter(error) => error.hint(),
            Self::Files(error) => error.hint(),
            Self::NoBase { .. } => Some(
                "give the base as the model and the adapter beside it: `start` and \
                 `lora.adapter` in a recipe, --base on the command line"
                    .to_owned(),
            ),
            Self::BaseFile { .. } => Some("export or train the adapter again".to_owned()),
            Self::BaseGone { .. } => {
                Some("put it back, or merge adapters before a run is cleaned up".to_owned())
            }
            Self::BaseChanged { .. } => Some(
                "an adapter means nothing beside other weights: train it again, or put the old \
                 weights back"
                    .to_owned(),
            ),
            Self::NoChatTemplate { stage } => {
                Some(format!("add `chat_template = \"chatml\"` to [{stage}]"))
            }
            Self::NoSuchStage { stages, .. } => Some(format!("the recipe has: {stages}")),
            Self::ReaderFailed => Some("this is a fault in temper: please report it".to_owned()),
            Self::NoSuchModel { .. } => Some(
                "name a run's stage (runs/x/sft), a checkpoint, or a Hugging Face directory; \
                 `temper runs` lists what there is"
                    .to_owned(),
            ),
            Self::NoWeights { .. } => {
                Some("weights in other formats must be converted to safetensors first".to_owned())
            }
            Self::NotAModel { .. } => Some(
                "a model directory holds config.json, model.safetensors and tokenizer.json"
                    .to_owned(),
            ),
            Self::RunNotStage { path, stages } => {
                let named: Vec<String> =
                    stages.iter().map(|stage| path.join(stage).display().to_string()).collect();
                Some(format!("name one of its stages: {}", named.join(", ")))
            }
        }
    }
}
