//! RMSNorm of a residual stream: the addition before it, and the addition of the stream's gradient after it, are part of the
//! norm's kernels.
//!
//! The stream goes on behind the norm: as an operation of its own whose parent is the norm and which leaves its gradient in a
//! cell. The stream is deeper in the graph, so that the cell is filled when the norm's backward pass runs.

use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
#[cfg(feature = "gpu")]
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;

use super::rms_norm::NormOps;
#[cfg(feature = "gpu")]
use super::rms_norm::rows_of;

/// The norm of `x + delta`, and `x + delta`; without `delta` the norm of `x`, and `x`.
pub(super) fn fused(
    x_btd: Tensor<3>,
    delta_btd: Option<Tensor<3>>,
    weight_d: Tensor<1>,
    eps: f32,
) -> [Tensor<3>; 2] {
    let adds = delta_btd.is_some();
    // Without `delta` there is a stand-in that is not read.
    let delta = delta_btd.unwrap_or_else(|| x_btd.clone().detach()).into_dispatch();
    let (x, weight) = (x_btd.into_dispatch(), weight_d.into_dispatch());
    let (y, sum) = <Dispatch as ResidualNormOps>::residual_norm(x, delta, weight, adds, eps);
    [y, sum].map(Tensor::from_dispatch)
}

