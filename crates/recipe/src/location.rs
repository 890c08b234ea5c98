//! Key paths, and locations in a recipe or on the command line.

use std::fmt;
use std::path::PathBuf;

/// Location of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyLocation {
    /// In a file.
    File {
        /// The recipe.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Character in the line, from 1.
        column: usize,
    },
    /// On the command line.
    Override {
        /// The override, `key=value`.
        argument: String,
    },
}

impl fmt::Display for KeyLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Override { argument } => write!(f, "--set {argument}"),
        }
    }
}

/// The part of `key = value` that a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Key,
    Value,
}

/// Joins `a.b` and `c` to `a.b.c`. A name that is not a bare key is quoted.
pub(crate) fn join(path: &str, name: &str) -> String {
    let bare =
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    let dot = if path.is_empty() { "" } else { "." };
    if bare { format!("{path}{dot}{name}") } else { format!("{path}{dot}{name:?}") }
}

/// The section around a key path: `a.b[0]` for `a.b[0].c`, `a.b` for `a.b[0]`.
pub(crate) fn parent(path: &str) -> Option<&str> {
    let at = path.rfind(['.', '['])?;
    path.get(..at)
}

/// The last name of a key path: `c` of `a.b[0].c`.
pub(crate) fn leaf(path: &str) -> &str {
    path.rfind('.').and_then(|at| path.get(at + 1..)).unwrap_or(path)
}
