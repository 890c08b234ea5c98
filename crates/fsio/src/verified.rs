//! Files compared with the MANIFEST of their directory when they are read.
//!
//! A directory without a MANIFEST of this program, such as a downloaded model, is not checked.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::error::IoContext;
use crate::hash::sha256_hex;
use crate::hash_memo::{SMALL, is_known, sha256_once};
use crate::manifest::{FileEntry, MANIFEST, Manifest, check_regular, damaged, parse_manifest};
use crate::read::read_bytes_capped;
use crate::{Damage, Error, Result, limits};

/// SHA-256 of a file, compared with the MANIFEST of its directory if there is one. Large files are hashed once per process.
///
/// Errors: the file differs from its entry in MANIFEST.
pub fn verified_sha256(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    match listed(path)? {
        Some(listed) => listed.hash_of(path),
        None => sha256_once(path),
    }
}

/// Ending of the names of weight files.
const WEIGHTS_ENDING: &str = ".safetensors";

/// A comparison of a file with MANIFEST that may still be running on another thread.
#[derive(Debug)]
#[must_use = "a file may be used only after `finish`"]
pub struct Verification {
    thread: Mutex<Option<JoinHandle<Result<String>>>>,
    path: PathBuf,
}

impl Verification {
    /// Starts to compare a file with the MANIFEST of its directory. A file of several megabytes is hashed on a thread of its
    /// own, so that it can be read meanwhile.
    ///
    /// Errors: a difference that is found at once.
    pub fn start(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let on = |thread| Self { thread: Mutex::new(thread), path: path.to_owned() };
        let Some(listed) = listed(path)? else { return Ok(on(None)) };
        if listed.entry.bytes >= SMALL && !is_known(path)? {
            let in_thread = path.to_owned();
            let spawned = std::thread::Builder::new().name("verify".into()).spawn({
                let listed = listed.clone();
                move || listed.hash_of(&in_thread)
            });
            if let Ok(thread) = spawned {
                return Ok(on(Some(thread)));
            }
        }
        listed.hash_of(path)?;
        Ok(on(None))
    }

    /// Waits for the comparison.
    ///
    /// Errors: the file differs from its entry in MANIFEST, or cannot be read.
    pub fn finish(&self) -> Result<()> {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return Ok(()) };
        let panicked = |_| std::io::Error::other("the hashing thread panicked");
        thread.join().map_err(panicked).at(&self.path, "hash")??;
        Ok(())
    }
}

/// A file and its entry in the MANIFEST of its directory.
#[derive(Clone)]
pub(crate) struct Listed {
    dir: PathBuf,
    name: String,
    pub(crate) entry: FileEntry,
}

impl Listed {
    fn differs(&self) -> Error {
        damaged(&self.dir, &self.name, Damage::Checksum)
    }

    /// SHA-256 of the file at `path`, which must be that of the entry.
    fn hash_of(&self, path: &Path) -> Result<String> {
        let hash = sha256_once(path)?;
        if hash == self.entry.sha256 { Ok(hash) } else { Err(self.differs()) }
    }

    /// Compares the file's bytes.
    pub(crate) fn check(&self, bytes: &[u8]) -> Result<()> {
        let found = bytes.len() as u64;
        if found != self.entry.bytes {
            let damage = Damage::Length { expected: self.entry.bytes, found };
            return Err(damaged(&self.dir, &self.name, damage));
        }
        if sha256_hex(bytes) == self.entry.sha256 { Ok(()) } else { Err(self.differs()) }
    }
}

/// The entry of a file in the MANIFEST of its directory; `None` without such a MANIFEST, and for files other than weights
/// that were added to the directory.
///
/// Errors: MANIFEST is damaged; a listed file is missing or has another length; weights that are not listed.
pub(crate) fn listed(path: &Path) -> Result<Option<Listed>> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(None) };
    let dir = crate::dirs::parent_of(path).to_owned();
    if name == MANIFEST || name.starts_with('.') {
        return Ok(None);
    }
    let Some(manifest) = manifest_of(&dir)? else { return Ok(None) };
    // An optional file that is missing would otherwise count as one that never was there. Weights are never optional, and a
    // checkpoint without its optimizer state still has a model.
    let small = manifest.files.iter().filter(|(name, _)| !name.ends_with(WEIGHTS_ENDING));
    for (name, entry) in small {
        let found = check_regular(&dir, name)?;
        if found != entry.bytes {
            let damage = Damage::Length { expected: entry.bytes, found };
            return Err(damaged(&dir, name, damage));
        }
    }
    match manifest.files.get(name) {
        Some(entry) => Ok(Some(Listed { dir, name: name.to_owned(), entry: entry.clone() })),
        None if name.ends_with(WEIGHTS_ENDING) => Err(damaged(&dir, name, Damage::Extra)),
        None => Ok(None),
    }
}

/// The MANIFEST of a directory; `None` if there is none, or one that this program did not write.
fn manifest_of(dir: &Path) -> Result<Option<Manifest>> {
    let path = dir.join(MANIFEST);
    match std::fs::symlink_metadata(&path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).at(&path, "read"),
    }
    let bytes = read_bytes_capped(&path, limits::MANIFEST_BYTES)?;
    if is_ours(&bytes) { parse_manifest(dir, &bytes).map(Some) } else { Ok(None) }
}

/// Whether bytes begin or end as `Manifest::to_text` writes them; a flipped bit changes one of the two. So do the bytes of a
/// file that was cut short, down to none.
fn is_ours(bytes: &[u8]) -> bool {
    let first = b"{\n  \"format\": ";
    // The last line is `sha256 `, 64 digits and a line feed.
    let last_line = bytes.len().checked_sub(72).and_then(|start| bytes.get(start..));
    first.starts_with(bytes)
        || bytes.starts_with(first)
        || last_line.is_some_and(|line| line.starts_with(b"sha256 "))
}
