//! The workloads by name: model, shape of the batch, and what is trained.
//!
//! Only the number of rows can be changed; the report of such a workload says that it is not comparable.

use std::path::Path;

use arch::ModelConfig;
use serde_json::{Value, json};

use crate::names::NAMES;
use crate::{Error, Result};

/// Completions of a prompt.
pub(crate) const N_GENERATIONS: usize = 8;

/// The shape of a workload's model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    /// 7 M parameters.
    Small,
    /// SmolLM2's 135 M.
    Medium,
    /// GPT-2's 124 M. This and larger models are for GPUs.
    Gpt,
    /// TinyLlama's 1.1 B.
    Large,
}

/// The task of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Next-token loss on all weights.
    Pretrain,
    /// Next-token loss on adapters of rank 16 on every linear layer.
    Lora,
    /// Pairwise loss on all weights and a scalar head.
    Reward,
    /// Sampling with a KV cache.
    Generation,
    /// Whole PPO updates: sampling, scores of four models, several epochs of training on two of them.
    Ppo,
    /// Whole GRPO updates: sampling of groups, advantages, one optimizer step. `rows` are prompts.
    Grpo,
}

impl Kind {
    /// Whether a repetition's size is its number of episodes.
    pub(crate) fn counts_episodes(self) -> bool {
        matches!(self, Self::Ppo | Self::Grpo)
    }
}

/// One workload.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) rows: usize,
    /// Tokens of a row; for generation, of a prompt.
    pub(crate) length: usize,
    /// Tokens sampled for each row.
    pub(crate) n_new: usize,
    /// Whether the number of rows is the workload's own.
    pub(crate) is_comparable: bool,
    size: Size,
}

impl Workload {
    /// The workload with a name.
    pub fn named(name: &str) -> Result<Self> {
        let known = NAMES.iter().copied().find(|known| *known == name);
        let name = known.ok_or_else(|| Error::UnknownWorkload(name.to_owned()))?;
        let (kind, rows, length, n_new) = match name {
            "pretrain7m" => (Kind::Pretrain, 8, 256, 0),
            "reward7m" => (Kind::Reward, 16, 128, 0),
            "long4096" => (Kind::Pretrain, 1, 4096, 0),
            "lora135m" => (Kind::Lora, 2, 256, 0),
            "full135m" => (Kind::Pretrain, 2, 256, 0),
            "ppo7m" => (Kind::Ppo, 16, 32, 64),
            "grpo7m" => (Kind::Grpo, 16, 32, 64),
            "gpt124m" | "full1b" => (Kind::Pretrain, 8, 1024, 0),
            "lora1b" => (Kind::Lora, 8, 1024, 0),
            _ => (Kind::Generation, 16, 32, 96),
        };
        let size = match name {
            "gpt124m" => Size::Gpt,
            name if name.ends_with("135m") => Size::Medium,
            name if name.ends_with("1b") => Size::Large,
            _ => Size::Small,
        };
        Ok(Self { name, kind, rows, length, n_new, is_comparable: true, size })
    }

    /// The same workload with another number of rows, to measure how the cost of a token depends on it. `reward7m` rounds
    /// an odd number up, because its rows are pairs.
    #[must_use]
    pub fn with_rows(self, rows: usize) -> Self {
        let rows = rows.max(1).next_multiple_of(if self.kind == Kind::Reward { 2 } else { 1 });
        Self { rows, is_comparable: false, ..self }
    }

    /// The number of episodes, training tokens or generated tokens in one repetition.
    pub(crate) fn n_counted(&self) -> usize {
        let tokens = if self.n_new > 0 { self.n_new } else { self.length };
        match self.kind {
            Kind::Ppo => self.rows,
            Kind::Grpo => self.rows * N_GENERATIONS,
            Kind::Pretrain | Kind::Lora | Kind::Reward | Kind::Generation => self.rows * tokens,
        }
    }

    pub(crate) fn config(&self) -> Result<ModelConfig> {
        Ok(ModelConfig::from_json(&self.description(), Path::new(self.name))?)
    }

    fn description(&self) -> Value {
        let (d, layers, heads, kv_heads, ffn, vocabulary, tied, positions) = match self.size {
            Size::Small => (256, 6, 8, 8, 768, 4096, false, 4096),
            Size::Medium => (576, 30, 9, 3, 1536, 49152, true, 2048),
            Size::Large => (2048, 22, 32, 4, 5632, 32000, false, 2048),
            Size::Gpt => return gpt2_small(),
        };
        json!({
            "model_type": "llama",
            "vocab_size": vocabulary,
            "hidden_size": d,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "intermediate_size": ffn,
            "max_position_embeddings": positions,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10_000.0,
            "tie_word_embeddings": tied,
            "hidden_act": "silu",
        })
    }
}

/// GPT-2's smallest model.
fn gpt2_small() -> Value {
    json!({
        "model_type": "gpt2",
        "vocab_size": 50257,
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "n_positions": 1024,
        "n_inner": 3072,
        "layer_norm_epsilon": 1e-5,
        "activation_function": "gelu_new",
        "tie_word_embeddings": true,
    })
}

#[cfg(test)]
mod tests {
    use super::Workload;
    use crate::names::NAMES;

    #[test]
    fn shapes_have_the_sizes_of_their_names() {
        for name in NAMES {
            let config = Workload::named(name).and_then(|workload| workload.config()).expect(name);
            let millions = config.n_parameters() as f64 / 1e6;
            let expected = match *name {
                "gpt124m" => 124.4..124.5,
                name if name.ends_with("135m") => 134.0..135.0,
                name if name.ends_with("1b") => 1100.0..1100.1,
                _ => 6.0..8.0,
            };
            assert!(expected.contains(&millions), "{name}: {millions} M");
        }
    }
}
