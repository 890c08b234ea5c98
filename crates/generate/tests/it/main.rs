//! Tests of generate: the filters alone, and whole generations with tiny models.

mod generation;
mod live;
mod refusals;
mod sampling;

use std::path::Path;

use arch::ModelConfig;
use model::CausalLm;
use testkit::golden_dir;

/// The golden llama: 320 ids, 128 positions, weights large enough that every token matters.
fn golden_llama() -> CausalLm {
    let device = kernels::device("cpu").unwrap();
    model::load_causal_lm(&golden_dir("models/llama"), &device).unwrap()
}

/// A model with random weights from a config.json value.
fn tiny(config: &serde_json::Value) -> CausalLm {
    let config = ModelConfig::from_json(config, Path::new("tiny")).unwrap();
    CausalLm::init(&config, 1, &kernels::device("cpu").unwrap())
}
