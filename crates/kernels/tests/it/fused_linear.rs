//! Linear maps of one input, CPU kernels against generic ones: outputs and all gradients.

use burn::tensor::{Device, Tensor};
use kernels::{Adapter, LinearInput, LinearMap, WeightLayout, fused_linear};
use testkit::{Tolerance, values};

use crate::support::{cpu_against_generic, random};

const CLOSE: Tolerance = Tolerance { absolute: 2e-6, of_largest: 4e-6 };

#[derive(Clone, Copy, Debug)]
enum Kind {
    Plain,
    RmsNorm,
    LayerNorm,
    GeluTanh,
    SwiGlu,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    kind: Kind,
    b: usize,
    t: usize,
    d_in: usize,
    /// Widths of the outputs.
    outs: &'static [usize],
    layout: WeightLayout,
    bias: bool,
    /// Rank of the adapters, if there are any; then the weights are frozen.
    rank: Option<usize>,
    residual: bool,
    /// Input and upstream gradient are views with other strides.
    views: bool,
}

const PLAIN: Case = Case {
    kind: Kind::Plain,
    b: 2,
    t: 7,
    d_in: 12,
    outs: &[9],
    layout: WeightLayout::OutIn,
    bias: false,
    rank: None,
    residual: false,
    views: false,
};

fn cases() -> Vec<Case> {
    let mut cases = vec![
        PLAIN,
        Case { b: 1, t: 1, d_in: 1, outs: &[1], ..PLAIN },
        Case { views: true, residual: true, ..PLAIN },
        Case { layout: WeightLayout::InOut, bias: true, ..PLAIN },
        Case { bias: true, residual: true, outs: &[9, 4], ..PLAIN },
        Case { b: 3, t: 129, d_in: 70, outs: &[65, 33, 17], ..PLAIN },
    ];
    for kind in [Kind::RmsNorm, Kind::LayerNorm, Kind::GeluTanh, Kind::SwiGlu] {
        cases.extend([
            Case { kind, ..PLAIN },
            Case { kind, b: 1, t: 1, d_in: 2, outs: &[3], ..PLAIN },
            Case { kind, residual: true, bias: true, ..PLAIN },
            Case { kind, views: true, outs: &[9, 3, 3], ..PLAIN },
            Case { kind, rank: Some(3), residual: true, ..PLAIN },
            Case { kind, b: 2, t: 150, d_in: 96, outs: &[96, 32, 32], rank: Some(8), ..PLAIN },
        ]);
    }
    cases.push(Case { rank: Some(1), layout: WeightLayout::InOut, outs: &[9, 4], ..PLAIN });
    cases
}

fn on_strides(x: Tensor<3>, views: bool) -> Tensor<3> {
    if views { x.swap_dims(1, 2).mul_scalar(1.0).swap_dims(1, 2) } else { x }
}

/// The output and the gradients of all inputs, in order. The inputs for which `trained` is true are tracked.
fn run(case: Case, trained: impl Fn(usize) -> bool) -> Vec<Vec<f32>> {
    let device = Device::flex().autodiff();
    let Case { kind, b, t, d_in, outs, layout, rank, .. } = case;
    let mut leaves2: Vec<Tensor<2>> = Vec::new();
    let mut leaves1: Vec<Tensor<1>> = Vec::new();
    let mut idx = 0;
    let mut track = || {
        idx += 1;
        trained(idx - 1)
    };
    let width = if matches!(kind, Kind::SwiGlu) { 2 * d_in } else { d_in };
    let x_shape = if case.views { [b, width, t] } else { [b, t, width] };
    let x = random(x_shape, 1, &device).set_require_grad(track());
    let x_in = if case.views { x.clone().swap_dims(1, 2) } else { x.clone() };
    let norm = random([d_in], 2, &device).set_require_grad(track());
    let mut maps = Vec::new();
    for (seed, out) in (10..).step_by(10).zip(outs) {
        let shape = if layout == WeightLayout::OutIn { [*out, d_in] } else { [d_in, *out] };
        let tracked = track() && rank.is_none();
        let weight = random(shape, seed, &device).set_require_grad(tracked);
        let bias = random([*out], seed + 1, &device).set_require_grad(track());
        let adapter = rank.map(|rank| {
            let a_ri = random([rank, d_in], seed + 2, &device).set_require_grad(track());
            let b_or = random([*out, rank], seed + 3, &device).set_require_grad(track());
            leaves2.extend([a_ri.clone(), b_or.clone()]);
            Adapter { a_ri, b_or, scale: 0.7 }
        });
        leaves2.push(weight.clone());
        leaves1.push(bias.clone());
        maps.push(LinearMap {
            weight: weight.into(),
            layout,
            bias_o: case.bias.then_some(bias),
            adapter,
        });
    }
    let total: usize = outs.iter().sum();
    let residual = random([b, t, total], 3, &device).set_require_grad(track());
    leaves1.push(norm.clone());
    let read = match kind {
        Kind::Plain => LinearInput::Plain(x_in),
        Kind::RmsNorm => LinearInput::RmsNorm { x_btd: x_in, weight_d: norm, eps: 1e-5 },
        Kind::LayerNorm => LinearInput::LayerNorm {
            x_btd: x_in,
            weight_d: norm.clone(),
            bias_d: Some(norm),
            eps: 1e-5,
        },
        Kind::GeluTanh => LinearInput::GeluTanh(x_in),
        Kind::SwiGlu => LinearInput::SwiGlu(x_in),
    };
    let out = fused_linear(read, &maps, case.residual.then(|| residual.clone()));
    assert_eq!(out.dims(), [b, t, total]);
    let upstream = on_strides(random([b, t, total], 4, &Device::flex()), case.views);
    let mut found = vec![values(&out)];
    let gradients = (out * upstream).sum().backward();
    let mut see = |gradient: Option<Vec<f32>>| found.push(gradient.unwrap_or_default());
    see(x.grad(&gradients).map(|g| values(&g)));
    see(residual.grad(&gradients).map(|g| values(&g)));
    for leaf in &leaves2 {
        see(leaf.grad(&gradients).map(|g| values(&g)));
    }
    for leaf in &leaves1 {
        see(leaf.grad(&gradients).map(|g| values(&g)));
    }
    found
}

