//! The recipe: what a user writes in TOML, one to one, checked by itself. It opens no file but the
//! recipe: paths, columns and sizes are the plan's.
//!
//! A section is a file with its types, their documentation and its own `check`. The JSON Schema of
//! the types drives
//! everything else: unknown keys and hints, types and ranges, the reference page. So a new key is a
//! field with a doc
//! comment, and a new section is a file and a field of [`Recipe`].

mod checks;
mod column_values;
mod depth;
mod dpo;
mod error;
mod found;
mod input_keys;
mod load;
mod lora;
mod model;
mod optimizer;
mod overrides;
mod pair_keys;
mod ppo;
mod precision;
mod pretrain;
mod problems;
mod reference;
mod reward;
mod rope;
mod schema;
mod sft;
mod shape;
mod source;
mod source_check;
mod spans;
mod suggest;
mod template;
mod text_format;
mod tokenizer;
mod train_keys;
mod validate;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use checks::ChecksSection;
pub use column_values::ColumnValues;
pub use dpo::{DpoSection, PreferenceLoss};
pub use error::{Diagnostic, Error, Result, Snippet};
pub use input_keys::{InputKeys, OnBadRow};
pub use load::{Loaded, load, parse};
pub use lora::{BaseDtype, LoraKeys};
pub use model::{Activation, Gpt2Model, LlamaModel, ModelSection, StartModel};
pub use optimizer::{
    AdafactorKeys, AdamwKeys, AdjustLr, MuonAdamw, MuonKeys, Optimizer, OptimizerGroup,
    OptimizerKind,
};
pub use pair_keys::PairKeys;
pub use ppo::{Conventions, Kl, KlEstimator, PpoSection, Role};
pub use precision::Precision;
pub use pretrain::{Packing, PretrainSection};
pub use reference::{json_schema, reference_markdown};
pub use reward::RewardSection;
pub use rope::{LinearRope, Llama3Rope, RopeScaling, YarnRope};
pub use sft::{ChatTemplate, Overlong, SftSection};
pub use source::{Columns, DATA_PREFIX, DrawnPairs, Format, Layout, Rows, Source, resolve};
pub use spans::{Place, Spans};
pub use template::{Piece, Template};
pub use tokenizer::{TokenizerSection, TrainByteBpe, TrainChar, TrainTokenizer};
pub use train_keys::{
    Checkpointing, EarlyStopping, Eval, Schedule, ScheduleKind, SplitBy, TrainKeys,
};

use problems::Problems;

/// A pipeline: what to train, on what, how. Each stage is a section; those that are there run in
/// the order of this page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The run's name: what it writes lies in `runs/NAME`. Left out, the recipe's file name without
    /// `.toml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "run-name"))]
    pub name: Option<String>,
    /// What every random choice is drawn from: the same recipe with the same seed gives the same
    /// weights.
    #[serde(default = "default_seed")]
    #[schemars(range(max = 9_223_372_036_854_775_807_u64))]
    pub seed: u64,
    /// Where it computes: `"cpu"`, `"cuda"`, or `"cuda:1"` for the second card.
    #[serde(default = "default_device")]
    #[schemars(extend("format" = "device"))]
    pub device: String,
    /// The numbers that enter the matrix products of layers; their sums, the weights, the optimizer,
    /// norms, softmax and losses are f32 whatever stands here.
    #[serde(default)]
    pub precision: Precision,
    /// Copies of the model that share the rows of each step. Their gradients are added up, so that a step is what it is
    /// on one. On `"cuda"` one stands on each of the first so many cards; on `"cpu"` they share the processor and are no
    /// faster.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 1, max = 64))]
    pub replicas: usize,
    /// The threads that compute. Left out, one for each core. The result does not depend on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub threads: Option<usize>,
    /// The folder of `data:` paths, beside the recipe; `--data-dir` and the environment's
    /// `TEMPER_DATA` go before it. Left out, `data` in the working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "input-path"))]
    pub data_dir: Option<PathBuf>,
    /// How text becomes numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<TokenizerSection>,
    /// The model of the stages that have no `start`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelSection>,
    /// A stage: learn to continue documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretrain: Option<PretrainSection>,
    /// A stage: learn to answer as the data answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sft: Option<SftSection>,
    /// A stage: learn to tell the better of two answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reward: Option<RewardSection>,
    /// A stage: learn which of two answers to give.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dpo: Option<DpoSection>,
    /// A stage: learn from the scores of a reward model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ppo: Option<PpoSection>,
    /// Which checks are on.
    #[serde(default)]
    pub checks: ChecksSection,
}

