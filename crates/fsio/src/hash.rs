//! SHA-256 of bytes, streams and files, as lower-case hex. No other hash is written into files.

use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;

use sha2::Digest;

use crate::Result;
use crate::error::IoContext;
use crate::read::open_regular;

/// Bytes that are read or written at a time.
pub(crate) const CHUNK: usize = 1 << 20;

/// SHA-256 of bytes that arrive in pieces.
#[derive(Clone, Debug, Default)]
pub struct Sha256 {
    inner: sha2::Sha256,
}

impl Sha256 {
    /// The hash of no bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: impl AsRef<[u8]>) {
        self.inner.update(bytes);
    }

    /// The hash of all bytes so far, as 64 lower-case hex digits.
    pub fn finish_hex(self) -> String {
        let mut hex = String::with_capacity(64);
        for byte in self.inner.finalize() {
            // Writing into a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
        }
        hex
    }
}

/// SHA-256 of a byte string.
pub fn sha256_hex(bytes: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(bytes);
    hash.finish_hex()
}

/// SHA-256 of a file, read in pieces.
pub fn sha256_file(path: impl AsRef<Path>) -> Result<String> {
    let mut hash = Sha256::new();
    for_each_piece(path, |piece| hash.update(piece))?;
    Ok(hash.finish_hex())
}

/// Passes the bytes of a file to `visit`, in pieces.
pub fn for_each_piece(path: impl AsRef<Path>, mut visit: impl FnMut(&[u8])) -> Result<()> {
    let path = path.as_ref();
    let mut file = open_regular(path)?;
    let mut piece = vec![0; CHUNK];
    loop {
        let n = file.read(&mut piece).at(path, "read")?;
        if n == 0 {
            return Ok(());
        }
        visit(piece.get(..n).unwrap_or_default());
    }
}
