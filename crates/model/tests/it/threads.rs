//! Losses and gradients have the same bits with any number of threads, and each time.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor};
use loss::cross_entropy;
use model::CausalLm;
use nn::TokenBatch;
use testkit::{tiny_gpt2, tiny_llama, values};

use crate::support::{config, targets_tensor};

struct Bits {
    gradients: Gradients,
    all: Vec<u32>,
}

impl ModuleVisitor for Bits {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let gradient = param.val().grad(&self.gradients).expect("a gradient");
        self.all.extend(values(&gradient).into_iter().map(f32::to_bits));
    }
}

/// The bits of the loss and of every gradient of one batch. With `prefixes`, rows are a prompt of 20 tokens and answers of
/// 11 to it.
fn bits(config: &arch::ModelConfig, prefixes: bool) -> Vec<u32> {
    let device = Device::flex().autodiff();
    let (rows, t, v) = (6, 64, config.vocab_size());
    let ids: Vec<u32> = (0..(rows * t) as u32).map(|i| i * i % v as u32).collect();
    let targets: Vec<i32> =
        ids.iter().map(|id| if id % 5 == 0 { -1 } else { (*id * 3 % v as u32) as i32 }).collect();
    let model = CausalLm::init(config, 4, &device);
    let batch = if prefixes {
        let at = |of: fn(usize) -> usize| (0..rows * t).map(move |i| of(i % 64));
        let positions: Vec<u32> =
            at(|i| if i < 20 { i } else { 20 + (i - 20) % 11 }).map(|at| at as u32).collect();
        let segments: Vec<i32> =
            at(|i| if i < 20 { 0 } else { 1 + (i - 20) / 11 }).map(|at| at as i32).collect();
        let batch = TokenBatch::new(&ids, &positions, &segments, rows, t, &device);
        batch.with_prefixes(vec![0; rows * t])
    } else {
        TokenBatch::of_rows(&ids, rows, &device)
    };
    let hidden = model.forward(&batch).hidden_nd();
    let loss = cross_entropy(hidden, model.head_weight(), targets_tensor(&targets), 1);
    let all = values(&loss.sum).into_iter().map(f32::to_bits).collect();
    let mut visitor = Bits { gradients: loss.sum.backward(), all };
    model.visit(&mut visitor);
    visitor.all
}

#[test]
fn the_same_bits_with_any_number_of_threads() {
    // Large enough that products and fused operations are split over threads.
    let mut llama = tiny_llama(700);
    llama["hidden_size"] = 128.into();
    llama["intermediate_size"] = 300.into();
    let mut gpt2 = tiny_gpt2(700, true);
    gpt2["n_embd"] = 132.into();
    let cases = [(&llama, false), (&llama, true), (&gpt2, false), (&gpt2, true)];
    for (value, prefixes) in cases {
        let config = config(value);
        let with = |n: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build().expect("threads");
            pool.install(|| bits(&config, prefixes))
        };
        let one = with(1);
        for n in 1..=8 {
            assert!(with(n) == one, "{n} threads");
        }
    }
}
