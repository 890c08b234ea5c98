//! Locates shared test data; tests that need it skip where it is missing.

use std::path::PathBuf;

/// A path under the shared data; None, with a line on stderr, if it is missing.
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
        eprintln!("skipped: no {path} in the shared data");
    }
    None
}

/// A text file of the shared data.
pub(crate) fn text(path: &str) -> Option<String> {
    data(path).map(|path| std::fs::read_to_string(path).expect("test data is UTF-8"))
}

/// A temporary directory with these files.
pub(crate) fn directory<T: AsRef<str>>(files: &[(&str, T)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        fsio::write_atomic(dir.path().join(name), text.as_ref().as_bytes()).expect("written");
    }
    dir
}
