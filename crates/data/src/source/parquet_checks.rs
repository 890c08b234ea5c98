//! Checks of the sizes that a parquet file declares, before the parquet crate allocates them: the structure of the footer
//! and the sizes in every page header. No values are decoded.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use ::parquet::basic::Compression as Codec;
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::ColumnChunkMetaData;
use ::parquet::file::reader::{ChunkReader, Length};

use crate::error::{Error, Result};
use crate::formats::Compression;
use crate::limits;
use crate::source::BytesRead;
use crate::source::open;
use crate::source::thrift::{ThriftError, walk_struct};

/// First bytes of an LZ4 frame.
const LZ4_FRAME: &[u8] = &[0x04, 0x22, 0x4d, 0x18];
/// The encoding of texts that begin with parts of the texts before them.
const DELTA_BYTE_ARRAY: i64 = 7;

pub(super) fn not_parquet(path: &Path, reason: &str) -> Error {
    Error::bad_file(path, format!("damaged parquet file: {reason}"))
}

pub(super) fn parquet_reason(error: &ParquetError) -> String {
    if let ParquetError::General(reason)
    | ParquetError::NYI(reason)
    | ParquetError::EOF(reason)
    | ParquetError::ArrowError(reason) = error
    {
        without_layers(reason)
    } else {
        without_layers(&error.to_string())
    }
}

/// Message of the parquet crate without the prefixes of its layers.
pub(super) fn without_layers(reason: &str) -> String {
    let layers = ["Parquet argument error: ", "Parquet error: ", "External: "];
    let mut rest = reason;
    while let Some(inner) = layers.iter().find_map(|layer| rest.strip_prefix(layer)) {
        rest = inner;
    }
    rest.to_owned()
}

/// Checks the structure of the footer: lengths of lists, nesting of the schema.
pub(super) fn check_footer(path: &Path, input: &Input) -> Result<()> {
    const MAGIC: &[u8] = b"PAR1";
    let bad = |reason: &str| Err(not_parquet(path, reason));
    let length = input.len();
    if length < 12 {
        return bad("too short");
    }
    let tail = read_at(path, input, length - 8, 8)?;
    if !tail.ends_with(MAGIC) {
        return bad("no `PAR1` at its end: truncated, encrypted, or another format");
    }
    let footer = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
    if footer > limits::PARQUET_FOOTER_BYTES {
        return Err(Error::TooLarge {
            path: path.to_path_buf(),
            what: "bytes of the footer",
            value: footer,
            limit: limits::PARQUET_FOOTER_BYTES,
        });
    }
    if footer + 12 > length {
        return bad("its footer is longer than the file");
    }
    let bytes = read_at(path, input, length - 8 - footer, footer as usize)?;
    let mut schema = SchemaDepth::default();
    let walked = walk_struct(&bytes, &mut |ids, value| match ids {
        // FileMetaData.schema (2) is a list of SchemaElement, with num_children (5).
        [2, 0] => schema.next_element(),
        [2, 5] => {
            schema.n_children = value.clamp(0, limits::SCHEMA_FIELDS as i64);
            Ok(())
        }
        _ => Ok(()),
    });
    match walked {
        Ok(_) => Ok(()),
        Err(ThriftError::Truncated) => bad("its footer is truncated"),
        Err(ThriftError::Invalid(reason)) => bad(reason),
    }
}

/// Depth of a schema that is stored as a list in depth-first order.
#[derive(Default)]
struct SchemaDepth {
    /// Number of missing children of each open group.
    open: Vec<i64>,
    n_elements: usize,
    n_children: i64,
}

impl SchemaDepth {
    /// Ends one element (the root included) and starts the next.
    fn next_element(&mut self) -> std::result::Result<(), &'static str> {
        let n_children = std::mem::take(&mut self.n_children);
        if self.n_elements > 0 {
            while self.open.last() == Some(&0) {
                self.open.pop();
            }
            if let Some(left) = self.open.last_mut() {
                *left -= 1;
            }
            if n_children > 0 {
                self.open.push(n_children);
            }
        }
        self.n_elements += 1;
        // A list takes three levels of a parquet schema.
        if self.open.len() > 3 * limits::SCHEMA_DEPTH {
            return Err("its schema is nested too deeply");
        }
        if self.n_elements > limits::SCHEMA_FIELDS {
            return Err("its schema has too many columns");
        }
        Ok(())
    }
}

