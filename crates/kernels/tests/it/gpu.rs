//! The kernels of `kernels-gpu`, through burn's dispatch, fusion and autodiff, against the reference in f64.
//!
//! They run on the device that `TEMPER_GPU_TESTS` names: `cuda`, a GPU or the stand-in of `tests/cuda`, or `wgpu`, a GPU or
//! Mesa's lavapipe; `tests/cuda/kernels.sh` and `tests/wgpu/run.sh` set it. Where it is not set and the build's device cannot be
//! used, each test is skipped and says so.

use burn::tensor::{Device, Tensor};
use kernels::{
    AdamwParameter, AdamwStep, LinearInput, LinearMap, Moments, Precision, WeightLayout,
    adamw_step, adamw_steps, sums_of_squares,
};
use testkit::{Tolerance, assert_close, values};

use crate::check::View;
use crate::operations::{
    FusedLinear, Kind, check_attention, check_embedding, check_head, check_norms, check_packed,
    check_residual_norms, check_rope,
};
use crate::reference::Attention;
use crate::support::{device, on_device, random};

const ALL: [View; 3] = [View::Contiguous, View::Transposed, View::Sliced];

/// The variable that names the device; a test fails where it cannot be used.
const VARIABLE: &str = "TEMPER_GPU_TESTS";

/// The device's name.
fn gpu() -> String {
    let default = if cfg!(feature = "cuda") { "cuda" } else { "wgpu" };
    std::env::var(VARIABLE).unwrap_or_else(|_| default.to_owned())
}

/// Calls `run` with a GPU as the device of the operations under test.
fn on_gpu(run: impl FnOnce()) {
    match kernels::device(&gpu()) {
        Ok(device) => on_device(device, run),
        Err(error) if std::env::var_os(VARIABLE).is_none() => {
            #[expect(clippy::print_stderr, reason = "a skipped test says so")]
            {
                eprintln!("skipped: {error}; see tests/cuda/README.md and tests/wgpu/run.sh");
            }
        }
        Err(error) => panic!("{error}"),
    }
}

/// A causal attention without borders.
fn plain([b, t, s]: [usize; 3], [h, g, k]: [usize; 3]) -> Attention {
    Attention {
        b,
        t,
        s,
        h,
        g,
        k,
        q_segments: vec![0; b * t],
        k_segments: vec![0; b * s],
        prefixes: Vec::new(),
        window: None,
        scale: 0.4,
        bidirectional: false,
        soft_cap: None,
    }
}

/// Rows of texts of `length` positions, with padding between some of them.
fn packed(sizes: [usize; 3], heads: [usize; 3], length: usize) -> Attention {
    let [b, t, _] = sizes;
    let segment = |i: usize| if i % t % 19 == 18 { -1 } else { (i % t / length) as i32 };
    let segments: Vec<i32> = (0..b * t).map(segment).collect();
    Attention { q_segments: segments.clone(), k_segments: segments, ..plain(sizes, heads) }
}

#[test]
fn norms() {
    on_gpu(|| {
        for dims in [[1, 1, 1], [2, 3, 8], [3, 7, 37], [1, 2, 1030]] {
            ALL.iter().for_each(|view| check_norms(dims, *view));
        }
    });
}

#[test]
fn norms_of_residual_streams() {
    on_gpu(|| {
        for dims in [[1, 1, 1], [2, 3, 8], [3, 7, 37]] {
            ALL.iter().for_each(|view| check_residual_norms(dims, *view));
        }
    });
}

/// A NaN in a hidden key may spread to queries that do not see it, as in the generic kernels: its weight is 0.
#[test]
fn packed_attention() {
    on_gpu(|| {
        let cases = [
            plain([1, 1, 1], [1, 1, 2]),
            plain([2, 7, 7], [4, 2, 6]),
            packed([2, 37, 37], [4, 2, 10], 9),
            Attention { window: Some(5), ..packed([1, 41, 41], [2, 1, 32], 40) },
            Attention { soft_cap: Some(1.5), ..plain([1, 18, 18], [3, 1, 34]) },
            Attention { bidirectional: true, ..packed([2, 20, 20], [2, 2, 8], 7) },
            Attention { bidirectional: true, window: Some(3), ..plain([1, 20, 20], [2, 2, 8]) },
        ];
        for case in cases {
            for rotated in [false, true] {
                check_packed(&case, rotated, View::Contiguous);
            }
            check_packed(&case, true, View::Sliced);
        }
    });
}

