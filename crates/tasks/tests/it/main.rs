//! Tests of prompts and metrics against lm-evaluation-harness.

use std::path::{Path, PathBuf};

mod builtin;
mod golden;
mod instructions;
mod mistakes;

/// A file or directory of tests/golden. The crate testkit has the same, but builds burn.
fn golden_dir(name: &str) -> PathBuf {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden")).join(name);
    assert!(path.exists(), "no golden vectors at tests/golden/{name}");
    path
}
