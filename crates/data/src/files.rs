//! Files of a source in reading order, and the keys that decide how each is read.

use std::ops::Deref;
use std::path::PathBuf;

use crate::limits;

/// Files of a source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceFiles {
    /// Paths in reading order.
    pub paths: Vec<PathBuf>,
    /// Keys of the source.
    pub options: ReadOptions,
    /// Arrow files with the indices of the rows, in order, of a saved dataset that was shuffled or
    /// filtered; empty for all rows in the order of the files.
    pub indices: Vec<PathBuf>,
    /// Choice that was made among the files of a directory, as a sentence for the user.
    pub choice: Option<String>,
}

/// Keys of a source that decide how its files are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Key of a JSON object that contains the rows.
    pub field: Option<String>,
    /// Character between the values of a CSV or TSV file, if it differs from the usual one.
    pub delimiter: Option<u8>,
    /// Maximum size of a row in bytes, if it differs from [`limits::ROW_BYTES`].
    pub max_row_bytes: Option<usize>,
}

impl ReadOptions {
    /// Maximum size of a row in bytes.
    pub(crate) fn row_bytes(&self) -> usize {
        self.max_row_bytes.unwrap_or(limits::ROW_BYTES)
    }
}

impl From<Vec<PathBuf>> for SourceFiles {
    fn from(paths: Vec<PathBuf>) -> Self {
        Self { paths, ..Self::default() }
    }
}

impl Deref for SourceFiles {
    type Target = [PathBuf];

    fn deref(&self) -> &[PathBuf] {
        &self.paths
    }
}

impl<'a> IntoIterator for &'a SourceFiles {
    type Item = &'a PathBuf;
    type IntoIter = std::slice::Iter<'a, PathBuf>;

    fn into_iter(self) -> Self::IntoIter {
        self.paths.iter()
    }
}
