//! Logits, loss and both gradients in one walk over chunks of rows.
//!
//! The forward pass computes the gradients too, while a chunk's probabilities are at hand; the
//! backward pass only scales them. Logits of all rows never exist at once.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};
use burn::tensor::{DType, IndexingUpdateOp, Shape};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::flex;
use crate::gemm::{Matrix, MatrixMut, Write, gemm};
use crate::vector::{self, widest};

/// Bytes of logits that a chunk may hold.
const CHUNK_BYTES: usize = 32 << 20;

/// The operation on each backend: plain operations, fused ones on the CPU.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait HeadOps: Backend {
    /// hidden `[n, d]`, weight `[v, d]`, targets `[n, 1]`, none negative → the summed loss `[1]` and
    /// its gradients by hidden and weight. Only gradients that are wanted hold anything.
    fn cross_entropy_forward(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: IntTensor<Self>,
        want_hidden: bool,
        want_weight: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let logits = Self::float_matmul(hidden.clone(), Self::float_transpose(weight.clone()));
        let max = Self::float_max_dim(logits.clone(), 1);
        let shifted = Self::float_sub(logits, max);
        let exp = Self::float_exp(shifted.clone());
        let sum = Self::float_sum_dim(exp.clone(), 1);
        let target = Self::float_gather(1, shifted, targets.clone());
        let losses = Self::float_sub(Self::float_log(sum.clone()), target.clone());
        let loss = Self::float_reshape(Self::float_sum(losses), Shape::new([1]));
        if !want_hidden && !want_weight {
            return (loss.clone(), loss.clone(), loss);
        }
        let minus_one =
            Self::float_add_scalar(Self::float_mul_scalar(target, 0.0.into()), (-1.0).into());
        let probs = Self::float_div(exp, sum);
        let d_logits = Self::float_scatter(1, probs, targets, minus_one, IndexingUpdateOp::Add);
        let d_hidden =
            if want_hidden { Self::float_matmul(d_logits.clone(), weight) } else { loss.clone() };
        let d_weight = if want_weight {
            Self::float_matmul(Self::float_transpose(d_logits), hidden)
        } else {
            loss.clone()
        };
        (loss, d_hidden, d_weight)
    }

    fn cross_entropy(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        Self::cross_entropy_forward(hidden, weight, targets, false, false).0
    }
}

impl<B: HeadOps, C: CheckpointStrategy> HeadOps for Autodiff<B, C> {
    fn cross_entropy(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct CrossEntropyBackward;
        impl<B: HeadOps> Backward<B, 2> for CrossEntropyBackward {
            type State = (FloatTensor<B>, FloatTensor<B>);

            fn backward(
                self,
                ops: Ops<Self::State, 2>,
                grads: &mut Gradients,
                _: &mut Checkpointer,
            ) {
                let d_loss = grads.consume::<B>(&ops.node);
                let d_loss = B::float_reshape(d_loss, Shape::new([1, 1]));
                let (d_hidden, d_weight) = ops.state;
                let [hidden, weight] = ops.parents;
                if let Some(hidden) = hidden {
                    grads.register::<B>(hidden.id, B::float_mul(d_hidden, d_loss.clone()));
                }
                if let Some(weight) = weight {
                    grads.register::<B>(weight.id, B::float_mul(d_weight, d_loss));
                }
            }
        }
        let nodes = [hidden.node(), weight.node()];
        let (want_hidden, want_weight) = (hidden.is_tracked(), weight.is_tracked());
        match CrossEntropyBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let (loss, d_hidden, d_weight) = B::cross_entropy_forward(
                    hidden.into_primitive(),
                    weight.into_primitive(),
                    targets,
                    want_hidden,
                    want_weight,
                );
                prepared.finish((d_hidden, d_weight), loss)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::cross_entropy(
                hidden.into_primitive(),
                weight.into_primitive(),
                targets,
            )),
        }
    }
}

