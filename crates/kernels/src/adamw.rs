//! What an optimizer does to one tensor: the AdamW update, adding a gradient, a sum of squares.
//!
//! In place on the CPU, in tensor operations elsewhere. It deliberately holds no state, no schedule
//! and no parameter names: those are train's.

use burn::backend::Flex;
use burn::tensor::{Bytes, DType, Shape, Tensor};
use burn_flex::{FlexTensor, Layout};
use rayon::prelude::*;

use crate::autodiff::fits;
use crate::vector::widest;

/// Elements a block of in-place work and of partial sums; fixed, so that no result depends on the
/// number of threads.
const BLOCK: usize = 16 * 1024;

/// The numbers of one update (Loshchilov and Hutter 2019, algorithm 2).
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
    /// Multiplies the gradient first (1 / number of targets, times the clipping factor).
    pub grad_scale: f64,
}

/// Running means of the gradient and of its square, flat, on the device of their parameter.
#[derive(Clone, Debug)]
pub struct Moments {
    /// First moment.
    pub m: Tensor<1>,
    /// Second moment.
    pub v: Tensor<1>,
}

impl Moments {
    /// Zeros for a parameter (on its device, without autodiff).
    pub fn zeros_like<const D: usize>(weight: &Tensor<D>) -> Self {
        let device = weight.device().inner();
        let n: usize = weight.dims().iter().product();
        Self { m: Tensor::zeros([n], &device), v: Tensor::zeros([n], &device) }
    }
}

/// One AdamW update. `weight` and `grad` are off the autodiff device (see [`crate::update_param`]).
///
/// On the CPU weight and moments change in place if their handles are the only ones; a shared
/// buffer is copied first.
pub fn adamw_step<const D: usize>(
    weight: Tensor<D>,
    grad: Tensor<D>,
    moments: &mut Moments,
    step: &AdamwStep,
) -> Tensor<D> {
    let coefficients = Coefficients::new(step);
    if !fits(&weight) {
        return plain(weight, grad, moments, step, coefficients);
    }
    let shape = weight.dims();
    let n: usize = shape.iter().product();
    // A gradient may be a transposed view; flattening copies it only then.
    let grad = dense(grad.inner().reshape([n]));
    let mut weight = dense(weight.reshape([n]));
    moments.m.inplace(|m| {
        let mut m = dense(m);
        moments.v.inplace(|v| {
            let mut v = dense(v);
            update_blocks(&mut weight, &grad, &mut m, &mut v, coefficients);
            Tensor::from_primitive::<Flex>(v)
        });
        Tensor::from_primitive::<Flex>(m)
    });
    Tensor::<1>::from_primitive::<Flex>(weight).reshape(shape)
}

/// `sum + grad`, in place on the CPU where `sum` is the only handle; without a sum, the gradient.
///
/// The result is contiguous: gradients of transposed weights arrive as views, and adding those
/// element by element is many times slower than copying them once.
pub fn accumulate<const D: usize>(sum: Option<Tensor<D>>, grad: Tensor<D>) -> Tensor<D> {
    let shape = grad.dims();
    let n: usize = shape.iter().product();
    let grad = grad.inner().reshape([n]).reshape(shape);
    match sum {
        Some(sum) => sum.add(grad),
        None => grad,
    }
}

/// Σ x², in f64 over blocks whose borders depend on the length alone.
pub fn sum_of_squares<const D: usize>(x: &Tensor<D>) -> f64 {
    let n: usize = x.dims().iter().product();
    let x = x.clone().inner().reshape([n]);
    if !fits(&x) {
        // Two stages keep the partial sums small.
        return f64::from(x.square().sum().into_scalar::<f32>());
    }
    let x = dense(x);
    let values = x.storage::<f32>();
    let blocks: Vec<f64> = values.par_chunks(BLOCK).map(squares).collect();
    blocks.iter().sum()
}

#[derive(Clone, Copy)]
pub(crate) struct Coefficients {
    grad_scale: f32,
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    keep: f32,
    step_size: f32,
    inverse_root_correction2: f32,
    eps: f32,
}

impl Coefficients {
    /// Everything that doesn't depend on the element, computed in f64.
    fn new(step: &AdamwStep) -> Self {
        let exponent = step.step as f64;
        let correction1 = 1.0 - step.beta1.powf(exponent);
        let correction2 = 1.0 - step.beta2.powf(exponent);
        Self {
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
}

fn update_blocks(
    weight: &mut FlexTensor,
    grad: &FlexTensor,
    m: &mut FlexTensor,
    v: &mut FlexTensor,
    c: Coefficients,
) {
    let grad = grad.storage::<f32>();
    let (weight, m, v) =
        (weight.storage_mut::<f32>(), m.storage_mut::<f32>(), v.storage_mut::<f32>());
    weight
        .par_chunks_mut(BLOCK)
        .zip(m.par_chunks_mut(BLOCK))
        .zip(v.par_chunks_mut(BLOCK))
        .zip(grad.par_chunks(BLOCK))
        .for_each(|(((weight, m), v), grad)| update_block(weight, m, v, grad, c));
}

widest! {
    fn update_block(
        weight: &mut [f32],
        m: &mut [f32],
        v: &mut [f32],
        grad: &[f32],
        c: Coefficients,
    ) {
        for (((w, m), v), g) in weight.iter_mut().zip(m).zip(v).zip(grad) {
            let g = g * c.grad_scale;
            *m = c.beta1 * *m + c.one_minus_beta1 * g;
            *v = c.beta2 * *v + c.one_minus_beta2 * g * g;
            let denominator = v.sqrt() * c.inverse_root_correction2 + c.eps;
            *w = *w * c.keep - c.step_size * (*m / denominator);
        }
    }
}

widest! {
    /// Σ x² in f64, in sixteen sums.
    fn squares(values: &[f32]) -> f64 {
        let mut lanes = [0.0_f64; 16];
        let (chunks, rest) = values.as_chunks::<16>();
        for chunk in chunks {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane += f64::from(*value) * f64::from(*value);
            }
        }
        for (lane, value) in lanes.iter_mut().zip(rest) {
            *lane += f64::from(*value) * f64::from(*value);
        }
        lanes.iter().sum()
    }
}

fn plain<const D: usize>(
    weight: Tensor<D>,
    grad: Tensor<D>,
    moments: &mut Moments,
    step: &AdamwStep,
    c: Coefficients,
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

/// The tensor with a buffer that holds its values and nothing else: itself, or else a copy.
fn dense(x: Tensor<1>) -> FlexTensor {
    let [n] = x.dims();
    let x = match x.try_into_primitive::<Flex>() {
        Ok(x) => x.to_contiguous(),
        Err(error) => unreachable!("the device was compared before: {error:?}"),
    };
    let whole = x.layout().contiguous_offsets() == Some((0, n)) && x.storage::<f32>().len() == n;
    match x.as_slice::<f32>() {
        Some(values) if !whole => {
            let bytes = Bytes::from_elems(values.to_vec());
            FlexTensor::new(bytes, Layout::contiguous(Shape::new([n])), DType::F32)
        }
        _ => x,
    }
}
