//! Finds the directory of a MODEL: a run's stage, a checkpoint, a Hugging Face directory or an adapter. Opens no weights.

use std::path::{Path, PathBuf};

use hub_local::{Environment, Need, Reference};

use crate::base::{holds_weights, is_adapter};
use crate::paths::RUNS_DIR;
use crate::{Error, Result};

/// Name of a finished stage's Hugging Face directory.
pub const MODEL_DIR: &str = "model";
/// Name of a stage's directory of checkpoints.
pub const CHECKPOINTS_DIR: &str = "checkpoints";
/// Name of the file that a stage gets when it has finished.
pub const FINISHED_FILE: &str = "finished.json";
/// Name of a run's recipe.
const RECIPE_FILE: &str = "recipe.toml";

/// The Hugging Face directory of a run's stage (`runs/x/sft`), of a checkpoint, or the path itself if it is one.
///
/// An interrupted stage has that of its newest checkpoint. A stage trained with LoRA has its adapter's directory, whose
/// base model [`crate::base_of`] finds. A whole run is refused with the names of its stages. `hf:OWNER/MODEL` is the copy of
/// that repository on this machine. A directory with one GGUF file and no config.json is that file.
pub fn locate_model(path: &Path) -> Result<PathBuf> {
    let copy = local_copy(path, Need::Model)?;
    let path = copy.as_path();
    if is_model(path) {
        return Ok(path.to_path_buf());
    }
    if is_model(&path.join(MODEL_DIR)) {
        return Ok(path.join(MODEL_DIR));
    }
    if path.join(FINISHED_FILE).is_file() {
        // Its checkpoints may have other weights: the last ones in place of the best, or of an average.
        return Err(Error::LostModel { path: path.join(MODEL_DIR) });
    }
    if let Some(newest) = newest_checkpoint(&path.join(CHECKPOINTS_DIR)) {
        return Ok(newest);
    }
    if !path.exists() {
        return Err(Error::NoSuchModel { path: path.to_path_buf() });
    }
    let gguf = gguf_files(path);
    if let [file] = gguf.as_slice() {
        return Ok(file.clone());
    }
    if let Some(path) = pickled(path) {
        return Err(Error::Pickled { path });
    }
    let stages = stages_of(path);
    if stages.is_empty() && gguf.is_empty() {
        return Err(Error::NotAModel { path: path.to_path_buf() });
    }
    if stages.is_empty() {
        return Err(Error::SeveralGguf { path: path.to_path_buf(), files: gguf });
    }
    Err(Error::RunNotStage { path: path.to_path_buf(), stages })
}

/// Says that a stage's newest checkpoint stands for the model that the stage has not written yet; `None` if `dir`, where
/// [`locate_model`] found the model of `path`, is no such checkpoint. `named` is the path as the user wrote it.
pub fn unfinished_note(named: &str, path: &Path, dir: &Path) -> Option<String> {
    let is_checkpoint =
        dir.parent().and_then(Path::file_name).is_some_and(|n| n == CHECKPOINTS_DIR);
    (is_checkpoint && dir != path).then(|| {
        format!(
            "`{named}` has not finished its training: its newest checkpoint, {}, is used",
            dir.display()
        )
    })
}

/// As [`locate_model`], for a MODEL of the command line, which may be a run too: its directory, or its name in `runs`. That is
/// the last stage of its recipe that is finished.
pub fn locate_argument(path: &Path) -> Result<PathBuf> {
    let in_runs = Path::new(RUNS_DIR).join(path);
    let is_name = path.components().count() == 1 && !path.exists() && in_runs.is_dir();
    let path = if is_name { in_runs.as_path() } else { path };
    match locate_model(path) {
        Err(error @ Error::RunNotStage { .. }) => last_finished(path).ok_or(error),
        found => found,
    }
}

/// The model of a run's last finished stage.
fn last_finished(run: &Path) -> Option<PathBuf> {
    let recipe = recipe::load(&run.join(RECIPE_FILE), &[]).ok()?.recipe;
    let mut models =
        recipe.stages().into_iter().map(|stage| run.join(stage.name()).join(MODEL_DIR));
    models.rfind(|model| is_model(model))
}

/// The path itself, or for `hf:OWNER/NAME` the copy of that repository: in `models` or `datasets` of the working directory, or
/// in the cache of huggingface_hub. No network is used.
pub fn local_copy(path: &Path, need: Need) -> Result<PathBuf> {
    match path.to_str().and_then(Reference::parse) {
        Some(reference) => {
            let environment = Environment::of_process();
            Ok(hub_local::locate(&reference?, need, &[Path::new("")], &environment)?)
        }
        None => Ok(path.to_path_buf()),
    }
}

/// GGUF files of a directory, sorted.
fn gguf_files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| gguf::is_gguf(path)).collect();
    files.sort();
    files
}

/// A file in PyTorch's pickle format: the path itself, or one in its directory.
fn pickled(path: &Path) -> Option<PathBuf> {
    let is_pickled = |path: &PathBuf| {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        let endings = ["pt", "pth", "bin", "ckpt", "pkl"];
        path.is_file() && endings.iter().any(|known| ending.eq_ignore_ascii_case(known))
    };
    if !path.is_dir() {
        return Some(path.to_path_buf()).filter(is_pickled);
    }
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(path).ok()?.flatten().map(|entry| entry.path()).collect();
    found.sort();
    found.into_iter().find(is_pickled)
}

fn is_model(dir: &Path) -> bool {
    holds_weights(dir) || is_adapter(dir)
}

/// The newest `step-N` directory with a model.
fn newest_checkpoint(checkpoints: &Path) -> Option<PathBuf> {
    subdirectories(checkpoints)
        .into_iter()
        .filter_map(|(name, path)| {
            let step = name.strip_prefix("step-")?.parse::<u64>().ok()?;
            is_model(&path).then_some((step, path))
        })
        .max_by_key(|(step, _)| *step)
        .map(|(_, path)| path)
}

/// Names of the directories in a run that have a model or checkpoints.
fn stages_of(run: &Path) -> Vec<String> {
    subdirectories(run)
        .into_iter()
        .filter(|(_, path)| path.join(MODEL_DIR).is_dir() || path.join(CHECKPOINTS_DIR).is_dir())
        .map(|(name, _)| name)
        .collect()
}

/// Subdirectories by name, in order; none if the directory cannot be read.
fn subdirectories(dir: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<(String, PathBuf)> = entries
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .collect();
    found.sort();
    found
}
