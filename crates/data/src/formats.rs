//! File formats and compressions, recognized by a file's name alone.

use std::path::Path;

use recipe::Format;

/// File endings that name a format.
pub const KNOWN_ENDINGS: &str =
    ".txt, .text, .jsonl, .ndjson, .json, .csv, .tsv, .parquet, .arrow, .ipc, .feather";

/// Format that the name of a file shows, without its `.gz` or `.zst`.
pub fn format_of(path: &Path) -> Option<Format> {
    let name = Compression::stem(path);
    let extension = Path::new(&name).extension()?.to_str()?.to_ascii_lowercase();
    Some(match extension.as_str() {
        "txt" | "text" => Format::Text,
        "jsonl" | "ndjson" => Format::Jsonl,
        "json" => Format::Json,
        "csv" => Format::Csv,
        "tsv" => Format::Tsv,
        "parquet" => Format::Parquet,
        "arrow" | "ipc" | "feather" => Format::Arrow,
        _ => return None,
    })
}

/// Name of a format in recipes.
pub(crate) fn format_name(format: Format) -> &'static str {
    match format {
        Format::Text => "text",
        Format::Jsonl => "jsonl",
        Format::Json => "json",
        Format::Csv => "csv",
        Format::Tsv => "tsv",
        Format::Parquet => "parquet",
        Format::Arrow => "arrow",
    }
}

/// Compression of a file, from its last ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    pub(crate) fn of(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some(extension) if extension.eq_ignore_ascii_case("gz") => Self::Gzip,
            Some(extension) if extension.eq_ignore_ascii_case("zst") => Self::Zstd,
            _ => Self::None,
        }
    }

    /// Name of the file without the ending of its compression.
    pub(crate) fn stem(path: &Path) -> String {
        let name = match Self::of(path) {
            Self::None => path.file_name(),
            Self::Gzip | Self::Zstd => path.file_stem(),
        };
        name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Name in messages and cache keys.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "plain",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}
