//! Foreign files as streams of rows: one file here per format, each plain, .gz or .zst.
//!
//! It deliberately knows nothing of tokenizers or layouts: a row is a place and named values.

mod arrow;
mod columns;
mod csv;
mod json;
mod jsonl;
mod open;
mod parquet;
mod parquet_checks;
mod text;
mod thrift;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use recipe::Format;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::formats::format_of;
use crate::location::Location;

pub(crate) use jsonl::kind_of as json_kind;
pub(crate) use text::TextDocument;

/// One row: named values and the place that they came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The values by column, in file order.
    pub columns: Map<String, Value>,
    /// Where the row stands.
    pub location: Location,
}

/// RowIter of one file, one after the other; a `Err(Error::Row)` may be skipped, any other error ends.
pub type RowIter = Box<dyn Iterator<Item = Result<Row>> + Send>;

/// How far a file has been read, for progress lines: bytes as they lie on disk.
#[derive(Clone, Debug, Default)]
pub struct BytesRead(Arc<AtomicU64>);

impl BytesRead {
    /// Bytes read so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, n_bytes: u64) {
        self.0.fetch_add(n_bytes, Ordering::Relaxed);
    }
}

/// The format to read a file as: the one asked for, else the one its name says.
pub(crate) fn file_format(path: &Path, format: Option<Format>) -> Result<Format> {
    format
        .or_else(|| format_of(path))
        .ok_or_else(|| Error::UnknownFormat { path: path.to_path_buf() })
}

/// Opens a file as rows. Plain text gives a row a line, in the column `text`.
///
/// `needed` names the columns that the caller will read, where it knows them: binary formats decode
/// no others. Without it, values that have no text form come as null.
pub fn read_rows(
    path: &Path,
    format: Option<Format>,
    needed: Option<&[String]>,
    progress: &BytesRead,
) -> Result<RowIter> {
    let format = file_format(path, format)?;
    Ok(match format {
        Format::Text => Box::new(text::lines(path, progress)?),
        Format::Jsonl => Box::new(jsonl::JsonLines::open(path, progress)?),
        Format::Json => Box::new(json::JsonArray::open(path, progress)?),
        Format::Csv => Box::new(csv::CsvRows::open(path, b',', progress)?),
        Format::Tsv => Box::new(csv::CsvRows::open(path, b'\t', progress)?),
        Format::Parquet => Box::new(parquet::ParquetRows::open(path, needed, progress)?),
        Format::Arrow => Box::new(arrow::ArrowRows::open(path, needed, progress)?),
    })
}

/// The rows of several files in order.
pub(crate) fn read_all(
    files: Vec<PathBuf>,
    format: Option<Format>,
    needed: Option<Vec<String>>,
    progress: BytesRead,
) -> RowIter {
    let rows = files.into_iter().flat_map(move |file| {
        match read_rows(&file, format, needed.as_deref(), &progress) {
            Ok(rows) => rows,
            Err(error) => Box::new(std::iter::once(Err(error))) as RowIter,
        }
    });
    Box::new(rows)
}