/// Widths of published models, over several tiles.
#[test]
fn packed_attention_of_wide_heads() {
    on_gpu(|| {
        check_packed(&plain([1, 70, 70], [2, 1, 64]), true, View::Contiguous);
        check_packed(&plain([1, 36, 36], [2, 1, 128]), true, View::Contiguous);
        check_packed(&plain([1, 20, 20], [1, 1, 256]), true, View::Contiguous);
    });
}

#[test]
fn attention_of_separate_heads() {
    on_gpu(|| {
        let unseen = Attention {
            q_segments: (0..30).map(|i| if i == 15 { 9 } else { 0 }).collect(),
            k_segments: (0..30).map(|i| i32::from(i % 10 == 4)).collect(),
            ..plain([1, 30, 30], [2, 1, 4])
        };
        let nothing = Attention { q_segments: vec![3; 6], ..plain([1, 6, 6], [2, 1, 4]) };
        let cases = [
            plain([2, 1, 9], [4, 2, 6]),
            plain([1, 3, 70], [4, 1, 33]),
            Attention { window: Some(4), ..plain([2, 2, 9], [2, 1, 4]) },
            Attention { bidirectional: true, ..plain([1, 9, 5], [2, 2, 3]) },
            Attention { soft_cap: Some(2.0), window: Some(6), ..plain([1, 12, 20], [4, 2, 16]) },
            unseen,
            nothing,
        ];
        for case in cases {
            ALL.iter().for_each(|view| check_attention(&case, *view));
        }
    });
}

#[test]
fn rotary_positions() {
    on_gpu(|| {
        for dims in [[1, 1, 1, 2], [2, 3, 2, 6], [1, 17, 3, 64]] {
            ALL.iter().for_each(|view| check_rope(dims, *view));
        }
    });
}

#[test]
fn rows_of_a_table() {
    on_gpu(|| {
        let repeated: Vec<i32> = (0..90).map(|i| i * i % 7).collect();
        for view in [View::Contiguous, View::Sliced] {
            check_embedding(1, 1, &[0], view);
            check_embedding(9, 5, &[3, 3, 0, 8, 3], view);
            check_embedding(7, 70, &repeated, view);
        }
    });
}

#[test]
fn heads_with_losses_and_logprobs() {
    on_gpu(|| {
        for view in [View::Contiguous, View::Transposed] {
            check_head(1, 1, &[0], view);
            check_head(11, 6, &[3, -1, 10, 0, -100], view);
            check_head(300, 9, &[299, 0, 17], view);
            check_head(11, 6, &[-1, -1], view);
        }
    });
}

#[test]
fn gated_inputs_and_norms_of_products() {
    on_gpu(|| {
        for kind in [Kind::SwiGlu, Kind::RmsNorm, Kind::LayerNorm, Kind::GeluTanh] {
            for view in [View::Contiguous, View::Sliced] {
                let case = FusedLinear {
                    kind,
                    b: 2,
                    t: 5,
                    d_in: 7,
                    outs: vec![9, 4],
                    layout: WeightLayout::OutIn,
                    bias: true,
                    rank: None,
                    residual: true,
                    view,
                };
                case.check();
            }
        }
    });
}

