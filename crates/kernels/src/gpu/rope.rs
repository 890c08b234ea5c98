//! Rotary positions of heads that are tensors of their own.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;
use burn_cubecl::CubeBackend;

/// [`crate::rope`]; cosines and sines get no gradient.
pub(crate) fn rope(x_bthk: Tensor<4>, cos_btc: Tensor<3>, sin_btc: Tensor<3>) -> Tensor<4> {
    let [cos, sin] = [cos_btc, sin_btc].map(|x| x.inner().into_dispatch());
    let x = x_bthk.into_dispatch();
    Tensor::from_dispatch(<Dispatch as RopeOps>::rotated(x, cos, sin, false))
}

#[backend_extension(Autodiff, Cube, Fusion)]
pub(crate) trait RopeOps: Backend {
    #[fusion(meta = |x: &TensorSpec, _cos: &TensorSpec, _sin: &TensorSpec, _inverse: &bool| x.clone())]
    fn rotate(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        inverse: bool,
    ) -> FloatTensor<Self>;

    /// The differentiable form.
    #[fusion(default)]
    fn rotated(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        inverse: bool,
    ) -> FloatTensor<Self> {
        Self::rotate(x, cos, sin, inverse)
    }
}

impl RopeOps for CubeBackend {
    fn rotate(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        inverse: bool,
    ) -> FloatTensor<Self> {
        kernels_gpu::rope::rotate(x, cos, sin, inverse)
    }
}

impl<B: RopeOps, C: CheckpointStrategy> RopeOps for Autodiff<B, C> {
    fn rotate(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        inverse: bool,
    ) -> FloatTensor<Self> {
        Self::rotated(x, cos, sin, inverse)
    }

    fn rotated(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        inverse: bool,
    ) -> FloatTensor<Self> {
        let step = RopeStep.prepare::<C>([x.node()]).compute_bound().stateful();
        let [x, cos, sin] = [x, cos, sin].map(|x| x.into_primitive());
        let out = B::rotate(x, cos.clone(), sin.clone(), inverse);
        match step {
            OpsKind::Tracked(prepared) => prepared.finish((cos, sin, inverse), out),
            OpsKind::UnTracked(prepared) => prepared.finish(out),
        }
    }
}

#[derive(Debug)]
struct RopeStep;

impl<B: RopeOps> Backward<B, 1> for RopeStep {
    type State = (FloatTensor<B>, FloatTensor<B>, bool);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let d_out = gradients.consume::<B>(&ops.node);
        let (cos, sin, inverse) = ops.state;
        if let [Some(node)] = ops.parents {
            gradients.register::<B>(node.id, B::rotate(d_out, cos, sin, !inverse));
        }
    }
}
