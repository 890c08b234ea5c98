//! Golden files: tensors computed by the reference implementations, by name.

use std::path::{Path, PathBuf};

use tensor_file::{Element, TensorFile, TensorView};

/// A directory or file of the committed golden vectors, by its path under `tests/golden`.
///
/// # Panics
/// If it does not exist: a missing vector fails the test.
pub fn golden_dir(name: &str) -> PathBuf {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden"));
    let path = root.join(name);
    assert!(path.exists(), "no golden vectors at tests/golden/{name}");
    path
}

/// An open golden file.
#[derive(Debug)]
pub struct Golden {
    file: TensorFile,
}

impl Golden {
    /// Opens a file.
    ///
    /// # Panics
    /// If it cannot be read, or is not a safetensors file.
    pub fn open(path: &Path) -> Self {
        Self { file: TensorFile::open(path).unwrap_or_else(|error| panic!("{error}")) }
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.file.tensors().map(|tensor| tensor.name().to_owned()).collect();
        names.sort();
        names
    }

    /// Whether the file has a tensor.
    pub fn has(&self, name: &str) -> bool {
        self.file.get(name).is_some()
    }

    /// A tensor's shape.
    ///
    /// # Panics
    /// If the file lacks it.
    pub fn shape(&self, name: &str) -> Vec<usize> {
        self.tensor(name).shape().to_vec()
    }

    /// Values of an f32 tensor.
    ///
    /// # Panics
    /// If the file lacks it, or stores it in another dtype.
    pub fn f32(&self, name: &str) -> Vec<f32> {
        self.values(name)
    }

    /// Values of an i64 tensor.
    ///
    /// # Panics
    /// If the file lacks it, or stores it in another dtype.
    pub fn i64(&self, name: &str) -> Vec<i64> {
        self.values(name)
    }

    /// Token ids: values of an i64 tensor, none negative.
    ///
    /// # Panics
    /// If the file lacks it, stores it in another dtype, or a value is not an id.
    pub fn ids(&self, name: &str) -> Vec<u32> {
        let id = |value: i64| u32::try_from(value).unwrap_or_else(|_| panic!("{name}: {value}"));
        self.i64(name).into_iter().map(id).collect()
    }

    fn values<T: Element>(&self, name: &str) -> Vec<T> {
        self.tensor(name).values().unwrap_or_else(|error| panic!("{error}"))
    }

    fn tensor(&self, name: &str) -> TensorView<'_> {
        self.file.tensor(name).unwrap_or_else(|error| panic!("{error}"))
    }
}
