//! A stage of a run, from the files of its directory.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::calibration::{CALIBRATION_FILE, Calibration};
use crate::json_file::json;
use crate::metrics::Metrics;
use crate::plan_file::PlannedStage;
use crate::report_file::StageOutcome;
use crate::samples::Sample;
use crate::{jsonl, numbers};

/// A stage and what its directory contains.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StageData {
    /// Name: its section in the recipe and its directory in the run.
    pub name: String,
    /// State.
    pub state: StageState,
    /// Plan, if the run has one.
    pub plan: Option<PlannedStage>,
    /// Time and memory, if it is finished and the run recorded it.
    pub outcome: Option<StageOutcome>,
    /// Content of `finished.json`.
    pub finished: Option<FinishedFile>,
    /// Metrics.
    pub metrics: Metrics,
    /// Generated texts.
    pub samples: Vec<Sample>,
    /// Calibration of a reward model.
    pub calibration: Option<Calibration>,
    /// Steps of the checkpoints, sorted.
    pub checkpoints: Vec<u64>,
    /// Files of `model/` with their hashes, as its MANIFEST lists them.
    pub model_files: Vec<FileHash>,
    /// Hashes of the stage's inputs, as its newest checkpoint records them, or else its plan.
    pub inputs: BTreeMap<String, String>,
    /// Binary and processor that wrote the newest checkpoint.
    pub environment: Option<Environment>,
    /// Size of the directory.
    pub bytes: u64,
    /// Problems of its files, as sentences.
    pub problems: Vec<String>,
}

/// The state of a stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StageState {
    /// Planned, and not begun.
    #[default]
    Waiting,
    /// A process is training it.
    Running,
    /// Begun, and neither finished nor running.
    Interrupted,
    /// Ended by an error.
    Failed,
    /// `model/` is complete.
    Finished,
}

impl StageState {
    /// The state as a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
            Self::Finished => "finished",
        }
    }
}

/// Content of `finished.json`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct FinishedFile {
    /// Number of updates.
    pub steps: u64,
    /// Number of tokens.
    pub tokens: u64,
    /// Seconds of training.
    #[serde(deserialize_with = "fsio::any_number::deserialize")]
    pub seconds: f64,
    /// Step of the weights in `model/`.
    pub exported_step: u64,
    /// Metrics of these weights.
    pub result: Value,
}

impl FinishedFile {
    /// The step of the best checkpoint, if its weights were exported instead of those of the last step.
    pub fn best_step(&self) -> Option<u64> {
        (1..self.steps).contains(&self.exported_step).then_some(self.exported_step)
    }
}

/// A file with its length and hash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileHash {
    /// Name in `model/`.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 in lower-case hex.
    pub sha256: String,
}

/// Binary and processor, as a checkpoint records them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Environment {
    /// Version of Temper.
    pub temper: String,
    /// Version of burn.
    pub burn: String,
    /// Processor architecture.
    pub arch: String,
    /// Instruction sets.
    pub cpu_features: Vec<String>,
    /// Cache sizes.
    pub caches: Vec<String>,
    /// Number of threads.
    pub threads: usize,
}

impl StageData {
    /// Reads the directory of a stage. Its state is that of a run that no process has open.
    pub(crate) fn read(run_dir: &Path, name: &str, plan: Option<PlannedStage>) -> Self {
        let dir = run_dir.join(name);
        let mut problems = Vec::new();
        let finished: Option<FinishedFile> = json(&dir.join("finished.json"), &mut problems);
        let mut metrics = jsonl::read(&dir.join("metrics.jsonl"));
        problems.append(&mut metrics.problems);
        let mut samples = jsonl::read(&dir.join("samples.jsonl"));
        problems.append(&mut samples.problems);
        let checkpoints = checkpoint_steps(&dir.join("checkpoints"));
        let has_model = dir.join("model").is_dir();
        let mut stage = Self {
            name: name.to_owned(),
            metrics: Metrics::of(&metrics.rows),
            samples: samples.rows.iter().filter_map(Sample::of).collect(),
            calibration: json(&dir.join(CALIBRATION_FILE), &mut problems),
            bytes: size_of(&dir),
            ..Self::default()
        };
        stage.state = if finished.is_some() {
            StageState::Finished
        } else if checkpoints.is_empty() && stage.metrics.series.is_empty() {
            StageState::Waiting
        } else {
            StageState::Interrupted
        };
        if has_model && finished.is_some() {
            stage.model_files = model_files(&dir.join("model"), &mut problems);
        }
        if let Some(newest) = checkpoints.last() {
            let dir = dir.join("checkpoints").join(format!("step-{newest:06}"));
            stage.read_checkpoint(&dir, &mut problems);
        }
        if stage.inputs.is_empty() {
            stage.inputs = plan.as_ref().map(|plan| plan.inputs.clone()).unwrap_or_default();
        }
        Self { plan, finished, checkpoints, problems, ..stage }
    }

