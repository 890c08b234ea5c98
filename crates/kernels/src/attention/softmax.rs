//! The softmax of scores under a mask: what attention spends its time on besides products.
//!
//! It deliberately keeps only the probabilities for the backward pass, which the product with the
//! values keeps anyway.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::flex;
use crate::vector::{self, widest};

/// Values of scores that one task works on.
const TASK: usize = 32 * 1024;

/// `softmax(scores · scale + mask)` over the last axis.
///
/// scores `[b, h, t, s]`; mask `[b, 1, t, s]` of 0 where visible and a very large negative number
/// where not.
pub(super) fn masked_softmax(
    scores_bhts: Tensor<4>,
    mask_b1ts: Tensor<4>,
    scale: f64,
) -> Tensor<4> {
    let probs = <Dispatch as SoftmaxOps>::masked_softmax(
        scores_bhts.into_dispatch(),
        mask_b1ts.into_dispatch(),
        scale as f32,
    );
    Tensor::from_dispatch(probs)
}

/// The operation on each backend: plain operations, fused ones on the CPU.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait SoftmaxOps: Backend {
    fn softmax_forward(
        scores: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self> {
        let scaled = Self::float_mul_scalar(scores, scale.into());
        Self::softmax(Self::float_add(scaled, mask), 3)
    }

    fn softmax_backward(
        probs: FloatTensor<Self>,
        d_probs: FloatTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self> {
        let weighted = Self::float_mul(probs.clone(), d_probs);
        let sum = Self::float_sum_dim(weighted.clone(), 3);
        let d_scaled = Self::float_sub(weighted, Self::float_mul(probs, sum));
        Self::float_mul_scalar(d_scaled, scale.into())
    }

    fn masked_softmax(
        scores: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self> {
        Self::softmax_forward(scores, mask, scale)
    }
}

impl<B: SoftmaxOps, C: CheckpointStrategy> SoftmaxOps for Autodiff<B, C> {
    fn masked_softmax(
        scores: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct SoftmaxBackward;
        impl<B: SoftmaxOps> Backward<B, 1> for SoftmaxBackward {
            type State = (FloatTensor<B>, f32);

            fn backward(
                self,
                ops: Ops<Self::State, 1>,
                grads: &mut Gradients,
                _: &mut Checkpointer,
            ) {
                let d_probs = grads.consume::<B>(&ops.node);
                let (probs, scale) = ops.state;
                if let [Some(scores)] = ops.parents {
                    let d_scores = B::softmax_backward(probs, d_probs, scale);
                    grads.register::<B>(scores.id, d_scores);
                }
            }
        }
        let prepared = SoftmaxBackward.prepare::<C>([scores.node()]).compute_bound().stateful();
        let probs = |scores: FloatTensor<Self>| {
            B::softmax_forward(scores.into_primitive(), mask.into_primitive(), scale)
        };
        match prepared {
            OpsKind::Tracked(prepared) => {
                let probs = probs(scores);
                prepared.finish((probs.clone(), scale), probs)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(probs(scores)),
        }
    }
}

impl SoftmaxOps for Flex {
    fn softmax_forward(scores: FlexTensor, mask: FlexTensor, scale: f32) -> FlexTensor {
        let [b, h, t, s] = dims(&scores);
        let mask = flex::values(&mask);
        let ranges: Vec<(usize, usize)> = mask.par_chunks(s).map(visible_range).collect();
        let mut scores = flex::own(scores);
        let rows_per_task = (TASK / s).max(1);
        let rows = scores.storage_mut::<f32>().par_chunks_mut(s * rows_per_task).enumerate();
        rows.for_each(|(task, rows)| {
            for (idx, row) in rows.chunks_mut(s).enumerate() {
                let row_idx = task * rows_per_task + idx;
                // The mask is the same for every head.
                let mask_idx = row_idx / (h * t) * t + row_idx % t;
                debug_assert!(mask_idx < b * t);
                let (start, end) = ranges[mask_idx];
                row[..start].fill(0.0);
                row[end..].fill(0.0);
                softmax_row(&mut row[start..end], &mask[mask_idx * s..][start..end], scale);
            }
        });
        scores
    }

    fn softmax_backward(probs: FlexTensor, d_probs: FlexTensor, scale: f32) -> FlexTensor {
        let [.., s] = dims(&probs);
        let probs = flex::values(&probs);
        let mut out = flex::own(d_probs);
        let chunk = s * (TASK / s).max(1);
        let tasks = out.storage_mut::<f32>().par_chunks_mut(chunk).zip(probs.par_chunks(chunk));
        tasks.for_each(|(out, probs)| {
            for (out, probs) in out.chunks_mut(s).zip(probs.chunks(s)) {
                softmax_row_backward(out, probs, scale);
            }
        });
        out
    }
}

fn dims(x: &FlexTensor) -> [usize; 4] {
    let shape = x.shape();
    [shape[0], shape[1], shape[2], shape[3]]
}

/// From the first visible key to behind the last; everything where none is visible.
fn visible_range(mask: &[f32]) -> (usize, usize) {
    let start = mask.iter().position(|mask| *mask == 0.0);
    let end = mask.iter().rposition(|mask| *mask == 0.0);
    match (start, end) {
        (Some(start), Some(last)) => (start, last + 1),
        _ => (0, mask.len()),
    }
}

widest! {
    fn softmax_row(row: &mut [f32], mask: &[f32], scale: f32) {
        for (score, mask) in row.iter_mut().zip(mask) {
            *score = *score * scale + mask;
        }
        let largest = vector::max(row);
        let sum = vector::exp_and_sum(row, largest);
        let inverse = 1.0 / sum;
        for value in row {
            *value *= inverse;
        }
    }
}

widest! {
    /// `d_probs` becomes the gradient of the scores.
    fn softmax_row_backward(d_probs: &mut [f32], probs: &[f32], scale: f32) {
        let sum = vector::dot(d_probs, probs);
        for (gradient, prob) in d_probs.iter_mut().zip(probs) {
            *gradient = (*gradient - sum) * prob * scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Dispatch;
    use burn::tensor::{Device, Tensor};
    use testkit::{Tolerance, assert_close, values, wave};

    use super::SoftmaxOps;

    /// On the autodiff backend the plain bodies run; on the CPU's own the fused ones.
    #[test]
    fn plain_bodies_agree_with_fused_ones() {
        let (scores, d_probs) = (wave([2, 3, 4, 9], 1.3), wave([2, 3, 4, 9], 0.7));
        let hidden = wave([2, 1, 4, 9], 2.1).greater_elem(0.5);
        let mask = Tensor::<4>::zeros([2, 1, 4, 9], &Device::flex()).mask_fill(hidden, -1e30);
        let run = |plain: bool| {
            let give = |x: &Tensor<4>| {
                if plain { x.clone().autodiff() } else { x.clone() }.into_dispatch()
            };
            let probs = <Dispatch as SoftmaxOps>::softmax_forward(give(&scores), give(&mask), 0.7);
            let d_scores =
                <Dispatch as SoftmaxOps>::softmax_backward(probs.clone(), give(&d_probs), 0.7);
            [probs, d_scores].map(|x| values(&Tensor::<4>::from_dispatch(x)))
        };
        for (plain, fused) in run(true).iter().zip(run(false)) {
            assert_close("plain", plain, &fused, Tolerance::absolute(1e-6));
        }
    }
}
