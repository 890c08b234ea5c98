//! Checks of one operation: values and gradients against the reference in f64 and against the generic kernels, and equal
//! bits in every run and with any number of threads.

use burn::tensor::{Device, Gradients, Tensor, TensorData};
use testkit::{Tolerance, assert_close, values};

use crate::reference::{Inputs, derivative};
use crate::support::{bits, device as on, f32s, on_any_threads};

/// Order of a tensor's values in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// Contiguous rows.
    Contiguous,
    /// First and last axis swapped.
    Transposed,
    /// A slice of a larger tensor, without its first and last index of each axis.
    Sliced,
}

/// An input of an operation.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    shape: Vec<usize>,
    values: Vec<f32>,
    view: View,
}

impl Input {
    /// Values in about -2..2.
    pub(crate) fn random(shape: &[usize], seed: u64) -> Self {
        let n = shape.iter().product();
        let values = values(&crate::support::random([n], seed, &Device::flex()));
        Self { shape: shape.to_vec(), values, view: View::Contiguous }
    }

    pub(crate) fn view(self, view: View) -> Self {
        Self { view, ..self }
    }

    pub(crate) fn scaled(mut self, factor: f32) -> Self {
        self.values.iter_mut().for_each(|value| *value *= factor);
        self
    }

    fn f64s(&self) -> Vec<f64> {
        self.values.iter().copied().map(f64::from).collect()
    }

    fn leaf(&self, device: &Device) -> Leaf {
        fn make<const D: usize>(input: &Input, device: &Device) -> Tensor<D> {
            let shape: [usize; D] = input.shape.clone().try_into().expect("its rank");
            let x = Tensor::from_data(TensorData::new(input.values.clone(), shape), &on());
            let x = as_view(x, input.view);
            if device.is_autodiff() { x.autodiff().require_grad() } else { x }
        }
        match self.shape.len() {
            1 => Leaf::D1(make(self, device)),
            2 => Leaf::D2(make(self, device)),
            3 => Leaf::D3(make(self, device)),
            _ => Leaf::D4(make(self, device)),
        }
    }
}

/// The same values in the given order in memory.
pub(crate) fn as_view<const D: usize>(x: Tensor<D>, view: View) -> Tensor<D> {
    match view {
        View::Contiguous => x,
        View::Transposed if D == 1 => x,
        View::Transposed => x.swap_dims(0, D - 1).mul_scalar(1.0).swap_dims(0, D - 1),
        View::Sliced => {
            let dims = x.dims();
            let places = dims.map(|n| 1..n + 1);
            let larger = Tensor::<D>::full(dims.map(|n| n + 2), f32::NAN, &x.device());
            larger.slice_assign(places.clone(), x).slice(places)
        }
    }
}

/// A tensor of any rank.
#[derive(Clone, Debug)]
pub(crate) enum Leaf {
    D1(Tensor<1>),
    D2(Tensor<2>),
    D3(Tensor<3>),
    D4(Tensor<4>),
}

impl Leaf {
    pub(crate) fn d1(&self) -> Tensor<1> {
        let Self::D1(x) = self else { panic!("not of rank 1") };
        x.clone()
    }

    pub(crate) fn d2(&self) -> Tensor<2> {
        let Self::D2(x) = self else { panic!("not of rank 2") };
        x.clone()
    }

    pub(crate) fn d3(&self) -> Tensor<3> {
        let Self::D3(x) = self else { panic!("not of rank 3") };
        x.clone()
    }

    pub(crate) fn d4(&self) -> Tensor<4> {
        let Self::D4(x) = self else { panic!("not of rank 4") };
        x.clone()
    }

    /// Its gradient; zeros if there is none.
    fn gradient(&self, gradients: &Gradients) -> Vec<f32> {
        fn of<const D: usize>(x: &Tensor<D>, gradients: &Gradients) -> Vec<f32> {
            let none = || vec![0.0; x.dims().iter().product()];
            x.grad(gradients).map_or_else(none, |gradient| values(&gradient))
        }
        match self {
            Self::D1(x) => of(x, gradients),
            Self::D2(x) => of(x, gradients),
            Self::D3(x) => of(x, gradients),
            Self::D4(x) => of(x, gradients),
        }
    }
}

/// An operation with its inputs.
pub(crate) struct Operation<'a> {
    /// Printed where a check fails.
    pub(crate) name: String,
    pub(crate) inputs: Vec<Input>,
    /// The operation under test, with its output flattened.
    pub(crate) run: &'a (dyn Fn(&[Leaf]) -> Tensor<1> + Sync),
    /// The same by [`crate::reference`].
    pub(crate) reference: &'a (dyn Fn(&Inputs) -> Vec<f64> + Sync),
    /// Of outputs and of gradients.
    pub(crate) tolerance: Tolerance,
}

/// The maximum number of elements per input whose derivative is checked.
const MAX_ELEMENTS: usize = 150;
/// About the maximum number of multiply-adds of all references, so that large operations check fewer elements.
const MAX_WORK: usize = 40_000_000;

