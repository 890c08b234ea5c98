//! The AdamW update of one tensor, in place, and sums of squares.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::flex;
use crate::simd::multiversion;
use crate::team::AllThreads as _;

/// Elements per task and per partial sum; fixed, so that no result depends on the number of threads.
const BLOCK: usize = 16 * 1024;

/// Factors of one AdamW update, the same for every element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamwCoefficients {
    /// Factor of the gradient.
    pub grad_scale: f32,
    /// β₁
    pub beta1: f32,
    /// 1 − β₁
    pub one_minus_beta1: f32,
    /// β₂
    pub beta2: f32,
    /// 1 − β₂
    pub one_minus_beta2: f32,
    /// 1 − learning rate · weight decay
    pub keep: f32,
    /// learning rate / (1 − β₁ᵗ)
    pub step_size: f32,
    /// 1 / sqrt(1 − β₂ᵗ)
    pub inverse_root_correction2: f32,
    /// ε
    pub eps: f32,
}

/// One update of a weight and of its moments `m` and `v`, all flat and f32, in place. A buffer that another tensor
/// shares is copied first.
pub fn adamw_update(
    weight: &mut FlexTensor,
    grad: &FlexTensor,
    [m, v]: [&mut FlexTensor; 2],
    c: AdamwCoefficients,
) {
    flex::make_dense(weight);
    flex::make_dense(m);
    flex::make_dense(v);
    let grad = flex::values(grad);
    let tasks = weight
        .storage_mut::<f32>()
        .par_chunks_mut(BLOCK)
        .zip(m.storage_mut::<f32>().par_chunks_mut(BLOCK))
        .zip(v.storage_mut::<f32>().par_chunks_mut(BLOCK))
        .zip(grad.par_chunks(BLOCK));
    tasks.on_all_threads(|(((weight, m), v), grad)| update_block(weight, m, v, grad, c));
}

/// Σ x², in f64 over blocks whose borders depend on the length alone.
pub fn sum_of_squares(x: &FlexTensor) -> f64 {
    let blocks = flex::values(x).par_chunks(BLOCK).map_on_all_threads(squares);
    blocks.iter().sum()
}

multiversion! {
    fn update_block(
        weight: &mut [f32],
        m: &mut [f32],
        v: &mut [f32],
        grad: &[f32],
        c: AdamwCoefficients,
    ) {
        for (((w, m), v), g) in weight.iter_mut().zip(m).zip(v).zip(grad) {
            let g = g * c.grad_scale;
            *m = c.beta1 * *m + c.one_minus_beta1 * g;
            *v = c.beta2 * *v + c.one_minus_beta2 * g * g;
            let denominator = v.sqrt() * c.inverse_root_correction2 + c.eps;
            *w = *w * c.keep - c.step_size * (*m / denominator);
        }
    }
}

multiversion! {
    /// Σ x² in f64, in sixteen partial sums.
    fn squares(values: &[f32]) -> f64 {
        let mut lanes = [0.0_f64; 16];
        let (chunks, rest) = values.as_chunks::<16>();
        for chunk in chunks {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane += f64::from(*value) * f64::from(*value);
            }
        }
        for (lane, value) in lanes.iter_mut().zip(rest) {
            *lane += f64::from(*value) * f64::from(*value);
        }
        lanes.iter().sum()
    }
}