/// A stage that a recipe has, and what the recipe as a whole needs to know of it.
#[derive(Clone, Copy, Debug)]
pub struct Stage<'r> {
    /// The section's name, which is also the stage's folder.
    pub name: &'static str,
    /// Its `start`.
    pub start: Option<&'r str>,
    /// Its `lora`.
    pub lora: Option<&'r LoraKeys>,
    /// The key of what it reads.
    pub data_key: &'static str,
    /// What it reads.
    pub data: &'r [Source],
    /// Tokens of a row, or of each text of a pair.
    pub sequence_length: usize,
    /// Rows or pairs of an optimizer step.
    pub rows_per_step: usize,
    /// What happens when a row cannot be read.
    pub on_bad_row: OnBadRow,
    /// How many such rows may be left out.
    pub max_bad_rows: u64,
    /// How it trains.
    pub train: &'r TrainKeys,
}

impl<'r> Stage<'r> {
    /// The key that makes a row long.
    pub fn length_key(&self) -> &'static str {
        if self.name == PpoSection::PATH { "max_new_tokens" } else { "sequence_length" }
    }

    fn of_rows(name: &'static str, input: &'r InputKeys, train: &'r TrainKeys) -> Self {
        Self {
            name,
            start: input.start.as_deref(),
            lora: input.lora.as_ref(),
            data_key: "data",
            data: &input.data,
            sequence_length: input.sequence_length,
            rows_per_step: input.rows_per_step(),
            on_bad_row: input.on_bad_row,
            max_bad_rows: input.max_bad_rows,
            train,
        }
    }

    fn of_pairs(name: &'static str, input: &'r PairKeys, train: &'r TrainKeys) -> Self {
        Self {
            name,
            start: input.start.as_deref(),
            lora: input.lora.as_ref(),
            data_key: "data",
            data: &input.data,
            sequence_length: input.sequence_length,
            rows_per_step: input.pairs_per_step,
            on_bad_row: input.on_bad_row,
            max_bad_rows: input.max_bad_rows,
            train,
        }
    }
}

