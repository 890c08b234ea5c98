//! Bytes of a file, read at an offset or mapped.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use fsio::MappedFile;

use crate::{Error, Result};

/// An open file.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    n_bytes: u64,
    data: Data,
}

#[derive(Debug)]
enum Data {
    Read(File),
    Mapped(MappedFile),
}

impl Source {
    /// Opens a regular file for reading.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let failed = |source| Error::Read { path: path.to_owned(), source };
        let metadata = std::fs::metadata(path).map_err(failed)?;
        if !metadata.is_file() {
            return Err(fsio::Error::NotAFile { path: path.to_owned() }.into());
        }
        let file = File::open(path).map_err(failed)?;
        Ok(Self { path: path.to_owned(), n_bytes: metadata.len(), data: Data::Read(file) })
    }

    /// Maps a file of a verified directory.
    pub(crate) fn map(path: &Path) -> Result<Self> {
        let map = MappedFile::open(path)?;
        Ok(Self { path: path.to_owned(), n_bytes: map.len() as u64, data: Data::Mapped(map) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// Fills `out` with the bytes from `start` on.
    pub(crate) fn read_at(&self, start: u64, out: &mut [u8]) -> Result<()> {
        let result = match &self.data {
            Data::Read(file) => file.read_exact_at(out, start),
            Data::Mapped(map) => {
                let bytes = map.get(start as usize..).and_then(|rest| rest.get(..out.len()));
                bytes.map(|bytes| out.copy_from_slice(bytes)).ok_or_else(|| {
                    io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends before the tensor")
                })
            }
        };
        result.map_err(|source| Error::Read { path: self.path.clone(), source })
    }
}
