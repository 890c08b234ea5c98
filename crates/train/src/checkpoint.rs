//! A checkpoint: a Hugging Face folder with the optimizer and the run's counters beside it.
//!
//! Written as a whole by `fsio::DirWriter`, newest verified first on load. It deliberately holds no
//! random state and no loader state: both are functions of (seed, step).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use fsio::{DirWriter, limits, read_capped, verify_dir};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::metrics::{EvalRow, LogLengths};
use crate::progress::{Event, Progress};
use crate::{Error, Result};

/// The file with the counters.
pub const STATE_FILE: &str = "state.json";
/// The recipe of the run, as it was resolved.
pub const RECIPE_FILE: &str = "recipe.toml";
/// The layout of a checkpoint; older ones stay readable.
pub const CHECKPOINT_FORMAT: u32 = 1;

/// The counters of a stage: all that a resumed run needs besides weights and moments.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainState {
    /// Updates made.
    pub step: u64,
    /// Tokens that went through the model.
    pub tokens: u64,
    /// Seconds of training, interruptions left out.
    pub seconds: f64,
    /// The best measurement so far.
    pub best: Option<Best>,
    /// The latest measurement.
    pub last_eval: Option<EvalRow>,
    /// Measurements since the best one.
    pub evals_without_gain: u64,
    /// Whether early stopping has ended the stage.
    pub stopped_early: bool,
    /// Lengths of the logs.
    pub logs: LogLengths,
    /// A stage's own counters (a KL coefficient).
    pub extra: BTreeMap<String, f64>,
}

/// The best measurement of a stage; smaller is better.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Updates made before it.
    pub step: u64,
    /// The loss.
    pub metric: f64,
}

/// What MANIFEST says of a checkpoint besides its files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointInfo {
    /// Layout of a checkpoint.
    pub checkpoint_format: u32,
    /// Binary and processor.
    pub machine: Machine,
    /// The checkpoint before it, by name.
    pub previous: Option<String>,
    /// Hashes of recipe, token caches, base model, tokenizer.
    pub inputs: BTreeMap<String, String>,
}

/// A verified checkpoint.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Its folder, which is a Hugging Face folder too.
    pub dir: PathBuf,
    /// The counters.
    pub state: TrainState,
    /// What MANIFEST says.
    pub info: CheckpointInfo,
}

/// The name of a checkpoint's folder.
pub fn checkpoint_name(step: u64) -> String {
    format!("step-{step:06}")
}

/// The steps of the checkpoints in a folder, sorted; none if the folder isn't there.
pub fn checkpoint_steps(checkpoints: &Path) -> Result<Vec<u64>> {
    let mut steps: Vec<u64> =
        names_in(checkpoints)?.iter().filter_map(|name| step_of(name)).collect();
    steps.sort_unstable();
    Ok(steps)
}

/// Writes a checkpoint: the caller's files, then counters and recipe, then MANIFEST.
///
/// The logs must be on disk up to the lengths in `state` before.
pub fn save_checkpoint(
    checkpoints: &Path,
    state: &TrainState,
    info: &CheckpointInfo,
    recipe_toml: &str,
    write: impl FnOnce(&mut DirWriter) -> Result<()>,
) -> Result<PathBuf> {
    let dir = checkpoints.join(checkpoint_name(state.step));
    let mut writer = DirWriter::begin(&dir)?;
    write(&mut writer)?;
    writer.write(RECIPE_FILE, recipe_toml)?;
    writer.write(STATE_FILE, to_json(state))?;
    writer.commit(serde_json::to_value(info).unwrap_or_default())?;
    Ok(dir)
}

