//! The rate of matrix products in the shapes of small models: the upper bound on the speed of training.
//!
//! Products are computed by the kernels of training, so the rest of a step explains the difference.

use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};

/// Rows, inner width, columns.
const SHAPES: [[usize; 3]; 4] =
    [[2048, 256, 768], [2048, 768, 256], [512, 576, 1536], [1024, 256, 4096]];
/// Repetitions of each shape; the fastest one is used.
const N_REPETITIONS: usize = 40;

/// Billions of multiplications and additions per second, over all shapes.
pub(crate) fn gflop_per_second() -> f64 {
    let device = Device::flex();
    let (mut flop, mut seconds) = (0.0, 0.0);
    for [m, k, n] in SHAPES {
        let a = Tensor::<2>::random([m, k], Distribution::Default, &device);
        let b = Tensor::<2>::random([n, k], Distribution::Default, &device);
        let once = || {
            let start = Instant::now();
            let product = kernels::linear(a.clone(), b.clone(), None);
            (start.elapsed().as_secs_f64(), product)
        };
        let fastest = (0..N_REPETITIONS).map(|_| once().0).fold(f64::INFINITY, f64::min);
        flop += 2.0 * (m * k * n) as f64;
        seconds += fastest;
    }
    flop / seconds / 1e9
}
