//! Vectors in safetensors files, read without the crates that depend on this one, and temporary files.

// Tests write the files that they read.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Tensors of a safetensors file by name, as bytes.
pub(crate) struct Vectors(BTreeMap<String, Vec<u8>>);

impl Vectors {
    /// A file in tests/golden/quant.
    pub(crate) fn open(name: &str) -> Self {
        Self::read(&golden().join("quant").join(name)).0
    }

    /// Any safetensors file of f32, with the shapes of its tensors in the order of their names.
    pub(crate) fn read(path: &Path) -> (Self, Vec<(String, Vec<usize>)>) {
        let file = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut shapes = Vec::new();
        let n = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let header: serde_json::Value = serde_json::from_slice(&file[8..8 + n]).unwrap();
        let mut tensors = BTreeMap::new();
        for (name, entry) in header.as_object().unwrap() {
            let Some(offsets) = entry.get("data_offsets") else { continue };
            let shape = entry["shape"].as_array().unwrap();
            shapes
                .push((name.clone(), shape.iter().map(|n| n.as_u64().unwrap() as usize).collect()));
            let at = |idx: usize| 8 + n + offsets[idx].as_u64().unwrap() as usize;
            tensors.insert(name.clone(), file[at(0)..at(1)].to_vec());
        }
        shapes.sort();
        (Self(tensors), shapes)
    }

    pub(crate) fn bytes(&self, name: &str) -> &[u8] {
        self.0.get(name).unwrap_or_else(|| panic!("no vector {name}"))
    }

    pub(crate) fn floats(&self, name: &str) -> Vec<f32> {
        let (chunks, rest) = self.bytes(name).as_chunks();
        assert!(rest.is_empty());
        chunks.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// The directory of committed reference vectors.
pub(crate) fn golden() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden")).to_owned()
}

/// A temporary file `model.gguf` with these bytes.
pub(crate) fn file(bytes: &[u8]) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}
