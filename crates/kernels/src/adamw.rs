//! Optimizer arithmetic on one tensor: the AdamW update, sums of gradients, sums of squares.
//!
//! In place on the CPU, by tensor operations elsewhere; on a GPU [`adamw_steps`] updates many parameters in few launches. State,
//! schedule and parameter names belong to `train`.

use burn::tensor::{DType, Tensor};
use kernels_cpu::{AdamwCoefficients, CpuTensor};

use crate::adamw_step::{AdamwParameter, AdamwStep, Moments, coefficients};
use crate::dispatch::{KernelSet, Select};

/// One AdamW update. `weight` and `grad` are off the autodiff device (see [`crate::update_param`]).
///
/// On the CPU weight and moments change in place if their handles are the only ones; a shared buffer is copied first.
pub fn adamw_step<const D: usize>(
    weight: Tensor<D>,
    grad: Tensor<D>,
    moments: &mut Moments,
    step: &AdamwStep,
) -> Tensor<D> {
    let c = coefficients(step);
    match Select::new().float(&weight).kernel_set() {
        KernelSet::Cpu => cpu_step(weight, grad, moments, c),
        KernelSet::Generic => generic_step(weight, grad, moments, step, c),
    }
}

/// Whether [`adamw_steps`] of many parameters like this one takes fewer launches than [`adamw_step`] of each.
#[cfg(feature = "gpu")]
pub fn updates_together<const D: usize>(weight: &Tensor<D>) -> bool {
    crate::gpu::reads(weight)
}

/// Whether [`adamw_steps`] of many parameters like this one takes fewer launches than [`adamw_step`] of each: not on the CPU.
#[cfg(not(feature = "gpu"))]
pub fn updates_together<const D: usize>(_: &Tensor<D>) -> bool {
    false
}

/// One AdamW update of each parameter: weights and moments in order, with the values of [`adamw_step`] but for rounding.
pub fn adamw_steps(parameters: Vec<AdamwParameter>) -> Vec<(Tensor<1>, Moments)> {
    #[cfg(feature = "gpu")]
    if parameters.iter().all(|x| [&x.weight, &x.grad].into_iter().all(crate::gpu::reads)) {
        return crate::gpu::adamw_steps(parameters);
    }
    let step = |parameter| {
        let AdamwParameter { weight, grad, mut moments, step } = parameter;
        (adamw_step(weight, grad, &mut moments, &step), moments)
    };
    parameters.into_iter().map(step).collect()
}

/// `sum + grad`, in place on the CPU where `sum` is the only handle; without a sum, the gradient.
///
/// The result is contiguous: gradients of transposed weights arrive as views, and adding those element by element is
/// many times slower than copying them once.
pub fn accumulate<const D: usize>(sum: Option<Tensor<D>>, grad: Tensor<D>) -> Tensor<D> {
    let shape = grad.dims();
    let n: usize = shape.iter().product();
    let grad = grad.inner().reshape([n]).reshape(shape);
    match sum {
        Some(sum) => sum.add(grad),
        None => grad,
    }
}

/// Σ x² of each flat tensor, in order. All tensors are on one device.
///
/// On the CPU each sum is computed in f64 over blocks whose borders depend on the length alone. On other devices it is
/// an f32, and all sums are read in one transfer.
pub fn sums_of_squares(tensors: &[&Tensor<1>]) -> Vec<f64> {
    let tensors: Vec<Tensor<1>> = tensors.iter().map(|x| (*x).clone().inner()).collect();
    match tensors.iter().fold(Select::new(), Select::float).kernel_set() {
        KernelSet::Cpu => {
            let sum = |x| kernels_cpu::sum_of_squares(CpuTensor::new(x).value());
            tensors.into_iter().map(sum).collect()
        }
        #[cfg(feature = "gpu")]
        KernelSet::Generic if !tensors.is_empty() && tensors.iter().all(crate::gpu::reads) => {
            crate::gpu::sums_of_squares(tensors)
        }
        KernelSet::Generic => generic_sums_of_squares(tensors),
    }
}

fn cpu_step<const D: usize>(
    weight: Tensor<D>,
    grad: Tensor<D>,
    moments: &mut Moments,
    c: AdamwCoefficients,
) -> Tensor<D> {
    let shape = weight.dims();
    let n: usize = shape.iter().product();
    let flat = |x: Tensor<1>| CpuTensor::new(x).into_value();
    let tensor = |x| CpuTensor::Constant(x).into_tensor::<1>();
    // A gradient may be a transposed view; flattening copies it only then.
    let grad = flat(grad.inner().reshape([n]));
    let mut weight = flat(weight.reshape([n]));
    moments.m.inplace(|m| {
        let mut m = flat(m);
        moments.v.inplace(|v| {
            let mut v = flat(v);
            kernels_cpu::adamw_update(&mut weight, &grad, [&mut m, &mut v], c);
            tensor(v)
        });
        tensor(m)
    });
    tensor(weight).reshape(shape)
}

fn generic_step<const D: usize>(
    weight: Tensor<D>,
    grad: Tensor<D>,
    moments: &mut Moments,
    step: &AdamwStep,
    c: AdamwCoefficients,
) -> Tensor<D> {
    let shape = weight.dims();
    let n: usize = shape.iter().product();
    let grad = grad.inner().reshape([n]).mul_scalar(step.grad_scale);
    moments.m.inplace(|m| m.mul_scalar(c.beta1) + grad.clone().mul_scalar(c.one_minus_beta1));
    moments.v.inplace(|v| v.mul_scalar(c.beta2) + grad.square().mul_scalar(c.one_minus_beta2));
    let root = moments.v.clone().sqrt().mul_scalar(c.inverse_root_correction2);
    let update = moments.m.clone() / root.add_scalar(c.eps);
    weight.mul_scalar(c.keep) - update.mul_scalar(c.step_size).reshape(shape)
}

fn generic_sums_of_squares(tensors: Vec<Tensor<1>>) -> Vec<f64> {
    if tensors.is_empty() {
        return Vec::new();
    }
    let sums = tensors.into_iter().map(|x| x.square().sum().cast(DType::F32)).collect();
    Tensor::cat(sums, 0).into_data().iter::<f32>().map(f64::from).collect()
}
