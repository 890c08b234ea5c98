//! MANIFEST: the list of a directory's files with their lengths and hashes, itself checksummed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::dirs::sorted_entries;
use crate::error::IoContext;
use crate::hash::sha256_hex;
use crate::hash_memo::hash_and_remember;
use crate::names::basename_only;
use crate::read::read_bytes_capped;
use crate::{Damage, Error, OtherFormat, Result, limits};

/// Name of the file.
pub const MANIFEST: &str = "MANIFEST";

/// Format version that this binary reads and writes.
pub const MANIFEST_FORMAT: u32 = 1;

/// Contents of a checksummed directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Format version.
    pub format: u32,
    /// All files except MANIFEST.
    pub files: BTreeMap<String, FileEntry>,
    /// The caller's own data.
    pub extra: serde_json::Value,
}

/// Length and hash of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 in lower-case hex.
    pub sha256: String,
}

impl Manifest {
    pub(crate) fn new(files: BTreeMap<String, FileEntry>, extra: serde_json::Value) -> Self {
        Self { format: MANIFEST_FORMAT, files, extra }
    }

    /// JSON, followed by one line with its hash, so that any flipped bit is detected.
    pub(crate) fn to_text(&self) -> String {
        // Serialising strings, integers and a JSON value cannot fail.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        let hash = sha256_hex(text.as_bytes());
        format!("{text}sha256 {hash}\n")
    }

    fn from_text(dir: &Path, bytes: &[u8]) -> Result<Self> {
        let damaged = |damage| damaged(dir, MANIFEST, damage);
        let unreadable = |e: serde_json::Error| damaged(Damage::Unreadable(e.to_string()));
        // The hash is one of UTF-8 text.
        let text = std::str::from_utf8(bytes).map_err(|_| damaged(Damage::Checksum))?;
        let cut = || damaged(Damage::Truncated);
        let (json, hash) = text.rsplit_once("sha256 ").ok_or_else(cut)?;
        if hash != format!("{}\n", sha256_hex(json.as_bytes())) {
            return Err(damaged(Damage::Checksum));
        }
        // Another format may have other fields, so the version is checked first.
        let value: serde_json::Value = serde_json::from_str(json).map_err(unreadable)?;
        let known = u64::from(MANIFEST_FORMAT);
        match format_number(&value, "format") {
            Some(found) if found != known => {
                let version = OtherFormat { found, known };
                Err(Error::OtherFormat { dir: dir.to_owned(), version })
            }
            Some(_) | None => serde_json::from_value(value).map_err(unreadable),
        }
    }
}

/// Reads a directory's MANIFEST and checks its hash, but not the files.
pub fn read_manifest(dir: impl AsRef<Path>) -> Result<Manifest> {
    let dir = dir.as_ref();
    check_regular(dir, MANIFEST)?;
    let bytes = read_bytes_capped(&dir.join(MANIFEST), limits::MANIFEST_BYTES)?;
    parse_manifest(dir, &bytes)
}

/// The MANIFEST of a directory from its bytes, with its hash and its names checked.
pub(crate) fn parse_manifest(dir: &Path, bytes: &[u8]) -> Result<Manifest> {
    let damaged = |damage| damaged(dir, MANIFEST, damage);
    let manifest = Manifest::from_text(dir, bytes)?;
    for name in manifest.files.keys() {
        if basename_only(name).is_err() || name == MANIFEST || name.starts_with('.') {
            let reason = format!("lists a bad name: `{}`", name.escape_debug());
            return Err(damaged(Damage::Unreadable(reason)));
        }
    }
    Ok(manifest)
}

/// Checks that a directory contains exactly the files of its MANIFEST, apart from dotfiles.
///
/// Lengths are checked before hashes, so a truncated directory is refused without reading it all.
pub fn verify_dir(dir: impl AsRef<Path>) -> Result<Manifest> {
    let dir = dir.as_ref();
    let manifest = read_manifest(dir)?;
    for (name, entry) in &manifest.files {
        let found = check_regular(dir, name)?;
        if found != entry.bytes {
            let damage = Damage::Length { expected: entry.bytes, found };
            return Err(damaged(dir, name, damage));
        }
    }
    for (name, _) in sorted_entries(dir)? {
        if name != MANIFEST && !name.starts_with('.') && !manifest.files.contains_key(&name) {
            return Err(damaged(dir, &name, Damage::Extra));
        }
    }
    for (name, entry) in &manifest.files {
        if hash_and_remember(&dir.join(name))? != entry.sha256 {
            return Err(damaged(dir, name, Damage::Checksum));
        }
    }
    Ok(manifest)
}

