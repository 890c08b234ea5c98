//! A mapped file that becomes shorter ends the process with a message that names it.

use std::fs;
use std::process::Command;

use fsio::MappedFile;

const CHILD: &str = "FSIO_TEST_BUS_ERROR_CHILD";

/// Runs in a child process only: reads a mapped file that was truncated meanwhile.
#[test]
fn bus_error_child() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let map = MappedFile::open(&path).expect("mapped");
    let other = MappedFile::open(format!("{path}.other")).expect("mapped");
    let before: u64 = map.iter().map(|byte| u64::from(*byte)).sum();
    fs::File::options().write(true).open(&path).expect("open").set_len(10).expect("truncated");
    let after: u64 = map.iter().map(|byte| u64::from(*byte)).sum();
    panic!("read {before}, then {after} and {}", other.len());
}

#[test]
fn a_file_that_became_shorter_is_named() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("tokens.bin");
    fs::write(&path, vec![1; 100_000]).expect("write");
    fs::write(dir.path().join("tokens.bin.other"), vec![1; 100_000]).expect("write");
    let output = Command::new(std::env::current_exe().expect("exe"))
        .args(["--exact", "bus_error::bus_error_child", "--nocapture"])
        .env(CHILD, &path)
        .output()
        .expect("the child runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let named = format!("error: {}: the file became shorter while it was in use", path.display());
    assert!(text.contains(&named), "{text}");
}
