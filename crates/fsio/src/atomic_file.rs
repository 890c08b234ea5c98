//! Writes one file as a stream, in its final place only once it is complete.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::dirs::{parent_of, rename_new, sync_dir};
use crate::error::IoContext;
use crate::hash::CHUNK;
use crate::tmp_dir::TmpDir;
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
        if fs::symlink_metadata(path).is_ok() {
            return Err(Error::Exists { path: path.to_owned() });
        }
        let tmp_dir = TmpDir::create(parent_of(path), &format!(".{}", name.to_string_lossy()))?;
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

    /// As [`Self::commit`], with other files of the same directory, which get their names first. If one of the names is taken,
    /// none of the files is left.
    pub fn commit_with(mut self, others: &[(PathBuf, &[u8])]) -> Result<u64> {
        self.out.flush().at(&self.path, "write")?;
        let file = self.out.get_ref();
        file.sync_all().at(&self.path, "sync")?;
        let n_bytes = file.metadata().at(&self.path, "read the length of")?.len();
        // All bytes are on the disk before the first file gets its name.
        let mut renames = Vec::new();
        for (idx, (path, bytes)) in others.iter().enumerate() {
            let tmp = self.tmp_dir.path().join(format!("{idx}.other"));
            let mut file = File::create(&tmp).at(path, "write")?;
            file.write_all(bytes).at(path, "write")?;
            file.sync_all().at(path, "sync")?;
            renames.push((tmp, path));
        }
        renames.push((self.tmp.clone(), &self.path));
        for (done, (tmp, path)) in renames.iter().enumerate() {
            if let Err(error) = rename_new(tmp, path) {
                for (_, path) in renames.iter().take(done) {
                    let _ = fs::remove_file(path);
                }
                return Err(error);
            }
        }
        sync_dir(parent_of(&self.path))?;
        // The empty directory is removed when `self` is dropped.
        Ok(n_bytes)
    }
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
}
