//! Arrow IPC, as a stream or as a file (a stream between two magic words), also Feather 2.
//!
//! The file format is read as a stream, without its footer: sizes declared by a message are checked before the arrow crate
//! allocates memory for them, and nothing is read out of order.

use std::collections::VecDeque;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use ::arrow::array::RecordBatch;
use ::arrow::buffer::Buffer;
use ::arrow::ipc::reader::StreamDecoder;
use ::arrow::ipc::{self, MessageHeader, root_as_message};

use crate::error::{Error, Result};
use crate::formats::Compression;
use crate::limits;
use crate::location::{Location, shared_path};
use crate::source::arrow_schema;
use crate::source::columns::{catch_panics, check_names, check_schema, row_of, wanted_columns};
use crate::source::expansion::Expansion;
use crate::source::open::{self, ByteReader};
use crate::source::{BytesRead, Row};

const FILE_MAGIC: &[u8] = b"ARROW1\0\0";
/// Maximum number of zeros after the magic word.
const PADDING_BYTES: usize = 64;
const CONTINUATION: [u8; 4] = [0xff; 4];

/// The rows of one file.
pub(crate) struct ArrowRows {
    file: Arc<Path>,
    bytes: ByteReader,
    expansion: Expansion,
    /// Counts what batches declare before they are decompressed.
    declared: Expansion,
    /// Bytes that a batch may have in the file once the file itself is decompressed.
    batch_limit: u64,
    /// Bytes of the compressed dictionaries so far, after decompression.
    dictionary_bytes: u64,
    /// Bytes of all dictionaries so far as they are in the file, and of those that later parts copied.
    dictionary_parts: u64,
    copied: u64,
    decoder: StreamDecoder,
    /// Whether the first message, which is the schema, was read.
    schema_seen: bool,
    schema_checked: bool,
    needed: Option<Vec<String>>,
    batches: VecDeque<RecordBatch>,
    at: usize,
    n_rows: u64,
    ended: bool,
    done: bool,
}

impl ArrowRows {
    pub(crate) fn open(
        path: &Path,
        needed: Option<&[String]>,
        progress: &BytesRead,
    ) -> Result<Self> {
        let mut bytes = open::open(path, progress)?;
        let start = bytes.fill_buf().map_err(|error| open::read_error(path, error))?;
        if start.starts_with(b"FEA1") {
            return Err(Error::bad_file(
                path,
                "Feather version 1 is not supported; write version 2",
            ));
        }
        if start.starts_with(FILE_MAGIC) {
            bytes.consume(FILE_MAGIC.len());
        }
        let batch_limit = match Compression::of(path) {
            Compression::None => limits::ARROW_BATCH_BYTES,
            Compression::Gzip | Compression::Zstd => {
                unpacked_limit(std::fs::metadata(path).map_or(0, |file| file.len()))
            }
        };
        Ok(Self {
            file: shared_path(path),
            bytes,
            batch_limit,
            expansion: Expansion::of(path),
            declared: Expansion::of(path),
            dictionary_bytes: 0,
            dictionary_parts: 0,
            copied: 0,
            decoder: StreamDecoder::new(),
            schema_seen: false,
            schema_checked: false,
            needed: needed.map(<[String]>::to_vec),
            batches: VecDeque::new(),
            at: 0,
            n_rows: 0,
            ended: false,
            done: false,
        })
    }

    fn bad(&self, reason: &str) -> Error {
        Error::bad_file(&self.file, format!("damaged Arrow file: {reason}"))
    }

    fn too_large(&self, what: &'static str, value: u64, limit: u64) -> Error {
        Error::TooLarge { path: self.file.to_path_buf(), what, value, limit }
    }

    fn read(&mut self, length: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        (&mut self.bytes)
            .take(length)
            .read_to_end(&mut bytes)
            .map_err(|error| open::read_error(&self.file, error))?;
        if (bytes.len() as u64) < length {
            return Err(self.bad("it is truncated"));
        }
        Ok(bytes)
    }

