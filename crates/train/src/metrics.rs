//! The rows of metrics.jsonl and samples.jsonl, and the two logs themselves.
//!
//! Each step stands once: on resume the logs are cut back to what the checkpoint recorded. It
//! deliberately computes no metric.

use std::collections::BTreeMap;
use std::path::Path;

use fsio::AppendLog;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::tensorboard::EventWriter;

/// One update.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepRow {
    /// Updates made, this one included.
    pub step: u64,
    /// Mean loss over the step's targets, before the update.
    pub loss: f64,
    /// Global norm of the gradient, before clipping.
    pub grad_norm: f64,
    /// Learning rate of the update.
    pub lr: f64,
    /// Tokens that went through the model so far.
    pub tokens: u64,
    /// Tokens a second since the last row.
    pub tokens_per_s: f64,
    /// A stage's own figures.
    #[serde(flatten)]
    pub extra: BTreeMap<String, f64>,
}

/// One measurement on held-out data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EvalRow {
    /// Updates made before it.
    pub step: u64,
    /// Mean loss over all targets.
    pub eval_loss: f64,
    /// Targets measured on.
    pub n_targets: u64,
    /// A stage's own figures: perplexity, bits per byte, accuracy.
    #[serde(flatten)]
    pub extra: BTreeMap<String, f64>,
}

/// One text that the model wrote.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SampleRow {
    /// Updates made before it.
    pub step: u64,
    /// What it was given.
    pub prompt: String,
    /// What it wrote.
    pub text: String,
    /// What it wrote before the stage began, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// The reward model's score of it, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
}

/// The logs of a stage: metrics.jsonl, samples.jsonl and TensorBoard's events.
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

    /// Cuts both logs back and starts a new event file at `step`.
    pub(crate) fn cut_to(&mut self, lengths: LogLengths, step: u64) -> Result<()> {
        self.metrics.truncate_to(lengths.metrics_bytes)?;
        self.samples.truncate_to(lengths.samples_bytes)?;
        self.events.start_session(step);
        Ok(())
    }

    /// Makes both logs durable and says how long they are: what a checkpoint may record.
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
        self.events.scalar("eval/loss", row.eval_loss, row.step);
        for (name, value) in &row.extra {
            self.events.scalar(&tag("eval", name), *value, row.step);
        }
        self.events.flush();
        Ok(())
    }

    pub(crate) fn sample(&mut self, row: &SampleRow) -> Result<()> {
        Ok(self.samples.append(&json(row))?)
    }

    /// What went wrong with the events, once.
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

/// TRL's names bring their own group (`objective/kl`).
fn tag(group: &str, name: &str) -> String {
    if name.contains('/') { name.to_owned() } else { format!("{group}/{name}") }
}

fn json(row: &impl Serialize) -> String {
    // Numbers and strings under string keys always serialise.
    serde_json::to_string(row).unwrap_or_default()
}
