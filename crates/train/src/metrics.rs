//! The logs metrics.jsonl and samples.jsonl and their rows.
//!
//! A number that is not finite is null in these files, as other programs expect, and is read as NaN.
//!
//! Each step appears once: on resume the logs are truncated to the lengths that the checkpoint records.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use fsio::AppendLog;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::trackers::{History, Trackers, Tracking};

/// One update in metrics.jsonl.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepRow {
    /// 1-based number of the update.
    pub step: u64,
    /// Mean loss over the step's targets, before the update.
    #[serde(deserialize_with = "fsio::any_number::deserialize")]
    pub loss: f64,
    /// Global gradient norm before clipping.
    #[serde(deserialize_with = "fsio::any_number::deserialize")]
    pub grad_norm: f64,
    /// Learning rate of the update.
    #[serde(deserialize_with = "fsio::any_number::deserialize")]
    pub lr: f64,
    /// Number of tokens processed so far.
    pub tokens: u64,
    /// Tokens per second since the last row.
    #[serde(deserialize_with = "fsio::any_number::deserialize")]
    pub tokens_per_s: f64,
    /// Metrics of the algorithm.
    #[serde(flatten, deserialize_with = "fsio::any_number::map::deserialize")]
    pub extra: BTreeMap<String, f64>,
}

/// One evaluation on the validation data and on tasks, in metrics.jsonl.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EvalRow {
    /// Number of updates made before it.
    pub step: u64,
    /// Mean loss over all targets of the validation data; `None` without validation data.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "fsio::any_number::option::deserialize"
    )]
    pub eval_loss: Option<f64>,
    /// Number of targets.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub n_targets: u64,
    /// Metrics of the algorithm, such as perplexity or accuracy, and of tasks, such as `arc_easy/acc`.
    #[serde(flatten, deserialize_with = "fsio::any_number::map::deserialize")]
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

/// The logs of a stage: metrics.jsonl, samples.jsonl and their copies for other programs.
pub(crate) struct Logs {
    metrics: AppendLog,
    samples: AppendLog,
    trackers: Trackers,
}

impl Logs {
    pub(crate) fn open(stage_dir: &Path, tracking: Tracking) -> Result<Self> {
        Ok(Self {
            metrics: AppendLog::open(stage_dir.join("metrics.jsonl"))?,
            samples: AppendLog::open(stage_dir.join("samples.jsonl"))?,
            trackers: Trackers::new(stage_dir, tracking),
        })
    }