impl HeadOps for Flex {
    fn cross_entropy_forward(
        hidden: FlexTensor,
        weight: FlexTensor,
        targets: FlexTensor,
        want_hidden: bool,
        want_weight: bool,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let [n, d] = [hidden.shape()[0], hidden.shape()[1]];
        let v = weight.shape()[0];
        let (hidden, weight) = (flex::values(&hidden), flex::values(&weight));
        let targets = ids(&targets);
        let mut d_hidden = vec![0.0; if want_hidden { n * d } else { 0 }];
        let mut d_weight = vec![0.0; if want_weight { v * d } else { 0 }];
        let rows_per_chunk = (CHUNK_BYTES / size_of::<f32>() / v).clamp(16, 1024);
        let mut logits = vec![0.0; rows_per_chunk.min(n) * v];
        let mut loss = 0.0;
        let weight = Matrix::new(&weight, v, d);
        for (chunk, targets) in targets.chunks(rows_per_chunk).enumerate() {
            let (start, m) = (chunk * rows_per_chunk, targets.len());
            let hidden = Matrix::new(&hidden[start * d..(start + m) * d], m, d);
            let logits = &mut logits[..m * v];
            gemm(MatrixMut::new(logits, m, v), hidden, weight.transposed(), Write::Over);
            let rows = logits.par_chunks_mut(v).zip(targets);
            let losses: Vec<f64> = rows.map(|(row, target)| row_loss(row, *target)).collect();
            loss += losses.iter().sum::<f64>();
            let d_logits = Matrix::new(logits, m, v);
            if want_hidden {
                let d_hidden = &mut d_hidden[start * d..(start + m) * d];
                gemm(MatrixMut::new(d_hidden, m, d), d_logits, weight, Write::Over);
            }
            if want_weight {
                let write = if chunk > 0 { Write::Add } else { Write::Over };
                let d_weight = MatrixMut::new(&mut d_weight, v, d);
                gemm(d_weight, d_logits.transposed(), hidden, write);
            }
        }
        let shape = |wanted: bool, rows| if wanted { [rows, d] } else { [0, d] };
        (
            flex::tensor(vec![loss as f32], [1]),
            flex::tensor(d_hidden, shape(want_hidden, n)),
            flex::tensor(d_weight, shape(want_weight, v)),
        )
    }
}

fn ids(targets: &FlexTensor) -> Vec<i32> {
    let targets = targets.to_contiguous();
    match targets.dtype() {
        DType::I32 => targets.as_slice::<i32>().unwrap_or_default().to_vec(),
        DType::I64 => {
            targets.as_slice::<i64>().unwrap_or_default().iter().map(|id| *id as i32).collect()
        }
        other => panic!("target ids of type {other:?}"),
    }
}

/// The loss of one row of logits, which become the loss's gradient by them.
fn row_loss(row: &mut [f32], target: i32) -> f64 {
    let target = target as usize;
    let logit = row[target];
    let log_sum = softmax(row);
    row[target] -= 1.0;
    f64::from(log_sum - logit)
}

widest! {
    /// The softmax of a row in place; gives the logarithm of the summed exponentials.
    fn softmax(row: &mut [f32]) -> f32 {
        let largest = vector::max(row);
        let sum = vector::exp_and_sum(row, largest);
        let inverse = 1.0 / sum;
        for value in row {
            *value *= inverse;
        }
        sum.ln() + largest
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Dispatch;
    use burn::tensor::{Device, Int, Tensor};
    use testkit::{Tolerance, assert_close, values, wave};

    use super::HeadOps;

    const CLOSE: Tolerance = Tolerance { absolute: 2e-6, of_largest: 2e-6 };

    /// On the autodiff backend the plain bodies run; on the CPU's own the fused ones.
    #[test]
    fn plain_bodies_agree_with_fused_ones() {
        let (hidden, weight) = (wave([5, 8], 1.3), wave([12, 8], 0.7));
        let targets = Tensor::<2, Int>::from_data([[3], [0], [11], [3], [7]], &Device::flex());
        for (want_hidden, want_weight) in [(true, true), (true, false), (false, true)] {
            let run = |plain: bool| {
                let give = |x: &Tensor<2>| {
                    if plain { x.clone().autodiff() } else { x.clone() }.into_dispatch()
                };
                let (loss, d_hidden, d_weight) = <Dispatch as HeadOps>::cross_entropy_forward(
                    give(&hidden),
                    give(&weight),
                    targets.clone().into_dispatch(),
                    want_hidden,
                    want_weight,
                );
                let loss = values(&Tensor::<1>::from_dispatch(loss));
                let gradient = |wanted: bool, x| {
                    if wanted { values(&Tensor::<2>::from_dispatch(x)) } else { Vec::new() }
                };
                [loss, gradient(want_hidden, d_hidden), gradient(want_weight, d_weight)]
            };
            for (plain, fused) in run(true).iter().zip(run(false)) {
                assert_close("plain", plain, &fused, CLOSE);
            }
        }
    }
}
