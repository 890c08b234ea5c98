//! A JSON array of objects, alone or under a key of an object, or concatenated objects, read element by element.
//!
//! An element is found by its brackets and parsed alone, so a file of any length needs the memory of one row.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::files::ReadOptions;
use crate::limits;
use crate::location::{Location, shared_path};
use crate::row_problem::{RowProblem, name_list};
use crate::source::jsonl::{check_shape, kind_of};
use crate::source::not_finite::{self, Parsed};
use crate::source::open::{self, ByteReader};
use crate::source::{BytesRead, Row, long_integers};

/// Maximum size of a key of the outer object in bytes.
const KEY_BYTES: usize = 4096;

/// The elements of one file.
pub(crate) struct JsonArray {
    scanner: Scanner,
    /// Whether the rows are one array rather than concatenated objects.
    is_array: bool,
    /// Whether the array is the value of a key, so that other keys may follow it.
    field: Option<String>,
    /// Columns that are read; `None` if it is not known.
    needed: Option<Vec<String>>,
    read: BytesRead,
    n_rows: u64,
    done: bool,
}

impl JsonArray {
    pub(crate) fn open(
        path: &Path,
        options: &ReadOptions,
        needed: Option<&[String]>,
        read: &BytesRead,
    ) -> Result<Self> {
        let mut scanner = Scanner::open(path, options, read)?;
        scanner.skip_space()?;
        if let Some(field) = &options.field {
            scanner.seek_field(field)?;
        }
        let is_array = match scanner.peek()? {
            Some(b'[') => {
                scanner.advance();
                true
            }
            Some(b'{') => false,
            Some(_) => {
                return Err(scanner.fail("neither a JSON array nor an object"));
            }
            None => return Err(Error::EmptyFile { path: path.to_path_buf() }),
        };
        let field = options.field.clone();
        let (needed, read) = (needed.map(<[String]>::to_vec), read.clone());
        Ok(Self { scanner, is_array, field, needed, read, n_rows: 0, done: false })
    }

    /// Moves to the next element; false at the end of the file.
    fn seek_element(&mut self) -> Result<bool> {
        self.scanner.skip_space()?;
        if !self.is_array {
            return Ok(self.scanner.peek()?.is_some());
        }
        match self.scanner.peek()? {
            Some(b']') => {
                self.scanner.advance();
                if let Some(field) = &self.field {
                    self.scanner.seek_end_of_object(field)?;
                    return Ok(false);
                }
                self.scanner.skip_space()?;
                match self.scanner.peek()? {
                    None => Ok(false),
                    Some(_) => Err(self.scanner.fail("text after the end of the array")),
                }
            }
            Some(b',') if self.n_rows > 0 => {
                self.scanner.advance();
                self.scanner.skip_space()?;
                match self.scanner.peek()? {
                    Some(b',' | b']') => Err(self.scanner.fail("a comma without an element")),
                    Some(_) => Ok(true),
                    None => {
                        Err(self.scanner.fail("the array is not closed: the file is truncated"))
                    }
                }
            }
            Some(b',') => Err(self.scanner.fail("a comma without an element")),
            Some(_) if self.n_rows > 0 => Err(self.scanner.fail("no comma between elements")),
            Some(_) => Ok(true),
            None => Err(self.scanner.fail("the array is not closed: the file is truncated")),
        }
    }

    fn next_row(&mut self) -> Result<Option<Row>> {
        if !self.seek_element()? {
            if self.n_rows == 0 {
                return Err(Error::NoRows { source_path: self.scanner.file.display().to_string() });
            }
            return Ok(None);
        }
        self.n_rows += 1;
        let line = self.scanner.line;
        let start = self.scanner.offset;
        let column_before = self.scanner.column();
        let location = Location::line(&self.scanner.file, line);
        let element = self.scanner.element()?;
        let bytes = match element {
            Ok(bytes) => bytes,
            Err(problem) => return Err(Error::row(location, problem)),
        };
        if let Err(error) = std::str::from_utf8(bytes) {
            let offset = start + error.valid_up_to() as u64;
            return Err(Error::row(location, RowProblem::Utf8 { offset }));
        }
        match not_finite::parse(bytes) {
            Ok(Parsed { value: Value::Object(columns), n_not_finite, with_long_integers }) => {
                match long_integers::check(columns, &with_long_integers, self.needed.as_deref()) {
                    Ok(columns) => {
                        self.read.add_not_finite(n_not_finite);
                        Ok(Some(Row { columns, location }))
                    }
                    Err(problem) => Err(Error::row(location, problem)),
                }
            }
            Ok(Parsed { value, .. }) => {
                Err(Error::row(location, RowProblem::NotAnObject { found: kind_of(&value) }))
            }
            Err(error) => {
                // The parser counts from the start of the element, the message from the start of the file.
                let first = error.line <= 1;
                let column = error.column + if first { column_before } else { 0 };
                let location = Location::line(
                    &self.scanner.file,
                    line + (error.line as u64).saturating_sub(1),
                );
                Err(Error::row(location, RowProblem::Json { column, reason: error.reason }))
            }
        }
    }
}

