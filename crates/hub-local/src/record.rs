//! The record that `temper get` writes into a directory: repository, revision, and the hash of each file.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Name of the record. The dot keeps it out of the files that a data source reads.
pub const RECORD_FILE: &str = ".temper-source.json";
/// Format version of the record.
const FORMAT: u32 = 1;
/// Largest record in bytes.
const RECORD_BYTES: u64 = 64 << 20;

/// Where the files of a directory come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Format version.
    pub format: u32,
    /// The repository: `hf:OWNER/MODEL` or `hf:datasets/OWNER/NAME`.
    pub source: String,
    /// Address of the server.
    pub endpoint: String,
    /// Branch, tag or commit that was requested.
    pub requested: String,
    /// Commit of the files.
    pub revision: String,
    /// Whether all files of the default selection are there, not only those that `--file` named.
    pub complete: bool,
    /// Files by their path in the directory.
    pub files: BTreeMap<String, RecordedFile>,
}

/// Size and hash of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedFile {
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 in lower-case hex.
    pub sha256: String,
}

impl Record {
    /// A record of this format, without files.
    pub fn new(source: String, endpoint: String, requested: String, revision: String) -> Self {
        Self {
            format: FORMAT,
            source,
            endpoint,
            requested,
            revision,
            complete: false,
            files: BTreeMap::new(),
        }
    }

    /// JSON text of the record.
    pub fn to_json(&self) -> String {
        // Serialising strings and integers cannot fail.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Whether the directory is at a revision: a branch or tag that was requested, or the commit.
    pub fn is_at(&self, revision: &str) -> bool {
        self.requested == revision || self.revision == revision
    }
}

/// Reads the record of a directory; `None` if it has none.
pub fn read_record(dir: &Path) -> Result<Option<Record>> {
    let path = dir.join(RECORD_FILE);
    if std::fs::symlink_metadata(&path).is_err() {
        return Ok(None);
    }
    let text = fsio::read_text_capped(&path, RECORD_BYTES)?;
    let bad = |reason: String| Error::BadRecord { path: path.clone(), reason };
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
    // Another format may have other fields, so the version is checked first.
    let format = fsio::format_number(&value, "format");
    if format != Some(u64::from(FORMAT)) {
        let found = format.map_or_else(|| "none".to_owned(), |format| format.to_string());
        return Err(bad(format!("format `{found}`; this binary knows {FORMAT}")));
    }
    serde_json::from_value(value).map(Some).map_err(|e| bad(e.to_string()))
}
