//! Attention in tiles; the backward pass keeps the operands, the value and one number for each query and head.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension};
use burn::tensor::{DType, Int, Shape, Tensor};
use burn_cubecl::CubeBackend;
pub(crate) use kernels_gpu::attention::Settings;
use kernels_gpu::attention::{self, Attended, Segments};

/// q `[b, t, h, k]`, k and v `[b, s, g, k]` → `[b, t, h, k]`; segments `[b, t]` and `[b, s]`.
pub(crate) fn attention(
    [q, k, v]: [Tensor<4>; 3],
    [q_segments, k_segments]: [Tensor<2, Int>; 2],
    settings: Settings,
) -> Tensor<4> {
    let [q, k, v] = [q, k, v].map(Tensor::into_dispatch);
    let [q_segments, k_segments] = [q_segments, k_segments].map(|x| x.inner().into_dispatch());
    let out = <Dispatch as AttentionOps>::attend(q, k, v, q_segments, k_segments, settings);
    Tensor::from_dispatch(out)
}

/// `[b, t, (h + 2g) · k]` → `[b, t, h, k]`; segments `[b, t]`.
pub(crate) fn attention_packed(
    qkv_btw: Tensor<3>,
    rope: Option<(Tensor<3>, Tensor<3>)>,
    segments_bt: Tensor<2, Int>,
    settings: Settings,
) -> Tensor<4> {
    let rotated = rope.is_some();
    // Without angles the kernels read none.
    let (cos, sin) = rope.unwrap_or_else(|| (qkv_btw.clone(), qkv_btw.clone()));
    let [cos, sin] = [cos, sin].map(|x| x.inner().into_dispatch());
    let (qkv, segments) = (qkv_btw.into_dispatch(), segments_bt.inner().into_dispatch());
    let out = <Dispatch as AttentionOps>::attend_packed(qkv, cos, sin, segments, rotated, settings);
    Tensor::from_dispatch(out)
}

#[backend_extension(Autodiff, Cube, Fusion)]
pub(crate) trait AttentionOps: Backend {
    /// Value and log-sum-exp.
    #[fusion(meta = |q: &TensorSpec, _k: &TensorSpec, _v: &TensorSpec, _qs: &TensorSpec, _ks: &TensorSpec, settings: &Settings| attended(q, settings))]
    fn attend_forward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        q_segments: IntTensor<Self>,
        k_segments: IntTensor<Self>,
        settings: Settings,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// The gradients of q, k and v.
    #[fusion(meta = |q: &TensorSpec, k: &TensorSpec, v: &TensorSpec, _qs: &TensorSpec, _ks: &TensorSpec, _out: &TensorSpec, _lse: &TensorSpec, _d_out: &TensorSpec, _settings: &Settings| (q.clone(), k.clone(), v.clone()))]
    #[expect(clippy::too_many_arguments, reason = "extensions take tensors one by one")]
    fn attend_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        q_segments: IntTensor<Self>,
        k_segments: IntTensor<Self>,
        out: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        d_out: FloatTensor<Self>,
        settings: Settings,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// The differentiable form.
    #[fusion(default)]
    fn attend(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        q_segments: IntTensor<Self>,
        k_segments: IntTensor<Self>,
        settings: Settings,
    ) -> FloatTensor<Self> {
        Self::attend_forward(q, k, v, q_segments, k_segments, settings).0
    }

