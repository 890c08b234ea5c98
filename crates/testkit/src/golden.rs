//! Golden files: tensors made by the reference implementations, by name.
//!
//! It deliberately has no way to write one.

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};

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
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Golden {
    /// Opens a file.
    ///
    /// # Panics
    /// If it cannot be read.
    pub fn open(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self { path: path.to_owned(), bytes }
    }

    /// The names of all tensors, sorted.
    ///
    /// # Panics
    /// If the file is no safetensors file.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.parse().names().into_iter().map(str::to_owned).collect();
        names.sort();
        names
    }

    /// Whether the file has a tensor.
    pub fn has(&self, name: &str) -> bool {
        self.parse().tensor(name).is_ok()
    }

    /// A tensor's shape.
    ///
    /// # Panics
    /// If the file has none of this name.
    pub fn shape(&self, name: &str) -> Vec<usize> {
        self.tensor(name).0
    }

    /// Values of an F32 tensor.
    ///
    /// # Panics
    /// If the file has none of this name.
    pub fn f32(&self, name: &str) -> Vec<f32> {
        let (_, dtype, data) = self.tensor(name);
        assert_eq!(dtype, Dtype::F32, "{name}");
        data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    /// Values of an I64 tensor.
    ///
    /// # Panics
    /// If the file has none of this name.
    pub fn i64(&self, name: &str) -> Vec<i64> {
        let (_, dtype, data) = self.tensor(name);
        assert_eq!(dtype, Dtype::I64, "{name}");
        data.as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect()
    }

    /// Token ids: values of an I64 tensor, none negative.
    ///
    /// # Panics
    /// If the file has none of this name or a value is no id.
    pub fn ids(&self, name: &str) -> Vec<u32> {
        let id = |value: i64| u32::try_from(value).unwrap_or_else(|_| panic!("{name}: {value}"));
        self.i64(name).into_iter().map(id).collect()
    }

    fn tensor(&self, name: &str) -> (Vec<usize>, Dtype, &[u8]) {
        match self.parse().tensor(name) {
            Ok(view) => (view.shape().to_vec(), view.dtype(), view.data()),
            Err(error) => panic!("{}: {name}: {error}", self.path.display()),
        }
    }

    fn parse(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes)
            .unwrap_or_else(|error| panic!("{}: {error}", self.path.display()))
    }
}
