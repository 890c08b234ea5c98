//! RMSNorm as one operation of burn's dispatch, with its gradients.
//!
//! The backward pass keeps the input, the weight and `1 / sqrt(mean(x²) + eps)` of each row.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
#[cfg(feature = "gpu")]
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Shape, Tensor};

/// `x / sqrt(mean(x²) + eps) · weight` over the last dimension.
pub(super) fn fused<const D: usize>(x: Tensor<D>, weight_d: Tensor<1>, eps: f32) -> Tensor<D> {
    let (x, weight) = (x.into_dispatch(), weight_d.into_dispatch());
    Tensor::from_dispatch(<Dispatch as NormOps>::rms_norm(x, weight, eps))
}

#[backend_extension(Flex, Autodiff, Cube: cfg(feature = "gpu"), Fusion: cfg(feature = "gpu"))]
pub(crate) trait NormOps: Backend {
    /// The result, and `1 / sqrt(mean(x²) + eps)` in the shape of `x` without its last dimension.
    #[fusion(meta = |x: &TensorSpec, _weight: &TensorSpec, _eps: &f32| (x.clone(), rows_of(x)))]
    fn rms_norm_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// The gradients of `x` and `weight`.
    #[fusion(meta = |x: &TensorSpec, weight: &TensorSpec, _rstd: &TensorSpec, _dy: &TensorSpec| (x.clone(), weight.clone()))]
    fn rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        rstd: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// The differentiable form.
    #[fusion(default)]
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f32) -> FloatTensor<Self> {
        Self::rms_norm_forward(x, weight, eps).0
    }
}

/// One f32 for each row.
#[cfg(feature = "gpu")]
pub(super) fn rows_of(x: &TensorSpec) -> TensorSpec {
    let mut dims: Vec<usize> = x.shape.iter().copied().collect();
    dims.pop();
    TensorSpec::new(Shape::from(dims), burn::tensor::DType::F32)
}

#[cfg(feature = "gpu")]
impl NormOps for burn_cubecl::CubeBackend {
    fn rms_norm_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        kernels_gpu::rms_norm::forward(x, weight, eps)
    }

    fn rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        rstd: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        kernels_gpu::rms_norm::backward(x, weight, rstd, dy, None)
    }
}

/// By tensor operations: the definition, for tests.
impl NormOps for Flex {
    fn rms_norm_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let last = x.shape().num_dims() - 1;
        let squares = Self::float_mul(x.clone(), x.clone());
        let mean = Self::float_add_scalar(Self::float_mean_dim(squares, last), eps.into());
        let rstd = Self::float_recip(Self::float_sqrt(mean));
        let y = Self::float_mul(Self::float_mul(x.clone(), rstd.clone()), as_row(weight, last));
        (y, Self::float_reshape(rstd, without_last(&x.shape())))
    }

    fn rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        rstd: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (shape, last) = (x.shape(), x.shape().num_dims() - 1);
        let mut column: Vec<usize> = shape.iter().copied().collect();
        let width = std::mem::replace(&mut column[last], 1);
        let rstd = Self::float_reshape(rstd, Shape::from(column));
        let normalized = Self::float_mul(x, rstd.clone());
        let g = Self::float_mul(dy.clone(), as_row(weight, last));
        let mean = Self::float_mean_dim(Self::float_mul(g.clone(), normalized.clone()), last);
        let along_x = Self::float_mul(normalized.clone(), mean);
        let dx = Self::float_mul(Self::float_sub(g, along_x), rstd);
        let products = Self::float_mul(dy, normalized);
        let rows = Shape::from([shape.num_elements() / width.max(1), width]);
        let d_weight = Self::float_sum_dim(Self::float_reshape(products, rows), 0);
        (dx, Self::float_reshape(d_weight, Shape::from([width])))
    }
}

fn without_last(shape: &Shape) -> Shape {
    let mut dims: Vec<usize> = shape.iter().copied().collect();
    dims.pop();
    Shape::from(dims)
}

