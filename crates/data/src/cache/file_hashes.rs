//! SHA-256 of input files, recorded by path, size and times so that unchanged files are not read again.
//!
//! A recorded hash is valid only if size, inode and both time stamps are equal and were at least two seconds old when it
//! was recorded.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

const DIRECTORY: &str = "file-hashes";
const RECORD_BYTES: u64 = 4096;
/// Smaller files are read again each time, which takes less than a record of them.
const REMEMBERED_BYTES: u64 = 1 << 20;
/// Resolution of coarse time stamps: a file written twice within it may look unchanged.
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

/// Hash of a file's content.
pub(crate) fn file_hash(cache_dir: &Path, path: &Path) -> Result<String> {
    let absolute = std::path::absolute(path).map_err(|error| Error::io(path, error))?;
    let metadata = std::fs::metadata(path).map_err(|error| Error::io(path, error))?;
    // Before it is read: some files of the kernel have no size, and reading them waits.
    if metadata.len() == 0 {
        return Err(Error::EmptyFile { path: path.to_path_buf() });
    }
    if metadata.len() < REMEMBERED_BYTES {
        return Ok(fsio::sha256_file(path)?);
    }
    let name = fsio::sha256_hex(absolute.as_os_str().as_encoded_bytes());
    let record_path = cache_dir.join(DIRECTORY).join(format!("{name}.json"));
    let record = |sha256: String| HashRecord {
        path: absolute.to_string_lossy().into_owned(),
        bytes: metadata.len(),
        inode: metadata.ino(),
        device: metadata.dev(),
        modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        sha256,
    };
    if let Some(known) = read_record(&record_path)
        && known == record(known.sha256.clone())
    {
        return Ok(known.sha256);
    }
    let sha256 = fsio::sha256_file(path)?;
    let newest = metadata.mtime().max(metadata.ctime());
    if now_seconds() - newest >= SETTLED_SECONDS {
        write_record(&record_path, &record(sha256.clone()));
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
    let bytes = fsio::read_capped(path, RECORD_BYTES).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Writes a record. A failure only means that the file is read again next time.
fn write_record(path: &Path, record: &HashRecord) {
    let Ok(bytes) = serde_json::to_vec(record) else { return };
    let parent = path.parent().unwrap_or(Path::new("."));
    if fsio::create_dir_all(parent).is_ok() {
        // A record that a power cut leaves unreadable counts as none.
        let _ = fsio::replace_unsynced(path, &bytes);
    }
}
