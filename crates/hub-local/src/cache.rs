//! The cache of huggingface_hub: `models--OWNER--NAME/snapshots/COMMIT`, whose files are links to `blobs`.

use std::path::{Path, PathBuf};

use crate::{Environment, Reference, Result};

/// Longest name of a commit in `refs`, in bytes.
const REF_BYTES: u64 = 1024;
/// Branch of a reference without a revision.
const MAIN: &str = "main";
/// Deepest directory of a snapshot that is looked at.
const DEPTH: usize = 16;

/// Directory of the cache: `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, or `hub` in the home of huggingface_hub's files.
pub fn cache_dir(environment: &Environment<'_>) -> PathBuf {
    environment
        .path("HF_HUB_CACHE")
        .or_else(|| environment.path("HUGGINGFACE_HUB_CACHE"))
        .unwrap_or_else(|| environment.hf_home().join("hub"))
}

/// Outcome of a look into the cache.
pub(crate) enum Cached {
    /// A snapshot whose links all lead to files.
    Snapshot(PathBuf),
    /// The repository is there, but not at this revision, or only in part; a sentence.
    Unusable(String),
    /// Nothing of the repository.
    Nothing,
}

/// The snapshot of a reference's revision.
pub(crate) fn snapshot(cache: &Path, reference: &Reference) -> Result<Cached> {
    let name = format!("{}--{}--{}", reference.kind.plural(), reference.owner, reference.name);
    let repository = cache.join(name);
    if !repository.is_dir() {
        return Ok(Cached::Nothing);
    }
    let wanted = reference.revision.as_deref().unwrap_or(MAIN);
    let named = repository.join("refs").join(wanted);
    let commit = if named.is_file() {
        fsio::read_text_capped(&named, REF_BYTES)?.trim().to_owned()
    } else {
        wanted.to_owned()
    };
    // The name comes from a file: it must not lead out of the directory.
    let is_name = fsio::basename_only(&commit).is_ok();
    let snapshot = repository.join("snapshots").join(&commit);
    if !is_name || !snapshot.is_dir() {
        return Ok(Cached::Unusable(format!(
            "the cache `{}` has no snapshot of the revision `{wanted}`",
            repository.display()
        )));
    }
    Ok(match broken_link(&snapshot, DEPTH) {
        Some(file) => Cached::Unusable(partial(&snapshot, &file)),
        None => Cached::Snapshot(snapshot),
    })
}

/// Sentence about a snapshot that lacks a file.
pub(crate) fn partial(snapshot: &Path, file: &Path) -> String {
    let file = file.strip_prefix(snapshot).unwrap_or(file);
    format!("the snapshot `{}` is partial: `{}` is missing", snapshot.display(), file.display())
}

/// A link of a directory that leads nowhere.
fn broken_link(dir: &Path, depth: usize) -> Option<PathBuf> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.into_iter().find_map(|path| {
        let kind = std::fs::symlink_metadata(&path).ok()?.file_type();
        match kind {
            _ if kind.is_dir() && depth > 0 => broken_link(&path, depth - 1),
            _ if kind.is_symlink() && !path.exists() => Some(path),
            _ => None,
        }
    })
}