impl Iterator for JsonArray {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let row = self.next_row();
        self.done = !matches!(row, Ok(Some(_)) | Err(Error::Row { .. }));
        row.transpose()
    }
}

/// A cursor over the bytes that counts lines and offsets.
struct Scanner {
    file: Arc<Path>,
    bytes: ByteReader,
    row_bytes: usize,
    buffer: Vec<u8>,
    at: usize,
    end: usize,
    line: u64,
    line_start: u64,
    offset: u64,
    element: Vec<u8>,
}

impl Scanner {
    fn open(path: &Path, options: &ReadOptions, read: &BytesRead) -> Result<Self> {
        let (bytes, offset) = open::open_text(path, read)?;
        Ok(Self {
            file: shared_path(path),
            bytes,
            row_bytes: options.row_bytes(),
            buffer: vec![0; 64 << 10],
            at: 0,
            end: 0,
            line: 1,
            line_start: offset,
            offset,
            element: Vec::new(),
        })
    }

    fn peek(&mut self) -> Result<Option<u8>> {
        if self.at == self.end {
            self.at = 0;
            self.end = loop {
                match self.bytes.read(&mut self.buffer) {
                    Ok(n_read) => break n_read,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(open::read_error(&self.file, error)),
                }
            };
        }
        Ok(self.buffer[..self.end].get(self.at).copied())
    }

    /// Consumes the byte that `peek` returned.
    fn advance(&mut self) {
        self.offset += 1;
        if self.buffer.get(self.at) == Some(&b'\n') {
            self.line += 1;
            self.line_start = self.offset;
        }
        self.at += 1;
    }

    /// Number of bytes between the start of the line and the cursor.
    fn column(&self) -> usize {
        (self.offset - self.line_start) as usize
    }

    fn skip_space(&mut self) -> Result<()> {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.peek()? {
            let rest = self.buffer.get(self.at..self.end).unwrap_or_default();
            let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
            let n_bytes = rest.iter().position(|byte| !is_space(byte)).unwrap_or(rest.len());
            let space = rest.get(..n_bytes).unwrap_or_default();
            if let Some(last) = space.iter().rposition(|byte| *byte == b'\n') {
                self.line += space.iter().filter(|byte| **byte == b'\n').count() as u64;
                self.line_start = self.offset + last as u64 + 1;
            }
            self.offset += n_bytes as u64;
            self.at += n_bytes;
        }
        Ok(())
    }

    /// Moves into the object at the cursor, to the value of its key `field`, which must be an array.
    fn seek_field(&mut self, field: &str) -> Result<()> {
        let path = self.file.to_path_buf();
        let bad = |problem| Err(Error::BadField { path: path.clone(), problem });
        if self.peek()? != Some(b'{') {
            return bad(format!("not a JSON object, so it has no key `{field}`"));
        }
        self.advance();
        let mut keys: Vec<String> = Vec::new();
        loop {
            self.skip_space()?;
            match self.peek()? {
                Some(b'}') => {
                    let found = name_list(keys.iter().map(String::as_str));
                    return bad(format!("no key `{field}` in the JSON object; its keys: {found}"));
                }
                Some(b',') if !keys.is_empty() => {
                    self.advance();
                    self.skip_space()?;
                }
                _ => {}
            }
            let key = self.key()?;
            self.skip_space()?;
            if key == field {
                return match self.peek()? {
                    Some(b'[') => Ok(()),
                    _ => bad(format!("the value of the key `{field}` is not a list")),
                };
            }
            keys.push(key);
            if let Err(problem @ RowProblem::TooDeep { .. }) = self.element()? {
                return Err(Error::row(Location::line(&self.file, self.line), problem));
            }
        }
    }

