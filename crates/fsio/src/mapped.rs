//! Memory-mapped files.
//!
//! For files that this program wrote and verified only: truncating a mapped file ends the process, with a message that names
//! the file, so other files are read instead.

use std::fs::File;
use std::ops::Deref;
use std::path::Path;

use crate::Result;
use crate::bus_error::Watched;
use crate::error::IoContext;
use crate::read::open_regular;

/// A file, mapped read-only.
#[derive(Debug)]
pub struct MappedFile {
    map: memmap2::Mmap,
    // Dropped after the mapping.
    _watched: Watched,
}

impl MappedFile {
    /// Maps a file of a directory that `verify_dir` has accepted.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = open_regular(path)?;
        let map = match map_file(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => map_file(&file),
            mapped => mapped,
        };
        let map = map.at(path, "map")?;
        let watched = Watched::new(path, &map);
        Ok(Self { map, _watched: watched })
    }

    /// The same bytes, reference-counted.
    pub fn into_bytes(self) -> bytes::Bytes {
        bytes::Bytes::from_owner(self)
    }
}

/// With `bus_error`, the only unsafe code of this crate.
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
