//! Errors of GGUF files: the file, the offending value and a hint.

use std::io;
use std::path::PathBuf;

/// The result type of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A GGUF file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system failed to read the file.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file could not be written.
    #[error("cannot write GGUF data: {source}")]
    Write {
        /// The cause.
        source: io::Error,
    },
    /// The bytes contradict the format.
    #[error("{}: not a valid GGUF file: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The contradiction.
        reason: String,
    },
    /// The file is valid but uses something that is not supported.
    #[error("{}: {reason}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The unsupported value.
        reason: String,
        /// Hint.
        hint: String,
    },
    /// A required metadata key is absent.
    #[error("{}: missing metadata key `{key}`", path.display())]
    MissingKey {
        /// The file.
        path: PathBuf,
        /// The absent key.
        key: String,
    },
    /// A metadata value has another type than the key requires.
    #[error("{}: metadata key `{key}` must be {expected}: `{found}`", path.display())]
    WrongType {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The expected type in words.
        expected: &'static str,
        /// The value, shortened.
        found: String,
    },
    /// A tensor is absent.
    #[error("{}: missing tensor `{name}`", path.display())]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name in the file.
        name: String,
    },
    /// A weight is infinite or not a number.
    #[error("{}: tensor `{name}` contains `{value}` at index {index}", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor's name in the file.
        name: String,
        /// The value.
        value: f32,
        /// Its index in the flattened tensor.
        index: usize,
    },
    /// A model cannot be expressed in GGUF.
    #[error("cannot be written as GGUF: {reason}")]
    NotExportable {
        /// The part that has no counterpart.
        reason: String,
        /// Hint.
        hint: String,
    },
    /// Tensors were passed to the writer in another order, number or size than declared.
    #[error("tensor `{name}` was not expected here")]
    OutOfOrder {
        /// The tensor.
        name: String,
    },
}

impl Error {
    /// Hint, if there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unsupported { hint, .. } | Self::NotExportable { hint, .. } => Some(hint.clone()),
            Self::Malformed { .. } => {
                Some("the file may be incomplete: copy or download it again".to_owned())
            }
            Self::MissingKey { .. } | Self::WrongType { .. } => {
                Some("convert the model again with a recent llama.cpp".to_owned())
            }
            Self::NotFinite { .. } => Some("weights must be finite".to_owned()),
            Self::Read { .. }
            | Self::Write { .. }
            | Self::MissingTensor { .. }
            | Self::OutOfOrder { .. } => None,
        }
    }
}