#[backend_extension(Flex, Autodiff, Cube: cfg(feature = "gpu"), Fusion: cfg(feature = "gpu"))]
pub(crate) trait ResidualNormOps: NormOps {
    /// `x + delta`, its norm, and `1 / sqrt(mean(x²) + eps)` of each of its rows.
    #[fusion(meta = |x: &TensorSpec, _delta: &TensorSpec, _weight: &TensorSpec, _eps: &f32| (x.clone(), x.clone(), rows_of(x)))]
    fn residual_norm_forward(
        x: FloatTensor<Self>,
        delta: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// The gradient of the sum, which is that of both of its operands, and the gradient of `weight`; `rest` is the gradient of
    /// the sum where it is not normalized.
    #[fusion(meta = |sum: &TensorSpec, weight: &TensorSpec, _rstd: &TensorSpec, _dy: &TensorSpec, _rest: &TensorSpec| (sum.clone(), weight.clone()))]
    fn residual_norm_backward(
        sum: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        rstd: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        rest: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// The differentiable form: the norm and the sum. `delta` is read if `adds`.
    #[fusion(default)]
    fn residual_norm(
        x: FloatTensor<Self>,
        delta: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        adds: bool,
        eps: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (sum, y, _) = forward::<Self>(x, delta, weight, adds, eps);
        (y, sum)
    }
}

/// The sum, its norm and a number for each row.
fn forward<B: ResidualNormOps>(
    x: FloatTensor<B>,
    delta: FloatTensor<B>,
    weight: FloatTensor<B>,
    adds: bool,
    eps: f32,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    if adds {
        return B::residual_norm_forward(x, delta, weight, eps);
    }
    let (y, rstd) = B::rms_norm_forward(x.clone(), weight, eps);
    (x, y, rstd)
}

#[cfg(feature = "gpu")]
impl ResidualNormOps for burn_cubecl::CubeBackend {
    fn residual_norm_forward(
        x: FloatTensor<Self>,
        delta: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        kernels_gpu::rms_norm::forward_of_sum(x, delta, weight, eps)
    }

    fn residual_norm_backward(
        sum: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        rstd: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        rest: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        kernels_gpu::rms_norm::backward(sum, weight, rstd, dy, Some(rest))
    }
}

/// By tensor operations: the definition, for tests.
impl ResidualNormOps for Flex {
    fn residual_norm_forward(
        x: FloatTensor<Self>,
        delta: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let sum = Self::float_add(x, delta);
        let (y, rstd) = Self::rms_norm_forward(sum.clone(), weight, eps);
        (sum, y, rstd)
    }

    fn residual_norm_backward(
        sum: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        rstd: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        rest: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (dx, d_weight) = Self::rms_norm_backward(sum, weight, rstd, dy);
        (Self::float_add(dx, rest), d_weight)
    }
}

impl<B: ResidualNormOps, C: CheckpointStrategy> ResidualNormOps for Autodiff<B, C> {
    fn residual_norm_forward(
        x: FloatTensor<Self>,
        delta: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [x, delta, weight] = [x, delta, weight].map(FloatTensor::<Self>::into_primitive);
        let (sum, y, rstd) = B::residual_norm_forward(x, delta, weight, eps);
        [sum, y, rstd].map(|x| FloatTensor::<Self>::new(x)).into()
    }

    fn residual_norm_backward(
        sum: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        rstd: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        rest: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let [sum, weight, rstd, dy, rest] =
            [sum, weight, rstd, dy, rest].map(FloatTensor::<Self>::into_primitive);
        let (dx, d_weight) = B::residual_norm_backward(sum, weight, rstd, dy, rest);
        (FloatTensor::<Self>::new(dx), FloatTensor::<Self>::new(d_weight))
    }

    fn residual_norm(
        x: FloatTensor<Self>,
        delta: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        adds: bool,
        eps: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let nodes = [x.node(), delta.node(), weight.node()];
        let step = NormStep.prepare::<C>(nodes).compute_bound().stateful();
        let [x, delta, weight] = [x, delta, weight].map(FloatTensor::<Self>::into_primitive);
        let (sum, y, rstd) = forward::<B>(x, delta, weight.clone(), adds, eps);
        match step {
            OpsKind::Tracked(prepared) => {
                let rest = Rest::<B>::default();
                let saved = Saved { sum: sum.clone(), weight, rstd, rest: rest.clone() };
                let y = prepared.finish(saved, y);
                let stream = StreamStep.prepare::<C>([y.node()]).compute_bound().stateful();
                let sum = match stream {
                    OpsKind::Tracked(prepared) => prepared.finish(rest, sum),
                    OpsKind::UnTracked(prepared) => prepared.finish(sum),
                };
                (y, sum)
            }
            OpsKind::UnTracked(prepared) => (prepared.finish(y), FloatTensor::<Self>::new(sum)),
        }
    }
}

/// The gradient of the stream behind the norm, once it is known.
#[derive(Clone, Debug)]
struct Rest<B: Backend>(Arc<Mutex<Option<FloatTensor<B>>>>);

impl<B: Backend> Default for Rest<B> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<B: Backend> Rest<B> {
    fn put(&self, gradient: FloatTensor<B>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(gradient);
    }

    fn take(&self) -> Option<FloatTensor<B>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// State of the norm's backward pass.
#[derive(Clone, Debug)]
struct Saved<B: Backend> {
    sum: FloatTensor<B>,
    weight: FloatTensor<B>,
    rstd: FloatTensor<B>,
    rest: Rest<B>,
}

#[derive(Debug)]
struct NormStep;

impl<B: ResidualNormOps> Backward<B, 3> for NormStep {
    type State = Saved<B>;

    fn backward(self, ops: Ops<Saved<B>, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let [x_node, delta_node, weight_node] = ops.parents;
        let dy = gradients.consume::<B>(&ops.node);
        let Saved { sum, weight, rstd, rest } = ops.state;
        let (d_sum, d_weight) = match rest.take() {
            Some(rest) => B::residual_norm_backward(sum, weight, rstd, dy, rest),
            None => B::rms_norm_backward(sum, weight, rstd, dy),
        };
        for node in [x_node, delta_node].into_iter().flatten() {
            gradients.register::<B>(node.id, d_sum.clone());
        }
        if let Some(node) = weight_node {
            gradients.register::<B>(node.id, d_weight);
        }
    }
}

/// The stream behind a norm.
#[derive(Debug)]
struct StreamStep;

impl<B: ResidualNormOps> Backward<B, 1> for StreamStep {
    type State = Rest<B>;

    fn backward(self, ops: Ops<Rest<B>, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        ops.state.put(gradients.consume::<B>(&ops.node));
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Tensor;
    use testkit::{Tolerance, assert_close, values, wave};

    use super::super::rms_norm;
    use super::fused;

    /// Norm, sum and gradients of `x`, `delta` and `weight`, where norm and sum are used in two ways each.
    fn run(
        norm: impl Fn(Tensor<3>, Option<Tensor<3>>, Tensor<1>) -> [Tensor<3>; 2],
        adds: bool,
    ) -> [Vec<f32>; 5] {
        let leaf = |factor| wave::<3>([2, 3, 8], factor).autodiff().require_grad();
        let (x, delta) = (leaf(0.3), leaf(0.5));
        let weight = wave::<3>([1, 1, 8], 0.7).squeeze_dims::<1>(&[0, 1]);
        let weight = weight.autodiff().require_grad();
        let [y, sum] = norm(x.clone() * 2.0, adds.then(|| delta.clone()), weight.clone());
        let out = y.clone() * wave([2, 3, 8], 0.9) + y.clone().square();
        let stream = sum.clone() * wave([2, 3, 8], 1.1) + sum.clone().square();
        let grads = (out.sum() + stream.sum()).backward();
        let of = |x: &Tensor<3>| x.grad(&grads).map_or_else(Vec::new, |grad| values(&grad));
        let d_weight = values(&weight.grad(&grads).expect("a gradient"));
        [values(&y), values(&sum), of(&x), of(&delta), d_weight]
    }

    #[test]
    fn norms_of_streams_are_those_of_tensor_operations() {
        for adds in [true, false] {
            let expected = run(
                |x, delta, weight| {
                    let sum = match delta {
                        Some(delta) => x + delta,
                        None => x,
                    };
                    [rms_norm(sum.clone(), weight, 1e-5), sum]
                },
                adds,
            );
            let got = run(|x, delta, weight| fused(x, delta, weight, 1e-5), adds);
            let tight = Tolerance { absolute: 1e-6, of_largest: 1e-5 };
            for (what, (got, expected)) in
                ["norm", "sum", "x", "delta", "weight"].iter().zip(got.iter().zip(&expected))
            {
                assert_close(what, got, expected, tight);
            }
        }
    }

    /// Of a stream that nothing reads, and of one before a frozen weight.
    #[test]
    fn parts_without_a_gradient() {
        let x = wave::<3>([1, 2, 4], 0.3).autodiff().require_grad();
        let weight = Tensor::<1>::ones([4], &x.device());
        let [y, _] = fused(x.clone(), None, weight.clone(), 1e-5);
        let alone = values(&x.grad(&y.square().sum().backward()).expect("a gradient"));
        let y = rms_norm(x.clone(), weight.clone(), 1e-5);
        let expected = values(&x.grad(&y.square().sum().backward()).expect("a gradient"));
        assert_close("x", &alone, &expected, Tolerance { absolute: 1e-6, of_largest: 1e-5 });
        assert!(
            weight
                .grad(&fused(x, None, weight.clone(), 1e-5)[0].clone().sum().backward())
                .is_none()
        );
    }
}
