//! JSON files of a run's directory.

use std::path::Path;

use serde::de::DeserializeOwned;

/// Size of a JSON file that is read, in bytes.
pub(crate) const FILE_BYTES: u64 = 16 << 20;

/// Reads a JSON file; a missing one is no problem.
pub(crate) fn json<T: DeserializeOwned>(path: &Path, problems: &mut Vec<String>) -> Option<T> {
    let bytes = match fsio::read_capped(path, FILE_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return None,
        Err(error) => {
            problems.push(error.to_string());
            return None;
        }
    };
    match serde_json::from_slice(&bytes) {
        Ok(value) => Some(value),
        Err(error) => {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            problems.push(format!("{name}: the file is damaged: {error}"));
            None
        }
    }
}