    /// Reads one message and passes it to the decoder; sets `ended` at the end of the stream.
    fn read_message(&mut self) -> Result<()> {
        let at_end = self.bytes.fill_buf().map(<[u8]>::is_empty);
        if at_end.map_err(|error| open::read_error(&self.file, error))? {
            self.ended = true;
            return self.flush();
        }
        let mut word = self.read(4)?;
        // Some writers pad the magic word to 64 bytes.
        let mut padding = 0;
        while word == [0; 4] && !self.schema_seen && padding < PADDING_BYTES {
            padding += word.len();
            word = self.read(4)?;
        }
        if !self.schema_seen && word != CONTINUATION && word.get(3) != Some(&0) {
            return Err(Error::bad_file(&self.file, "neither an Arrow file nor an Arrow stream"));
        }
        self.schema_seen = true;
        if word == CONTINUATION {
            word = self.read(4)?;
        }
        let length = word.try_into().map_or(0, u32::from_le_bytes);
        if length == 0 {
            self.ended = true;
            return self.flush();
        }
        if u64::from(length) > limits::ARROW_METADATA_BYTES {
            let (value, limit) = (u64::from(length), limits::ARROW_METADATA_BYTES);
            return Err(self.too_large("bytes of a message", value, limit));
        }
        let metadata = self.read(u64::from(length))?;
        let body_bytes = self.check_metadata(&metadata)?;
        let body = self.read(body_bytes)?;
        self.check_buffers(&metadata, &body)?;
        let mut head = CONTINUATION.to_vec();
        head.extend_from_slice(&length.to_le_bytes());
        head.extend_from_slice(&metadata);
        self.decode(head)?;
        self.decode(body)
    }

    /// Length of the body, checked against the limits.
    fn check_metadata(&self, metadata: &[u8]) -> Result<u64> {
        let message = root_as_message(metadata).map_err(|_| self.bad("a broken message"))?;
        if !message.header_as_schema().is_none_or(arrow_schema::is_small) {
            return Err(self.bad("too many columns, or names that are too long"));
        }
        let body =
            u64::try_from(message.bodyLength()).map_err(|_| self.bad("a negative length"))?;
        if body > self.batch_limit {
            return Err(self.too_large("bytes of a record batch", body, self.batch_limit));
        }
        Ok(body)
    }

    /// Counts what a part of a dictionary copies: as much as all dictionaries have, at most.
    fn check_parts(&mut self, is_delta: bool, n_bytes: u64) -> Result<()> {
        self.dictionary_parts = self.dictionary_parts.saturating_add(n_bytes);
        if !is_delta {
            return Ok(());
        }
        self.copied = self.copied.saturating_add(self.dictionary_parts);
        if self.copied > limits::ARROW_COPIED_BYTES {
            let limit = limits::ARROW_COPIED_BYTES;
            return Err(self.too_large(
                "bytes copied for parts of dictionaries",
                self.copied,
                limit,
            ));
        }
        Ok(())
    }

    /// Checks what a batch declares: its rows, and the decompressed sizes of its buffers.
    fn check_buffers(&mut self, metadata: &[u8], body: &[u8]) -> Result<()> {
        let message = root_as_message(metadata).map_err(|_| self.bad("a broken message"))?;
        let batch = match message.header_type() {
            MessageHeader::RecordBatch => message.header_as_record_batch(),
            MessageHeader::DictionaryBatch => {
                message.header_as_dictionary_batch().and_then(|batch| batch.data())
            }
            _ => return Ok(()),
        };
        let batch = batch.ok_or_else(|| self.bad("a batch without a header"))?;
        if let Some(dictionary) = message.header_as_dictionary_batch() {
            self.check_parts(dictionary.isDelta(), body.len() as u64)?;
        }
        let decompressed = batch.compression().map(|_| declared_bytes(batch, body));
        self.check_lengths(batch, decompressed.unwrap_or(body.len() as u64))?;
        let Some(decompressed) = decompressed else { return Ok(()) };
        let limit = unpacked_limit(body.len() as u64);
        if decompressed > limit {
            return Err(self.too_large("bytes of a record batch", decompressed, limit));
        }
        if message.header_type() == MessageHeader::DictionaryBatch {
            self.dictionary_bytes += decompressed;
            let limit = limits::ARROW_DICTIONARY_BYTES;
            if self.dictionary_bytes > limit {
                return Err(self.too_large("bytes of dictionaries", self.dictionary_bytes, limit));
            }
        }
        self.declared.declare(&self.file, decompressed, 0)
    }

