//! A copy of the fixture to damage.

use std::path::{Path, PathBuf};

/// The finished run of the fixture.
pub(crate) fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixture/kind")
}

/// A copy of the fixture in a temporary directory.
pub(crate) struct Copy {
    dir: tempfile::TempDir,
}

impl Copy {
    pub(crate) fn new() -> Self {
        let copy = Self { dir: tempfile::tempdir().expect("a directory") };
        copy_dir(&fixture(), &copy.path());
        copy
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("kind")
    }

    pub(crate) fn remove(&self, name: &str) -> &Self {
        let path = self.path().join(name);
        if path.is_dir() {
            fsio::remove_dir_all(&path).expect("removed");
        } else {
            fsio::remove_file(&path).expect("removed");
        }
        self
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> &Self {
        fsio::write_atomic(self.path().join(name), bytes).expect("written");
        self
    }

    pub(crate) fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path().join(name)).expect("a text")
    }
}

fn copy_dir(from: &Path, to: &Path) {
    fsio::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory").flatten() {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &to);
        } else {
            fsio::write_atomic(&to, std::fs::read(entry.path()).expect("a file")).expect("written");
        }
    }
}
