//! The run directory: its layout, its lock, and the status of each stage.
//!
//! ```text
//! runs/<name>/recipe.toml LOCK
//!   <stage>/checkpoints/step-000597/  model/  metrics.jsonl  samples.jsonl  events…  finished.json
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fsio::{Lock, limits, read_text_capped, write_atomic};
use recipe::Recipe;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::checkpoint::{
    CHECKPOINT_FORMAT, RECIPE_FILE, check_format, checkpoint_name, checkpoint_steps,
};
use crate::environment::Environment;
use crate::leftovers::{self, DRY_SAVE};
use crate::resume_rules::differences;
use crate::{Error, Result};

/// A run directory, locked by this process.
#[derive(Debug)]
pub struct RunDir {
    root: PathBuf,
    lock: Arc<Lock>,
}

/// Tells whether a run's directory is still the one that this process has locked.
#[derive(Clone, Debug)]
pub struct RunDirGuard {
    root: PathBuf,
    lock: Arc<Lock>,
}

impl RunDirGuard {
    /// Requires that the directory is the one that was locked. Call it before something is written by path.
    ///
    /// Errors: the directory was removed or moved; another run may have its name.
    pub fn check(&self) -> Result<()> {
        if self.lock.is_in_place() {
            return Ok(());
        }
        Err(Error::RunDirMoved { path: self.root.clone() })
    }
}

impl RunDir {
    /// Creates the directory if needed, takes its LOCK, and removes temporary files of killed processes.
    ///
    /// Errors: another process holds the LOCK; a stage of the run has another format, in which case nothing is changed.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref().to_owned();
        fsio::create_dir_all(&root)?;
        let lock = Lock::acquire(root.join("LOCK"))?;
        check_formats(&root)?;
        leftovers::remove_tmps(&root)?;
        Ok(Self { root, lock: Arc::new(lock) })
    }

    /// The path of the directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A check that the directory is still the locked one.
    pub fn guard(&self) -> RunDirGuard {
        RunDirGuard { root: self.root.clone(), lock: Arc::clone(&self.lock) }
    }

    /// Path of the run's resolved recipe.
    pub fn recipe_path(&self) -> PathBuf {
        self.root.join(RECIPE_FILE)
    }

    /// The directory of a stage; it is not created.
    pub fn stage(&self, stage: &str) -> StageDir {
        StageDir::in_run(&self.root, stage)
    }

    /// Stores a recipe as the run's own if every started stage can be resumed with it.
    ///
    /// Returns warnings about changes after which results may differ in the last bits. Errors: the recipe changes the
    /// trajectory of a started stage.
    pub fn adopt_recipe(&self, resolved_toml: &str, new: &Recipe) -> Result<Vec<String>> {
        let warnings = Self::check_recipe(&self.root, new)?;
        let same = read_text_capped(self.recipe_path(), limits::RECIPE_BYTES)
            .is_ok_and(|old| old == resolved_toml);
        if !same {
            write_atomic(self.recipe_path(), resolved_toml)?;
        }
        Ok(warnings)
    }

    /// As [`Self::adopt_recipe`], and changes nothing. The directory need not exist.
    pub fn check_recipe(root: &Path, new: &Recipe) -> Result<Vec<String>> {
        let new = to_value(new);
        let (mut refused, mut warnings) = (Vec::new(), Vec::new());
        for stage in stages_of(&new) {
            let dir = StageDir::in_run(root, &stage);
            let old = match recorded_recipe(&dir)? {
                Some(old) => old,
                // Its checkpoints were removed; the run's recipe was accepted for it before.
                None if dir.finished().exists() => match own_recipe(root) {
                    Some(old) => old,
                    None => continue,
                },
                None => continue,
            };
            let found = differences(&old, &new, &stage);
            refused.extend(found.refused);
            warnings.extend(
                found
                    .tolerated
                    .into_iter()
                    .map(|line| format!("results may differ in the last bits: {line}")),
            );
        }
        refused.dedup();
        warnings.dedup();
        if !refused.is_empty() {
            return Err(Error::RecipeChanged { path: root.to_owned(), differences: refused });
        }
        Ok(warnings)
    }
}

