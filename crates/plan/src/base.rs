//! The base model of an adapter: `base.json`, which Temper writes into every adapter's directory.
//!
//! PEFT's `adapter_config.json` names a base model too. That path is never opened, because it comes from elsewhere. The
//! path in `base.json` is checked by the hash of the weights, and it leaves the adapter's directory only within runs: any
//! other directory may come from elsewhere.

use std::path::{Component, Path, PathBuf};

use arch::ADAPTER_CONFIG;
use fsio::Sha256;
use recipe::BaseDtype;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Name of the file in an adapter's directory.
pub const BASE_FILE: &str = "base.json";

/// Record of the base model that an adapter was trained on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseFile {
    /// Directory of the base model, relative to the adapter's if both are in one run.
    pub base: PathBuf,
    /// Type in which the base weights were packed while the adapter was trained; `None` if they were not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_dtype: Option<BaseDtype>,
    /// [`weights_hash`] of that directory.
    pub weights_sha256: String,
}

/// Whether a path is a model with all its weights: a Hugging Face directory or a GGUF file.
pub(crate) fn holds_weights(path: &Path) -> bool {
    fsio::is_present(path.join("config.json")) || gguf::is_gguf(path)
}

/// Whether a directory has an adapter instead of whole weights.
pub fn is_adapter(dir: &Path) -> bool {
    fsio::is_present(dir.join(ADAPTER_CONFIG))
}

/// Directory of an adapter's base model, checked by the hash of its weights; none if `dir` has whole weights.
pub fn base_of(dir: &Path) -> Result<Option<PathBuf>> {
    let Some((base, file)) = recorded(dir)? else { return Ok(None) };
    if weights_hash(&base)? != file.weights_sha256 {
        return Err(Error::BaseChanged { dir: dir.to_owned(), base });
    }
    Ok(Some(base))
}

/// The base model's directory that an adapter records, without a check of its weights; none if `dir` is not an adapter.
pub fn recorded_base(dir: &Path) -> Result<Option<PathBuf>> {
    Ok(recorded(dir)?.map(|(base, _)| base))
}

fn recorded(dir: &Path) -> Result<Option<(PathBuf, BaseFile)>> {
    if !is_adapter(dir) {
        return Ok(None);
    }
    let Some(file) = BaseFile::read(dir)? else {
        return Err(Error::NoBase { dir: dir.to_owned() });
    };
    if !stays_within(&file.base) && !is_in_run(dir) {
        return Err(Error::ForeignBase { dir: dir.to_owned(), base: file.base });
    }
    let base = normalized(&dir.join(&file.base));
    if !holds_weights(&base) {
        return Err(Error::BaseGone { dir: dir.to_owned(), base });
    }
    Ok(Some((base, file)))
}

/// Whether a relative path leads to no directory outside of that in which it starts.
fn stays_within(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// Whether a directory is part of a run, which has a LOCK: its stages' models are one level below a stage, checkpoints two.
fn is_in_run(dir: &Path) -> bool {
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    normalized(&dir).ancestors().skip(1).take(3).any(|above| above.join("LOCK").is_file())
}

/// Refuses a base model whose weights differ from those that an adapter records. An adapter without a record fits any.
pub fn check_base(dir: &Path, base: &Path) -> Result<()> {
    match BaseFile::read(dir)? {
        Some(file) if weights_hash(base)? != file.weights_sha256 => {
            Err(Error::BaseChanged { dir: dir.to_owned(), base: base.to_owned() })
        }
        Some(_) | None => Ok(()),
    }
}

impl BaseFile {
    /// The record in an adapter's directory, if it has one.
    fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(BASE_FILE);
        if !path.is_file() {
            return Ok(None);
        }
        let text = fsio::read_text_capped(&path, fsio::limits::CONFIG_BYTES)?;
        let file = serde_json::from_str(&text);
        file.map(Some).map_err(|error| Error::BaseFile { path, reason: error.to_string() })
    }

    /// Record for an adapter in `dir` of the base model in `base`, whose [`weights_hash`] is given.
    pub fn new(dir: &Path, base: &Path, weights_sha256: &str, base_dtype: BaseDtype) -> Self {
        Self {
            base: relative(dir, base),
            base_dtype: Some(base_dtype).filter(|dtype| is_packed(*dtype)),
            weights_sha256: weights_sha256.to_owned(),
        }
    }
}

/// The type in which an adapter's base weights were packed while it was trained; `None` if they were not, or if the directory
/// does not record it.
pub fn packed_base_dtype(dir: &Path) -> Result<Option<BaseDtype>> {
    Ok(BaseFile::read(dir)?.and_then(|file| file.base_dtype))
}

fn is_packed(dtype: BaseDtype) -> bool {
    match dtype {
        BaseDtype::F32 | BaseDtype::Bf16 => false,
        BaseDtype::Int8 | BaseDtype::Nf4 => true,
    }
}

/// Hash over the names and contents of all weight files of a directory, or of a GGUF file's content. Files beside a MANIFEST
/// are compared with it.
pub fn weights_hash(dir: &Path) -> Result<String> {
    if gguf::is_gguf(dir) {
        return Ok(fsio::verified_sha256(dir)?);
    }
    let names = weight_files(dir);
    if names.is_empty() {
        return Err(Error::NoWeights { path: dir.to_owned() });
    }
    let mut hash = Sha256::new();
    for name in names {
        hash.update(format!("{name} {}\n", fsio::verified_sha256(dir.join(&name))?));
    }
    Ok(hash.finish_hex())
}

/// Names of the weight files of a directory, sorted; none of a directory that cannot be listed.
pub fn weight_files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("model") && name.ends_with(".safetensors"))
        .collect();
    names.sort();
    names
}

/// Path from one directory to another, relative if both are in one run, else absolute.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let absolute = |path: &Path| {
        std::path::absolute(path).map_or_else(|_| path.to_owned(), |p| normalized(&p))
    };
    let (from, to) = (absolute(from), absolute(to));
    let n_shared = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let n_up = from.components().count() - n_shared;
    // A checkpoint is three levels below its run.
    if n_up > 3 {
        return to;
    }
    let down = to.components().skip(n_shared);
    std::iter::repeat_n(Component::ParentDir, n_up).chain(down).collect()
}

/// Removes `x/..` from a path, so that messages are easy to read.
fn normalized(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        let is_name = matches!(out.components().next_back(), Some(Component::Normal(_)));
        if component == Component::ParentDir && is_name {
            out.pop();
        } else if component != Component::CurDir {
            out.push(component);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{normalized, relative};

    #[test]
    fn paths_within_a_run_are_relative() {
        let from = Path::new("runs/x/reward/checkpoints/step-000010");
        assert_eq!(relative(from, Path::new("runs/x/sft/model")), Path::new("../../../sft/model"));
        let model = Path::new("runs/x/reward/model");
        assert_eq!(relative(model, Path::new("runs/x/sft/model")), Path::new("../../sft/model"));
        assert!(relative(model, Path::new("/elsewhere/deep/below")).is_absolute());
        let target = normalized(&model.join("../../sft/model"));
        assert_eq!(target, Path::new("runs/x/sft/model"));
    }
}
