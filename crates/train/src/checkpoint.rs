//! Checkpoints: Hugging Face directories with optimizer state and the stage's counters.
//!
//! `fsio::DirWriter` writes them atomically; on load the newest is verified first. Neither random state nor data loader
//! state is saved: both are functions of (seed, step).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use fsio::{DirWriter, limits, read_capped, verify_dir};
use serde::{Deserialize, Serialize};

use crate::environment::Environment;
use crate::metrics::{EvalRow, LogLengths};
use crate::progress::{Event, Progress};
use crate::{Error, Result};

/// The file with the counters.
pub const STATE_FILE: &str = "state.json";
/// The resolved recipe of the run.
pub const RECIPE_FILE: &str = "recipe.toml";
/// The format of checkpoints and of `finished.json`. Raise it whenever a stored name or its meaning changes; runs of
/// another format are refused. Format 2 renamed the recipe key `clip` to `max_grad_norm`.
pub const CHECKPOINT_FORMAT: u32 = 2;

/// Start of the names of inputs that are weights. The first checkpoints of format 2 have none of them.
pub(crate) const WEIGHTS_OF: &str = "weights of ";

/// The counters of a stage: with weights and optimizer state, all that resuming needs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainState {
    /// Number of updates made.
    pub step: u64,
    /// Number of tokens processed.
    pub tokens: u64,
    /// Seconds of training, without interruptions.
    #[serde(with = "fsio::any_number")]
    pub seconds: f64,
    /// The evaluation before the first update; `None` without one, as in checkpoints of older versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_eval: Option<EvalRow>,
    /// The best evaluation so far: the one with the lowest loss.
    pub best: Option<EvalRow>,
    /// The latest evaluation.
    pub last_eval: Option<EvalRow>,
    /// Number of evaluations since the best one.
    pub evals_without_gain: u64,
    /// Whether early stopping has ended the stage.
    pub stopped_early: bool,
    /// Lengths of the logs.
    pub logs: LogLengths,
    /// Counters of one algorithm, such as an adaptive KL coefficient.
    #[serde(with = "fsio::any_number::map")]
    pub extra: BTreeMap<String, f64>,
}

/// The part of MANIFEST that describes a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointInfo {
    /// Format of the checkpoint: [`CHECKPOINT_FORMAT`] when it was written.
    pub checkpoint_format: u32,
    /// Binary and processor that wrote it.
    pub environment: Environment,
    /// Name of the checkpoint before it.
    pub previous: Option<String>,
    /// Hashes of token caches, base model and tokenizer.
    pub inputs: BTreeMap<String, String>,
}

/// A verified checkpoint.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Its directory, which is a Hugging Face directory too.
    pub dir: PathBuf,
    /// The counters.
    pub state: TrainState,
    /// The description in MANIFEST.
    pub info: CheckpointInfo,
}

/// The name of a checkpoint's directory.
pub fn checkpoint_name(step: u64) -> String {
    format!("step-{step:06}")
}

/// The steps of the checkpoints in a directory, sorted; empty if the directory does not exist.
pub fn checkpoint_steps(checkpoints: &Path) -> Result<Vec<u64>> {
    let mut steps: Vec<u64> =
        names_in(checkpoints)?.iter().filter_map(|name| step_of(name)).collect();
    steps.sort_unstable();
    Ok(steps)
}

/// Writes a checkpoint: the caller's files, counters and recipe, then MANIFEST.
///
/// The logs must already be on disk up to the lengths in `state`.
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