fn read_at(path: &Path, input: &Input, start: u64, length: usize) -> Result<bytes::Bytes> {
    input.get_bytes(start, length).map_err(|error| not_parquet(path, &parquet_reason(&error)))
}

/// What the headers of a column chunk's pages declare.
#[derive(Debug, Default)]
pub(super) struct Pages {
    /// Bytes of the largest page after decompression.
    pub(super) largest: u64,
    /// Bytes of all pages after decompression.
    pub(super) n_bytes: u64,
    /// Values of all data pages, nulls included.
    pub(super) n_values: u64,
    /// The largest mean size of a data page's values, in bytes.
    pub(super) mean_value: u64,
    /// Whether a page is a dictionary, wherever the footer says that it is.
    pub(super) has_dictionary: bool,
    /// Whether a page's texts begin with parts of the texts before them.
    pub(super) with_prefixes: bool,
}

/// Checks the declared sizes of every page of a column chunk.
pub(super) fn check_pages(
    path: &Path,
    input: &Input,
    column: &ColumnChunkMetaData,
) -> Result<Pages> {
    let bad = |reason: &str| not_parquet(path, reason);
    if let codec @ (Codec::BROTLI(_) | Codec::LZO) = column.compression() {
        let codec = format!("{codec:?}").to_lowercase();
        let codec = codec.split('(').next().unwrap_or_default();
        return Err(Error::bad_file(
            path,
            format!("compressed with {codec}, which is not supported"),
        ));
    }
    // The crate starts to read exactly here.
    let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
    let start = u64::try_from(start).map_err(|_| bad("a column starts before the file"))?;
    let length =
        u64::try_from(column.compressed_size()).map_err(|_| bad("a column has a negative size"))?;
    let end = start
        .checked_add(length)
        .filter(|end| *end <= input.len())
        .ok_or_else(|| bad("a column is outside of the file"))?;
    let (mut at, mut pages) = (start, Pages::default());
    while at < end {
        let page = page_header(path, input, at, end)?;
        at += page.header_bytes;
        if at + page.compressed_bytes > end {
            return Err(bad("a page is outside of its column"));
        }
        // Frames in the old format `LZ4` are decompressed without a limit, to 255 times their size.
        if column.compression() == Codec::LZ4
            && page.compressed_bytes > limits::PARQUET_PAGE_BYTES / 256
            && read_at(path, input, at, LZ4_FRAME.len())?.starts_with(LZ4_FRAME)
        {
            return Err(bad("a large page in LZ4 frames"));
        }
        // The crate's gzip decoder reads to the end of the data and ignores the size in the header.
        if matches!(column.compression(), Codec::GZIP(_)) {
            let compressed = read_at(path, input, at, page.compressed_bytes as usize)?;
            check_gzip(&compressed, page.decompressed_bytes).map_err(bad)?;
        }
        at += page.compressed_bytes;
        pages.add(&page);
    }
    Ok(pages)
}

impl Pages {
    fn add(&mut self, page: &PageHeader) {
        let n_bytes = page.decompressed_bytes;
        self.largest = self.largest.max(n_bytes);
        self.n_bytes = self.n_bytes.saturating_add(n_bytes);
        self.has_dictionary |= page.is_dictionary;
        if page.is_data && page.n_values > 0 {
            self.n_values = self.n_values.saturating_add(page.n_values);
            self.mean_value = self.mean_value.max(n_bytes.div_ceil(page.n_values));
            self.with_prefixes |= page.encoding == DELTA_BYTE_ARRAY;
        }
    }
}

struct PageHeader {
    is_data: bool,
    is_dictionary: bool,
    n_values: u64,
    encoding: i64,
    header_bytes: u64,
    compressed_bytes: u64,
    decompressed_bytes: u64,
}

