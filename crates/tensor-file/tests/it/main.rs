//! Tests of tensor files: reading, writing, directories of shards, and malformed files.

// Malformed files are written without fsio.
#![allow(clippy::disallowed_methods)]

mod foreign;
mod malformed;
mod reading;
mod shards;
mod writing;

use std::path::{Path, PathBuf};

use arch::Dtype;
use tensor_file::SafetensorsWriter;

/// A file of f32 weights, written in `dtype`.
fn write(path: &Path, weights: &[(&str, &[usize], &[f32])], dtype: Dtype) {
    let specs = weights.iter().map(|(name, shape, _)| ((*name).to_owned(), shape.to_vec()));
    let mut bytes = Vec::new();
    let mut writer = SafetensorsWriter::begin_weights(&mut bytes, specs, dtype).expect("a header");
    for (name, _, values) in weights {
        writer.weights(name, values).expect("a tensor");
    }
    writer.finish().expect("all tensors");
    std::fs::write(path, bytes).expect("a file");
}

/// A path in a new temporary directory.
fn temporary(name: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join(name);
    (dir, path)
}
