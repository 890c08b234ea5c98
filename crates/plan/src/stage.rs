//! The stages of a plan: each kind with what its algorithm needs, the adapters and the weights to
//! start from.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use arch::{AdapterLayout, HeadOutput, LoraConfig, ModelConfig};
use recipe::{
    BaseDtype, DistillSection, DpoSection, GrpoSection, KtoSection, PpoSection, PretrainSection,
    Reward, RewardSection, SftSection, StageSection,
};
use rewards::Rewards;

use crate::Result;
use crate::prompt_layout::{PassShape, PromptLayout};

/// A stage's algorithm with its own part of the plan.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// Pretraining on documents.
    Pretrain(PretrainSection),
    /// Supervised fine-tuning on chats.
    Sft(SftSection),
    /// Distillation of a teacher.
    Distill(Box<DistillPlan>),
    /// Reward model on pairs.
    Reward(RewardSection),
    /// Preference optimization on pairs.
    Dpo(DpoPlan),
    /// Preference optimization on labelled answers.
    Kto(KtoPlan),
    /// Policy optimization against a reward model.
    Ppo(Box<PpoPlan>),
    /// Policy optimization on rewards, relative to other answers to the same prompt.
    Grpo(Box<GrpoPlan>),
}

/// Plan of a distillation.
#[derive(Clone, Debug, PartialEq)]
pub struct DistillPlan {
    /// The recipe's section.
    pub section: DistillSection,
    /// Weights of the teacher.
    pub teacher: Start,
    /// Configuration of the teacher.
    pub teacher_config: ModelConfig,
    /// Targets at which the teacher's most probable tokens are saved, at most; 0 without `top_k`.
    pub n_saved_targets: u64,
}

impl DistillPlan {
    /// Whether the teacher is in memory during training.
    pub fn keeps_teacher(&self) -> bool {
        self.section.top_k.is_none() || self.section.on_policy > 0.0
    }

    /// Bytes of the teacher's saved tokens, at most: an id and a log-probability each, and that of the rest.
    pub fn saved_bytes(&self) -> u64 {
        let k = self.section.top_k.unwrap_or(0) as u64;
        self.n_saved_targets.saturating_mul(k.saturating_mul(8).saturating_add(4))
    }
}

/// Plan of a DPO stage.
#[derive(Clone, Debug, PartialEq)]
pub struct DpoPlan {
    /// The recipe's section.
    pub section: DpoSection,
    /// Pairs whose reference log-probabilities are computed, each once; 0 for a loss without reference.
    pub n_reference_pairs: u64,
}

/// Plan of a KTO stage.
#[derive(Clone, Debug, PartialEq)]
pub struct KtoPlan {
    /// The recipe's section.
    pub section: KtoSection,
    /// Texts whose reference log-probabilities are computed: rows, and prompts with the answers of other rows.
    pub n_reference_rows: u64,
    /// Rows of the run for which the policy evaluates a prompt with the answer of another row.
    pub n_kl_rows: u64,
}

/// Plan of a PPO stage: its section, and the models besides the policy.
#[derive(Clone, Debug, PartialEq)]
pub struct PpoPlan {
    /// The recipe's section.
    pub section: PpoSection,
    /// Rewards of an answer, with their models.
    pub rewards: RewardsPlan,
    /// First weights of the value model.
    pub value: Start,
    /// Configuration of the value model; none if it is the policy's.
    pub value_config: Option<ModelConfig>,
    /// Adapter that the value model trains.
    pub value_lora: Option<LoraPlan>,
    /// Parameters of all base models in memory.
    pub n_base_parameters: u64,
    /// Number of those base models.
    pub n_bases: usize,
}

/// Plan of a GRPO stage: its section, and the models besides the policy.
#[derive(Clone, Debug, PartialEq)]
pub struct GrpoPlan {
    /// The recipe's section.
    pub section: GrpoSection,
    /// Rewards of an answer, with their models.
    pub rewards: RewardsPlan,
    /// Whether the reference model is in memory.
    pub has_reference: bool,
    /// Parameters of all base models in memory.
    pub n_base_parameters: u64,
    /// Number of those base models.
    pub n_bases: usize,
    /// Whether answers share their prompt.
    pub prompt_layout: PromptLayout,
    /// Unknown keys in the configurations of the models of rewards, as sentences.
    pub warnings: Vec<String>,
}

impl GrpoPlan {
    /// Optimizer steps of an update.
    pub fn n_updates(&self) -> usize {
        self.section.num_iterations * self.section.n_minibatches.max(1)
    }

