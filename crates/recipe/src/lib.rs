//! Recipe: the TOML that a user writes, one type per section, checked by itself. The recipe is the
//! only file that is opened; paths, columns and sizes are checked by `plan`.
//!
//! A section is a file with its types, their documentation and its own `check`. The JSON Schema of
//! the types drives everything else: unknown keys and hints, types and ranges, the reference page.
//! A new key is a field with a doc comment. A new section is a file and a field of [`Recipe`]; a
//! new stage is also a line in `stages.rs`.

// Doc comments name sections of a recipe as `[reward]`; the reference page is generated from the same text.
#![allow(rustdoc::broken_intra_doc_links)]

mod chat_keys;
mod checks;
mod column_values;
mod decoder_model;
mod depth;
mod diagnostics;
mod dpo;
mod error;
mod input_keys;
mod load;
mod location;
mod lora;
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
mod train_keys;
mod validate;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use chat_keys::{ChatTemplate, Overlong};
pub use checks::ChecksSection;
pub use column_values::ColumnValues;
pub use dpo::{DpoSection, PreferenceLoss};
pub use error::{Diagnostic, Error, Result, Snippet};
pub use input_keys::{InputKeys, OnBadRow};
pub use load::{Loaded, load, parse};
pub use location::KeyLocation;
pub use lora::{BaseDtype, LoraKeys};
pub use model::{Activation, Gpt2Model, ModelSection, StartModel};
pub use optimizer::{
    AdafactorKeys, AdamwKeys, AdjustLr, MuonAdamw, MuonKeys, Optimizer, OptimizerGroup,
    OptimizerKind,
};
pub use pair_keys::PairKeys;
pub use ppo::{Conventions, Kl, KlEstimator, PpoSection, TrainedModel};
pub use precision::Precision;
pub use pretrain::{Packing, PretrainSection};
pub use reference::{json_schema, reference_markdown};
pub use reward::RewardSection;
pub use rope::{LinearRope, Llama3Rope, RopeScaling, YarnRope};
pub use sft::SftSection;
pub use source::{
    Columns, DATA_PREFIX, DrawnPairs, Format, RowLayout, Rows, SampleKind, Source, resolve,
};
pub use spans::Spans;
pub use stage_keys::StageKeys;
pub use stages::StageSection;
pub use template::{Piece, Template};
pub use tokenizer::{TokenizerSection, TrainByteBpe, TrainChar, TrainTokenizer};
pub use train_keys::{
    Checkpointing, EarlyStopping, Eval, Schedule, ScheduleKind, SplitBy, TrainKeys,
};

use diagnostics::Diagnostics;

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
    /// Device to compute on: `"cpu"`, `"cuda"`, or `"cuda:1"` for the second GPU.
    #[serde(default = "default_device")]
    #[schemars(extend("format" = "device"))]
    pub device: String,
    /// Type of the inputs of matrix products in layers. Sums, weights, optimizer state, norms,
    /// softmax and losses are always f32.
    #[serde(default)]
    pub precision: Precision,
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
    /// Directory of `data:` paths, relative to the recipe. `--data-dir` and the environment
    /// variable `TEMPER_DATA` take precedence. Default: `data` in the working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "input-path"))]
    pub data_dir: Option<PathBuf>,
    /// Tokenizer to train or load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<TokenizerSection>,
    /// Model of the stages that have no `start`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelSection>,
    /// Stage: pretraining on documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretrain: Option<PretrainSection>,
    /// Stage: supervised fine-tuning on chats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sft: Option<SftSection>,
    /// Stage: training of a reward model on preference pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reward: Option<RewardSection>,
    /// Stage: direct preference optimization and its variants, on preference pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dpo: Option<DpoSection>,
    /// Stage: proximal policy optimization against a reward model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ppo: Option<PpoSection>,
    /// Checks that stop a faulty run in its first minute.
    #[serde(default)]
    pub checks: ChecksSection,
}

impl Recipe {
    /// Every data source of the recipe with its key path, such as `pretrain.data[0]`.
    pub fn sources(&self) -> Vec<(String, &Source)> {
        let tokenizer = match &self.tokenizer {
            Some(TokenizerSection::Train(train)) => train.data().unwrap_or_default(),
            _ => &[],
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

    /// Checks sections by themselves and against each other.
    fn check(&self, diagnostics: &mut Diagnostics) {
        if self.precision == Precision::Tf32 && !self.device.starts_with("cuda") {
            diagnostics.conflict(
                "precision",
                "`tf32` needs the tensor cores of a GPU: set `device = \"cuda\"`",
            );
        }
        if let Some(tokenizer) = &self.tokenizer {
            tokenizer.check(diagnostics);
        }
        if let Some(model) = &self.model {
            model.check(diagnostics);
        }
        for stage in self.stages() {
            stage.check(diagnostics);
        }
        if self.replicas > 1 && self.device.contains(':') {
            let reason = "`device` names one GPU and each replica needs its own: \"cuda\" uses the first ones";
            diagnostics.conflict("replicas", reason);
        }
        self.check_starts(diagnostics);
        self.check_positions(diagnostics);
    }

    /// Checks that every stage has weights to start from, and that some stage uses [model].
    fn check_starts(&self, diagnostics: &mut Diagnostics) {
        let stages = self.stages();
        if stages.is_empty() {
            diagnostics.section(
                "",
                "the recipe has no stage",
                &format!("add {}", StageSection::listed()),
            );
        }
        for (idx, stage) in stages.iter().enumerate() {
            let (path, keys) = (stage.name(), stage.keys());
            let earlier = stages.get(..idx).unwrap_or_default();
            for (key, start) in keys.weights {
                if stages.iter().skip(idx).any(|later| later.name() == start) {
                    let key = format!("{path}.{key}");
                    diagnostics.value(&key, "must be a stage that runs before this one", start);
                }
            }
            match (keys.start, &self.model) {
                (None, _) if !earlier.is_empty() => {
                    let last = earlier.last().map(|stage| stage.name()).unwrap_or_default();
                    diagnostics.missing(
                        path,
                        "start",
                        &format!("to continue from [{last}]: `start = \"{last}\"`"),
                    );
                }
                (None, None) => diagnostics.section(
                    path,
                    &format!("[{path}] has nothing to start from"),
                    "set its `start`, or describe a new model in [model]",
                ),
                (Some(_), _) | (None, Some(_)) => {}
            }
        }
        let uses_model = stages.iter().any(|stage| stage.keys().start.is_none());
        if self.model.is_some() && !uses_model && !stages.is_empty() {
            diagnostics.section(
                "model",
                "[model] is not used: every stage has a `start`",
                "remove [model], or the `start` of the first stage",
            );
        }
        let is_new = self.model.as_ref().is_some_and(ModelSection::is_new);
        if is_new && self.tokenizer.is_none() {
            diagnostics.section(
                "model",
                "a new model needs a tokenizer",
                "add [tokenizer] with `train = { kind = \"byte-bpe\", vocab_size = 2048 }` or `load = …`",
            );
        }
    }

    /// Checks that a new model has a position for every token of a sequence.
    fn check_positions(&self, diagnostics: &mut Diagnostics) {
        let Some((key, n_positions)) = self.model.as_ref().and_then(ModelSection::max_positions)
        else {
            return;
        };
        for stage in self.stages() {
            let (name, keys) = (stage.name(), stage.keys());
            let length = keys.sequence_length;
            let (others, together) = match keys.added_length_key {
                Some(added) => (format!("and `{added}` "), "together "),
                None => (String::new(), ""),
            };
            if length > n_positions {
                diagnostics.value(
                    &format!("{name}.{}", keys.length_key),
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
