//! Recomputed blocks: number of calls, and gradients with trained and frozen parameters.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use kernels::recompute;
use testkit::values;

use crate::support::random;

/// `tanh(x·w)·v`, where `v` may be frozen.
#[derive(Module, Debug)]
struct Block {
    w: Param<Tensor<2>>,
    v: Param<Tensor<2>>,
}

impl Block {
    fn new(trains_v: bool) -> Self {
        let param = |seed| random([5, 5], seed, &Device::flex().autodiff()).require_grad();
        let block = Self { w: Param::from_tensor(param(1)), v: Param::from_tensor(param(2)) };
        Self { v: block.v.set_require_grad(trains_v), ..block }
    }

    fn forward(&self, x_btd: Tensor<3>) -> Tensor<3> {
        let inner = x_btd.matmul(self.w.val().unsqueeze()).tanh();
        inner.matmul(self.v.val().unsqueeze())
    }
}

#[test]
fn the_block_is_computed_again_for_the_gradients_of_trained_parameters() {
    for (trains_v, trains_x) in [(true, true), (false, true), (true, false), (false, false)] {
        let block = Block::new(trains_v);
        let device = Device::flex().autodiff();
        let x_btd = random([2, 3, 5], 3, &device).set_require_grad(trains_x);
        let calls = Arc::new(AtomicUsize::new(0));
        let run = |recomputes: bool| {
            let counted = calls.clone();
            let forward = move |block: &Block, x_btd| {
                counted.fetch_add(1, Ordering::Relaxed);
                block.forward(x_btd)
            };
            let out = if recomputes {
                recompute(block.clone(), x_btd.clone(), forward)
            } else {
                forward(&block, x_btd.clone())
            };
            // The output is used twice, and another block follows.
            let out = recompute(block.clone(), out.clone() * out, Block::forward);
            let mut gradients = out.sum().backward();
            let of = [&block.w, &block.v]
                .map(|param| param.val().grad_remove(&mut gradients).map(|grad| values(&grad)));
            (of, x_btd.grad(&gradients).map(|grad| values(&grad)))
        };
        let kept = run(false);
        assert_eq!(calls.swap(0, Ordering::Relaxed), 1);
        assert_eq!(run(true), kept);
        assert_eq!(calls.load(Ordering::Relaxed), 2);
        assert_eq!((kept.0[1].is_some(), kept.1.is_some()), (trains_v, trains_x));
    }
}

#[test]
fn without_a_graph_the_function_is_called_once() {
    let (block, calls) = (Block::new(true), Arc::new(AtomicUsize::new(0)));
    for block in [block.valid(), block.no_grad()] {
        let x_btd = random([1, 2, 5], 3, &block.w.val().device());
        let want = values(&block.forward(x_btd.clone()));
        let counted = calls.clone();
        let found = recompute(block, x_btd, move |block: &Block, x_btd| {
            counted.fetch_add(1, Ordering::Relaxed);
            block.forward(x_btd)
        });
        assert!(!found.is_require_grad());
        assert_eq!(values(&found), want);
    }
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}
