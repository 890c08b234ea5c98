//! SHA-256 of input files, remembered by path, size and times so that unchanged files are not read.
//!
//! It deliberately trusts a remembered hash only where inode and both time stamps are equal and were
//! at least two seconds old: content decides, the rest only saves a read.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

const FOLDER: &str = "file-hashes";
const NOTE_BYTES: u64 = 4096;
/// Time stamps may be as coarse as this; a file written twice within it may look unchanged.
const SETTLED_SECONDS: i64 = 2;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct HashRecord {
    path: String,
    bytes: u64,
    inode: u64,
    device: u64,
    modified_ns: i128,
    changed_ns: i128,
    sha256: String,
}

/// The hash of a file's content.
pub(crate) fn file_hash(cache_dir: &Path, path: &Path) -> Result<String> {
    let absolute = std::path::absolute(path).map_err(|error| Error::io(path, error))?;
    let metadata = std::fs::metadata(path).map_err(|error| Error::io(path, error))?;
    let name = fsio::sha256_hex(absolute.as_os_str().as_encoded_bytes());
    let note_path = cache_dir.join(FOLDER).join(format!("{name}.json"));
    let note = |sha256: String| HashRecord {
        path: absolute.to_string_lossy().into_owned(),
        bytes: metadata.len(),
        inode: metadata.ino(),
        device: metadata.dev(),
        modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        sha256,
    };
    if let Some(known) = read_record(&note_path)
        && known == note(known.sha256.clone())
    {
        return Ok(known.sha256);
    }
    let sha256 = fsio::sha256_file(path)?;
    let newest = metadata.mtime().max(metadata.ctime());
    if now_seconds() - newest >= SETTLED_SECONDS {
        write_record(&note_path, &note(sha256.clone()));
    }
    Ok(sha256)
}

fn nanoseconds(seconds: i64, nanoseconds: i64) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
}

fn now_seconds() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

fn read_record(path: &Path) -> Option<HashRecord> {
    let bytes = fsio::read_capped(path, NOTE_BYTES).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// A note that cannot be written only costs a read next time.
fn write_record(path: &Path, note: &HashRecord) {
    let Ok(bytes) = serde_json::to_vec(note) else { return };
    let parent = path.parent().unwrap_or(Path::new("."));
    if fsio::create_dir_all(parent).is_ok() {
        let _ = fsio::write_atomic(path, &bytes);
    }
}
