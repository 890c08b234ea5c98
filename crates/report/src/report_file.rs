//! `report.json` of a run: how its last session ended, and what each stage took.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::json_file::FILE_BYTES;

/// Name of the file.
pub const REPORT_FILE: &str = "report.json";

/// The outcome of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReportFile {
    /// Format of this file: 1.
    pub format: u32,
    /// How the last session ended.
    pub outcome: Outcome,
    /// Message of the error that ended it.
    pub error: Option<String>,
    /// Number of sessions: the first one, and one for each time that the run was resumed.
    pub sessions: u64,
    /// When the last session was started, in seconds since 1970.
    pub started: u64,
    /// When the last session ended, in seconds since 1970; 0 while it goes on, and after it was killed.
    pub ended: u64,
    /// Finished stages.
    pub stages: Vec<StageOutcome>,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It did not end yet, or the process was killed.
    #[default]
    Started,
    /// Every stage is finished.
    Finished,
    /// Stopped by a signal, with a checkpoint saved.
    Stopped,
    /// Ended by an error.
    Failed,
}

/// Time and memory of a stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StageOutcome {
    /// Name of the stage.
    pub name: String,
    /// Peak memory of the process up to the end of the stage, in the session that ended it.
    pub peak_memory_bytes: Option<u64>,
    /// Size of the stage's directory.
    pub disk_bytes: u64,
}

impl ReportFile {
    /// The file of a run's directory; `None` if there is none, or if it is damaged.
    pub fn read(run_dir: &Path) -> Option<Self> {
        let text = fsio::read_text_capped(run_dir.join(REPORT_FILE), FILE_BYTES).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// The text of the file.
    pub fn text(&self) -> String {
        // Numbers and strings under string keys always serialize.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}
