//! Keys of every stage: limits, optimizer, schedule, validation, checkpoints.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diagnostics::Diagnostics;
use crate::missing;
use crate::optimizer::Optimizer;

/// Keys of every stage. At least one of `max_steps`, `epochs` and `max_tokens` is required; the
/// stage ends at the first limit it reaches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TrainKeys {
    /// Maximum number of optimizer steps. Default: no such limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub max_steps: Option<u64>,
    /// Maximum number of passes over the data; 0.5 is half of it. Default: no such limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 1e6))]
    pub epochs: Option<f64>,
    /// Maximum number of training tokens. Default: no such limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_tokens: Option<u64>,
    /// Maximum number of rows per forward pass. Bounds memory without changing the result. Default:
    /// all rows of a step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub micro_batch: Option<usize>,
    /// Activation checkpointing: saves memory, costs time and does not change the result.
    #[serde(default)]
    pub checkpointing: Checkpointing,
    /// Optimizer.
    pub optimizer: Optimizer,
    /// Decay of an exponential moving average of the trained weights, such as 0.999. Validation, logged samples and the
    /// finished `model/` then use the average, and training continues from the weights of the last update. Default: no
    /// average.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0.0, "exclusiveMaximum" = 1.0))]
    pub ema: Option<f64>,
    /// Learning-rate schedule.
    #[serde(default)]
    pub schedule: Schedule,
    /// Validation split and interval. Default: no validation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval: Option<Eval>,
    /// Prompts whose answers are logged before the first step, at each evaluation and at the end of the stage, to see how they
    /// change: `["What is a lighthouse?", "Write a haiku."]`. They are user messages of a chat, and beginnings of documents in
    /// a stage that trains on documents. They change nothing in the training, and a resumed run may have others. A reward model
    /// writes no answers. Default: a text of the stage's own, drawn at temperature 1; in PPO and GRPO prompts of the data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1)))]
    pub sample_prompts: Vec<String>,
    /// Number of steps between logged samples. Default: those of `eval.every_steps`; 10 for the prompts of the data in PPO and
    /// GRPO.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub sample_every_steps: Option<u64>,
    /// Maximum number of tokens of an answer to one of `sample_prompts`.
    #[serde(default = "default_sample_max_new_tokens")]
    #[schemars(range(min = 1, max = 65_536))]
    pub sample_max_new_tokens: usize,
    /// Temperature of the answers to `sample_prompts`. 0, as any value below 0.0001, is greedy: the most probable token at each
    /// position.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub sample_temperature: f64,
    /// Number of steps between checkpoints. Default: checkpoints by time only, and at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub save_every_steps: Option<u64>,
    /// Minutes between checkpoints; 0 saves by steps only.
    #[serde(default = "default_save_every_minutes")]
    #[schemars(range(min = 0.0, max = 100_000.0))]
    pub save_every_minutes: f64,
    /// Number of checkpoints to keep, in addition to the best one.
    #[serde(default = "default_keep_checkpoints")]
    #[schemars(range(min = 2))]
    pub keep_checkpoints: usize,
    /// Number of steps between rows of metrics.
    #[serde(default = "default_log_every_steps")]
    #[schemars(range(min = 1))]
    pub log_every_steps: u64,
}

/// Activation checkpointing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Checkpointing {
    /// Keep all activations for the backward pass.
    #[default]
    None,
    /// Keep the input of each block and recompute the rest in the backward pass. A step takes about
    /// a third longer.
    Block,
}

/// Learning-rate schedule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Curve after warm-up.
    #[serde(default)]
    pub kind: ScheduleKind,
    /// Steps over which the learning rate rises from 0 to `lr`.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub warmup_steps: u64,
    /// Final learning rate.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 10.0))]
    pub min_lr: f64,
    /// Number of last steps over which `wsd` decays from `lr` to `min_lr`. Default: none; `wsd` requires it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub decay_steps: Option<u64>,
    /// Number of steps that the schedule is computed for. Default: those of the stage. Set it to
    /// keep the curve of a full run in a shorter one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub total_steps: Option<u64>,
}

/// Curve of a learning-rate schedule after warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Half a cosine wave down to `min_lr`.
    #[default]
    Cosine,
    /// Linear decay to `min_lr`.
    Linear,
    /// Constant `lr`.
    Constant,
    /// Warm-up, stable, decay: `lr` until the last `decay_steps`, then linear decay to `min_lr`.
    Wsd,
}

/// Validation split and interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Eval {
    /// Share of the data that is used for validation instead of training. Optional where `tasks` is given. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 0.5))]
    pub holdout: Option<f64>,
    /// Choice of the validation rows.
    #[serde(default)]
    pub by: SplitBy,
    /// Number of steps between evaluations. Default: one evaluation, at the end of the stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub every_steps: Option<u64>,
    /// Maximum number of validation rows per evaluation. Default: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_rows: Option<u64>,
    /// Tasks of `temper eval --task` that are evaluated on the same schedule: names of built-in ones, or paths of task files.
    /// Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1)))]
    pub tasks: Vec<String>,
    /// Maximum number of rows of each task. Default: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub task_rows: Option<usize>,
    /// Number of examples before each question of a task. Default: the task's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub task_shots: Option<usize>,
    /// Whether prompts of tasks are rendered with the chat template. Default: `false`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub task_chat: bool,
    /// Metric of a task by which evaluations are compared, such as `"arc_easy/acc_norm"`. Default: the validation loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub metric: Option<String>,
    /// Export the weights of the best evaluation into `model/` instead of those of the last step. `early_stopping` implies
    /// it.
    #[serde(default)]
    pub export_best: bool,
    /// Early stopping on the validation loss, or on `metric`. Default: the stage runs to its limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<EarlyStopping>,
}

