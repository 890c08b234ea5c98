//! Writes one file as a stream, in its final place only once it is complete.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::dirs::{parent_of, rename};
use crate::error::IoContext;
use crate::hash::CHUNK;
use crate::{Error, Result};

/// A file under construction. Dropping it without `commit` removes it.
#[derive(Debug)]
pub struct AtomicFile {
    out: BufWriter<File>,
    /// The directory that holds the file until the commit. The file has its final name there, because readers recognise
    /// formats by names.
    tmp_dir: PathBuf,
    tmp: PathBuf,
    path: PathBuf,
    committed: bool,
}

impl AtomicFile {
    /// Creates `.<name>.tmp-<pid>/<name>` in the directory of `path`, which must exist. The file itself must not.
    pub fn begin(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let Some(name) = path.file_name() else {
            return Err(Error::BadName { name: path.display().to_string() });
        };
        if fs::symlink_metadata(path).is_ok() {
            return Err(Error::Exists { path: path.to_owned() });
        }
        let tmp_name = format!(".{}.tmp-{}", name.to_string_lossy(), std::process::id());
        let tmp_dir = parent_of(path).join(tmp_name);
        if fs::symlink_metadata(&tmp_dir).is_ok() {
            // It has this process's id, so the process that created it has exited: ids are reused.
            fs::remove_dir_all(&tmp_dir).at(&tmp_dir, "remove the directory")?;
        }
        fs::create_dir(&tmp_dir).at(&tmp_dir, "create the directory")?;
        let tmp = tmp_dir.join(name);
        let file = File::create(&tmp).at(path, "write")?;
        let out = BufWriter::with_capacity(CHUNK, file);
        Ok(Self { out, tmp_dir, tmp, path: path.to_owned(), committed: false })
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

    /// Syncs the file and gives it its name. Returns its length in bytes.
    pub fn commit(mut self) -> Result<u64> {
        self.out.flush().at(&self.path, "write")?;
        let file = self.out.get_ref();
        file.sync_all().at(&self.path, "sync")?;
        let n_bytes = file.metadata().at(&self.path, "read the length of")?.len();
        rename(&self.tmp, &self.path)?;
        self.committed = true;
        // Best effort: the file has its name, and an empty directory is no reason to fail.
        let _ = fs::remove_dir(&self.tmp_dir);
        Ok(n_bytes)
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if !self.committed {
            // Best effort: `remove_stale_tmps` removes a leftover at the next start.
            let _ = fs::remove_dir_all(&self.tmp_dir);
        }
    }
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
