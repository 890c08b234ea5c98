//! Errors of references and of their copies on this machine.

use std::path::PathBuf;

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// A reference that cannot be read, or whose copy is missing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not of the form `hf:OWNER/NAME`.
    #[error("not a repository on the Hugging Face hub: `{}`: {problem}", text.escape_debug())]
    BadReference {
        /// The reference as written.
        text: String,
        /// The problem.
        problem: &'static str,
    },
    /// No copy on this machine.
    #[error("`{reference}` is not on this machine{}", seen(found))]
    Missing {
        /// The reference.
        reference: String,
        /// The command that downloads it.
        command: String,
        /// Copies that were found and cannot be used, as sentences.
        found: Vec<String>,
    },
    /// A copy lacks the file that the reference names.
    #[error("{}: no file or directory `{inside}` in the copy of `{reference}`", dir.display())]
    NoSuchFile {
        /// The reference.
        reference: String,
        /// The copy.
        dir: PathBuf,
        /// The path in it.
        inside: String,
        /// The command that downloads it.
        command: String,
    },
    /// The record in a directory that `temper get` wrote is damaged.
    #[error("{}: not a record of `temper get`: {reason}", path.display())]
    BadRecord {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A file that cannot be read.
    #[error(transparent)]
    Files(#[from] fsio::Error),
}

impl Error {
    /// Advice for the user, if there is any.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::BadReference { .. } => Some(
                "write hf:OWNER/MODEL or hf:datasets/OWNER/NAME, with @REV for a branch, a tag or a commit"
                    .to_owned(),
            ),
            Self::Missing { command, .. } => Some(format!(
                "`{command}` downloads it; only that command connects to the network"
            )),
            Self::NoSuchFile { command, .. } => Some(format!(
                "check the name; `{command}` downloads a file that was left out"
            )),
            Self::BadRecord { .. } => Some(
                "remove the directory and download it again, or remove the record to keep the files as your own"
                    .to_owned(),
            ),
            Self::Files(error) => error.hint(),
        }
    }
}

fn seen(found: &[String]) -> String {
    found.iter().flat_map(|sentence| ["; ", sentence.as_str()]).collect()
}
