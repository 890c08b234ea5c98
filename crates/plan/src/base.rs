//! Which weights an adapter stands beside: `base.json`, a file of ours in every adapter's folder that Temper writes.
//!
//! PEFT's own settings name a base, too; that name is never opened, for it comes from elsewhere. Here the place is
//! checked by the hash of its weights.

use std::path::{Component, Path, PathBuf};

use arch::ADAPTER_CONFIG;
use fsio::Sha256;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The file beside an adapter's settings.
pub const BASE_FILE: &str = "base.json";

/// The weights that an adapter was trained beside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseFile {
    /// The folder of the base, relative to the adapter's where both belong to one run.
    pub base: PathBuf,
    /// [`weights_hash`] of that folder.
    pub weights_sha256: String,
}

/// Whether a path is a model with all its weights: a Hugging Face directory or a GGUF file.
pub(crate) fn holds_weights(path: &Path) -> bool {
    path.join("config.json").is_file() || gguf::is_gguf(path)
}

/// Whether a folder holds an adapter in place of whole weights.
pub fn is_adapter(dir: &Path) -> bool {
    dir.join(ADAPTER_CONFIG).is_file()
}

/// The folder of the whole weights that an adapter's folder belongs to, checked by their hash; none where the folder
/// holds whole weights itself.
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
    let base = plain(&dir.join(&file.base));
    if !holds_weights(&base) {
        return Err(Error::BaseGone { dir: dir.to_owned(), base });
    }
    Ok(Some((base, file)))
}

/// Refuses other weights than those that an adapter's folder records, wherever they lie; without a record there is nothing
/// to hold against them.
pub fn check_base(dir: &Path, base: &Path) -> Result<()> {
    match BaseFile::read(dir)? {
        Some(file) if weights_hash(base)? != file.weights_sha256 => {
            Err(Error::BaseChanged { dir: dir.to_owned(), base: base.to_owned() })
        }
        _ => Ok(()),
    }
}

impl BaseFile {
    /// What an adapter's folder records, if it records anything.
    fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(BASE_FILE);
        if !path.is_file() {
            return Ok(None);
        }
        let text = fsio::read_text_capped(&path, fsio::limits::CONFIG_BYTES)?;
        let file = serde_json::from_str(&text);
        file.map(Some).map_err(|error| Error::BaseFile { path, reason: error.to_string() })
    }

    /// What an adapter's folder at `dir` records of the base in folder `base`, whose [`weights_hash`] is given.
    pub fn new(dir: &Path, base: &Path, weights_sha256: &str) -> Self {
        Self { base: relative(dir, base), weights_sha256: weights_sha256.to_owned() }
    }
}

/// A hash over the names and contents of all weight files of a folder, or over the content of a GGUF file.
pub fn weights_hash(dir: &Path) -> Result<String> {
    if gguf::is_gguf(dir) {
        return Ok(fsio::sha256_file(dir)?);
    }
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("model") && name.ends_with(".safetensors"))
        .collect();
    names.sort();
    if names.is_empty() {
        return Err(Error::NoWeights { path: dir.to_owned() });
    }
    let mut hash = Sha256::new();
    for name in names {
        hash.update(format!("{name} {}\n", fsio::sha256_file(dir.join(&name))?));
    }
    Ok(hash.finish_hex())
}

/// The way from one folder to another where they share their run, else the other's whole path.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let whole =
        |path: &Path| std::path::absolute(path).map_or_else(|_| path.to_owned(), |p| plain(&p));
    let (from, to) = (whole(from), whole(to));
    let n_shared = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let n_up = from.components().count() - n_shared;
    // At most as deep as a checkpoint lies in its run.
    if n_up > 3 {
        return to;
    }
    let down = to.components().skip(n_shared);
    std::iter::repeat_n(Component::ParentDir, n_up).chain(down).collect()
}

/// A path without `x/..`, so that messages show where it leads.
fn plain(path: &Path) -> PathBuf {
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

    use super::{plain, relative};

    #[test]
    fn paths_within_a_run_are_relative() {
        let from = Path::new("runs/x/reward/checkpoints/step-000010");
        assert_eq!(relative(from, Path::new("runs/x/sft/model")), Path::new("../../../sft/model"));
        let model = Path::new("runs/x/reward/model");
        assert_eq!(relative(model, Path::new("runs/x/sft/model")), Path::new("../../sft/model"));
        assert!(relative(model, Path::new("/elsewhere/deep/below")).is_absolute());
        let led = plain(&model.join("../../sft/model"));
        assert_eq!(led, Path::new("runs/x/sft/model"));
    }
}