impl Operation<'_> {
    /// Output and gradients of all inputs for an upstream gradient.
    fn forward_backward(&self, upstream: &[f32]) -> Vec<Vec<f32>> {
        let device = on().autodiff();
        let leaves: Vec<Leaf> = self.inputs.iter().map(|input| input.leaf(&device)).collect();
        let out = (self.run)(&leaves);
        let mut found = vec![values(&out)];
        let upstream = Tensor::<1>::from_data(upstream, &on());
        let gradients = (out * upstream.autodiff()).sum().backward();
        found.extend(leaves.iter().map(|leaf| leaf.gradient(&gradients)));
        found
    }

    /// Fails the test unless everything agrees. `work` is about the number of multiply-adds of one reference.
    pub(crate) fn check(&self, work: usize) {
        let inputs: Vec<Vec<f64>> = self.inputs.iter().map(Input::f64s).collect();
        let want = (self.reference)(&inputs);
        let n = want.len();
        let upstream = values(&crate::support::random([n], 99, &Device::flex()));
        let upstream64: Vec<f64> = upstream.iter().copied().map(f64::from).collect();
        let found = on_any_threads(|| self.forward_backward(&upstream));
        let again = self.forward_backward(&upstream);
        assert!(bits(&found) == bits(&again), "{}: another run gives other bits", self.name);
        // The generic kernels have a device to be tested on: the CPU.
        if on() == Device::flex() {
            let generic = kernels::with_generic_kernels(|| self.forward_backward(&upstream));
            for (idx, (found, generic)) in found.iter().zip(&generic).enumerate() {
                let name = format!("{}: generic, {idx}", self.name);
                assert_close(&name, found, generic, self.tolerance);
            }
        }
        assert_close(&format!("{}: output", self.name), &found[0], &f32s(&want), self.tolerance);
        // Without autodiff: decoding has code paths of its own.
        let leaves: Vec<Leaf> = self.inputs.iter().map(|i| i.leaf(&on())).collect();
        let out = values(&(self.run)(&leaves));
        assert_close(
            &format!("{}: without autodiff", self.name),
            &out,
            &f32s(&want),
            self.tolerance,
        );

        self.check_spoiled(&inputs);

        let most = (MAX_WORK / work.max(1) / 2 / inputs.len()).clamp(3, MAX_ELEMENTS);
        for (idx, gradient) in found[1..].iter().enumerate() {
            let elements = some_of(gradient.len(), most);
            let of = |element: &usize| {
                derivative(self.reference, &inputs, &upstream64, (idx, *element)) as f32
            };
            let want: Vec<f32> = elements.iter().map(of).collect();
            let got: Vec<f32> = elements.iter().map(|element| gradient[*element]).collect();
            let name = format!("{}: gradient {idx} at {elements:?}", self.name);
            // A fraction of the whole gradient's largest value, whichever elements are checked.
            let largest = gradient.iter().fold(0.0, |max: f32, value| max.max(value.abs()));
            let Tolerance { absolute, of_largest } = self.tolerance;
            let allowed = absolute + of_largest * f64::from(largest);
            assert_close(&name, &got, &want, Tolerance::absolute(allowed));
        }
    }
}

impl Operation<'_> {
    /// A NaN must not vanish: training stops at it.
    fn check_spoiled(&self, inputs: &Inputs) {
        for idx in 0..self.inputs.len() {
            let mut spoiled = inputs.to_vec();
            spoiled[idx][0] = f64::NAN;
            let want = (self.reference)(&spoiled);
            let mut leaves = self.inputs.clone();
            leaves[idx].values[0] = f32::NAN;
            for device in [on(), on().autodiff()] {
                let leaves: Vec<Leaf> = leaves.iter().map(|leaf| leaf.leaf(&device)).collect();
                let got = values(&(self.run)(&leaves));
                let hidden =
                    want.iter().zip(&got).position(|(want, got)| want.is_nan() && !got.is_nan());
                assert_eq!(hidden, None, "{}: a NaN in input {idx} is hidden", self.name);
            }
        }
    }
}

/// All indices below `n`, or `most` of them, with the first and the last.
fn some_of(n: usize, most: usize) -> Vec<usize> {
    if n <= most {
        return (0..n).collect();
    }
    // Steps that share no factor with usual sizes, so that all columns occur.
    (0..most - 1).map(|i| i * 7_919 % n).chain([n - 1]).collect()
}

#[test]
fn views_have_the_intended_strides() {
    let x = crate::support::random([3, 4, 5], 1, &Device::flex());
    for (view, dense) in
        [(View::Contiguous, true), (View::Transposed, false), (View::Sliced, false)]
    {
        let viewed = as_view(x.clone(), view);
        assert_eq!(values(&viewed), values(&x));
        let flex = viewed.try_into_primitive::<burn::backend::Flex>().expect("the CPU");
        assert_eq!(flex.as_slice::<f32>().is_some(), dense, "{view:?}");
    }
}
