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

/// Checks that a file can be written whose earlier version is replaced: nothing has its name, or a file that is empty or begins
/// with `start`. Links, devices and the files of others are not replaced.
///
/// Errors: [`Error::Exists`], and those of [`check_destination`].
pub fn check_replaceable(path: impl AsRef<Path>, start: &[u8]) -> Result<()> {
    let path = path.as_ref();
    check_destination(path)?;
    let Ok(found) = std::fs::symlink_metadata(path) else { return Ok(()) };
    let begins = || -> std::io::Result<bool> {
        let mut bytes = vec![0; start.len()];
        File::open(path)?.read_exact(&mut bytes)?;
        Ok(bytes == start)
    };
    let is_earlier = found.is_file() && (found.len() == 0 || begins().unwrap_or(false));
    if is_earlier { Ok(()) } else { Err(Error::Exists { path: path.to_owned() }) }
}

/// Whether an open file is still the one at a path.
pub(crate) fn is_file_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let identity = |found: std::fs::Metadata| (found.dev(), found.ino());
    let at_path = std::fs::symlink_metadata(path).map(identity);
    matches!((file.metadata().map(identity), at_path), (Ok(a), Ok(b)) if a == b)
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
    use super::{check_destination, check_replaceable, is_present};

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

    #[test]
    fn only_an_earlier_version_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for (name, text) in
            [("page", "<page>\nold"), ("empty", ""), ("other", "<pag"), ("foreign", "text")]
        {
            std::fs::write(path(name), text).unwrap();
        }
        std::fs::create_dir(path("dir")).unwrap();
        std::os::unix::fs::symlink("page", path("link")).unwrap();
        std::os::unix::fs::symlink("nowhere", path("broken")).unwrap();
        let may_be_replaced = |name: &str| check_replaceable(path(name), b"<page>\n").is_ok();
        assert!(["new", "page", "empty"].into_iter().all(may_be_replaced));
        let kept = ["other", "foreign", "dir", "link", "broken", "/dev/null", "none/new"];
        assert!(!kept.into_iter().any(may_be_replaced));
    }
}
