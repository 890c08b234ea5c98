//! Records CPU operations with any number of inputs in burn's autodiff graph.
//!
//! An operation computes its output from values first, then records how gradients flow back to its inputs.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Debug;
use std::marker::PhantomData;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::{Shape, Tensor};
use burn_flex::FlexTensor;

use crate::flex;

/// The CPU backend with autodiff.
pub(crate) type Graph = Autodiff<Flex, NoCheckpointing>;

/// The maximum number of inputs of an operation: three linear maps with biases and adapters, a norm before
/// them and a residual after them.
const MAX_INPUTS: usize = 16;

/// A float tensor of the CPU backend, outside burn's dispatch.
#[derive(Clone, Debug)]
pub enum CpuTensor {
    /// Without autodiff.
    Constant(FlexTensor),
    /// On the autodiff device, tracked or not.
    Graph(FloatTensor<Graph>),
}

impl CpuTensor {
    /// Takes the tensor out of burn's dispatch.
    ///
    /// # Panics
    /// If the tensor is on another device than the CPU's.
    pub fn new<const D: usize>(x: Tensor<D>) -> Self {
        if x.is_autodiff() {
            match x.try_into_primitive::<Graph>() {
                Ok(x) => Self::Graph(x),
                Err(error) => unreachable!("the caller compared the device: {error:?}"),
            }
        } else {
            match x.try_into_primitive::<Flex>() {
                Ok(x) => Self::Constant(x),
                Err(error) => unreachable!("the caller compared the device: {error:?}"),
            }
        }
    }

    /// The tensor in burn's dispatch.
    pub fn into_tensor<const D: usize>(self) -> Tensor<D> {
        match self {
            Self::Constant(x) => Tensor::from_primitive::<Flex>(x),
            Self::Graph(x) => Tensor::from_primitive::<Graph>(x),
        }
    }

    /// The values.
    pub fn value(&self) -> &FlexTensor {
        match self {
            Self::Constant(x) => x,
            Self::Graph(x) => x.primitive(),
        }
    }

    /// The values, without the graph.
    pub fn into_value(self) -> FlexTensor {
        match self {
            Self::Constant(x) => x,
            Self::Graph(x) => x.into_primitive(),
        }
    }

    /// The sizes of the `D` axes.
    ///
    /// # Panics
    /// If the tensor has another number of axes.
    pub(crate) fn dims<const D: usize>(&self) -> [usize; D] {
        let shape = self.value().layout().shape();
        assert_eq!(shape.num_dims(), D, "a tensor of {D} axes");
        std::array::from_fn(|axis| shape[axis])
    }

    /// Whether its gradient is needed.
    pub fn is_tracked(&self) -> bool {
        match self {
            Self::Constant(_) => false,
            Self::Graph(x) => x.is_tracked(),
        }
    }
}

/// Backward pass of an operation, with the state that it needs.
pub trait Op: Clone + Debug + Send + 'static {
    /// Adds the gradient of each input whose gradient is needed to `inputs`.
    fn backward(self, d_out: FlexTensor, inputs: &mut InputGradients<'_>);
}

/// Gradients of an operation's inputs, by their index in [`record`]'s list.
pub struct InputGradients<'a> {
    needed: [Option<NodeId>; MAX_INPUTS],
    gradients: &'a mut Gradients,
}

impl InputGradients<'_> {
    /// Whether the gradient of input `idx` is needed.
    pub fn needs(&self, idx: usize) -> bool {
        self.needed[idx].is_some()
    }

    /// Adds to the gradient of input `idx`, if it is needed.
    pub fn add(&mut self, idx: usize, gradient: FlexTensor) {
        if let Some(id) = self.needed[idx] {
            self.gradients.register::<Flex>(id, gradient);
        }
    }

    /// Removes and returns a parameter's gradient so far, so that more can be added in place; [`Self::add`]
    /// puts it back. Before the first addition this is the parameter's donated buffer, if it has one.
    pub(crate) fn take(&mut self, parameter: &CpuTensor) -> Option<FlexTensor> {
        match parameter {
            CpuTensor::Graph(parameter) if parameter.is_tracked() => {
                let found = self.gradients.remove::<Flex>(parameter);
                found.or_else(|| take_donated(parameter.id())).map(flex::own)
            }
            CpuTensor::Graph(_) | CpuTensor::Constant(_) => None,
        }
    }
}

