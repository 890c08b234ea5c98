//! Reads of whole files, each with a size limit, and compared with the MANIFEST beside the file.

use std::path::Path;

use crate::read::read_bytes_capped;
use crate::verified::listed;
use crate::{Error, Result};

/// Reads a file of at most `limit` bytes, and compares it with the MANIFEST of its directory if there is one. A pointer of
/// Git LFS is an error.
pub fn read_capped(path: impl AsRef<Path>, limit: u64) -> Result<Vec<u8>> {
    let path = path.as_ref();
    let bytes = read_bytes_capped(path, limit)?;
    if let Some(listed) = listed(path)? {
        listed.check(&bytes)?;
    }
    Ok(bytes)
}

/// Reads a UTF-8 text file of at most `limit` bytes, as [`read_capped`] does.
pub fn read_text_capped(path: impl AsRef<Path>, limit: u64) -> Result<String> {
    let path = path.as_ref();
    String::from_utf8(read_capped(path, limit)?)
        .map_err(|e| Error::NotUtf8 { path: path.to_owned(), offset: e.utf8_error().valid_up_to() })
}

/// As [`read_text_capped`]; `None` if there is no such file. A pipe, a directory or a link that leads nowhere is an error.
pub fn read_optional_text(path: impl AsRef<Path>, limit: u64) -> Result<Option<String>> {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    let path = path.as_ref();
    match std::fs::symlink_metadata(path) {
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(None),
        Ok(_) | Err(_) => read_text_capped(path, limit).map(Some),
    }
}
