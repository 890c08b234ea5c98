//! What can be wrong with an adapter: its settings, its files, or the model that it is meant for.
//!
//! It deliberately guesses no repair; a hint says what the user can do.

use std::path::PathBuf;

/// Result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;

/// An adapter that cannot be attached, read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] fsio::Error),
    /// A weight file is wrong.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// A setting has a value that makes no adapter.
    #[error("lora `{key}` must be {expected}: `{value}`")]
    OutOfRange {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A pattern of target modules is no regular expression that is understood here.
    #[error("target_modules is not a regular expression: `{pattern}`: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it, on one line.
        reason: String,
    },
    /// A target is no layer of the model.
    #[error("target_modules names no layer of the model: `{target}`")]
    NoSuchTarget {
        /// The name or pattern.
        target: String,
        /// The last parts of the names that there are.
        known: Vec<String>,
    },
    /// A target is a part of the model that no adapter can stand beside.
    #[error("target_modules names what can carry no adapter: `{module}`")]
    NotALayer {
        /// The module's name.
        module: String,
        /// The last parts of the names that can.
        known: Vec<String>,
    },
    /// A target is a matrix that the model uses twice.
    #[error("target_modules names a matrix that is embedding and head at once: `{module}`")]
    Tied {
        /// The module's name.
        module: String,
    },
    /// The model carries an adapter already.
    #[error("the layer has an adapter already: `{layer}`")]
    Occupied {
        /// The first such layer.
        layer: String,
    },
    /// The model carries no adapter.
    #[error("the model has no adapter")]
    NoAdapter,
    /// A removed adapter does not fit the model that it is to be put back into.
    #[error("the model has no free layer of that name and shape: `{layer}`")]
    WrongModel {
        /// The layer.
        layer: String,
    },
    /// An adapter's settings ask for something that is not supported.
    #[error("{}: not supported: `{key}` = {value}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// Its value as JSON, cut short.
        value: String,
    },
    /// A file is not what its format asks for.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A directory holds no adapter.
    #[error("{}: no {file}", dir.display())]
    NotAnAdapter {
        /// The directory.
        dir: PathBuf,
        /// The absent file.
        file: &'static str,
        /// Whether weights in PyTorch's own format stand there.
        pickled: bool,
    },
    /// The adapter's file lacks a tensor that its settings promise.
    #[error("{}: tensor missing: `{name}`{}", path.display(), others(*more))]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The first absent tensor.
        name: String,
        /// How many more are absent.
        more: usize,
    },
    /// The adapter's file holds a tensor that its settings or the model have no place for.
    #[error("{}: tensor without a place in model and settings: `{name}`{}", path.display(), others(*more))]
    LeftOver {
        /// The file.
        path: PathBuf,
        /// The first such tensor.
        name: String,
        /// How many more there are.
        more: usize,
    },
}

impl Error {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::File(error) => return error.hint(),
            Self::Model(model::Error::Shape { .. }) => {
                "the adapter was made for another base, or with another `r`".to_owned()
            }
            Self::Model(error) => return error.hint(),
            Self::OutOfRange { key, .. } => format!("change `{key}` of the adapter"),
            Self::Pattern { .. } => {
                "the whole name of a layer must match; look-around and back-references are not \
                 understood: a list of names says the same"
                    .to_owned()
            }
            Self::NoSuchTarget { known, .. } | Self::NotALayer { known, .. } => {
                format!("layers of this model: `{}`", known.join("`, `"))
            }
            Self::Tied { .. } => {
                "an adapter would change both uses; take it out of target_modules".to_owned()
            }
            Self::Occupied { .. } => "merge the adapter before another is attached".to_owned(),
            Self::NoAdapter => "attach or load an adapter first".to_owned(),
            Self::WrongModel { .. } => {
                "put an adapter back into the model that it was taken from".to_owned()
            }
            Self::Unsupported { .. } => {
                "merge the adapter with PEFT (merge_and_unload) and load the merged model"
                    .to_owned()
            }
            Self::Malformed { .. } => {
                "the file is damaged or of another kind; fetch or save the adapter again".to_owned()
            }
            Self::NotAnAdapter { pickled: true, .. } => {
                "files in PyTorch's own format can run code and are not read; save the adapter \
                 again with a PEFT that writes adapter_model.safetensors"
                    .to_owned()
            }
            Self::NotAnAdapter { .. } => {
                "name the directory that holds adapter_config.json and adapter_model.safetensors"
                    .to_owned()
            }
            Self::MissingTensor { .. } | Self::LeftOver { .. } => {
                "the adapter's settings, its weights and the base must belong together".to_owned()
            }
        })
    }
}

fn others(more: usize) -> String {
    match more {
        0 => String::new(),
        more => format!(" and {more} more"),
    }
}
