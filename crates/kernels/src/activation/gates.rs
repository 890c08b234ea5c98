//! Generic kernels of SwiGLU and the tanh GELU, with their own backward pass on every backend.
//!
//! Only the inputs are kept for it, where burn's autodiff would keep every intermediate result.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, backend_extension};

/// 2·sqrt(2/π), from (1 + tanh u) / 2 = sigmoid(2u).
const TWO_ROOT: f32 = 1.595_769;
const CUBIC: f32 = 0.044_715;

/// The operations by tensor operations; with `Fusion` they join burn's fused kernels.
#[backend_extension(Flex, Autodiff, Cube: cfg(feature = "gpu"), Fusion: cfg(feature = "gpu"))]
pub(crate) trait GateOps: Backend {
    #[fusion(default)]
    fn swiglu_forward(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        let gate = Self::float_mul(gate.clone(), Self::sigmoid(gate));
        Self::float_mul(gate, up)
    }

    /// The gradients of gate and up.
    #[fusion(default)]
    fn swiglu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        d_out: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let s = Self::sigmoid(gate.clone());
        let silu = Self::float_mul(gate, s.clone());
        let d_up = Self::float_mul(d_out.clone(), silu.clone());
        // silu' = s + silu · (1 - s)
        let rest = Self::float_mul(silu.clone(), s.clone());
        let slope = Self::float_sub(Self::float_add(s, silu), rest);
        (Self::float_mul(Self::float_mul(d_out, up), slope), d_up)
    }

    #[fusion(default)]
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::swiglu_forward(gate, up)
    }

    #[fusion(default)]
    fn gelu_tanh_forward(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let square = Self::float_mul(x.clone(), x.clone());
        let cubic =
            Self::float_add_scalar(Self::float_mul_scalar(square, CUBIC.into()), 1.0.into());
        let two_u = Self::float_mul_scalar(Self::float_mul(x.clone(), cubic), TWO_ROOT.into());
        Self::float_mul(x, Self::sigmoid(two_u))
    }

    #[fusion(default)]
    fn gelu_tanh_backward(x: FloatTensor<Self>, d_out: FloatTensor<Self>) -> FloatTensor<Self> {
        let square = Self::float_mul(x.clone(), x.clone());
        let add_one = |x| Self::float_add_scalar(x, 1.0.into());
        let cubic = add_one(Self::float_mul_scalar(square.clone(), CUBIC.into()));
        let s = Self::sigmoid(Self::float_mul_scalar(
            Self::float_mul(x.clone(), cubic),
            TWO_ROOT.into(),
        ));
        let inner = add_one(Self::float_mul_scalar(square, (3.0 * CUBIC).into()));
        let inner = Self::float_mul_scalar(Self::float_mul(x, inner), TWO_ROOT.into());
        let rest = add_one(Self::float_neg(s.clone()));
        let slope = Self::float_mul(s, add_one(Self::float_mul(inner, rest)));
        Self::float_mul(d_out, slope)
    }

    #[fusion(default)]
    fn gelu_tanh(x: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::gelu_tanh_forward(x)
    }
}

impl<B: GateOps, C: CheckpointStrategy> GateOps for Autodiff<B, C> {
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct SwigluBackward;
        impl<B: GateOps> Backward<B, 2> for SwigluBackward {
            type State = (NodeId, NodeId);

            fn backward(
                self,
                ops: Ops<Self::State, 2>,
                grads: &mut Gradients,
                checkpointer: &mut Checkpointer,
            ) {
                let d_out = grads.consume::<B>(&ops.node);
                let gate = checkpointer.retrieve_node_output::<FloatTensor<B>>(ops.state.0);
                let up = checkpointer.retrieve_node_output::<FloatTensor<B>>(ops.state.1);
                let (d_gate, d_up) = B::swiglu_backward(gate, up, d_out);
                let [gate, up] = ops.parents;
                if let Some(gate) = gate {
                    grads.register::<B>(gate.id, d_gate);
                }
                if let Some(up) = up {
                    grads.register::<B>(up.id, d_up);
                }
            }
        }
        let nodes = [gate.node(), up.node()];
        match SwigluBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prepared) => {
                let state = (prepared.checkpoint(&gate), prepared.checkpoint(&up));
                let out = B::swiglu_forward(gate.into_primitive(), up.into_primitive());
                prepared.finish(state, out)
            }
            OpsKind::UnTracked(prepared) => {
                prepared.finish(B::swiglu_forward(gate.into_primitive(), up.into_primitive()))
            }
        }
    }

    fn gelu_tanh(x: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct GeluBackward;
        impl<B: GateOps> Backward<B, 1> for GeluBackward {
            type State = NodeId;

            fn backward(
                self,
                ops: Ops<Self::State, 1>,
                grads: &mut Gradients,
                checkpointer: &mut Checkpointer,
            ) {
                let d_out = grads.consume::<B>(&ops.node);
                let x = checkpointer.retrieve_node_output::<FloatTensor<B>>(ops.state);
                if let [Some(parent)] = ops.parents {
                    grads.register::<B>(parent.id, B::gelu_tanh_backward(x, d_out));
                }
            }
        }
        match GeluBackward.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prepared) => {
                let state = prepared.checkpoint(&x);
                prepared.finish(state, B::gelu_tanh_forward(x.into_primitive()))
            }
            OpsKind::UnTracked(prepared) => {
                prepared.finish(B::gelu_tanh_forward(x.into_primitive()))
            }
        }
    }
}

impl GateOps for Flex {}

#[cfg(feature = "gpu")]
impl GateOps for burn_cubecl::CubeBackend {}
