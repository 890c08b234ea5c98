//! The kind of a reference, determined from its files.

use std::path::Path;

use arch::ModelInfo;

use super::group::{self, Trainer};
use super::vectors::{Vectors, WIDENED_LOGITS};
use super::{group_losses, proof};
use crate::error::{Error, Result};

/// The kinds of reference vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A language model's directory with logits, hidden states, loss, gradients, continuations.
    CausalLm,
    /// A language model's directory with logits of widened weights only.
    WidenedLm,
    /// Training steps on all weights.
    TrainingFull,
    /// Next-token distributions.
    Sampling,
    /// A sequence classifier's directory with scores and pair losses.
    Reward,
    /// A PEFT directory with logits and merged weights.
    Adapter,
    /// A PEFT directory with the starting values of its factors.
    AdapterInit,
    /// Codes and values of packed weights.
    PackedBlocks,
    /// Blocks of GGUF files.
    GgufBlocks,
    /// A linear layer of packed weights.
    PackedLayer,
    /// A language model's directory with packed weights.
    PackedLm,
    /// Training steps on an adapter.
    TrainingLora,
    /// A whole PPO update.
    Ppo,
    /// A whole GRPO update.
    Grpo,
    /// A whole RLOO update.
    Rloo,
    /// Losses and advantages of GRPO, with gradients.
    GroupLosses,
    /// Preference losses.
    Preference,
    /// Preference losses over logits, with gradients.
    PairLosses,
    /// Preference losses over log-probabilities of whole answers.
    AnswerLosses,
    /// Losses on labelled answers over logits, with gradients.
    UnpairedLosses,
    /// Divergences between a teacher's and a student's logits, with gradients.
    Distillation,
    /// A PEFT directory that must be refused, by the name of its directory.
    Refusal,
    /// An export with its proof.
    Proof,
}

impl Kind {
    /// The name in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::CausalLm => "causal-lm",
            Self::WidenedLm => "causal-lm-widened",
            Self::TrainingFull => "training-full",
            Self::Sampling => "sampling",
            Self::Reward => "reward",
            Self::Adapter => "adapter",
            Self::AdapterInit => "adapter-init",
            Self::PackedBlocks => "packed-blocks",
            Self::GgufBlocks => "gguf-blocks",
            Self::PackedLayer => "packed-layer",
            Self::PackedLm => "packed-lm",
            Self::TrainingLora => "training-lora",
            Self::Ppo => "ppo",
            Self::Grpo => "grpo",
            Self::Rloo => "rloo",
            Self::GroupLosses => "grpo-losses",
            Self::Preference => "preference",
            Self::PairLosses => "pair-losses",
            Self::AnswerLosses => "answer-losses",
            Self::UnpairedLosses => "unpaired-losses",
            Self::Distillation => "distillation",
            Self::Refusal => "refusal",
            Self::Proof => "proof",
        }
    }

    /// The kind of a directory or file; `None` for a directory that is not a reference itself.
    pub(crate) fn of(path: &Path) -> Result<Option<Self>> {
        if proof::has_proof(path) {
            return Ok(Some(Self::Proof));
        }
        if path.is_dir() {
            return Self::of_dir(path);
        }
        let vectors = Vectors::open(path)?;
        let names = vectors.names();
        if names.iter().any(|name| name.starts_with("probs.")) {
            return Ok(Some(Self::Sampling));
        }
        if names.iter().any(|name| name.starts_with("dpo_")) {
            return Ok(Some(Self::Preference));
        }
        if names.iter().any(|name| name == "mean.sigmoid") {
            return Ok(Some(Self::PairLosses));
        }
        if names.iter().any(|name| name == "cpo.sigmoid") {
            return Ok(Some(Self::AnswerLosses));
        }
        if names.iter().any(|name| name == "kl_positive.rows.kto") {
            return Ok(Some(Self::UnpairedLosses));
        }
        if names.iter().any(|name| name.starts_with("per_token.")) {
            return Ok(Some(Self::Distillation));
        }
        if names.iter().any(|name| name == "nf4.table") {
            return Ok(Some(Self::PackedBlocks));
        }
        if names.iter().any(|name| name == "nf4.grad_x") {
            return Ok(Some(Self::PackedLayer));
        }
        if names.iter().any(|name| name == "Q4_0.bytes") {
            return Ok(Some(Self::GgufBlocks));
        }
        Err(Error::NoReference { path: path.to_owned() })
    }

    fn of_dir(dir: &Path) -> Result<Option<Self>> {
        let has = |name: &str| dir.join(name).exists();
        let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("refuse-") && has("adapter_config.json") {
            return Ok(Some(Self::Refusal));
        }
        if has("batches.safetensors") {
            let lora = has("adapter_start");
            return Ok(Some(if lora { Self::TrainingLora } else { Self::TrainingFull }));
        }
        if has("rollout.safetensors") {
            return Ok(Some(match group::trainer(dir) {
                Some(Trainer::Grpo) => Self::Grpo,
                Some(Trainer::Rloo) => Self::Rloo,
                None => Self::Ppo,
            }));
        }
        if has(group_losses::CASES) && has(group_losses::GRADS) {
            return Ok(Some(Self::GroupLosses));
        }
        if has("adapter_config.json") && has("init.safetensors") {
            return Ok(Some(Self::AdapterInit));
        }
        if !has("io.safetensors") {
            return Ok(None);
        }
        if has("adapter_config.json") {
            return Ok(Some(Self::Adapter));
        }
        let io = Vectors::open(&dir.join("io.safetensors"))?;
        if !io.has("scores") && ModelInfo::read(dir)?.quantization.is_some() {
            return Ok(Some(Self::PackedLm));
        }
        Ok(Some(if io.has("scores") {
            Self::Reward
        } else if io.has(WIDENED_LOGITS) {
            Self::WidenedLm
        } else {
            Self::CausalLm
        }))
    }
}
