//! Settings of an AdamW update, the moments of a parameter, and the factors that all elements share.

use burn::tensor::Tensor;
use kernels_cpu::AdamwCoefficients;

/// Settings of one update (Loshchilov and Hutter 2019, algorithm 2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamwStep {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay; 0 for tensors that have none.
    pub weight_decay: f64,
    /// Number of this update, from 1.
    pub step: u64,
    /// Factor of the gradient: 1 / number of targets, times the clipping factor.
    pub grad_scale: f64,
}

/// Running means of the gradient and of its square: flat, on the parameter's device.
#[derive(Clone, Debug)]
pub struct Moments {
    /// First moment.
    pub m: Tensor<1>,
    /// Second moment.
    pub v: Tensor<1>,
}

impl Moments {
    /// Zeros for a parameter, on its device without autodiff.
    pub fn zeros_like<const D: usize>(weight: &Tensor<D>) -> Self {
        let device = weight.device().inner();
        let n: usize = weight.dims().iter().product();
        Self { m: Tensor::zeros([n], &device), v: Tensor::zeros([n], &device) }
    }
}

/// A parameter to update. Its tensors are flat and off the autodiff device.
#[derive(Debug)]
pub struct AdamwParameter {
    /// The parameter's value.
    pub weight: Tensor<1>,
    /// Its gradient.
    pub grad: Tensor<1>,
    /// Its moments.
    pub moments: Moments,
    /// Settings of the update.
    pub step: AdamwStep,
}

/// The factors that do not depend on the element, computed in f64 (Loshchilov and Hutter 2019, algorithm 2).
pub(crate) fn coefficients(step: &AdamwStep) -> AdamwCoefficients {
    let exponent = step.step as f64;
    let correction1 = 1.0 - step.beta1.powf(exponent);
    let correction2 = 1.0 - step.beta2.powf(exponent);
    AdamwCoefficients {
        grad_scale: step.grad_scale as f32,
        beta1: step.beta1 as f32,
        one_minus_beta1: (1.0 - step.beta1) as f32,
        beta2: step.beta2 as f32,
        one_minus_beta2: (1.0 - step.beta2) as f32,
        keep: (1.0 - step.lr * step.weight_decay) as f32,
        step_size: (step.lr / correction1) as f32,
        inverse_root_correction2: (1.0 / correction2.sqrt()) as f32,
        eps: step.eps as f32,
    }
}
