//! Comma- or tab-separated values with a header line. Every value is a text, and a row with missing fields is an error.

use std::collections::HashSet;
use std::io::{BufRead, Read};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::files::ReadOptions;
use crate::limits;
use crate::location::{Location, shared_path};
use crate::row_problem::RowProblem;
use crate::source::open::{self, ByteReader};
use crate::source::quotes::Quotes;
use crate::source::{BytesRead, Row};

/// Bytes that the parser reads ahead; a record that is too long may be detected this much later.
const BUFFER_BYTES: usize = 64 << 10;

/// The records of one file.
pub(crate) struct CsvRows {
    file: Arc<Path>,
    reader: csv::Reader<RecordLimiter>,
    row_bytes: usize,
    /// Whether lines end with a carriage return and a line feed.
    has_returns: bool,
    header: Vec<String>,
    record: csv::ByteRecord,
    done: bool,
}

impl CsvRows {
    /// Opens a file; `delimiter` is the usual one of its format.
    pub(crate) fn open(
        path: &Path,
        delimiter: u8,
        options: &ReadOptions,
        progress: &BytesRead,
    ) -> Result<Self> {
        let row_bytes = options.row_bytes();
        let (mut bytes, _) = open::open_text(path, progress)?;
        let start = bytes.fill_buf().map_err(|error| open::read_error(path, error))?;
        let first_end = start.iter().position(|byte| *byte == b'\n').unwrap_or(0);
        let has_returns = first_end.checked_sub(1).and_then(|at| start.get(at)) == Some(&b'\r');
        let file = shared_path(path);
        let delimiter = options.delimiter.unwrap_or(delimiter);
        let limiter = RecordLimiter {
            bytes,
            allowance: allowance(row_bytes),
            quotes: Quotes::new(delimiter),
        };
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .flexible(true)
            .buffer_capacity(BUFFER_BYTES)
            .from_reader(limiter);
        let location = Location::line(&file, 1);
        let header = match reader.byte_headers() {
            Ok(header) => header.clone(),
            Err(error) => return Err(record_error(&file, &location, row_bytes, error)),
        };
        let end = reader.position().byte();
        if let Some(problem) = reader.get_mut().quotes.of_record(end) {
            return Err(Error::bad_file(path, format!("its header has {problem}")));
        }
        let header = header_names(&header, &location)?;
        if header.is_empty() {
            return Err(Error::EmptyFile { path: path.to_path_buf() });
        }
        let record = csv::ByteRecord::new();
        Ok(Self { file, reader, row_bytes, has_returns, header, record, done: false })
    }

    fn next_row(&mut self) -> Result<Option<Row>> {
        self.reader.get_mut().allowance = allowance(self.row_bytes);
        let line = self.reader.position().line();
        match self.reader.read_byte_record(&mut self.record) {
            Ok(true) => {}
            Ok(false) => {
                self.done = true;
                return Ok(None);
            }
            Err(error) => {
                self.done = true;
                let location = Location::line(&self.file, line);
                return Err(record_error(&self.file, &location, self.row_bytes, error));
            }
        }
        let end = self.reader.position().byte();
        let problem = self.reader.get_mut().quotes.of_record(end);
        let location = Location::line(&self.file, self.record_line());
        if let Some(problem) = problem {
            return Err(Error::row(location, problem));
        }
        if self.record.len() != self.header.len() {
            let (found, expected) = (self.record.len(), self.header.len());
            return Err(Error::row(location, RowProblem::FieldCount { found, expected }));
        }
        let mut columns = Map::new();
        for (name, field) in self.header.iter().zip(&self.record) {
            let Ok(text) = std::str::from_utf8(field) else {
                return Err(Error::row(location, RowProblem::ColumnUtf8 { column: name.clone() }));
            };
            columns.insert(name.clone(), Value::String(text.to_owned()));
        }
        Ok(Some(Row { columns, location }))
    }
}

impl CsvRows {
    /// Line on which the record starts, by the one on which it ends: the parser takes the blank lines before a record as part of
    /// it. It stops behind the line feed that ends a record, or before it if a carriage return or the file has ended the record.
    fn record_line(&self) -> u64 {
        let own = self.record.as_slice().iter().filter(|byte| **byte == b'\n').count() as u64;
        let is_last = self.reader.get_ref().quotes.ends_record(self.reader.position().byte());
        let is_behind = !is_last && !self.has_returns;
        self.reader.position().line().saturating_sub(own + u64::from(is_behind)).max(1)
    }
}

impl Iterator for CsvRows {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done { None } else { self.next_row().transpose() }
    }
}

fn header_names(header: &csv::ByteRecord, location: &Location) -> Result<Vec<String>> {
    if header.len() > limits::SCHEMA_FIELDS {
        return Err(Error::TooLarge {
            path: location.file.to_path_buf(),
            what: "columns",
            value: header.len() as u64,
            limit: limits::SCHEMA_FIELDS as u64,
        });
    }
    let mut names: Vec<String> = Vec::new();
    let mut seen = HashSet::new();
    for field in header {
        let name = std::str::from_utf8(field)
            .map_err(|_| Error::bad_file(&location.file, "the header line is not UTF-8 text"))?;
        if !seen.insert(name) {
            return Err(Error::ColumnTwice {
                path: location.file.to_path_buf(),
                part: "header",
                column: name.to_owned(),
            });
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

/// Bytes that the parser may read for one record.
fn allowance(row_bytes: usize) -> u64 {
    (row_bytes + BUFFER_BYTES) as u64
}

fn record_error(path: &Path, location: &Location, row_bytes: usize, error: csv::Error) -> Error {
    let kind = error.into_kind();
    let csv::ErrorKind::Io(error) = kind else {
        return Error::bad_file(path, format!("not valid CSV: {kind:?}"));
    };
    if is_too_long(&error) {
        return Error::row(location.clone(), RowProblem::TooLong { limit: row_bytes as u64 });
    }
    open::read_error(path, error)
}

/// Passes bytes on until the allowance is used up, so that an unclosed quote does not consume a whole file.
struct RecordLimiter {
    bytes: ByteReader,
    /// Bytes that the parser may still read before the current record is too long.
    allowance: u64,
    quotes: Quotes,
}

/// The record is longer than the limit.
#[derive(Debug)]
struct RecordTooLong;

fn is_too_long(error: &std::io::Error) -> bool {
    error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<RecordTooLong>)
}

impl std::fmt::Display for RecordTooLong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("record too long")
    }
}

impl std::error::Error for RecordTooLong {}

impl Read for RecordLimiter {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let allowed = self.allowance;
        if allowed == 0 && !self.bytes.fill_buf()?.is_empty() {
            return Err(std::io::Error::other(RecordTooLong));
        }
        let room = buffer.len().min(allowed as usize);
        let n_bytes = self.bytes.read(&mut buffer[..room])?;
        self.allowance = allowed - n_bytes as u64;
        if n_bytes == 0 {
            self.quotes.end();
        }
        self.quotes.pass(&buffer[..n_bytes]);
        Ok(n_bytes)
    }
}
