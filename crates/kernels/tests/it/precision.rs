//! Products in bf16: close to those in f32 but rounded, and equal to the bit on any number of threads.

use burn::tensor::{Device, Tensor};
use kernels::{
    Adapter, LinearInput, LinearMap, Precision, WeightLayout, embedding, fused_linear,
    linear_cross_entropy, linear_logprobs, round_weight, with_precision,
};
use testkit::{Tolerance, assert_close, values};

use crate::support::{ints, on_any_threads, random};

/// Eight bits of mantissa in each factor; errors of many products mostly cancel.
const NEAR: Tolerance = Tolerance { absolute: 1e-3, of_largest: 1e-2 };

/// The output of two maps with a norm before and a residual after, and the gradients of all inputs.
fn maps() -> Vec<Vec<f32>> {
    let device = Device::flex().autodiff();
    let tensor = |shape, seed| random::<2>(shape, seed, &device).require_grad();
    let (n, d_in) = (150, 70);
    let x_btd = random::<3>([1, n, d_in], 1, &device).require_grad();
    let norm_d = random::<1>([d_in], 2, &device).require_grad();
    let weights = [tensor([65, d_in], 3), tensor([d_in, 33], 4)];
    let map = |idx: usize, layout| LinearMap {
        weight: weights[idx].clone().into(),
        layout,
        bias_o: None,
        adapter: None,
    };
    let maps = [map(0, WeightLayout::OutIn), map(1, WeightLayout::InOut)];
    let residual_bto = random::<3>([1, n, 98], 5, &device).require_grad();
    let read = LinearInput::RmsNorm { x_btd: x_btd.clone(), weight_d: norm_d.clone(), eps: 1e-5 };
    let out = fused_linear(read, &maps, Some(residual_bto.clone()));
    let upstream = random::<3>([1, n, 98], 6, &device);
    let gradients = (out.clone() * upstream).sum().backward();
    let mut all = vec![values(&out)];
    all.push(values(&x_btd.grad(&gradients).expect("x")));
    all.push(values(&norm_d.grad(&gradients).expect("norm")));
    all.push(values(&weights[0].grad(&gradients).expect("weight")));
    all.push(values(&weights[1].grad(&gradients).expect("weight")));
    all.push(values(&residual_bto.grad(&gradients).expect("residual")));
    all
}

/// Losses over the vocabulary and their gradients.
fn heads() -> Vec<Vec<f32>> {
    let device = Device::flex().autodiff();
    let (n, d, v) = (37, 48, 130);
    let hidden_nd = (random::<2>([n, d], 1, &device) * 0.3).require_grad();
    let weight_vd = (random::<2>([v, d], 2, &device) * 0.3).require_grad();
    let targets: Vec<i32> = (0..n as i32).map(|i| if i % 5 == 0 { -1 } else { i * 3 }).collect();
    let targets_n = ints(&targets, [n]);
    let loss = linear_cross_entropy(hidden_nd.clone(), weight_vd.clone(), targets_n.clone()).sum;
    let mut all = vec![values(&loss)];
    let found = linear_logprobs(hidden_nd.clone(), weight_vd.clone(), targets_n, 0.8);
    all.push(values(&found.logprobs_n));
    all.push(values(&found.entropy_n));
    let sum: Tensor<1> = loss.sum() + found.logprobs_n.sum() * 0.5 + found.entropy_n.sum() * 0.1;
    let gradients = sum.backward();
    all.push(values(&hidden_nd.grad(&gradients).expect("hidden")));
    all.push(values(&weight_vd.grad(&gradients).expect("weight")));
    all
}

#[test]
fn bf16_is_near_f32_and_not_the_same() {
    for (name, run) in
        [("maps", maps as fn() -> Vec<Vec<f32>>), ("heads", heads as fn() -> Vec<Vec<f32>>)]
    {
        let exact = run();
        let rounded = on_any_threads(|| with_precision(Precision::Bf16, run));
        assert_eq!(exact.len(), rounded.len());
        for (idx, (exact, rounded)) in exact.iter().zip(&rounded).enumerate() {
            assert_close(&format!("{name}, value {idx}"), rounded, exact, NEAR);
        }
        assert_ne!(exact[0], rounded[0], "{name}: nothing was rounded");
    }
}

