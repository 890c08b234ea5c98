//! Errors in the files of a model: the file, the tensor if there is one, and a hint.

use std::path::PathBuf;

/// Result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;

/// A model directory or weight file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read, or is larger than its limit.
    #[error(transparent)]
    File(#[from] fsio::Error),
    /// config.json is wrong.
    #[error(transparent)]
    Config(#[from] arch::Error),
    /// A weight file cannot be read or written, or does not have the model's tensors.
    #[error(transparent)]
    Tensors(#[from] tensor_file::Error),
    /// A file has a tensor that the model does not have.
    #[error("{}: tensor that the model does not have: `{name}`{}", path.display(), others(*more))]
    LeftOver {
        /// The file.
        path: PathBuf,
        /// The first such tensor.
        name: String,
        /// Number of further ones.
        more: usize,
    },
    /// A tensor's values contradict config.json.
    #[error("{}: tensor `{name}` {reason}", path.display())]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Contradiction to config.json.
        reason: &'static str,
    },
    /// A weight is packed into 4 or 8 bits, which no file format of this crate stores.
    #[error("weight `{name}` is packed into fewer bits and cannot be written")]
    Packed {
        /// The tensor.
        name: String,
    },
    /// A weight that bitsandbytes packed is not complete, or contradicts config.json.
    #[error("{}: packed weight `{name}` {reason}", path.display())]
    Packing {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The problem.
        reason: String,
    },
    /// The directory describes a model with another head than the one requested.
    #[error("{}: holds {found}, not {expected}", dir.display())]
    WrongHead {
        /// The directory.
        dir: PathBuf,
        /// The directory's model.
        found: &'static str,
        /// The requested model.
        expected: &'static str,
    },
}

impl Error {
    /// A hint for the user.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::File(error) => return error.hint(),
            Self::Config(error) => return error.hint(),
            Self::LeftOver { .. }
            | Self::Tensors(
                tensor_file::Error::MissingTensor { .. } | tensor_file::Error::Shape { .. },
            ) => "config.json and the weights are not of the same model; fetch both again",
            Self::Tensors(error) => return error.hint(),
            Self::Contradiction { .. } => "correct the key in config.json, or remove the tensor",
            Self::WrongHead { .. } => {
                "name a model of the right kind; see `architectures` in config.json"
            }
            Self::Packing { .. } => {
                "save the model again with a current version of bitsandbytes and transformers"
            }
            Self::Packed { .. } => "write the adapter, or load the base in f32 or bf16",
        };
        Some(text.to_owned())
    }
}

fn others(more: usize) -> String {
    match more {
        0 => String::new(),
        more => format!(" and {more} more"),
    }
}
