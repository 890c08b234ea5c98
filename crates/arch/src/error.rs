//! Errors of model configurations: the file, the key, the offending value and a hint.

use std::path::PathBuf;

/// The result type of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A model configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] fsio::Error),
    /// A GGUF file could not be read.
    #[error(transparent)]
    Gguf(#[from] gguf::Error),
    /// The file is not JSON.
    #[error("{}: not valid JSON: {message}", origin.display())]
    Json {
        /// The file.
        origin: PathBuf,
        /// The parser's message, with line and column.
        message: String,
    },
    /// The file contains JSON other than an object.
    #[error("{}: expected a JSON object", origin.display())]
    NotAnObject {
        /// The file.
        origin: PathBuf,
    },
    /// A required key is absent.
    #[error("{}: missing key `{key}`", origin.display())]
    MissingKey {
        /// The file.
        origin: PathBuf,
        /// The absent key.
        key: String,
        /// Hint.
        hint: Option<String>,
    },
    /// The value of a key has the wrong type.
    #[error("{}: key `{key}` must be {expected}: `{found}`", origin.display())]
    WrongType {
        /// The file.
        origin: PathBuf,
        /// The key.
        key: String,
        /// The expected type in words.
        expected: &'static str,
        /// The value, shortened.
        found: String,
    },
    /// A number is out of range.
    #[error("{}: key `{key}` must be {expected}: `{found}`", origin.display())]
    OutOfRange {
        /// The file.
        origin: PathBuf,
        /// The key.
        key: String,
        /// The accepted range in words.
        expected: String,
        /// The value, shortened.
        found: String,
    },
    /// A key changes the forward pass in a way that is not implemented.
    #[error("{}: unsupported value of key `{key}`: `{found}`", origin.display())]
    Unsupported {
        /// The file.
        origin: PathBuf,
        /// The key.
        key: String,
        /// The value, shortened.
        found: String,
        /// The supported values.
        hint: String,
    },
    /// `model_type` names no family that is implemented.
    #[error("{}: unsupported model family, key `model_type`: `{found}`", origin.display())]
    UnknownFamily {
        /// The file.
        origin: PathBuf,
        /// The value of `model_type`, shortened.
        found: String,
        /// The supported families, separated by commas.
        known: String,
    },
    /// Two keys contradict each other.
    #[error("{}: {message}", origin.display())]
    Inconsistent {
        /// The file.
        origin: PathBuf,
        /// The keys and their values.
        message: String,
        /// Hint.
        hint: Option<String>,
    },
    /// The model exceeds the limits of this program.
    #[error("{}: the model is too large: {message}", origin.display())]
    TooLarge {
        /// The file.
        origin: PathBuf,
        /// The size and the limit.
        message: String,
    },
}

impl Error {
    /// Hint.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) => error.hint(),
            Self::Gguf(error) => error.hint(),
            Self::Json { .. } | Self::NotAnObject { .. } => Some(
                "the file may be truncated, or not a config.json; download it again".to_owned(),
            ),
            Self::MissingKey { hint, .. } | Self::Inconsistent { hint, .. } => hint.clone(),
            Self::WrongType { .. } | Self::OutOfRange { .. } => {
                Some("compare it with the config.json that was published with the model".to_owned())
            }
            Self::Unsupported { hint, .. } => Some(hint.clone()),
            Self::UnknownFamily { known, .. } => Some(format!("supported families: {known}")),
            Self::TooLarge { .. } => Some("check the sizes for a wrong digit".to_owned()),
        }
    }
}
