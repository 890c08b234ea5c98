//! Errors of planning: a recipe whose files do not fit it.

use std::path::{Path, PathBuf};

use hub_local::{Kind, get_hint};
use recipe::Loaded;

/// Result of planning.
pub type Result<T> = std::result::Result<T, Error>;

/// Error of planning.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A mistake in the recipe.
    #[error(transparent)]
    Recipe(#[from] recipe::Error),
    /// A mistake in a data file.
    #[error(transparent)]
    Data(#[from] data::Error),
    /// A mistake in a tokenizer or a chat template.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::Error),
    /// A mistake in a config.json or a `[model]` section.
    #[error(transparent)]
    Arch(#[from] arch::Error),
    /// A mistake in an adapter's configuration.
    #[error(transparent)]
    Adapter(#[from] arch::AdapterError),
    /// A mistake in a task or its data.
    #[error(transparent)]
    Task(#[from] tasks::Error),
    /// A file that cannot be read or written.
    #[error(transparent)]
    Files(#[from] fsio::Error),
    /// A repository of the Hugging Face hub without a usable copy on this machine.
    #[error(transparent)]
    Hub(#[from] hub_local::Error),
    /// A directory with several GGUF files.
    #[error("several GGUF files in `{}`", path.display())]
    SeveralGguf {
        /// The directory.
        path: PathBuf,
        /// The files.
        files: Vec<PathBuf>,
    },
    /// `--stage` names a stage that the recipe lacks.
    #[error("no such stage: `{name}`")]
    NoSuchStage {
        /// The stage.
        name: String,
        /// Stages of the recipe.
        stages: String,
    },
    /// A stage on chats whose tokenizer has no chat template.
    #[error("the tokenizer of [{stage}] has no chat template")]
    NoChatTemplate {
        /// Name of the stage.
        stage: String,
    },
    /// The thread that reads texts panicked.
    #[error("reading the training text of the tokenizer failed")]
    ReaderFailed,
    /// A MODEL that does not exist.
    #[error("no model at `{}`", path.display())]
    NoSuchModel {
        /// The path.
        path: PathBuf,
    },
    /// A finished stage whose model was removed, or lost its config.json.
    #[error("the stage has finished, and its model is missing or has no configuration: `{}`", path.display())]
    LostModel {
        /// Where the model was.
        path: PathBuf,
    },
    /// A directory without a model.
    #[error("not a model: `{}` has no config.json and no checkpoints", path.display())]
    NotAModel {
        /// The path.
        path: PathBuf,
    },
    /// Weights in a format that can run code when it is read.
    #[error("weights in PyTorch's pickle format are not read: `{}`", path.display())]
    Pickled {
        /// The file.
        path: PathBuf,
    },
    /// A model directory without weights.
    #[error("no weights: `{}` has neither model.safetensors nor model.safetensors.index.json", path.display())]
    NoWeights {
        /// The directory.
        path: PathBuf,
    },
    /// An adapter without a record of its base model.
    #[error("the base model of the adapter `{}` is unknown", dir.display())]
    NoBase {
        /// The adapter's directory.
        dir: PathBuf,
    },
    /// The record of an adapter's base model names a directory elsewhere, and the adapter is in no run.
    #[error(
        "`{}`: base.json names a base model outside of the adapter's directory, which is followed only within runs: `{}`",
        dir.display(), base.display()
    )]
    ForeignBase {
        /// The adapter's directory.
        dir: PathBuf,
        /// The recorded path.
        base: PathBuf,
    },
    /// The record of an adapter's base model is damaged.
    #[error("{}: not a base model record: {reason}", path.display())]
    BaseFile {
        /// The file.
        path: PathBuf,
        /// Message of the parser.
        reason: String,
    },
    /// The base model of an adapter is missing.
    #[error("the base model of the adapter `{}` is missing: `{}`", dir.display(), base.display())]
    BaseGone {
        /// The adapter's directory.
        dir: PathBuf,
        /// The recorded directory of its base model.
        base: PathBuf,
    },
    /// The weights of a base model differ from those that the adapter was trained on.
    #[error("the adapter `{}` was trained on a different base model than `{}`", dir.display(), base.display())]
    BaseChanged {
        /// The adapter's directory.
        dir: PathBuf,
        /// The base model's directory.
        base: PathBuf,
    },
    /// A run instead of one of its stages.
    #[error("a run, not a model: `{}`", path.display())]
    RunNotStage {
        /// The path.
        path: PathBuf,
        /// Its stages.
        stages: Vec<String>,
    },
}

/// A hint that names a similar path, if there is one.
fn did_you_mean(path: &Path) -> Option<String> {
    fsio::nearest_path(path).map(|near| format!("did you mean `{}`?", near.display()))
}

/// Adds the line of the recipe that names a missing file or model, or one that cannot be used.
pub(crate) trait AtKey<T> {
    fn at_key(self, loaded: &Loaded, key: &str) -> Result<T>;
}

impl<T, E: Into<Error>> AtKey<T> for std::result::Result<T, E> {
    fn at_key(self, loaded: &Loaded, key: &str) -> Result<T> {
        self.map_err(|error| {
            let error = error.into();
            let is_of_path = error.is_of_path();
            if is_of_path && loaded.spans.is_set(key) {
                Error::Recipe(loaded.spans.error(key, error.to_string(), "", error.hint()))
            } else {
                error
            }
        })
    }
}

impl Error {
    /// Whether a path of the recipe names nothing, or something of another kind.
    fn is_of_path(&self) -> bool {
        use tokenizer::Error::{Missing, NoSuchFile};
        if let Self::Files(error) = self {
            return error.is_not_found();
        }
        if let Self::Data(error) = self {
            return error.is_of_path();
        }
        matches!(
            self,
            Self::NoSuchModel { .. }
                | Self::NotAModel { .. }
                | Self::LostModel { .. }
                | Self::RunNotStage { .. }
                | Self::SeveralGguf { .. }
                | Self::Hub(_)
                | Self::Tokenizer(NoSuchFile { .. } | Missing { .. })
        )
    }

    /// Advice on what to do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Recipe(error) => error.hint(),
            Self::Data(error) => error.hint(),
            Self::Tokenizer(tokenizer::Error::Missing { path }) if get_hint(Kind::Model, path).is_some() => {
                get_hint(Kind::Model, path)
            }
            Self::Tokenizer(error) => error.hint(),
            Self::Hub(error) => error.hint(),
            Self::SeveralGguf { files, .. } => {
                let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
                Some(format!("name one of them: {}", names.join(", ")))
            }
            Self::Arch(error) => error.hint(),
            Self::Adapter(error) => error.hint(),
            Self::Task(error) => error.hint(),
            Self::Files(error) => error.hint(),
            Self::NoBase { .. } | Self::ForeignBase { .. } => Some(
                "name both: `start` and `lora.adapter` in a recipe, MODEL and --base on the command \
                 line"
                    .to_owned(),
            ),
            Self::BaseFile { .. } => Some("export or train the adapter again".to_owned()),
            Self::BaseGone { .. } => {
                Some("restore it; `temper export --merge` makes a model that needs no base".to_owned())
            }
            Self::BaseChanged { .. } => Some(
                "an adapter fits only the weights that it was trained on: restore them, or train the \
                 adapter again"
                    .to_owned(),
            ),
            Self::NoChatTemplate { stage } => {
                Some(format!("add `chat_template = \"chatml\"` to [{stage}]"))
            }
            Self::NoSuchStage { stages, .. } => Some(format!("the recipe has: {stages}")),
            Self::ReaderFailed => Some("this is a bug in temper: please report it".to_owned()),
            Self::LostModel { .. } => Some(
                "restore it from a backup, or name a checkpoint of the stage; to write it again, remove finished.json and \
                 `temper resume` the run"
                    .to_owned(),
            ),
            Self::NoSuchModel { path } => did_you_mean(path).or_else(|| get_hint(Kind::Model, path)).or_else(|| {
                Some(
                    "use a run's stage (runs/x/sft), a checkpoint, or a Hugging Face directory; `temper \
                     runs` lists all runs"
                        .to_owned(),
                )
            }),
            Self::NoWeights { .. } => {
                Some("convert weights in other formats to safetensors".to_owned())
            }
            Self::Pickled { .. } => Some(
                "convert to safetensors: with transformers, `save_pretrained(DIR)` of the loaded model writes them"
                    .to_owned(),
            ),
            Self::NotAModel { .. } => Some(
                "a model directory has config.json, model.safetensors and tokenizer.json"
                    .to_owned(),
            ),
            Self::RunNotStage { path, stages } => {
                let named: Vec<String> =
                    stages.iter().map(|stage| path.join(stage).display().to_string()).collect();
                Some(format!("use one of its stages: {}", named.join(", ")))
            }
        }
    }
}
