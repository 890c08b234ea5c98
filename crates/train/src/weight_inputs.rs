//! Hashes of the weights that a stage reads besides its own checkpoints: recorded in each checkpoint, compared on resume.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arch::ADAPTER_CONFIG;
use fsio::Sha256;
use plan::{BASE_FILE, StagePlan, is_adapter, recorded_base, weights_hash};

use crate::checkpoint::WEIGHTS_OF;
use crate::weights::start_dir;
use crate::{Result, RunDir};

/// Weights of an adapter.
const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";
/// Configuration of a model.
const CONFIG: &str = "config.json";

/// Hash of every model and adapter that a stage reads, by its key in the recipe. All bytes are read.
pub fn weight_inputs(stage: &StagePlan, run_dir: &RunDir) -> Result<BTreeMap<String, String>> {
    // Models of PPO share directories.
    let mut known: BTreeMap<PathBuf, String> = BTreeMap::new();
    let mut inputs = BTreeMap::new();
    for (key, start) in stage.starts() {
        let Some(dir) = start_dir(stage, start, run_dir)? else { continue };
        let hash = match known.get(&dir) {
            Some(hash) => hash.clone(),
            None => hash_of(&dir)?,
        };
        inputs.insert(format!("{WEIGHTS_OF}{}.{key}", stage.name), hash.clone());
        known.insert(dir, hash);
    }
    Ok(inputs)
}

/// Hash over weights and configuration of a model, or of an adapter with its base model.
fn hash_of(dir: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    if is_adapter(dir) {
        for name in [ADAPTER_CONFIG, ADAPTER_WEIGHTS] {
            hash.update(format!("{name} {}\n", fsio::sha256_file(dir.join(name))?));
        }
        // An adapter without a record is read on the base model that the recipe names.
        if dir.join(BASE_FILE).is_file()
            && let Some(base) = recorded_base(dir)?
        {
            hash.update(format!("base {}\n", weights_hash(&base)?));
        }
        return Ok(hash.finish_hex());
    }
    hash.update(weights_hash(dir)?);
    let config = dir.join(CONFIG);
    if config.is_file() {
        hash.update(fsio::sha256_file(config)?);
    }
    Ok(hash.finish_hex())
}
