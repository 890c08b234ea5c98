//! Norms and activations.

use burn::tensor::{Device, Tensor};
use kernels::{GeluKind, gelu, layer_norm, rms_norm, silu, swiglu};
use testkit::{Tolerance, assert_close, values};

use crate::support::{f32s, f64s, numeric_gradient, random};

const CLOSE: Tolerance = Tolerance::absolute(2e-6);

fn rows(x: &[f64], d: usize, row: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    x.chunks(d).flat_map(row).collect()
}

fn rms_oracle(x: &[f64], weight: &[f64], eps: f64) -> Vec<f64> {
    rows(x, weight.len(), |row| {
        let mean = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
        row.iter().zip(weight).map(|(x, w)| x / (mean + eps).sqrt() * w).collect()
    })
}

fn layer_oracle(x: &[f64], weight: &[f64], bias: Option<&[f64]>, eps: f64) -> Vec<f64> {
    rows(x, weight.len(), |row| {
        let n = row.len() as f64;
        let mean = row.iter().sum::<f64>() / n;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let bias = |j: usize| bias.map_or(0.0, |bias| bias[j]);
        let normed = row.iter().map(|x| (x - mean) / (variance + eps).sqrt());
        normed.enumerate().map(|(j, x)| x * weight[j] + bias(j)).collect()
    })
}

#[test]
fn rms_norm_values() {
    let device = Device::flex();
    let (x, w) = (random([2, 3, 10], 1, &device), random([10], 2, &device));
    for eps in [1e-6, 0.5] {
        let want = rms_oracle(&f64s(&x), &f64s(&w), eps);
        assert_close("norm", &values(&rms_norm(x.clone(), w.clone(), eps)), &f32s(&want), CLOSE);
    }
}

#[test]
fn layer_norm_values() {
    for device in [Device::flex(), Device::flex().autodiff()] {
        let (x, w) = (random([2, 3, 10], 1, &device), random([10], 2, &device));
        let b = random([10], 4, &device);
        for bias in [None, Some(b)] {
            let bias64 = bias.as_ref().map(f64s);
            let want = layer_oracle(&f64s(&x), &f64s(&w), bias64.as_deref(), 1e-5);
            let got = layer_norm(x.clone(), w.clone(), bias, 1e-5);
            assert_close("norm", &values(&got), &f32s(&want), CLOSE);
        }
    }
}

/// The gradients of the weighted sum of a function of three tensors against central differences.
fn check_gradients<const A: usize, const B: usize>(
    x: Tensor<A>,
    w: Tensor<B>,
    function: impl Fn(Tensor<A>, Tensor<B>) -> Tensor<A>,
    oracle: impl Fn(&[f64], &[f64]) -> Vec<f64>,
) {
    let upstream = random(x.dims(), 8, &Device::flex());
    let weights = f64s(&upstream);
    let loss = |out: Vec<f64>| out.iter().zip(&weights).map(|(out, w)| out * w).sum::<f64>();
    let (ax, aw) = (x.clone().autodiff().require_grad(), w.clone().autodiff().require_grad());
    let gradients = (function(ax.clone(), aw.clone()) * upstream).sum().backward();
    let tolerance = Tolerance { absolute: 1e-3, of_largest: 1e-3 };
    let want = numeric_gradient(&x, |x| loss(oracle(&f64s(&x), &f64s(&w))));
    assert_close("x", &values(&ax.grad(&gradients).expect("a gradient")), &want, tolerance);
    let want = numeric_gradient(&w, |w| loss(oracle(&f64s(&x), &f64s(&w))));
    assert_close("w", &values(&aw.grad(&gradients).expect("a gradient")), &want, tolerance);
}

