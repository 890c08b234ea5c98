//! Append-only logs and their truncation.

use std::fs;

use fsio::{AppendLog, Error};

#[test]
fn a_log_is_truncated_to_the_recorded_length() {
    let root = tempfile::tempdir().expect("tempdir");
    let path = root.path().join("metrics.jsonl");
    let mut log = AppendLog::open(&path).expect("open");
    assert!(log.is_empty());
    log.append(r#"{"step":1}"#).expect("append");
    log.sync().expect("sync");
    let recorded = log.len();
    log.append(r#"{"step":2}"#).expect("append");
    drop(log);
    // A process that is killed during a write leaves a partial line.
    let mut bytes = fs::read(&path).expect("read");
    bytes.extend(b"{\"st");
    fs::write(&path, bytes).expect("write");

    let mut log = AppendLog::open(&path).expect("open");
    log.truncate_to(recorded).expect("truncate");
    assert_eq!(log.len(), recorded);
    log.append(r#"{"step":2,"again":true}"#).expect("append");
    let text = fs::read_to_string(&path).expect("read");
    assert_eq!(text, "{\"step\":1}\n{\"step\":2,\"again\":true}\n");
    assert_eq!(log.len(), text.len() as u64);
    assert!(matches!(log.truncate_to(1000), Err(Error::LogTooShort { recorded: 1000, .. })));
}