    /// Moves from the end of the value of `field` to the end of the object.
    ///
    /// Errors: the object has the key again, whose rows would not be read, or does not end.
    fn seek_end_of_object(&mut self, field: &str) -> Result<()> {
        loop {
            self.skip_space()?;
            match self.peek()? {
                Some(b'}') => return Ok(()),
                Some(b',') => self.advance(),
                Some(_) => return Err(self.fail("no comma between the keys of the object")),
                None => return Err(self.fail("the file is truncated inside an object")),
            }
            self.skip_space()?;
            if self.key()? == field {
                return Err(self.fail(&format!("the object has the key `{field}` twice")));
            }
            self.skip_space()?;
            if let Err(problem @ RowProblem::TooDeep { .. }) = self.element()? {
                return Err(Error::row(Location::line(&self.file, self.line), problem));
            }
        }
    }

    /// A key of an object and its colon.
    fn key(&mut self) -> Result<String> {
        match self.peek()? {
            Some(b'"') => {}
            Some(_) => return Err(self.fail("a key of the object is not a text")),
            None => return Err(self.fail("the file is truncated inside an object")),
        }
        let mut key = vec![b'"'];
        self.advance();
        let mut escaped = false;
        loop {
            let Some(byte) = self.peek()? else {
                return Err(self.fail("the file is truncated inside a key"));
            };
            self.advance();
            key.push(byte);
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => break,
                _ if key.len() > KEY_BYTES => return Err(self.fail("a key is too long")),
                _ => {}
            }
        }
        let key = serde_json::from_slice(&key).map_err(|_| self.fail("a key is not valid JSON"))?;
        self.skip_space()?;
        if self.peek()? != Some(b':') {
            return Err(self.fail("no colon after a key"));
        }
        self.advance();
        Ok(key)
    }

    /// Consumes the bytes of a text up to the next quote, backslash or end of the buffer, adds them to the element, which has
    /// `n_bytes`, while there is room, and returns their number.
    fn skip_letters(&mut self, n_bytes: usize) -> usize {
        let rest = self.buffer.get(self.at..self.end).unwrap_or_default();
        let n_letters = memchr::memchr3(b'"', b'\\', b'\n', rest).unwrap_or(rest.len());
        let room = self.row_bytes.saturating_sub(n_bytes).min(n_letters);
        self.element.extend_from_slice(rest.get(..room).unwrap_or_default());
        self.at += n_letters;
        self.offset += n_letters as u64;
        n_letters
    }

    fn fail(&self, reason: &str) -> Error {
        Error::bad_file(&self.file, format!("line {}: {reason}", self.line))
    }

    /// Bytes of the element at the cursor: up to its closing bracket or, for a bare value, up to its separator. An element
    /// over the limits is skipped and returned as a problem.
    fn element(&mut self) -> Result<std::result::Result<&[u8], RowProblem>> {
        self.element.clear();
        let (mut depth, mut n_bytes) = (0_usize, 0_usize);
        let (mut in_string, mut escaped) = (false, false);
        loop {
            if in_string && !escaped {
                n_bytes += self.skip_letters(n_bytes);
            }
            if n_bytes > limits::SKIPPED_ROW_BYTES {
                return Err(self.fail(&format!(
                    "a row is longer than {} bytes, too long to be skipped",
                    limits::SKIPPED_ROW_BYTES
                )));
            }
            let Some(byte) = self.peek()? else {
                if depth == 0 && !in_string {
                    break;
                }
                return Err(self.fail("the file is truncated inside an element"));
            };
            if depth == 0 && !in_string && n_bytes > 0 && matches!(byte, b',' | b']' | b'}') {
                break;
            }
            self.advance();
            n_bytes += 1;
            if n_bytes <= self.row_bytes {
                self.element.push(byte);
            }
            if in_string {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' => escaped = true,
                    b'"' => in_string = false,
                    _ => {}
                }
            } else {
                match byte {
                    b'"' => in_string = true,
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                if depth == 0 && matches!(byte, b'}' | b']') {
                    break;
                }
            }
        }
        if n_bytes > self.row_bytes {
            return Ok(Err(RowProblem::TooLong { limit: self.row_bytes as u64 }));
        }
        Ok(check_shape(&self.element, self.row_bytes).map(|()| self.element.as_slice()))
    }
}
