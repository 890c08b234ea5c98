//! Between burn's autodiff and operations with any number of inputs, on the CPU backend.
//!
//! An operation computes its output from plain CPU tensors and then records how gradients flow back.
//! It deliberately offers nothing for other backends: there the callers' plain bodies run.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU8, Ordering};

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::{DType, Device, Tensor};
use burn_flex::FlexTensor;

use crate::flex;

type Graph = Autodiff<Flex, NoCheckpointing>;

/// The most inputs that an operation may have: three linear maps with biases and adapters read one
/// input under a norm and add a residual.
const MAX_INPUTS: usize = 16;

const UNSET: u8 = 0;
const FUSED: u8 = 1;
const PLAIN: u8 = 2;

static BODIES: AtomicU8 = AtomicU8::new(UNSET);

/// Whether the fused bodies for the CPU run; if not, plain tensor operations do.
///
/// They run unless the environment says `TEMPER_KERNELS=plain` or [`set_fused`] said otherwise.
pub fn fused() -> bool {
    if PLAIN_HERE.get() {
        return false;
    }
    match BODIES.load(Ordering::Relaxed) {
        UNSET => {
            let plain = std::env::var_os("TEMPER_KERNELS").is_some_and(|value| value == "plain");
            set_fused(!plain);
            !plain
        }
        bodies => bodies == FUSED,
    }
}

/// Switches the fused bodies on or off for the whole process.
pub fn set_fused(on: bool) {
    BODIES.store(if on { FUSED } else { PLAIN }, Ordering::Relaxed);
}

thread_local! {
    static PLAIN_HERE: Cell<bool> = const { Cell::new(false) };
}

/// Calls `run` with the fused bodies off for operations of this thread, as the oracle in tests.
pub fn with_plain_bodies<R>(run: impl FnOnce() -> R) -> R {
    struct Restored(bool);
    impl Drop for Restored {
        fn drop(&mut self) {
            PLAIN_HERE.set(self.0);
        }
    }
    // A panic inside that someone catches leaves the thread as it was too.
    let _restored = Restored(PLAIN_HERE.replace(true));
    run()
}

/// Whether a fused body can read this tensor.
pub(crate) fn fits<const D: usize>(x: &Tensor<D>) -> bool {
    fits_as(x, DType::F32)
}

/// As [`fits`], where values of another type are read.
pub(crate) fn fits_as<const D: usize>(x: &Tensor<D>, dtype: DType) -> bool {
    let device = x.device();
    let device_fits = device == Device::flex() || device == Device::flex().autodiff();
    device_fits && x.dtype() == dtype && fused()
}

/// A float tensor of the CPU backend, outside burn's dispatch.
#[derive(Clone, Debug)]
pub(crate) enum Cpu {
    /// Without autodiff.
    Constant(FlexTensor),
    /// On the autodiff device, tracked or not.
    Graph(FloatTensor<Graph>),
}

impl Cpu {
    /// # Panics
    /// If the tensor doesn't [`fits`].
    pub(crate) fn new<const D: usize>(x: Tensor<D>) -> Self {
        if x.is_autodiff() {
            match x.try_into_primitive::<Graph>() {
                Ok(x) => Self::Graph(x),
                Err(error) => unreachable!("the device was compared before: {error:?}"),
            }
        } else {
            match x.try_into_primitive::<Flex>() {
                Ok(x) => Self::Constant(x),
                Err(error) => unreachable!("the device was compared before: {error:?}"),
            }
        }
    }

    pub(crate) fn into_tensor<const D: usize>(self) -> Tensor<D> {
        match self {
            Self::Constant(x) => Tensor::from_primitive::<Flex>(x),
            Self::Graph(x) => Tensor::from_primitive::<Graph>(x),
        }
    }

    /// The values.
    pub(crate) fn value(&self) -> &FlexTensor {
        match self {
            Self::Constant(x) => x,
            Self::Graph(x) => x.primitive(),
        }
    }

    /// The values alone.
    pub(crate) fn into_value(self) -> FlexTensor {
        match self {
            Self::Constant(x) => x,
            Self::Graph(x) => x.into_primitive(),
        }
    }

    /// Whether a gradient by it is wanted.
    pub(crate) fn is_tracked(&self) -> bool {
        match self {
            Self::Constant(_) => false,
            Self::Graph(x) => x.is_tracked(),
        }
    }
}

/// How gradients flow from an operation's output to its inputs. What it needs for that, it holds.
pub(crate) trait Op: Clone + Debug + Send + 'static {
    /// Hands each wanted gradient to `inputs`.
    fn backward(self, d_out: FlexTensor, inputs: &mut InputGradients<'_>);
}

