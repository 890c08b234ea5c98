//! Each operation with its sizes and options, for the checks of [`crate::check`].
//!
//! Tolerances: f32 sums of up to a few hundred products are within 3e-6 of the largest output or gradient; 1e-6 where
//! nothing is summed.

use std::sync::Arc;

use burn::tensor::Tensor;
use kernels::{
    Adapter, AttentionMask, GeluKind, Heads, LinearInput, LinearMap, LogProbs, WeightLayout,
    add_lora, attention, attention_packed, embedding, fused_linear, gelu, layer_norm, linear,
    linear_cross_entropy, linear_io, linear_logprobs, residual_rms_norm, rms_norm, rope, silu,
    swiglu,
};
use testkit::{Tolerance, values};

use crate::check::{Input, Leaf, Operation, View, as_view};
use crate::reference::{self, Inputs};
use crate::support::{device, ints, random};

const CLOSE: Tolerance = Tolerance { absolute: 2e-6, of_largest: 4e-6 };
/// A row of nearly equal values is divided by their small deviation, down to 0.03 here.
const NORMS: Tolerance = Tolerance { absolute: 1e-5, of_largest: 1e-5 };
/// The same where products follow.
const LAYER_NORM: Tolerance = Tolerance { absolute: 1e-5, of_largest: 1e-4 };
/// A gradient of scores is a difference of sums over a head's width that may cancel.
const ATTENTION: Tolerance = Tolerance { absolute: 1e-5, of_largest: 4e-6 };

fn flat<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let n: usize = x.dims().iter().product();
    x.reshape([n])
}

/// Like [`flat`]; if `strided`, the upstream gradient has other strides than the output.
fn flat_or_strided(x: Tensor<3>, strided: bool) -> Tensor<1> {
    flat(if strided { x.swap_dims(0, 2) } else { x })
}

/// The order of [`flat_or_strided`] for `[b, t, o]`.
fn exchanged(x: Vec<f64>, [b, t, o]: [usize; 3], strided: bool) -> Vec<f64> {
    if !strided {
        return x;
    }
    let place = |o_idx, t_idx, b_idx| (b_idx * t + t_idx) * o + o_idx;
    let rows = (0..o).flat_map(|o| (0..t).map(move |t| (o, t)));
    rows.flat_map(|(o, t)| (0..b).map(move |b| (o, t, b)))
        .map(|(o, t, b)| x[place(o, t, b)])
        .collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    RmsNorm,
    LayerNorm,
    LayerNormWithoutBias,
    GeluTanh,
    SwiGlu,
}

/// [`fused_linear`]: sizes, and the operations around the products.
#[derive(Clone, Debug)]
pub(crate) struct FusedLinear {
    pub(crate) kind: Kind,
    pub(crate) b: usize,
    pub(crate) t: usize,
    pub(crate) d_in: usize,
    pub(crate) outs: Vec<usize>,
    pub(crate) layout: WeightLayout,
    pub(crate) bias: bool,
    pub(crate) rank: Option<usize>,
    pub(crate) residual: bool,
    /// Of the input, the weights, the residual and the upstream gradient.
    pub(crate) view: View,
}

const EPS: f64 = 1e-3;
const LORA_SCALE: f64 = 0.7;

impl FusedLinear {
    fn inputs(&self) -> Vec<Input> {
        let Self { b, t, d_in, view, .. } = *self;
        let width = if self.kind == Kind::SwiGlu { 2 * d_in } else { d_in };
        let mut inputs = vec![Input::random(&[b, t, width], 1).view(view)];
        if matches!(self.kind, Kind::RmsNorm | Kind::LayerNorm | Kind::LayerNormWithoutBias) {
            inputs.push(Input::random(&[d_in], 2));
        }
        if self.kind == Kind::LayerNorm {
            inputs.push(Input::random(&[d_in], 4));
        }
        for (seed, out) in (10..).step_by(10).zip(&self.outs) {
            let shape =
                if self.layout == WeightLayout::OutIn { [*out, d_in] } else { [d_in, *out] };
            inputs.push(Input::random(&shape, seed).view(view));
            if self.bias {
                inputs.push(Input::random(&[*out], seed + 1));
            }
            if let Some(rank) = self.rank {
                inputs.push(Input::random(&[rank, d_in], seed + 2).view(view));
                inputs.push(Input::random(&[*out, rank], seed + 3).view(view));
            }
        }
        if self.residual {
            inputs.push(Input::random(&[b, t, self.outs.iter().sum()], 3).view(view));
        }
        inputs
    }

