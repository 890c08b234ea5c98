//! Recomputation of a block: forward without a graph, and again in the backward pass from the block's input.
//!
//! Only the input is kept between the two. burn's own checkpointing recomputes cheap operations only, and nothing next
//! to a frozen weight; this recomputes everything, whichever parameters are trained.

use std::fmt;
use std::marker::PhantomData;

use burn::backend::Flex;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;
use burn_flex::FlexTensor;

use crate::autodiff::{
    CpuTensor, Graph, InputGradients, Op, donate_again, donate_grad_buffer, reclaim_grad_buffer,
    record, take_donated,
};
use crate::flex;

/// The maximum number of a block's trained parameters, plus its input.
const MAX_TRAINED: usize = 48;

/// `forward(block, x)`; the graph keeps only `x`, and the backward pass calls `forward` again.
///
/// Both calls get a copy of `block` with other leaves than the block's own. `forward` may read no other tracked tensor
/// and must compute the same values both times. Where nothing is tracked, `forward` is called once and nothing is kept.
///
/// # Panics
/// If the block trains more than 47 tensors, or tensors are not on the CPU's autodiff device.
pub fn recompute<M: Module + 'static>(
    block: M,
    x_btd: Tensor<3>,
    forward: impl Fn(&M, Tensor<3>) -> Tensor<3> + Clone + Send + 'static,
) -> Tensor<3> {
    let mut trained = Trained::default();
    block.visit(&mut trained);
    let x = CpuTensor::new(x_btd);
    if trained.inputs.is_empty() && !x.is_tracked() {
        return forward(&block, x.into_tensor());
    }
    let value = x.value().clone();
    let block = block.map(&mut Constants);
    let out = forward(&block, constant(Tensor::from_primitive::<Flex>(value.clone())));
    let out = CpuTensor::new(out).into_value();
    let state = Recompute { block, forward, x: value, is_trained: trained.flags };
    let mut inputs = vec![x];
    inputs.extend(trained.inputs);
    record_many(&inputs, out, state).into_tensor()
}

/// The trained parameters of a block, and for each parameter whether it is trained.
#[derive(Default)]
struct Trained {
    inputs: Vec<CpuTensor>,
    flags: Vec<bool>,
}

impl ModuleVisitor for Trained {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let input = CpuTensor::new(param.val());
        self.flags.push(input.is_tracked());
        if input.is_tracked() {
            self.inputs.push(input);
        }
    }
}

/// The same values on the autodiff device, outside every graph.
fn constant<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let x = if x.is_autodiff() { x.inner() } else { x };
    x.autodiff().set_require_grad(false)
}

/// Replaces every parameter by its value.
struct Constants;

impl ModuleMapper for Constants {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, value, mapper) = param.consume();
        Param::from_mapped_value(id, constant(value), mapper)
    }
}

/// Replaces each trained parameter by a new leaf.
struct Leaves<'a> {
    is_trained: std::slice::Iter<'a, bool>,
    leaves: Vec<CpuTensor>,
}

impl ModuleMapper for Leaves<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !self.is_trained.next().is_some_and(|is_trained| *is_trained) {
            return param;
        }
        let (id, value, mapper) = param.consume();
        let leaf = value.inner().autodiff().set_require_grad(true);
        self.leaves.push(CpuTensor::new(leaf.clone()));
        Param::from_mapped_value(id, leaf, mapper)
    }
}

/// State of the backward pass.
#[derive(Clone)]
struct Recompute<M, F> {
    block: M,
    forward: F,
    x: FlexTensor,
    is_trained: Vec<bool>,
}

impl<M: fmt::Debug, F> fmt::Debug for Recompute<M, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recompute").field("block", &self.block).finish_non_exhaustive()
    }
}

