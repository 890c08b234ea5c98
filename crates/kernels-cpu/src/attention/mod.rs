//! Scaled dot-product attention with grouped key-value heads, in tiles.
//!
//! The backward pass keeps the inputs, the output and one number per row of scores; no matrix of all scores
//! exists.

mod backward;
mod dots;
mod few;
mod forward;
mod heads;
mod lanes;
mod panels;
mod problem;
mod small_product;
mod softmax;
mod visible;

use std::sync::Arc;

use burn::backend::TensorMetadata;
use burn::tensor::Shape;
use burn_flex::FlexTensor;

use self::backward::{ForwardState, Gradients, backward};
use self::forward::forward;
use self::heads::{HeadView, Rope, Strides, dense_heads};
pub use self::problem::CHUNK as KEY_CHUNK;
use self::problem::Problem;
pub use self::visible::{Direction, KeySegments, VisibleKeys};
use crate::autodiff::{CpuTensor, InputGradients, Op, record};
use crate::buffer::{Shared, filled};
use crate::flex;
use crate::precision::Precision;

/// Numbers of heads, and their width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub h: usize,
    /// Key-value heads; each serves `h / g` query heads.
    pub g: usize,
    /// Width of a head.
    pub k: usize,
}

/// Computation of scores from queries and keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreMeasure {
    /// Factor of the products.
    pub scale: f32,
    /// `cap · tanh(score / cap)` replaces each score.
    pub soft_cap: Option<f32>,
    /// Of the products of tiles.
    pub precision: Precision,
}

/// The tensors that hold queries, keys and values.
#[derive(Clone, Debug)]
// Few exist at a time, so their size on the stack does not matter.
#[allow(clippy::large_enum_variant)]
enum Source {
    /// All in one tensor, side by side.
    Packed(FlexTensor),
    /// One tensor each, `[b, t, n, k]`.
    Apart([(FlexTensor, Strides); 3]),
}

#[derive(Clone, Debug)]
struct Attention {
    source: Source,
    rope: Option<(FlexTensor, FlexTensor)>,
    visible: Arc<VisibleKeys>,
    heads: Heads,
    b: usize,
    t: usize,
    s: usize,
    measure: ScoreMeasure,
    out: FlexTensor,
    log_sums: FlexTensor,
}

/// `softmax(cap(q·kᵀ · scale)) · v` over the visible keys: q `[b, t, h, k]`, k and v `[b, s, g, k]` → `[b, t, h, k]`.
pub fn attention(
    [q, key, value]: [CpuTensor; 3],
    visible: Arc<VisibleKeys>,
    measure: ScoreMeasure,
) -> CpuTensor {
    let [b, t, h, k] = q.dims();
    let [_, s, g, _] = key.dims();
    let apart = [&q, &key, &value].map(|input| dense_heads(input.value().clone()));
    let heads = Heads { h, g, k };
    let source = Source::Apart(apart);
    let shape = Shape::new([b, t, h, k]);
    run(source, None, visible, heads, (b, t, s), measure, shape, &[&q, &key, &value])
}

/// [`attention`] of queries, keys and values in one tensor, `[b, t, (h + 2g) · k]` → `[b, t, h · k]`; queries and keys
/// are rotated first if `rope` has cosines and sines `[b, t, k / 2]`.
pub fn attention_packed(
    qkv: CpuTensor,
    heads: Heads,
    rope: Option<(FlexTensor, FlexTensor)>,
    visible: Arc<VisibleKeys>,
    measure: ScoreMeasure,
) -> CpuTensor {
    let [b, t, _] = qkv.dims();
    let rope = rope.map(|(cos, sin)| (cos.to_contiguous(), sin.to_contiguous()));
    let source = Source::Packed(qkv.value().to_contiguous());
    let shape = Shape::new([b, t, heads.h * heads.k]);
    run(source, rope, visible, heads, (b, t, t), measure, shape, &[&qkv])
}

