//! Writes a directory atomically, with a MANIFEST of its files' lengths and hashes.
//!
//! The order of system calls: write and sync each file, write and sync MANIFEST, sync the temporary
//! directory, rename it, sync its parent. Without any one of these syncs, a power failure can leave
//! a directory that looks complete and is not. Existing directories are never overwritten.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::atomic_file::named;
use crate::background_hasher::BackgroundHasher;
use crate::dirs::{create_dir_all, parent_of, rename_new, sync_dir};
use crate::error::IoContext;
use crate::hash::CHUNK;
use crate::manifest::{FileEntry, MANIFEST, Manifest};
use crate::names::basename_only;
use crate::read::open_regular;
use crate::tmp_dir::{TmpDir, stem_for};
use crate::{Error, Result};

/// A directory under construction. Dropping it without `commit` removes its files.
#[derive(Debug)]
pub struct DirWriter {
    tmp_dir: TmpDir,
    final_dir: PathBuf,
    files: Arc<Mutex<Files>>,
}

#[derive(Debug, Default)]
struct Files {
    open: BTreeSet<String>,
    finished: BTreeMap<String, FileEntry>,
}

impl DirWriter {
    /// Creates `<final_dir>.tmp-<pid>` and missing parents, and removes what killed processes left of the same directory.
    pub fn begin(final_dir: impl AsRef<Path>) -> Result<Self> {
        let final_dir = final_dir.as_ref();
        let Some(name) = final_dir.file_name() else {
            return Err(Error::BadName { name: final_dir.display().to_string() });
        };
        if fs::symlink_metadata(final_dir).is_ok() {
            return Err(Error::Exists { path: final_dir.to_owned() });
        }
        let parent = parent_of(final_dir);
        create_dir_all(parent)?;
        let tmp_dir = TmpDir::create(parent, &stem_for(&name.to_string_lossy()), final_dir)?;
        Ok(Self { tmp_dir, final_dir: final_dir.to_owned(), files: Arc::default() })
    }

    /// Path of the directory after the commit.
    pub fn final_dir(&self) -> &Path {
        &self.final_dir
    }

    /// Path of the directory before the commit, for reading back files that are finished.
    pub fn tmp_dir(&self) -> &Path {
        self.tmp_dir.path()
    }

    /// Opens a new file, which joins the directory when `HashingFile::finish` returns.
    pub fn create(&mut self, name: &str) -> Result<HashingFile> {
        let path = self.tmp_dir.path().join(basename_only(name)?);
        // `verify_dir` ignores dotfiles, so none may contain data.
        if name == MANIFEST || name.starts_with('.') {
            return Err(Error::BadName { name: name.to_owned() });
        }
        let mut files = locked(&self.files);
        if files.finished.contains_key(name) || !files.open.insert(name.to_owned()) {
            return Err(Error::Unfinished { path, reason: "was created twice" });
        }
        let shown = self.final_dir.join(name);
        let file = File::create(&path).at(&shown, "write")?;
        Ok(HashingFile {
            file,
            shown,
            name: name.to_owned(),
            buffer: Vec::with_capacity(CHUNK),
            hasher: BackgroundHasher::Idle,
            bytes: 0,
            files: Arc::clone(&self.files),
        })
    }

    /// Writes a whole file.
    pub fn write(&mut self, name: &str, bytes: impl AsRef<[u8]>) -> Result<FileEntry> {
        let mut file = self.create(name)?;
        file.put(bytes.as_ref())?;
        file.finish()
    }

    /// Copies a file into the directory.
    pub fn copy_from(&mut self, name: &str, path: impl AsRef<Path>) -> Result<FileEntry> {
        let path = path.as_ref();
        let mut source = open_regular(path)?;
        let mut file = self.create(name)?;
        let mut chunk = vec![0; CHUNK];
        loop {
            let n = source.read(&mut chunk).at(path, "read")?;
            if n == 0 {
                return file.finish();
            }
            file.put(chunk.get(..n).unwrap_or_default())?;
        }
    }

    /// Writes the MANIFEST and renames the directory to its final path.
    pub fn commit(mut self, extra: serde_json::Value) -> Result<Manifest> {
        let manifest = {
            let mut files = locked(&self.files);
            if let Some(name) = files.open.first() {
                let path = self.final_dir.join(name);
                return Err(Error::Unfinished { path, reason: "was not finished" });
            }
            Manifest::new(std::mem::take(&mut files.finished), extra)
        };
        let shown = self.final_dir.join(MANIFEST);
        let mut file = File::create(self.tmp_dir.path().join(MANIFEST)).at(&shown, "write")?;
        file.write_all(manifest.to_text().as_bytes()).at(&shown, "write")?;
        file.sync_all().at(&shown, "sync")?;
        let tmp_dir = self.tmp_dir.path();
        sync_dir(tmp_dir)?;
        rename_new(tmp_dir, &self.final_dir)?;
        // The directory has its final name; a later failure must not remove it.
        self.tmp_dir.keep();
        sync_dir(parent_of(&self.final_dir))?;
        Ok(manifest)
    }
}

/// A file of a `DirWriter`: buffers 1 MiB, hashes and counts the bytes written.
#[derive(Debug)]
pub struct HashingFile {
    file: File,
    /// Path after the commit, for errors.
    shown: PathBuf,
    name: String,
    buffer: Vec<u8>,
    hasher: BackgroundHasher,
    bytes: u64,
    files: Arc<Mutex<Files>>,
}

impl HashingFile {
    /// Writes the buffer, syncs the file and adds it to the MANIFEST.
    pub fn finish(mut self) -> Result<FileEntry> {
        let shown = &self.shown;
        self.file.write_all(&self.buffer).at(shown, "write")?;
        self.file.sync_all().at(shown, "sync")?;
        let bytes = self.bytes + self.buffer.len() as u64;
        let sha256 = self.hasher.finish(&self.buffer).at(shown, "hash")?;
        let entry = FileEntry { bytes, sha256 };
        let mut files = locked(&self.files);
        files.open.remove(&self.name);
        files.finished.insert(self.name, entry.clone());
        Ok(entry)
    }

    /// Writes bytes, with the file's path in an error.
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.write_all(bytes);
        written.map_err(|error| Error::of_writer(error, &self.shown))
    }

    fn flush_buffer(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.bytes += self.buffer.len() as u64;
        self.buffer = self.hasher.take(std::mem::take(&mut self.buffer))?;
        Ok(())
    }
}

impl Write for HashingFile {
    /// An error has the path, as one of this crate: see [`Error::of_writer`].
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(CHUNK - self.buffer.len());
        let (now, _) = bytes.split_at(n);
        self.buffer.extend_from_slice(now);
        if self.buffer.len() == CHUNK {
            self.flush_buffer().map_err(|error| named(&self.shown, error))?;
        }
        Ok(n)
    }

    /// Does nothing: `finish` writes the rest, and small writes would make small chunks.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn locked(files: &Mutex<Files>) -> MutexGuard<'_, Files> {
    // A panic of another thread leaves the lists valid.
    files.lock().unwrap_or_else(PoisonError::into_inner)
}
