//! Where a row came from: a file, and a line or a row number in it.
//!
//! It deliberately holds no text of the row: messages quote what they need.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A row's place in a file, printed as `chats.jsonl:1873` or `part-0.parquet: row 12`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The file as it was opened.
    pub file: Arc<Path>,
    /// Where in the file.
    pub position: Position,
}

/// A position in a file; both kinds count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// The line on which a row begins, in formats made of text.
    Line(u64),
    /// The row's number, in binary formats.
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
    /// A line of a file.
    pub fn line(file: &Arc<Path>, number: u64) -> Self {
        Self { file: Arc::clone(file), position: Position::Line(number) }
    }

    /// A row of a binary file.
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

/// A path as shown in messages: `.` components and `a/..` pairs are gone, nothing is looked up.
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

/// A path shared by every place in a file.
pub(crate) fn shared_path(path: &Path) -> Arc<Path> {
    Arc::from(path)
}