/// Choice of the validation rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SplitBy {
    /// A hash of the row's content: equal rows are always in the same split.
    #[default]
    Content,
    /// The end of each source: its last rows, or the last part of a single text.
    Position,
}

/// Early stopping on the validation loss, or on `metric`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EarlyStopping {
    /// Number of evaluations in a row without a new best one after which the stage ends.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub patience: u64,
}

impl TrainKeys {
    pub(crate) fn check(&self, path: &str, diagnostics: &mut Diagnostics) {
        if self.max_steps.is_none() && self.epochs.is_none() && self.max_tokens.is_none() {
            missing::length(path, diagnostics);
        }
        self.optimizer.check(&format!("{path}.optimizer"), diagnostics);
        self.schedule.check(
            &format!("{path}.schedule"),
            self.optimizer.lr,
            self.max_steps,
            diagnostics,
        );
        if let Some(eval) = &self.eval {
            eval.check(&format!("{path}.eval"), diagnostics);
        }
        let of_prompts = [
            (
                "sample_max_new_tokens",
                self.sample_max_new_tokens != default_sample_max_new_tokens(),
            ),
            ("sample_temperature", self.sample_temperature != 0.0),
        ];
        for (key, _) in of_prompts.into_iter().filter(|(_, is_set)| *is_set) {
            if self.sample_prompts.is_empty() {
                diagnostics.conflict(&format!("{path}.{key}"), "there are no `sample_prompts`");
            }
        }
    }

    /// Refuses keys of samples where the stage writes no text.
    pub(crate) fn check_without_samples(&self, path: &str, diagnostics: &mut Diagnostics) {
        let keys = [
            ("sample_prompts", !self.sample_prompts.is_empty()),
            ("sample_every_steps", self.sample_every_steps.is_some()),
        ];
        for (key, _) in keys.into_iter().filter(|(_, is_set)| *is_set) {
            diagnostics.conflict(&format!("{path}.{key}"), "a reward model writes no text");
        }
    }
}

impl Schedule {
    fn check(&self, path: &str, lr: f64, max_steps: Option<u64>, diagnostics: &mut Diagnostics) {
        if self.min_lr > lr {
            diagnostics.value(
                &format!("{path}.min_lr"),
                &format!("must be at most `lr` ({lr})"),
                self.min_lr,
            );
        }
        match (self.kind, self.decay_steps) {
            (ScheduleKind::Wsd, None) => {
                diagnostics.missing(path, "decay_steps", "`wsd` needs the length of its decay");
            }
            (ScheduleKind::Wsd, Some(_)) | (_, None) => {}
            (_, Some(_)) => diagnostics
                .conflict(&format!("{path}.decay_steps"), "only `kind = \"wsd\"` uses it"),
        }
        let Some(n_steps) = self.total_steps.or(max_steps) else { return };
        let decay_steps = self.decay_steps.unwrap_or(0);
        if self.warmup_steps.saturating_add(decay_steps) > n_steps {
            let key = if self.warmup_steps > n_steps { "warmup_steps" } else { "decay_steps" };
            let value = if self.warmup_steps > n_steps { self.warmup_steps } else { decay_steps };
            diagnostics.value(
                &format!("{path}.{key}"),
                &format!("must keep warm-up and decay within {n_steps} steps"),
                value,
            );
        }
    }
}

impl Eval {
    /// Share of the data that is used for validation; 0 without `holdout`.
    pub fn share(&self) -> f64 {
        self.holdout.unwrap_or(0.0)
    }

    fn check(&self, path: &str, diagnostics: &mut Diagnostics) {
        if self.holdout.is_none() && self.tasks.is_empty() {
            diagnostics.missing(path, "holdout", "it is optional only where `tasks` is given");
        }
        let of_tasks = [
            ("task_rows", self.task_rows.is_some()),
            ("task_shots", self.task_shots.is_some()),
            ("task_chat", self.task_chat),
            ("metric", self.metric.is_some()),
        ];
        for (key, _) in of_tasks.into_iter().filter(|(_, is_set)| *is_set) {
            if self.tasks.is_empty() {
                diagnostics.conflict(&format!("{path}.{key}"), "there are no `tasks`");
            }
        }
        let keys =
            [("early_stopping", self.early_stopping.is_some()), ("export_best", self.export_best)];
        for (key, _) in keys.into_iter().filter(|(_, is_set)| *is_set) {
            if self.every_steps.is_none() {
                diagnostics.conflict(
                    &format!("{path}.{key}"),
                    "it needs `every_steps`: without it there is one evaluation, at the end",
                );
            }
            if self.metric.is_none() && self.share() == 0.0 {
                diagnostics.conflict(
                    &format!("{path}.{key}"),
                    "there is neither validation data (`holdout`) nor a `metric` of a task",
                );
            }
        }
    }
}

fn default_sample_max_new_tokens() -> usize {
    48
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