    fn run(&self, leaves: &[Leaf]) -> Tensor<1> {
        let mut leaves = leaves.iter();
        let mut next = || leaves.next().expect("an input");
        let x = next().d3();
        let read = match self.kind {
            Kind::Plain => LinearInput::Plain(x),
            Kind::RmsNorm => LinearInput::RmsNorm { x_btd: x, weight_d: next().d1(), eps: EPS },
            Kind::LayerNorm | Kind::LayerNormWithoutBias => {
                let weight_d = next().d1();
                let bias_d = (self.kind == Kind::LayerNorm).then(|| next().d1());
                LinearInput::LayerNorm { x_btd: x, weight_d, bias_d, eps: EPS }
            }
            Kind::GeluTanh => LinearInput::GeluTanh(x),
            Kind::SwiGlu => LinearInput::SwiGlu(x),
        };
        let maps: Vec<LinearMap> = (self.outs.iter())
            .map(|_| LinearMap {
                weight: next().d2().into(),
                layout: self.layout,
                bias_o: self.bias.then(|| next().d1()),
                adapter: self.rank.map(|_| Adapter {
                    a_ri: next().d2(),
                    b_or: next().d2(),
                    scale: LORA_SCALE,
                }),
            })
            .collect();
        let out = fused_linear(read, &maps, self.residual.then(|| next().d3()));
        flat_or_strided(out, self.view != View::Contiguous)
    }

    fn reference(&self, inputs: &Inputs) -> Vec<f64> {
        let (d_in, n) = (self.d_in, self.b * self.t);
        let mut inputs = inputs.iter();
        let mut next = || inputs.next().expect("an input");
        let x = next();
        let x = match self.kind {
            Kind::Plain => x.clone(),
            Kind::RmsNorm => reference::rms_norm(x, next(), EPS),
            Kind::LayerNorm => {
                let weight = next();
                reference::layer_norm(x, weight, Some(next()), EPS)
            }
            Kind::LayerNormWithoutBias => reference::layer_norm(x, next(), None, EPS),
            Kind::GeluTanh => x.iter().map(|x| reference::gelu_tanh(*x)).collect(),
            Kind::SwiGlu => x
                .chunks(2 * d_in)
                .flat_map(|row| reference::swiglu(&row[..d_in], &row[d_in..]))
                .collect(),
        };
        let width: usize = self.outs.iter().sum();
        let mut out = vec![0.0; n * width];
        let mut start = 0;
        for d_out in &self.outs {
            let weight = next();
            let mut y = match self.layout {
                WeightLayout::OutIn => reference::product(&x, weight, d_in),
                WeightLayout::InOut => {
                    reference::product(&x, &reference::transposed(weight, *d_out), d_in)
                }
            };
            if self.bias {
                reference::add_bias(&mut y, next());
            }
            if self.rank.is_some() {
                y = reference::sum(&y, &reference::lora(&x, next(), next(), d_in, LORA_SCALE));
            }
            for (out, y) in out.chunks_mut(width).zip(y.chunks(*d_out)) {
                out[start..start + d_out].copy_from_slice(y);
            }
            start += d_out;
        }
        if self.residual {
            out = reference::sum(&out, next());
        }
        exchanged(out, [self.b, self.t, width], self.view != View::Contiguous)
    }

    pub(crate) fn check(&self) {
        let operation = Operation {
            name: format!("{self:?}"),
            inputs: self.inputs(),
            run: &|leaves| self.run(leaves),
            reference: &|inputs| self.reference(inputs),
            tolerance: match self.kind {
                Kind::LayerNorm | Kind::LayerNormWithoutBias => LAYER_NORM,
                Kind::Plain | Kind::RmsNorm | Kind::GeluTanh | Kind::SwiGlu => CLOSE,
            },
        };
        let width: usize = self.outs.iter().sum();
        operation.check(self.b * self.t * self.d_in * width);
    }
}

