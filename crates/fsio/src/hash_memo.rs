//! Hashes of large files, kept in memory for the rest of the process, by path, length, inode and times. Nothing is stored on
//! disk.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::Result;
use crate::error::IoContext;
use crate::hash::sha256_file;

/// Shorter files are hashed at once and never remembered: time stamps are too coarse to tell two quick writes apart.
pub(crate) const SMALL: u64 = 4 << 20;

/// Identity of a file's content, as far as the file system knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FileState {
    path: PathBuf,
    bytes: u64,
    device: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

static HASHES: Mutex<BTreeMap<FileState, String>> = Mutex::new(BTreeMap::new());

impl FileState {
    fn of(path: &Path) -> Result<Self> {
        let path = std::fs::canonicalize(path).at(path, "read")?;
        let metadata: Metadata = std::fs::metadata(&path).at(&path, "read")?;
        Ok(Self {
            bytes: metadata.len(),
            device: metadata.dev(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            path,
        })
    }
}

/// SHA-256 of a file, computed before in this process or now.
pub(crate) fn sha256_once(path: &Path) -> Result<String> {
    let known = hashes().get(&FileState::of(path)?).cloned();
    known.map_or_else(|| hash_and_remember(path), Ok)
}

/// Hashes a file and remembers the hash, unless the file is small or changed meanwhile.
pub(crate) fn hash_and_remember(path: &Path) -> Result<String> {
    let before = FileState::of(path)?;
    let hash = sha256_file(path)?;
    if before.bytes >= SMALL && FileState::of(path)? == before {
        hashes().insert(before, hash.clone());
    }
    Ok(hash)
}

fn hashes() -> std::sync::MutexGuard<'static, BTreeMap<FileState, String>> {
    // Every entry is complete before it is inserted.
    HASHES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the hash of a file is known.
pub(crate) fn is_known(path: &Path) -> Result<bool> {
    Ok(hashes().contains_key(&FileState::of(path)?))
}
