//! Opens a file as decompressed bytes and counts what is read.
//!
//! The ending of the name decides the compression. First bytes that disagree with it are an error.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use crate::error::{Error, Result};
use crate::formats::Compression;
use crate::limits;
use crate::source::BytesRead;

const BUFFER_BYTES: usize = 256 << 10;

/// Decompressed bytes of a file.
pub(crate) type ByteReader = Box<dyn BufRead + Send>;

/// Opens a file for reading, decompressed by its ending. An empty file is an error.
pub(crate) fn open(path: &Path, progress: &BytesRead) -> Result<ByteReader> {
    let (file, length) = open_file(path)?;
    fsio::refuse_lfs_pointer(path)?;
    let mut counted =
        BufReader::with_capacity(BUFFER_BYTES, CountingReader { file, progress: progress.clone() });
    let compression = Compression::of(path);
    let start = counted.fill_buf().map_err(|error| Error::io(path, error))?;
    check_start(path, compression, start)?;
    let mut bytes: ByteReader = match compression {
        Compression::None => Box::new(counted),
        Compression::Gzip => Box::new(BufReader::with_capacity(
            BUFFER_BYTES,
            RatioLimiter::of(GzipMembers::new(counted), length),
        )),
        Compression::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(counted)
                .map_err(|error| read_error(path, error))?;
            Box::new(BufReader::with_capacity(BUFFER_BYTES, RatioLimiter::of(decoder, length)))
        }
    };
    let start = bytes.fill_buf().map_err(|error| read_error(path, error))?;
    if start.is_empty() {
        return Err(Error::EmptyFile { path: path.to_path_buf() });
    }
    Ok(bytes)
}

/// Opens a regular file that is not empty. Returns its length, too.
pub(crate) fn open_file(path: &Path) -> Result<(File, u64)> {
    let found = std::fs::metadata(path).map_err(|error| Error::io(path, error))?;
    if !found.is_file() {
        return Err(fsio::Error::NotAFile { path: path.to_path_buf() }.into());
    }
    if found.len() == 0 {
        return Err(Error::EmptyFile { path: path.to_path_buf() });
    }
    Ok((File::open(path).map_err(|error| Error::io(path, error))?, found.len()))
}

/// Opens a text format: as `open`, and skips a byte-order mark.
///
/// Returns the number of skipped bytes, so that offsets count from the start of the file.
pub(crate) fn open_text(path: &Path, progress: &BytesRead) -> Result<(ByteReader, u64)> {
    const MARK: &[u8] = b"\xef\xbb\xbf";
    let mut bytes = open(path, progress)?;
    let start = bytes.fill_buf().map_err(|error| read_error(path, error))?;
    if matches!(start, [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [_, 0, _, 0, ..] | [0, _, 0, _, ..]) {
        return Err(Error::bad_file(path, "is UTF-16 text; save it as UTF-8"));
    }
    if start.starts_with(MARK) {
        bytes.consume(MARK.len());
        return Ok((bytes, MARK.len() as u64));
    }
    Ok((bytes, 0))
}

/// The whole decompressed file, for formats that need random access. Over the limit it is an error.
pub(crate) fn read_whole(path: &Path, progress: &BytesRead) -> Result<Vec<u8>> {
    let limit = limits::UNPACKED_BYTES;
    let mut whole = Vec::new();
    open(path, progress)?
        .take(limit + 1)
        .read_to_end(&mut whole)
        .map_err(|error| read_error(path, error))?;
    if whole.len() as u64 > limit {
        return Err(Error::TooLarge {
            path: path.to_path_buf(),
            what: "decompressed bytes",
            value: whole.len() as u64,
            limit,
        });
    }
    Ok(whole)
}

/// Error while reading: distinguishes damaged compressed data from an operating-system error.
pub(crate) fn read_error(path: &Path, error: std::io::Error) -> Error {
    use std::io::ErrorKind;
    let compression = Compression::of(path);
    if compression == Compression::None || error.raw_os_error().is_some() {
        return Error::io(path, error);
    }
    if error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<RatioExceeded>) {
        return Error::bad_file(path, error.to_string());
    }
    let reason = if error.kind() == ErrorKind::UnexpectedEof {
        format!(
            "{} data ends early: the file is truncated, or other bytes follow it",
            compression.name()
        )
    } else {
        format!("{} data is damaged: {error}", compression.name())
    };
    Error::bad_file(path, reason)
}