/// A vector with `n` dimensions of size 1 before its own.
fn as_row(vector: FloatTensor<Flex>, n: usize) -> FloatTensor<Flex> {
    let mut dims = vec![1; n];
    dims.extend(vector.shape().iter());
    Flex::float_reshape(vector, Shape::from(dims))
}

impl<B: NormOps, C: CheckpointStrategy> NormOps for Autodiff<B, C> {
    fn rms_norm_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (y, rstd) = B::rms_norm_forward(x.into_primitive(), weight.into_primitive(), eps);
        (FloatTensor::<Self>::new(y), FloatTensor::<Self>::new(rstd))
    }

    fn rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        rstd: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (dx, d_weight) = B::rms_norm_backward(
            x.into_primitive(),
            weight.into_primitive(),
            rstd.into_primitive(),
            dy.into_primitive(),
        );
        (FloatTensor::<Self>::new(dx), FloatTensor::<Self>::new(d_weight))
    }

    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f32) -> FloatTensor<Self> {
        let step = RmsNormStep.prepare::<C>([x.node(), weight.node()]).compute_bound().stateful();
        let (x, weight) = (x.into_primitive(), weight.into_primitive());
        let (y, rstd) = B::rms_norm_forward(x.clone(), weight.clone(), eps);
        match step {
            OpsKind::Tracked(prepared) => prepared.finish(Saved { x, weight, rstd }, y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }
}

/// State of the backward pass.
#[derive(Clone, Debug)]
struct Saved<B: Backend> {
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    rstd: FloatTensor<B>,
}

#[derive(Debug)]
struct RmsNormStep;

impl<B: NormOps> Backward<B, 2> for RmsNormStep {
    type State = Saved<B>;

    fn backward(self, ops: Ops<Saved<B>, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let [x_node, weight_node] = ops.parents;
        let dy = gradients.consume::<B>(&ops.node);
        let Saved { x, weight, rstd } = ops.state;
        let (dx, d_weight) = B::rms_norm_backward(x, weight, rstd, dy);
        if let Some(node) = x_node {
            gradients.register::<B>(node.id, dx);
        }
        if let Some(node) = weight_node {
            gradients.register::<B>(node.id, d_weight);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Tensor;
    use testkit::{Tolerance, assert_close, values, wave};

    use super::fused;

    /// Value and gradients under weights of each entry.
    fn run(
        norm: impl Fn(Tensor<3>, Tensor<1>) -> Tensor<3>,
        [x, weight]: [Tensor<3>; 2],
        upstream: &Tensor<3>,
    ) -> [Vec<f32>; 3] {
        let x = x.autodiff().require_grad();
        let weight = weight.squeeze_dims::<1>(&[0, 1]).autodiff().require_grad();
        let y = norm(x.clone(), weight.clone());
        let value = values(&y);
        let grads = (y * upstream.clone()).sum().backward();
        [
            value,
            values(&x.grad(&grads).expect("a gradient")),
            values(&weight.grad(&grads).expect("a gradient")),
        ]
    }

    #[test]
    fn the_operation_and_its_gradients_are_those_of_tensor_operations() {
        for [b, t, d] in [[2, 3, 8], [1, 1, 1], [3, 5, 37]] {
            let inputs = [wave([b, t, d], 0.3), wave([1, 1, d], 0.7)];
            let upstream = wave([b, t, d], 0.9);
            let got = run(|x, w| fused(x, w, 1e-5), inputs.clone(), &upstream);
            let expected = run(|x, w| super::super::rms_norm(x, w, 1e-5), inputs, &upstream);
            let tight = Tolerance { absolute: 1e-6, of_largest: 1e-5 };
            for (what, (got, expected)) in
                ["value", "x", "weight"].iter().zip(got.iter().zip(&expected))
            {
                assert_close(what, got, expected, tight);
            }
        }
    }
}