/// The recipe of a run, if it has one that can be read.
fn own_recipe(root: &Path) -> Option<Value> {
    let path = root.join(RECIPE_FILE);
    let bytes = fsio::read_capped(&path, limits::RECIPE_BYTES).ok()?;
    recipe::parse(&bytes, &path, &[]).ok().map(|old| to_value(&old.recipe))
}

/// The directory of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageDir {
    path: PathBuf,
}

/// The status of a stage.
#[derive(Clone, Debug, PartialEq)]
pub enum StageStatus {
    /// No checkpoint yet.
    NotStarted,
    /// Interrupted; its newest checkpoint is not verified here.
    Interrupted {
        /// Step of that checkpoint.
        step: u64,
    },
    /// `model/` is complete.
    Finished(Finished),
}

/// The content of `finished.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// Total number of updates.
    pub steps: u64,
    /// Number of tokens processed.
    pub tokens: u64,
    /// Seconds of training, without interruptions.
    #[serde(with = "fsio::any_number")]
    pub seconds: f64,
    /// The step whose weights are in `model/`: the last one, or the best one if `eval.export_best` or early stopping asks
    /// for it.
    #[serde(default)]
    pub exported_step: u64,
    /// Whether the loss of these weights is above that of the weights before training.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended_above_start: bool,
    /// Metrics of the exported weights.
    pub result: Value,
    /// [`CHECKPOINT_FORMAT`] when the file was written. Format 1 had no such field.
    #[serde(default = "first_format")]
    pub format: u32,
}

fn first_format() -> u32 {
    1
}

impl Finished {
    /// The step of the best checkpoint, if its weights were exported instead of those of the last step.
    pub fn best_step(&self) -> Option<u64> {
        (1..self.steps).contains(&self.exported_step).then_some(self.exported_step)
    }
}

impl StageDir {
    /// The directory of a stage in a run; it is neither created nor locked.
    pub fn in_run(root: &Path, stage: &str) -> Self {
        Self { path: root.join(stage) }
    }

    /// The path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// The exported model, a Hugging Face directory.
    pub fn model(&self) -> PathBuf {
        self.path.join("model")
    }

