//! A file that arrives in pieces over several processes: bytes are appended, and it gets its final name once it is whole.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::dirs::rename;
use crate::error::IoContext;
use crate::hash::CHUNK;
use crate::{Error, Result};

/// A partial file, open for appending. It stays on disk when it is dropped, for the next process.
#[derive(Debug)]
pub struct PartialFile {
    file: File,
    path: PathBuf,
    bytes: u64,
}

impl PartialFile {
    /// Opens a partial file, or creates an empty one.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if std::fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            return Err(Error::NotAFile { path: path.to_owned() });
        }
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .at(path, "write")?;
        let bytes = file.metadata().at(path, "read the length of")?.len();
        Ok(Self { file, path: path.to_owned(), bytes })
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.bytes
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Passes all bytes to `visit`, in pieces.
    pub fn for_each_piece(&mut self, mut visit: impl FnMut(&[u8])) -> Result<()> {
        self.file.seek(SeekFrom::Start(0)).at(&self.path, "read")?;
        let mut piece = vec![0; CHUNK];
        loop {
            let n = self.file.read(&mut piece).at(&self.path, "read")?;
            if n == 0 {
                return Ok(());
            }
            visit(piece.get(..n).unwrap_or_default());
        }
    }

    /// Appends bytes.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.seek(SeekFrom::Start(self.bytes)).at(&self.path, "write")?;
        if let Err(error) = self.file.write_all(bytes) {
            // A part of the bytes may be there; the next process counts on the length alone.
            let _ = self.file.set_len(self.bytes);
            return Err(error).at(&self.path, "write");
        }
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Removes all bytes.
    pub fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).at(&self.path, "truncate")?;
        self.bytes = 0;
        Ok(())
    }

    /// Syncs the file and gives it its final name; replaces a file that has it.
    pub fn finish(self, path: impl AsRef<Path>) -> Result<()> {
        self.file.sync_all().at(&self.path, "sync")?;
        rename(&self.path, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_two_processes_make_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let (partial, whole) = (dir.path().join("part"), dir.path().join("whole"));
        let mut file = PartialFile::open(&partial).unwrap();
        file.append(b"one ").unwrap();
        drop(file);
        assert!(!whole.exists());
        let mut file = PartialFile::open(&partial).unwrap();
        assert_eq!(file.len(), 4);
        let mut seen = Vec::new();
        file.for_each_piece(|piece| seen.extend_from_slice(piece)).unwrap();
        assert_eq!(seen, b"one ");
        file.append(b"file").unwrap();
        file.finish(&whole).unwrap();
        assert_eq!(std::fs::read(&whole).unwrap(), b"one file");
        assert!(!partial.exists());
    }

    #[test]
    fn a_link_is_not_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        std::fs::write(&target, b"mine").unwrap();
        std::os::unix::fs::symlink(&target, dir.path().join("part")).unwrap();
        assert!(matches!(PartialFile::open(dir.path().join("part")), Err(Error::NotAFile { .. })));
        assert_eq!(std::fs::read(&target).unwrap(), b"mine");
    }
}
