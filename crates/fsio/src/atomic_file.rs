//! Writes one file as a stream, in its final place only once it is complete.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::dirs::{parent_of, rename_new, sync_dir};
use crate::error::IoContext;
use crate::hash::CHUNK;
use crate::tmp_dir::{TmpDir, finish_abandoned, stem_for};
use crate::{Error, Result};

/// A file under construction. Dropping it without `commit` removes it.
#[derive(Debug)]
pub struct AtomicFile {
    out: BufWriter<File>,
    /// The directory that holds the file until the commit. The file has its final name there, because readers recognise
    /// formats by names.
    tmp_dir: TmpDir,
    tmp: PathBuf,
    path: PathBuf,
}

impl AtomicFile {
    /// Creates `.<name>.tmp-<pid>/<name>` in the directory of `path`, which must exist, and removes what killed processes
    /// left of the same file. The file itself must not exist.
    pub fn begin(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let Some(name) = path.file_name() else {
            return Err(Error::BadName { name: path.display().to_string() });
        };
        finish_file(path);
        if fs::symlink_metadata(path).is_ok() {
            return Err(Error::Exists { path: path.to_owned() });
        }
        let tmp_dir = TmpDir::create(parent_of(path), &stem(name), path)?;
        let tmp = tmp_dir.path().join(name);
        let file = File::create(&tmp).at(path, "write")?;
        let out = BufWriter::with_capacity(CHUNK, file);
        Ok(Self { out, tmp_dir, tmp, path: path.to_owned() })
    }

    /// Writes the buffer and returns the path before the commit, for reading the file back.
    pub fn written(&mut self) -> Result<&Path> {
        self.out.flush().at(&self.path, "write")?;
        Ok(&self.tmp)
    }

    /// Path after the commit.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Syncs the file and gives it its name, at which there must be nothing. Returns its length in bytes.
    pub fn commit(self) -> Result<u64> {
        self.commit_with(&[])
    }

    /// As [`Self::commit`], with other files of the same directory, which get their names after it: [`finish_file`] gives them to
    /// those of a process that was killed in between. If one of the names is taken, none of the files is left.
    pub fn commit_with(mut self, others: &[(PathBuf, &[u8])]) -> Result<u64> {
        let (n_bytes, renames) = self.prepare(others)?;
        for (done, (tmp, path)) in renames.iter().enumerate() {
            if let Err(error) = rename_new(tmp, path) {
                for (_, path) in renames.iter().take(done) {
                    let _ = fs::remove_file(path);
                }
                return Err(error);
            }
        }
        sync_dir(parent_of(&self.path))?;
        // The directory is removed when `self` is dropped.
        Ok(n_bytes)
    }

