//! Temporary directories, each locked by the process that writes it.
//!
//! The lock tells a directory in use from that of a killed process. Process ids cannot: two containers that share a file
//! system have the same ones.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::mem::ManuallyDrop;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::dirs::{is_stale_tmp, remove_dir_all, remove_file, sorted_entries};
use crate::error::IoContext;
use crate::hash::sha256_hex;
use crate::{Error, Result};

/// Names that are tried before giving up.
const ATTEMPTS: u32 = 1000;
/// Attempts to remove a directory in which another thread still creates files.
const REMOVALS: u32 = 10;

/// The temporary directories of this process.
static OWN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A new, empty directory; it is removed when this is dropped, unless `keep` was called.
#[derive(Debug)]
pub(crate) struct TmpDir {
    path: PathBuf,
    /// Open and locked; `None` on a file system without locks.
    lock: Option<File>,
    keeps: bool,
}

impl TmpDir {
    /// Creates `<stem>.tmp-<number>` in `parent` and removes those of the same stem that no process holds. Errors name
    /// `wanted`, which is to be written there.
    pub(crate) fn create(parent: &Path, stem: &str, wanted: &Path) -> Result<Self> {
        remove_abandoned(parent, |name| stem_of(name) == Some(stem));
        for attempt in 0..ATTEMPTS {
            let mut name = format!("{stem}.tmp-{}", std::process::id());
            if attempt > 0 {
                name += &format!("{attempt:03}");
            }
            let path = parent.join(name);
            match create_own(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error).at(wanted, "write"),
            }
            let dir = match File::open(&path) {
                Ok(dir) => dir,
                // Another process has found it without a lock and removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    disown(&path);
                    continue;
                }
                Err(error) => {
                    let _ = fs::remove_dir(&path);
                    disown(&path);
                    return Err(error).at(&path, "lock");
                }
            };
            match dir.try_lock() {
                // Another process may have removed the directory before it was locked.
                Ok(()) if !is_at(&dir, &path) => {}
                Ok(()) => return Ok(Self { path, lock: Some(dir), keeps: false }),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(_)) => return Ok(Self { path, lock: None, keeps: false }),
            }
            disown(&path);
        }
        Err(Error::Exists { path: parent.join(format!("{stem}.tmp-{}", std::process::id())) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the directory alone from now on.
    pub(crate) fn keep(&mut self) {
        self.keeps = true;
    }
}

impl Drop for TmpDir {
    fn drop(&mut self) {
        if !self.keeps {
            // Best effort: the next process that writes the same path removes a leftover.
            if fs::remove_dir_all(&self.path).is_err() {
                // A process that has no file descriptor left needs the lock's own to list the directory.
                self.lock = None;
                let _ = fs::remove_dir_all(&self.path);
            }
        }
        disown(&self.path);
    }
}

/// Creates a directory that [`remove_own_tmps`] knows from its first moment on.
fn create_own(path: &Path) -> io::Result<()> {
    let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    fs::create_dir(path)?;
    own.insert(path.to_owned());
    Ok(())
}

fn disown(path: &Path) {
    OWN.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
}

/// Removes the temporary directories of this process, which a signal is about to end; no further ones can be created. Failures
/// are ignored.
pub fn remove_own_tmps() {
    // Never given back: another thread would create the next directory while the process ends.
    let own = ManuallyDrop::new(OWN.lock().unwrap_or_else(PoisonError::into_inner));
    for path in own.iter() {
        // Another thread may create a file in it between the listing and the removal.
        for _ in 0..REMOVALS {
            if fs::remove_dir_all(path).is_ok() || fs::symlink_metadata(path).is_err() {
                break;
            }
        }
    }
}

/// Removes the files of killed processes that wrote the file `name` in `dir`; failures are ignored.
pub(crate) fn remove_abandoned_files(dir: &Path, name: &str) {
    let stem = stem_for(name);
    let is_of_file = |entry: &str| stem_of(entry).and_then(final_file_name) == Some(&*stem);
    for (entry, path) in sorted_entries(dir).unwrap_or_default() {
        let is_file = || fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file());
        if is_of_file(&entry)
            && is_file()
            && let Abandoned::Yes(_lock) = abandoned(&path)
        {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Removes the temporary directories in `parent` that no living process holds; failures are ignored, because a leftover only
/// takes space.
pub fn remove_abandoned_tmps(parent: impl AsRef<Path>) {
    remove_abandoned(parent.as_ref(), is_stale_tmp);
}

fn remove_abandoned(parent: &Path, is_wanted: impl Fn(&str) -> bool) {
    each_abandoned(parent, is_wanted, |_| {});
}

/// Calls `finish` with each temporary directory in `parent` of this stem that no living process holds, and removes it.
pub(crate) fn finish_abandoned(parent: &Path, stem: &str, finish: impl FnMut(&Path)) {
    each_abandoned(parent, |name| stem_of(name) == Some(stem), finish);
}

fn each_abandoned(parent: &Path, is_wanted: impl Fn(&str) -> bool, mut finish: impl FnMut(&Path)) {
    for (name, path) in sorted_entries(parent).unwrap_or_default() {
        let is_dir = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir());
        if !is_wanted(&name) || !is_dir {
            continue;
        }
        // The lock is held while the directory is removed, so that its name is not used again meanwhile.
        if let Abandoned::Yes(_lock) = abandoned(&path) {
            finish(&path);
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// Removes temporary files and directories of killed processes whose final names `is_own_file` and `is_own_dir` know; returns
/// their names, sorted. Other entries are left, whatever their names are.
///
/// Call it only while you hold the lock under which the directory is written: it does not check
/// whether the process of a temporary file is still running. A directory that a process holds is left alone.
pub fn remove_stale_tmps(
    parent: impl AsRef<Path>,
    is_own_file: impl Fn(&str) -> bool,
    is_own_dir: impl Fn(&str) -> bool,
) -> Result<Vec<String>> {
    let parent = parent.as_ref();
    let mut removed = Vec::new();
    for (name, path) in sorted_entries(parent)? {
        let Some(stem) = stem_of(&name) else { continue };
        let kind = fs::symlink_metadata(&path).at(&path, "read")?.file_type();
        if kind.is_dir() && is_own_dir(stem) {
            if matches!(abandoned(&path), Abandoned::No) {
                continue;
            }
            remove_dir_all(&path)?;
        } else if kind.is_file() && final_file_name(stem).is_some_and(&is_own_file) {
            remove_file(&path)?;
        } else {
            continue;
        }
        removed.push(name);
    }
    Ok(removed)
}

/// The file that a temporary one is the next content of: `plan.json` of `.plan.json.0`.
fn final_file_name(stem: &str) -> Option<&str> {
    let (name, number) = stem.strip_prefix('.')?.rsplit_once('.')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some(name)
}

/// Whether a process holds a temporary directory.
enum Abandoned {
    /// No process does; the lock keeps it so.
    Yes(File),
    /// A process does.
    No,
    /// The file system has no locks, or the directory cannot be opened.
    Unknown,
}

/// Whether a temporary directory belongs to no living process.
fn abandoned(path: &Path) -> Abandoned {
    let Ok(dir) = File::open(path) else { return Abandoned::Unknown };
    match dir.try_lock() {
        // Its process may have removed it meanwhile, and another one may have created the next of this name.
        Ok(()) if !is_at(&dir, path) => Abandoned::No,
        Ok(()) => Abandoned::Yes(dir),
        Err(TryLockError::WouldBlock) => Abandoned::No,
        Err(TryLockError::Error(_)) => Abandoned::Unknown,
    }
}

/// The start of the temporary names of `name`: `name` itself, or, where they would be longer than file systems allow, its start
/// and a hash.
pub(crate) fn stem_for(name: &str) -> Cow<'_, str> {
    /// Leaves room for `.`, a number and `.tmp-<number>` in 255 bytes.
    const BYTES: usize = 200;
    if name.len() <= BYTES {
        return Cow::Borrowed(name);
    }
    let hash = sha256_hex(name.as_bytes());
    Cow::Owned(format!("{}-{:.16}", &name[..name.floor_char_boundary(BYTES - 17)], hash))
}

fn stem_of(name: &str) -> Option<&str> {
    if is_stale_tmp(name) { name.rsplit_once(".tmp-").map(|(stem, _)| stem) } else { None }
}

/// Whether an open file or directory is the one at a path.
pub(crate) fn is_at(open: &File, path: &Path) -> bool {
    match (open.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(found)) => open.ino() == found.ino() && open.dev() == found.dev(),
        (Ok(_) | Err(_), _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_of_killed_processes_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let first = TmpDir::create(parent.path(), "x", parent.path()).unwrap();
        fs::write(first.path().join("a"), b"a").unwrap();
        // As if a process with the same id in another container wrote the same path.
        let second = TmpDir::create(parent.path(), "x", parent.path()).unwrap();
        assert_ne!(first.path(), second.path());
        assert!(first.path().join("a").is_file());
        // As left by a killed process.
        let [left, other] = ["x.tmp-1", "y.tmp-1"].map(|name| parent.path().join(name));
        fs::create_dir(&left).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(left.join("a"), b"a").unwrap();
        let third = TmpDir::create(parent.path(), "x", parent.path()).unwrap();
        assert!(!left.exists() && other.exists() && second.path().exists());
        remove_abandoned_tmps(parent.path());
        assert!(!other.exists() && first.path().exists() && third.path().exists());
        drop((first, second, third));
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
    /// Between its creation and its lock, a directory looks like one of a killed process.
    #[test]
    fn creators_and_removers_at_the_same_time() {
        let parent = tempfile::tempdir().unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        remove_abandoned_tmps(parent.path());
                    }
                });
            }
            let creators: Vec<_> = (0..4)
                .map(|n| {
                    let parent = parent.path();
                    scope.spawn(move || {
                        for _ in 0..300 {
                            let tmp =
                                TmpDir::create(parent, &format!("x{}", n % 2), parent).unwrap();
                            fs::write(tmp.path().join("a"), b"a").unwrap();
                            assert!(tmp.path().join("a").is_file());
                        }
                    })
                })
                .collect();
            let all =
                creators.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>();
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(all.iter().all(std::result::Result::is_ok));
        });
        remove_abandoned_tmps(parent.path());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
