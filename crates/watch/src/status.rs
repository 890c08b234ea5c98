//! `status.json` of a run's directory: what a running process knows and the logs do not have, written about once a second.
//!
//! Nothing that trains reads it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::message::Message;

/// The file in the run's directory.
pub const STATUS_FILE: &str = "status.json";
const MAX_BYTES: u64 = 1 << 20;

/// State of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// Nothing is known.
    #[default]
    Unknown,
    /// A process trains.
    Training,
    /// A signal was received; the process finishes its step and saves.
    Stopping,
    /// Stopped by a signal, with a checkpoint saved.
    Stopped,
    /// All stages are finished.
    Finished,
    /// The process ended before the last stage was finished.
    Failed,
}

impl RunState {
    /// Whether a process works on the run.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Training | Self::Stopping)
    }
}

/// A stage of the run and its number of updates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StageSteps {
    /// Name of the stage.
    pub name: String,
    /// Total number of updates.
    pub max_steps: u64,
    /// Whether the stage is finished.
    pub finished: bool,
}

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// State of the run.
    pub state: RunState,
    /// Time of writing, in seconds since 1970.
    pub updated: f64,
    /// The stages of the run, in order.
    pub stages: Vec<StageSteps>,
    /// The current stage.
    pub stage: String,
    /// Number of its updates made.
    pub step: u64,
    /// Number of its parameters.
    pub n_parameters: u64,
    /// Number of its trained parameters.
    pub n_trained: u64,
    /// Metrics of its latest update.
    pub row: Value,
    /// Seconds since the process started or resumed the stage.
    pub elapsed: f64,
    /// Estimated seconds until the stage ends.
    pub left: Option<f64>,
    /// Memory of the process, in bytes.
    pub memory_bytes: Option<u64>,
    /// The latest notes and warnings.
    pub messages: Vec<Message>,
}

impl Status {
    /// Writes the file. It is replaced whole, and not synced: it is of no use after a power cut.
    pub fn write(&self, run_dir: &Path) -> fsio::Result<()> {
        // Numbers and strings under string keys always serialize.
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        fsio::replace_unsynced(run_dir.join(STATUS_FILE), text + "\n")
    }

    /// Reads the file; `None` if it is missing or not one of these.
    pub fn read(run_dir: &Path) -> Option<Self> {
        let text = fsio::read_text_capped(run_dir.join(STATUS_FILE), MAX_BYTES).ok()?;
        serde_json::from_str(&text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::{RunState, STATUS_FILE, StageSteps, Status};

    #[test]
    fn the_file_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Status::read(dir.path()), None);
        let stage = StageSteps { name: "sft".into(), max_steps: 60, finished: false };
        let row = serde_json::json!({"step": 3, "loss": 0.1});
        let status = Status {
            state: RunState::Stopping,
            updated: 1.5e9,
            stages: vec![stage],
            step: 3,
            row,
            ..Status::default()
        };
        status.write(dir.path()).unwrap();
        assert_eq!(Status::read(dir.path()), Some(status));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        // Another version's file, and a file of something else.
        fsio::write_atomic(dir.path().join(STATUS_FILE), r#"{"state":"training","x":1}"#).unwrap();
        assert_eq!(Status::read(dir.path()).unwrap().state, RunState::Training);
        fsio::write_atomic(dir.path().join(STATUS_FILE), r#"{"state":"sleeping"}"#).unwrap();
        assert_eq!(Status::read(dir.path()), None);
    }
}
