//! JSON lines: one object per line; blank lines are skipped.
//!
//! Each line is parsed alone, so a bad line does not affect the next one.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::limits;
use crate::location::{Location, shared_path};
use crate::row_problem::RowProblem;
use crate::source::open::{self, ByteReader};
use crate::source::{BytesRead, Row};

/// The rows of one file.
pub(crate) struct JsonLines {
    lines: Lines,
    n_rows: u64,
    done: bool,
}

impl JsonLines {
    pub(crate) fn open(path: &Path, progress: &BytesRead) -> Result<Self> {
        Ok(Self { lines: Lines::open(path, progress)?, n_rows: 0, done: false })
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
                    let location = line.location;
                    return Some(match line.text.and_then(|text| parse_object(text.as_bytes())) {
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

/// Parses one JSON object. Its depth is checked before the recursive parser runs.
pub(crate) fn parse_object(bytes: &[u8]) -> std::result::Result<Map<String, Value>, RowProblem> {
    if json_depth(bytes) > limits::JSON_DEPTH {
        return Err(RowProblem::TooDeep { limit: limits::JSON_DEPTH });
    }
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(columns)) => Ok(columns),
        Ok(other) => Err(RowProblem::NotAnObject { found: kind_of(&other) }),
        Err(error) => {
            Err(RowProblem::Json { column: error.column(), reason: parser_reason(&error) })
        }
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

/// Message of serde_json without its position, which counts from the start of the row.
pub(crate) fn parser_reason(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match message.rfind(" at line ") {
        Some(end) => message[..end].to_owned(),
        None => message,
    }
}

/// Maximum nesting depth of brackets outside of strings.
fn json_depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for &byte in bytes {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Lines of a text file. Each is checked for its length and for UTF-8.
pub(crate) struct Lines {
    pub(crate) file: Arc<Path>,
    bytes: ByteReader,
    buffer: Vec<u8>,
    n_lines: u64,
    offset: u64,
}

/// One line without its line break.
pub(crate) struct Line<'a> {
    pub(crate) location: Location,
    pub(crate) text: std::result::Result<&'a str, RowProblem>,
}

impl Lines {
    pub(crate) fn open(path: &Path, progress: &BytesRead) -> Result<Self> {
        let (bytes, offset) = open::open_text(path, progress)?;
        Ok(Self { file: shared_path(path), bytes, buffer: Vec::new(), n_lines: 0, offset })
    }

    pub(crate) fn next_line(&mut self) -> Result<Option<Line<'_>>> {
        self.buffer.clear();
        let limit = limits::ROW_BYTES;
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
            let end = chunk.iter().position(|&byte| byte == b'\n');
            ended = end.is_some();
            let content = &chunk[..end.unwrap_or(chunk.len())];
            // A line over the limit is read to its end, but not stored.
            let room = (limit + 1).saturating_sub(self.buffer.len());
            self.buffer.extend_from_slice(&content[..content.len().min(room)]);
            let used = content.len() + usize::from(ended);
            n_bytes += used as u64;
            self.bytes.consume(used);
        }
        self.n_lines += 1;
        let start = self.offset;
        self.offset += n_bytes;
        let location = Location::line(&self.file, self.n_lines);
        if self.buffer.len() > limit {
            let problem = RowProblem::TooLong { limit: limit as u64 };
            return Ok(Some(Line { location, text: Err(problem) }));
        }
        if self.buffer.last() == Some(&b'\r') {
            self.buffer.pop();
        }
        let text = std::str::from_utf8(&self.buffer)
            .map_err(|error| RowProblem::Utf8 { offset: start + error.valid_up_to() as u64 });
        Ok(Some(Line { location, text }))
    }
}
