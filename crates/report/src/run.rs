//! The directory of a run as one value.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::json_file::json;
use crate::plan_file::{PLAN_FILE, PlanFile};
use crate::report_file::{Outcome, REPORT_FILE, ReportFile};
use crate::stage::{StageData, StageState};

/// Resolved recipe of a run.
const RECIPE_FILE: &str = "recipe.toml";
/// Command line of a run.
const LAUNCH_FILE: &str = "launch.json";
/// Lock of a run.
const LOCK_FILE: &str = "LOCK";
/// Size of a recipe, in bytes.
const RECIPE_BYTES: u64 = 1 << 20;

/// A run, as its directory describes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunData {
    /// The directory.
    pub path: PathBuf,
    /// Its name.
    pub name: String,
    /// State.
    pub state: RunState,
    /// Resolved recipe.
    pub recipe: Option<String>,
    /// Command line.
    pub launch: Option<Launch>,
    /// Plan; runs of older versions have none.
    pub plan: Option<PlanFile>,
    /// How the last session ended.
    pub report: Option<ReportFile>,
    /// Stages in the order of training, planned ones included.
    pub stages: Vec<StageData>,
    /// Problems of its files, as sentences.
    pub problems: Vec<String>,
}

/// The state of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RunState {
    /// No stage has begun.
    #[default]
    Empty,
    /// A process has it open.
    Running {
        /// Id of the process.
        pid: Option<u32>,
    },
    /// Stopped by a signal, with a checkpoint saved.
    Stopped,
    /// The process was killed, or the machine stopped.
    Interrupted,
    /// Ended by an error.
    Failed {
        /// Its message.
        error: String,
    },
    /// Every stage is finished.
    Finished,
}

impl RunState {
    /// The state as a word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Empty => "not started",
            Self::Running { .. } => "running",
            Self::Stopped => "stopped",
            Self::Interrupted => "interrupted",
            Self::Failed { .. } => "failed",
            Self::Finished => "finished",
        }
    }
}

/// Command line of a run, as `launch.json` has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Launch {
    /// The recipe's path.
    pub recipe: Option<String>,
    /// `--data-dir`.
    pub data_dir: Option<String>,
    /// `--set`.
    pub set: Vec<(String, String)>,
    /// `--limit`.
    pub limit: Option<u64>,
    /// `--stage`.
    pub stage: Option<String>,
    /// Day that chat templates write.
    pub date: Option<String>,
}

/// A directory that is no run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotARun {
    /// The directory.
    pub path: PathBuf,
}

impl fmt::Display for NotARun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not the directory of a run: `{}`", self.path.display())
    }
}

impl std::error::Error for NotARun {}

impl RunData {
    /// Reads the directory of a run.
    ///
    /// Errors: it is no directory, or has neither a recipe nor a stage.
    pub fn read(path: &Path) -> Result<Self, NotARun> {
        Self::read_held(path, fsio::Lock::holder(path.join(LOCK_FILE)))
    }

    /// As [`Self::read`], for the process that has the run open and has ended it.
    pub fn read_ended(path: &Path) -> Result<Self, NotARun> {
        Self::read_held(path, None)
    }

    fn read_held(path: &Path, holder: Option<fsio::LockHolder>) -> Result<Self, NotARun> {
        if !is_run(path) {
            return Err(NotARun { path: path.to_owned() });
        }
        let mut problems = Vec::new();
        let plan: Option<PlanFile> = json(&path.join(PLAN_FILE), &mut problems);
        let recipe = text(&path.join(RECIPE_FILE), &mut problems);
        let mut run = Self {
            path: path.to_owned(),
            name: name_of(path),
            launch: json(&path.join(LAUNCH_FILE), &mut problems),
            report: json(&path.join(REPORT_FILE), &mut problems),
            ..Self::default()
        };
        let names = stage_names(path, plan.as_ref(), recipe.as_deref());
        run.stages = names
            .iter()
            .map(|name| {
                let mut planned = plan.iter().flat_map(|plan| &plan.stages).rev();
                let planned = planned.find(|stage| stage.name == *name).cloned();
                let mut stage = StageData::read(path, name, planned);
                let mut outcomes = run.report.iter().flat_map(|report| &report.stages).rev();
                stage.outcome = outcomes.find(|outcome| outcome.name == *name).cloned();
                stage
            })
            .collect();
        let mut run = Self { recipe, plan, problems, ..run };
        run.state = run.state_of(holder);
        run.mark_current_stage();
        Ok(run)
    }

