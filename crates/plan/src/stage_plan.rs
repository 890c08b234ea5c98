//! The plan of one stage: everything that a run needs to train it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use arch::ModelConfig;
use data::{Dataset, SourceReport};
use recipe::{SampleKind, TrainKeys};
use tokenizer::Tokenizer;

use crate::cost::Cost;
use crate::eval_tasks::EvalTasks;
use crate::sample_prompts::SamplePrompts;
use crate::stage::{LoraPlan, Stage, Start, Work};

/// A stage that can run.
#[derive(Debug)]
pub struct StagePlan {
    /// Name of the stage: its section and its directory within the run.
    pub name: String,
    /// Algorithm, with its own part of the plan.
    pub kind: Stage,
    /// Source of the first weights.
    pub start: Start,
    /// Adapter that is trained in place of the weights.
    pub lora: Option<LoraPlan>,
    /// Whether `start` is an adapter that is merged into its base model before training.
    pub merges_start: bool,
    /// Whether the embeddings of `start` get rows for added tokens before training.
    pub grows_vocabulary: bool,
    /// Model configuration.
    pub config: ModelConfig,
    /// Tokenizer, with the chat template of this stage.
    pub tokenizer: Tokenizer,
    /// Samples that the dataset is made of.
    pub sample_kind: SampleKind,
    /// Files, layout and columns of each data source, and the columns that are not read.
    pub sources: Vec<SourceReport>,
    /// Training and validation batches.
    pub dataset: Dataset,
    /// Limits, optimizer, schedule, validation and checkpoints.
    pub keys: TrainKeys,
    /// Tasks of `eval.tasks` with their rows.
    pub eval_tasks: EvalTasks,
    /// Prompts of the samples that are logged.
    pub sample_prompts: SamplePrompts,
    /// Tokens of a row, or of each text of a pair.
    pub sequence_length: usize,
    /// Rows, pairs or episodes of a step.
    pub rows_per_step: usize,
    /// Rows, pairs or episodes in one forward pass of a replica.
    pub micro_batch: usize,
    /// Optimizer steps of the stage.
    pub max_steps: u64,
    /// Estimated operations, memory and disk space.
    pub cost: Cost,
    /// Hash of every input by name; a resumed stage must find the same ones.
    pub inputs: BTreeMap<String, String>,
    /// Configuration keys that were ignored or filled in, and the token that ends answers, as
    /// sentences.
    pub notes: Vec<String>,
    /// Unknown keys in the config.json of models that the stage reads, as sentences.
    pub warnings: Vec<String>,
}

impl StagePlan {
    /// Every source of weights that the stage reads, by its key in the stage's section.
    pub fn starts(&self) -> Vec<(Cow<'static, str>, &Start)> {
        let (start, adapter) = match self.kind.work() {
            Work::Rows { .. } => ("start", "lora.adapter"),
            Work::Rollouts(_) | Work::Groups(_) => ("policy.start", "policy.lora.adapter"),
        };
        let continued = self.lora.as_ref().and_then(|lora| lora.adapter.as_ref());
        [(Cow::from(start), &self.start)]
            .into_iter()
            .chain(continued.map(|source| (adapter.into(), source)))
            .chain(self.kind.other_starts())
            .collect()
    }

    /// Number of updates of the weights: one a step, and in PPO and GRPO one for each minibatch of each pass, fewer if `target_kl`
    /// ends a step.
    pub fn n_updates(&self) -> u64 {
        let of_a_step = match self.kind.work() {
            Work::Rows { .. } => 1,
            Work::Rollouts(ppo) => {
                (ppo.section.n_ppo_epochs * ppo.section.n_minibatches.max(1)) as u64
            }
            Work::Groups(grpo) => grpo.n_updates() as u64,
        };
        self.max_steps.saturating_mul(of_a_step)
    }

    /// Names of the stages of the same run whose `model/` this stage reads.
    pub fn needs(&self) -> Vec<&str> {
        self.starts()
            .into_iter()
            .filter_map(|(_, start)| match start {
                Start::Stage(name) => Some(name.as_str()),
                Start::Fresh | Start::Directory(_) => None,
            })
            .collect()
    }
}
