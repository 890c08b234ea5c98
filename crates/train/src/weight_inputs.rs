//! Hashes of the weights that a stage reads besides its own checkpoints: recorded in each checkpoint, compared on resume.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arch::ADAPTER_CONFIG;
use fsio::{Sha256, verified_sha256};
use plan::{BASE_FILE, StagePlan, is_adapter, recorded_base, weights_hash};

use crate::checkpoint::WEIGHTS_OF;
use crate::weights::start_dir;
use crate::{Result, RunDir};

/// Weights of an adapter.
const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";
/// Files of tokenizers, with their templates and end tokens.
const TOKENIZER_FILES: [&str; 8] = [
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "generation_config.json",
];
/// Files besides weights on which a model depends; tokenizers are inputs of their own.
const DESCRIPTIONS: [&str; 2] = ["config.json", "generation_config.json"];

/// The weights that a stage reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WeightInputs {
    /// SHA-256 by name: `weights of KEY`, with the stage's key, and `weights of KEY: FILE` for each file.
    pub hashes: BTreeMap<String, String>,
    /// The directory of each name of `hashes`.
    pub dirs: BTreeMap<String, PathBuf>,
}

/// Hashes every model and adapter that a stage reads, by its key in the recipe. All bytes are read, and compared with the
/// MANIFEST beside them.
pub fn weight_inputs(stage: &StagePlan, run_dir: &RunDir) -> Result<WeightInputs> {
    let mut inputs = WeightInputs::default();
    for (key, start) in stage.starts() {
        let Some(dir) = start_dir(stage, start, run_dir)? else { continue };
        let name = format!("{WEIGHTS_OF}{}.{key}", stage.name);
        let (hash, mut files) = hashes_of(&dir)?;
        if stage.kind.judges().any(|judge| judge == key) {
            files.extend(tokenizer_hashes(&dir)?);
        }
        let files = files.into_iter().map(|(file, hash)| (format!("{name}: {file}"), hash));
        for (name, hash) in files.chain([(name.clone(), hash)]) {
            inputs.dirs.insert(name.clone(), dir.clone());
            inputs.hashes.insert(name, hash);
        }
    }
    Ok(inputs)
}

/// Hashes of the files of a model by name: weights, configuration, tokenizer and template, and of an adapter's base model.
///
/// Errors: a file cannot be read, or differs from the MANIFEST beside it.
pub fn model_hashes(dir: &Path) -> Result<BTreeMap<String, String>> {
    let (hash, mut files) = hashes_of(dir)?;
    files.extend(tokenizer_hashes(dir)?);
    files.insert("model".to_owned(), hash);
    Ok(files)
}

/// Hashes of the files that a judge's prompts depend on. Other models read the ids of the stage's own tokenizer.
fn tokenizer_hashes(dir: &Path) -> Result<BTreeMap<String, String>> {
    let base = own_base(dir)?;
    let of_adapter = dir.join("tokenizer.json").is_file();
    let dir = base.as_deref().filter(|_| !of_adapter).unwrap_or(dir);
    let mut hashes = BTreeMap::new();
    for name in TOKENIZER_FILES.iter().filter(|name| dir.join(name).is_file()) {
        hashes.insert((*name).to_owned(), verified_sha256(dir.join(name))?);
    }
    Ok(hashes)
}

/// The base model to which an adapter's record leads. `None` without a record, and where it leads to no model that may be read:
/// then the recipe or the command names the base, which is an input of its own, or the loading has ended with an error.
fn own_base(dir: &Path) -> Result<Option<PathBuf>> {
    if !is_adapter(dir) || !dir.join(BASE_FILE).is_file() {
        return Ok(None);
    }
    match recorded_base(dir) {
        Err(plan::Error::ForeignBase { .. } | plan::Error::BaseGone { .. }) => Ok(None),
        found => Ok(found?),
    }
}

/// Hash over weights and configuration of a model, or of an adapter with its base model; and the hash of each file.
fn hashes_of(dir: &Path) -> Result<(String, BTreeMap<String, String>)> {
    let mut hash = Sha256::new();
    let mut files = BTreeMap::new();
    let mut of_file = |name: &str| -> Result<String> {
        let hash = verified_sha256(dir.join(name))?;
        files.insert(name.to_owned(), hash.clone());
        Ok(hash)
    };
    if is_adapter(dir) {
        for name in [ADAPTER_CONFIG, ADAPTER_WEIGHTS] {
            hash.update(format!("{name} {}\n", of_file(name)?));
        }
        if let Some(base) = own_base(dir)? {
            hash.update(format!("base {}\n", weights_hash(&base)?));
        }
        return Ok((hash.finish_hex(), files));
    }
    hash.update(weights_hash(dir)?);
    if dir.is_dir() {
        for name in plan::weight_files(dir) {
            of_file(&name)?;
        }
    }
    for name in DESCRIPTIONS.iter().filter(|name| dir.join(name).is_file()) {
        let of_file = of_file(name)?;
        if *name == "config.json" {
            hash.update(of_file);
        }
    }
    Ok((hash.finish_hex(), files))
}