    fn state_of(&self, holder: Option<fsio::LockHolder>) -> RunState {
        if let Some(holder) = holder {
            return RunState::Running { pid: holder.pid };
        }
        let all_finished = self.stages.iter().all(|stage| stage.state == StageState::Finished);
        if all_finished && !self.stages.is_empty() {
            return RunState::Finished;
        }
        let report = self.report.as_ref();
        let begun = self.stages.iter().any(|stage| stage.state != StageState::Waiting);
        match report.map(|report| report.outcome) {
            Some(Outcome::Failed) => {
                let error = report.and_then(|report| report.error.clone()).unwrap_or_default();
                RunState::Failed { error }
            }
            Some(Outcome::Stopped) => RunState::Stopped,
            Some(Outcome::Started | Outcome::Finished) => RunState::Interrupted,
            None if begun => RunState::Interrupted,
            None => RunState::Empty,
        }
    }

    /// The first unfinished stage is the one that runs, or that failed.
    fn mark_current_stage(&mut self) {
        let state = match self.state {
            RunState::Running { .. } => StageState::Running,
            RunState::Failed { .. } => StageState::Failed,
            RunState::Empty | RunState::Stopped | RunState::Interrupted | RunState::Finished => {
                return;
            }
        };
        let current = self.stages.iter_mut().find(|stage| stage.state != StageState::Finished);
        if let Some(stage) = current {
            stage.state = state;
        }
    }

    /// Seconds of training of all finished stages.
    pub fn seconds(&self) -> f64 {
        let finished = self.stages.iter().filter_map(|stage| stage.finished.as_ref());
        finished.map(|finished| finished.seconds).filter(|seconds| seconds.is_finite()).sum()
    }

    /// Everything that is wrong with the files, with the stage where it was found.
    pub fn all_problems(&self) -> Vec<String> {
        let of_stages = self.stages.iter().flat_map(|stage| {
            stage.problems.iter().map(|problem| format!("{}: {problem}", stage.name))
        });
        self.problems.iter().cloned().chain(of_stages).collect()
    }
}

/// Whether a directory looks like that of a run.
pub fn is_run(path: &Path) -> bool {
    let files = [RECIPE_FILE, LAUNCH_FILE, PLAN_FILE];
    let has_stage = || subdirectories(path).iter().any(|name| is_stage(&path.join(name)));
    path.is_dir() && (files.iter().any(|file| path.join(file).is_file()) || has_stage())
}

/// The runs in a directory by name, hidden directories aside.
pub fn runs_in(dir: &Path) -> Vec<PathBuf> {
    let mut runs: Vec<PathBuf> =
        subdirectories(dir).iter().map(|name| dir.join(name)).filter(|run| is_run(run)).collect();
    runs.sort();
    runs
}

/// Names of the stages in the order of training: those of the plan, then other directories that look like a stage, in the order
/// of the recipe's sections.
fn stage_names(path: &Path, plan: Option<&PlanFile>, recipe: Option<&str>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let planned = plan.iter().flat_map(|plan| &plan.stages).map(|stage| stage.name.clone());
    // A name is a directory of the run, and nothing else.
    for name in planned.filter(|name| fsio::basename_only(name).is_ok()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let sections: Vec<&str> = recipe
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.trim().strip_prefix('[')?.split([']', '.']).next())
        .collect();
    let place = |name: &str| sections.iter().position(|section| *section == name);
    let mut others: Vec<String> = subdirectories(path)
        .into_iter()
        .filter(|name| !names.contains(name) && is_stage(&path.join(name)))
        .collect();
    others.sort_by_key(|name| (place(name).unwrap_or(usize::MAX), name.clone()));
    names.extend(others);
    // A plan of one stage is read beside the directories of earlier ones.
    names.sort_by_key(|name| place(name).unwrap_or(usize::MAX));
    names
}

fn is_stage(dir: &Path) -> bool {
    let marks = ["checkpoints", "model", "metrics.jsonl", "finished.json"];
    marks.iter().any(|mark| dir.join(mark).exists())
}

fn subdirectories(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names
}

fn name_of(path: &Path) -> String {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    // `.` and `..` have no name of their own.
    name(path).or_else(|| name(&std::path::absolute(path).ok()?)).unwrap_or_default()
}

fn text(path: &Path, problems: &mut Vec<String>) -> Option<String> {
    match fsio::read_capped(path, RECIPE_BYTES) {
        Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.is_not_found() => None,
        Err(error) => {
            problems.push(error.to_string());
            None
        }
    }
}

/// A number in the result of a stage, by its path such as `/before/score`.
pub(crate) fn number(result: &Value, pointer: &str) -> Option<f64> {
    result.pointer(pointer).and_then(Value::as_f64)
}
