//! The stages of a plan: each kind with what its algorithm needs, the adapters and the weights to
//! start from.

use std::path::PathBuf;

use arch::{AdapterLayout, LoraConfig, ModelConfig};
use recipe::{BaseDtype, DpoSection, PpoSection, PretrainSection, RewardSection, SftSection};

/// A stage's algorithm with its own part of the plan.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// Pretraining on documents.
    Pretrain(PretrainSection),
    /// Supervised fine-tuning on chats.
    Sft(SftSection),
    /// Reward model on pairs.
    Reward(RewardSection),
    /// Preference optimization on pairs.
    Dpo(DpoPlan),
    /// Policy optimization against a reward model.
    Ppo(Box<PpoPlan>),
}

/// Plan of a DPO stage.
#[derive(Clone, Debug, PartialEq)]
pub struct DpoPlan {
    /// The recipe's section.
    pub section: DpoSection,
    /// Pairs whose reference log-probabilities are computed, each once; 0 for a loss without reference.
    pub n_reference_pairs: u64,
}

/// Plan of a PPO stage: its section, and the models besides the policy.
#[derive(Clone, Debug, PartialEq)]
pub struct PpoPlan {
    /// The recipe's section.
    pub section: PpoSection,
    /// Weights of the reward model.
    pub reward: Start,
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

impl Stage {
    /// Every source of weights besides the trained model's own.
    pub(crate) fn other_starts(&self) -> Vec<&Start> {
        match self {
            Self::Pretrain(_) | Self::Sft(_) | Self::Reward(_) | Self::Dpo(_) => Vec::new(),
            Self::Ppo(ppo) => {
                let adapter = ppo.value_lora.as_ref().and_then(|lora| lora.adapter.as_ref());
                [&ppo.reward, &ppo.value].into_iter().chain(adapter).collect()
            }
        }
    }
}