/// Weights of one product: stacked ones, and those that stay apart because of a bias, an adapter or their axis order.
#[test]
fn products_of_several_weights() {
    on_gpu(|| {
        let plain = FusedLinear {
            kind: Kind::Plain,
            b: 2,
            t: 5,
            d_in: 7,
            outs: vec![9, 4, 30],
            layout: WeightLayout::OutIn,
            bias: false,
            rank: None,
            residual: false,
            view: View::Contiguous,
        };
        for view in ALL {
            FusedLinear { view, ..plain.clone() }.check();
        }
        FusedLinear { outs: vec![6, 300], d_in: 33, residual: true, ..plain.clone() }.check();
        FusedLinear { outs: vec![5], kind: Kind::RmsNorm, bias: true, ..plain.clone() }.check();
        FusedLinear { outs: vec![5, 2], bias: true, ..plain.clone() }.check();
        FusedLinear { outs: vec![5, 2], rank: Some(2), ..plain.clone() }.check();
        FusedLinear { outs: vec![5, 2], layout: WeightLayout::InOut, ..plain }.check();
    });
}

/// Products in reduced precision, forward and backward, by the kernels that shapes select.
#[test]
fn products_whose_kernels_are_not_timed() {
    on_gpu(|| {
        let product = |device: &Device| -> Vec<Vec<f32>> {
            let device = device.clone().autodiff();
            let leaf = |shape: [usize; 2], seed| random(shape, seed, &device).require_grad();
            let (x, weight) = (leaf([70, 40], 1), leaf([24, 40], 2));
            let y = kernels::linear(x.clone(), weight.clone(), None);
            let grads = (y.clone() * random([70, 24], 3, &device)).sum().backward();
            let of = |x: &Tensor<2>| values(&x.grad(&grads).expect("a gradient"));
            vec![values(&y), of(&x), of(&weight)]
        };
        let want = kernels::with_generic_kernels(|| product(&Device::flex()));
        kernels::set_deterministic(true);
        for (precision, of_largest) in [(Precision::Tf32, 1e-3), (Precision::Bf16, 1e-2)] {
            if kernels::check_precision(&gpu(), precision).is_err() {
                continue;
            }
            let (got, again) =
                kernels::with_precision(precision, || (product(&device()), product(&device())));
            assert_eq!(got, again);
            for (got, want) in got.iter().zip(&want) {
                let tolerance = Tolerance { absolute: 1e-6, of_largest };
                assert_close(&format!("{precision:?}"), got, want, tolerance);
            }
        }
        kernels::set_deterministic(false);
    });
}

/// Weights that an update has put below each other, and a product that reads them without a copy.
#[test]
fn products_of_updated_weights() {
    on_gpu(|| {
        let sizes = [128, 256, 128, 33, 128];
        let start = |device: &Device| -> Vec<Tensor<1>> {
            sizes.iter().zip(1..).map(|(n, seed)| random([n * 8], seed, device)).collect()
        };
        let step = AdamwStep {
            lr: 0.01,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            step: 1,
            grad_scale: 1.0,
        };
        let updated = |device: &Device| -> Vec<Tensor<1>> {
            let parameter = |weight: Tensor<1>| AdamwParameter {
                grad: weight.clone().sin(),
                moments: Moments::zeros_like(&weight),
                weight,
                step,
            };
            let parameters = start(device).into_iter().map(parameter).collect();
            adamw_steps(parameters).into_iter().map(|(weight, _)| weight).collect()
        };
        let product = |device: &Device, which: &[usize]| -> Vec<Vec<f32>> {
            let weights = updated(device);
            let device = device.clone().autodiff();
            let map = |i: &usize| LinearMap {
                weight: Tensor::from_inner(weights[*i].clone().reshape([sizes[*i], 8]))
                    .require_grad()
                    .into(),
                layout: WeightLayout::OutIn,
                bias_o: None,
                adapter: None,
            };
            let maps: Vec<LinearMap> = which.iter().map(map).collect();
            let x = random([1, 3, 8], 9, &device).require_grad();
            let y = kernels::fused_linear(LinearInput::Plain(x.clone()), &maps, None);
            let grads = y.clone().square().sum().backward();
            let mut found = vec![values(&y), values(&x.grad(&grads).expect("a gradient"))];
            found.extend(maps.iter().map(|map| values(&map.weight.grad(&grads).expect("one"))));
            found
        };
        let tight = Tolerance { absolute: 1e-5, of_largest: 4e-6 };
        for which in [&[0, 1, 2][..], &[0, 1], &[1, 0], &[2, 3, 4], &[0, 2]] {
            let (got, want) = (product(&device(), which), product(&Device::flex(), which));
            for (got, want) in got.iter().zip(&want) {
                assert_close(&format!("weights {which:?}"), got, want, tight);
            }
        }
    });
}

