//! The optimizer's operations on one tensor.

use burn::backend::Flex;
use burn::module::Param;
use burn::tensor::{Device, Tensor};
use kernels::{AdamwStep, Moments, accumulate, adamw_step, sums_of_squares, update_param};
use testkit::{Tolerance, assert_close, values};

use crate::support::{f32s, f64s, random};

fn step(number: u64) -> AdamwStep {
    AdamwStep {
        lr: 0.01,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        step: number,
        grad_scale: 0.25,
    }
}

#[test]
fn adamw_is_as_the_paper_has_it() {
    let device = Device::flex();
    // More than one block of parallel work, and not a multiple of it.
    let shape = [37, 1000];
    let mut weight = random(shape, 1, &device);
    let mut moments = Moments::zeros_like(&weight);
    let mut w = f64s(&weight);
    let (mut m, mut v) = (vec![0.0; w.len()], vec![0.0; w.len()]);
    for number in 1..=5 {
        let s = step(number);
        // Every other gradient arrives as a transposed view.
        let grad = if number % 2 == 0 {
            random([1000, 37], number + 10, &device).transpose()
        } else {
            random(shape, number + 10, &device)
        };
        let g = f64s(&grad);
        weight = adamw_step(weight, grad, &mut moments, &s);
        for i in 0..w.len() {
            let g = g[i] * s.grad_scale;
            m[i] = s.beta1 * m[i] + (1.0 - s.beta1) * g;
            v[i] = s.beta2 * v[i] + (1.0 - s.beta2) * g * g;
            let m_hat = m[i] / (1.0 - s.beta1.powi(number as i32));
            let v_hat = v[i] / (1.0 - s.beta2.powi(number as i32));
            w[i] -= s.lr * s.weight_decay * w[i] + s.lr * m_hat / (v_hat.sqrt() + s.eps);
        }
    }
    assert_close("weight", &values(&weight), &f32s(&w), Tolerance::absolute(1e-6));
    assert_close("m", &values(&moments.m), &f32s(&m), Tolerance::absolute(1e-7));
    assert_close("v", &values(&moments.v), &f32s(&v), Tolerance::absolute(1e-7));
}

fn address(x: &Tensor<2>) -> usize {
    let x = x.clone().inner().try_into_primitive::<Flex>().expect("the CPU");
    x.storage::<f32>().as_ptr() as usize
}

#[test]
fn the_update_of_a_parameter_copies_nothing() {
    let device = Device::flex().autodiff();
    let mut param = Param::from_tensor(random([30, 40], 1, &device));
    let mut moments = Moments::zeros_like(&param.val());
    let before = (param.id, address(&param.val()));
    for number in 1..=3 {
        let loss = param.val().square().sum();
        let mut gradients = loss.backward();
        let grad = param.val().grad_remove(&mut gradients).expect("a gradient");
        drop((gradients, loss));
        param = update_param(param, |weight| adamw_step(weight, grad, &mut moments, &step(number)));
        assert_eq!((param.id, address(&param.val())), before);
        assert!(param.val().is_require_grad());
    }
}

#[test]
fn a_shared_weight_is_copied_not_changed() {
    let device = Device::flex();
    let weight = random([3, 4], 1, &device);
    let kept = weight.clone();
    let before = values(&kept);
    let mut moments = Moments::zeros_like(&weight);
    let after = adamw_step(weight, random([3, 4], 2, &device), &mut moments, &step(1));
    assert_eq!(values(&kept), before);
    assert_ne!(values(&after), before);
}

#[test]
fn a_frozen_parameter_stays_frozen() {
    let param = Param::from_tensor(random([3, 4], 1, &Device::flex().autodiff()));
    let param = param.set_require_grad(false);
    let param = update_param(param, |weight| weight.mul_scalar(2.0));
    assert!(!param.val().is_require_grad());
    assert!(param.val().is_autodiff());
    let plain = Param::from_tensor(random([3, 4], 1, &Device::flex()));
    assert!(!update_param(plain, |weight| weight).val().is_autodiff());
}

#[test]
fn gradients_add_up_whatever_their_layout() {
    let device = Device::flex();
    let (a, b) = (random([3, 5], 1, &device), random([5, 3], 2, &device).transpose());
    let want: Vec<f64> = f64s(&a).iter().zip(f64s(&b)).map(|(a, b)| a + b).collect();
    for (first, second) in [(a.clone(), b.clone()), (b, a)] {
        let sum = accumulate(Some(accumulate(None, first)), second);
        assert_close("sum", &values(&sum), &f32s(&want), Tolerance::absolute(1e-6));
    }
}

#[test]
fn each_sum_of_squares_is_that_of_its_tensor() {
    let device = Device::flex();
    let flat = |x: Tensor<2>| {
        let n = x.dims().iter().product::<usize>();
        x.reshape([n])
    };
    let tensors = [[1, 1], [7, 11], [300, 411]].map(|shape| flat(random(shape, 3, &device)));
    let spoiled = flat(random([3, 4], 1, &device).slice_fill([1..2, 1..2], f32::NAN));
    let cut = random::<1>([700], 2, &device).slice(3..601);
    let all: Vec<&Tensor<1>> = tensors.iter().chain([&spoiled, &cut]).collect();
    let found = sums_of_squares(&all);
    assert_eq!(found.len(), all.len());
    for (found, x) in found.iter().zip(&all) {
        assert_eq!(found.to_bits(), sums_of_squares(&[*x])[0].to_bits());
        let want: f64 = f64s(*x).iter().map(|x| x * x).sum();
        assert!(want.is_nan() && found.is_nan() || (found / want - 1.0).abs() < 1e-12);
    }
    assert!(found[3].is_nan(), "one value that is not a number must show");
    // Each generic sum is burn's f32; stacking it with the others keeps its bits.
    let generic = kernels::with_generic_kernels(|| sums_of_squares(&all));
    for (generic, x) in generic.iter().zip(&all) {
        let one = f64::from((*x).clone().square().sum().into_scalar::<f32>());
        assert_eq!(generic.to_bits(), one.to_bits());
    }
    assert!(sums_of_squares(&[]).is_empty());
    assert!(kernels::with_generic_kernels(|| sums_of_squares(&[])).is_empty());
}
