//! A tiny scorer over bytes.

use std::path::Path;

use arch::ModelConfig;
use burn::tensor::Device;
use data::Batch;
use model::{CausalLm, ScalarModel};
use testkit::{ByteIds, tiny_llama};

pub(crate) fn config() -> ModelConfig {
    ModelConfig::from_json(&tiny_llama(ByteIds::VOCAB_SIZE), Path::new("tiny")).expect("a config")
}

pub(crate) fn scorer(device: &Device) -> ScalarModel {
    let config = config();
    ScalarModel::from_backbone(CausalLm::init(&config, 3, device).backbone, &config, 4)
}

pub(crate) fn scores(model: &ScalarModel, texts: &[Vec<u32>], pad: u32) -> Vec<f32> {
    scores_of(model, &Batch::of_texts(texts, pad))
}

pub(crate) fn scores_of(model: &ScalarModel, batch: &Batch) -> Vec<f32> {
    let scores = evaluate::text_scores(model, batch, &Device::flex());
    scores.into_data().iter::<f32>().collect()
}
