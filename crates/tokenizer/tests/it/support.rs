//! Where test data lies and how tests that need it skip; it asserts nothing.

use std::path::PathBuf;

/// A path under the shared data, or None (with a line that says so) where it is absent.
pub(crate) fn data(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("TEMPER_DATA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")),
        PathBuf::from,
    );
    let full = root.join(path);
    if full.exists() {
        return Some(full);
    }
    #[allow(clippy::print_stderr)]
    {
        eprintln!("skipped: no {path} in the data folder");
    }
    None
}

/// A text file of the shared data.
pub(crate) fn text(path: &str) -> Option<String> {
    data(path).map(|path| std::fs::read_to_string(path).expect("test data is UTF-8"))
}

/// A new folder with these files, removed when it is dropped.
pub(crate) fn folder<T: AsRef<str>>(files: &[(&str, T)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        fsio::write_atomic(folder.path().join(name), text.as_ref().as_bytes()).expect("written");
    }
    folder
}