    /// Value and log-sum-exp; cosines and sines are read if `rotated`.
    #[fusion(meta = |qkv: &TensorSpec, _cos: &TensorSpec, _sin: &TensorSpec, _segments: &TensorSpec, _rotated: &bool, settings: &Settings| attended(qkv, settings))]
    fn attend_packed_forward(
        qkv: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        segments: IntTensor<Self>,
        rotated: bool,
        settings: Settings,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// The gradient of `qkv`.
    #[fusion(meta = |qkv: &TensorSpec, _cos: &TensorSpec, _sin: &TensorSpec, _segments: &TensorSpec, _out: &TensorSpec, _lse: &TensorSpec, _d_out: &TensorSpec, _rotated: &bool, _settings: &Settings| qkv.clone())]
    #[expect(clippy::too_many_arguments, reason = "extensions take tensors one by one")]
    fn attend_packed_backward(
        qkv: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        segments: IntTensor<Self>,
        out: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        d_out: FloatTensor<Self>,
        rotated: bool,
        settings: Settings,
    ) -> FloatTensor<Self>;

    /// The differentiable form.
    #[fusion(default)]
    fn attend_packed(
        qkv: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        segments: IntTensor<Self>,
        rotated: bool,
        settings: Settings,
    ) -> FloatTensor<Self> {
        Self::attend_packed_forward(qkv, cos, sin, segments, rotated, settings).0
    }
}

/// Value and log-sum-exp of operands whose first dimensions are b and t.
fn attended(x: &TensorSpec, settings: &Settings) -> (TensorSpec, TensorSpec) {
    let Settings { heads, width, .. } = *settings;
    let (b, t) = (x.shape[0], x.shape[1]);
    let spec = |shape: Shape| TensorSpec::new(shape, DType::F32);
    (spec(Shape::from([b, t, heads, width])), spec(Shape::from([b, heads, t])))
}

impl AttentionOps for CubeBackend {
    fn attend_forward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        q_segments: IntTensor<Self>,
        k_segments: IntTensor<Self>,
        settings: Settings,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let segments = Segments { queries: q_segments, keys: k_segments };
        let Attended { out, lse } = attention::forward([q, k, v], segments, &settings);
        (out, lse)
    }

    fn attend_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        q_segments: IntTensor<Self>,
        k_segments: IntTensor<Self>,
        out: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        d_out: FloatTensor<Self>,
        settings: Settings,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let segments = Segments { queries: q_segments, keys: k_segments };
        let attended = Attended { out, lse };
        attention::backward([q, k, v], segments, attended, d_out, &settings).into()
    }

    fn attend_packed_forward(
        qkv: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        segments: IntTensor<Self>,
        rotated: bool,
        settings: Settings,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let angles = rotated.then_some((cos, sin));
        let Attended { out, lse } = attention::packed_forward(qkv, angles, segments, &settings);
        (out, lse)
    }

    fn attend_packed_backward(
        qkv: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        segments: IntTensor<Self>,
        out: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        d_out: FloatTensor<Self>,
        rotated: bool,
        settings: Settings,
    ) -> FloatTensor<Self> {
        let angles = rotated.then_some((cos, sin));
        let attended = Attended { out, lse };
        attention::packed_backward(qkv, angles, segments, attended, d_out, &settings)
    }
}