    /// Whether the update needs the policy's log-probabilities from before it: without them, its only optimizer step has the
    /// ratio 1.
    pub fn has_old_logprobs(&self) -> bool {
        let section = &self.section;
        let is_rloo = section.advantage == recipe::Advantage::LeaveOneOut;
        let by_old_entropy = section.top_entropy_quantile < 1.0
            && section.conventions == recipe::Conventions::RealTokens;
        self.n_updates() > 1 || by_old_entropy || (is_rloo && self.has_reference)
    }

    /// Forward passes over the answers between sampling and training.
    pub fn n_scoring_passes(&self) -> usize {
        usize::from(self.has_old_logprobs()) + usize::from(self.has_reference)
    }

    /// The rows of passes of `micro_batch` answers over the `n` answers of an update.
    pub fn pass_shape(&self, n: usize, micro_batch: usize) -> PassShape {
        PassShape::of(self.prompt_layout, &self.section, n, micro_batch)
    }

    /// Answers that are sampled together: at least 16 and at least `micro_batch`, in whole groups, so that the prompt of a group
    /// is read once.
    pub fn sampled_together(&self, micro_batch: usize) -> usize {
        let group = self.section.num_generations.max(1);
        micro_batch.max(MIN_SAMPLED_TOGETHER).next_multiple_of(group)
    }
}

/// Answers that are sampled together, at least; `micro_batch` can raise it.
pub const MIN_SAMPLED_TOGETHER: usize = 16;

/// An adapter that a stage trains.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraPlan {
    /// PEFT's settings.
    pub config: LoraConfig,
    /// Its layers and tensors on the stage's model.
    pub layout: AdapterLayout,
    /// Adapter that training continues from; none for a new one.
    pub adapter: Option<Start>,
    /// Type of the frozen base weights in memory.
    pub base_dtype: BaseDtype,
}

/// Source of a stage's first weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// New random weights.
    Fresh,
    /// An earlier stage of the same run, by name. Its `model/` exists once it has finished.
    Stage(String),
    /// A Hugging Face directory, a checkpoint, or an adapter's directory that records its base model.
    Directory(PathBuf),
}

