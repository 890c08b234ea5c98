//! Errors in the two source files. The tests check the writing itself.

use std::path::PathBuf;

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error with its place in the source files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] fsio::Error),
    /// The slots file is not TOML, or not a table of lists of strings.
    #[error("{path}: {message}")]
    Slots {
        /// The slots file.
        path: PathBuf,
        /// The message of the TOML parser.
        message: String,
    },
    /// A line of the patterns file is invalid.
    #[error("{path}:{line}: {problem}: `{value}`")]
    Pattern {
        /// The patterns file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The problem.
        problem: &'static str,
        /// The offending text.
        value: String,
    },
    /// The patterns yield too few distinct comments.
    #[error("the patterns yield {found} distinct comments and {wanted} are needed: `{part}`")]
    TooFew {
        /// The split of the patterns.
        part: String,
        /// The number they yield.
        found: usize,
        /// The number needed.
        wanted: usize,
    },
    /// Serialising a row or compressing a file failed.
    #[error("cannot encode `{name}`: {source}")]
    Pack {
        /// The output file.
        name: String,
        /// The cause.
        source: std::io::Error,
    },
}

impl Error {
    /// A suggested fix, where the message does not already imply it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) => error.hint(),
            Self::Slots { .. } => {
                Some("each slot is a line `name = [\"filler\", \"filler\"]`".into())
            }
            Self::Pattern { .. } => {
                Some("each pattern is a line `emotion<TAB>topic<TAB>text with {slots}`".into())
            }
            Self::TooFew { .. } => Some("write more patterns, or use more slots in them".into()),
            Self::Pack { .. } => None,
        }
    }
}
