//! Finds the copy of a repository on this machine.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cache::{Cached, partial, snapshot};
use crate::record::read_record;
use crate::{Environment, Error, Kind, Reference, Result, cache_dir};

/// Largest index of weight files that is read, in bytes.
const INDEX_BYTES: u64 = 16 << 20;
/// Index of the files with a model's weights.
const INDEX: &str = "model.safetensors.index.json";

/// Use of a copy, which decides the files that it must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A model with its weights, or an adapter.
    Model,
    /// The tokenizer of a model, or another file of its repository.
    Tokenizer,
    /// The files of a data set.
    Data,
}

/// The copy of a repository: `models/OWNER/NAME` (for data sets `datasets/OWNER/NAME`) in one of `roots`, or else the
/// snapshot in the cache of huggingface_hub. With a path in the reference, that file or directory of the copy.
///
/// A directory at another revision than a requested one is not used, nor a snapshot that lacks files; the error names them.
pub fn locate(
    reference: &Reference,
    need: Need,
    roots: &[&Path],
    environment: &Environment<'_>,
) -> Result<PathBuf> {
    check_kind(reference, need)?;
    let mut found = Vec::new();
    for root in roots {
        let dir = root.join(reference.directory());
        if !dir.is_dir() {
            continue;
        }
        match other_revision(&dir, reference)? {
            Some(sentence) => found.push(sentence),
            None => return inside(reference, &dir),
        }
    }
    match snapshot(&cache_dir(environment), reference)? {
        Cached::Snapshot(dir) => match missing_weights(&dir, need, reference) {
            Some(file) => found.push(partial(&dir, &file)),
            None => return inside(reference, &dir),
        },
        Cached::Unusable(sentence) => found.push(sentence),
        Cached::Nothing => {}
    }
    found.dedup();
    let command = reference.get_command();
    Err(Error::Missing { reference: reference.to_string(), command, found })
}

/// Repository and revision of a directory that `temper get` wrote, or of a snapshot in the cache of huggingface_hub:
/// `hf:OWNER/NAME at revision 0123abc`. `None` for any other directory.
pub fn origin(dir: &Path) -> Option<String> {
    if let Ok(Some(record)) = read_record(dir) {
        return Some(format!("{} at revision {}", record.source, short(&record.revision)));
    }
    let commit = dir.file_name()?.to_str()?;
    let snapshots = dir.parent()?;
    if snapshots.file_name()? != "snapshots" {
        return None;
    }
    let repository = snapshots.parent()?.file_name()?.to_str()?;
    let (kind, id) = repository.split_once("--")?;
    let id = id.replacen("--", "/", 1);
    let source = match kind {
        "models" => format!("hf:{id}"),
        "datasets" => format!("hf:datasets/{id}"),
        _ => return None,
    };
    Some(format!("{source} at revision {}", short(commit)))
}

/// First digits of a commit, as git shows it.
fn short(commit: &str) -> &str {
    commit.get(..7).unwrap_or(commit)
}

/// Refuses a model where data is read, and data where a model is read.
fn check_kind(reference: &Reference, need: Need) -> Result<()> {
    let problem = match (need, reference.kind) {
        (Need::Data, Kind::Model) => {
            "data is read here: write hf:datasets/OWNER/NAME for a data set"
        }
        (Need::Model | Need::Tokenizer, Kind::Dataset) => "a model is read here, not a data set",
        (Need::Data, Kind::Dataset) | (Need::Model | Need::Tokenizer, Kind::Model) => return Ok(()),
    };
    Err(Error::BadReference { text: reference.to_string(), problem })
}

/// The copy, or the path in it that the reference names.
fn inside(reference: &Reference, dir: &Path) -> Result<PathBuf> {
    let Some(path) = &reference.path else { return Ok(dir.to_path_buf()) };
    let full = dir.join(path);
    // A pattern of data files is resolved by its reader.
    if full.exists() || path.contains(['*', '?', '[']) {
        return Ok(full);
    }
    Err(Error::NoSuchFile {
        reference: reference.to_string(),
        dir: dir.to_path_buf(),
        inside: path.clone(),
        command: reference.get_command(),
    })
}

/// A sentence if a directory is not at the reference's revision.
fn other_revision(dir: &Path, reference: &Reference) -> Result<Option<String>> {
    let Some(wanted) = &reference.revision else { return Ok(None) };
    Ok(match read_record(dir)? {
        Some(record) if record.is_at(wanted) => None,
        Some(record) => Some(format!(
            "`{}` has the revision `{}` ({})",
            dir.display(),
            record.requested,
            short(&record.revision)
        )),
        None => Some(format!("`{}` has no record of its revision", dir.display())),
    })
}

/// A weight file that a snapshot lacks, if the caller needs weights.
fn missing_weights(dir: &Path, need: Need, reference: &Reference) -> Option<PathBuf> {
    if need != Need::Model || reference.path.is_some() {
        return None;
    }
    let has = |name: &str| dir.join(name).is_file();
    if has("adapter_config.json") {
        let adapter = "adapter_model.safetensors";
        return (!has(adapter)).then(|| dir.join(adapter));
    }
    if !has("config.json") {
        return (!has_gguf(dir)).then(|| dir.join("config.json"));
    }
    if !has(INDEX) {
        let weights = "model.safetensors";
        return (!has(weights)).then(|| dir.join(weights));
    }
    // A damaged index is reported by the reader of weights.
    let text = fsio::read_text_capped(dir.join(INDEX), INDEX_BYTES).ok()?;
    let index: Value = serde_json::from_str(&text).ok()?;
    let files = index.get("weight_map")?.as_object()?.values().filter_map(Value::as_str);
    let mut missing: Vec<&str> =
        files.filter(|file| fsio::basename_only(file).is_ok() && !has(file)).collect();
    missing.sort_unstable();
    missing.first().map(|file| dir.join(file))
}

fn has_gguf(dir: &Path) -> bool {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.path().extension().is_some_and(|ending| ending == "gguf"))
}
