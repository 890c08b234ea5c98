//! Operations of the optimizer and the sampler: against f64, against the generic kernels, and on any number of threads.

use burn::tensor::{Device, Tensor};
use kernels::{AdamwStep, Moments, accumulate, adamw_step, exponentials, sums_of_squares};
use testkit::{Tolerance, assert_close, values};

use crate::check::{View, as_view};
use crate::support::{f32s, f64s, on_any_threads, random};

/// Some steps of AdamW: the weight, then the moments.
pub(crate) fn check_adamw(shape: [usize; 2], n_steps: u64, lr: f64, weight_decay: f64, view: View) {
    let of_step = |step| AdamwStep {
        lr,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay,
        step,
        grad_scale: 0.25,
    };
    let gradient = |step: u64| as_view(random(shape, step + 10, &Device::flex()), view);
    let run = || {
        let mut weight = as_view(random(shape, 1, &Device::flex()), view);
        let mut moments = Moments::zeros_like(&weight);
        for step in 1..=n_steps {
            weight = adamw_step(weight, gradient(step), &mut moments, &of_step(step));
        }
        vec![values(&weight), values(&moments.m), values(&moments.v)]
    };
    let found = on_any_threads(run);
    let generic = kernels::with_generic_kernels(run);
    let mut w = f64s(&random(shape, 1, &Device::flex()));
    let (mut m, mut v) = (vec![0.0; w.len()], vec![0.0; w.len()]);
    for step in 1..=n_steps {
        let AdamwStep { beta1, beta2, eps, grad_scale, .. } = of_step(step);
        let (of_m, of_v) = (1.0 - beta1.powf(step as f64), 1.0 - beta2.powf(step as f64));
        for (idx, g) in f64s(&gradient(step)).iter().enumerate() {
            let g = g * grad_scale;
            m[idx] = beta1 * m[idx] + (1.0 - beta1) * g;
            v[idx] = beta2 * v[idx] + (1.0 - beta2) * g * g;
            let step = (m[idx] / of_m) / ((v[idx] / of_v).sqrt() + eps);
            w[idx] -= lr * (weight_decay * w[idx] + step);
        }
    }
    let close = Tolerance::absolute(1e-6);
    for (idx, want) in [w, m, v].iter().enumerate() {
        let name = format!("AdamW {shape:?} {view:?}, {idx}");
        assert_close(&name, &found[idx], &f32s(want), close);
        assert_close(&format!("{name}, generic"), &found[idx], &generic[idx], close);
    }
}

/// [`accumulate`] and [`sums_of_squares`].
pub(crate) fn check_sums(shape: [usize; 2], view: View) {
    let part = |seed| as_view(random(shape, seed, &Device::flex()), view);
    let squares = || sums_of_squares(&[&part(1).reshape([shape[0] * shape[1]])])[0];
    let found = on_any_threads(|| {
        let sum = accumulate(Some(accumulate(None, part(1))), part(2));
        vec![values(&sum), vec![squares() as f32]]
    });
    let (a, b) = (f64s(&part(1)), f64s(&part(2)));
    let want: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
    assert_close("accumulate", &found[0], &f32s(&want), Tolerance::absolute(1e-6));
    let want: f64 = a.iter().map(|a| a * a).sum();
    assert!((squares() - want).abs() <= 1e-12 * want, "{shape:?} {view:?}");
    let generic = kernels::with_generic_kernels(squares);
    assert!((generic - want).abs() <= 1e-5 * want, "generic {shape:?} {view:?}");
}

/// [`exponentials`] of one row.
pub(crate) fn check_exponentials(logits: &[f32], temperature: f64) {
    let found = exponentials(logits, temperature);
    let scaled: Vec<f64> = logits.iter().map(|logit| f64::from(*logit) / temperature).collect();
    let largest = scaled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let want: Vec<f64> = scaled.iter().map(|logit| (logit - largest).exp()).collect();
    // The logits themselves are rounded: to 1 / 2^17 near 200.
    let close = Tolerance::absolute(4e-5);
    assert_close("exponentials", &found.values, &f32s(&want), close);
    let sum: f64 = want.iter().sum();
    assert!((found.sum - sum).abs() <= 4e-5 * sum, "{} {sum}", found.sum);
}

#[test]
fn no_gradient_moves_only_what_decays() {
    let weight = random([3, 5], 1, &Device::flex());
    let before = f64s(&weight);
    let zeros = Tensor::<2>::zeros([3, 5], &Device::flex());
    let mut moments = Moments::zeros_like(&weight);
    let step = AdamwStep {
        lr: 0.1,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.5,
        step: 1,
        grad_scale: 1.0,
    };
    let after = adamw_step(weight, zeros, &mut moments, &step);
    let want: Vec<f64> = before.iter().map(|w| w * 0.95).collect();
    assert_close("decay", &values(&after), &f32s(&want), Tolerance::absolute(1e-6));
    assert!(values(&moments.m).iter().chain(&values(&moments.v)).all(|value| *value == 0.0));
}

#[test]
fn one_value_and_more_than_a_block() {
    for shape in [[1, 1], [129, 513]] {
        for view in [View::Contiguous, View::Transposed, View::Sliced] {
            check_adamw(shape, 2, 1e-2, 0.1, view);
            check_sums(shape, view);
        }
    }
    check_exponentials(&[3.0], 0.7);
}
