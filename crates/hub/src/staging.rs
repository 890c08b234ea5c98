//! The hidden directory beside the final one in which files are collected, and the lock of a download.
//!
//! `.NAME.partial/parts/HASH` has the bytes of an unfinished file, named after its hash, so that bytes of another revision
//! are never mixed in. `.NAME.partial/files` has the finished files under their paths; renamed, it becomes the directory.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use fsio::Lock;

use crate::hash::{Expected, Hasher};
use crate::listing::RemoteFile;
use crate::{Error, Result};

/// Longest entity tag that is kept, in bytes.
const TAG_BYTES: u64 = 1024;

/// The directories of one download. Dropping it releases the lock and keeps the files for the next attempt.
pub(crate) struct Staging {
    root: PathBuf,
    to: PathBuf,
    _lock: Lock,
}

impl Staging {
    /// Locks the download into a directory, and creates the hidden one.
    pub(crate) fn begin(to: &Path) -> Result<Self> {
        let name =
            to.file_name().map(|name| name.to_string_lossy().into_owned()).ok_or_else(|| {
                Error::BadRequest {
                    problem: format!("`{}` is no directory to create", to.display()),
                    hint: "name a new directory with --to".to_owned(),
                }
            })?;
        let parent = match to.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fsio::create_dir_all(parent)?;
        let lock = Lock::acquire(parent.join(format!(".{name}.lock")))?;
        let staging = Self {
            root: parent.join(format!(".{name}.partial")),
            to: to.to_path_buf(),
            _lock: lock,
        };
        fsio::create_dir_all(staging.files())?;
        fsio::create_dir_all(staging.parts())?;
        Ok(staging)
    }

    /// Directory of the finished files.
    fn files(&self) -> PathBuf {
        self.root.join("files")
    }

    fn parts(&self) -> PathBuf {
        self.root.join("parts")
    }

    /// Place of a finished file.
    pub(crate) fn finished(&self, file: &RemoteFile) -> PathBuf {
        self.files().join(&file.path)
    }

    /// Place of an unfinished file.
    pub(crate) fn part(&self, expected: &Expected) -> PathBuf {
        self.parts().join(expected.hex())
    }

    fn tag_file(&self, expected: &Expected) -> PathBuf {
        self.parts().join(format!("{}.etag", expected.hex()))
    }

    /// Entity tag of the answer that the bytes of an unfinished file came from.
    pub(crate) fn tag(&self, expected: &Expected) -> Option<String> {
        fsio::read_text_capped(self.tag_file(expected), TAG_BYTES).ok()
    }

    /// Records an entity tag; a weak one, which does not promise equal bytes, is forgotten.
    pub(crate) fn record_tag(&self, expected: &Expected, tag: Option<&str>) -> Result<()> {
        let path = self.tag_file(expected);
        let is_strong = |tag: &&str| tag.starts_with('"') && (tag.len() as u64) < TAG_BYTES;
        match tag.filter(is_strong) {
            Some(tag) => fsio::write_atomic(&path, tag)?,
            None if path.exists() => fsio::remove_file(&path)?,
            None => {}
        }
        Ok(())
    }

    /// Removes everything that does not belong to the files of this download: those of another revision.
    pub(crate) fn prune(&self, files: &[RemoteFile]) -> Result<()> {
        let mut wanted: BTreeSet<PathBuf> = BTreeSet::new();
        for file in files {
            wanted.insert(self.part(&file.expected));
            wanted.insert(self.tag_file(&file.expected));
            let finished = self.finished(file);
            wanted.extend(finished.ancestors().map(Path::to_path_buf));
        }
        prune(&self.parts(), &wanted)?;
        prune(&self.files(), &wanted)
    }

    /// Bytes of a file that are there: all of a finished file, or those of its part.
    pub(crate) fn bytes_of(&self, file: &RemoteFile) -> u64 {
        let length = |path: PathBuf| fs::metadata(path).map(|metadata| metadata.len()).ok();
        length(self.finished(file))
            .or_else(|| length(self.part(&file.expected)))
            .unwrap_or(0)
            .min(file.size)
    }

    /// Removes the part of a file.
    pub(crate) fn forget(&self, expected: &Expected) -> Result<()> {
        self.record_tag(expected, None)?;
        let part = self.part(expected);
        if part.exists() {
            fsio::remove_file(part)?;
        }
        Ok(())
    }

    /// Gives the collected files and the record their place, and removes the hidden directory.
    pub(crate) fn place(
        &self,
        files: &[RemoteFile],
        record_name: &str,
        record: &str,
    ) -> Result<()> {
        let is_new = fs::read_dir(&self.to).map_or(true, |mut entries| entries.next().is_none());
        if is_new {
            fsio::write_atomic(self.files().join(record_name), record)?;
            fsio::rename(self.files(), &self.to)?;
        } else {
            for file in files.iter().filter(|file| self.finished(file).exists()) {
                let target = self.to.join(&file.path);
                if let Some(parent) = target.parent() {
                    fsio::create_dir_all(parent)?;
                }
                fsio::rename(self.finished(file), &target)?;
            }
            // Last, so that it never names a file that is not there.
            fsio::write_atomic(self.to.join(record_name), record)?;
        }
        fsio::remove_dir_all(&self.root)?;
        Ok(())
    }

    /// Directory that is being made, for messages.
    pub(crate) fn to(&self) -> &Path {
        &self.to
    }
}

fn prune(dir: &Path, wanted: &BTreeSet<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let is_dir = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir());
        match (wanted.contains(&path), is_dir) {
            (true, true) => prune(&path, wanted)?,
            (true, false) => {}
            (false, true) => fsio::remove_dir_all(&path)?,
            (false, false) => fsio::remove_file(&path)?,
        }
    }
    Ok(())
}

/// Hashes a file that exists and compares it; the SHA-256 if it is the expected content.
pub(crate) fn sha256_if_equal(path: &Path, file: &RemoteFile) -> Result<Option<String>> {
    let is_file = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file());
    if !is_file || fs::metadata(path).map(|metadata| metadata.len()).ok() != Some(file.size) {
        return Ok(None);
    }
    let mut hasher = Hasher::new(&file.expected, file.size);
    fsio::for_each_piece(path, |piece| hasher.update(piece))?;
    let hashes = hasher.finish();
    Ok(hashes.is(&file.expected).then_some(hashes.sha256))
}
