//! File names found inside untrusted files, confined to one directory.

use crate::{Error, Result};

/// Returns the name if it is a bare file name: one component, no `..`, no control characters.
///
/// Backslashes are refused too, so that a name means the same on every system. Names are never
/// repaired.
pub fn basename_only(name: &str) -> Result<&str> {
    let bad = name.is_empty()
        || name.len() > 255
        || name == "."
        || name == ".."
        || name.contains(['/', '\\'])
        || name.chars().any(char::is_control);
    if bad { Err(Error::BadName { name: name.chars().take(300).collect() }) } else { Ok(name) }
}
