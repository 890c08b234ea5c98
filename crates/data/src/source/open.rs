//! A file as bytes, whatever it is packed with, counted as it is read.
//!
//! It deliberately trusts the ending of the name and not the first bytes, except to say that a name
//! and its content disagree.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use crate::error::{Error, Result};
use crate::limits;
use crate::source::BytesRead;

const BUFFER_BYTES: usize = 256 << 10;

/// What a file is packed with, by its last ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    pub(crate) fn of(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some(extension) if extension.eq_ignore_ascii_case("gz") => Self::Gzip,
            Some(extension) if extension.eq_ignore_ascii_case("zst") => Self::Zstd,
            _ => Self::None,
        }
    }

    /// The file's name without the packing's ending.
    pub(crate) fn stem(path: &Path) -> String {
        let name = match Self::of(path) {
            Self::None => path.file_name(),
            Self::Gzip | Self::Zstd => path.file_stem(),
        };
        name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Its name in messages and cache keys.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "plain",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// The unpacked bytes of a file.
pub(crate) type Bytes = Box<dyn BufRead + Send>;

/// Opens a file for reading, unpacking it by its ending; an empty file is an error.
pub(crate) fn open(path: &Path, progress: &BytesRead) -> Result<Bytes> {
    let file = File::open(path).map_err(|error| Error::io(path, error))?;
    let length = file.metadata().map_err(|error| Error::io(path, error))?.len();
    if length == 0 {
        return Err(Error::EmptyFile { path: path.to_path_buf() });
    }
    let mut counted =
        BufReader::with_capacity(BUFFER_BYTES, Counted { file, progress: progress.clone() });
    let compression = Compression::of(path);
    let start = counted.fill_buf().map_err(|error| Error::io(path, error))?;
    check_start(path, compression, start)?;
    let mut bytes: Bytes = match compression {
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
pub(crate) fn open_text(path: &Path, progress: &BytesRead) -> Result<(Bytes, u64)> {
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
    let reason = if error.kind() == ErrorKind::UnexpectedEof {
        format!(
            "{} data ends early: the file is cut off, or other bytes follow it",
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
                format!("holds {} data, which its name does not say", found.name())
            }
            Compression::Gzip | Compression::Zstd => {
                format!("is not {} data, as its name says", compression.name())
            }
        },
    ))
}

struct Counted {
    file: File,
    progress: BytesRead,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n_bytes = self.file.read(buffer)?;
        self.progress.add(n_bytes as u64);
        Ok(n_bytes)
    }
}
