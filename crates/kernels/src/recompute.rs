//! A block whose inside is computed twice: forward without a graph, and again in the backward pass from the block's input.
//!
//! Between the two only the input is kept. Burn's own checkpointing recomputes cheap operations alone, and none beside a
//! frozen weight; this recomputes everything, whatever is trained. It deliberately knows no model: a block is a module and a
//! function of it.

use std::fmt;
use std::marker::PhantomData;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Tensor};
use burn_flex::FlexTensor;

use crate::autodiff::{Cpu, InputGradients, Op, record};
use crate::flex;

type Graph = Autodiff<Flex, NoCheckpointing>;

/// The most tensors that a block may train, its input included.
const MAX_TRAINED: usize = 48;

/// Whether [`recompute`] saves memory on this device; elsewhere it is the function that it is given.
pub fn recomputes_on(device: &Device) -> bool {
    device.clone().inner() == Device::flex()
}

/// `forward(block, x)`, of which a graph keeps nothing but `x`: its backward pass calls `forward` once more.
///
/// Both calls get a copy of `block` whose parameters are other leaves than the block's own, so `forward` may read no other
/// tracked tensor, and must compute the same both times.
///
/// # Panics
/// If the block trains more than 47 tensors.
pub fn recompute<M: Module + 'static>(
    block: M,
    x_btd: Tensor<3>,
    forward: impl Fn(&M, Tensor<3>) -> Tensor<3> + Clone + Send + 'static,
) -> Tensor<3> {
    let fits = recomputes_on(&x_btd.device()) && x_btd.dtype() == DType::F32;
    if !fits || !x_btd.is_autodiff() {
        return forward(&block, x_btd);
    }
    let mut trained = Trained::default();
    block.visit(&mut trained);
    let x = Cpu::new(x_btd);
    if trained.inputs.is_empty() && !x.is_tracked() {
        return forward(&block, x.into_tensor());
    }
    let value = x.value().clone();
    let block = block.map(&mut Constants);
    let out = forward(&block, constant(Tensor::from_primitive::<Flex>(value.clone())));
    let out = Cpu::new(out).into_value();
    let state = Recompute { block, forward, x: value, is_trained: trained.flags };
    let mut inputs = vec![x];
    inputs.extend(trained.inputs);
    record_many(&inputs, out, state).into_tensor()
}

/// The parameters of a block that are trained, and which of all they are.
#[derive(Default)]
struct Trained {
    inputs: Vec<Cpu>,
    flags: Vec<bool>,
}

impl ModuleVisitor for Trained {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let input = Cpu::new(param.val());
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

/// Makes new leaves of the parameters that are trained.
struct Leaves<'a> {
    is_trained: std::slice::Iter<'a, bool>,
    leaves: Vec<Cpu>,
}

impl ModuleMapper for Leaves<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !self.is_trained.next().is_some_and(|is_trained| *is_trained) {
            return param;
        }
        let (id, value, mapper) = param.consume();
        let leaf = value.inner().autodiff().set_require_grad(true);
        self.leaves.push(Cpu::new(leaf.clone()));
        Param::from_mapped_value(id, leaf, mapper)
    }
}

/// What the backward pass starts from.
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
    /// The gradients by the input, if wanted, and by each trained parameter, where there is one.
    fn backward(self, d_out: FlexTensor, wants_x: bool) -> Vec<Option<FlexTensor>> {
        let Self { block, forward, x, is_trained } = self;
        let mut made = Leaves { is_trained: is_trained.iter(), leaves: Vec::new() };
        let block = block.map(&mut made);
        let x = Tensor::<3>::from_primitive::<Flex>(x).autodiff().set_require_grad(wants_x);
        let mut leaves = vec![Cpu::new(x.clone())];
        leaves.extend(made.leaves);
        let out = Cpu::new(forward(&block, x));
        drop(block);
        let end = record(&[&out], flex::tensor(vec![0.0], [1]), || Handed { d_out });
        drop(out);
        let Cpu::Graph(end) = end else { unreachable!("its input stands in a graph") };
        let mut gradients = end.backward();
        let take = |leaf: Cpu| match leaf {
            Cpu::Graph(leaf) if leaf.is_tracked() => gradients.remove::<Flex>(&leaf),
            _ => None,
        };
        leaves.into_iter().map(take).collect()
    }
}

/// Hands a gradient to its input: where a graph goes on that another one has followed so far.
#[derive(Clone, Debug)]
struct Handed {
    d_out: FlexTensor,
}

impl Op for Handed {
    fn backward(self, _: FlexTensor, inputs: &mut InputGradients<'_>) {
        inputs.add(0, self.d_out);
    }
}

/// As [`record`], for as many inputs as a block trains.
fn record_many<M, F>(inputs: &[Cpu], out: FlexTensor, state: Recompute<M, F>) -> Cpu
where
    M: Module + 'static,
    F: Fn(&M, Tensor<3>) -> Tensor<3> + Clone + Send + 'static,
{
    assert!(inputs.len() <= MAX_TRAINED, "a block that trains {} tensors", inputs.len() - 1);
    let nothing = FloatTensor::<Graph>::new(flex::tensor(Vec::new(), [0]));
    let nodes = std::array::from_fn(|idx| match inputs.get(idx) {
        Some(Cpu::Graph(x)) => x.node(),
        _ => nothing.node(),
    });
    let step = RecomputeStep(PhantomData::<fn() -> (M, F)>);
    let recorded = match step.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => prepared.finish(state, out),
        OpsKind::UnTracked(prepared) => prepared.finish(out),
    };
    Cpu::Graph(recorded)
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
        let wants_x = ops.parents[0].is_some();
        let found = ops.state.backward(d_out, wants_x);
        for (parent, gradient) in ops.parents.into_iter().zip(found) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                gradients.register::<Flex>(parent.id, gradient);
            }
        }
    }
}
