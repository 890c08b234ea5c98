//! An advisory lock (flock) on a file that contains the id of the process that holds it.
//!
//! The kernel releases the lock when the process ends, however it ends. The file is never removed:
//! a waiting process may have it open and would then lock a file that no other process finds.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::checked_read::read_text_capped;
use crate::error::IoContext;
use crate::read::is_file_at;
use crate::tmp_dir::is_at;
use crate::{Error, Result, limits};
/// The process that holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockHolder {
    /// Its id, if the file names it.
    pub pid: Option<u32>,
}

/// A lock; dropping it releases it.
#[derive(Debug)]
pub struct Lock {
    // Closing the file releases the lock.
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock without waiting; fails with the id of the process that holds it.
    pub fn acquire(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = open(path)?;
        match try_lock(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Locked { path: path.to_owned(), pid: recorded_pid(path) });
            }
            Err(TryLockError::Error(e)) => return Err(e).at(path, "lock"),
        }
        Self::held(file, path)
    }

    /// The process that holds a lock; `None` if no process does, or if there is no such file. Writes nothing.
    pub fn holder(path: impl AsRef<Path>) -> Option<LockHolder> {
        let path = path.as_ref();
        // A pipe would block, and a link leads elsewhere.
        if !std::fs::symlink_metadata(path).is_ok_and(|found| found.is_file()) {
            return None;
        }
        let file = File::open(path).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Some(LockHolder { pid: recorded_pid(path) }),
            // Dropping the file releases it.
            Ok(()) | Err(TryLockError::Error(_)) => None,
        }
    }

    /// Takes the lock; calls `waiting` once if another process holds it, and waits for that process.
    pub fn wait(path: impl AsRef<Path>, waiting: impl FnOnce()) -> Result<Self> {
        let path = path.as_ref();
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                waiting();
                file.lock().at(path, "lock")?;
            }
            Err(TryLockError::Error(e)) => return Err(e).at(path, "lock"),
        }
        Self::held(file, path)
    }

    fn held(mut file: File, path: &Path) -> Result<Self> {
        // For the error message of another process that finds the lock taken.
        file.set_len(0).at(path, "write")?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes()).at(path, "write")?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Whether the locked file is still the one at its path. After the directory was removed or moved, another process can
    /// lock another file there.
    pub fn is_in_place(&self) -> bool {
        is_file_at(&self.file, &self.path)
    }

    /// Path of the lock file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn recorded_pid(path: &Path) -> Option<u32> {
    let text = read_text_capped(path, limits::LOCK_BYTES).unwrap_or_default();
    text.trim().parse().ok()
}

/// Tries for a moment, because [`Lock::holder`] of another process takes the lock for as long as it looks.
fn try_lock(file: &File) -> std::result::Result<(), TryLockError> {
    for _ in 0..5 {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(5)),
            outcome => return outcome,
        }
    }
    file.try_lock()
}

fn open(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true);
    // The file behind a link would be overwritten.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NOFOLLOW);
    let is_other = |found: std::fs::Metadata| !found.is_file();
    if std::fs::symlink_metadata(path).is_ok_and(is_other) {
        return Err(Error::NotAFile { path: path.to_owned() });
    }
    options.open(path).at(path, "open")
}

/// A lock on a directory in which several files are written; dropping it releases it. Nothing is written.
#[derive(Debug)]
pub struct DirLock {
    // Closing the directory releases the lock.
    _dir: Option<File>,
}

impl DirLock {
    /// Takes the lock without waiting; `None` if another process holds it. On a file system without locks nobody does.
    ///
    /// Errors: the directory cannot be opened, for instance because another process has removed it.
    pub fn acquire(dir: impl AsRef<Path>) -> Result<Option<Self>> {
        let dir = dir.as_ref();
        let file = File::open(dir).at(dir, "open")?;
        Ok(match try_lock(&file) {
            Ok(()) if is_at(&file, dir) => Some(Self { _dir: Some(file) }),
            Ok(()) | Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Error(_)) => Some(Self { _dir: None }),
        })
    }

    /// Waits for the lock. On a file system without locks there is none.
    pub fn wait(dir: impl AsRef<Path>) -> Self {
        let dir = dir.as_ref();
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        let opened = File::open(dir).ok().filter(|dir| dir.lock().is_ok());
        Self { _dir: opened }
    }
}