thread_local! {
    static DONATED: RefCell<HashMap<NodeId, FlexTensor>> = RefCell::default();
}

pub(crate) fn take_donated(parameter: NodeId) -> Option<FlexTensor> {
    DONATED.with_borrow_mut(|donated| donated.remove(&parameter))
}

/// Donates a buffer that [`take_donated`] returned and that no operation took.
pub(crate) fn donate_again(parameter: NodeId, sum: FlexTensor) {
    DONATED.with_borrow_mut(|donated| donated.insert(parameter, sum));
}

/// Donates a sum of gradients, of the parameter's shape, to the next backward pass on this thread.
///
/// Products add to the buffer in place, and the result is the parameter's gradient. A buffer that no
/// operation took is returned by [`reclaim_grad_buffer`] afterwards. Returns the sum if the parameter is not
/// tracked.
pub fn donate_grad_buffer(parameter: &CpuTensor, sum: FlexTensor) -> Option<FlexTensor> {
    match parameter {
        CpuTensor::Graph(parameter) if parameter.is_tracked() => {
            DONATED.with_borrow_mut(|donated| donated.insert(parameter.id(), sum));
            None
        }
        CpuTensor::Graph(_) | CpuTensor::Constant(_) => Some(sum),
    }
}

/// The buffer that was donated by [`donate_grad_buffer`], if no operation took it.
pub fn reclaim_grad_buffer(parameter: &CpuTensor) -> Option<FlexTensor> {
    match parameter {
        CpuTensor::Graph(parameter) => take_donated(parameter.id()),
        CpuTensor::Constant(_) => None,
    }
}

/// Records an operation's output in the graph of its inputs.
///
/// `op` is called only if some input is tracked. An operation may store parameters as [`CpuTensor`] but no
/// other inputs: those would keep abandoned graphs alive.
///
/// # Panics
/// If the operation has more than 16 inputs.
pub fn record<O: Op>(inputs: &[&CpuTensor], out: FlexTensor, op: impl FnOnce() -> O) -> CpuTensor {
    if !inputs.iter().any(|input| matches!(input, CpuTensor::Graph(_))) {
        return CpuTensor::Constant(out);
    }
    if !inputs.iter().any(|input| input.is_tracked()) {
        return CpuTensor::Graph(FloatTensor::<Graph>::new(out));
    }
    assert!(inputs.len() <= MAX_INPUTS, "an operation of {} inputs", inputs.len());
    let nothing = FloatTensor::<Graph>::new(flex::tensor(Vec::new(), Shape::new([0])));
    let nodes = std::array::from_fn(|idx| match inputs.get(idx) {
        Some(CpuTensor::Graph(x)) => x.node(),
        Some(CpuTensor::Constant(_)) | None => nothing.node(),
    });
    let step = RecordedStep(PhantomData::<O>);
    let recorded = match step.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => prepared.finish(op(), out),
        OpsKind::UnTracked(prepared) => prepared.finish(out),
    };
    CpuTensor::Graph(recorded)
}

#[derive(Debug)]
struct RecordedStep<O>(PhantomData<O>);

impl<O: Op> Backward<Flex, MAX_INPUTS> for RecordedStep<O> {
    type State = O;

    fn backward(self, ops: Ops<O, MAX_INPUTS>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let d_out = gradients.consume::<Flex>(&ops.node);
        let needed = ops.parents.map(|parent| parent.map(|parent| parent.id));
        ops.state.backward(d_out, &mut InputGradients { needed, gradients });
    }
}