    /// Checks the numbers of rows and of values, of which a column without content may declare any. Lists may have more values
    /// than a batch may have rows, if a bit for each of them is there.
    fn check_lengths(&self, batch: ipc::RecordBatch<'_>, n_bytes: u64) -> Result<()> {
        let most_values = n_bytes.saturating_mul(8).max(limits::PARQUET_PAGE_VALUES);
        let values = batch.nodes().into_iter().flatten().map(|node| (node.length(), most_values));
        for (length, limit) in values.chain([(batch.length(), limits::PARQUET_PAGE_VALUES)]) {
            let length = u64::try_from(length).map_err(|_| self.bad("a negative length"))?;
            if length > limit {
                return Err(self.too_large("rows of a batch", length, limit));
            }
        }
        Ok(())
    }

    fn decode(&mut self, bytes: Vec<u8>) -> Result<()> {
        let mut buffer = Buffer::from_vec(bytes);
        while !buffer.is_empty() {
            let decoder = &mut self.decoder;
            let decoded = catch_panics(|| decoder.decode(&mut buffer).map_err(|e| e.to_string()));
            let batch = decoded.map_err(|reason| self.bad(&reason))?;
            if !self.schema_checked
                && let Some(schema) = self.decoder.schema()
            {
                check_schema(&schema).map_err(|reason| self.bad(reason))?;
                check_names(&self.file, &schema)?;
                self.schema_checked = true;
            }
            if let Some(batch) = batch {
                let columns = wanted_columns(batch.schema_ref(), self.needed.as_deref());
                let batch = batch.project(&columns).map_err(|e| self.bad(&e.to_string()))?;
                self.batches.push_back(batch);
            }
        }
        Ok(())
    }

    /// Makes the decoder return a last message without a body, which it holds back.
    fn flush(&mut self) -> Result<()> {
        let mut end = CONTINUATION.to_vec();
        end.extend_from_slice(&[0; 4]);
        self.decode(end)?;
        if self.decoder.schema().is_none() {
            return Err(self.bad("it has no schema"));
        }
        Ok(())
    }

    fn next_row(&mut self) -> Result<Option<Row>> {
        loop {
            if let Some(batch) = self.batches.front() {
                if self.at < batch.num_rows() {
                    let row = self.at;
                    self.at += 1;
                    self.n_rows += 1;
                    let location = Location::row(&self.file, self.n_rows);
                    let (strict, expansion) = (self.needed.is_some(), &mut self.expansion);
                    return catch_panics(|| Ok(row_of(batch, row, strict, location, expansion)))
                        .map_err(|reason| self.bad(&reason))?
                        .map(Some);
                }
                self.batches.pop_front();
                self.at = 0;
            } else if self.ended {
                return Ok(None);
            } else {
                self.read_message()?;
            }
        }
    }
}

/// Bytes that the buffers of a compressed batch declare to have after decompression.
fn declared_bytes(batch: ipc::RecordBatch<'_>, body: &[u8]) -> u64 {
    let declared = |buffer: &ipc::Buffer| {
        let start = usize::try_from(buffer.offset()).unwrap_or(usize::MAX);
        let prefix = start.checked_add(8).and_then(|end| body.get(start..end))?;
        u64::try_from(i64::from_le_bytes(prefix.try_into().unwrap_or_default())).ok()
    };
    let buffers = batch.buffers().into_iter().flatten();
    buffers.filter_map(declared).fold(0, u64::saturating_add)
}

/// Bytes that a batch of `n_bytes` may have after decompression.
fn unpacked_limit(n_bytes: u64) -> u64 {
    let limit = n_bytes.saturating_mul(limits::ARROW_BATCH_RATIO);
    limit.clamp(limits::FREE_UNPACKED_BYTES, limits::ARROW_BATCH_BYTES)
}

impl Iterator for ArrowRows {
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
