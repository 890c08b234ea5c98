//! What can be wrong with what a judge is given.
//!
//! It deliberately repeats no message of the crates that read recipes and rows.

use std::path::PathBuf;

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error, place first.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The recipe is wrong.
    #[error(transparent)]
    Recipe(#[from] recipe::Error),
    /// Rows could not be read.
    #[error(transparent)]
    Data(#[from] data::Error),
    /// A file of completions could not be read.
    #[error(transparent)]
    File(#[from] fsio::Error),
    /// No source of the recipe says which texts are better.
    #[error("{}: no source has `pairs`", path.display())]
    NoPairs {
        /// The recipe.
        path: PathBuf,
    },
    /// Too few labelled rows are left to fit a judge and to measure it.
    #[error("only {chosen} better and {rejected} worse texts that the recipe's pairs do not have")]
    TooFew {
        /// Texts on the better side.
        chosen: usize,
        /// Texts on the worse side.
        rejected: usize,
    },
    /// A line of completions is not what `temper generate` writes.
    #[error("{}:{line}: {problem}", path.display())]
    Completion {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// A file has no completions.
    #[error("{}: no completions", path.display())]
    NoCompletions {
        /// The file.
        path: PathBuf,
    },
}

impl Error {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Recipe(_) => None,
            Self::Data(source) => source.hint(),
            Self::File(source) => source.hint(),
            Self::NoPairs { .. } => {
                Some("the labels come from `pairs = { from = …, chosen = …, rejected = … }`".into())
            }
            Self::TooFew { .. } => {
                Some("name another file with --rows, or read less of this one with `limit`".into())
            }
            Self::Completion { .. } | Self::NoCompletions { .. } => Some(
                "write the file with `temper generate MODEL --chat --prompt \"…\" --n 256`".into(),
            ),
        }
    }
}