#[test]
fn the_backward_pass_has_the_precision_of_the_forward_pass() {
    let device = Device::flex().autodiff();
    let gradient = |of_forward: Precision, of_backward: Precision| {
        let x = random::<3>([1, 20, 40], 1, &device);
        let weight = random::<2>([30, 40], 2, &device).require_grad();
        let maps = [LinearMap {
            weight: weight.clone().into(),
            layout: WeightLayout::OutIn,
            bias_o: None,
            adapter: None,
        }];
        let out = with_precision(of_forward, || fused_linear(LinearInput::Plain(x), &maps, None));
        let upstream = random::<3>([1, 20, 30], 3, &device);
        let gradients = with_precision(of_backward, || (out * upstream).sum().backward());
        values(&weight.grad(&gradients).expect("a gradient"))
    };
    let rounded = gradient(Precision::Bf16, Precision::F32);
    assert_eq!(rounded, gradient(Precision::Bf16, Precision::Bf16));
    assert_ne!(rounded, gradient(Precision::F32, Precision::F32));
}

#[test]
fn names_of_precisions() {
    for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
        assert_eq!(Precision::named(precision.name()), Some(precision));
    }
    assert_eq!(Precision::named("f64"), None);
}

/// Maps with adapters, a head and a table whose frozen weights are stored in bf16 or widened to f32.
fn frozen(stored: bool) -> Vec<Vec<f32>> {
    let device = Device::flex().autodiff();
    let weight = |shape, seed| {
        let rounded = round_weight(random::<2>(shape, seed, &device));
        if stored { rounded } else { rounded.cast(burn::tensor::DType::F32) }
    };
    let (b, t, d) = (2, 35, 48);
    let factor = |shape, seed| random::<2>(shape, seed, &device).require_grad();
    let factors = [factor([4, d], 1), factor([d, 4], 2)];
    let table_vd = weight([90, d], 3);
    let ids: Vec<i32> = (0..(b * t) as i32).map(|i| i * 7 % 90).collect();
    let x_btd = embedding(table_vd.clone(), ints(&ids, [b, t]));
    let adapter = Adapter { a_ri: factors[0].clone(), b_or: factors[1].clone(), scale: 0.5 };
    let map = |layout, adapter| LinearMap {
        weight: weight([d, d], 4).into(),
        layout,
        bias_o: None,
        adapter,
    };
    let x_btd =
        fused_linear(LinearInput::Plain(x_btd), &[map(WeightLayout::OutIn, Some(adapter))], None);
    let x_btd =
        fused_linear(LinearInput::Plain(x_btd * 0.2), &[map(WeightLayout::InOut, None)], None);
    let hidden_nd = x_btd.clone().reshape([b * t, d]) * 0.2;
    let targets = ints(&ids, [b * t]);
    let loss = linear_cross_entropy(hidden_nd.clone(), table_vd.clone(), targets.clone()).sum;
    let logprobs = linear_logprobs(hidden_nd, table_vd, targets, 1.0).logprobs_n;
    let gradients = (loss.clone() + logprobs.clone().sum() * 0.3).backward();
    let mut all = vec![values(&x_btd), values(&loss), values(&logprobs)];
    all.extend(factors.map(|factor| values(&factor.grad(&gradients).expect("a gradient"))));
    all
}

#[test]
fn a_weight_stored_in_bf16_computes_as_its_f32_form() {
    let exact = Tolerance { absolute: 1e-6, of_largest: 1e-5 };
    let (stored, widened) = (on_any_threads(|| frozen(true)), frozen(false));
    let generic = kernels::with_generic_kernels(|| frozen(true));
    for (idx, want) in widened.iter().enumerate() {
        assert_close(&format!("CPU kernels, value {idx}"), &stored[idx], want, exact);
        assert_close(&format!("generic, value {idx}"), &generic[idx], want, exact);
    }
    let in_bf16 = on_any_threads(|| with_precision(Precision::Bf16, || frozen(true)));
    let of_f32 = with_precision(Precision::Bf16, || frozen(false));
    for (idx, want) in of_f32.iter().enumerate() {
        assert_close(&format!("bf16, value {idx}"), &in_bf16[idx], want, exact);
    }
}
