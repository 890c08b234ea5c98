//! An append-only log of lines that can be truncated to a recorded length.
//!
//! Lines are not synced one by one. Call `sync` before you record the length.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use crate::dirs::{parent_of, sync_dir};
use crate::error::IoContext;
use crate::read::is_file_at;
use crate::{Error, Result, write_atomic};

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
    ///
    /// Errors: [`Error::LogGone`] if the file was removed, moved or replaced, so that nobody finds the lines.
    pub fn sync(&mut self) -> Result<()> {
        if !is_file_at(&self.file, &self.path) {
            return Err(Error::LogGone { path: self.path.clone() });
        }
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

    /// Removes the lines that are not kept, and what follows the last line feed; returns the number of removed lines. A log that has
    /// none of them is not written.
    pub fn retain_lines(&mut self, is_kept: impl Fn(&[u8]) -> bool) -> Result<u64> {
        let is_whole = |line: &[u8]| line.strip_suffix(b"\n").is_some_and(&is_kept);
        let mut n_removed = 0;
        self.for_each_line(|line| n_removed += u64::from(!is_whole(line)))?;
        if n_removed == 0 {
            return Ok(0);
        }
        let mut kept = Vec::new();
        self.for_each_line(|line| {
            if is_whole(line) {
                kept.extend_from_slice(line);
            }
        })?;
        write_atomic(&self.path, &kept)?;
        *self = Self::open(&self.path)?;
        Ok(n_removed)
    }

    /// Passes each line, with its line feed.
    fn for_each_line(&self, mut visit: impl FnMut(&[u8])) -> Result<()> {
        let mut file = BufReader::new(File::open(&self.path).at(&self.path, "read")?);
        let mut line = Vec::new();
        while file.read_until(b'\n', &mut line).at(&self.path, "read")? > 0 {
            visit(&line);
            line.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_not_kept_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, b"a1\n\xff\xfe\na2\na3").unwrap();
        let mut log = AppendLog::open(&path).unwrap();
        let starts = |line: &[u8]| line.starts_with(b"a");
        // The last line has no end: it may be a part of one.
        assert_eq!(log.retain_lines(starts).unwrap(), 2);
        log.append("a4").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"a1\na2\na4\n");
        assert_eq!((log.len(), log.retain_lines(starts).unwrap()), (9, 0));
        log.append("a5").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"a1\na2\na4\na5\n");
    }

    #[test]
    fn a_log_that_was_removed_or_replaced_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = AppendLog::open(&path).unwrap();
        log.append("a").unwrap();
        log.sync().unwrap();
        std::fs::rename(&path, dir.path().join("moved")).unwrap();
        assert!(matches!(log.sync(), Err(Error::LogGone { .. })));
        std::fs::write(&path, "b").unwrap();
        assert!(matches!(log.sync(), Err(Error::LogGone { .. })));
        std::fs::rename(dir.path().join("moved"), &path).unwrap();
        log.sync().unwrap();
    }

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