impl Recipe {
    /// The stages of this recipe in the order in which they run.
    pub fn stages(&self) -> Vec<Stage<'_>> {
        let stages = [
            self.pretrain.as_ref().map(PretrainSection::stage),
            self.sft.as_ref().map(SftSection::stage),
            self.reward.as_ref().map(RewardSection::stage),
            self.dpo.as_ref().map(DpoSection::stage),
            self.ppo.as_ref().map(PpoSection::stage),
        ];
        stages.into_iter().flatten().collect()
    }

    /// Every source of the recipe with its key path, such as `pretrain.data[0]`.
    pub fn sources(&self) -> Vec<(String, &Source)> {
        let tokenizer = match &self.tokenizer {
            Some(TokenizerSection::Train(train)) => train.data().unwrap_or_default(),
            _ => &[],
        };
        let lists = std::iter::once(("tokenizer.train.data".to_owned(), tokenizer)).chain(
            self.stages()
                .into_iter()
                .map(|stage| (format!("{}.{}", stage.name, stage.data_key), stage.data)),
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

    /// Every place of a stage that names weights, with its key path.
    fn starts_of<'r>(&'r self, stage: &Stage<'r>) -> Vec<(String, &'r str)> {
        if let (PpoSection::PATH, Some(ppo)) = (stage.name, &self.ppo) {
            return ppo.starts();
        }
        let adapter = stage.lora.and_then(|lora| lora.adapter.as_deref());
        let start = stage.start.map(|start| (format!("{}.start", stage.name), start));
        let adapter = adapter.map(|adapter| (format!("{}.lora.adapter", stage.name), adapter));
        start.into_iter().chain(adapter).collect()
    }

    /// The longest row of any stage, in tokens.
    pub fn longest_sequence(&self) -> Option<usize> {
        self.stages().iter().map(|stage| stage.sequence_length).max()
    }

    /// Whether sections agree with themselves and with each other.
    fn check(&self, problems: &mut Problems) {
        if self.precision == Precision::Tf32 && !self.device.starts_with("cuda") {
            problems.conflict("precision", "`tf32` is what tensor cores do: only on `cuda`");
        }
        if let Some(tokenizer) = &self.tokenizer {
            tokenizer.check(problems);
        }
        if let Some(model) = &self.model {
            model.check(problems);
        }
        if let Some(pretrain) = &self.pretrain {
            pretrain.check(problems);
        }
        if let Some(sft) = &self.sft {
            sft.check(problems);
        }
        if let Some(reward) = &self.reward {
            reward.check(problems);
        }
        if let Some(dpo) = &self.dpo {
            dpo.check(problems);
        }
        if let Some(ppo) = &self.ppo {
            ppo.check(problems);
        }
        if self.replicas > 1 && self.device.contains(':') {
            let reason =
                "`device` names one card, and each replica needs one: \"cuda\" takes the first";
            problems.conflict("replicas", reason);
        }
        self.check_starts(problems);
        self.check_positions(problems);
    }

    /// Every stage starts from something, and nothing stands in the recipe that no stage uses.
    fn check_starts(&self, problems: &mut Problems) {
        let stages = self.stages();
        if stages.is_empty() {
            problems.section(
                "",
                "the recipe has no stage: nothing would be trained",
                "add [pretrain], [sft], [reward], [dpo] or [ppo]",
            );
        }
        for (idx, stage) in stages.iter().enumerate() {
            let path = stage.name;
            let earlier = stages.get(..idx).unwrap_or_default();
            for (key, start) in self.starts_of(stage) {
                if stages.iter().skip(idx).any(|later| later.name == start) {
                    problems.value(&key, "must be a stage that runs before this one", start);
                }
            }
            match (stage.start, &self.model) {
                (None, _) if !earlier.is_empty() => {
                    let last = earlier.last().map(|stage| stage.name).unwrap_or_default();
                    problems.missing(
                        path,
                        "start",
                        &format!("does it go on from [{last}]? `start = \"{last}\"`"),
                    );
                }
                (None, None) => problems.section(
                    path,
                    &format!("[{path}] has nothing to start from"),
                    "give it a `start`, or describe a new model in [model]",
                ),
                (Some(_), _) | (None, Some(_)) => {}
            }
        }
        let uses_model = stages.iter().any(|stage| stage.start.is_none());
        if self.model.is_some() && !uses_model && !stages.is_empty() {
            problems.section(
                "model",
                "[model] is not used: every stage has a `start`",
                "take [model] out, or the `start` of the first stage",
            );
        }
        let is_new = matches!(self.model, Some(ModelSection::Llama(_) | ModelSection::Gpt2(_)));
        if is_new && self.tokenizer.is_none() {
            problems.section(
                "model",
                "a new model needs a tokenizer",
                "add [tokenizer] with `train = { kind = \"byte-bpe\", vocab_size = 2048 }` or `load = …`",
            );
        }
    }

    /// A new model has a position for every token of a row.
    fn check_positions(&self, problems: &mut Problems) {
        let Some((key, n_positions)) = self.model.as_ref().and_then(ModelSection::max_positions)
        else {
            return;
        };
        for stage in self.stages() {
            let length = stage.sequence_length;
            let (others, together) = match stage.length_key() {
                "max_new_tokens" => ("and `max_prompt_tokens` ", "together "),
                _ => ("", ""),
            };
            if length > n_positions {
                problems.value(
                    &format!("{}.{}", stage.name, stage.length_key()),
                    &format!(
                        "{others}must {together}be at most `{key}` of [{}] ({n_positions})",
                        ModelSection::PATH
                    ),
                    length,
                );
            }
        }
    }
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
