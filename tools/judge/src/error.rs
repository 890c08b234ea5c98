//! Errors of the judge. Errors of the crates that read recipes and rows are passed through.

use std::path::PathBuf;

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the judge; messages start with the file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The recipe is invalid.
    #[error(transparent)]
    Recipe(#[from] recipe::Error),
    /// Rows could not be read.
    #[error(transparent)]
    Data(#[from] data::Error),
    /// A file of completions could not be read.
    #[error(transparent)]
    File(#[from] fsio::Error),
    /// No data source of the recipe has `pairs`.
    #[error("{}: no data source has `pairs`", path.display())]
    NoPairs {
        /// The recipe.
        path: PathBuf,
    },
    /// Too few labelled texts remain for fitting and cross-validation.
    #[error("only {chosen} better and {rejected} worse texts do not occur in the recipe's pairs")]
    TooFew {
        /// Number of better texts.
        chosen: usize,
        /// Number of worse texts.
        rejected: usize,
    },
    /// A line is not in the format of `temper generate`.
    #[error("{}:{line}: {problem}", path.display())]
    Completion {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The problem.
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
    /// A suggested fix, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Recipe(_) => None,
            Self::Data(source) => source.hint(),
            Self::File(source) => source.hint(),
            Self::NoPairs { .. } => {
                Some("the labels come from `pairs = { from = …, chosen = …, rejected = … }`".into())
            }
            Self::TooFew { .. } => {
                Some("pass a larger file with --rows, or lower the recipe's `limit` so that more rows are unseen".into())
            }
            Self::Completion { .. } | Self::NoCompletions { .. } => Some(
                "write the file with `temper generate MODEL --chat --prompt \"…\" --n 256`".into(),
            ),
        }
    }
}
