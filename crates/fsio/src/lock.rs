//! An advisory lock (flock) on a file that contains the id of the process that holds it.
//!
//! The kernel releases the lock when the process ends, however it ends. The file is never removed:
//! a waiting process may have it open and would then lock a file that no other process finds.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::IoContext;
use crate::read::read_text_capped;
use crate::{Error, Result, limits};

/// A lock; dropping it releases it.
#[derive(Debug)]
pub struct Lock {
    // Closing the file releases the lock.
    _file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock without waiting; fails with the id of the process that holds it.
    pub fn acquire(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .at(path, "open")?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let text = read_text_capped(path, limits::LOCK_BYTES).unwrap_or_default();
                return Err(Error::Locked { path: path.to_owned(), pid: text.trim().parse().ok() });
            }
            Err(TryLockError::Error(e)) => return Err(e).at(path, "lock"),
        }
        // For the error message of another process that finds the lock taken.
        file.set_len(0).at(path, "write")?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes()).at(path, "write")?;
        Ok(Self { _file: file, path: path.to_owned() })
    }

    /// Path of the lock file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
