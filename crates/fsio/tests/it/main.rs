//! Damage that must be detected, and directories that must stay complete.

// The tests damage files on purpose.
#![allow(clippy::disallowed_methods)]

mod bus_error;
mod dir_writer;
mod locks;
mod logs;
mod manifest;
mod program;
mod protocol;
mod reads;

use std::path::Path;

use fsio::DirWriter;
use serde_json::json;

/// Writes a directory with three files, one of them empty.
fn sample_dir(dir: &Path) {
    let mut writer = DirWriter::begin(dir).expect("begin");
    writer.write("model.safetensors", vec![7_u8; 3000]).expect("write");
    writer.write("state.json", br#"{"step": 12}"#).expect("write");
    writer.write("empty", b"").expect("write");
    writer.commit(json!({"previous": "step-000001"})).expect("commit");
}

/// Names in a directory, sorted.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .expect("list")
        .map(|e| e.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
