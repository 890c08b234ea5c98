//! Durable changes of directories: create, rename, remove.
//!
//! A change is durable once its directory is synced too. `DirWriter` commits several files at once.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::IoContext;
use crate::{Error, Result};

/// Makes a directory's entries durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).at(dir, "sync")
}

/// The directory that contains a path; `.` for a bare name.
pub(crate) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

/// Creates a directory and its missing parents, each durable in its own parent.
pub fn create_dir_all(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    if path.is_dir() {
        return Ok(());
    }
    let parent = parent_of(path);
    if parent != path {
        create_dir_all(parent)?;
    }
    match fs::create_dir(path) {
        Ok(()) => sync_dir(parent),
        // Another thread or process may have created it first.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            Err(Error::io(path, "create the directory", io::ErrorKind::NotADirectory.into()))
        }
        Err(e) => Err(Error::io(path, "create the directory", e)),
    }
}

/// Removes a directory and its contents.
pub fn remove_dir_all(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    fs::remove_dir_all(path).at(path, "remove the directory")
}

/// Removes a directory that has no entries; returns whether it did. One with entries is left.
pub fn remove_empty_dir(path: impl AsRef<Path>) -> Result<bool> {
    let path = path.as_ref();
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
        removed => removed.map(|()| true).at(path, "remove the directory"),
    }
}

/// Removes a file.
pub fn remove_file(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    fs::remove_file(path).at(path, "remove")
}

/// Renames a file or directory and syncs both parents.
pub fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
    let (from, to) = (from.as_ref(), to.as_ref());
    fs::rename(from, to).at(from, &format!("rename to `{}`", to.display()))?;
    sync_dir(parent_of(to))?;
    if parent_of(from) != parent_of(to) {
        sync_dir(parent_of(from))?;
    }
    Ok(())
}

/// Renames a file or directory to a path at which there is nothing.
pub(crate) fn rename_new(from: &Path, to: &Path) -> Result<()> {
    let flags = rustix::fs::RenameFlags::NOREPLACE;
    let renamed = rustix::fs::renameat_with(rustix::fs::CWD, from, rustix::fs::CWD, to, flags);
    match renamed.map_err(io::Error::from) {
        // A file system without such renames.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {
            if fs::symlink_metadata(to).is_ok() {
                return Err(Error::Exists { path: to.to_owned() });
            }
            fs::rename(from, to).at(from, &format!("rename to `{}`", to.display()))
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(Error::Exists { path: to.to_owned() })
        }
        renamed => renamed.at(from, &format!("rename to `{}`", to.display())),
    }
}

/// Whether a name is that of a temporary file or directory of this crate (`….tmp-<pid>`).
pub fn is_stale_tmp(name: &str) -> bool {
    name.rsplit_once(".tmp-").is_some_and(|(stem, pid)| {
        !stem.is_empty() && !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit())
    })
}

/// The entries of a directory, sorted by name; invalid UTF-8 in names is replaced.
pub(crate) fn sorted_entries(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir).at(dir, "list")? {
        let entry = entry.at(dir, "list")?;
        entries.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    entries.sort();
    Ok(entries)
}
