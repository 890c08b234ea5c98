//! The logs metrics.jsonl and samples.jsonl and their rows.
//!
//! Each step appears once: on resume the logs are truncated to the lengths that the checkpoint records.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use fsio::AppendLog;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::tensorboard::EventWriter;

/// One update in metrics.jsonl.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepRow {
    /// 1-based number of the update.
    pub step: u64,
    /// Mean loss over the step's targets, before the update.
    pub loss: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Learning rate of the update.
    pub lr: f64,
    /// Number of tokens processed so far.
    pub tokens: u64,
    /// Tokens per second since the last row.
    pub tokens_per_s: f64,
    /// Metrics of the algorithm.
    #[serde(flatten)]
    pub extra: BTreeMap<String, f64>,
}

/// One evaluation on the validation data and on tasks, in metrics.jsonl.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EvalRow {
    /// Number of updates made before it.
    pub step: u64,
    /// Mean loss over all targets of the validation data; `None` without validation data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_loss: Option<f64>,
    /// Number of targets.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub n_targets: u64,
    /// Metrics of the algorithm, such as perplexity or accuracy, and of tasks, such as `arc_easy/acc`.
    #[serde(flatten)]
    pub extra: BTreeMap<String, f64>,
}

/// One generated text in samples.jsonl.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SampleRow {
    /// Number of updates made before it.
    pub step: u64,
    /// The prompt.
    pub prompt: String,
    /// The generated text.
    pub text: String,
    /// The text generated from the same prompt before the first update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// The reward model's score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
}

/// The logs of a stage: metrics.jsonl, samples.jsonl and TensorBoard events.
pub(crate) struct Logs {
    metrics: AppendLog,
    samples: AppendLog,
    events: EventWriter,
}

impl Logs {
    pub(crate) fn open(stage_dir: &Path) -> Result<Self> {
        Ok(Self {
            metrics: AppendLog::open(stage_dir.join("metrics.jsonl"))?,
            samples: AppendLog::open(stage_dir.join("samples.jsonl"))?,
            events: EventWriter::new(stage_dir),
        })
    }

    /// Truncates both logs and starts a new event file at `step`.
    pub(crate) fn truncate(&mut self, lengths: LogLengths, step: u64) -> Result<()> {
        self.metrics.truncate_to(lengths.metrics_bytes)?;
        self.samples.truncate_to(lengths.samples_bytes)?;
        self.events.start_session(step);
        Ok(())
    }

    /// Syncs both logs to disk and returns their lengths, for a checkpoint to record.
    pub(crate) fn sync(&mut self) -> Result<LogLengths> {
        self.metrics.sync()?;
        self.samples.sync()?;
        self.events.flush();
        Ok(LogLengths { metrics_bytes: self.metrics.len(), samples_bytes: self.samples.len() })
    }

    pub(crate) fn step(&mut self, row: &StepRow) -> Result<()> {
        self.metrics.append(&json(row))?;
        let events = &mut self.events;
        events.scalar("train/loss", row.loss, row.step);
        events.scalar("train/grad_norm", row.grad_norm, row.step);
        events.scalar("train/lr", row.lr, row.step);
        events.scalar("train/tokens_per_s", row.tokens_per_s, row.step);
        for (name, value) in &row.extra {
            events.scalar(&tag("train", name), *value, row.step);
        }
        events.flush();
        Ok(())
    }

    pub(crate) fn eval(&mut self, row: &EvalRow) -> Result<()> {
        self.metrics.append(&json(row))?;
        if let Some(loss) = row.eval_loss {
            self.events.scalar("eval/loss", loss, row.step);
        }
        for (name, value) in &row.extra {
            self.events.scalar(&tag("eval", name), *value, row.step);
        }
        self.events.flush();
        Ok(())
    }

    pub(crate) fn sample(&mut self, row: &SampleRow) -> Result<()> {
        Ok(self.samples.append(&json(row))?)
    }

    /// Calls `each` with every line of metrics.jsonl. A file that cannot be read has none: nothing that trains depends on it.
    pub(crate) fn metrics_lines(&self, mut each: impl FnMut(&str)) {
        let Ok(file) = File::open(self.metrics.path()) else { return };
        for line in BufReader::new(file).lines().map_while(std::io::Result::ok) {
            each(&line);
        }
    }

    /// A failure of the event file, reported once.
    pub(crate) fn events_warning(&mut self) -> Option<String> {
        self.events.take_warning()
    }
}

/// Lengths of the logs in bytes, as a checkpoint records them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLengths {
    /// metrics.jsonl.
    pub metrics_bytes: u64,
    /// samples.jsonl.
    pub samples_bytes: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// TRL's names have their own group (`objective/kl`).
fn tag(group: &str, name: &str) -> String {
    if name.contains('/') { name.to_owned() } else { format!("{group}/{name}") }
}

fn json(row: &impl Serialize) -> String {
    // Numbers and strings under string keys always serialize.
    serde_json::to_string(row).unwrap_or_default()
}