/// More parameters than a launch takes, with two kinds of settings; the first weight has another owner.
#[test]
fn adamw_of_many_parameters() {
    on_gpu(|| {
        let lengths: Vec<usize> =
            (0..70).map(|i| [1, 5, 1000, 1024, 9001, 33][i % 6] + i / 6).collect();
        let (cpu, gpu) = (Device::flex(), device());
        let all = |seed: u64, device: &Device| -> Vec<Tensor<1>> {
            let of = |(i, n): (usize, &usize)| random([*n], seed * 100 + i as u64, device);
            lengths.iter().enumerate().map(of).collect()
        };
        let mut want: Vec<(Tensor<1>, Moments)> =
            all(1, &cpu).into_iter().map(|w| (w.clone(), Moments::zeros_like(&w))).collect();
        let mut found: Vec<(Tensor<1>, Moments)> =
            all(1, &gpu).into_iter().map(|w| (w.clone(), Moments::zeros_like(&w))).collect();
        let kept = found[0].0.clone();
        let before = values(&kept);
        for number in 1..=3 {
            let step = |i: usize| AdamwStep {
                lr: 0.01,
                beta1: 0.9,
                beta2: 0.95,
                eps: 1e-8,
                weight_decay: if i % 3 == 0 { 0.0 } else { 0.1 },
                step: number,
                grad_scale: 0.25,
            };
            let grads = all(number + 1, &cpu);
            for (i, ((weight, moments), grad)) in want.iter_mut().zip(grads).enumerate() {
                *weight = adamw_step(weight.clone(), grad, moments, &step(i));
            }
            let parameters = found.into_iter().zip(all(number + 1, &gpu)).enumerate();
            let parameter = |(i, ((weight, moments), grad))| AdamwParameter {
                weight,
                grad,
                moments,
                step: step(i),
            };
            found = adamw_steps(parameters.map(parameter).collect());
        }
        let tight = Tolerance { absolute: 1e-6, of_largest: 1e-6 };
        for (i, (want, found)) in want.iter().zip(&found).enumerate() {
            let close = |what: &str, got: &Tensor<1>, want: &Tensor<1>| {
                assert_close(&format!("{what} {i}"), &values(got), &values(want), tight);
            };
            close("weight", &found.0, &want.0);
            close("first moment", &found.1.m, &want.1.m);
            close("second moment", &found.1.v, &want.1.v);
        }
        assert_eq!(values(&kept), before);
    });
}

#[test]
fn sums_of_squares_of_many_tensors() {
    on_gpu(|| {
        let lengths: Vec<usize> = (0..35).map(|i| [1, 70, 4097, 20_011][i % 4] + i / 4).collect();
        let tensors = |device: &Device| -> Vec<Tensor<1>> {
            lengths.iter().zip(1..).map(|(n, seed)| random([*n], seed, device)).collect()
        };
        let (cpu, gpu) = (tensors(&Device::flex()), tensors(&device()));
        let want = sums_of_squares(&cpu.iter().collect::<Vec<_>>());
        let found = sums_of_squares(&gpu.iter().collect::<Vec<_>>());
        let again = sums_of_squares(&gpu.iter().collect::<Vec<_>>());
        assert_eq!(found, again);
        assert_eq!(found.len(), want.len());
        for (found, want) in found.iter().zip(&want) {
            assert!((found / want - 1.0).abs() < 1e-6, "{found} for {want}");
        }
        let spoiled = random::<1>([300], 1, &device()).slice_fill([7..8], f32::NAN);
        let found = sums_of_squares(&[&gpu[0], &spoiled, &gpu[1]]);
        let is_nan: Vec<bool> = found.iter().map(|x| x.is_nan()).collect();
        assert_eq!(is_nan, [false, true, false]);
    });
}
