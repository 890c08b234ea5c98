//! Small modules with known gradients, and a tiny real model with data that are a function of a step.

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Int, Tensor, TensorData};
use model::CausalLm;
use nn::TokenBatch;
use train::{GradNorm, Gradients, Optimizer, ParameterNames, StepPlace};

/// A matrix and a vector.
#[derive(Module, Debug)]
pub(crate) struct Pair {
    pub(crate) matrix: Param<Tensor<2>>,
    pub(crate) vector: Param<Tensor<1>>,
}

/// Five vectors.
#[derive(Module, Debug)]
pub(crate) struct Five {
    pub(crate) parts: Vec<Param<Tensor<1>>>,
}

pub(crate) fn device() -> Device {
    Device::flex().autodiff()
}

pub(crate) fn param<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Param<Tensor<D>> {
    let value = Tensor::from_data(TensorData::new(values, shape), &device()).require_grad();
    Param::initialized(ParamId::new(), value)
}

pub(crate) fn constant<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), &device())
}

impl Pair {
    /// A 2 × 3 matrix and a vector of 4.
    pub(crate) fn new() -> Self {
        let matrix = vec![0.5, -1.0, 2.0, 0.25, -0.125, 3.0];
        Self { matrix: param(matrix, [2, 3]), vector: param(vec![1.0, -2.0, 0.5, 4.0], [4]) }
    }

    /// The loss Σ w·c, whose gradient is c whatever the weights.
    pub(crate) fn linear_loss(&self, matrix: &[f32], vector: &[f32]) -> Tensor<1> {
        (self.matrix.val() * constant(matrix.to_vec(), [2, 3])).sum()
            + (self.vector.val() * constant(vector.to_vec(), [4])).sum()
    }
}

/// AdamW.
pub(crate) fn settings(weight_decay: f64, max_grad_norm: f64) -> recipe::Optimizer {
    recipe::Optimizer { weight_decay, max_grad_norm, ..recipe::Optimizer::adamw(1e-2) }
}

/// An optimizer without groups.
pub(crate) fn optimizer<M: Module>(settings: recipe::Optimizer, model: &M) -> Optimizer {
    Optimizer::new(settings, model).expect("no groups")
}

pub(crate) fn place(step: u64) -> StepPlace<'static> {
    StepPlace { step, samples: &[3, 17, 40] }
}

/// A model of 2 blocks with 259 tokens.
pub(crate) fn tiny_model(seed: u64) -> CausalLm {
    model_of_width(32, seed)
}

/// The same, wider.
pub(crate) fn model_of_width(hidden_size: usize, seed: u64) -> CausalLm {
    let mut config = testkit::tiny_llama(testkit::ByteIds::VOCAB_SIZE);
    config["hidden_size"] = hidden_size.into();
    config["intermediate_size"] = (hidden_size * 7 / 4).into();
    let config = arch::ModelConfig::from_json(&config, std::path::Path::new("tiny")).expect("tiny");
    CausalLm::init(&config, seed, &device())
}

/// One update of `model` on rows that are a function of the step, in micro-batches.
pub(crate) fn update(
    mut model: CausalLm,
    optimizer: &mut Optimizer,
    names: &ParameterNames,
    step: u64,
    n_micro: usize,
    lr: f64,
) -> (CausalLm, f64, GradNorm) {
    let (gradients, loss, n_targets) = gradients_of(&model, names, step, n_micro);
    let norm = gradients.norm(n_targets, place(step + 1)).expect("finite");
    model = optimizer.step(model, gradients, norm, lr);
    (model, loss, norm)
}

/// Gradients of 8 rows of 32 tokens, the mean loss, and how many targets there are.
pub(crate) fn gradients_of(
    model: &CausalLm,
    names: &ParameterNames,
    step: u64,
    n_micro: usize,
) -> (Gradients, f64, u64) {
    const ROWS: usize = 8;
    const T: usize = 32;
    let mut rng = seed::Rng::new(1000 + step);
    let ids: Vec<u32> = (0..ROWS * T).map(|_| rng.below(259) as u32).collect();
    // A third of the positions has no target.
    let targets: Vec<i32> =
        (0..ROWS * T).map(|i| if i % 3 == 0 { -1 } else { rng.below(259) as i32 }).collect();
    let n_targets = targets.iter().filter(|target| **target >= 0).count() as u64;
    let (mut gradients, mut sum) = (Gradients::new(names), 0.0);
    let rows = ROWS / n_micro;
    for (ids, targets) in ids.chunks(rows * T).zip(targets.chunks(rows * T)) {
        let tokens = TokenBatch::of_rows(ids, rows, &device());
        let loss = loss_of(model, &tokens, targets);
        sum += loss.value();
        gradients.accumulate(model, || loss.sum.backward());
    }
    (gradients, sum / n_targets as f64, n_targets)
}

pub(crate) fn loss_of(model: &CausalLm, tokens: &TokenBatch, targets: &[i32]) -> loss::LossSum {
    let n = targets.len();
    let count = targets.iter().filter(|target| **target >= 0).count() as u64;
    let targets: Tensor<1, Int> =
        Tensor::from_data(TensorData::new(targets.to_vec(), [n]), &Device::flex());
    loss::cross_entropy(model.forward(tokens).hidden_nd(), model.head_weight(), targets, count)
}

/// All weights as bits, in module order.
pub(crate) fn bits<M: Module>(model: &M) -> Vec<(String, Vec<u32>)> {
    let mut out = Vec::new();
    let seen: Result<(), std::convert::Infallible> =
        model::visit_tensors(model, |name, _, values| {
            out.push((name.to_owned(), values.iter().map(|v| v.to_bits()).collect()));
            Ok(())
        });
    match seen {
        Ok(()) => out,
    }
}