/// The newest valid checkpoint; `None` if none was ever saved. Damaged ones, whose content differs from their hashes, are
/// reported and set aside.
///
/// Errors: checkpoints exist and all are damaged, so that a run never restarts silently from step 0; a checkpoint that cannot
/// be read or is of another format. After such an error every checkpoint is where it was.
pub fn load_newest(checkpoints: &Path, progress: &mut dyn Progress) -> Result<Option<Checkpoint>> {
    let names = names_in(checkpoints)?;
    let mut n_rejected = names.iter().filter(|name| name.contains(".rejected-")).count();
    let mut newest = "rejected before".to_owned();
    let mut steps = checkpoint_steps(checkpoints)?;
    steps.reverse();
    for (idx, step) in steps.iter().enumerate() {
        let name = checkpoint_name(*step);
        check_format(&checkpoints.join(&name))?;
        match open_checkpoint(&checkpoints.join(&name)) {
            Ok(checkpoint) => return Ok(Some(checkpoint)),
            Err(Rejection::Unknown(error)) => return Err(error),
            Err(Rejection::Damaged(reason)) => {
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

/// Why a checkpoint is not used.
enum Rejection {
    /// Its content is not what was written; the bare reason (`model.safetensors: …`).
    Damaged(String),
    /// It may be healthy: it could not be read, or another version wrote it.
    Unknown(Error),
}

impl From<fsio::Error> for Rejection {
    fn from(error: fsio::Error) -> Self {
        if let fsio::Error::Damaged { file, damage, .. } = &error
            && damage.is_other_content()
        {
            return Self::Damaged(format!("{file}: {damage}"));
        }
        Self::Unknown(error.into())
    }
}

/// Verifies and reads one checkpoint.
fn open_checkpoint(dir: &Path) -> std::result::Result<Checkpoint, Rejection> {
    let manifest = verify_dir(dir)?;
    // The hashes are right, so a file that does not parse was written like this.
    let unknown = |file: &str, reason: String| {
        Rejection::Unknown(Error::State { path: dir.join(file), reason })
    };
    let info: CheckpointInfo = serde_json::from_value(manifest.extra).map_err(|error| {
        unknown(fsio::MANIFEST, format!("made by another version of Temper: {error}"))
    })?;
    let text = read_capped(dir.join(STATE_FILE), limits::STATE_BYTES)?;
    let state: TrainState =
        serde_json::from_slice(&text).map_err(|e| unknown(STATE_FILE, e.to_string()))?;
    if dir.file_name().is_none_or(|name| name != checkpoint_name(state.step).as_str()) {
        return Err(unknown(STATE_FILE, format!("belongs to another step: `{}`", state.step)));
    }
    Ok(Checkpoint { dir: dir.to_owned(), state, info })
}

/// Refuses a checkpoint of another format. A MANIFEST that cannot be read is reported when the checkpoint is loaded.
pub(crate) fn check_format(dir: &Path) -> Result<()> {
    let Ok(manifest) = fsio::read_manifest(dir) else { return Ok(()) };
    let format = fsio::format_number(&manifest.extra, "checkpoint_format");
    match format.map(|format| u32::try_from(format).unwrap_or(u32::MAX)) {
        Some(found) if found != CHECKPOINT_FORMAT => {
            Err(Error::Format { path: dir.to_owned(), found, known: CHECKPOINT_FORMAT })
        }
        _ => Ok(()),
    }
}

/// Renames a damaged checkpoint, so that the run can save that step again.
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

/// The checkpoints to delete after the one of step `latest` was saved.
///
/// The newest `keep` (at least 2, up to `latest`) are retained, and so is the best. Checkpoints after `latest` are left
/// alone.
pub fn retain(all: &[u64], best: Option<u64>, latest: u64, keep: usize) -> Vec<u64> {
    let known: BTreeSet<u64> = all.iter().copied().filter(|step| *step <= latest).collect();
    let newest: BTreeSet<u64> = known.iter().rev().take(keep.max(2)).copied().collect();
    known
        .into_iter()
        .filter(|step| !newest.contains(step) && Some(*step) != best && *step != latest)
        .collect()
}

/// Removes a directory of this process. It is renamed first, so that a process killed half-way leaves no damaged one.
pub(crate) fn discard_dir(dir: &Path) -> Result<()> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let doomed = dir.with_file_name(format!("{name}.old.tmp-{}", std::process::id()));
    fsio::rename(dir, &doomed)?;
    Ok(fsio::remove_dir_all(&doomed)?)
}

/// Deletes a checkpoint.
pub(crate) fn delete_checkpoint(checkpoints: &Path, step: u64) -> Result<()> {
    discard_dir(&checkpoints.join(checkpoint_name(step)))
}

fn names_in(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::Listing { path: dir.to_owned(), source }),
    };
    // An entry that cannot be read may be the newest checkpoint.
    let mut names = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<std::io::Result<Vec<String>>>()
        .map_err(|source| Error::Listing { path: dir.to_owned(), source })?;
    names.sort();
    Ok(names)
}

/// Whether a name is that of a checkpoint.
pub(crate) fn is_checkpoint_name(name: &str) -> bool {
    step_of(name).is_some()
}

/// The step in a checkpoint's name, if the name is exactly one.
fn step_of(name: &str) -> Option<u64> {
    let step = name.strip_prefix("step-")?.parse().ok()?;
    (checkpoint_name(step) == name).then_some(step)
}

fn to_json(value: &impl Serialize) -> String {
    // Counters under string keys always serialize.
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}