#[test]
fn maps_agree_with_their_plain_bodies() {
    for case in cases() {
        cpu_against_generic(&format!("{case:?}"), CLOSE, || run(case, |_| true));
    }
}

#[test]
fn what_is_frozen_gets_no_gradient_and_changes_no_other() {
    let case = Case { kind: Kind::RmsNorm, bias: true, rank: Some(2), residual: true, ..PLAIN };
    // x, norm, weight, bias, a, b, residual.
    for kept in 0..7 {
        // A weight with an adapter is always frozen.
        if kept == 2 {
            continue;
        }
        cpu_against_generic(&format!("only {kept}"), CLOSE, || run(case, |idx| idx == kept));
        cpu_against_generic(&format!("not {kept}"), CLOSE, || run(case, |idx| idx != kept));
    }
}

#[test]
fn a_weight_used_twice_gets_both_gradients() {
    let run = || {
        let device = Device::flex().autodiff();
        let weight = random([6, 6], 1, &device).require_grad();
        let x = random([2, 5, 6], 2, &device);
        let map = LinearMap {
            weight: weight.clone().into(),
            layout: WeightLayout::OutIn,
            bias_o: None,
            adapter: None,
        };
        let once = fused_linear(LinearInput::Plain(x), std::slice::from_ref(&map), None);
        let twice = fused_linear(LinearInput::Plain(once), &[map], None);
        let gradients = twice.square().sum().backward();
        vec![values(&weight.grad(&gradients).expect("a gradient"))]
    };
    cpu_against_generic("twice", Tolerance { absolute: 0.0, of_largest: 3e-6 }, run);
}

#[test]
fn without_autodiff_nothing_is_recorded() {
    let map = LinearMap {
        weight: random([5, 4], 1, &Device::flex()).into(),
        layout: WeightLayout::OutIn,
        bias_o: None,
        adapter: None,
    };
    let out = fused_linear(LinearInput::Plain(random([1, 3, 4], 2, &Device::flex())), &[map], None);
    assert!(!out.is_autodiff());
}

#[test]
fn products_add_to_a_sum_that_was_lent() {
    let device = Device::flex().autodiff();
    let [used, other] = [1, 2].map(|seed| random::<2>([6, 6], seed, &device).require_grad());
    let x = random([2, 5, 6], 3, &device);
    let map = |weight: &Tensor<2>| LinearMap {
        weight: weight.clone().into(),
        layout: WeightLayout::OutIn,
        bias_o: None,
        adapter: None,
    };
    let gradient = || {
        let out = fused_linear(LinearInput::Plain(x.clone()), &[map(&used)], None);
        out.square().sum().backward()
    };
    let alone = values(&used.grad(&gradient()).expect("a gradient"));
    let earlier = random::<1>([36], 4, &Device::flex());
    for parameter in [&used, &other] {
        assert!(
            kernels::donate_grad_buffer(parameter, earlier.clone()).is_none(),
            "it was not lent"
        );
    }
    let both = values(&used.grad(&gradient()).expect("a gradient"));
    let want: Vec<f32> = alone.iter().zip(values(&earlier)).map(|(new, old)| new + old).collect();
    testkit::assert_close("the sum", &both, &want, CLOSE);
    assert!(kernels::reclaim_grad_buffer(&used).is_none(), "it was added to");
    let back = kernels::reclaim_grad_buffer(&other).expect("nothing used it");
    assert_eq!(values(&back), values(&earlier));
    assert!(kernels::reclaim_grad_buffer(&other).is_none());
    let frozen = random::<2>([6, 6], 5, &device);
    assert!(kernels::donate_grad_buffer(&frozen, earlier).is_some(), "nothing adds to it");
}
