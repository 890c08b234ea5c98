//! Pointers of Git LFS: small text files that a checkout without `git lfs` has in place of large files.

use std::path::Path;

use crate::{Error, Result};

/// Size limit of a pointer in bytes, from the specification of Git LFS.
pub(crate) const POINTER_BYTES: u64 = 1024;

/// Returns an error if the bytes of a whole file are a pointer.
pub(crate) fn refuse_pointer(path: &Path, bytes: &[u8]) -> Result<()> {
    let oid = b"\noid ";
    let is_pointer = (bytes.len() as u64) < POINTER_BYTES
        && bytes.starts_with(b"version https://git-lfs.github.com/spec/")
        && bytes.windows(oid.len()).any(|window| window == oid);
    if is_pointer { Err(Error::LfsPointer { path: path.to_owned() }) } else { Ok(()) }
}
