//! Products of rows with up to three weights `[out, in]`, results side by side: one product forward, two backward.
//!
//! The gradient of a weight comes out in the weight's own axis order, so that nothing copies it afterwards.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{DType, Shape, Slice, Tensor};
use burn_cubecl::CubeBackend;

use crate::matmul::{MatmulOps, product_of_rounded as product, rounded, transposed};
use crate::precision::{Precision, precision};

/// `x · [w₁ᵀ w₂ᵀ w₃ᵀ]` of rows `[n, in]` and one to three weights `[out, in]`; of more weights, none.
pub(crate) fn linear_maps(x_ni: Tensor<2>, weights: &[Tensor<2>]) -> Option<Tensor<2>> {
    let (first, others) = weights.split_first()?;
    if others.len() > 2 {
        return None;
    }
    // A missing weight has a stand-in that is not read.
    let weight = |i: usize| others.get(i).cloned().unwrap_or_else(|| first.clone().detach());
    let [second, third] = [0, 1].map(|i| weight(i).into_dispatch());
    let (x, first) = (x_ni.into_dispatch(), first.clone().into_dispatch());
    let n = weights.len();
    let y = <Dispatch as LinearOps>::linear_maps(x, first, second, third, n, precision());
    Some(Tensor::from_dispatch(y))
}

#[backend_extension(Autodiff, Cube, Fusion)]
pub(crate) trait LinearOps: MatmulOps {
    /// The first `n` weights below each other, rounded to bf16 if `half`.
    #[fusion(meta = |first: &TensorSpec, second: &TensorSpec, third: &TensorSpec, n: &usize, half: &bool| stacked_spec([first, second, third], *n, *half))]
    fn stacked_weights(
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        third: FloatTensor<Self>,
        n: usize,
        half: bool,
    ) -> FloatTensor<Self>;

    /// The differentiable form: the first `n` weights are multiplied.
    #[fusion(default)]
    fn linear_maps(
        x: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        third: FloatTensor<Self>,
        n: usize,
        precision: Precision,
    ) -> FloatTensor<Self> {
        let half = precision == Precision::Bf16;
        let weight = stacked::<Self>([first, second, third], n, half);
        product::<Self>(rounded::<Self>(x, half), transposed::<Self>(weight), precision)
    }
}

fn stacked_spec(weights: [&TensorSpec; 3], n: usize, half: bool) -> TensorSpec {
    let rows = weights.iter().take(n).map(|weight| weight.shape[0]).sum();
    let dtype = if half { DType::BF16 } else { DType::F32 };
    TensorSpec::new(Shape::from([rows, weights[0].shape[1]]), dtype)
}

/// The first `n` weights below each other; a single one without a copy in f32.
fn stacked<B: LinearOps>(weights: [FloatTensor<B>; 3], n: usize, half: bool) -> FloatTensor<B> {
    let [first, second, third] = weights;
    match n {
        1 => rounded::<B>(first, half),
        _ => B::stacked_weights(first, second, third, n, half),
    }
}

impl LinearOps for CubeBackend {
    fn stacked_weights(
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        third: FloatTensor<Self>,
        n: usize,
        half: bool,
    ) -> FloatTensor<Self> {
        let weights = [first.clone(), second, third].into_iter().take(n).collect();
        kernels_gpu::stack::stack(weights, half).unwrap_or(first)
    }
}

impl<B: LinearOps, C: CheckpointStrategy> LinearOps for Autodiff<B, C> {
    fn stacked_weights(
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        third: FloatTensor<Self>,
        n: usize,
        half: bool,
    ) -> FloatTensor<Self> {
        let [first, second, third] = [first, second, third].map(|x| x.into_primitive());
        FloatTensor::<Self>::new(B::stacked_weights(first, second, third, n, half))
    }

    fn linear_maps(
        x: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        third: FloatTensor<Self>,
        n: usize,
        precision: Precision,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), first.node(), second.node(), third.node()];
        let step = LinearStep.prepare::<C>(nodes).compute_bound().stateful();
        let is_tracked = [x.is_tracked(), [&first, &second, &third].iter().any(|w| w.is_tracked())];
        let half = precision == Precision::Bf16;
        let x = rounded::<B>(x.into_primitive(), half);
        let weights = [first, second, third].map(|w| w.into_primitive());
        let rows = weights.each_ref().map(|weight| weight.shape()[0]);
        let weight = stacked::<B>(weights.clone(), n, half);
        let y = |x, weight| product::<B>(x, transposed::<B>(weight), precision);
        match step {
            OpsKind::Tracked(prepared) => {
                // An operand is saved only for the other one's gradient.
                let weight_of_gradient = is_tracked[0].then(|| {
                    // In f32 the weights are there anyway, and are put below each other again.
                    if half {
                        SavedWeight::Rounded(weight.clone())
                    } else {
                        SavedWeight::Parts(weights)
                    }
                });
                let saved = SavedMaps {
                    x: is_tracked[1].then(|| x.clone()),
                    weight: weight_of_gradient,
                    rows,
                    n,
                    precision,
                };
                prepared.finish(saved, y(x, weight))
            }
            OpsKind::UnTracked(prepared) => prepared.finish(y(x, weight)),
        }
    }
}

/// State of the backward pass.
#[derive(Clone, Debug)]
struct SavedMaps<B: Backend> {
    /// The rows as they were multiplied.
    x: Option<FloatTensor<B>>,
    weight: Option<SavedWeight<B>>,
    /// Rows of each weight.
    rows: [usize; 3],
    n: usize,
    precision: Precision,
}

#[derive(Clone, Debug)]
enum SavedWeight<B: Backend> {
    /// As it was multiplied.
    Rounded(FloatTensor<B>),
    Parts([FloatTensor<B>; 3]),
}

#[derive(Debug)]
struct LinearStep;

impl<B: LinearOps> Backward<B, 4> for LinearStep {
    type State = SavedMaps<B>;

    fn backward(self, ops: Ops<SavedMaps<B>, 4>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let SavedMaps { x, weight, rows, n, precision } = ops.state;
        let half = precision == Precision::Bf16;
        let dy = rounded::<B>(gradients.consume::<B>(&ops.node), half);
        let [x_node, weight_nodes @ ..] = ops.parents;
        if let (Some(node), Some(weight)) = (x_node, weight) {
            let weight = match weight {
                SavedWeight::Rounded(weight) => weight,
                SavedWeight::Parts(weights) => stacked::<B>(weights, n, half),
            };
            gradients.register::<B>(node.id, product::<B>(dy.clone(), weight, precision));
        }
        if let Some(x) = x {
            let d_weights = product::<B>(transposed::<B>(dy), x, precision);
            let nodes = weight_nodes.map(|node| node.map(|node| node.id));
            register_rows::<B>(gradients, d_weights, nodes.into_iter().zip(rows).take(n));
        }
    }
}

/// Registers the rows of each weight among those of all.
fn register_rows<B: Backend>(
    gradients: &mut Gradients,
    d_weights: FloatTensor<B>,
    weights: impl Iterator<Item = (Option<NodeId>, usize)>,
) {
    let n_rows = d_weights.shape()[0];
    let mut start = 0;
    for (node, rows) in weights {
        let range = start..start + rows;
        start = range.end;
        let Some(node) = node else { continue };
        let d_weight = if rows == n_rows {
            d_weights.clone()
        } else {
            B::float_slice(d_weights.clone(), &[Slice::from(range)])
        };
        gradients.register::<B>(node, d_weight);
    }
}
