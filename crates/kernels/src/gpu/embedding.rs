//! Rows of a table by id, whose gradient repeats to the bit.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{Int, Shape, Tensor};
use burn_cubecl::CubeBackend;

/// [`crate::embedding`].
pub(crate) fn embedding(weight_vd: Tensor<2>, ids_bt: Tensor<2, Int>) -> Tensor<3> {
    let (weight, ids) = (weight_vd.into_dispatch(), ids_bt.inner().into_dispatch());
    Tensor::from_dispatch(<Dispatch as EmbeddingOps>::rows_of_table(weight, ids))
}

#[backend_extension(Autodiff, Cube, Fusion)]
pub(crate) trait EmbeddingOps: Backend {
    /// The gradient of a table with `v` rows.
    #[fusion(meta = |d_rows: &TensorSpec, _ids: &TensorSpec, v: &usize| table(d_rows, *v))]
    fn rows_of_table_backward(
        d_rows: FloatTensor<Self>,
        ids: IntTensor<Self>,
        v: usize,
    ) -> FloatTensor<Self>;

    #[fusion(default)]
    fn rows_of_table(weight: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        Self::embedding(weight, ids)
    }
}

fn table(d_rows: &TensorSpec, v: usize) -> TensorSpec {
    let width = d_rows.shape.iter().copied().next_back().unwrap_or(1);
    TensorSpec::new(Shape::from([v, width]), d_rows.dtype)
}

impl EmbeddingOps for CubeBackend {
    fn rows_of_table_backward(
        d_rows: FloatTensor<Self>,
        ids: IntTensor<Self>,
        v: usize,
    ) -> FloatTensor<Self> {
        kernels_gpu::embedding::backward(d_rows, ids, v)
    }
}

impl<B: EmbeddingOps, C: CheckpointStrategy> EmbeddingOps for Autodiff<B, C> {
    fn rows_of_table_backward(
        d_rows: FloatTensor<Self>,
        ids: IntTensor<Self>,
        v: usize,
    ) -> FloatTensor<Self> {
        FloatTensor::<Self>::new(B::rows_of_table_backward(d_rows.into_primitive(), ids, v))
    }

    fn rows_of_table(weight: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        let step = EmbeddingStep.prepare::<C>([weight.node()]).compute_bound().stateful();
        let weight = weight.into_primitive();
        let v = weight.shape()[0];
        let out = B::embedding(weight, ids.clone());
        match step {
            OpsKind::Tracked(prepared) => prepared.finish((ids, v), out),
            OpsKind::UnTracked(prepared) => prepared.finish(out),
        }
    }
}

#[derive(Debug)]
struct EmbeddingStep;

impl<B: EmbeddingOps> Backward<B, 1> for EmbeddingStep {
    type State = (IntTensor<B>, usize);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let d_rows = gradients.consume::<B>(&ops.node);
        let (ids, v) = ops.state;
        if let [Some(node)] = ops.parents {
            gradients.register::<B>(node.id, B::rows_of_table_backward(d_rows, ids, v));
        }
    }
}
