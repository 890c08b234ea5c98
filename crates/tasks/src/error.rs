//! Errors of tasks and of the rows that they read, with hints.

use std::path::PathBuf;

/// Result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No built-in task has this name.
    #[error("no built-in task: `{name}`")]
    Unknown {
        /// The name.
        name: String,
        /// The most similar name.
        nearest: Option<&'static str>,
    },
    /// A task file that cannot be used.
    #[error("{origin}{}: {reason}", .line.map(|line| format!(":{line}")).unwrap_or_default())]
    Definition {
        /// The file, or the name of a built-in task.
        origin: String,
        /// Line of the problem, from 1, if known.
        line: Option<usize>,
        /// The problem.
        reason: String,
        /// A remedy.
        hint: Option<String>,
    },
    /// No file has the rows of a task.
    #[error("task `{task}` has no {what}: {reason}")]
    NoData {
        /// The task.
        task: String,
        /// `data` or `few-shot data`.
        what: &'static str,
        /// The files that were looked for.
        reason: String,
        /// A remedy.
        hint: String,
    },
    /// A row that does not fit the task.
    #[error("{place}: {reason}")]
    Row {
        /// Location of the row.
        place: String,
        /// The problem, with the key of the task.
        reason: String,
        /// The task.
        task: String,
    },
    /// A number of few-shot examples that the task cannot have.
    #[error("task `{task}` cannot have {shots} few-shot examples: {reason}")]
    Shots {
        /// The task.
        task: String,
        /// The number.
        shots: usize,
        /// The problem.
        reason: String,
        /// A remedy.
        hint: &'static str,
    },
    /// A file of rows cannot be read.
    #[error(transparent)]
    Data(Box<data::Error>),
    /// A task file cannot be read.
    #[error(transparent)]
    File(#[from] fsio::Error),
}

impl From<data::Error> for Error {
    fn from(error: data::Error) -> Self {
        // The largest of the errors here, which would make every result large.
        Self::Data(Box::new(error))
    }
}

impl Error {
    /// A remedy.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown { nearest: Some(nearest), .. } => Some(format!(
                "similar names: `{nearest}`; built-in tasks: {}; a task of your own is a path that ends in .toml",
                crate::builtin_names().join(", ")
            )),
            Self::Unknown { nearest: None, .. } => Some(format!(
                "built-in tasks: {}; a task of your own is a path that ends in .toml",
                crate::builtin_names().join(", ")
            )),
            Self::Definition { hint, .. } => hint.clone(),
            Self::NoData { hint, .. } => Some(hint.clone()),
            Self::Row { task, .. } => Some(format!(
                "the row does not have the form that task `{task}` reads; docs/evaluate.md describes it"
            )),
            Self::Shots { hint, .. } => Some((*hint).to_owned()),
            Self::Data(error) if matches!(**error, data::Error::Row { .. }) => {
                Some("correct or remove the row".to_owned())
            }
            Self::Data(error) => error.hint(),
            Self::File(error) => error.hint(),
        }
    }

    pub(crate) fn definition(origin: &str, reason: impl Into<String>) -> Self {
        Self::Definition {
            origin: origin.to_owned(),
            line: None,
            reason: reason.into(),
            hint: None,
        }
    }
}

/// A file that was looked for.
pub(crate) fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| format!("`{}`", path.display())).collect::<Vec<_>>().join(", ")
}
