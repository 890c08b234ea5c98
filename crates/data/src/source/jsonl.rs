//! JSON lines: one object per line; blank lines are skipped.
//!
//! Each line is parsed alone, so a bad line does not affect the next one.

use std::path::Path;
use std::sync::Arc;

use fsio::JsonShape;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::files::ReadOptions;
use crate::limits;
use crate::location::{Location, shared_path};
use crate::row_problem::RowProblem;
use crate::source::not_finite::{self, Parsed};
use crate::source::open::{self, ByteReader};
use crate::source::{BytesRead, Row, long_integers};

/// The rows of one file.
pub(crate) struct JsonLines {
    lines: Lines,
    /// Columns that are read; `None` if it is not known.
    needed: Option<Vec<String>>,
    read: BytesRead,
    n_rows: u64,
    done: bool,
}

impl JsonLines {
    pub(crate) fn open(
        path: &Path,
        options: &ReadOptions,
        needed: Option<&[String]>,
        read: &BytesRead,
    ) -> Result<Self> {
        let lines = Lines::open(path, options, read)?;
        let needed = needed.map(<[String]>::to_vec);
        Ok(Self { lines, needed, read: read.clone(), n_rows: 0, done: false })
    }
}

impl Iterator for JsonLines {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        loop {
            match self.lines.next_line() {
                Ok(Some(line)) => {
                    if line.text.as_ref().is_ok_and(|text| text.trim().is_empty()) {
                        continue;
                    }
                    self.n_rows += 1;
                    if self.n_rows == 1 && line.text.as_ref().is_ok_and(|text| opens_array(text)) {
                        self.done = true;
                        let path = line.location.file.to_path_buf();
                        return Some(Err(Error::ArrayInLines { path }));
                    }
                    let (location, row_bytes) = (line.location, line.row_bytes);
                    let needed = self.needed.as_deref();
                    let columns = line.text.and_then(|text| {
                        let (columns, n_not_finite) =
                            parse_object(text.as_bytes(), row_bytes, needed)?;
                        self.read.add_not_finite(n_not_finite);
                        Ok(columns)
                    });
                    return Some(match columns {
                        Ok(columns) => Ok(Row { columns, location }),
                        Err(problem) => Err(Error::row(location, problem)),
                    });
                }
                Ok(None) => {
                    self.done = true;
                    return (self.n_rows == 0)
                        .then(|| Err(Error::EmptyFile { path: self.lines.file.to_path_buf() }));
                }
                Err(error) => {
                    self.done = true;
                    return Some(Err(error));
                }
            }
        }
    }
}

/// Whether the first line of a file starts a JSON array of objects, which may end on a later line.
fn opens_array(line: &str) -> bool {
    line.trim_start().strip_prefix('[').is_some_and(|rest| {
        let rest = rest.trim_start();
        rest.is_empty() || rest.starts_with('{')
    })
}

/// Parses one JSON object; also returns the number of values that are not finite. Its depth and the memory that it takes are
/// checked before the recursive parser runs.
fn parse_object(
    bytes: &[u8],
    row_bytes: usize,
    needed: Option<&[String]>,
) -> std::result::Result<(Map<String, Value>, u64), RowProblem> {
    check_shape(bytes, row_bytes)?;
    match not_finite::parse(bytes) {
        Ok(Parsed { value: Value::Object(columns), n_not_finite, with_long_integers }) => {
            let columns = long_integers::check(columns, &with_long_integers, needed)?;
            Ok((columns, n_not_finite))
        }
        Ok(Parsed { value, .. }) => Err(RowProblem::NotAnObject { found: kind_of(&value) }),
        Err(error) => Err(RowProblem::Json { column: error.column, reason: error.reason }),
    }
}

