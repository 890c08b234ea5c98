//! Free space on a file system.

use std::path::Path;

/// Free bytes for this user on the file system of a path, or of its nearest existing ancestor.
pub fn free_space(path: impl AsRef<Path>) -> Option<u64> {
    let path = path.as_ref();
    let existing = path.ancestors().find(|p| p.exists()).unwrap_or_else(|| Path::new("."));
    let stats = rustix::fs::statvfs(existing).ok()?;
    Some(stats.f_bavail.saturating_mul(stats.f_frsize))
}
