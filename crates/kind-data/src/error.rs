//! What can be wrong with the two source files.
//!
//! It deliberately says nothing about the writing itself; that is for readers.

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
        /// What the TOML reader said.
        message: String,
    },
    /// A line of the patterns file is not what it should be.
    #[error("{path}:{line}: {problem}: `{value}`")]
    Pattern {
        /// The patterns file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        problem: &'static str,
        /// The offending text.
        value: String,
    },
    /// The patterns can't give as many distinct comments as asked for.
    #[error("the patterns give only {found} distinct comments where {wanted} are needed: `{part}`")]
    TooFew {
        /// Which part of the patterns.
        part: String,
        /// The most they give.
        found: usize,
        /// How many are needed.
        wanted: usize,
    },
    /// A row could not be written as JSON, or a stream could not be packed.
    #[error("cannot pack `{name}`: {source}")]
    Pack {
        /// The output file.
        name: String,
        /// What went wrong.
        source: std::io::Error,
    },
}

impl Error {
    /// What to do next, where that is not plain from the message.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) => error.hint(),
            Self::Slots { .. } => Some("a slot is a line `name = [\"filler\", \"filler\"]`".into()),
            Self::Pattern { .. } => {
                Some("a pattern is a line `emotion<TAB>topic<TAB>text with {slots}`".into())
            }
            Self::TooFew { .. } => Some("write more patterns, or give them more slots".into()),
            Self::Pack { .. } => None,
        }
    }
}
