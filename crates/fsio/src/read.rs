//! Reads of whole files, each with a size limit.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::dirs::parent_of;
use crate::error::IoContext;
use crate::lfs::{POINTER_BYTES, refuse_pointer};
use crate::{Error, Result};

/// Opens a regular file for reading. Pipes and devices are refused: they may block or never end.
pub(crate) fn open_regular(path: &Path) -> Result<File> {
    let metadata = std::fs::metadata(path).at(path, "read")?;
    if !metadata.is_file() {
        return Err(Error::NotAFile { path: path.to_owned() });
    }
    File::open(path).at(path, "read")
}

/// Whether something has this name, readable or not: a directory or a pipe, a link whose target is missing, or a name that
/// cannot be looked at. Reading it explains the problem; a name that counted as absent would hide it.
pub fn is_present(path: impl AsRef<Path>) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    match std::fs::symlink_metadata(path) {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), NotFound | NotADirectory),
    }
}

/// Checks that a file can have this name: one that a file system takes, in a directory that exists. A file that has it already
/// is no error.
pub fn check_destination(path: impl AsRef<Path>) -> Result<()> {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    let path = path.as_ref();
    match std::fs::symlink_metadata(path) {
        Err(error) if !matches!(error.kind(), NotFound | NotADirectory) => {
            return Err(error).at(path, "read");
        }
        Ok(_) | Err(_) => {}
    }
    let parent = parent_of(path);
    if !std::fs::metadata(parent).at(parent, "read")?.is_dir() {
        return Err(std::io::Error::from(NotADirectory)).at(parent, "list");
    }
    Ok(())
}

/// Returns an error if a file is a pointer of Git LFS. Larger files are not read.
pub fn refuse_lfs_pointer(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let file = open_regular(path)?;
    if file.metadata().at(path, "read")?.len() >= POINTER_BYTES {
        return Ok(());
    }
    let mut bytes = Vec::new();
    file.take(POINTER_BYTES).read_to_end(&mut bytes).at(path, "read")?;
    refuse_pointer(path, &bytes)
}

/// Reads a file of at most `limit` bytes, without a look at MANIFEST. A pointer of Git LFS is an error.
pub(crate) fn read_bytes_capped(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = open_regular(path)?;
    let bytes = file.metadata().at(path, "read")?.len();
    let too_large = || Error::TooLarge { path: path.to_owned(), limit };
    if bytes > limit {
        return Err(too_large());
    }
    let mut out = Vec::with_capacity(bytes as usize);
    // The file may have grown, and files under /proc report no length: count the bytes read.
    file.take(limit.saturating_add(1)).read_to_end(&mut out).at(path, "read")?;
    if out.len() as u64 > limit {
        return Err(too_large());
    }
    refuse_pointer(path, &out)?;
    Ok(out)
}

#[cfg(all(test, unix))]
mod tests {
    use super::{check_destination, is_present};

    #[test]
    fn a_name_is_present_whatever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("file"), "").unwrap();
        std::os::unix::fs::symlink("nowhere", path("broken")).unwrap();
        for name in ["file", "broken", ""] {
            assert!(is_present(path(name)), "{name}");
        }
        for name in ["none", "file/below", "none/below"] {
            assert!(!is_present(path(name)), "{name}");
        }
    }

    #[test]
    fn a_destination_is_a_possible_name_in_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let check = |name: &str| {
            let checked = check_destination(dir.path().join(name));
            let said = checked.map_err(|error| error.to_string().replace('/', "|"));
            said.map_err(|text| text.rsplit('|').next().unwrap_or_default().to_owned())
        };
        assert_eq!((check("new"), check("file")), (Ok(()), Ok(())));
        let said = |name: &str| check(name).unwrap_err();
        assert!(said("none/new").starts_with("none: cannot read: No such file"));
        assert!(said("file/new").starts_with("file: cannot list: "), "{}", said("file/new"));
        let long = "a".repeat(256);
        assert!(said(&long).contains("a: cannot read: File name too long"));
        assert!(check_destination("a_name_in_this_directory").is_ok());
    }
}
