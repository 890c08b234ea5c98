//! LayerNorm with a weight and a bias.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension};
use burn::tensor::{DType, Shape, Tensor};
use burn_cubecl::CubeBackend;
use kernels_gpu::layer_norm::Normed;

/// [`crate::layer_norm`] with a bias.
pub(crate) fn layer_norm(
    x_btd: Tensor<3>,
    weight_d: Tensor<1>,
    bias_d: Tensor<1>,
    eps: f32,
) -> Tensor<3> {
    let (weight, bias) = (weight_d.into_dispatch(), bias_d.into_dispatch());
    let y = <Dispatch as LayerNormOps>::layer_normed(x_btd.into_dispatch(), weight, bias, eps);
    Tensor::from_dispatch(y)
}

#[backend_extension(Autodiff, Cube, Fusion)]
pub(crate) trait LayerNormOps: Backend {
    /// The result, and mean and `1 / sqrt(variance + eps)` of each row.
    #[fusion(meta = |x: &TensorSpec, _weight: &TensorSpec, _bias: &TensorSpec, _eps: &f32| (x.clone(), rows_of(x), rows_of(x)))]
    fn layer_norm_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// The gradients of `x`, `weight` and bias.
    #[fusion(meta = |x: &TensorSpec, weight: &TensorSpec, _mean: &TensorSpec, _rstd: &TensorSpec, _dy: &TensorSpec| (x.clone(), weight.clone(), weight.clone()))]
    fn layer_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        rstd: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// The differentiable form.
    #[fusion(default)]
    fn layer_normed(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self> {
        Self::layer_norm_forward(x, weight, bias, eps).0
    }
}

/// One f32 for each row.
fn rows_of(x: &TensorSpec) -> TensorSpec {
    let mut dims: Vec<usize> = x.shape.iter().copied().collect();
    dims.pop();
    TensorSpec::new(Shape::from(dims), DType::F32)
}

impl LayerNormOps for CubeBackend {
    fn layer_norm_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let Normed { y, mean, rstd } = kernels_gpu::layer_norm::forward(x, weight, bias, eps);
        (y, mean, rstd)
    }

    fn layer_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        rstd: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        kernels_gpu::layer_norm::backward(x, weight, [mean, rstd], dy).into()
    }
}

impl<B: LayerNormOps, C: CheckpointStrategy> LayerNormOps for Autodiff<B, C> {
    fn layer_norm_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [x, weight, bias] = [x, weight, bias].map(|x| x.into_primitive());
        let (y, mean, rstd) = B::layer_norm_forward(x, weight, bias, eps);
        [y, mean, rstd].map(|x| FloatTensor::<Self>::new(x)).into()
    }

    fn layer_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        rstd: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [x, weight, mean, rstd, dy] = [x, weight, mean, rstd, dy].map(|x| x.into_primitive());
        let (dx, d_weight, d_bias) = B::layer_norm_backward(x, weight, mean, rstd, dy);
        [dx, d_weight, d_bias].map(|x| FloatTensor::<Self>::new(x)).into()
    }

    fn layer_normed(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let step = LayerNormStep.prepare::<C>(nodes).compute_bound().stateful();
        let [x, weight, bias] = [x, weight, bias].map(|x| x.into_primitive());
        let (y, mean, rstd) = B::layer_norm_forward(x.clone(), weight.clone(), bias, eps);
        match step {
            OpsKind::Tracked(prepared) => prepared.finish([x, weight, mean, rstd], y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }
}

#[derive(Debug)]
struct LayerNormStep;

impl<B: LayerNormOps> Backward<B, 3> for LayerNormStep {
    /// Input, weight, means and deviations.
    type State = [FloatTensor<B>; 4];

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let dy = gradients.consume::<B>(&ops.node);
        let [x, weight, mean, rstd] = ops.state;
        let (dx, d_weight, d_bias) = B::layer_norm_backward(x, weight, mean, rstd, dy);
        for (node, grad) in ops.parents.into_iter().zip([dx, d_weight, d_bias]) {
            if let Some(node) = node {
                gradients.register::<B>(node.id, grad);
            }
        }
    }
}
