//! Matrix products of the generic kernels, in the run's precision.
//!
//! burn's own product is f32 arithmetic on the CPU. On a GPU burn converts f32 to TF32 wherever tensor cores multiply, and
//! has no switch for it. There f32 uses a product of this crate (`gpu`), and TF32 is burn's product. With
//! [`set_deterministic`](crate::set_deterministic) TF32 too is a product of this crate, whose kernel is not timed.

#[cfg(feature = "gpu")]
mod gpu;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{DType, Tensor};

use crate::device::is_cpu;
use crate::precision::{Precision, is_deterministic, precision};

/// `lhs · rhs` over the two last dimensions; the others are equal.
pub(crate) fn matmul<const D: usize>(lhs: Tensor<D>, rhs: Tensor<D>) -> Tensor<D> {
    let precision = precision();
    let is_burns = is_cpu(&lhs.device()) || lhs.dtype() != DType::F32 || is_timed(precision);
    if is_burns { lhs.matmul(rhs) } else { matmul_in(lhs, rhs, precision) }
}

/// Whether burn's product, which times its kernels and may join operations around it, multiplies f32 operands on a GPU.
fn is_timed(precision: Precision) -> bool {
    precision == Precision::Tf32 && !is_deterministic()
}

/// This crate's product in a precision.
fn matmul_in<const D: usize>(lhs: Tensor<D>, rhs: Tensor<D>, precision: Precision) -> Tensor<D> {
    let (lhs, rhs) = (lhs.into_dispatch(), rhs.into_dispatch());
    Tensor::from_dispatch(<Dispatch as MatmulOps>::matmul_rounded(lhs, rhs, precision))
}

/// The operation in burn's dispatch, with its gradients.
#[backend_extension(Flex, Autodiff, Cube: cfg(feature = "gpu"), Fusion: cfg(feature = "gpu"))]
pub(crate) trait MatmulOps: Backend {
    /// `lhs · rhs` as f32, of operands that are both bf16 in `Bf16`, else both f32, which tensor cores round in `Tf32`.
    #[fusion(dtype = DType::F32, shape = shape_of(lhs, rhs))]
    fn matmul_f32(
        lhs: FloatTensor<Self>,
        rhs: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self>;

    /// `lhs · rhs` of f32 operands in a precision; the differentiable form.
    #[fusion(default)]
    fn matmul_rounded(
        lhs: FloatTensor<Self>,
        rhs: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        let half = precision == Precision::Bf16;
        Self::matmul_f32(rounded::<Self>(lhs, half), rounded::<Self>(rhs, half), precision)
    }
}

impl MatmulOps for Flex {
    fn matmul_f32(
        lhs: FloatTensor<Self>,
        rhs: FloatTensor<Self>,
        _: Precision,
    ) -> FloatTensor<Self> {
        // A product of two bf16 is exact in f32.
        let wide = |x| Self::float_cast(x, DType::F32.into());
        Self::float_matmul(wide(lhs), wide(rhs))
    }
}

impl<B: MatmulOps, C: CheckpointStrategy> MatmulOps for Autodiff<B, C> {
    fn matmul_f32(
        lhs: FloatTensor<Self>,
        rhs: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        Self::matmul_rounded(lhs, rhs, precision)
    }

    fn matmul_rounded(
        lhs: FloatTensor<Self>,
        rhs: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        let half = precision == Precision::Bf16;
        let step = MatmulStep.prepare::<C>([lhs.node(), rhs.node()]).compute_bound().stateful();
        let tracked = [lhs.is_tracked(), rhs.is_tracked()];
        let lhs = rounded::<B>(lhs.into_primitive(), half);
        let rhs = rounded::<B>(rhs.into_primitive(), half);
        match step {
            OpsKind::Tracked(prepared) => {
                // An operand is saved only for the other one's gradient.
                let saved = SavedOperands {
                    lhs: tracked[1].then(|| lhs.clone()),
                    rhs: tracked[0].then(|| rhs.clone()),
                    precision,
                };
                prepared.finish(saved, B::matmul_f32(lhs, rhs, precision))
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::matmul_f32(lhs, rhs, precision)),
        }
    }
}

/// State of the backward pass: the operands as they were multiplied.
#[derive(Clone, Debug)]
struct SavedOperands<B: Backend> {
    lhs: Option<FloatTensor<B>>,
    rhs: Option<FloatTensor<B>>,
    precision: Precision,
}

#[derive(Debug)]
struct MatmulStep;

impl<B: MatmulOps> Backward<B, 2> for MatmulStep {
    type State = SavedOperands<B>;

