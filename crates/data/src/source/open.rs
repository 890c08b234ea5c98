//! A file as bytes, whatever it is packed with, counted as it is read.
//!
//! It deliberately trusts the ending of the name and not the first bytes, except to say that a name
//! and its content disagree.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use crate::error::{Error, Result};
use crate::formats::Compression;
use crate::limits;
use crate::source::BytesRead;

const BUFFER_BYTES: usize = 256 << 10;

/// The unpacked bytes of a file.
pub(crate) type ByteReader = Box<dyn BufRead + Send>;

/// Opens a file for reading, unpacking it by its ending; an empty file is an error.
pub(crate) fn open(path: &Path, progress: &BytesRead) -> Result<ByteReader> {
    let file = File::open(path).map_err(|error| Error::io(path, error))?;
    let length = file.metadata().map_err(|error| Error::io(path, error))?.len();
    if length == 0 {
        return Err(Error::EmptyFile { path: path.to_path_buf() });
    }
    let mut counted =
        BufReader::with_capacity(BUFFER_BYTES, CountingReader { file, progress: progress.clone() });
    let compression = Compression::of(path);
    let start = counted.fill_buf().map_err(|error| Error::io(path, error))?;
    check_start(path, compression, start)?;
    let mut bytes: ByteReader = match compression {
        Compression::None => Box::new(counted),
        Compression::Gzip => Box::new(BufReader::with_capacity(
            BUFFER_BYTES,
            flate2::bufread::MultiGzDecoder::new(counted),
        )),
        Compression::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(counted)
                .map_err(|error| read_error(path, error))?;
            Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder))
        }
    };
    let start = bytes.fill_buf().map_err(|error| read_error(path, error))?;
    if start.is_empty() {
        return Err(Error::EmptyFile { path: path.to_path_buf() });
    }
    Ok(bytes)
}

/// Opens a text format: as `open`, and a byte-order mark in front is passed over.
///
/// Returns the number of bytes passed over, so that offsets stay those of the file.
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

/// The whole unpacked file, for formats that need random access; never more than the limit.
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
            what: "unpacked bytes",
            value: whole.len() as u64,
            limit,
        });
    }
    Ok(whole)
}

/// An error while reading: damage of the packing is told from trouble with the disk.
pub(crate) fn read_error(path: &Path, error: std::io::Error) -> Error {
    use std::io::ErrorKind;
    let compression = Compression::of(path);
    if compression == Compression::None || error.raw_os_error().is_some() {
        return Error::io(path, error);
    }
    let reason = match error.kind() {
        ErrorKind::UnexpectedEof => {
            format!(
                "{} data ends early: the file is cut off, or other bytes follow it",
                compression.name()
            )
        }
        _ => format!("{} data is damaged: {error}", compression.name()),
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
                format!("holds {} data, which its name does not say", found.name())
            }
            _ => format!("is not {} data, as its name says", compression.name()),
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
