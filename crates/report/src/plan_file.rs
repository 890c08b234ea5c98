//! `plan.json` of a run: what the run was expected to do, written before the first step.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::json_file::FILE_BYTES;

/// Name of the file.
pub const PLAN_FILE: &str = "plan.json";

/// The plan of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlanFile {
    /// Format of this file: 1.
    pub format: u32,
    /// Name of the run.
    pub name: String,
    /// Version of Temper.
    pub temper: String,
    /// Version of burn.
    pub burn: String,
    /// Seed of every random choice.
    pub seed: u64,
    /// Device, as in the recipe.
    pub device: String,
    /// Type of the inputs of matrix products.
    pub precision: String,
    /// Number of replicas that share a step.
    pub replicas: usize,
    /// Number of threads.
    pub threads: usize,
    /// When the run was first started, in seconds since 1970.
    pub started: u64,
    /// Machine.
    pub machine: Machine,
    /// Stages in the order of training.
    pub stages: Vec<PlannedStage>,
}

/// The machine of a run. Its name is not recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// Operating system and architecture, as in `linux x86_64`.
    pub system: String,
    /// Model of the processor.
    pub processor: String,
    /// Number of processors that the process may use.
    pub n_processors: usize,
    /// Instruction sets that decide which kernels run.
    pub cpu_features: Vec<String>,
    /// Memory in bytes.
    pub memory_bytes: u64,
}

/// The plan of a stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlannedStage {
    /// Name: its section in the recipe and its directory in the run.
    pub name: String,
    /// First weights, as in `new weights` or `[sft]`.
    pub start: String,
    /// Number of updates.
    pub steps: u64,
    /// Size of a step, as in `32 pairs`.
    pub per_step: String,
    /// Passes over the data.
    #[serde(with = "fsio::any_number")]
    pub epochs: f64,
    /// Tokens of the stage.
    pub tokens: u64,
    /// Targets of the stage.
    pub targets: u64,
    /// Parameters of the model.
    pub parameters: u64,
    /// Parameters that are trained.
    pub trained: u64,
    /// Floating-point operations, without evaluation.
    #[serde(with = "fsio::any_number")]
    pub flops: f64,
    /// Duration in seconds without evaluation, if `temper plan` estimated it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Estimated peak memory of the process.
    pub memory_bytes: u64,
    /// Estimated size of a checkpoint.
    pub checkpoint_bytes: u64,
    /// Estimated size of the finished model.
    pub model_bytes: u64,
    /// Data sources.
    pub sources: Vec<PlannedSource>,
    /// Sizes of the data set by name; lists and nested objects are read by nobody.
    pub counts: BTreeMap<String, Value>,
    /// Sentences of `temper plan` about the stage.
    pub notes: Vec<String>,
    /// Hash of every input that is known before training, by name.
    pub inputs: BTreeMap<String, String>,
    /// Directories of models that the stage reads.
    pub models: Vec<String>,
}

/// A data source of a stage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlannedSource {
    /// Path as written in the recipe.
    pub path: String,
    /// Number of files.
    pub files: usize,
    /// Layout of the rows.
    pub layout: String,
    /// Columns that are read.
    pub read: Vec<String>,
    /// Columns that are not read.
    pub unread: Vec<String>,
}

impl PlannedStage {
    /// One of the sizes of the data set; 0 if it is not recorded.
    pub fn count(&self, name: &str) -> u64 {
        self.counts.get(name).and_then(Value::as_u64).unwrap_or(0)
    }
}

impl PlanFile {
    /// The file of a run's directory; `None` if there is none, or if it is damaged.
    pub fn read(run_dir: &Path) -> Option<Self> {
        let text = fsio::read_text_capped(run_dir.join(PLAN_FILE), FILE_BYTES).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// The text of the file.
    pub fn text(&self) -> String {
        // Numbers and strings under string keys always serialize.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}