    fn backward(
        self,
        ops: Ops<SavedOperands<B>, 2>,
        gradients: &mut Gradients,
        _: &mut Checkpointer,
    ) {
        let [lhs_node, rhs_node] = ops.parents;
        let SavedOperands { lhs, rhs, precision } = ops.state;
        let half = precision == Precision::Bf16;
        let d_out = rounded::<B>(gradients.consume::<B>(&ops.node), half);
        if let (Some(node), Some(rhs)) = (lhs_node, rhs) {
            let d_lhs = B::matmul_f32(d_out.clone(), transposed::<B>(rhs), precision);
            gradients.register::<B>(node.id, d_lhs);
        }
        if let (Some(node), Some(lhs)) = (rhs_node, lhs) {
            let d_rhs = B::matmul_f32(transposed::<B>(lhs), d_out, precision);
            gradients.register::<B>(node.id, d_rhs);
        }
    }
}

/// `lhs · rhs` of f32 operands in a precision, below autodiff, on another device than the CPU.
#[cfg(feature = "gpu")]
pub(crate) fn product_in<B: MatmulOps>(
    lhs: FloatTensor<B>,
    rhs: FloatTensor<B>,
    precision: Precision,
) -> FloatTensor<B> {
    let half = precision == Precision::Bf16;
    product_of_rounded::<B>(rounded::<B>(lhs, half), rounded::<B>(rhs, half), precision)
}

/// The same of operands that are bf16 already if the precision is.
#[cfg(feature = "gpu")]
pub(crate) fn product_of_rounded<B: MatmulOps>(
    lhs: FloatTensor<B>,
    rhs: FloatTensor<B>,
    precision: Precision,
) -> FloatTensor<B> {
    if is_timed(precision) { B::float_matmul(lhs, rhs) } else { B::matmul_f32(lhs, rhs, precision) }
}

/// `x`, in bf16 if `half`.
pub(crate) fn rounded<B: Backend>(x: FloatTensor<B>, half: bool) -> FloatTensor<B> {
    if half { B::float_cast(x, DType::BF16.into()) } else { x }
}

/// The last two dimensions exchanged.
pub(crate) fn transposed<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let last = x.shape().num_dims() - 1;
    B::float_swap_dims(x, last - 1, last)
}

/// The shape of a product: that of the left operand except for the last dimension.
#[cfg(feature = "gpu")]
fn shape_of(lhs: &burn::tensor::Shape, rhs: &burn::tensor::Shape) -> burn::tensor::Shape {
    let mut dims: Vec<usize> = lhs.iter().copied().collect();
    if let (Some(columns), Some(last)) = (rhs.iter().next_back(), dims.last_mut()) {
        *last = *columns;
    }
    burn::tensor::Shape::from(dims)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Tensor};
    use testkit::{Tolerance, assert_close, values, wave};

    use super::{Precision, matmul_in};

    fn rounded<const D: usize>(x: Tensor<D>) -> Tensor<D> {
        x.cast(DType::BF16).cast(DType::F32)
    }

    /// Value and gradients of `product` under weights of each entry.
    fn run(
        product: impl Fn(Tensor<3>, Tensor<3>) -> Tensor<3>,
        [a, b]: [Tensor<3>; 2],
        upstream: &Tensor<3>,
    ) -> [Vec<f32>; 3] {
        let tracked = |x: Tensor<3>| x.autodiff().require_grad();
        let (a, b) = (tracked(a), tracked(b));
        let out = product(a.clone(), b.clone());
        let value = values(&out);
        let grads = (out * upstream.clone()).sum().backward();
        let of = |x: &Tensor<3>| values(&x.grad(&grads).expect("a gradient"));
        [value, of(&a), of(&b)]
    }

    /// The CPU has no tensor cores, so that TF32 rounds nothing there.
    #[test]
    fn f32_operands_give_burns_product_and_gradients_bit_by_bit() {
        let (a, b, up) = (wave([2, 5, 7], 0.3), wave([2, 7, 3], 0.7), wave([2, 5, 3], 0.9));
        let burns = run(Tensor::matmul, [a.clone(), b.clone()], &up);
        for precision in [Precision::F32, Precision::Tf32] {
            let ours = run(|a, b| matmul_in(a, b, precision), [a.clone(), b.clone()], &up);
            assert_eq!(ours, burns);
        }
    }

    /// Operands and upstream gradients are rounded, products of the rounded ones are not.
    #[test]
    fn half_operands_are_rounded_on_the_way_in_and_nothing_else() {
        let (a, b, up) = (wave([2, 5, 7], 0.3), wave([2, 7, 3], 0.7), wave([2, 5, 3], 0.9));
        let [value, da, db] =
            run(|a, b| matmul_in(a, b, Precision::Bf16), [a.clone(), b.clone()], &up);
        let (a, b, up) = (rounded(a), rounded(b), rounded(up));
        let tight = Tolerance { absolute: 1e-6, of_largest: 1e-6 };
        let close = |what: &str, got: Vec<f32>, expected: Tensor<3>| {
            assert_close(what, &got, &values(&expected), tight);
        };
        close("value", value, a.clone().matmul(b.clone()));
        close("left", da, up.clone().matmul(b.transpose()));
        close("right", db, a.transpose().matmul(up));
    }

    #[test]
    fn an_operand_without_a_gradient_keeps_nothing_and_gets_none() {
        let (a, b) = (wave::<2>([4, 3], 0.3), wave::<2>([3, 2], 0.7));
        let a = a.autodiff();
        let b = b.autodiff().require_grad();
        let grads = matmul_in(a.clone(), b.clone(), Precision::F32).sum().backward();
        assert!(a.grad(&grads).is_none());
        assert!(b.grad(&grads).is_some());
    }
}
