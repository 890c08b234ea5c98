//! Recipe: the TOML file that describes a run, with one type per section. No other file is opened;
//! `plan` checks paths, columns and sizes.
//!
//! A section is a file with its types, their documentation and its own `check`. The JSON Schema of
//! the types drives everything else: unknown keys and hints, types and ranges, the reference page.
//! A new key is a field with a doc comment. A new section is a file and a field of [`Recipe`]; a
//! new stage is also a line of the table `stages!` in this file.

// Doc comments name sections of a recipe as `[reward]`; the reference page is generated from the same text.
#![allow(rustdoc::broken_intra_doc_links)]

mod activation;
mod chat_keys;
mod checks;
mod column_values;
mod cross_checks;
mod decoder_model;
mod dense_models;
mod depth;
mod diagnostics;
mod distill;
mod dpo;
mod error;
mod expert_models;
mod extract;
mod graded_rewards;
mod grpo;
mod input_keys;
mod kto;
mod load;
mod location;
mod lora;
mod missing;
mod model;
mod nearest;
mod optimizer;
mod overrides;
mod pair_keys;
mod ppo;
mod precision;
mod pretrain;
mod reference;
mod reward;
mod rewards;
mod rope;
mod schema;
mod schema_tree;
mod sft;
mod source;
mod source_check;
mod spans;
mod stage_keys;
mod stages;
mod suggest;
mod template;
mod text_format;
mod tokenizer;
mod toml_value;
mod trackers;
mod train_keys;
mod validate;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use activation::Activation;
pub use chat_keys::{ChatTargets, ChatTemplate, Learn, Overlong};
pub use checks::ChecksSection;
pub use column_values::ColumnValues;
pub use distill::{DistillSamples, DistillSection};
pub use dpo::{DpoSection, FDivergence, Losses, PreferenceLoss};
pub use error::{Diagnostic, Error, Result, Snippet};
pub use extract::Extract;
pub use graded_rewards::{CommandKeys, JudgeKeys};
pub use grpo::{
    Advantage, GrpoLoss, GrpoSection, ImportanceSamplingLevel, MultiObjectiveAggregation,
    ScaleRewards,
};
pub use input_keys::{InputKeys, OnBadRow, Packing};
pub use kto::{KtoLoss, KtoSection};
pub use load::{Loaded, load, parse};
pub use location::KeyLocation;
pub use lora::{BaseDtype, LoraBias, LoraInit, LoraKeys};
pub use model::{Gpt2Model, ModelSection, StartModel};
pub use optimizer::{
    AdafactorKeys, AdamwKeys, AdjustLr, MuonAdamw, MuonKeys, Optimizer, OptimizerGroup,
    OptimizerKind,
};
pub use pair_keys::PairKeys;
pub use ppo::{Conventions, Kl, KlEstimator, PpoModel, PpoSection};
pub use precision::Precision;
pub use pretrain::PretrainSection;
pub use reference::{json_schema, reference_markdown};
pub use reward::RewardSection;
pub use rewards::{
    ChoiceKeys, ExactKeys, FormatKeys, JsonSchemaKeys, LengthKeys, LengthShape, ModelKeys,
    NumberKeys, RegexKeys, RepetitionKeys, Reward, RewardKind,
};
pub use rope::{LinearRope, Llama3Rope, RopeScaling, YarnRope};
pub use sft::SftSection;
pub use source::{
    Columns, DATA_PREFIX, DrawnPairs, Format, RoleName, RowLayout, Rows, SampleKind, Source,
    resolve,
};
pub use spans::Spans;
pub use stage_keys::{Samples, StageKeys};
pub use template::{Piece, Template};
pub use text_format::run_name;
pub use tokenizer::{TokenizerSection, TrainByteBpe, TrainChar, TrainTokenizer};
pub use trackers::Tracker;
pub use train_keys::{
    Checkpointing, EarlyStopping, Eval, Schedule, ScheduleKind, SplitBy, TrainKeys,
};

use stages::stages;

stages! {
    /// Pretraining on documents.
    Pretrain(pretrain: PretrainSection),
    /// Supervised fine-tuning on chats.
    Sft(sft: SftSection),
    /// Distillation of a teacher.
    Distill(distill: DistillSection),
    /// Reward model on pairs.
    Reward(reward: RewardSection),
    /// Preference optimization on pairs.
    Dpo(dpo: DpoSection),
    /// Preference optimization on labelled answers.
    Kto(kto: KtoSection),
    /// Policy optimization against a reward model.
    Ppo(ppo: PpoSection),
    /// Policy optimization on rewards, relative to other answers.
    Grpo(grpo: GrpoSection),
}

