//! What can be wrong with a model's description; says what was found and where, never decides what to do about it.

use std::path::PathBuf;

/// The result type of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A description of a model that cannot be used, with the place it came from first.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] fsio::Error),
    /// A file is not JSON.
    #[error("{}: not valid JSON: {message}", origin.display())]
    Json {
        /// The file.
        origin: PathBuf,
        /// What the parser says, with line and column.
        message: String,
    },
    /// A file holds JSON, but not an object.
    #[error("{}: expected a JSON object", origin.display())]
    NotAnObject {
        /// The file.
        origin: PathBuf,
    },
    /// A key without which the model is not known is absent.
    #[error("{}: missing key `{key}`", origin.display())]
    MissingKey {
        /// The file.
        origin: PathBuf,
        /// The absent key.
        key: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// A key holds a value of another type.
    #[error("{}: key `{key}` must be {expected}: `{found}`", origin.display())]
    WrongType {
        /// The file.
        origin: PathBuf,
        /// The key.
        key: String,
        /// The expected type, as words.
        expected: &'static str,
        /// The value found, shortened.
        found: String,
    },
    /// A number lies outside what this program accepts.
    #[error("{}: key `{key}` must be {expected}: `{found}`", origin.display())]
    OutOfRange {
        /// The file.
        origin: PathBuf,
        /// The key.
        key: String,
        /// The accepted range, as words.
        expected: String,
        /// The value found.
        found: String,
    },
    /// A key changes the mathematics in a way that is not implemented.
    #[error("{}: key `{key}` has a value that is not supported: `{found}`", origin.display())]
    Unsupported {
        /// The file.
        origin: PathBuf,
        /// The key.
        key: String,
        /// The value found, shortened.
        found: String,
        /// Which values are supported.
        hint: String,
    },
    /// A key that nothing here knows, so it may change the mathematics.
    #[error("{}: unknown key `{key}` with value: `{found}`", origin.display())]
    UnknownKey {
        /// The file.
        origin: PathBuf,
        /// The key.
        key: String,
        /// The value found, shortened.
        found: String,
    },
    /// `model_type` is no family of this program.
    #[error("{}: unknown model family: `{found}`", origin.display())]
    UnknownFamily {
        /// The file.
        origin: PathBuf,
        /// The value of `model_type`.
        found: String,
        /// The known families, joined by commas.
        known: String,
    },
    /// Two keys of one description contradict each other.
    #[error("{}: {message}", origin.display())]
    Inconsistent {
        /// The file.
        origin: PathBuf,
        /// Which keys and values.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The model would be larger than anything this program handles.
    #[error("{}: the model is too large: {message}", origin.display())]
    TooLarge {
        /// The file.
        origin: PathBuf,
        /// Which product went over which limit.
        message: String,
    },
}

impl Error {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) => error.hint(),
            Self::Json { .. } | Self::NotAnObject { .. } => {
                Some("the file may be cut short or no config.json; fetch it again".to_owned())
            }
            Self::MissingKey { hint, .. } | Self::Inconsistent { hint, .. } => hint.clone(),
            Self::WrongType { .. } | Self::OutOfRange { .. } => {
                Some("compare it with the config.json that was published with the model".to_owned())
            }
            Self::Unsupported { hint, .. } => Some(hint.clone()),
            Self::UnknownKey { key, .. } => Some(format!(
                "a key that changes the mathematics must not be ignored; if `{key}` changes nothing, remove it from the file"
            )),
            Self::UnknownFamily { known, .. } => Some(format!("known families: {known}")),
            Self::TooLarge { .. } => Some("look for a wrong digit in the sizes".to_owned()),
        }
    }
}
