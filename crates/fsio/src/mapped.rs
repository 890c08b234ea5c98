//! Memory-mapped files.
//!
//! For files that this program wrote and verified only: truncating a mapped file kills the process,
//! so other files are read instead.

use std::fs::File;
use std::ops::Deref;
use std::path::Path;

use crate::Result;
use crate::error::IoContext;
use crate::read::open_regular;

/// A file, mapped read-only.
#[derive(Debug)]
pub struct MappedFile {
    map: memmap2::Mmap,
}

impl MappedFile {
    /// Maps a file of a directory that `verify_dir` has accepted.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = open_regular(path)?;
        Ok(Self { map: map_file(&file).at(path, "map")? })
    }

    /// The same bytes, reference-counted.
    pub fn into_bytes(self) -> bytes::Bytes {
        bytes::Bytes::from_owner(self)
    }
}

/// The only unsafe code of this crate.
#[allow(unsafe_code)]
fn map_file(file: &File) -> std::io::Result<memmap2::Mmap> {
    // SAFETY: the mapping is read-only and private to readers. Changing or truncating the file
    // while it is mapped would be undefined behaviour; the files mapped here are in directories
    // that appear by rename, are never written again, and are read under the run's lock.
    unsafe { memmap2::Mmap::map(file) }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        &self.map
    }
}