    /// The base model of the stage's adapter, where an earlier adapter had to be merged into it.
    pub fn merged_base(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The file that marks the stage as finished.
    pub fn finished(&self) -> PathBuf {
        self.path.join(plan::FINISHED_FILE)
    }

    /// The status of the stage.
    pub fn status(&self) -> Result<StageStatus> {
        match read_text_capped(self.finished(), limits::STATE_BYTES) {
            Ok(text) => {
                let finished = serde_json::from_str(&text)
                    .map_err(|e| Error::State { path: self.finished(), reason: e.to_string() })?;
                return Ok(StageStatus::Finished(finished));
            }
            Err(e) if e.is_not_found() => {}
            Err(e) => return Err(e.into()),
        }
        Ok(match checkpoint_steps(&self.checkpoints())?.pop() {
            Some(step) => StageStatus::Interrupted { step },
            None => StageStatus::NotStarted,
        })
    }

    /// Creates the directories and removes leftovers of a killed process: temporary directories, the dry save, the `model/`
    /// of an unfinished stage. A file in one of the last two that Temper did not write is an error, because it would be lost.
    pub(crate) fn prepare(&self) -> Result<()> {
        fsio::create_dir_all(self.checkpoints())?;
        leftovers::remove_tmps(&self.path)?;
        leftovers::remove_tmp_checkpoints(&self.checkpoints())?;
        if self.finished().exists() {
            return Ok(());
        }
        leftovers::remove_whole_dir(&self.dry_save())?;
        leftovers::remove_whole_dir(&self.model())
    }

    pub(crate) fn dry_save(&self) -> PathBuf {
        self.checkpoints().join(DRY_SAVE)
    }

    pub(crate) fn write_finished(&self, finished: &Finished) -> Result<()> {
        let text = serde_json::to_string_pretty(finished).unwrap_or_default();
        Ok(write_atomic(self.finished(), text + "\n")?)
    }
}

/// The recipe of a stage's newest checkpoint whose recipe has the recorded hash; `None` if the stage has no checkpoint.
///
/// The checkpoint itself may be damaged elsewhere, which is reported when it is loaded. Errors: no checkpoint has such a
/// recipe, so that a changed recipe is never accepted unseen; one cannot be read.
fn recorded_recipe(dir: &StageDir) -> Result<Option<Value>> {
    let mut steps = checkpoint_steps(&dir.checkpoints())?;
    let Some(newest) = steps.last().copied() else { return Ok(None) };
    while let Some(step) = steps.pop() {
        let checkpoint = dir.checkpoints().join(checkpoint_name(step));
        let bytes = match fsio::read_listed(&checkpoint, RECIPE_FILE, limits::RECIPE_BYTES) {
            Ok(bytes) => bytes,
            Err(fsio::Error::Damaged { damage, .. }) if damage.is_other_content() => continue,
            Err(error) => return Err(error.into()),
        };
        let old = recipe::parse(&bytes, &checkpoint.join(RECIPE_FILE), &[])?;
        return Ok(Some(to_value(&old.recipe)));
    }
    let path = dir.checkpoints().join(checkpoint_name(newest));
    Err(Error::NoRecordedRecipe { path })
}

fn to_value(recipe: &Recipe) -> Value {
    // A recipe came from TOML, so its keys are strings.
    serde_json::to_value(recipe).unwrap_or_default()
}

/// Refuses a run with a stage of another format; the format is in `finished.json` and in the newest checkpoint.
fn check_formats(root: &Path) -> Result<()> {
    let entries =
        fs::read_dir(root).map_err(|source| Error::Listing { path: root.to_owned(), source })?;
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    for stage in names.iter().filter_map(|name| name.to_str()) {
        let dir = StageDir::in_run(root, stage);
        if let Ok(StageStatus::Finished(Finished { format: found, .. })) = dir.status()
            && found != CHECKPOINT_FORMAT
        {
            return Err(Error::Format { path: dir.finished(), found, known: CHECKPOINT_FORMAT });
        }
        if let Some(step) = checkpoint_steps(&dir.checkpoints()).ok().and_then(|mut s| s.pop()) {
            check_format(&dir.checkpoints().join(checkpoint_name(step)))?;
        }
    }
    Ok(())
}

/// The stages of a recipe: its sections with an optimizer.
fn stages_of(recipe: &Value) -> Vec<String> {
    let sections = recipe.as_object().into_iter().flatten();
    sections
        .filter(|(_, section)| section.get("optimizer").is_some())
        .map(|(name, _)| name.clone())
        .collect()
}

/// The environment that the newest checkpoint of a run names, of the last of its stages that has one.
///
/// Errors: a directory of checkpoints cannot be read.
pub fn recorded_environment(stages: &[StageDir]) -> Result<Option<Environment>> {
    for stage in stages.iter().rev() {
        let checkpoints = stage.checkpoints();
        for step in checkpoint_steps(&checkpoints)?.into_iter().rev() {
            // A MANIFEST that cannot be read is reported when the checkpoint is loaded.
            let manifest = fsio::read_manifest(checkpoints.join(checkpoint_name(step))).ok();
            let recorded = manifest.and_then(|manifest| manifest.extra.get("environment").cloned());
            if let Some(found) = recorded.and_then(|found| serde_json::from_value(found).ok()) {
                return Ok(Some(found));
            }
        }
    }
    Ok(None)
}