fn check_start(path: &Path, compression: Compression, start: &[u8]) -> Result<()> {
    let found = if start.starts_with(b"\x1f\x8b") {
        Compression::Gzip
    } else if start.starts_with(b"\x28\xb5\x2f\xfd") || start.starts_with(b"\x50\x2a\x4d\x18") {
        Compression::Zstd
    } else {
        Compression::None
    };
    if found == compression {
        return Ok(());
    }
    Err(Error::bad_file(
        path,
        match compression {
            Compression::None => {
                format!("contains {} data, but its name has no such ending", found.name())
            }
            Compression::Gzip | Compression::Zstd => {
                format!("is not {} data, although its name says so", compression.name())
            }
        },
    ))
}

struct CountingReader {
    file: File,
    progress: BytesRead,
}

impl Read for CountingReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n_bytes = self.file.read(buffer)?;
        self.progress.add(n_bytes as u64);
        Ok(n_bytes)
    }
}

/// The members of a gzip file, one after the other.
///
/// As flate2's `MultiGzDecoder`, but it counts members without content: each takes as much time as one with content, and a file
/// can be made of them. Block-compressed files have one, at their end.
struct GzipMembers<R: BufRead> {
    member: Option<flate2::bufread::GzDecoder<R>>,
    /// Whether the current member has given a byte.
    has_content: bool,
    n_empty: usize,
}

impl<R: BufRead> GzipMembers<R> {
    fn new(file: R) -> Self {
        let member = Some(flate2::bufread::GzDecoder::new(file));
        Self { member, has_content: false, n_empty: 0 }
    }
}

impl<R: BufRead> Read for GzipMembers<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while let Some(member) = &mut self.member {
            let n_bytes = member.read(buffer)?;
            if n_bytes > 0 || buffer.is_empty() {
                self.has_content |= n_bytes > 0;
                return Ok(n_bytes);
            }
            self.n_empty += usize::from(!self.has_content);
            if self.n_empty > limits::EMPTY_MEMBERS {
                let reason = format!("more than {} members are empty", limits::EMPTY_MEMBERS);
                return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, reason));
            }
            self.has_content = false;
            let mut file = self.member.take().map(flate2::bufread::GzDecoder::into_inner);
            if let Some(rest) = &mut file
                && !rest.fill_buf()?.is_empty()
            {
                self.member = file.map(flate2::bufread::GzDecoder::new);
            }
        }
        Ok(0)
    }
}

/// Decompressed bytes of a file, until they are far more than the file can hold in earnest.
struct RatioLimiter<R> {
    decompressed: R,
    left: u64,
    limit: u64,
}

/// The bytes of a file decompress to too many.
#[derive(Debug)]
struct RatioExceeded {
    limit: u64,
}

impl<R: Read> RatioLimiter<R> {
    /// `length` is the size of the compressed file.
    fn of(decompressed: R, length: u64) -> Self {
        let limit = limits::unpacked_bytes(length);
        Self { decompressed, left: limit, limit }
    }
}

impl<R: Read> Read for RatioLimiter<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n_bytes = self.decompressed.read(buffer)?;
        match self.left.checked_sub(n_bytes as u64) {
            Some(left) => self.left = left,
            None => return Err(std::io::Error::other(RatioExceeded { limit: self.limit })),
        }
        Ok(n_bytes)
    }
}

impl std::fmt::Display for RatioExceeded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (limit, ratio) = (self.limit, limits::UNPACKED_RATIO);
        write!(
            f,
            "decompresses to more than {limit} bytes, over {ratio} times its size; if it is meant to, decompress it first"
        )
    }
}

impl std::error::Error for RatioExceeded {}