/// [`attention`]: q, k and v in tensors of their own.
pub(crate) fn check_attention(sizes: &reference::Attention, view: View) {
    let reference::Attention { b, t, s, h, g, k, .. } = *sizes;
    let operation = Operation {
        name: format!("{view:?} {sizes:?}"),
        inputs: vec![
            Input::random(&[b, t, h, k], 1).view(view),
            Input::random(&[b, s, g, k], 2).view(view),
            Input::random(&[b, s, g, k], 3).view(view),
        ],
        run: &|leaves| {
            let [q, key, value] = [0, 1, 2].map(|idx: usize| leaves[idx].d4());
            let out = attention(q, key, value, &mask(sizes), sizes.scale);
            assert_eq!(out.dims(), [b, t, h, k]);
            flat(out)
        },
        reference: &|inputs| sizes.forward(&inputs[0], &inputs[1], &inputs[2]),
        tolerance: ATTENTION,
    };
    operation.check(b * t * s * h * (2 * k + 10));
}

fn mask(sizes: &reference::Attention) -> AttentionMask {
    let q_segments_bt = ints(&sizes.q_segments, [sizes.b, sizes.t]);
    let k_segments_bs = ints(&sizes.k_segments, [sizes.b, sizes.s]);
    let mask = if sizes.bidirectional {
        AttentionMask::bidirectional(q_segments_bt, k_segments_bs)
    } else {
        AttentionMask::causal(q_segments_bt, k_segments_bs)
    };
    let mask = match sizes.prefixes.as_slice() {
        [] => mask,
        prefixes => mask.with_prefixes(Arc::new(prefixes.to_vec())),
    };
    mask.with_window(sizes.window).with_soft_cap(sizes.soft_cap)
}

/// [`attention`] whose scores have a bias that is trained, for 1 or all rows and heads.
pub(crate) fn check_biased_attention(
    sizes: &reference::Attention,
    [rows, heads]: [usize; 2],
    view: View,
) {
    let reference::Attention { b, t, s, h, g, k, .. } = *sizes;
    let operation = Operation {
        name: format!("biased [{rows}, {heads}] {view:?} {sizes:?}"),
        inputs: vec![
            Input::random(&[b, t, h, k], 1).view(view),
            Input::random(&[b, s, g, k], 2).view(view),
            Input::random(&[b, s, g, k], 3).view(view),
            Input::random(&[rows, heads, t, s], 4).view(view),
        ],
        run: &|leaves| {
            let [q, key, value, bias] = [0, 1, 2, 3].map(|idx: usize| leaves[idx].d4());
            flat(attention(q, key, value, &mask(sizes).with_bias(bias), sizes.scale))
        },
        reference: &|inputs| {
            let bias = reference::Bias { values: &inputs[3], rows, heads };
            sizes.forward_with_bias(&inputs[0], &inputs[1], &inputs[2], Some(bias))
        },
        tolerance: ATTENTION,
    };
    operation.check(b * t * s * h * (2 * k + 10));
}

/// [`attention_packed`], with rotation by angles if `rotated`; as many keys as queries.
pub(crate) fn check_packed(sizes: &reference::Attention, rotated: bool, view: View) {
    let reference::Attention { b, t, h, g, k, .. } = *sizes;
    let angles = random([b, t, k / 2], 2, &device());
    let (cos, sin) = (angles.clone().cos(), angles.sin());
    let f64s = |x: &Tensor<3>| crate::support::f64s(x);
    let (cos64, sin64) = (f64s(&cos), f64s(&sin));
    let width = (h + 2 * g) * k;
    let operation = Operation {
        name: format!("packed, {rotated}, {view:?} {sizes:?}"),
        inputs: vec![Input::random(&[b, t, width], 1).view(view)],
        run: &|leaves| {
            let rope = rotated.then(|| (as_view(cos.clone(), view), as_view(sin.clone(), view)));
            let heads = Heads { h, g, k };
            let out = attention_packed(leaves[0].d3(), heads, rope, &mask(sizes), sizes.scale);
            flat_or_strided(out, view != View::Contiguous)
        },
        reference: &|inputs| {
            let part = |start: usize, n: usize| -> Vec<f64> {
                let rows = inputs[0].chunks(width);
                let part: Vec<f64> =
                    rows.flat_map(|row| row[start * k..(start + n) * k].to_vec()).collect();
                if rotated && start < h + g {
                    return reference::rope(&part, &cos64, &sin64, n, k);
                }
                part
            };
            let out = sizes.forward(&part(0, h), &part(h, g), &part(h + g, g));
            exchanged(out, [b, t, h * k], view != View::Contiguous)
        },
        tolerance: ATTENTION,
    };
    operation.check(b * t * t * h * (2 * k + 10));
}

