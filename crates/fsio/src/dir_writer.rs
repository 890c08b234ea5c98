//! A folder that appears whole or not at all, with a MANIFEST of its files' lengths and hashes.
//!
//! The order of the system calls is the protocol: each file written and synced, MANIFEST last and
//! synced, the temporary folder synced, renamed, its parent synced. Leave out one sync and a power
//! cut can leave a folder that looks finished and isn't. It deliberately never overwrites a folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::background_hasher::BackgroundHasher;
use crate::dirs::{create_dir_all, parent_of, sync_dir};
use crate::error::IoContext;
use crate::hash::CHUNK;
use crate::manifest::{FileEntry, MANIFEST, Manifest};
use crate::names::basename_only;
use crate::read::open_regular;
use crate::{Error, Result};

/// A folder under construction. Dropping it without `commit` removes what was written.
#[derive(Debug)]
pub struct DirWriter {
    tmp_dir: PathBuf,
    final_dir: PathBuf,
    files: Arc<Mutex<Files>>,
    committed: bool,
}

#[derive(Debug, Default)]
struct Files {
    open: BTreeSet<String>,
    finished: BTreeMap<String, FileEntry>,
}

impl DirWriter {
    /// Starts `<final_dir>.tmp-<pid>`; missing parents are created.
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
        let tmp_name = format!("{}.tmp-{}", name.to_string_lossy(), std::process::id());
        let tmp_dir = parent.join(tmp_name);
        if fs::symlink_metadata(&tmp_dir).is_ok() {
            // It bears our process id, so the process that made it is gone (ids are reused).
            fs::remove_dir_all(&tmp_dir).at(&tmp_dir, "remove the folder")?;
        }
        fs::create_dir(&tmp_dir).at(&tmp_dir, "create the folder")?;
        Ok(Self {
            tmp_dir,
            final_dir: final_dir.to_owned(),
            files: Arc::default(),
            committed: false,
        })
    }

    /// Where the folder will stand.
    pub fn final_dir(&self) -> &Path {
        &self.final_dir
    }

    /// Opens a new file; it belongs to the folder once `HashingFile::finish` has returned.
    pub fn create(&mut self, name: &str) -> Result<HashingFile> {
        let path = self.tmp_dir.join(basename_only(name)?);
        // Dotfiles are what `verify_dir` overlooks, so none may carry data.
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

    /// Copies a file from elsewhere.
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

    /// Writes the MANIFEST and moves the folder to its place.
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
        let mut file = File::create(self.tmp_dir.join(MANIFEST)).at(&shown, "write")?;
        file.write_all(manifest.to_text().as_bytes()).at(&shown, "write")?;
        file.sync_all().at(&shown, "sync")?;
        sync_dir(&self.tmp_dir)?;
        fs::rename(&self.tmp_dir, &self.final_dir)
            .at(&self.tmp_dir, &format!("rename to `{}`", self.final_dir.display()))?;
        // From here on the folder is in place; whatever fails must not remove it.
        self.committed = true;
        sync_dir(parent_of(&self.final_dir))?;
        Ok(manifest)
    }
}

impl Drop for DirWriter {
    fn drop(&mut self) {
        if !self.committed {
            // Best effort: a leftover is removed at the next start (`remove_stale_tmps`).
            let _ = fs::remove_dir_all(&self.tmp_dir);
        }
    }
}

/// A file of a `DirWriter`: buffers 1 MiB, hashes and counts what is written.
#[derive(Debug)]
pub struct HashingFile {
    file: File,
    /// The path after the commit, for messages.
    shown: PathBuf,
    name: String,
    buffer: Vec<u8>,
    hasher: BackgroundHasher,
    bytes: u64,
    files: Arc<Mutex<Files>>,
}

impl HashingFile {
    /// Writes what is buffered, syncs the file and lists it in the coming MANIFEST.
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

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let shown = self.shown.clone();
        self.write_all(bytes).at(&shown, "write")
    }

    fn flush_buffer(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.bytes += self.buffer.len() as u64;
        self.buffer = self.hasher.take(std::mem::take(&mut self.buffer))?;
        Ok(())
    }
}

impl Write for HashingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(CHUNK - self.buffer.len());
        let (now, _) = bytes.split_at(n);
        self.buffer.extend_from_slice(now);
        if self.buffer.len() == CHUNK {
            self.flush_buffer()?;
        }
        Ok(n)
    }

    /// Does nothing: what counts is `finish`, and small writes would make small chunks.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn locked(files: &Mutex<Files>) -> MutexGuard<'_, Files> {
    // The lists stay valid whatever a panicking thread was doing.
    files.lock().unwrap_or_else(PoisonError::into_inner)
}