/// Kind of a JSON value, for messages.
pub(crate) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Checks the nesting of a JSON value and the memory that it takes once parsed, which can be 50 times its text.
pub(crate) fn check_shape(bytes: &[u8], row_bytes: usize) -> std::result::Result<(), RowProblem> {
    let JsonShape { depth: deepest, memory } = fsio::json_shape(bytes);
    let limit = row_bytes.saturating_mul(limits::ROW_MEMORY).max(limits::FREE_ROW_MEMORY);
    if deepest > limits::JSON_DEPTH {
        return Err(RowProblem::TooDeep { limit: limits::JSON_DEPTH });
    }
    if memory > limit {
        return Err(RowProblem::TooManyValues { limit: limit as u64 });
    }
    Ok(())
}

/// Lines of a text file. Each is checked for its length and for UTF-8.
pub(crate) struct Lines {
    pub(crate) file: Arc<Path>,
    bytes: ByteReader,
    buffer: Vec<u8>,
    row_bytes: usize,
    n_lines: u64,
    offset: u64,
}

/// One line without its line break.
pub(crate) struct Line<'a> {
    pub(crate) location: Location,
    pub(crate) text: std::result::Result<&'a str, RowProblem>,
    /// Maximum size of a row in bytes.
    row_bytes: usize,
}

impl Lines {
    pub(crate) fn open(path: &Path, options: &ReadOptions, read: &BytesRead) -> Result<Self> {
        let (bytes, offset) = open::open_text(path, read)?;
        let (file, row_bytes) = (shared_path(path), options.row_bytes());
        Ok(Self { file, bytes, buffer: Vec::new(), row_bytes, n_lines: 0, offset })
    }

    /// Skips empty lines. A packed file of a few hundred kilobytes can have hundreds of millions of them.
    fn skip_empty(&mut self) -> Result<()> {
        loop {
            let chunk = match self.bytes.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(open::read_error(&self.file, error)),
            };
            let n = chunk.iter().take_while(|byte| **byte == b'\n').count();
            let is_all = n > 0 && n == chunk.len();
            self.bytes.consume(n);
            self.n_lines += n as u64;
            self.offset += n as u64;
            if !is_all {
                return Ok(());
            }
        }
    }

    /// The next line that is not empty; it may be white space.
    pub(crate) fn next_line(&mut self) -> Result<Option<Line<'_>>> {
        self.skip_empty()?;
        self.buffer.clear();
        let limit = self.row_bytes;
        let (mut n_bytes, mut ended) = (0_u64, false);
        while !ended {
            let chunk = match self.bytes.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(open::read_error(&self.file, error)),
            };
            if chunk.is_empty() {
                if n_bytes == 0 {
                    return Ok(None);
                }
                break;
            }
            let end = memchr::memchr(b'\n', chunk);
            ended = end.is_some();
            let content = &chunk[..end.unwrap_or(chunk.len())];
            // A line over the limit is read to its end, but not stored.
            let room = (limit + 1).saturating_sub(self.buffer.len());
            self.buffer.extend_from_slice(&content[..content.len().min(room)]);
            let used = content.len() + usize::from(ended);
            n_bytes += used as u64;
            self.bytes.consume(used);
            if n_bytes > limits::SKIPPED_ROW_BYTES as u64 {
                let (line, limit) = (self.n_lines + 1, limits::SKIPPED_ROW_BYTES);
                let reason = format!(
                    "line {line}: a row is longer than {limit} bytes, too long to be skipped"
                );
                return Err(Error::bad_file(&self.file, reason));
            }
        }
        self.n_lines += 1;
        let start = self.offset;
        self.offset += n_bytes;
        let location = Location::line(&self.file, self.n_lines);
        if self.buffer.len() > limit {
            let problem = RowProblem::TooLong { limit: limit as u64 };
            return Ok(Some(Line { location, text: Err(problem), row_bytes: limit }));
        }
        if self.buffer.last() == Some(&b'\r') {
            self.buffer.pop();
        }
        let text = std::str::from_utf8(&self.buffer)
            .map_err(|error| RowProblem::Utf8 { offset: start + error.valid_up_to() as u64 });
        Ok(Some(Line { location, text, row_bytes: limit }))
    }
}