impl<M, F> Recompute<M, F>
where
    M: Module + 'static,
    F: Fn(&M, Tensor<3>) -> Tensor<3> + Clone + Send + 'static,
{
    /// The gradients of the input, if needed, and of each trained parameter that has one. `donated` are the buffers of the
    /// parameters: products add to them in place, as without recomputation, so that the sums have the same bits.
    fn backward(
        self,
        d_out: FlexTensor,
        needs_x: bool,
        donated: Vec<Option<FlexTensor>>,
    ) -> Vec<InputGradient> {
        let Self { block, forward, x, is_trained } = self;
        let mut made = Leaves { is_trained: is_trained.iter(), leaves: Vec::new() };
        let block = block.map(&mut made);
        let x = Tensor::<3>::from_primitive::<Flex>(x).autodiff().set_require_grad(needs_x);
        let mut leaves = vec![CpuTensor::new(x.clone())];
        leaves.extend(made.leaves);
        for (leaf, sum) in leaves.iter().zip(donated) {
            // A leaf that is trained takes the buffer.
            let _ = sum.and_then(|sum| donate_grad_buffer(leaf, sum));
        }
        let out = CpuTensor::new(forward(&block, x));
        drop(block);
        let end = record(&[&out], flex::tensor(vec![0.0], [1]), || Inject { d_out });
        drop(out);
        let CpuTensor::Graph(end) = end else { unreachable!("its input is in a graph") };
        let mut gradients = end.backward();
        let take = |leaf: CpuTensor| {
            let unused = reclaim_grad_buffer(&leaf);
            let gradient = match leaf {
                CpuTensor::Graph(leaf) if leaf.is_tracked() => gradients.remove::<Flex>(&leaf),
                CpuTensor::Graph(_) | CpuTensor::Constant(_) => None,
            };
            InputGradient { gradient, unused }
        };
        leaves.into_iter().map(take).collect()
    }
}

/// The gradient of an input, and its donated buffer if no operation took it.
struct InputGradient {
    gradient: Option<FlexTensor>,
    unused: Option<FlexTensor>,
}

/// Injects the outer graph's gradient as the gradient of the inner graph's output.
#[derive(Clone, Debug)]
struct Inject {
    d_out: FlexTensor,
}

impl Op for Inject {
    fn backward(self, _: FlexTensor, inputs: &mut InputGradients<'_>) {
        inputs.add(0, self.d_out);
    }
}

/// Like [`record`], with room for a block's trained parameters.
fn record_many<M, F>(inputs: &[CpuTensor], out: FlexTensor, state: Recompute<M, F>) -> CpuTensor
where
    M: Module + 'static,
    F: Fn(&M, Tensor<3>) -> Tensor<3> + Clone + Send + 'static,
{
    assert!(inputs.len() <= MAX_TRAINED, "a block that trains {} tensors", inputs.len() - 1);
    let nothing = FloatTensor::<Graph>::new(flex::tensor(Vec::new(), [0]));
    let nodes = std::array::from_fn(|idx| match inputs.get(idx) {
        Some(CpuTensor::Graph(x)) => x.node(),
        _ => nothing.node(),
    });
    let step = RecomputeStep(PhantomData::<fn() -> (M, F)>);
    let recorded = match step.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => prepared.finish(state, out),
        OpsKind::UnTracked(prepared) => prepared.finish(out),
    };
    CpuTensor::Graph(recorded)
}

struct RecomputeStep<M, F>(PhantomData<fn() -> (M, F)>);

impl<M, F> fmt::Debug for RecomputeStep<M, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecomputeStep")
    }
}

impl<M, F> Backward<Flex, MAX_TRAINED> for RecomputeStep<M, F>
where
    M: Module + 'static,
    F: Fn(&M, Tensor<3>) -> Tensor<3> + Clone + Send + 'static,
{
    type State = Recompute<M, F>;

    fn backward(
        self,
        ops: Ops<Self::State, MAX_TRAINED>,
        gradients: &mut Gradients,
        _: &mut Checkpointer,
    ) {
        let d_out = gradients.consume::<Flex>(&ops.node);
        let needs_x = ops.parents[0].is_some();
        let parents = ops.parents.iter();
        let donated = parents.map(|parent| take_donated(parent.as_ref()?.id)).collect();
        let found = ops.state.backward(d_out, needs_x, donated);
        for (parent, InputGradient { gradient, unused }) in ops.parents.into_iter().zip(found) {
            let Some(parent) = parent else { continue };
            if let Some(gradient) = gradient {
                gradients.register::<Flex>(parent.id, gradient);
            }
            if let Some(unused) = unused {
                donate_again(parent.id, unused);
            }
        }
    }
}