fn page_header(path: &Path, input: &Input, at: u64, end: u64) -> Result<PageHeader> {
    let mut window = 512_usize;
    loop {
        let length = ((end - at) as usize).min(window);
        let bytes = read_at(path, input, at, length)?;
        let (mut compressed, mut decompressed, mut n_values) = (-1_i64, -1_i64, 0_i64);
        let (mut is_data, mut is_dictionary, mut encoding) = (false, false, 0);
        let walked = walk_struct(&bytes, &mut |ids, value| {
            match ids {
                // A dictionary page is of type 2, an index page of type 1.
                [1] => (is_data, is_dictionary) = (!matches!(value, 1 | 2), value == 2),
                [2] => decompressed = value,
                [3] => compressed = value,
                // num_values of a data page, a dictionary page, a data page of version 2.
                [5 | 7 | 8, 1] => n_values = value,
                [5, 2] | [8, 4] => encoding = value,
                _ => {}
            }
            Ok(())
        });
        let header_bytes = match walked {
            Ok(header_bytes) => header_bytes as u64,
            Err(ThriftError::Truncated)
                if length < (end - at) as usize && window < limits::PARQUET_PAGE_HEADER_BYTES =>
            {
                window *= 8;
                continue;
            }
            Err(ThriftError::Truncated) => {
                return Err(not_parquet(path, "a page header is truncated"));
            }
            Err(ThriftError::Invalid(reason)) => return Err(not_parquet(path, reason)),
        };
        let (Ok(compressed_bytes), Ok(decompressed_bytes)) =
            (u64::try_from(compressed), u64::try_from(decompressed))
        else {
            return Err(not_parquet(path, "a page has a negative size"));
        };
        let n_values = u64::try_from(n_values).unwrap_or(0);
        for (what, value, limit) in [
            ("bytes of a page", compressed_bytes, limits::PARQUET_PAGE_BYTES),
            ("bytes of a page", decompressed_bytes, limits::PARQUET_PAGE_BYTES),
            ("values of a page", n_values, limits::PARQUET_PAGE_VALUES),
        ] {
            if value > limit {
                return Err(Error::TooLarge { path: path.to_path_buf(), what, value, limit });
            }
        }
        return Ok(PageHeader {
            is_data,
            is_dictionary,
            n_values,
            encoding,
            header_bytes,
            compressed_bytes,
            decompressed_bytes,
        });
    }
}

/// Decompresses a gzip page and discards it, to check that it is no larger than declared.
fn check_gzip(compressed: &[u8], declared: u64) -> std::result::Result<(), &'static str> {
    let mut decoder = flate2::read::MultiGzDecoder::new(compressed).take(declared + 1);
    match std::io::copy(&mut decoder, &mut std::io::sink()) {
        Ok(n_bytes) if n_bytes > declared => Err("a page is larger than it declares"),
        // The decoder reports any other damage.
        _ => Ok(()),
    }
}

/// Bytes of a parquet file: the file itself, or its decompressed content.
#[derive(Clone)]
pub(super) enum Input {
    File(Arc<File>),
    Memory(bytes::Bytes),
}

impl Input {
    pub(super) fn open(path: &Path, progress: &BytesRead) -> Result<Self> {
        if Compression::of(path) != Compression::None {
            return Ok(Self::Memory(open::read_whole(path, progress)?.into()));
        }
        fsio::refuse_lfs_pointer(path)?;
        Ok(Self::File(Arc::new(open::open_file(path)?.0)))
    }
}

impl Length for Input {
    fn len(&self) -> u64 {
        match self {
            Self::File(file) => Length::len(file.as_ref()),
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }
}

impl ChunkReader for Input {
    type T = Box<dyn Read>;

    fn get_read(&self, start: u64) -> ::parquet::errors::Result<Self::T> {
        Ok(match self {
            Self::File(file) => Box::new(file.get_read(start)?),
            Self::Memory(bytes) => Box::new(bytes.get_read(start)?),
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> ::parquet::errors::Result<bytes::Bytes> {
        match self {
            Self::File(file) => file.get_bytes(start, length),
            Self::Memory(bytes) => bytes.get_bytes(start, length),
        }
    }
}
