//! Tiny models, golden folders, and everything of a model by name.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};

use arch::ModelConfig;
use burn::module::Module;
use burn::tensor::Device;
use lora::{LoraConfig, Targets};
use model::{Adaptable, CausalLm, load_causal_lm};
use nn::TokenBatch;
use serde_json::Value;
use testkit::{Golden, golden_dir, values};

pub(crate) fn device() -> Device {
    Device::flex().autodiff()
}

pub(crate) fn config_of(value: &Value) -> ModelConfig {
    ModelConfig::from_json(value, Path::new("config.json")).expect("a config")
}

pub(crate) fn tiny_llama(device: &Device) -> CausalLm {
    CausalLm::init(&config_of(&testkit::tiny_llama(96)), 3, device)
}

pub(crate) fn tiny_gpt2(device: &Device) -> CausalLm {
    CausalLm::init(&config_of(&testkit::tiny_gpt2(96, true)), 3, device)
}

pub(crate) fn names(targets: &[&str]) -> Targets {
    Targets::Names(targets.iter().map(|target| (*target).to_owned()).collect())
}

pub(crate) fn settings(targets: Targets) -> LoraConfig {
    LoraConfig { rank: 3, alpha: 6.0, targets, ..LoraConfig::default() }
}

pub(crate) fn some_tokens(device: &Device) -> TokenBatch {
    let ids: Vec<u32> = (0..14).map(|i| i * 31 % 96).collect();
    TokenBatch::of_rows(&ids, 2, device)
}

pub(crate) fn logits(model: &CausalLm) -> Vec<f32> {
    let tokens = some_tokens(&Device::flex());
    values(&model.logits(model.forward(&tokens).hidden_btd))
}

/// Every parameter's values by name.
pub(crate) fn weights<M: Module>(model: &M) -> BTreeMap<String, Vec<f32>> {
    let mut all = BTreeMap::new();
    let seen: Result<(), Infallible> = model::visit_tensors(model, |name, _, values| {
        all.insert(name.to_owned(), values.to_vec());
        Ok(())
    });
    assert!(seen.is_ok());
    all
}

/// The model with other numbers in every parameter, so that its adapters do something.
pub(crate) fn with_waves<M: Adaptable>(model: M) -> M {
    struct Waves;
    impl model::ParameterSource for Waves {
        fn values(&mut self, name: &str, shape: &[usize]) -> model::Result<Vec<f32>> {
            let n: usize = shape.iter().product();
            let phase = name.len() as f32;
            Ok((0..n).map(|i| (i as f32 * 0.7 + phase).sin() * 0.2).collect())
        }
    }
    model::load_state_dict(model, &mut Waves).expect("values")
}

/// The directory of a PEFT reference adapter.
pub(crate) fn adapter_case(case: &str) -> PathBuf {
    golden_dir(&format!("adapters/{case}"))
}

pub(crate) fn adapter_base(device: &Device) -> CausalLm {
    load_causal_lm(&golden_dir("adapters/base"), device).expect("the base")
}

/// (tokens, logits) of a case.
pub(crate) fn io_of(dir: &Path) -> (TokenBatch, Vec<f32>) {
    let io = Golden::open(&dir.join("io.safetensors"));
    let rows = io.shape("input_ids")[0];
    (TokenBatch::of_rows(&io.ids("input_ids"), rows, &Device::flex()), io.f32("logits"))
}
