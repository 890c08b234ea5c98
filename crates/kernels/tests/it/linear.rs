//! Products with a weight, and rows of a table.

use burn::tensor::{Device, Tensor};
use kernels::{embedding, linear, linear_io};
use testkit::{Tolerance, assert_close, values};

use crate::support::{cpu_against_generic, f32s, f64s, ints, random};

fn oracle(x: &[f64], weight_oi: &[f64], bias: Option<&[f64]>, d_in: usize) -> Vec<f64> {
    let row = |x: &[f64]| -> Vec<f64> {
        let product = |w: &[f64]| x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
        let bias = |o: usize| bias.map_or(0.0, |bias| bias[o]);
        weight_oi.chunks(d_in).enumerate().map(|(o, w)| product(w) + bias(o)).collect()
    };
    x.chunks(d_in).flat_map(row).collect()
}

#[test]
fn linear_with_any_number_of_rows() {
    let (d_in, d_out) = (9, 5);
    for device in [Device::flex(), Device::flex().autodiff()] {
        let weight = random([d_out, d_in], 1, &device);
        let bias = random([d_out], 2, &device);
        for (b, t) in [(1, 1), (1, 2), (2, 1), (3, 7), (8, 8), (5, 13), (10, 13)] {
            for bias in [None, Some(bias.clone())] {
                let x = random([b, t, d_in], 3, &device);
                let bias64 = bias.as_ref().map(f64s);
                let want = oracle(&f64s(&x), &f64s(&weight), bias64.as_deref(), d_in);
                let got = linear(x.clone(), weight.clone(), bias.clone());
                assert_eq!(got.dims(), [b, t, d_out]);
                let close = Tolerance::absolute(3e-6);
                assert_close("linear", &values(&got), &f32s(&want), close);
                let got = linear_io(x, weight.clone().transpose(), bias);
                assert_close("linear_io", &values(&got), &f32s(&want), close);
            }
        }
    }
}

#[test]
fn gradients_of_linear() {
    let device = Device::flex().autodiff();
    let weight = random([4, 6], 1, &device).require_grad();
    let bias = random([4], 2, &device).require_grad();
    let x = random([2, 3, 6], 3, &device).require_grad();
    let upstream = random([2, 3, 4], 4, &Device::flex());
    let out = linear(x.clone(), weight.clone(), Some(bias.clone()));
    let gradients = (out * upstream.clone()).sum().backward();
    let up = upstream.reshape([6, 4]);
    let close = Tolerance::absolute(3e-6);
    let want: Tensor<2> = up.clone().matmul(weight.clone().inner());
    let got = x.grad(&gradients).expect("a gradient");
    assert_close("x", &values(&got), &values(&want), close);
    let want: Tensor<2> = up.clone().transpose().matmul(x.inner().reshape([6, 6]));
    let got = weight.grad(&gradients).expect("a gradient");
    assert_close("weight", &values(&got), &values(&want), close);
    let got = bias.grad(&gradients).expect("a gradient");
    assert_close("bias", &values(&got), &values(&up.sum_dim(0)), close);
}

#[test]
fn rows_of_a_table() {
    let device = Device::flex().autodiff();
    let table = random([5, 3], 1, &device).require_grad();
    let ids = [4, 0, 4, 2];
    let out = embedding(table.clone(), ints(&ids, [2, 2]));
    assert_eq!(out.dims(), [2, 2, 3]);
    let all = values(&table);
    let want: Vec<f32> = ids.iter().flat_map(|id| all[*id as usize * 3..][..3].to_vec()).collect();
    assert_eq!(values(&out), want);
    let upstream = random([2, 2, 3], 2, &Device::flex());
    let gradients = (out * upstream.clone()).sum().backward();
    let mut want = vec![0.0; 15];
    for (id, row) in ids.iter().zip(values(&upstream).chunks(3)) {
        for (sum, value) in want[*id as usize * 3..].iter_mut().zip(row) {
            *sum += value;
        }
    }
    let got = values(&table.grad(&gradients).expect("a gradient"));
    assert_close("table", &got, &want, Tolerance::absolute(1e-6));
}

#[test]
fn a_table_that_is_the_head_too_gets_both_gradients() {
    let close = Tolerance { absolute: 2e-6, of_largest: 4e-6 };
    for (v, d, n) in [(1, 1, 1), (7, 5, 40), (70, 33, 500)] {
        cpu_against_generic(&format!("{v} {d} {n}"), close, || {
            let device = Device::flex().autodiff();
            let table = random([v, d], 1, &device).require_grad();
            let ids: Vec<i32> = (0..n).map(|i| (i * i + 3) % v as i32).collect();
            let rows = embedding(table.clone(), ints(&ids, [1, n as usize]));
            let found = values(&rows);
            let targets = ints(&ids, [n as usize]);
            let hidden = rows.flatten::<2>(0, 1);
            let loss = kernels::linear_cross_entropy(hidden, table.clone(), targets).sum;
            let gradients = loss.backward();
            vec![found, values(&table.grad(&gradients).expect("a gradient"))]
        });
    }
}
