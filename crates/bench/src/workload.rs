//! The workloads by name: shape of the model, of the batch, and what is trained.
//!
//! It deliberately offers one way to change a shape, and a workload so changed says that it is not comparable.

use std::path::Path;

use arch::ModelConfig;
use serde_json::{Value, json};

use crate::{Error, Result};

/// Every workload's name.
pub const NAMES: &[&str] =
    &["pretrain7m", "reward7m", "long4096", "lora135m", "full135m", "gen7m", "gen135m", "ppo7m"];

/// What is done with the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Next-token loss on all weights.
    Pretrain,
    /// The same with adapters of rank 16 on every linear layer, the rest frozen.
    Lora,
    /// Pairs and a scalar head.
    Reward,
    /// Sampling with a cache.
    Generation,
    /// Whole updates: sampling, scores of four models, several epochs over two of them.
    Ppo,
}

/// One workload.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) rows: usize,
    /// Tokens of a row; of a prompt where it is continued.
    pub(crate) length: usize,
    /// Tokens that each row is continued by.
    pub(crate) n_new: usize,
    /// Whether the rows are those of the name.
    pub(crate) is_comparable: bool,
    large: bool,
}

impl Workload {
    /// The workload of that name.
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
            _ => (Kind::Generation, 16, 32, 96),
        };
        let large = name.ends_with("135m");
        Ok(Self { name, kind, rows, length, n_new, is_comparable: true, large })
    }

    /// The same with another number of rows, to see how the cost of a token depends on it. Pairs are even in number, so
    /// `reward7m` has one row more where it is asked for an odd one.
    #[must_use]
    pub fn with_rows(self, rows: usize) -> Self {
        let rows = rows.max(1).next_multiple_of(if self.kind == Kind::Reward { 2 } else { 1 });
        Self { rows, is_comparable: false, ..self }
    }

    /// What one repetition counts: episodes, or tokens read in training, or tokens made in generation.
    pub(crate) fn n_counted(&self) -> usize {
        let tokens = if self.n_new > 0 { self.n_new } else { self.length };
        if self.kind == Kind::Ppo { self.rows } else { self.rows * tokens }
    }

    pub(crate) fn config(&self) -> Result<ModelConfig> {
        Ok(ModelConfig::from_json(&self.description(), Path::new(self.name))?)
    }

    fn description(&self) -> Value {
        let (d, layers, heads, kv_heads, ffn, vocabulary, tied, positions) = if self.large {
            (576, 30, 9, 3, 1536, 49152, true, 2048)
        } else {
            (256, 6, 8, 8, 768, 4096, false, 4096)
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
