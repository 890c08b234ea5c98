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
    /// The description of the adapter makes none, or none of this model.
    #[error(transparent)]
    Config(#[from] arch::AdapterError),
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
            Self::Config(error) => return error.hint(),
            Self::Occupied { .. } => "merge the adapter before another is attached".to_owned(),
            Self::NoAdapter => "attach or load an adapter first".to_owned(),
            Self::WrongModel { .. } => {
                "put an adapter back into the model that it was taken from".to_owned()
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