    /// Reads what a checkpoint records beside its weights.
    fn read_checkpoint(&mut self, dir: &Path, problems: &mut Vec<String>) {
        match fsio::read_manifest(dir) {
            Ok(manifest) => {
                let part = |key: &str| manifest.extra.get(key).cloned().unwrap_or_default();
                self.environment = serde_json::from_value(part("environment")).ok();
                self.inputs = serde_json::from_value(part("inputs")).unwrap_or_default();
            }
            // Old checkpoints are deleted while a run goes on.
            Err(error) if error.is_not_found() => {}
            Err(error) => problems.push(error.to_string()),
        }
    }

    /// Steps of the stage, done or planned; 0 if nothing says it.
    pub fn max_steps(&self) -> u64 {
        let planned = self.plan.as_ref().map_or(0, |plan| plan.steps);
        let finished = self.finished.as_ref().map(|finished| finished.steps);
        finished.unwrap_or(planned)
    }

    /// Number of updates made, as far as the logs and checkpoints say it.
    pub fn step(&self) -> u64 {
        let saved = self.checkpoints.last().copied().unwrap_or(0);
        match &self.finished {
            Some(finished) => finished.steps,
            None => self.metrics.last_step.max(saved),
        }
    }

    /// Estimated seconds until the last step, without evaluations, from the rate of the last logged steps.
    pub fn seconds_left(&self) -> Option<f64> {
        use crate::metrics::Phase::Training;
        let left = self.max_steps().checked_sub(self.step()).filter(|_| self.max_steps() > 0)?;
        let rates = &self.metrics.get(Training, "tokens_per_s")?.points;
        let recent = rates.iter().rev().take(5).map(|point| point.value);
        let recent: Vec<f64> = recent.filter(|rate| *rate > 0.0).collect();
        if recent.is_empty() || self.metrics.last_step == 0 {
            return None;
        }
        let rate = recent.iter().sum::<f64>() / recent.len() as f64;
        let per_step = self.metrics.tokens as f64 / self.metrics.last_step as f64;
        Some(left as f64 * per_step / rate)
    }

    /// `40/60`, or `40` if the number of steps is unknown.
    pub fn step_text(&self) -> String {
        match self.max_steps() {
            0 => numbers::thousands(self.step()),
            max => format!("{}/{}", numbers::thousands(self.step()), numbers::thousands(max)),
        }
    }
}

fn model_files(dir: &Path, problems: &mut Vec<String>) -> Vec<FileHash> {
    match fsio::read_manifest(dir) {
        Ok(manifest) => {
            let files = manifest.files.into_iter().map(|(name, entry)| FileHash {
                name,
                bytes: entry.bytes,
                sha256: entry.sha256,
            });
            files.collect()
        }
        Err(error) => {
            problems.push(error.to_string());
            Vec::new()
        }
    }
}

/// Steps of the checkpoints in a directory, sorted.
fn checkpoint_steps(dir: &Path) -> Vec<u64> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut steps: Vec<u64> = names
        .filter_map(|name| {
            let digits = name.strip_prefix("step-")?;
            digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))
        })
        .collect();
    steps.sort_unstable();
    steps
}

/// Size of all files below a directory, in bytes. Links are not followed.
pub fn size_of(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size_of(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.fold(0, u64::saturating_add)
}
