//! A log of lines that only grows, and can be cut back to a recorded length.
//!
//! It deliberately doesn't sync on each line: `sync` does, and whoever records the length calls it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::dirs::{parent_of, sync_dir};
use crate::error::IoContext;
use crate::{Error, Result};

/// An open log.
#[derive(Debug)]
pub struct AppendLog {
    file: File,
    path: PathBuf,
    bytes: u64,
}

impl AppendLog {
    /// Opens a log, creating it (durably) if it isn't there.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let is_new = !path.exists();
        let file = OpenOptions::new().create(true).append(true).open(path).at(path, "open")?;
        if is_new {
            sync_dir(parent_of(path))?;
        }
        let bytes = file.metadata().at(path, "read")?.len();
        Ok(Self { file, path: path.to_owned(), bytes })
    }

    /// Writes one line; the line end is added.
    ///
    /// A line that could only be written in part (a full disk) is taken back.
    pub fn append(&mut self, line: &str) -> Result<()> {
        let bytes = format!("{line}\n");
        if let Err(e) = self.file.write_all(bytes.as_bytes()) {
            // If this fails too, the next resume cuts the log to its recorded length.
            let _ = self.file.set_len(self.bytes);
            return Err(e).at(&self.path, "write");
        }
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing has been written yet.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The log's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes everything written so far durable.
    pub fn sync(&mut self) -> Result<()> {
        self.file.sync_all().at(&self.path, "sync")
    }

    /// Cuts the log back to a length that was recorded before.
    pub fn truncate_to(&mut self, recorded: u64) -> Result<()> {
        let bytes = self.file.metadata().at(&self.path, "read")?.len();
        if bytes < recorded {
            return Err(Error::LogTooShort { path: self.path.clone(), bytes, recorded });
        }
        self.file.set_len(recorded).at(&self.path, "cut")?;
        self.bytes = recorded;
        self.sync()
    }
}
