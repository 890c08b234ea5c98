//! Which directory a MODEL is: a run's stage, a checkpoint, a Hugging Face directory or an adapter's. Opens no weights.

use std::path::{Path, PathBuf};

use crate::base::{holds_weights, is_adapter};
use crate::{Error, Result};

/// The name of a finished stage's Hugging Face directory.
pub const MODEL_DIR: &str = "model";
/// The name of a stage's folder of checkpoints.
pub const CHECKPOINTS_DIR: &str = "checkpoints";

/// The Hugging Face directory behind a path that names a run's stage (`runs/x/sft`), a checkpoint, or such a directory
/// itself. A stage that was cut has its newest checkpoint; a run with several stages has none of its own. A stage that
/// was trained with LoRA has its adapter's folder, whose base `base_of` gives.
pub fn locate_model(path: &Path) -> Result<PathBuf> {
    if is_model(path) {
        return Ok(path.to_path_buf());
    }
    if is_model(&path.join(MODEL_DIR)) {
        return Ok(path.join(MODEL_DIR));
    }
    if let Some(newest) = newest_checkpoint(&path.join(CHECKPOINTS_DIR)) {
        return Ok(newest);
    }
    if !path.exists() {
        return Err(Error::NoSuchModel { path: path.to_path_buf() });
    }
    let stages = stages_of(path);
    if stages.is_empty() {
        return Err(Error::NotAModel { path: path.to_path_buf() });
    }
    Err(Error::RunNotStage { path: path.to_path_buf(), stages })
}

fn is_model(dir: &Path) -> bool {
    holds_weights(dir) || is_adapter(dir)
}

/// The newest `step-N` folder that holds a model.
fn newest_checkpoint(checkpoints: &Path) -> Option<PathBuf> {
    folders(checkpoints)
        .into_iter()
        .filter_map(|(name, path)| {
            let step = name.strip_prefix("step-")?.parse::<u64>().ok()?;
            is_model(&path).then_some((step, path))
        })
        .max_by_key(|(step, _)| *step)
        .map(|(_, path)| path)
}

/// Names of the folders in a run that hold a model or checkpoints.
fn stages_of(run: &Path) -> Vec<String> {
    folders(run)
        .into_iter()
        .filter(|(_, path)| path.join(MODEL_DIR).is_dir() || path.join(CHECKPOINTS_DIR).is_dir())
        .map(|(name, _)| name)
        .collect()
}

/// The folders inside a folder, sorted by name; none where it cannot be read.
fn folders(dir: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<(String, PathBuf)> = entries
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .collect();
    found.sort();
    found
}