    /// Truncates both logs, and starts their copies with what is left of them. Returns warnings about lost rows: nothing that trains
    /// depends on them.
    pub(crate) fn truncate(&mut self, lengths: LogLengths, step: u64) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        let recorded = [lengths.metrics_bytes, lengths.samples_bytes];
        for (log, recorded) in [&mut self.metrics, &mut self.samples].into_iter().zip(recorded) {
            match log.truncate_to(recorded) {
                Err(error @ fsio::Error::LogTooShort { .. }) => {
                    warnings.push(format!("{error}; rows before step {step} are missing"));
                }
                truncated => truncated?,
            }
            let n_removed = log.retain_lines(is_row)?;
            if n_removed > 0 {
                warnings.push(format!(
                    "{}: {n_removed} lines that are no rows of a log were removed; rows before step {step} may be missing",
                    log.path().display()
                ));
            }
        }
        let history = self.history();
        self.trackers.start(step, &history);
        Ok(warnings)
    }

    fn history(&self) -> History {
        let mut history = History { samples: self.sample_rows().collect(), ..History::default() };
        if self.trackers.needs_metrics() {
            self.metrics_lines(|line| {
                let row = serde_json::from_str(line).ok();
                if let Some(values) = row.and_then(|row| self.trackers.values_of(&row)) {
                    history.add(values);
                }
            });
        }
        history
    }

    /// The rows of samples.jsonl.
    fn sample_rows(&self) -> impl Iterator<Item = SampleRow> + use<> {
        let file = File::open(self.samples.path()).ok().map(BufReader::new);
        let lines = file.into_iter().flat_map(BufReader::lines).map_while(std::io::Result::ok);
        lines.filter_map(|line| serde_json::from_str(&line).ok())
    }

    /// Syncs both logs to disk and returns their lengths, for a checkpoint to record.
    pub(crate) fn sync(&mut self) -> Result<LogLengths> {
        self.metrics.sync()?;
        self.samples.sync()?;
        self.trackers.flush();
        Ok(LogLengths { metrics_bytes: self.metrics.len(), samples_bytes: self.samples.len() })
    }

    pub(crate) fn step(&mut self, row: &StepRow) -> Result<()> {
        self.metric_row(row)
    }

    pub(crate) fn eval(&mut self, row: &EvalRow) -> Result<()> {
        self.metric_row(row)
    }

    fn metric_row(&mut self, row: &impl Serialize) -> Result<()> {
        self.metrics.append(&json(row))?;
        self.trackers.row(&serde_json::to_value(row).unwrap_or_default());
        Ok(())
    }

    pub(crate) fn sample(&mut self, row: &SampleRow) -> Result<()> {
        self.samples.append(&json(row))?;
        self.trackers.sample(row);
        Ok(())
    }

    /// Tells the copies that the rows so far are those of a checkpoint.
    pub(crate) fn checkpoint_saved(&mut self) {
        self.trackers.checkpoint_saved();
    }

    /// Marks the copies as those of a finished stage.
    pub(crate) fn finish(&mut self) {
        self.trackers.finish();
    }

    /// Calls `each` with every line of metrics.jsonl. A file that cannot be read has none: nothing that trains depends on it.
    pub(crate) fn metrics_lines(&self, mut each: impl FnMut(&str)) {
        let Ok(file) = File::open(self.metrics.path()) else { return };
        for line in BufReader::new(file).lines().map_while(std::io::Result::ok) {
            each(&line);
        }
    }

    /// The texts of samples.jsonl before the first update, by their prompts.
    pub(crate) fn first_samples(&self) -> BTreeMap<String, String> {
        let first = self.sample_rows().take_while(|row| row.step == 0);
        first.map(|row| (row.prompt, row.text)).collect()
    }

    /// Failures of the copies, each reported once.
    pub(crate) fn take_warnings(&mut self) -> Vec<String> {
        self.trackers.take_warnings()
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

/// Whether a line is a row of one of the logs.
fn is_row(line: &[u8]) -> bool {
    let row = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(line);
    row.is_ok_and(|row| row.get("step").is_some_and(serde_json::Value::is_u64))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

fn json(row: &impl Serialize) -> String {
    // Numbers and strings under string keys always serialize.
    serde_json::to_string(row).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of two steps, as a process that was killed leaves them.
    fn logged(dir: &Path) -> LogLengths {
        let mut logs = Logs::open(dir, Tracking::default()).unwrap();
        for step in 1..=2 {
            logs.step(&StepRow { step, ..StepRow::default() }).unwrap();
            logs.sample(&SampleRow { step, ..SampleRow::default() }).unwrap();
        }
        logs.sync().unwrap()
    }

    #[test]
    fn a_log_that_was_replaced_is_a_warning_and_keeps_its_rows() {
        let dir = tempfile::tempdir().unwrap();
        let lengths = logged(dir.path());
        let metrics = dir.path().join("metrics.jsonl");
        let rows = std::fs::read(&metrics).unwrap();
        let resumed = || Logs::open(dir.path(), Tracking::default()).unwrap().truncate(lengths, 2);
        assert_eq!(resumed().unwrap(), Vec::<String>::new());
        assert_eq!(std::fs::read(&metrics).unwrap(), rows);
        // Bytes of no text, longer than the log was.
        let garbage: Vec<u8> = (0..3000_u32).map(|n| (n * 7919 % 251) as u8).collect();
        fsio::write_atomic(&metrics, &garbage).unwrap();
        let warnings = resumed().unwrap();
        let [warning] = &warnings[..] else { panic!("{warnings:?}") };
        assert!(warning.starts_with(&metrics.display().to_string()), "{warning}");
        assert!(warning.ends_with("were removed; rows before step 2 may be missing"), "{warning}");
        assert!(std::fs::read(&metrics).unwrap().is_empty());
        // One damaged row, and a log that ends in the middle of one: whole rows stay, and new ones have lines of their own.
        let mut damaged = rows.clone();
        damaged[0] = b'x';
        fsio::write_atomic(&metrics, &damaged).unwrap();
        assert_eq!(resumed().unwrap().len(), 1);
        let first_end = rows.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        assert_eq!(std::fs::read(&metrics).unwrap(), rows[first_end..]);
        fsio::write_atomic(&metrics, &rows[..rows.len() - 9]).unwrap();
        assert_eq!(resumed().unwrap().len(), 2);
        assert_eq!(std::fs::read(&metrics).unwrap(), rows[..first_end]);
    }
}