pub(crate) fn check_rope([b, t, h, k]: [usize; 4], view: View) {
    let angles = random([b, t, k / 2], 2, &device());
    let (cos, sin) = (angles.clone().cos(), angles.sin());
    let (cos64, sin64) = (crate::support::f64s(&cos), crate::support::f64s(&sin));
    let operation = Operation {
        name: format!("rope {b} {t} {h} {k} {view:?}"),
        inputs: vec![Input::random(&[b, t, h, k], 1).view(view)],
        run: &|leaves| {
            flat(
                rope(leaves[0].d4(), as_view(cos.clone(), view), as_view(sin.clone(), view))
                    .swap_dims(1, 2),
            )
        },
        reference: &|inputs| {
            let out = reference::rope(&inputs[0], &cos64, &sin64, h, k);
            // `[b, t, h, k]` to `[b, h, t, k]`
            let rows = (0..b).flat_map(|b| (0..h).map(move |h| (b, h)));
            let rows = rows.flat_map(|(b, h)| (0..t).map(move |t| (b, h, t)));
            rows.flat_map(|(b, head, at)| out[((b * t + at) * h + head) * k..][..k].to_vec())
                .collect()
        },
        tolerance: Tolerance::absolute(1e-6),
    };
    operation.check(b * t * h * k);
}

/// [`rms_norm`] and [`layer_norm`].
pub(crate) fn check_norms([b, t, d]: [usize; 3], view: View) {
    let x = |seed| Input::random(&[b, t, d], seed).view(view);
    let weight = |seed| Input::random(&[d], seed);
    let check = |name: &str, inputs, run: &(dyn Fn(&[Leaf]) -> Tensor<1> + Sync), reference: &_| {
        let name = format!("{name} {b} {t} {d} {view:?}");
        Operation { name, inputs, run, reference, tolerance: NORMS }.check(b * t * d);
    };
    check(
        "rms_norm",
        vec![x(1), weight(2)],
        &|leaves| flat(rms_norm(leaves[0].d3(), leaves[1].d1(), EPS)),
        &|inputs: &Inputs| reference::rms_norm(&inputs[0], &inputs[1], EPS),
    );
    check(
        "layer_norm",
        vec![x(1), weight(2)],
        &|leaves| flat(layer_norm(leaves[0].d3(), leaves[1].d1(), None, EPS)),
        &|inputs: &Inputs| reference::layer_norm(&inputs[0], &inputs[1], None, EPS),
    );
    check(
        "layer_norm with bias",
        vec![x(1), weight(2), weight(3)],
        &|leaves| flat(layer_norm(leaves[0].d3(), leaves[1].d1(), Some(leaves[2].d1()), EPS)),
        &|inputs: &Inputs| reference::layer_norm(&inputs[0], &inputs[1], Some(&inputs[2]), EPS),
    );
}

/// [`residual_rms_norm`]: the norm, then the residual stream.
pub(crate) fn check_residual_norms([b, t, d]: [usize; 3], view: View) {
    let x = |seed| Input::random(&[b, t, d], seed).view(view);
    let check = |adds: bool| {
        let mut inputs = vec![Input::random(&[d], 2), x(1)];
        if adds {
            inputs.push(x(3));
        }
        let run = move |leaves: &[Leaf]| {
            let delta = adds.then(|| leaves[2].d3());
            let [y, sum] = residual_rms_norm(leaves[1].d3(), delta, leaves[0].d1(), EPS);
            flat(Tensor::cat(vec![y, sum], 0))
        };
        let reference = move |inputs: &Inputs| {
            let sum = if adds { reference::sum(&inputs[1], &inputs[2]) } else { inputs[1].clone() };
            let mut out = reference::rms_norm(&sum, &inputs[0], EPS);
            out.extend(sum);
            out
        };
        let name = format!("residual_rms_norm {b} {t} {d} {adds} {view:?}");
        let operation =
            Operation { name, inputs, run: &run, reference: &reference, tolerance: NORMS };
        operation.check(2 * b * t * d);
    };
    [false, true].into_iter().for_each(check);
}

