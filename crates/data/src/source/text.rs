//! Plain UTF-8 text: a file as one document, read in chunks, or its lines as rows.
//!
//! Line ends and trailing spaces reach the tokenizer unchanged; only a byte-order mark is removed.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::location::{Location, shared_path};
use crate::row_problem::RowProblem;
use crate::source::jsonl::Lines;
use crate::source::open::{self, ByteReader};
use crate::source::{BytesRead, Row};

/// Lines of a file as rows with the single column `text`; blank lines are skipped.
pub(crate) fn lines(
    path: &Path,
    progress: &BytesRead,
) -> Result<impl Iterator<Item = Result<Row>> + Send + use<>> {
    let mut lines = Lines::open(path, progress)?;
    let mut done = false;
    Ok(std::iter::from_fn(move || {
        while !done {
            match lines.next_line() {
                Ok(Some(line)) => match line.text {
                    Ok(text) if text.trim().is_empty() => {}
                    Ok(text) => {
                        let mut columns = Map::new();
                        columns.insert("text".into(), Value::String(text.to_owned()));
                        return Some(Ok(Row { columns, location: line.location }));
                    }
                    Err(problem) => return Some(Err(Error::row(line.location, problem))),
                },
                Ok(None) => done = true,
                Err(error) => {
                    done = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }))
}

/// An open text file that is read as one document.
pub(crate) struct TextDocument {
    pub(crate) file: Arc<Path>,
    bytes: ByteReader,
    offset: u64,
    n_lines: u64,
    max_lines: Option<u64>,
    rest: Vec<u8>,
    ended: bool,
}

impl TextDocument {
    /// Opens a text file, of which at most `max_lines` lines are read.
    pub(crate) fn open(path: &Path, max_lines: Option<u64>, progress: &BytesRead) -> Result<Self> {
        let (bytes, offset) = open::open_text(path, progress)?;
        Ok(Self {
            file: shared_path(path),
            bytes,
            offset,
            n_lines: 0,
            max_lines,
            rest: Vec::new(),
            ended: max_lines == Some(0),
        })
    }

    /// Number of line breaks read so far.
    pub(crate) fn n_lines(&self) -> u64 {
        self.n_lines
    }

    /// Truncates a chunk after the last line to read.
    fn cut_lines(&mut self, buffer: &mut Vec<u8>) {
        let Some(max_lines) = self.max_lines else { return };
        let mut left = max_lines.saturating_sub(self.n_lines);
        let breaks = buffer.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        for (at, _) in breaks {
            left -= 1;
            if left == 0 {
                buffer.truncate(at + 1);
                self.ended = true;
                return;
            }
        }
    }

    /// Next chunk of about `size` bytes, cut between characters. `None` at the end.
    pub(crate) fn next_chunk(&mut self, size: usize) -> Result<Option<String>> {
        if self.ended && self.rest.is_empty() {
            return Ok(None);
        }
        let mut buffer = std::mem::take(&mut self.rest);
        let carried = buffer.len();
        if !self.ended {
            let room = size.saturating_sub(carried).max(4) as u64;
            let n_read = (&mut self.bytes)
                .take(room)
                .read_to_end(&mut buffer)
                .map_err(|error| open::read_error(&self.file, error))?;
            self.ended = (n_read as u64) < room;
            self.cut_lines(&mut buffer);
        }
        if buffer.is_empty() {
            return Ok(None);
        }
        let valid = match std::str::from_utf8(&buffer) {
            Ok(_) => buffer.len(),
            // The first half of a character at the end of the chunk is kept for the next chunk.
            Err(error) if error.error_len().is_none() && !self.ended => error.valid_up_to(),
            Err(error) => {
                let valid = &buffer[..error.valid_up_to()];
                let line = self.n_lines + count_breaks(valid) + 1;
                let offset = self.offset + valid.len() as u64;
                return Err(Error::row(
                    Location::line(&self.file, line),
                    RowProblem::Utf8 { offset },
                ));
            }
        };
        self.rest = buffer.split_off(valid);
        self.offset += valid as u64;
        self.n_lines += count_breaks(&buffer);
        // The bytes were checked above, so nothing is replaced here.
        Ok(Some(String::from_utf8(buffer).unwrap_or_default()))
    }
}

fn count_breaks(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}