/// A pipeline: the data, the model, and how each stage trains it. The stages of a recipe run in the
/// order of this page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the run, which is saved to `runs/NAME`. Default: the recipe's file name without
    /// `.toml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "run-name"))]
    pub name: Option<String>,
    /// Seed of every random choice. The same recipe with the same seed gives the same weights.
    #[serde(default = "default_seed")]
    #[schemars(range(max = 9_223_372_036_854_775_807_u64))]
    pub seed: u64,
    /// Device to compute on: `"cpu"`, `"cuda"`, or `"cuda:1"` for the second GPU of NVIDIA; `"wgpu"` or `"wgpu:1"` for GPUs
    /// of AMD, Intel and Apple. `temper devices` lists them.
    #[serde(default = "default_device")]
    #[schemars(extend("format" = "device"))]
    pub device: String,
    /// Type of the inputs of matrix products in layers. Sums, weights, optimizer state, norms,
    /// softmax and losses are always f32.
    #[serde(default)]
    pub precision: Precision,
    /// Whether the kernels of matrix products on a GPU are selected by their shapes, so that `tf32` and `bf16` repeat as `f32`
    /// does. Otherwise each process times them and takes the fastest. The CPU's results repeat in any case. Default: `false`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deterministic: bool,
    /// Number of data-parallel replicas that share the rows of each step. Their gradients are
    /// summed, so a step is the same as on one replica. On `"cuda"` each replica has a GPU of its
    /// own, the first ones; on `"cpu"` replicas share the processor and save no time.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 1, max = 64))]
    pub replicas: usize,
    /// Number of CPU threads. The result does not depend on it. Default: one per core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub threads: Option<usize>,
    /// Programs that the metrics and samples are written for, besides `metrics.jsonl`. Only files are written; a resumed run
    /// may have others. An empty list writes none.
    #[serde(default = "default_trackers")]
    #[schemars(length(max = 3))]
    pub trackers: Vec<Tracker>,
    /// Directory of `data:` paths, relative to the recipe. `--data-dir` and the environment
    /// variable `TEMPER_DATA` take precedence. Default: `data` in the working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "input-path"))]
    pub data_dir: Option<PathBuf>,
    /// Tokenizer to train or load. Default: that of the first stage's `start`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<TokenizerSection>,
    /// Model of the stages that have no `start`. Default: none; the first stage then needs a `start`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelSection>,
    /// Stage: pretraining on documents. Default: no such stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretrain: Option<PretrainSection>,
    /// Stage: supervised fine-tuning on chats. Default: no such stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sft: Option<SftSection>,
    /// Stage: distillation of a teacher model into a student. Default: no such stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distill: Option<DistillSection>,
    /// Stage: training of a reward model on preference pairs. Default: no such stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reward: Option<RewardSection>,
    /// Stage: direct preference optimization and its variants, on preference pairs. Default: no such stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dpo: Option<DpoSection>,
    /// Stage: Kahneman–Tversky optimization, on answers that are labelled desirable or undesirable.
    /// Default: no such stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kto: Option<KtoSection>,
    /// Stage: proximal policy optimization against a reward model. Default: no such stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ppo: Option<PpoSection>,
    /// Stage: group-relative policy optimization on rewards that are computed from the text, or by a reward model.
    /// Default: no such stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpo: Option<GrpoSection>,
    /// Checks that stop a faulty run in its first minute.
    #[serde(default)]
    pub checks: ChecksSection,
}

impl Recipe {
    /// Every data source of the recipe with its key path, such as `pretrain.data[0]`.
    pub fn sources(&self) -> Vec<(String, &Source)> {
        let tokenizer = match &self.tokenizer {
            Some(TokenizerSection::Train(train)) => train.data().unwrap_or_default(),
            Some(TokenizerSection::Load(_)) | None => &[],
        };
        let lists = std::iter::once(("tokenizer.train.data".to_owned(), tokenizer)).chain(
            self.stages()
                .into_iter()
                .map(|stage| (stage.name(), stage.keys()))
                .map(|(name, keys)| (format!("{name}.{}", keys.data_key), keys.data)),
        );
        lists
            .flat_map(|(path, list)| {
                list.iter()
                    .enumerate()
                    .map(move |(idx, source)| (format!("{path}[{idx}]"), source))
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    /// Longest sequence of any stage, in tokens.
    pub fn longest_sequence(&self) -> Option<usize> {
        self.stages().iter().map(|stage| stage.keys().sequence_length).max()
    }
}

fn default_trackers() -> Vec<Tracker> {
    vec![Tracker::Tensorboard]
}

fn default_seed() -> u64 {
    1
}

fn default_replicas() -> usize {
    1
}

fn default_device() -> String {
    "cpu".to_owned()
}
