//! SwiGLU and the tanh GELU in one pass each way.
//!
//! They deliberately save only their inputs: what is cheap to compute again is not kept.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::flex;
use crate::vector::{sigmoid, widest};

/// Elements that one task works on.
const TASK: usize = 16 * 1024;
/// 2·sqrt(2/π), from (1 + tanh u) / 2 = sigmoid(2u).
const TWO_ROOT: f32 = 1.595_769;
const CUBIC: f32 = 0.044_715;

/// The operations on each backend: plain ones, fused ones on the CPU.
#[backend_extension(Flex, Autodiff, Cube: cfg(feature = "cuda"), Fusion: cfg(feature = "cuda"))]
pub(crate) trait GateOps: Backend {
    #[fusion(default)]
    fn swiglu_forward(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        let gate = Self::float_mul(gate.clone(), Self::sigmoid(gate));
        Self::float_mul(gate, up)
    }

    /// Gradients of gate and up.
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

/// The plain bodies, which burn's fusion joins.
#[cfg(feature = "cuda")]
impl GateOps for burn_cubecl::CubeBackend {}

impl GateOps for Flex {
    fn swiglu_forward(gate: FlexTensor, up: FlexTensor) -> FlexTensor {
        let (gates, ups) = (flex::values(&gate), flex::values(&up));
        let mut out = vec![0.0; gates.len()];
        let tasks = out.par_chunks_mut(TASK).zip(gates.par_chunks(TASK)).zip(ups.par_chunks(TASK));
        tasks.for_each(|((out, gate), up)| swiglu_block(out, gate, up));
        flex::tensor(out, gate.shape())
    }

    fn swiglu_backward(
        gate: FlexTensor,
        up: FlexTensor,
        d_out: FlexTensor,
    ) -> (FlexTensor, FlexTensor) {
        let (gates, ups) = (flex::values(&gate), flex::values(&up));
        let mut d_up = flex::own(d_out);
        let mut d_gate = vec![0.0; gates.len()];
        let out = d_gate.par_chunks_mut(TASK).zip(d_up.storage_mut::<f32>().par_chunks_mut(TASK));
        let tasks = out.zip(gates.par_chunks(TASK).zip(ups.par_chunks(TASK)));
        tasks.for_each(|((d_gate, d_up), (gate, up))| {
            swiglu_block_backward(d_gate, d_up, gate, up);
        });
        (flex::tensor(d_gate, gate.shape()), d_up)
    }

    fn gelu_tanh_forward(x: FlexTensor) -> FlexTensor {
        let values = flex::values(&x);
        let mut out = vec![0.0; values.len()];
        let tasks = out.par_chunks_mut(TASK).zip(values.par_chunks(TASK));
        tasks.for_each(|(out, x)| gelu_block(out, x));
        flex::tensor(out, x.shape())
    }

    fn gelu_tanh_backward(x: FlexTensor, d_out: FlexTensor) -> FlexTensor {
        let values = flex::values(&x);
        let mut out = flex::own(d_out);
        let tasks = out.storage_mut::<f32>().par_chunks_mut(TASK).zip(values.par_chunks(TASK));
        tasks.for_each(|(out, x)| gelu_block_backward(out, x));
        out
    }
}

widest! {
    fn swiglu_block(out: &mut [f32], gate: &[f32], up: &[f32]) {
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            *out = gate * sigmoid(*gate) * up;
        }
    }
}

widest! {
    /// `d_up` holds the gradient of the output before, and that of up after.
    fn swiglu_block_backward(d_gate: &mut [f32], d_up: &mut [f32], gate: &[f32], up: &[f32]) {
        let out = d_gate.iter_mut().zip(d_up);
        for ((d_gate, d_up), (gate, up)) in out.zip(gate.iter().zip(up)) {
            let s = sigmoid(*gate);
            let silu = gate * s;
            *d_gate = *d_up * up * (s + silu * (1.0 - s));
            *d_up *= silu;
        }
    }
}

widest! {
    fn gelu_block(out: &mut [f32], x: &[f32]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = x * sigmoid(TWO_ROOT * x * (1.0 + CUBIC * x * x));
        }
    }
}

widest! {
    /// `out` holds the gradient of the output before, and that of x after.
    fn gelu_block_backward(out: &mut [f32], x: &[f32]) {
        for (out, x) in out.iter_mut().zip(x) {
            let square = x * x;
            let s = sigmoid(TWO_ROOT * x * (1.0 + CUBIC * square));
            let inner = TWO_ROOT * x * (1.0 + 3.0 * CUBIC * square);
            *out *= s * (1.0 + inner * (1.0 - s));
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Dispatch;
    use burn::tensor::Tensor;
    use testkit::{Tolerance, assert_close, values, wave};

    use super::GateOps;

    const CLOSE: Tolerance = Tolerance { absolute: 1e-6, of_largest: 1e-6 };

    /// On the autodiff backend the plain bodies run; on the CPU's own the fused ones.
    #[test]
    fn plain_bodies_agree_with_fused_ones() {
        let (a, b, c) = (wave([3, 50], 1.3), wave([3, 50], 0.7), wave([3, 50], 2.1));
        let run = |plain: bool| {
            let give = |x: &Tensor<2>| {
                if plain { x.clone().autodiff() } else { x.clone() }.into_dispatch()
            };
            let (d_gate, d_up) =
                <Dispatch as GateOps>::swiglu_backward(give(&a), give(&b), give(&c));
            [
                <Dispatch as GateOps>::swiglu_forward(give(&a), give(&b)),
                d_gate,
                d_up,
                <Dispatch as GateOps>::gelu_tanh_forward(give(&a)),
                <Dispatch as GateOps>::gelu_tanh_backward(give(&a), give(&c)),
            ]
            .map(|x| values(&Tensor::<2>::from_dispatch(x)))
        };
        for (plain, fused) in run(true).iter().zip(run(false)) {
            assert_close("plain", plain, &fused, CLOSE);
        }
    }
}