#[test]
fn gradients_of_norms() {
    let device = Device::flex();
    let (x, w) = (random([2, 2, 6], 1, &device), random([6], 2, &device));
    check_gradients(x.clone(), w.clone(), |x, w| rms_norm(x, w, 0.1), |x, w| rms_oracle(x, w, 0.1));
    check_gradients(
        x.clone(),
        w.clone(),
        |x, w| layer_norm(x, w.clone(), Some(w), 0.1),
        |x, w| layer_oracle(x, w, Some(w), 0.1),
    );
    check_gradients(x, w, |x, w| layer_norm(x, w, None, 0.1), |x, w| layer_oracle(x, w, None, 0.1));
}

fn silu64(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

fn gelu_tanh64(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
}

/// Φ(x), by the power series of the error function.
fn normal64(x: f64) -> f64 {
    let z = x / std::f64::consts::SQRT_2;
    let (mut term, mut sum) = (z, z);
    for n in 1..100 {
        let n = f64::from(n);
        term *= -z * z / n;
        sum += term / (2.0 * n + 1.0);
    }
    0.5 + sum / std::f64::consts::PI.sqrt()
}

#[test]
fn activations() {
    let device = Device::flex();
    let many: Vec<f32> = (-120..=120).map(|i| i as f32 / 10.0).collect();
    let x = Tensor::<1>::from_data(many.as_slice(), &device);
    let want: Vec<f64> = f64s(&x).into_iter().map(silu64).collect();
    assert_close("silu", &values(&silu(x.clone())), &f32s(&want), CLOSE);
    let want: Vec<f64> = f64s(&x).into_iter().map(gelu_tanh64).collect();
    assert_close("gelu", &values(&gelu(x.clone(), GeluKind::Tanh)), &f32s(&want), CLOSE);
    // Published values of x·Φ(x).
    let x = Tensor::<1>::from_data([-2.0_f32, -1.0, 0.0, 1.0, 2.0].as_slice(), &device);
    let want = [-0.045_500_264, -0.158_655_25, 0.0, 0.841_344_8, 1.954_499_7];
    assert_close("exact", &values(&gelu(x, GeluKind::Exact)), &want, CLOSE);
}

#[test]
fn activations_far_out_stay_finite() {
    let x = Tensor::<1>::from_data([-1e4_f32, -100.0, 100.0, 1e4].as_slice(), &Device::flex());
    for out in [silu(x.clone()), gelu(x.clone(), GeluKind::Tanh), gelu(x, GeluKind::Exact)] {
        let want = [0.0, 0.0, 100.0, 1e4];
        assert_close("far", &values(&out), &want, Tolerance::absolute(1e-30));
    }
}

#[test]
fn gradients_of_activations() {
    let device = Device::flex();
    let (gate, up) = (random([2, 7], 1, &device), random([2, 7], 2, &device));
    check_gradients(gate.clone(), up.clone(), swiglu, |gate, up| {
        gate.iter().zip(up).map(|(gate, up)| silu64(*gate) * up).collect()
    });
    check_gradients(
        gate,
        up,
        |x, w| gelu(x, GeluKind::Tanh) * w,
        |x, w| x.iter().zip(w).map(|(x, w)| gelu_tanh64(*x) * w).collect(),
    );
}

/// Burn's gradient on other devices than the CPU is that of the tanh approximation, off by 5e-4: the generic form has its own.
#[test]
fn the_gradient_of_the_exact_gelu() {
    let many: Vec<f32> = (-50..=50).map(|i| i as f32 / 10.0).collect();
    let x = Tensor::<1>::from_data(many.as_slice(), &Device::flex());
    let density = |x: f64| (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let want: Vec<f64> = f64s(&x).into_iter().map(|x| normal64(x) + x * density(x)).collect();
    let check = || {
        let x = x.clone().autodiff().require_grad();
        let gradients = gelu(x.clone(), GeluKind::Exact).sum().backward();
        let got = values(&x.grad(&gradients).expect("a gradient"));
        assert_close("x", &got, &f32s(&want), Tolerance::absolute(1e-6));
    };
    check();
    kernels::with_generic_kernels(check);
}
