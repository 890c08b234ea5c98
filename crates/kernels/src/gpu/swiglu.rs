//! SwiGLU of gates and values side by side.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension};
use burn::tensor::{Shape, Tensor};
use burn_cubecl::CubeBackend;

/// `silu(gate) · up` of the halves of the last dimension.
pub(crate) fn swiglu_halves<const D: usize>(gate_up: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as SwigluOps>::swiglu_halves(gate_up.into_dispatch()))
}

#[backend_extension(Autodiff, Cube, Fusion)]
pub(crate) trait SwigluOps: Backend {
    #[fusion(meta = |gate_up: &TensorSpec| half_of(gate_up))]
    fn swiglu_halves_forward(gate_up: FloatTensor<Self>) -> FloatTensor<Self>;

    #[fusion(meta = |gate_up: &TensorSpec, _d_out: &TensorSpec| gate_up.clone())]
    fn swiglu_halves_backward(
        gate_up: FloatTensor<Self>,
        d_out: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    #[fusion(default)]
    fn swiglu_halves(gate_up: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::swiglu_halves_forward(gate_up)
    }
}

fn half_of(gate_up: &TensorSpec) -> TensorSpec {
    let mut dims: Vec<usize> = gate_up.shape.iter().copied().collect();
    if let Some(width) = dims.last_mut() {
        *width /= 2;
    }
    TensorSpec::new(Shape::from(dims), gate_up.dtype)
}

impl SwigluOps for CubeBackend {
    fn swiglu_halves_forward(gate_up: FloatTensor<Self>) -> FloatTensor<Self> {
        kernels_gpu::swiglu::forward(gate_up)
    }

    fn swiglu_halves_backward(
        gate_up: FloatTensor<Self>,
        d_out: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        kernels_gpu::swiglu::backward(gate_up, d_out)
    }
}

impl<B: SwigluOps, C: CheckpointStrategy> SwigluOps for Autodiff<B, C> {
    fn swiglu_halves_forward(gate_up: FloatTensor<Self>) -> FloatTensor<Self> {
        FloatTensor::<Self>::new(B::swiglu_halves_forward(gate_up.into_primitive()))
    }

    fn swiglu_halves_backward(
        gate_up: FloatTensor<Self>,
        d_out: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let (gate_up, d_out) = (gate_up.into_primitive(), d_out.into_primitive());
        FloatTensor::<Self>::new(B::swiglu_halves_backward(gate_up, d_out))
    }

    fn swiglu_halves(gate_up: FloatTensor<Self>) -> FloatTensor<Self> {
        let step = SwigluStep.prepare::<C>([gate_up.node()]).compute_bound().stateful();
        let gate_up = gate_up.into_primitive();
        let out = B::swiglu_halves_forward(gate_up.clone());
        match step {
            OpsKind::Tracked(prepared) => prepared.finish(gate_up, out),
            OpsKind::UnTracked(prepared) => prepared.finish(out),
        }
    }
}

#[derive(Debug)]
struct SwigluStep;

impl<B: SwigluOps> Backward<B, 1> for SwigluStep {
    type State = FloatTensor<B>;

    fn backward(
        self,
        ops: Ops<FloatTensor<B>, 1>,
        gradients: &mut Gradients,
        _: &mut Checkpointer,
    ) {
        let d_out = gradients.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            gradients.register::<B>(node.id, B::swiglu_halves_backward(ops.state, d_out));
        }
    }
}
