//! The workloads by name: shape of the model, of the batch, and what is trained.
//!
//! It deliberately offers one way to change a shape, and a workload so changed says that it is not comparable.

use std::path::Path;

use arch::ModelConfig;
use serde_json::{Value, json};

use crate::{Error, Result};

/// Every workload's name.
pub const NAMES: &[&str] = &[
    "pretrain7m",
    "reward7m",
    "long4096",
    "lora135m",
    "full135m",
    "gen7m",
    "gen135m",
    "ppo7m",
    "gpt124m",
    "full1b",
    "lora1b",
    "gen1b",
];

/// The shape of a workload's model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    /// 7 M parameters.
    Small,
    /// SmolLM2's 135 M.
    Medium,
    /// GPT-2's 124 M; what a GPU is timed with, as are the larger ones.
    Gpt,
    /// TinyLlama's 1.1 B.
    Large,
}

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
    size: Size,
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
    use super::{NAMES, Workload};

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
