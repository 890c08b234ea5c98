//! Helpers of the test modules.

use std::path::PathBuf;

use arch::ModelConfig;
use burn::tensor::{Device, Int, Tensor, TensorData};
use model::CausalLm;
use nn::TokenBatch;
use serde_json::Value;
use testkit::{Golden, golden_dir};

/// The directories of the golden causal language models.
pub(crate) fn golden_models() -> Vec<PathBuf> {
    ["llama", "llama-tied-rope3", "llama-bias-headdim", "llama-mlp-bias", "gpt2", "qwen3"]
        .iter()
        .map(|name| golden_dir(&format!("models/{name}")))
        .collect()
}

pub(crate) fn config(value: &Value) -> ModelConfig {
    ModelConfig::from_json(value, "test".as_ref()).expect("a test's config")
}

/// The padded batch of io.safetensors.
pub(crate) struct Io {
    pub(crate) golden: Golden,
    pub(crate) rows: usize,
    pub(crate) t: usize,
    pub(crate) ids: Vec<u32>,
    pub(crate) mask: Vec<bool>,
}

impl Io {
    pub(crate) fn open(dir: &std::path::Path) -> Self {
        let golden = Golden::open(&dir.join("io.safetensors"));
        let shape = golden.shape("input_ids");
        let ids = golden.ids("input_ids");
        let mask = if golden.has("attention_mask") {
            golden.i64("attention_mask").into_iter().map(|value| value != 0).collect()
        } else {
            vec![true; ids.len()]
        };
        Self { golden, rows: shape[0], t: shape[1], ids, mask }
    }

    pub(crate) fn tokens(&self, device: &Device) -> TokenBatch {
        TokenBatch::padded(&self.ids, &self.mask, self.rows, device)
    }

    /// Labels moved to the position that predicts them; -1 where there is none.
    pub(crate) fn targets(&self) -> Vec<i32> {
        let labels = self.golden.i64("labels");
        let next = |i: usize| match labels.get(i + 1) {
            Some(label) if !(i + 1).is_multiple_of(self.t) && *label >= 0 => *label as i32,
            _ => -1,
        };
        (0..labels.len()).map(next).collect()
    }

    /// The rows of values `[b, t, width]` at unpadded positions.
    pub(crate) fn unpadded(&self, values: &[f32]) -> Vec<f32> {
        let width = values.len() / self.mask.len();
        let rows = values.chunks(width).zip(&self.mask).filter(|(_, real)| **real);
        rows.flat_map(|(row, _)| row.to_vec()).collect()
    }
}

pub(crate) fn targets_tensor(targets: &[i32]) -> Tensor<1, Int> {
    let n = targets.len();
    Tensor::from_data(TensorData::new(targets.to_vec(), [n]), &Device::flex())
}

/// Logits of every position, row after row.
pub(crate) fn logits(model: &CausalLm, tokens: &TokenBatch) -> Vec<f32> {
    testkit::values(&model.logits(model.forward(tokens).hidden_btd))
}
