//! Replaces one file as a whole: a reader sees the old bytes or the new ones.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::dirs::{parent_of, rename};
use crate::error::IoContext;
use crate::tmp_dir::{is_at, remove_abandoned_files, stem_for};
use crate::{Error, Result};

/// Replaces a file atomically: a reader sees the old bytes or the new ones.
pub fn write_atomic(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Result<()> {
    let path = path.as_ref();
    let (tmp, file) = locked_tmp_beside(path)?;
    let written = write_and_sync(file, bytes.as_ref(), path).and_then(|()| rename(&tmp, path));
    if written.is_err() {
        // The first error is the one to report; the temporary file may not exist.
        let _ = fs::remove_file(&tmp);
    }
    if let Some(name) = path.file_name() {
        remove_abandoned_files(parent_of(path), &name.to_string_lossy());
    }
    written
}

/// As [`write_atomic`], without waiting for the disk: after a power cut the file may be old, empty or missing. For files that
/// are written often and matter only while a process runs.
pub fn replace_unsynced(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Result<()> {
    let path = path.as_ref();
    let (tmp, mut file) = locked_tmp_beside(path)?;
    let renamed = |()| fs::rename(&tmp, path).at(path, "replace");
    let written = file.write_all(bytes.as_ref()).at(path, "write").and_then(renamed);
    if written.is_err() {
        let _ = fs::remove_file(&tmp);
    }
    written
}

/// A new name beside a file, for its next content.
fn tmp_beside(path: &Path) -> Result<PathBuf> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let Some(name) = path.file_name() else {
        return Err(Error::BadName { name: path.display().to_string() });
    };
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let name = name.to_string_lossy();
    let tmp_name = format!(".{}.{count}.tmp-{}", stem_for(&name), std::process::id());
    Ok(parent_of(path).join(tmp_name))
}

/// A new file beside another one, for its next content, locked so that other processes know it as one in use.
fn locked_tmp_beside(path: &Path) -> Result<(PathBuf, File)> {
    loop {
        let tmp = tmp_beside(path)?;
        let file = match File::create_new(&tmp) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            file => file.at(path, "write")?,
        };
        match file.try_lock() {
            // Another process may have removed the file before it was locked, or is about to.
            Ok(()) if !is_at(&file, &tmp) => {}
            Err(TryLockError::WouldBlock) => {}
            // Also on a file system without locks.
            Ok(()) | Err(TryLockError::Error(_)) => return Ok((tmp, file)),
        }
    }
}

fn write_and_sync(mut file: File, bytes: &[u8], shown: &Path) -> Result<()> {
    file.write_all(bytes).at(shown, "write")?;
    file.sync_all().at(shown, "sync")
}