pub(crate) fn check_activations(shape: [usize; 2], view: View) {
    // Up to ±8, where all activations are flat.
    let input = |seed| Input::random(&shape, seed).view(view).scaled(4.0);
    let check = |name: &str, n: u64, run: &(dyn Fn(&[Leaf]) -> Tensor<2> + Sync), reference: &_| {
        let operation = Operation {
            name: format!("{name} {shape:?} {view:?}"),
            inputs: (1..=n).map(input).collect(),
            run: &|leaves| flat(run(leaves).transpose()),
            reference: &|inputs: &Inputs| {
                let f: &(dyn Fn(&Inputs) -> Vec<f64> + Sync) = reference;
                reference::transposed(&f(inputs), shape[1])
            },
            tolerance: CLOSE,
        };
        operation.check(20 * shape[0] * shape[1]);
    };
    check("swiglu", 2, &|leaves| swiglu(leaves[0].d2(), leaves[1].d2()), &|inputs: &Inputs| {
        reference::swiglu(&inputs[0], &inputs[1])
    });
    let map = |f: fn(f64) -> f64| move |inputs: &Inputs| inputs[0].iter().copied().map(f).collect();
    check("silu", 1, &|leaves| silu(leaves[0].d2()), &map(reference::silu));
    let tanh = |leaves: &[Leaf]| gelu(leaves[0].d2(), GeluKind::Tanh);
    check("gelu, tanh", 1, &tanh, &map(reference::gelu_tanh));
    let exact = |leaves: &[Leaf]| gelu(leaves[0].d2().mul_scalar(0.5), GeluKind::Exact);
    check("gelu, exact", 1, &exact, &|inputs: &Inputs| {
        inputs[0].iter().map(|x| reference::gelu_exact(x / 2.0)).collect()
    });
}

/// [`linear`], [`linear_io`] and [`add_lora`] over the last of two or three axes.
pub(crate) fn check_linear([b, t, d_in, d_out]: [usize; 4], view: View) {
    for layout in [WeightLayout::OutIn, WeightLayout::InOut] {
        let shape = if layout == WeightLayout::OutIn { [d_out, d_in] } else { [d_in, d_out] };
        let operation = Operation {
            name: format!("linear {b} {t} {d_in} {d_out} {layout:?} {view:?}"),
            inputs: vec![
                Input::random(&[b, t, d_in], 1).view(view),
                Input::random(&shape, 2).view(view),
                Input::random(&[d_out], 3),
                Input::random(&[3, d_in], 4).view(view),
                Input::random(&[d_out, 3], 5).view(view),
            ],
            run: &|leaves| {
                let (x, weight, bias) = (leaves[0].d3(), leaves[1].d2(), leaves[2].d1());
                let y = match layout {
                    WeightLayout::OutIn => linear(x.clone(), weight, Some(bias)),
                    WeightLayout::InOut => linear_io(x.clone(), weight, Some(bias)),
                };
                let y = add_lora(y, x, leaves[3].d2(), leaves[4].d2(), LORA_SCALE);
                flat_or_strided(y, view != View::Contiguous)
            },
            reference: &|inputs| {
                let weight = match layout {
                    WeightLayout::OutIn => inputs[1].clone(),
                    WeightLayout::InOut => reference::transposed(&inputs[1], d_out),
                };
                let mut y = reference::product(&inputs[0], &weight, d_in);
                reference::add_bias(&mut y, &inputs[2]);
                let lora = reference::lora(&inputs[0], &inputs[3], &inputs[4], d_in, LORA_SCALE);
                exchanged(reference::sum(&y, &lora), [b, t, d_out], view != View::Contiguous)
            },
            tolerance: CLOSE,
        };
        operation.check(b * t * d_in * (d_out + 3));
    }
}

