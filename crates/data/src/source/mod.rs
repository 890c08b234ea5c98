//! Foreign files as iterators of rows: one module per format, each plain, .gz or .zst. A row is a location and named values.

mod arrow;
mod arrow_schema;
mod columns;
mod csv;
mod expansion;
mod json;
mod jsonl;
mod long_integers;
mod not_finite;
mod open;
mod parquet;
mod parquet_checks;
mod parquet_rows;
mod parquet_runs;
mod quotes;
mod selected;
mod text;
mod thrift;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fsio::JsonError;
use recipe::Format;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::files::{ReadOptions, SourceFiles};
use crate::formats::format_of;
use crate::location::Location;
use crate::source::long_integers::{Exact, exact};

pub(crate) use jsonl::kind_of as json_kind;
pub(crate) use text::TextDocument;

/// Parses a JSON value of which nothing is changed without a word: an integer of more than 64 bits becomes a text of its digits.
///
/// Errors: no JSON value, or an object with a key twice.
pub fn exact_json(bytes: &[u8]) -> std::result::Result<Value, JsonError> {
    parse_exactly(bytes).map(|(value, _)| value)
}

/// [`exact_json`], with the first top-level key that has an integer of more than 64 bits.
pub(crate) fn parse_exactly(
    bytes: &[u8],
) -> std::result::Result<(Value, Option<String>), JsonError> {
    let Exact { value, keys } = exact(fsio::strict_json(bytes)?, bytes)?;
    Ok((value, keys.into_iter().next()))
}

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

/// Counts of a reader: bytes read from disk, before decompression, for progress lines; and values that are no JSON.
#[derive(Clone, Debug, Default)]
pub struct BytesRead(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    n_bytes: AtomicU64,
    n_not_finite: AtomicU64,
}

impl BytesRead {
    /// Number of bytes read so far.
    pub fn get(&self) -> u64 {
        self.0.n_bytes.load(Ordering::Relaxed)
    }

    /// Number of `NaN` and `Infinity` in JSON files that were read as null so far.
    pub fn n_not_finite(&self) -> u64 {
        self.0.n_not_finite.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, n_bytes: u64) {
        self.0.n_bytes.fetch_add(n_bytes, Ordering::Relaxed);
    }

    /// Counts as if at least `n_bytes` had been read: a file was read to its end, without the parts that nobody needs.
    fn at_least(&self, n_bytes: u64) {
        self.0.n_bytes.fetch_max(n_bytes, Ordering::Relaxed);
    }

    pub(crate) fn add_not_finite(&self, n: u64) {
        self.0.n_not_finite.fetch_add(n, Ordering::Relaxed);
    }
}

/// Format of a file: `format`, or the one that its name shows.
pub(crate) fn file_format(path: &Path, format: Option<Format>) -> Result<Format> {
    format
        .or_else(|| format_of(path))
        .ok_or_else(|| Error::UnknownFormat { path: path.to_path_buf() })
}

/// As [`read_rows_with`], with the default value of every key of a source.
pub fn read_rows(
    path: &Path,
    format: Option<Format>,
    needed: Option<&[String]>,
    progress: &BytesRead,
) -> Result<RowIter> {
    read_rows_with(path, format, &ReadOptions::default(), needed, progress)
}

/// Opens a file as rows. Each line of plain text is a row with the column `text`.
///
/// Binary formats decode only the columns in `needed`. If it is `None`, they decode all columns, and values without a
/// text form are null. In JSON, integers of more than 64 bits are errors in these columns, and texts in others.
pub fn read_rows_with(
    path: &Path,
    format: Option<Format>,
    options: &ReadOptions,
    needed: Option<&[String]>,
    progress: &BytesRead,
) -> Result<RowIter> {
    let format = file_format(path, format)?;
    Ok(match format {
        Format::Text => Box::new(text::lines(path, options, progress)?),
        Format::Jsonl => Box::new(jsonl::JsonLines::open(path, options, needed, progress)?),
        Format::Json => Box::new(json::JsonArray::open(path, options, needed, progress)?),
        Format::Csv => Box::new(csv::CsvRows::open(path, b',', options, progress)?),
        Format::Tsv => Box::new(csv::CsvRows::open(path, b'\t', options, progress)?),
        Format::Parquet => Box::new(parquet::ParquetRows::open(path, needed, progress)?),
        Format::Arrow => Box::new(arrow::ArrowRows::open(path, needed, progress)?),
    })
}

/// Rows of the files of a source in order.
pub(crate) fn read_all(
    files: SourceFiles,
    format: Option<Format>,
    needed: Option<Vec<String>>,
    progress: BytesRead,
) -> RowIter {
    let SourceFiles { paths, options, indices, choice: _ } = files;
    let rows = paths.into_iter().flat_map(move |file| {
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        let (end, progress) = (progress.get() + size, progress.clone());
        match read_rows_with(&file, format, &options, needed.as_deref(), &progress) {
            Ok(rows) => Box::new(rows.chain(std::iter::from_fn(move || {
                progress.at_least(end);
                None
            }))),
            Err(error) => Box::new(std::iter::once(Err(error))) as RowIter,
        }
    });
    if indices.is_empty() {
        return Box::new(rows);
    }
    Box::new(selected::Selected::new(indices, Box::new(rows)))
}
