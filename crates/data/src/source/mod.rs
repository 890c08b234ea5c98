//! Foreign files as iterators of rows: one module per format, each plain, .gz or .zst. A row is a location and named values.

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

/// One row: its location and named values.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Values by column, in file order.
    pub columns: Map<String, Value>,
    /// Location of the row.
    pub location: Location,
}

/// Iterator over rows. An `Err(Error::Row)` may be skipped; any other error ends the iteration.
pub type RowIter = Box<dyn Iterator<Item = Result<Row>> + Send>;

/// Bytes read from disk, before decompression, for progress lines.
#[derive(Clone, Debug, Default)]
pub struct BytesRead(Arc<AtomicU64>);

impl BytesRead {
    /// Number of bytes read so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, n_bytes: u64) {
        self.0.fetch_add(n_bytes, Ordering::Relaxed);
    }
}

/// Format of a file: `format`, or the one that its name shows.
pub(crate) fn file_format(path: &Path, format: Option<Format>) -> Result<Format> {
    format
        .or_else(|| format_of(path))
        .ok_or_else(|| Error::UnknownFormat { path: path.to_path_buf() })
}

/// Opens a file as rows. Each line of plain text is a row with the column `text`.
///
/// Binary formats decode only the columns in `needed`. If it is `None`, they decode all columns, and values without a
/// text form are null.
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

/// Rows of several files in order.
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
