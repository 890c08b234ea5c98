//! The system calls of a commit: their order, and the state on disk when the process is killed at
//! any of them or any of them fails. Needs strace; prints that it was skipped where it is missing.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use fsio::{DirWriter, remove_stale_tmps, verify_dir};
use serde_json::Value;

use super::{names, sample_dir};

const CHILD: &str = "FSIO_TEST_PROTOCOL_CHILD";

/// Runs in a child process only: commits `new` next to `old`.
#[test]
fn protocol_child() {
    let Ok(root) = std::env::var(CHILD) else { return };
    let commit = || {
        let mut writer = DirWriter::begin(Path::new(&root).join("new"))?;
        writer.write("weights", vec![1; 2_500_000])?;
        writer.write("state.json", b"{}")?;
        writer.commit(Value::Null)
    };
    let code = if commit().is_ok() { 0 } else { 20 };
    #[allow(clippy::exit)]
    std::process::exit(code);
}

/// Runs the child under strace; returns the trace and the exit code, if there is one.
fn trace(root: &Path, options: &[&str]) -> Option<(String, Option<i32>)> {
    let log = root.join("trace");
    let status = Command::new("strace")
        .args(["-f", "-y", "-qq", "-o"])
        .arg(&log)
        .args(options)
        .arg(std::env::current_exe().expect("exe"))
        .args(["--exact", "protocol::protocol_child", "--nocapture"])
        .env(CHILD, root)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match status {
        Ok(status) => {
            let trace = fs::read_to_string(&log).unwrap_or_default();
            // strace may be present but not allowed to trace.
            if trace.is_empty() { None } else { Some((trace, status.code())) }
        }
        Err(_) => None,
    }
}

#[test]
fn system_calls_are_in_the_right_order() {
    let root = tempfile::tempdir().expect("tempdir");
    let calls = "trace=mkdir,write,fsync,fdatasync,rename,renameat,renameat2";
    let Some((trace, code)) = trace(root.path(), &["-e", calls]) else {
        eprintln_skipped();
        return;
    };
    assert_eq!(code, Some(0));
    let root_name = root.path().to_str().expect("UTF-8");
    let mut seen: Vec<String> = Vec::new();
    for line in trace.lines().filter(|line| line.contains(root_name)) {
        let call = line.split_whitespace().nth(1).and_then(|l| l.split('(').next()).expect("call");
        // `fsync(4</tmp/x/new.tmp-12/weights>)`, `mkdir("/tmp/x/new.tmp-12", 0777)`.
        let path = if call == "renameat2" {
            // The first argument is the working directory.
            line.split('"').nth(1)
        } else {
            line.split(['<', '"']).nth(1).and_then(|l| l.split(['>', '"']).next())
        };
        let path = Path::new(path.expect("path")).strip_prefix(root_name).expect("below root");
        let parts: Vec<&str> = path
            .iter()
            .map(|part| part.to_str().expect("UTF-8"))
            .map(|part| if part.starts_with("new.tmp-") { "TMP" } else { part })
            .collect();
        let event = format!("{call} {}", parts.join("/"));
        if seen.last() != Some(&event) {
            seen.push(event);
        }
    }
    let want = [
        "mkdir TMP",
        "write TMP/weights",
        "fsync TMP/weights",
        "write TMP/state.json",
        "fsync TMP/state.json",
        "write TMP/MANIFEST",
        "fsync TMP/MANIFEST",
        "fsync TMP",
        "renameat2 TMP",
        "fsync ",
    ];
    assert_eq!(seen, want);
}

#[test]
fn a_kill_or_failure_at_any_call_leaves_a_complete_directory_or_none() {
    let mut n_points = 0;
    for fault in ["signal=KILL", "error=ENOSPC", "error=EIO"] {
        for call in ["mkdir", "openat", "write", "fsync", "renameat2", "close"] {
            // Failed opens and closes of other files break the process itself.
            if fault != "signal=KILL" && (call == "openat" || call == "close") {
                continue;
            }
            for when in 1..40 {
                let root = tempfile::tempdir().expect("tempdir");
                sample_dir(&root.path().join("old"));
                let inject = format!("inject={call}:{fault}:when={when}");
                let trace_only = format!("trace={call}");
                let options = ["-e", trace_only.as_str(), "-e", inject.as_str()];
                let Some((trace, _)) = trace(root.path(), &options) else {
                    eprintln_skipped();
                    return;
                };
                if !trace.contains("INJECTED") && !trace.contains("killed by SIGKILL") {
                    assert!(when > 1 || call == "close", "{call} was never called");
                    break;
                }
                check_state(root.path(), fault, &format!("{inject}\n{trace}"));
                n_points += 1;
            }
        }
    }
    assert!(n_points > 40, "{n_points}");
}

fn check_state(root: &Path, fault: &str, case: &str) {
    verify_dir(root.join("old")).unwrap_or_else(|e| panic!("{e}\n{case}"));
    if root.join("new").exists() {
        verify_dir(root.join("new")).unwrap_or_else(|e| panic!("{e}\n{case}"));
    }
    let left: Vec<String> = names(root).into_iter().filter(|n| n.contains(".tmp-")).collect();
    if fault == "signal=KILL" {
        remove_stale_tmps(root, |_| true, |_| true).unwrap_or_else(|e| panic!("{e}\n{case}"));
    } else {
        assert!(left.is_empty(), "{left:?}\n{case}");
    }
}

fn eprintln_skipped() {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "skipped: strace is missing or not allowed to trace");
}