/// The newest checkpoint that is whole. Damaged ones are reported and set aside.
///
/// Nothing was ever saved: `None`. Something was and none of it is usable: an error, never a silent
/// start from step 0.
pub fn load_newest(checkpoints: &Path, progress: &mut dyn Progress) -> Result<Option<Checkpoint>> {
    let names = names_in(checkpoints)?;
    let mut n_rejected = names.iter().filter(|name| name.contains(".rejected-")).count();
    let mut newest = "rejected before".to_owned();
    let mut steps = checkpoint_steps(checkpoints)?;
    steps.reverse();
    for (idx, step) in steps.iter().enumerate() {
        let name = checkpoint_name(*step);
        match open_checkpoint(&checkpoints.join(&name)) {
            Ok(checkpoint) => return Ok(Some(checkpoint)),
            Err(reason) => {
                let moved_to = set_aside(checkpoints, &name)?;
                let message = format!("checkpoint {name} rejected: {reason}");
                progress.event(&Event::CheckpointRejected { message, moved_to });
                n_rejected += 1;
                if idx == 0 {
                    newest = reason;
                }
            }
        }
    }
    if n_rejected == 0 {
        return Ok(None);
    }
    Err(Error::NoUsableCheckpoint { path: checkpoints.to_owned(), n_rejected, newest })
}

/// Verifies and reads one checkpoint; the error is the reason alone (`model.safetensors: …`).
fn open_checkpoint(dir: &Path) -> std::result::Result<Checkpoint, String> {
    let manifest = verify_dir(dir).map_err(|error| match error {
        fsio::Error::Damaged { file, damage, .. } => format!("{file}: {damage}"),
        other => other.to_string(),
    })?;
    let info: CheckpointInfo =
        serde_json::from_value(manifest.extra).map_err(|e| format!("{}: {e}", fsio::MANIFEST))?;
    if info.checkpoint_format > CHECKPOINT_FORMAT {
        let format = info.checkpoint_format;
        return Err(format!("{}: written by a newer version: format `{format}`", fsio::MANIFEST));
    }
    let text = read_capped(dir.join(STATE_FILE), limits::STATE_BYTES).map_err(|e| e.to_string())?;
    let state: TrainState =
        serde_json::from_slice(&text).map_err(|e| format!("{STATE_FILE}: {e}"))?;
    if dir.file_name().is_none_or(|name| name != checkpoint_name(state.step).as_str()) {
        return Err(format!("{STATE_FILE}: is of another step: `{}`", state.step));
    }
    Ok(Checkpoint { dir: dir.to_owned(), state, info })
}

/// Renames a damaged checkpoint, so that the run may reach its step again.
fn set_aside(checkpoints: &Path, name: &str) -> Result<PathBuf> {
    let mut k = 1;
    loop {
        let moved_to = checkpoints.join(format!("{name}.rejected-{k}"));
        if fs::symlink_metadata(&moved_to).is_err() {
            fsio::rename(checkpoints.join(name), &moved_to)?;
            return Ok(moved_to);
        }
        k += 1;
    }
}

/// Which of a stage's checkpoints to delete after one was saved.
///
/// The newest `keep` stay (at least 2, counting back from `latest`), and so does the best. What
/// lies beyond `latest` is not ours to judge and stays as well.
pub fn retain(all: &[u64], best: Option<u64>, latest: u64, keep: usize) -> Vec<u64> {
    let known: BTreeSet<u64> = all.iter().copied().filter(|step| *step <= latest).collect();
    let newest: BTreeSet<u64> = known.iter().rev().take(keep.max(2)).copied().collect();
    known
        .into_iter()
        .filter(|step| !newest.contains(step) && Some(*step) != best && *step != latest)
        .collect()
}

/// Deletes a checkpoint. It loses its name first: killed half-way, it is no checkpoint any more.
pub(crate) fn delete_checkpoint(checkpoints: &Path, step: u64) -> Result<()> {
    let name = checkpoint_name(step);
    let doomed = checkpoints.join(format!("{name}.old.tmp-{}", std::process::id()));
    fsio::rename(checkpoints.join(name), &doomed)?;
    Ok(fsio::remove_dir_all(&doomed)?)
}

fn names_in(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::State { path: dir.to_owned(), reason: e.to_string() }),
    };
    let mut names: Vec<String> =
        entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

/// The step in a checkpoint's name, if the name is exactly one.
fn step_of(name: &str) -> Option<u64> {
    let step = name.strip_prefix("step-")?.parse().ok()?;
    (checkpoint_name(step) == name).then_some(step)
}

fn to_json(value: &impl Serialize) -> String {
    // Counters under string keys always serialise.
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}
