//! The size of the values in a binary file, compared with the size of the file.
//!
//! A dictionary holds a text once, and each row only its number; a run holds a value once, and how often it follows: a file of
//! a kilobyte can have rows with terabytes. Values are therefore counted before they are made, and a page or a batch before it is
//! decompressed.

use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::limits;

/// Bytes that a row counts for, besides its values.
const ROW: u64 = 16;
/// Bytes that a value counts for, besides its text: those of a token's id.
const VALUE: u64 = 4;
/// Memory of a list, an object, or a key.
const CONTAINER: u64 = 64;

/// Counts the bytes that a file's rows contain.
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

    /// Counts what the file at `path` declares before it is decoded: bytes after decompression, and values.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if the file declares more than the limit.
    pub(crate) fn declare(&mut self, path: &Path, n_bytes: u64, n_values: u64) -> Result<()> {
        match self.take(n_bytes.saturating_add(n_values.saturating_mul(VALUE))) {
            Ok(()) => Ok(()),
            Err(value) => Err(self.too_large(path, value)),
        }
    }

    /// The error of a file with more than the limit.
    pub(crate) fn too_large(&self, path: &Path, value: u64) -> Error {
        Error::TooLarge {
            path: path.to_path_buf(),
            what: "bytes of values for a file of this size",
            value,
            limit: self.limit,
        }
    }

    /// Counts bytes. If there are more than the limit, returns their number so far.
    fn take(&mut self, n_bytes: u64) -> std::result::Result<(), u64> {
        let used = self.limit - self.left;
        self.left = self.left.checked_sub(n_bytes).ok_or_else(|| used.saturating_add(n_bytes))?;
        Ok(())
    }
}

/// A limit that the values of a row exceed.
#[derive(Debug)]
pub(crate) enum Exceeded {
    /// The row's own.
    Row,
    /// That of the file, with the number of bytes so far.
    File(u64),
}

/// What the values of one row may still take.
#[derive(Debug)]
pub(crate) struct RowBudget<'a> {
    memory: u64,
    file: &'a mut Expansion,
}

impl<'a> RowBudget<'a> {
    /// Starts a row of the file that `file` counts.
    pub(crate) fn start(file: &'a mut Expansion) -> std::result::Result<Self, Exceeded> {
        file.take(ROW).map_err(Exceeded::File)?;
        Ok(Self { memory: limits::COLUMNAR_ROW_MEMORY, file })
    }

    /// Counts a value without its text or its items.
    pub(crate) fn value(&mut self) -> std::result::Result<(), Exceeded> {
        self.memory(size_of::<Value>() as u64)?;
        self.file.take(VALUE).map_err(Exceeded::File)
    }

    /// Counts a text that is about to be copied.
    pub(crate) fn text(&mut self, text: &str) -> std::result::Result<(), Exceeded> {
        self.memory(text.len() as u64)?;
        self.file.take(text.len() as u64).map_err(Exceeded::File)
    }

    /// Counts a list or an object.
    pub(crate) fn container(&mut self) -> std::result::Result<(), Exceeded> {
        self.memory(CONTAINER)
    }

    /// Counts a key of an object. The same keys in every row are no expansion, unless they are long.
    pub(crate) fn key(&mut self, key: &str) -> std::result::Result<(), Exceeded> {
        let n_bytes = key.len() as u64;
        self.memory(CONTAINER + n_bytes)?;
        self.file.take(n_bytes.saturating_sub(CONTAINER)).map_err(Exceeded::File)
    }

    fn memory(&mut self, n_bytes: u64) -> std::result::Result<(), Exceeded> {
        self.memory = self.memory.checked_sub(n_bytes).ok_or(Exceeded::Row)?;
        Ok(())
    }
}