impl<B: AttentionOps, C: CheckpointStrategy> AttentionOps for Autodiff<B, C> {
    fn attend_forward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        q_segments: IntTensor<Self>,
        k_segments: IntTensor<Self>,
        settings: Settings,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let [q, k, v] = [q, k, v].map(|x| x.into_primitive());
        let (out, lse) = B::attend_forward(q, k, v, q_segments, k_segments, settings);
        (FloatTensor::<Self>::new(out), FloatTensor::<Self>::new(lse))
    }

    fn attend_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        q_segments: IntTensor<Self>,
        k_segments: IntTensor<Self>,
        out: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        d_out: FloatTensor<Self>,
        settings: Settings,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [q, k, v, out, lse, d_out] = [q, k, v, out, lse, d_out].map(|x| x.into_primitive());
        let (dq, dk, dv) =
            B::attend_backward(q, k, v, q_segments, k_segments, out, lse, d_out, settings);
        [dq, dk, dv].map(|x| FloatTensor::<Self>::new(x)).into()
    }

    fn attend(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        q_segments: IntTensor<Self>,
        k_segments: IntTensor<Self>,
        settings: Settings,
    ) -> FloatTensor<Self> {
        let step = AttentionStep.prepare::<C>([q.node(), k.node(), v.node()]);
        let step = step.compute_bound().stateful();
        let [q, k, v] = [q, k, v].map(|x| x.into_primitive());
        let segments = [q_segments, k_segments];
        let [q_segments, k_segments] = segments.clone();
        let (out, lse) =
            B::attend_forward(q.clone(), k.clone(), v.clone(), q_segments, k_segments, settings);
        match step {
            OpsKind::Tracked(prepared) => {
                let saved =
                    Saved { operands: [q, k, v], segments, out: out.clone(), lse, settings };
                prepared.finish(saved, out)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(out),
        }
    }

    fn attend_packed_forward(
        qkv: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        segments: IntTensor<Self>,
        rotated: bool,
        settings: Settings,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let [qkv, cos, sin] = [qkv, cos, sin].map(|x| x.into_primitive());
        let (out, lse) = B::attend_packed_forward(qkv, cos, sin, segments, rotated, settings);
        (FloatTensor::<Self>::new(out), FloatTensor::<Self>::new(lse))
    }

    fn attend_packed_backward(
        qkv: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        segments: IntTensor<Self>,
        out: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        d_out: FloatTensor<Self>,
        rotated: bool,
        settings: Settings,
    ) -> FloatTensor<Self> {
        let [qkv, cos, sin, out, lse, d_out] =
            [qkv, cos, sin, out, lse, d_out].map(|x| x.into_primitive());
        FloatTensor::<Self>::new(B::attend_packed_backward(
            qkv, cos, sin, segments, out, lse, d_out, rotated, settings,
        ))
    }

    fn attend_packed(
        qkv: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        segments: IntTensor<Self>,
        rotated: bool,
        settings: Settings,
    ) -> FloatTensor<Self> {
        let step = PackedStep { rotated }.prepare::<C>([qkv.node()]).compute_bound().stateful();
        let [qkv, cos, sin] = [qkv, cos, sin].map(|x| x.into_primitive());
        let operands = [qkv, cos, sin];
        let [qkv, cos, sin] = operands.clone();
        let (out, lse) =
            B::attend_packed_forward(qkv, cos, sin, segments.clone(), rotated, settings);
        match step {
            OpsKind::Tracked(prepared) => {
                let segments = [segments.clone(), segments];
                let saved = Saved { operands, segments, out: out.clone(), lse, settings };
                prepared.finish(saved, out)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(out),
        }
    }
}

/// State of the backward pass.
#[derive(Clone, Debug)]
struct Saved<B: Backend> {
    /// Queries, keys and values; or all of them in one tensor, cosines and sines.
    operands: [FloatTensor<B>; 3],
    segments: [IntTensor<B>; 2],
    out: FloatTensor<B>,
    lse: FloatTensor<B>,
    settings: Settings,
}

#[derive(Debug)]
struct AttentionStep;

impl<B: AttentionOps> Backward<B, 3> for AttentionStep {
    type State = Saved<B>;

    fn backward(self, ops: Ops<Saved<B>, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let d_out = gradients.consume::<B>(&ops.node);
        let Saved { operands: [q, k, v], segments, out, lse, settings } = ops.state;
        let [q_segments, k_segments] = segments;
        let (dq, dk, dv) =
            B::attend_backward(q, k, v, q_segments, k_segments, out, lse, d_out, settings);
        for (node, grad) in ops.parents.into_iter().zip([dq, dk, dv]) {
            if let Some(node) = node {
                gradients.register::<B>(node.id, grad);
            }
        }
    }
}

#[derive(Debug)]
struct PackedStep {
    rotated: bool,
}

impl<B: AttentionOps> Backward<B, 1> for PackedStep {
    type State = Saved<B>;

    fn backward(self, ops: Ops<Saved<B>, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let d_out = gradients.consume::<B>(&ops.node);
        let Saved { operands: [qkv, cos, sin], segments: [segments, _], out, lse, settings } =
            ops.state;
        if let [Some(node)] = ops.parents {
            let grad = B::attend_packed_backward(
                qkv,
                cos,
                sin,
                segments,
                out,
                lse,
                d_out,
                self.rotated,
                settings,
            );
            gradients.register::<B>(node.id, grad);
        }
    }
}