/// The names in a directory, dotfiles aside, that its MANIFEST does not list, sorted; all of them where it has no MANIFEST.
pub fn unlisted_names(dir: impl AsRef<Path>) -> Result<Vec<String>> {
    let dir = dir.as_ref();
    let listed = match read_manifest(dir) {
        Ok(manifest) => manifest.files,
        Err(Error::Damaged { damage: Damage::Missing, .. }) => BTreeMap::new(),
        Err(error) => return Err(error),
    };
    let names = sorted_entries(dir)?.into_iter().map(|(name, _)| name);
    let is_unlisted = |name: &String| !name.starts_with('.') && !listed.contains_key(name);
    Ok(names.filter(|name| name != MANIFEST && is_unlisted(name)).collect())
}

/// Reads one file of a directory with a MANIFEST, if it has the length and the hash that are listed there.
pub fn read_listed(dir: impl AsRef<Path>, name: &str, limit: u64) -> Result<Vec<u8>> {
    let dir = dir.as_ref();
    let manifest = read_manifest(dir)?;
    let entry = manifest.files.get(name).ok_or_else(|| damaged(dir, name, Damage::Extra))?;
    let found = check_regular(dir, name)?;
    if found != entry.bytes {
        return Err(damaged(dir, name, Damage::Length { expected: entry.bytes, found }));
    }
    let bytes = read_bytes_capped(&dir.join(name), limit)?;
    if sha256_hex(&bytes) == entry.sha256 {
        Ok(bytes)
    } else {
        Err(damaged(dir, name, Damage::Checksum))
    }
}

/// Length of a file of the directory; a link, directory or device is damage.
pub(crate) fn check_regular(dir: &Path, name: &str) -> Result<u64> {
    let path = dir.join(name);
    let metadata = match fs::symlink_metadata(&path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && dir.is_dir() => {
            return Err(damaged(dir, name, Damage::Missing));
        }
        Err(e) => return Err(e).at(&path, "read"),
    };
    if metadata.is_file() { Ok(metadata.len()) } else { Err(damaged(dir, name, Damage::NotAFile)) }
}

pub(crate) fn damaged(dir: &Path, file: &str, damage: Damage) -> Error {
    Error::Damaged { dir: dir.to_owned(), file: file.to_owned(), damage }
}

/// The format number in a field of a file; `None` if it is no whole number. Numbers that no integer type has room for are the
/// largest one, so that they are of a newer version and not of none.
pub fn format_number(file: &serde_json::Value, field: &str) -> Option<u64> {
    let number = file.get(field)?;
    let is_huge = |number: f64| number >= u64::MAX as f64 && number.fract() == 0.0;
    number.as_u64().or_else(|| number.as_f64().is_some_and(is_huge).then_some(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Manifest, format_number};
    use crate::{Error, sha256_hex};

    #[test]
    fn a_format_beyond_all_integers_is_a_newer_one() {
        let file = serde_json::json!({ "a": 3, "b": -1, "c": 1.5, "d": "3" });
        let found = ["a", "b", "c", "d", "e"].map(|field| format_number(&file, field));
        assert_eq!(found, [Some(3), None, None, None, None]);
        let json = "{\"format\": 1180591620717411303424, \"of\": \"tomorrow\"}\n";
        let bytes = format!("{json}sha256 {}\n", sha256_hex(json.as_bytes()));
        let error =
            Manifest::from_text(Path::new("dir"), bytes.as_bytes()).expect_err("a newer one");
        assert!(matches!(error, Error::OtherFormat { .. }), "{error}");
        assert!(error.to_string().contains("made by a newer Temper"), "{error}");
    }
}
