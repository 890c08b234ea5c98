//! Comma- or tab-separated values with a header line; every value is a text.
//!
//! It deliberately guesses no types and accepts no ragged rows.

use std::io::{BufRead, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::limits;
use crate::place::{Place, shared_path};
use crate::row_problem::RowProblem;
use crate::source::open::{self, Bytes};
use crate::source::{BytesRead, Row};

/// How much the parser reads ahead; a record may be seen to be too long only this much later.
const BUFFER_BYTES: usize = 64 << 10;

/// The records of one file.
pub(crate) struct CsvRows {
    file: Arc<Path>,
    reader: csv::Reader<Metered>,
    /// Bytes that the parser may still read before the current record counts as too long.
    allowance: Arc<AtomicU64>,
    header: Vec<String>,
    record: csv::ByteRecord,
    done: bool,
}

impl CsvRows {
    pub(crate) fn open(path: &Path, delimiter: u8, progress: &BytesRead) -> Result<Self> {
        let (bytes, _) = open::open_text(path, progress)?;
        let file = shared_path(path);
        let allowance = Arc::new(AtomicU64::new(0));
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .flexible(true)
            .buffer_capacity(BUFFER_BYTES)
            .from_reader(Metered { bytes, allowance: Arc::clone(&allowance) });
        allow_one_record(&allowance);
        let place = Place::line(&file, 1);
        let header = match reader.byte_headers() {
            Ok(header) => header.clone(),
            Err(error) => return Err(record_error(&file, &place, error)),
        };
        let header = header_names(&header, &place)?;
        if header.is_empty() {
            return Err(Error::EmptyFile { path: path.to_path_buf() });
        }
        let record = csv::ByteRecord::new();
        Ok(Self { file, reader, allowance, header, record, done: false })
    }

    fn next_row(&mut self) -> Result<Option<Row>> {
        allow_one_record(&self.allowance);
        let line = self.reader.position().line();
        match self.reader.read_byte_record(&mut self.record) {
            Ok(true) => {}
            Ok(false) => {
                self.done = true;
                return Ok(None);
            }
            Err(error) => {
                self.done = true;
                return Err(record_error(&self.file, &Place::line(&self.file, line), error));
            }
        }
        let place = Place::line(&self.file, self.record_line(line));
        if self.record.len() != self.header.len() {
            let (found, expected) = (self.record.len(), self.header.len());
            return Err(Error::row(place, RowProblem::FieldCount { found, expected }));
        }
        let mut columns = Map::new();
        for (name, field) in self.header.iter().zip(&self.record) {
            let Ok(text) = std::str::from_utf8(field) else {
                return Err(Error::row(place, RowProblem::ColumnUtf8 { column: name.clone() }));
            };
            columns.insert(name.clone(), Value::String(text.to_owned()));
        }
        Ok(Some(Row { columns, place }))
    }
}

impl CsvRows {
    /// The line on which the record begins. The parser counts blank lines in front of a record to
    /// it: they are what is left of its lines after its own line breaks and the one that ends it.
    fn record_line(&self, start: u64) -> u64 {
        let own = self.record.as_slice().iter().filter(|byte| **byte == b'\n').count() as u64;
        let passed = self.reader.position().line().saturating_sub(start);
        start + passed.saturating_sub(own + 1)
    }
}

impl Iterator for CsvRows {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done { None } else { self.next_row().transpose() }
    }
}

fn header_names(header: &csv::ByteRecord, place: &Place) -> Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for field in header {
        let name = std::str::from_utf8(field)
            .map_err(|_| Error::bad_file(&place.file, "the header line is not UTF-8 text"))?;
        if names.iter().any(|other| other == name) {
            return Err(Error::bad_file(
                &place.file,
                format!("the header names a column twice: `{name}`"),
            ));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

fn allow_one_record(allowance: &AtomicU64) {
    allowance.store((limits::ROW_BYTES + BUFFER_BYTES) as u64, Ordering::Relaxed);
}

fn record_error(path: &Path, place: &Place, error: csv::Error) -> Error {
    let kind = error.into_kind();
    let csv::ErrorKind::Io(error) = kind else {
        return Error::bad_file(path, format!("not valid CSV: {kind:?}"));
    };
    if is_too_long(&error) {
        return Error::row(place.clone(), RowProblem::TooLong { limit: limits::ROW_BYTES as u64 });
    }
    open::read_error(path, error)
}

/// Hands bytes on until the allowance is used up: an unclosed quote must not swallow a whole file.
struct Metered {
    bytes: Bytes,
    allowance: Arc<AtomicU64>,
}

/// The parser asked for more than one record may hold.
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

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let allowed = self.allowance.load(Ordering::Relaxed);
        if allowed == 0 && !self.bytes.fill_buf()?.is_empty() {
            return Err(std::io::Error::other(RecordTooLong));
        }
        let room = buffer.len().min(allowed as usize);
        let n_bytes = self.bytes.read(&mut buffer[..room])?;
        self.allowance.store(allowed - n_bytes as u64, Ordering::Relaxed);
        Ok(n_bytes)
    }
}