    /// Writes all files, with a list of the others, and returns the length of this one, and all renames, this one's first.
    fn prepare(&mut self, others: &[(PathBuf, &[u8])]) -> Result<(u64, Vec<(PathBuf, PathBuf)>)> {
        if let Some((taken, _)) = others.iter().find(|(path, _)| fs::symlink_metadata(path).is_ok())
        {
            return Err(Error::Exists { path: taken.clone() });
        }
        self.out.flush().at(&self.path, "write")?;
        let file = self.out.get_ref();
        file.sync_all().at(&self.path, "sync")?;
        let metadata = file.metadata().at(&self.path, "read the length of")?;
        // All bytes are on the disk before the first file gets its name.
        let mut renames = vec![(self.tmp.clone(), self.path.clone())];
        let mut names = Vec::new();
        for (path, bytes) in others {
            let tmp = self.tmp_dir.path().join(other_name(names.len()));
            write_synced(&tmp, bytes).at(path, "write")?;
            renames.push((tmp, path.clone()));
            names.push(path.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
        if !others.is_empty() {
            let list = json!({"device": metadata.dev(), "inode": metadata.ino(), "names": names});
            let tmp = self.tmp_dir.path().join(OTHERS);
            write_synced(&tmp, list.to_string().as_bytes()).at(&self.path, "write")?;
            sync_dir(self.tmp_dir.path())?;
        }
        Ok((metadata.len(), renames))
    }
}

/// The list of the other files in the temporary directory.
const OTHERS: &str = "others.json";

/// Another file in the temporary directory.
fn other_name(idx: usize) -> String {
    format!("{idx}.other")
}

/// The name of a file's temporary directories without their numbers.
fn stem(name: &OsStr) -> String {
    format!(".{}", stem_for(&name.to_string_lossy()))
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Completes a file whose process was killed while its files got their names, and removes what killed processes left of it:
/// either the file has its name, and then the files that belong to it get theirs, or nothing of it is left. Failures are ignored.
pub fn finish_file(path: impl AsRef<Path>) {
    let path = path.as_ref();
    let Some(name) = path.file_name() else { return };
    finish_abandoned(parent_of(path), &stem(name), |dir| {
        if let Some(names) = others_of(path, dir) {
            for (idx, name) in names.iter().enumerate() {
                // Those that have their names are no longer in the directory.
                let _ = rename_new(&dir.join(other_name(idx)), &path.with_file_name(name));
            }
        }
    });
}

/// Names of the other files in a temporary directory whose own file is at `path`.
fn others_of(path: &Path, dir: &Path) -> Option<Vec<String>> {
    let found = fs::symlink_metadata(path).ok()?;
    let list: Value = serde_json::from_slice(&fs::read(dir.join(OTHERS)).ok()?).ok()?;
    let is_own =
        list.get("device")?.as_u64()? == found.dev() && list.get("inode")?.as_u64()? == found.ino();
    let names = list.get("names")?.as_array()?.iter();
    let names: Option<Vec<String>> = names.map(|name| Some(name.as_str()?.to_owned())).collect();
    names.filter(|names| is_own && names.iter().all(|name| !name.contains('/')))
}

impl Write for AtomicFile {
    /// An error has the path, as one of this crate: see [`Error::of_writer`].
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes).map_err(|error| named(&self.path, error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush().map_err(|error| named(&self.path, error))
    }
}

/// An error of writing a file, with its path inside.
pub(crate) fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), Error::io(path, "write", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        let names = || fs::read_dir(dir.path()).unwrap().count();
        let mut file = AtomicFile::begin(&path).unwrap();
        file.write_all(b"half").unwrap();
        assert!(!path.exists());
        drop(file);
        assert_eq!(names(), 0);
        let mut file = AtomicFile::begin(&path).unwrap();
        file.write_all(b"whole").unwrap();
        let written = file.written().unwrap();
        assert_eq!(written.file_name().unwrap(), "model.gguf");
        assert_eq!(fs::read(written).unwrap(), b"whole");
        assert_eq!(file.commit().unwrap(), 5);
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(names(), 1);
        assert!(matches!(AtomicFile::begin(&path), Err(Error::Exists { .. })));
    }

    /// A kill before, between and after the renames leaves nothing or the file, and what follows completes it or removes the rest.
    #[test]
    fn a_kill_between_renames_leaves_the_old_state_or_the_file() {
        for n_renamed in 0..=3 {
            let dir = tempfile::tempdir().unwrap();
            let [path, first, second] =
                ["m.gguf", "Modelfile", "m.proof.json"].map(|name| dir.path().join(name));
            let mut file = AtomicFile::begin(&path).unwrap();
            file.write_all(b"model").unwrap();
            let others: [(PathBuf, &[u8]); 2] = [(first.clone(), b"one"), (second.clone(), b"two")];
            let (_, renames) = file.prepare(&others).unwrap();
            for (tmp, path) in renames.iter().take(n_renamed) {
                rename_new(tmp, path).unwrap();
            }
            file.tmp_dir.keep();
            drop(file);
            assert_eq!(path.exists(), n_renamed > 0);
            assert!(n_renamed > 0 || (!first.exists() && !second.exists()));
            finish_file(&path);
            let mut names: Vec<String> = fs::read_dir(dir.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            if n_renamed == 0 {
                assert_eq!(names, [""; 0]);
                AtomicFile::begin(&path).unwrap().commit().unwrap();
            } else {
                assert_eq!(names, ["Modelfile", "m.gguf", "m.proof.json"]);
                assert_eq!(fs::read(&first).unwrap(), b"one");
                assert_eq!(fs::read(&second).unwrap(), b"two");
            }
        }
    }

    /// The leftovers of a removed file do not belong to another file of its name.
    #[test]
    fn the_rest_of_a_removed_file_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let [path, other] = ["m.gguf", "Modelfile"].map(|name| dir.path().join(name));
        let mut file = AtomicFile::begin(&path).unwrap();
        let (_, renames) = file.prepare(&[(other.clone(), b"one".as_slice())]).unwrap();
        let (tmp, _) = &renames[0];
        rename_new(tmp, &path).unwrap();
        file.tmp_dir.keep();
        drop(file);
        let replacement = dir.path().join("new");
        fs::write(&replacement, "another").unwrap();
        fs::rename(&replacement, &path).unwrap();
        finish_file(&path);
        assert!(!other.exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_taken_name_leaves_none_of_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let [path, other] = ["m.gguf", "Modelfile"].map(|name| dir.path().join(name));
        fs::write(&other, "mine").unwrap();
        let file = AtomicFile::begin(&path).unwrap();
        let refused = file.commit_with(&[(other.clone(), b"one".as_slice())]);
        assert!(matches!(refused, Err(Error::Exists { path }) if path == other));
        assert!(!path.exists());
        assert_eq!(fs::read(&other).unwrap(), b"mine");
    }
}
