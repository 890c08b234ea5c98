//! The size of the texts in a binary file, compared with the size of the file.
//!
//! A dictionary holds a text once, and each row only its number: a file of a kilobyte can have rows with terabytes of text.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::limits;

/// Counts the bytes of the texts that a file's rows contain.
#[derive(Debug)]
pub(crate) struct Expansion {
    left: u64,
    limit: u64,
}

impl Expansion {
    /// For the file at `path`, by its size on disk.
    pub(crate) fn of(path: &Path) -> Self {
        let limit = limits::unpacked_bytes(std::fs::metadata(path).map_or(0, |file| file.len()));
        Self { left: limit, limit }
    }

    /// Counts the texts of one row of the file at `path`.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if the rows so far have more text than the limit.
    pub(crate) fn add(&mut self, path: &Path, columns: &Map<String, Value>) -> Result<()> {
        let n_bytes: u64 = columns.values().map(text_bytes).sum();
        match self.left.checked_sub(n_bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(Error::TooLarge {
                path: path.to_path_buf(),
                what: "bytes of text for a file of this size",
                value: self.limit - self.left + n_bytes,
                limit: self.limit,
            }),
        }
    }
}

/// Bytes of all texts in a value. Its depth is limited by that of a schema.
fn text_bytes(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.len() as u64,
        Value::Array(items) => items.iter().map(text_bytes).sum(),
        Value::Object(map) => map.values().map(text_bytes).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}
