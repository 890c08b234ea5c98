//! A run's folder: where everything lies, one process at a time, what stage stands where.
//!
//! ```text
//! runs/<name>/recipe.toml LOCK
//!   <stage>/checkpoints/step-000597/  model/  metrics.jsonl  samples.jsonl  events…  finished.json
//! ```
//! It deliberately opens no weights: that is `checkpoint`'s and the stages'.

use std::fs;
use std::path::{Path, PathBuf};

use fsio::{Lock, limits, read_text_capped, write_atomic};
use recipe::Recipe;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::checkpoint::{RECIPE_FILE, checkpoint_name, checkpoint_steps};
use crate::resume_rules::differences;
use crate::{Error, Result};

/// A run's folder, held by this process.
#[derive(Debug)]
pub struct RunDir {
    root: PathBuf,
    _lock: Lock,
}

impl RunDir {
    /// Creates the folder if need be, takes its LOCK, and removes what killed processes left.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref().to_owned();
        fsio::create_dir_all(&root)?;
        let lock = Lock::acquire(root.join("LOCK"))?;
        fsio::remove_stale_tmps(&root)?;
        Ok(Self { root, _lock: lock })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The recipe as written, overrides applied.
    pub fn recipe_path(&self) -> PathBuf {
        self.root.join(RECIPE_FILE)
    }

    /// The folder of a stage; nothing is created.
    pub fn stage(&self, stage: &str) -> StageDir {
        StageDir::in_run(&self.root, stage)
    }

    /// Makes a recipe the run's own, if every stage that has begun may go on with it.
    ///
    /// Returns warnings: changes after which the last bits may differ.
    pub fn adopt_recipe(&self, resolved_toml: &str, new: &Recipe) -> Result<Vec<String>> {
        let new = to_value(new);
        let (mut refused, mut warnings) = (Vec::new(), Vec::new());
        for stage in stages_of(&new) {
            let dir = self.stage(&stage);
            let Some(step) = checkpoint_steps(&dir.checkpoints())?.pop() else { continue };
            let old_path = dir.checkpoints().join(checkpoint_name(step)).join(RECIPE_FILE);
            // A damaged checkpoint is found, and named, when it is loaded.
            let Ok(old) = recipe::load(&old_path, &[]) else { continue };
            let found = differences(&to_value(&old.recipe), &new, &stage);
            refused.extend(found.refused);
            warnings.extend(
                found
                    .tolerated
                    .into_iter()
                    .map(|line| format!("the last bits of the run may differ: {line}")),
            );
        }
        refused.dedup();
        warnings.dedup();
        if !refused.is_empty() {
            return Err(Error::RecipeChanged { path: self.root.clone(), differences: refused });
        }
        let same = read_text_capped(self.recipe_path(), limits::RECIPE_BYTES)
            .is_ok_and(|old| old == resolved_toml);
        if !same {
            write_atomic(self.recipe_path(), resolved_toml)?;
        }
        Ok(warnings)
    }
}

/// Where a stage's files lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageDir {
    path: PathBuf,
}

/// How far a stage has come.
#[derive(Clone, Debug, PartialEq)]
pub enum StageStatus {
    /// No checkpoint yet.
    NotStarted,
    /// Interrupted; the newest checkpoint (not verified) is of this step.
    Cut {
        /// Updates made.
        step: u64,
    },
    /// `model/` is complete.
    Finished(Finished),
}

/// What `finished.json` holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// Updates made in all.
    pub steps: u64,
    /// Tokens that went through the model.
    pub tokens: u64,
    /// Seconds of training, interruptions left out.
    pub seconds: f64,
    /// The figures that matter to the stage.
    pub result: Value,
}

impl StageDir {
    /// The folder of a stage in a run; nothing is created or locked.
    pub fn in_run(root: &Path, stage: &str) -> Self {
        Self { path: root.join(stage) }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// The finished stage as a Hugging Face folder.
    pub fn model(&self) -> PathBuf {
        self.path.join("model")
    }

    /// The whole weights that the stage's adapter stands beside, where they had to be merged from an earlier adapter.
    pub fn merged_base(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The file that says that the stage is done.
    pub fn finished(&self) -> PathBuf {
        self.path.join("finished.json")
    }

    /// How far the stage has come.
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
            Some(step) => StageStatus::Cut { step },
            None => StageStatus::NotStarted,
        })
    }

    /// Creates the folders and removes what a killed process left: temporary folders, the dry save,
    /// a `model/` whose stage never came to its end.
    pub(crate) fn prepare(&self) -> Result<()> {
        fsio::create_dir_all(self.checkpoints())?;
        fsio::remove_stale_tmps(&self.path)?;
        fsio::remove_stale_tmps(self.checkpoints())?;
        for leftover in [self.dry_save(), self.model()] {
            let finished = self.finished().exists();
            if !finished && fs::symlink_metadata(&leftover).is_ok() {
                fsio::remove_dir_all(&leftover)?;
            }
        }
        Ok(())
    }

    pub(crate) fn dry_save(&self) -> PathBuf {
        self.checkpoints().join("dry-save")
    }

    pub(crate) fn write_finished(&self, finished: &Finished) -> Result<()> {
        let text = serde_json::to_string_pretty(finished).unwrap_or_default();
        Ok(write_atomic(self.finished(), text + "\n")?)
    }
}

fn to_value(recipe: &Recipe) -> Value {
    // A recipe came from TOML, so its keys are strings.
    serde_json::to_value(recipe).unwrap_or_default()
}

/// The sections that are stages: those that say how they train.
fn stages_of(recipe: &Value) -> Vec<String> {
    let sections = recipe.as_object().into_iter().flatten();
    sections
        .filter(|(_, section)| section.get("optimizer").is_some())
        .map(|(name, _)| name.clone())
        .collect()
}