pub(crate) fn check_embedding(v: usize, d: usize, ids: &[i32], view: View) {
    let operation = Operation {
        name: format!("embedding {v} {d} {} {view:?}", ids.len()),
        inputs: vec![Input::random(&[v, d], 1).view(view)],
        run: &|leaves| {
            let out = embedding(leaves[0].d2(), ints(ids, [1, ids.len()]));
            flat_or_strided(out, view != View::Contiguous)
        },
        reference: &|inputs| {
            let rows = ids.iter().flat_map(|id| inputs[0][*id as usize * d..][..d].to_vec());
            exchanged(rows.collect(), [1, ids.len(), d], view != View::Contiguous)
        },
        tolerance: Tolerance { absolute: 1e-6, of_largest: 1e-6 },
    };
    operation.check(ids.len() * d);
}

/// [`linear_cross_entropy`] and [`linear_logprobs`]; rows with a negative target have none.
pub(crate) fn check_head(v: usize, d: usize, targets: &[i32], view: View) {
    let n = targets.len();
    // Logits of a trained model's size, whatever the width.
    let factor = 1.5 / (d as f32).sqrt();
    let inputs = vec![
        Input::random(&[n, d], 1).view(view),
        Input::random(&[v, d], 2).view(view).scaled(factor),
    ];
    let ids = || ints(targets, [n]);
    let operation = Operation {
        name: format!("linear_cross_entropy {v} {d} {targets:?} {view:?}"),
        inputs: inputs.clone(),
        run: &|leaves| linear_cross_entropy(leaves[0].d2(), leaves[1].d2(), ids()).sum,
        reference: &|inputs| {
            let all = reference::logprobs(&inputs[0], &inputs[1], targets, 1.0);
            vec![-all[..n].iter().sum::<f64>()]
        },
        tolerance: CLOSE,
    };
    operation.check(n * d * v + 20 * n * v);
    let correct = Operation {
        name: format!("rows with the right first choice {v} {d} {targets:?} {view:?}"),
        inputs: inputs.clone(),
        run: &|leaves| {
            let loss = linear_cross_entropy(leaves[0].d2(), leaves[1].d2(), ids());
            // With a graph to the inputs, whose gradients are zero.
            loss.n_correct + loss.sum.mul_scalar(0.0)
        },
        reference: &|inputs| {
            let of = |target| vec![target; n];
            let all = (0..v as i32)
                .map(|id| reference::logprobs(&inputs[0], &inputs[1], &of(id), 1.0))
                .collect::<Vec<_>>();
            let is_first = |row: usize, target: usize| {
                all.iter().all(|logprobs| logprobs[row] <= all[target][row])
            };
            let chosen = targets.iter().enumerate().filter(|(row, target)| {
                usize::try_from(**target).is_ok_and(|target| is_first(*row, target))
            });
            vec![chosen.count() as f64]
        },
        tolerance: Tolerance::absolute(0.0),
    };
    correct.check(n * d * v + 20 * n * v);
    for temperature in [1.0, 0.6] {
        let operation = Operation {
            name: format!("linear_logprobs {v} {d} {targets:?} {temperature} {view:?}"),
            inputs: inputs.clone(),
            run: &|leaves| {
                let found = linear_logprobs(leaves[0].d2(), leaves[1].d2(), ids(), temperature);
                let LogProbs { logprobs_n, entropy_n } = found;
                Tensor::cat(vec![logprobs_n, entropy_n], 0)
            },
            reference: &|inputs| reference::logprobs(&inputs[0], &inputs[1], targets, temperature),
            tolerance: CLOSE,
        };
        operation.check(n * d * v + 20 * n * v);
    }
    // The loss of a batch without targets is exactly zero.
    if targets.iter().all(|target| *target < 0) {
        let leaf = random([n, d], 1, &device());
        let loss = linear_cross_entropy(leaf, random([v, d], 2, &device()), ids()).sum;
        assert_eq!(values(&loss), [0.0]);
    }
}
