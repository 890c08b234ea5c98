//! The keys that every training stage has: limits, schedule, evaluation, saving. Knows
//! no stage's own keys.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::optimizer::Optimizer;
use crate::problems::Problems;

/// Keys of every training stage. At least one of `max_steps`, `epochs` and `max_tokens` is needed;
/// the first one reached ends the stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TrainKeys {
    /// End after this many optimizer steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub max_steps: Option<u64>,
    /// End after this many passes over the data; 0.5 is half of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1e6))]
    pub epochs: Option<f64>,
    /// End after this many tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_tokens: Option<u64>,
    /// The most rows that go through the model at once. It bounds memory and changes nothing else.
    /// Left out, all rows of a step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub micro_batch: Option<usize>,
    /// What a step keeps between its forward and its backward pass. It bounds memory, costs time and
    /// changes nothing else.
    #[serde(default)]
    pub checkpointing: Checkpointing,
    /// How gradients change the weights.
    pub optimizer: Optimizer,
    /// How the learning rate moves over the steps.
    #[serde(default)]
    pub schedule: Schedule,
    /// What is held out of the data, and how often the model is measured on it. Left out, nothing
    /// is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval: Option<Eval>,
    /// Save a checkpoint every so many steps. Left out, by time alone, and at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub save_every_steps: Option<u64>,
    /// Save a checkpoint every so many minutes; 0 saves by steps alone.
    #[serde(default = "default_save_every_minutes")]
    #[schemars(range(min = 0.0, max = 100_000.0))]
    pub save_every_minutes: f64,
    /// How many checkpoints stay; the best one stays besides.
    #[serde(default = "default_keep_checkpoints")]
    #[schemars(range(min = 2))]
    pub keep_checkpoints: usize,
    /// Write a row of metrics every so many steps.
    #[serde(default = "default_log_every_steps")]
    #[schemars(range(min = 1))]
    pub log_every_steps: u64,
}

/// What a step keeps between its forward and its backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Checkpointing {
    /// All that the backward pass needs.
    #[default]
    None,
    /// The input of each of the model's blocks; what is inside is computed once more. Steps take about
    /// a third longer.
    Block,
}

/// How the learning rate moves over the steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// The shape after warm-up.
    #[serde(default)]
    pub kind: ScheduleKind,
    /// The steps in which the learning rate rises from 0 to `lr`.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub warmup_steps: u64,
    /// Where the learning rate ends.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 10.0))]
    pub min_lr: f64,
    /// The last steps, in which `wsd` falls from `lr` to `min_lr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub decay_steps: Option<u64>,
    /// The steps that the schedule is laid out over. Left out, the stage's own; a stage cut short
    /// by `max_steps` for a try keeps its curve with this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub total_steps: Option<u64>,
}

/// The shape of a learning rate schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Half a cosine wave down to `min_lr`.
    #[default]
    Cosine,
    /// A straight line down to `min_lr`.
    Linear,
    /// `lr` to the end.
    Constant,
    /// Warm-up, stable, decay: `lr` until the last `decay_steps`, then a straight line down to
    /// `min_lr`.
    Wsd,
}

/// What is held out of the data, and how often the model is measured on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Eval {
    /// The share of the data that is not trained on.
    #[schemars(range(min = 0.0, max = 0.5))]
    pub holdout: f64,
    /// What decides which rows those are.
    #[serde(default)]
    pub by: SplitBy,
    /// Measure every so many steps. Left out, at the end of the stage only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub every_steps: Option<u64>,
    /// Measure on at most this many rows. Left out, on all that are held out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_rows: Option<u64>,
    /// End the stage when it stops getting better. Left out, it runs to its limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<EarlyStopping>,
}

/// What decides which rows are held out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SplitBy {
    /// A hash of the row: the same row is always on the same side, wherever it stands.
    #[default]
    Content,
    /// The end of each source: its last rows, or the last part of a single text.
    Position,
}

/// When a stage ends because it no longer gets better.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EarlyStopping {
    /// How many measurements in a row may fail to be the best so far.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub patience: u64,
}

impl TrainKeys {
    pub(crate) fn check(&self, path: &str, problems: &mut Problems) {
        if self.max_steps.is_none() && self.epochs.is_none() && self.max_tokens.is_none() {
            problems.section(
                path,
                &format!("[{path}] has no end: it needs `max_steps`, `epochs` or `max_tokens`"),
                "add one of them here",
            );
        }
        self.optimizer.check(&format!("{path}.optimizer"), problems);
        self.schedule.check(
            &format!("{path}.schedule"),
            self.optimizer.lr,
            self.max_steps,
            problems,
        );
        if let Some(eval) = &self.eval {
            eval.check(&format!("{path}.eval"), problems);
        }
    }
}

impl Schedule {
    fn check(&self, path: &str, lr: f64, max_steps: Option<u64>, problems: &mut Problems) {
        if self.min_lr > lr {
            problems.value(
                &format!("{path}.min_lr"),
                &format!("must be at most `lr` ({lr})"),
                self.min_lr,
            );
        }
        match (self.kind, self.decay_steps) {
            (ScheduleKind::Wsd, None) => {
                problems.missing(
                    path,
                    "decay_steps",
                    "`wsd` needs to know how long its last part is",
                );
            }
            (ScheduleKind::Wsd, Some(_)) | (_, None) => {}
            (_, Some(_)) => problems
                .conflict(&format!("{path}.decay_steps"), "only `kind = \"wsd\"` has such a part"),
        }
        let Some(n_steps) = self.total_steps.or(max_steps) else { return };
        let decay_steps = self.decay_steps.unwrap_or(0);
        if self.warmup_steps.saturating_add(decay_steps) > n_steps {
            let key = if self.warmup_steps > n_steps { "warmup_steps" } else { "decay_steps" };
            let value = if self.warmup_steps > n_steps { self.warmup_steps } else { decay_steps };
            problems.value(
                &format!("{path}.{key}"),
                &format!("must leave warm-up and decay within the stage's {n_steps} steps"),
                value,
            );
        }
    }
}

impl Eval {
    fn check(&self, path: &str, problems: &mut Problems) {
        if self.early_stopping.is_some() && self.every_steps.is_none() {
            problems.conflict(
                &format!("{path}.early_stopping"),
                "it needs `every_steps`: without it the model is measured once, at the end",
            );
        }
        if self.early_stopping.is_some() && self.holdout == 0.0 {
            problems.conflict(
                &format!("{path}.early_stopping"),
                "`holdout` is 0: there is nothing to measure on",
            );
        }
    }
}

fn default_save_every_minutes() -> f64 {
    10.0
}

fn default_keep_checkpoints() -> usize {
    2
}

fn default_log_every_steps() -> u64 {
    10
}
