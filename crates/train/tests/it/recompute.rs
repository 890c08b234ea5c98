//! Blocks that are recomputed in the backward pass have the same gradients, to the bit, as blocks that store their activations.

use std::collections::BTreeMap;

use arch::ModelConfig;
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};
use lora::{LoraConfig, Targets};
use model::{Adaptable, CausalLm, ScalarModel, parameter_names};
use nn::TokenBatch;
use testkit::{tiny_decoders, tiny_gpt2, tiny_llama, values};
use train::{Gradients, ParameterNames};

const VOCAB: usize = 96;
/// Rows of two texts each, and padding.
const T: usize = 21;
const ROWS: usize = 3;

fn device() -> Device {
    Device::flex().autodiff()
}

fn models() -> Vec<CausalLm> {
    let few = [tiny_llama(VOCAB), tiny_gpt2(VOCAB, true), tiny_gpt2(VOCAB, false)];
    few.iter()
        .chain(&tiny_decoders(VOCAB))
        .map(|value| {
            let config = ModelConfig::from_json(value, "test".as_ref()).expect("a config");
            CausalLm::init(&config, 3, &device())
        })
        .collect()
}

fn tokens() -> TokenBatch {
    rows_of_tokens(ROWS)
}

fn rows_of_tokens(rows: usize) -> TokenBatch {
    let ids: Vec<u32> = (0..(rows * T) as u32).map(|i| i * 31 % VOCAB as u32).collect();
    let row = |_| (0..T).map(|t| if t < 9 { (t as u32, 0) } else { (t as u32 - 9, 1) });
    let (positions, segments): (Vec<u32>, Vec<i32>) = (0..rows).flat_map(row).unzip();
    TokenBatch::new(&ids, &positions, &segments, rows, T, &device())
}

/// The sum of next-token losses over some of the positions.
fn language_loss(model: &CausalLm) -> Tensor<1> {
    loss_of_rows(model, ROWS)
}

fn loss_of_rows(model: &CausalLm, rows: usize) -> Tensor<1> {
    let targets: Vec<i32> =
        (0..(rows * T) as i32).map(|i| if i % 3 == 0 { -1 } else { i * 7 % 96 }).collect();
    let n_targets = targets.iter().filter(|target| **target >= 0).count() as u64;
    let hidden_nd = model.forward(&rows_of_tokens(rows)).hidden_nd();
    let targets_n = Tensor::<1, Int>::from_data(targets.as_slice(), &device());
    loss::cross_entropy(hidden_nd, model.head(), targets_n, n_targets).sum
}

/// A clipped value loss over all positions, as for PPO's value model.
fn value_loss(model: &ScalarModel) -> Tensor<1> {
    let n = ROWS * T;
    let constant = |factor: f32| {
        let values: Vec<f32> = (0..n).map(|i| (i as f32 * factor).sin()).collect();
        Tensor::<1>::from_data(TensorData::new(values, [n]), &Device::flex())
    };
    let is_value_n = Tensor::from_data(TensorData::new(vec![true; n], [n]), &Device::flex());
    let values_n = model.values(&tokens()).reshape([n]);
    loss::ppo_value(values_n, constant(0.3), constant(0.7), is_value_n, n as u64, 0.2).loss.sum
}

/// The loss and every gradient by name.
fn gradients<M: Module>(model: &M, loss: &dyn Fn(&M) -> Tensor<1>) -> BTreeMap<String, Vec<f32>> {
    let names = ParameterNames::of(model);
    let mut gradients = Gradients::new(&names);
    let loss = loss(model);
    let mut found = BTreeMap::from([("loss".to_owned(), values(&loss))]);
    gradients.accumulate(model, || loss.backward());
    for name in names.iter() {
        if let Some(gradient) = gradients.get(name) {
            found.insert(name.to_owned(), values(gradient));
        }
    }
    found
}

/// Compares the gradients with and without recomputation; returns their number.
fn compare<M: Adaptable>(mut model: M, loss: &dyn Fn(&M) -> Tensor<1>) -> usize {
    let save_format = gradients(&model, loss);
    model.backbone_mut().recompute_blocks(true);
    let recomputed = gradients(&model, loss);
    let names: Vec<&String> = save_format.keys().collect();
    assert_eq!(recomputed.keys().collect::<Vec<_>>(), names);
    for (name, want) in &save_format {
        assert!(want.iter().any(|value| *value != 0.0), "{name} has a gradient of zeros");
        assert_eq!(recomputed.get(name), Some(want), "{name}");
    }
    names.len() - 1
}

/// Changes every trainable parameter, so that no factor of an adapter is zero.
struct Shaken;

impl ModuleMapper for Shaken {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !param.is_require_grad() {
            return param;
        }
        kernels::update_param(param, |x| {
            let (shape, n) = (x.dims(), x.shape().num_elements());
            let wave: Vec<f32> = (0..n).map(|i| 0.05 * (i as f32 * 0.7).cos()).collect();
            x + Tensor::from_data(TensorData::new(wave, shape), &Device::flex())
        })
    }
}

#[test]
fn all_weights_of_both_families() {
    for model in models() {
        let n = parameter_names(&model).len();
        assert_eq!(compare(model, &language_loss), n);
    }
}

#[test]
fn a_value_model() {
    for model in models() {
        let config = model.config().clone();
        let model = ScalarModel::from_backbone(model.backbone, &config, 5);
        let n = parameter_names(&model).len();
        assert_eq!(compare(model, &value_loss), n);
    }
}

#[test]
fn adapters_on_frozen_weights_with_and_without_dropout() {
    for dropout in [0.0, 0.25] {
        for model in models() {
            let config = LoraConfig {
                rank: 3,
                alpha: 6.0,
                dropout,
                targets: Targets::AllLinear,
                ..LoraConfig::default()
            };
            let adapted = lora::attach(model, &config, 7).expect("attached");
            let (n, dropout) = (2 * adapted.layers.len(), adapted.dropout);
            let found = compare(adapted.model.map(&mut Shaken), &|model| {
                dropout.set(11);
                let loss = language_loss(model);
                // A later draw differs from the one of this forward pass.
                dropout.set(12);
                loss
            });
            assert_eq!(found, n);
        }
    }
}

#[test]
fn generic_kernels() {
    for model in models() {
        let n = parameter_names(&model).len();
        let found = kernels::with_generic_kernels(|| compare(model, &language_loss));
        assert_eq!(found, n);
    }
}

/// The gradients of later micro-batches are added to the sums inside the matrix products, whose blocks of the inner dimension
/// are shorter than these micro-batches: adding afterwards would round differently.
#[test]
fn several_long_micro_batches() {
    for mut model in models().into_iter().take(2) {
        let sums = |model: &CausalLm| {
            let names = ParameterNames::of(model);
            let mut gradients = Gradients::new(&names);
            for rows in [40, 44, 36] {
                let loss = loss_of_rows(model, rows);
                gradients.accumulate(model, || loss.backward());
            }
            let sum = |name: &str| (name.to_owned(), values(gradients.get(name).expect("a sum")));
            names.iter().map(sum).collect::<BTreeMap<String, Vec<f32>>>()
        };
        let stored = sums(&model);
        model.backbone_mut().recompute_blocks(true);
        let recomputed = sums(&model);
        for (name, want) in &stored {
            assert_eq!(recomputed.get(name), Some(want), "{name}");
        }
    }
}