/// Work of a stage, from which its cost, its trained parameters and its probe follow.
#[derive(Clone, Copy, Debug)]
pub enum Work<'p> {
    /// Training on the rows of the data set.
    Rows {
        /// Output of the model that the loss reads.
        output: HeadOutput,
        /// Rows or pairs whose reference log-probabilities are computed before training.
        n_reference: u64,
        /// Rows that are evaluated during training besides the trained ones, to estimate a divergence.
        n_kl_rows: u64,
        /// A distillation, whose teacher evaluates every row.
        distill: Option<&'p DistillPlan>,
    },
    /// Training on answers that the policy samples, with the models of this plan.
    Rollouts(&'p PpoPlan),
    /// Training on groups of answers that the policy samples, without a value model.
    Groups(&'p GrpoPlan),
}

impl Stage {
    /// The stage of a section; `plan_ppo` and `plan_grpo` plan the models of such a stage, `plan_distill` the teacher of a
    /// distillation.
    pub(crate) fn new(
        section: StageSection<'_>,
        plan_ppo: impl FnOnce(&PpoSection) -> Result<PpoPlan>,
        plan_grpo: impl FnOnce(&GrpoSection) -> Result<GrpoPlan>,
        plan_distill: impl FnOnce(&DistillSection) -> Result<DistillPlan>,
    ) -> Result<Self> {
        Ok(match section {
            StageSection::Pretrain(section) => Self::Pretrain(section.clone()),
            StageSection::Sft(section) => Self::Sft(section.clone()),
            StageSection::Distill(section) => Self::Distill(Box::new(plan_distill(section)?)),
            StageSection::Reward(section) => Self::Reward(section.clone()),
            StageSection::Dpo(section) => {
                Self::Dpo(DpoPlan { section: section.clone(), n_reference_pairs: 0 })
            }
            StageSection::Kto(section) => {
                Self::Kto(KtoPlan { section: section.clone(), n_reference_rows: 0, n_kl_rows: 0 })
            }
            StageSection::Ppo(section) => Self::Ppo(Box::new(plan_ppo(section)?)),
            StageSection::Grpo(section) => Self::Grpo(Box::new(plan_grpo(section)?)),
        })
    }

    /// Work of the stage.
    pub fn work(&self) -> Work<'_> {
        let rows = |output| Work::Rows { output, n_reference: 0, n_kl_rows: 0, distill: None };
        match self {
            Self::Pretrain(_) | Self::Sft(_) => rows(HeadOutput::CrossEntropy),
            Self::Distill(distill) => Work::Rows {
                output: HeadOutput::Distributions,
                n_reference: 0,
                n_kl_rows: 0,
                distill: Some(distill),
            },
            Self::Reward(_) => rows(HeadOutput::Scores),
            Self::Dpo(dpo) => Work::Rows {
                output: HeadOutput::LogProbs,
                n_reference: dpo.n_reference_pairs,
                n_kl_rows: 0,
                distill: None,
            },
            Self::Kto(kto) => Work::Rows {
                output: HeadOutput::LogProbs,
                n_reference: kto.n_reference_rows,
                n_kl_rows: kto.n_kl_rows,
                distill: None,
            },
            Self::Ppo(ppo) => Work::Rollouts(ppo),
            Self::Grpo(grpo) => Work::Groups(grpo),
        }
    }

    /// The rewards of a stage that has some, in the recipe and as planned.
    pub(crate) fn rewards(&self) -> Option<(&[Reward], &RewardsPlan)> {
        match self {
            Self::Pretrain(_)
            | Self::Sft(_)
            | Self::Distill(_)
            | Self::Reward(_)
            | Self::Dpo(_)
            | Self::Kto(_) => None,
            Self::Ppo(ppo) => Some((&ppo.section.rewards, &ppo.rewards)),
            Self::Grpo(grpo) => Some((&grpo.section.rewards, &grpo.rewards)),
        }
    }

    /// The keys of the judges in the stage's section.
    pub fn judges(&self) -> impl Iterator<Item = &str> {
        let rewards = match self.work() {
            Work::Rows { .. } => None,
            Work::Groups(grpo) => Some(&grpo.rewards),
            Work::Rollouts(ppo) => Some(&ppo.rewards),
        };
        rewards.into_iter().flat_map(|rewards| rewards.judges.iter().map(|judge| &*judge.key))
    }

    /// Every source of weights besides the trained model's own, by its key in the stage's section.
    pub(crate) fn other_starts(&self) -> Vec<(Cow<'static, str>, &Start)> {
        match self.work() {
            Work::Rows { distill, .. } => {
                let teacher = distill.map(|distill| (Cow::from("teacher"), &distill.teacher));
                teacher.into_iter().collect()
            }
            Work::Groups(grpo) => grpo.rewards.starts().collect(),
            Work::Rollouts(ppo) => {
                let adapter = ppo.value_lora.as_ref().and_then(|lora| lora.adapter.as_ref());
                let adapter = adapter.map(|start| (Cow::from("value.lora.adapter"), start));
                let value = [(Cow::from("value.start"), &ppo.value)];
                ppo.rewards.starts().chain(value).chain(adapter).collect()
            }
        }
    }
}

/// The rewards of a stage.
#[derive(Clone, Debug, PartialEq)]
pub struct RewardsPlan {
    /// Rewards but those of reward models.
    pub stated: Rewards,
    /// Reward models, in the order of the recipe.
    pub models: Vec<RewardModelPlan>,
    /// Judges, in the order of the recipe.
    pub judges: Vec<JudgePlan>,
    /// Directory in which programs run: the recipe's.
    pub program_dir: PathBuf,
    /// SHA-256 of the files of programs, by key and file.
    pub programs: BTreeMap<String, String>,
}

impl RewardsPlan {
    /// The weights of reward models and judges, by their keys in the section.
    pub fn starts(&self) -> impl Iterator<Item = (Cow<'static, str>, &Start)> {
        let models = self.models.iter().map(|model| (model.key.clone(), &model.start));
        models.chain(self.judges.iter().map(|judge| (judge.key.clone(), &judge.start)))
    }
}

/// A reward model.
#[derive(Clone, Debug, PartialEq)]
pub struct RewardModelPlan {
    /// Path of the value that names it within the section.
    pub key: Cow<'static, str>,
    /// Its weights.
    pub start: Start,
    /// Factor of its score in the sum of rewards.
    pub weight: f64,
}

/// A language model that scores completions.
#[derive(Clone, Debug, PartialEq)]
pub struct JudgePlan {
    /// Path of the value that names it within the section.
    pub key: Cow<'static, str>,
    /// Its weights.
    pub start: Start,
    /// Its configuration.
    pub config: Option<ModelConfig>,
    /// Maximum number of tokens of its reply.
    pub max_new_tokens: usize,
}