#[allow(clippy::too_many_arguments)]
fn run(
    source: Source,
    rope: Option<(FlexTensor, FlexTensor)>,
    visible: Arc<VisibleKeys>,
    heads: Heads,
    (b, t, s): (usize, usize, usize),
    measure: ScoreMeasure,
    shape: Shape,
    inputs: &[&CpuTensor],
) -> CpuTensor {
    let Heads { h, k, .. } = heads;
    let keep = inputs.iter().any(|input| input.is_tracked());
    let mut log_sums = vec![0.0; if keep { b * h * t } else { 0 }];
    let out =
        with_problem(&source, rope.as_ref(), &visible, heads, (b, t, s), measure, |problem| {
            filled(b * t * h * k, |out| forward(problem, out, &mut log_sums))
        });
    let out = flex::tensor(out, shape);
    let saved = out.clone();
    record(inputs, out, || Attention {
        source,
        rope,
        visible,
        heads,
        b,
        t,
        s,
        measure,
        out: saved,
        log_sums: flex::tensor(log_sums, [b * h * t]),
    })
}

fn with_problem<R>(
    source: &Source,
    rope: Option<&(FlexTensor, FlexTensor)>,
    visible: &VisibleKeys,
    Heads { h, g, k }: Heads,
    (b, t, s): (usize, usize, usize),
    ScoreMeasure { scale, soft_cap, precision }: ScoreMeasure,
    run: impl FnOnce(&Problem<'_>) -> R,
) -> R {
    let rope = rope.map(|(cos, sin)| (flex::values(cos), flex::values(sin)));
    let rope = rope.as_ref().map(|(cos, sin)| Rope { cos, sin });
    assert!(visible.t == t && visible.s == s, "a mask of {t} queries and {s} keys");
    let problem = |q, key, value| Problem {
        b,
        t,
        s,
        h,
        g,
        k,
        scale,
        soft_cap,
        precision,
        q,
        key,
        value,
        rope,
        visible,
    };
    match source {
        Source::Packed(qkv) => {
            let values = flex::values(qkv);
            let width = (h + 2 * g) * k;
            let part = |start: usize| {
                let strides = Strides::packed(t, width, k, start * k);
                HeadView { values: &values, strides, k }
            };
            run(&problem(part(0), part(h), part(h + g)))
        }
        Source::Apart(parts) => {
            let [q, key, value] = parts.each_ref().map(|(x, strides)| HeadView {
                values: x.storage(),
                strides: *strides,
                k,
            });
            run(&problem(q, key, value))
        }
    }
}

impl Op for Attention {
    fn backward(self, d_out: FlexTensor, inputs: &mut InputGradients<'_>) {
        let Self { source, rope, visible, heads, b, t, s, measure, out, log_sums } = self;
        let Heads { h, g, k } = heads;
        let (out, d_out) = (flex::values(&out), flex::values(&d_out));
        let strides = Strides::packed(t, h * k, k, 0);
        let forward = ForwardState {
            out: HeadView { values: &out, strides, k },
            d_out: HeadView { values: &d_out, strides, k },
            log_sums: &flex::values(&log_sums),
        };
        let sizes = (b, t, s);
        let walk = |gradients: &Gradients<'_>| {
            with_problem(&source, rope.as_ref(), &visible, heads, sizes, measure, |problem| {
                backward(problem, &forward, gradients);
            });
        };
        match &source {
            Source::Packed(qkv) => {
                let width = (h + 2 * g) * k;
                let d_qkv = filled(b * t * width, |out| {
                    let out = Shared::new(out);
                    let part =
                        |start: usize| (out.clone(), Strides::packed(t, width, k, start * k));
                    walk(&Gradients { q: part(0), key: part(h), value: part(h + g) });
                });
                inputs.add(0, flex::tensor(d_qkv, qkv.shape()));
            }
            Source::Apart(_) => {
                let mut parts = [Vec::new(), Vec::new(), Vec::new()];
                let [d_q, d_key, d_value] = &mut parts;
                *d_q = filled(b * t * h * k, |d_q| {
                    *d_key = filled(b * s * g * k, |d_key| {
                        *d_value = filled(b * s * g * k, |d_value| {
                            let part = |out, t: usize, n: usize| {
                                (Shared::new(out), Strides::packed(t, n * k, k, 0))
                            };
                            walk(&Gradients {
                                q: part(d_q, t, h),
                                key: part(d_key, s, g),
                                value: part(d_value, s, g),
                            });
                        });
                    });
                });
                let shapes = [[b, t, h, k], [b, s, g, k], [b, s, g, k]];
                for (idx, (part, shape)) in parts.into_iter().zip(shapes).enumerate() {
                    inputs.add(idx, flex::tensor(part, shape));
                }
            }
        }
    }
}
