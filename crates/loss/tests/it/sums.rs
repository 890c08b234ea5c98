//! Losses are sums with counts, so splitting a step does not change its result.

use burn::tensor::{Device, Int, Tensor, TensorData};
use loss::cross_entropy;
use testkit::{Tolerance, assert_close, values};

const N: usize = 12;
const D: usize = 4;
const V: usize = 9;

fn wave(n: usize, factor: f32) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * factor).sin() * 2.0).collect()
}

fn head(device: &Device) -> Tensor<2> {
    let head = Tensor::from_data(TensorData::new(wave(V * D, 0.7), [V, D]), device);
    head.set_require_grad(device.is_autodiff())
}

fn rows(range: std::ops::Range<usize>, device: &Device) -> (Tensor<2>, Tensor<1, Int>, u64) {
    let hidden = &wave(N * D, 1.3)[range.start * D..range.end * D];
    // Targets are spread unevenly, so that a mean of means would fail.
    let targets: Vec<i32> =
        range.clone().map(|i| if i < 4 && i != 2 { -100 } else { (i * 5 % V) as i32 }).collect();
    let count = targets.iter().filter(|target| **target >= 0).count() as u64;
    let n = range.len();
    (
        Tensor::from_data(TensorData::new(hidden.to_vec(), [n, D]), device),
        Tensor::from_data(TensorData::new(targets, [n]), &Device::flex()),
        count,
    )
}

#[test]
fn micro_batches_change_nothing() {
    let device = Device::flex().autodiff();
    let step = |micro: usize| {
        let head = head(&device);
        let total: u64 = 9;
        let (mut loss, mut gradient, mut counted) = (0.0, vec![0.0_f32; V * D], 0);
        for start in (0..N).step_by(micro) {
            let (hidden, targets, count) = rows(start..start + micro, &device);
            let sum = cross_entropy(hidden, head.clone(), targets, count);
            loss += sum.value();
            counted += sum.count;
            let gradients = sum.mean_over(total).backward();
            let part = values(&head.grad(&gradients).expect("a gradient"));
            gradient.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
        assert_eq!(counted, total);
        (loss / total as f64, gradient)
    };
    let (whole, gradient) = step(N);
    for micro in [1, 2, 3, 4, 6] {
        let (loss, split) = step(micro);
        assert!((loss / whole - 1.0).abs() < 1e-6);
        assert_close("gradient", &split, &gradient, Tolerance::absolute(1e-6));
    }
}

#[test]
fn the_mean_is_over_the_given_total() {
    let (hidden, targets, count) = rows(0..N, &Device::flex());
    let sum = cross_entropy(hidden, head(&Device::flex()), targets, count);
    let value = sum.value();
    assert_close("mean", &values(&sum.clone().mean_over(9)), &[(value / 9.0) as f32], CLOSE);
    assert_close("mean", &values(&sum.mean_over(90)), &[(value / 90.0) as f32], CLOSE);
}

const CLOSE: Tolerance = Tolerance::absolute(1e-6);

/// A quarter of the mean square of the hidden states: a mean over its micro-batch, as an auxiliary loss is.
fn aux_loss(hidden: &Tensor<2>) -> Tensor<1> {
    hidden.clone().square().mean().mul_scalar(0.25)
}

#[test]
fn an_auxiliary_loss_is_weighted_by_the_terms_of_its_micro_batch() {
    let device = Device::flex().autodiff();
    for micro in [3, 4, 12] {
        let head = head(&device);
        let (mut loss, mut want) = (0.0, 0.0);
        for start in (0..N).step_by(micro) {
            let (hidden, targets, count) = rows(start..start + micro, &device);
            let hidden = hidden.set_require_grad(true);
            let aux = aux_loss(&hidden);
            want += f64::from(values(&aux)[0]) * count as f64;
            let plain = cross_entropy(hidden.clone(), head.clone(), targets, count);
            want += plain.value();
            let without = plain.clone().with_aux_loss(None, count);
            assert_eq!(without.value().to_bits(), plain.value().to_bits());
            let sum = plain.with_aux_loss(Some(aux), count);
            assert_eq!(sum.count, count);
            loss += sum.value();
            // d aux / d hidden = hidden / (2 · elements), added to that of the cross-entropy.
            let (again, targets, _) = rows(start..start + micro, &device);
            let again = again.set_require_grad(true);
            let alone = cross_entropy(again.clone(), head.clone(), targets, count).sum.backward();
            let alone = values(&again.grad(&alone).expect("a gradient"));
            let added = count as f32 / (2.0 * (micro * D) as f32);
            let x = values(&hidden);
            let want: Vec<f32> = alone.iter().zip(&x).map(|(d, x)| d + added * x).collect();
            let got = values(&hidden.grad(&sum.sum.backward()).expect("a gradient"));
            assert_close("gradient", &got, &want, Tolerance::absolute(2e-6));
        }
        assert!((loss / want - 1.0).abs() < 1e-6, "{micro}: {loss} {want}");
    }
}
