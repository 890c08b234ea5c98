//! `trackers`: programs that the metrics are written for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A program that shows metrics of runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Tracker {
    /// TensorBoard: event files in the directory of each stage.
    Tensorboard,
    /// Weights & Biases: an offline run for each stage in `wandb/` of the run, which `wandb sync` uploads.
    Wandb,
    /// MLflow: a run for each stage in a file store, `mlruns/` of the run.
    Mlflow,
}
