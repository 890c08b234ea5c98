//! An append-only log of lines that can be truncated to a recorded length.
//!
//! Lines are not synced one by one. Call `sync` before you record the length.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileTypeExt as _;
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
    /// Opens a log; creates it durably if it is missing.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        // A pipe would block, and a link leads to a file of somebody else.
        let found = std::fs::symlink_metadata(path).map(|found| found.file_type());
        if found.is_ok_and(|found| found.is_symlink() || found.is_fifo() || found.is_dir()) {
            return Err(Error::NotAFile { path: path.to_owned() });
        }
        let is_new = !path.exists();
        let file = OpenOptions::new().create(true).append(true).open(path).at(path, "open")?;
        if is_new {
            sync_dir(parent_of(path))?;
        }
        let bytes = file.metadata().at(path, "read")?.len();
        Ok(Self { file, path: path.to_owned(), bytes })
    }

    /// Writes one line and adds the line feed.
    ///
    /// A line that was written only in part, as on a full disk, is removed again.
    pub fn append(&mut self, line: &str) -> Result<()> {
        self.append_bytes(format!("{line}\n").as_bytes())
    }

    /// Writes bytes as they are, for logs in a binary format. A part of them is never left.
    pub fn append_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        if let Err(e) = self.file.write_all(bytes) {
            // If this fails too, the next resume truncates the log to its recorded length.
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

    /// Whether the log has no lines.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Path of the log.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes all lines durable.
    pub fn sync(&mut self) -> Result<()> {
        self.file.sync_all().at(&self.path, "sync")
    }

    /// Truncates the log to a length that was recorded before.
    pub fn truncate_to(&mut self, recorded: u64) -> Result<()> {
        let bytes = self.file.metadata().at(&self.path, "read")?.len();
        if bytes < recorded {
            return Err(Error::LogTooShort { path: self.path.clone(), bytes, recorded });
        }
        self.file.set_len(recorded).at(&self.path, "truncate")?;
        self.bytes = recorded;
        self.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_or_directory_in_place_of_a_log_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let other = dir.path().join("other");
        std::fs::write(&other, "mine\n").unwrap();
        let (link, folder) = (dir.path().join("link"), dir.path().join("folder"));
        std::os::unix::fs::symlink(&other, &link).unwrap();
        std::fs::create_dir(&folder).unwrap();
        for path in [link, folder] {
            assert!(matches!(AppendLog::open(&path), Err(Error::NotAFile { .. })), "{path:?}");
        }
        assert_eq!(std::fs::read(&other).unwrap(), b"mine\n");
    }
}
