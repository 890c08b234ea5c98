//! Location of a row: a file, and a line or a row number in it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Location of a row, printed as `chats.jsonl:1873` or `part-0.parquet: row 12`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Path of the file as it was opened.
    pub file: Arc<Path>,
    /// Position in the file.
    pub position: Position,
}

/// Position in a file, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// Line on which the row starts, in text formats.
    Line(u64),
    /// Number of the row, in binary formats.
    Row(u64),
}

impl Position {
    /// The number alone.
    pub fn number(self) -> u64 {
        match self {
            Self::Line(number) | Self::Row(number) => number,
        }
    }
}

impl Location {
    /// Line `number` of a text file.
    pub fn line(file: &Arc<Path>, number: u64) -> Self {
        Self { file: Arc::clone(file), position: Position::Line(number) }
    }

    /// Row `number` of a binary file.
    pub fn row(file: &Arc<Path>, number: u64) -> Self {
        Self { file: Arc::clone(file), position: Position::Row(number) }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Position::Line(number) => write!(f, "{}:{number}", self.file.display()),
            Position::Row(number) => write!(f, "{}: row {number}", self.file.display()),
        }
    }
}

/// A path as shown in messages: without `.` components and `a/..` pairs. Reads nothing from disk.
pub(crate) fn normalized(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut parts: Vec<Component<'_>> = Vec::new();
    for part in path.components() {
        match (part, parts.last()) {
            (Component::CurDir, _) => {}
            (Component::ParentDir, Some(Component::Normal(_))) => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    if parts.is_empty() { PathBuf::from(".") } else { parts.iter().collect() }
}

/// A path that all locations in a file share.
pub(crate) fn shared_path(path: &Path) -> Arc<Path> {
    Arc::from(path)
}