/// The gradients of an operation's inputs, by their place in [`record`]'s list.
pub(crate) struct InputGradients<'a> {
    wanted: [Option<NodeId>; MAX_INPUTS],
    gradients: &'a mut Gradients,
}

impl InputGradients<'_> {
    /// Whether the gradient of input `idx` is wanted.
    pub(crate) fn wants(&self, idx: usize) -> bool {
        self.wanted[idx].is_some()
    }

    /// Adds to the gradient of input `idx`, if it is wanted.
    pub(crate) fn add(&mut self, idx: usize, gradient: FlexTensor) {
        if let Some(id) = self.wanted[idx] {
            self.gradients.register::<Flex>(id, gradient);
        }
    }

    /// Takes out what was added to a parameter's gradient before, so that more can be added in
    /// place. Give it back with [`Self::add`].
    pub(crate) fn take(&mut self, parameter: &Cpu) -> Option<FlexTensor> {
        match parameter {
            Cpu::Graph(parameter) if parameter.is_tracked() => {
                let found = self.gradients.remove::<Flex>(parameter);
                found.or_else(|| take_back(parameter.id())).map(flex::own)
            }
            _ => None,
        }
    }
}

thread_local! {
    static LENT: RefCell<HashMap<NodeId, FlexTensor>> = RefCell::default();
}

fn take_back(parameter: NodeId) -> Option<FlexTensor> {
    LENT.with_borrow_mut(|lent| lent.remove(&parameter))
}

/// Lends a sum of gradients `[n]` to the backward pass that this thread runs next: products add to it
/// in place, and what they make is the parameter's gradient. Gives it back where nothing can use it.
///
/// What no operation took has to be taken back by [`reclaim_grad_buffer`] afterwards.
pub fn donate_grad_buffer<const D: usize>(
    parameter: &Tensor<D>,
    sum: Tensor<1>,
) -> Option<Tensor<1>> {
    if !fits(parameter) || !fits(&sum) {
        return Some(sum);
    }
    match Cpu::new(parameter.clone()) {
        Cpu::Graph(parameter) if parameter.is_tracked() => {
            let shape = parameter.primitive().layout().shape().clone();
            let sum = Cpu::new(sum.reshape::<D, _>(shape)).into_value();
            LENT.with_borrow_mut(|lent| lent.insert(parameter.id(), sum));
            None
        }
        _ => Some(sum),
    }
}

/// What [`donate_grad_buffer`] lent and no operation took.
pub fn reclaim_grad_buffer<const D: usize>(parameter: &Tensor<D>) -> Option<Tensor<1>> {
    if !fits(parameter) {
        return None;
    }
    let Cpu::Graph(primitive) = Cpu::new(parameter.clone()) else { return None };
    let sum: Tensor<D> = Cpu::Constant(take_back(primitive.id())?).into_tensor();
    let n = sum.dims().iter().product::<usize>();
    Some(sum.reshape([n]))
}

/// Puts an operation's output into the graph that its inputs stand in.
///
/// `op` is asked for what backward needs only if some input is tracked. An operation may hold
/// parameters as [`Cpu`] but no other inputs: those would keep abandoned graphs alive.
pub(crate) fn record<O: Op>(inputs: &[&Cpu], out: FlexTensor, op: impl FnOnce() -> O) -> Cpu {
    if !inputs.iter().any(|input| matches!(input, Cpu::Graph(_))) {
        return Cpu::Constant(out);
    }
    if !inputs.iter().any(|input| input.is_tracked()) {
        return Cpu::Graph(FloatTensor::<Graph>::new(out));
    }
    assert!(inputs.len() <= MAX_INPUTS, "an operation of {} inputs", inputs.len());
    let nothing = FloatTensor::<Graph>::new(flex::tensor(Vec::new(), [0]));
    let nodes = std::array::from_fn(|idx| match inputs.get(idx) {
        Some(Cpu::Graph(x)) => x.node(),
        _ => nothing.node(),
    });
    let step = RecordedStep(PhantomData::<O>);
    let recorded = match step.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => prepared.finish(op(), out),
        OpsKind::UnTracked(prepared) => prepared.finish(out),
    };
    Cpu::Graph(recorded)
}

#[derive(Debug)]
struct RecordedStep<O>(PhantomData<O>);

impl<O: Op> Backward<Flex, MAX_INPUTS> for RecordedStep<O> {
    type State = O;

    fn backward(self, ops: Ops<O, MAX_INPUTS>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let d_out = gradients.consume::<Flex>(&ops.node);
        let wanted = ops.parents.map(|parent| parent.map(|parent| parent.id));
        ops.state.backward(d_out, &mut InputGradients { wanted, gradients });
    }
}
